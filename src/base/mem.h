/* Memory: a growing arena (one lifetime, freed at once) and checked size arithmetic. Not thread-safe. */
#ifndef NS_BASE_MEM_H
#define NS_BASE_MEM_H
#include <stdbool.h>
#include <stddef.h>

typedef struct ns_arena {
    struct ns_arena_block *head;
    size_t used; /* bytes handed out, padding included */
} ns_arena;

/* 64-byte aligned, zeroed; NULL when memory is out. A zero-initialised ns_arena is a valid empty one. */
void *ns_arena_alloc(ns_arena *a, size_t size);
void *ns_arena_array(ns_arena *a, size_t n, size_t size); /* n * size, overflow-checked */
char *ns_arena_strdup(ns_arena *a, const char *s);
char *ns_arena_strndup(ns_arena *a, const char *s, size_t n);
void ns_arena_release(ns_arena *a);

/* *out = a * b; false on overflow (then *out is untouched). */
static inline bool ns_mul_size(size_t a, size_t b, size_t *out)
{
    size_t r;
    if (__builtin_mul_overflow(a, b, &r))
        return false;
    *out = r;
    return true;
}

/* Heap memory aligned to 64 bytes, uninitialised; release with free(). */
void *ns_alloc_aligned(size_t size);
#endif
