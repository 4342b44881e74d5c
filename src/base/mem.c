#include "base/mem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGN = 64, BLOCK = 64 * 1024 };

typedef struct ns_arena_block {
    struct ns_arena_block *next;
    size_t size, used; /* bytes after the header */
} ns_arena_block;

static size_t round_up(size_t n)
{
    return (n + ALIGN - 1) / ALIGN * ALIGN;
}

static ns_arena_block *new_block(size_t size)
{
    ns_arena_block *b = ns_alloc_aligned(round_up(sizeof *b) + size);
    if (!b)
        return NULL;
    *b = (ns_arena_block){ .size = size };
    return b;
}

void *ns_arena_alloc(ns_arena *a, size_t size)
{
    if (size > SIZE_MAX / 2)
        return NULL;
    size = round_up(size ? size : 1);
    if (!a->head || a->head->size - a->head->used < size) {
        ns_arena_block *b = new_block(size > BLOCK ? size : BLOCK);
        if (!b)
            return NULL;
        b->next = a->head;
        a->head = b;
    }
    char *p = (char *)a->head + round_up(sizeof *a->head) + a->head->used;
    a->head->used += size;
    a->used += size;
    return memset(p, 0, size);
}

void *ns_arena_array(ns_arena *a, size_t n, size_t size)
{
    size_t bytes;
    return ns_mul_size(n, size, &bytes) ? ns_arena_alloc(a, bytes) : NULL;
}

char *ns_arena_strndup(ns_arena *a, const char *s, size_t n)
{
    char *p = ns_arena_alloc(a, n + 1);
    if (p)
        memcpy(p, s, n); /* the arena hands out zeroed memory, so the terminator is there */
    return p;
}

char *ns_arena_strdup(ns_arena *a, const char *s)
{
    return ns_arena_strndup(a, s, strlen(s));
}

void ns_arena_release(ns_arena *a)
{
    for (ns_arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    *a = (ns_arena){ 0 };
}

void *ns_alloc_aligned(size_t size)
{
    void *p = NULL;
    return posix_memalign(&p, ALIGN, size ? size : ALIGN) == 0 ? p : NULL;
}
