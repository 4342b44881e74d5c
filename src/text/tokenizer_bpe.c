#include "text/tokenizer_bpe.h"

#include <stdlib.h>
#include <string.h>

enum { SHORT_PIECE = 32, NONE = -1 };

/* A doubly linked list in an array; a symbol merged into its left neighbour has id NONE. */
typedef struct ns_symbol {
    int id;
    uint32_t prev, next; /* indexes; n stands for none in `next`, UINT32_MAX in `prev` */
} symbol;

static size_t slot_of(const ns_bpe *b, int left, int right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    key *= 0x9e3779b97f4a7c15u;
    return (size_t)(key ^ key >> 32) & (b->cap - 1);
}

static const ns_merge *find_merge(const ns_bpe *b, int left, int right)
{
    for (size_t i = slot_of(b, left, right);; i = (i + 1) & (b->cap - 1)) {
        const ns_merge *m = &b->slots[i];
        if (m->left == left && m->right == right)
            return m;
        if (m->left == NONE)
            return NULL;
    }
}

int ns_bpe_init(ns_bpe *b, size_t n, ns_err *e)
{
    size_t cap = 16;
    if (n > UINT32_MAX / 4)
        return ns_fail(e, NS_EUNSUPPORTED, "%zu merges are too many", n);
    while (cap < n * 2)
        cap *= 2;
    *b = (ns_bpe){ .slots = malloc(cap * sizeof *b->slots), .cap = cap };
    if (!b->slots)
        return ns_fail(e, NS_ENOMEM, "%zu merges: out of memory", n);
    for (size_t i = 0; i < cap; i++)
        b->slots[i].left = NONE;
    return 0;
}

void ns_bpe_release(ns_bpe *b)
{
    free(b->slots);
    *b = (ns_bpe){ 0 };
}

void ns_bpe_add(ns_bpe *b, int left, int right, uint32_t rank, int to)
{
    size_t i = slot_of(b, left, right);
    while (b->slots[i].left != NONE && !(b->slots[i].left == left && b->slots[i].right == right))
        i = (i + 1) & (b->cap - 1);
    if (b->slots[i].left == NONE)
        b->n++;
    b->slots[i] = (ns_merge){ .left = left, .right = right, .to = to, .rank = rank };
}

/* Short pieces: ranks of all pairs in an array, scanned for the lowest. */
static void encode_short(const ns_bpe *b, const char *p, size_t n, ns_ids *out)
{
    int id[SHORT_PIECE];
    const ns_merge *pair[SHORT_PIECE]; /* of id[i] and id[i + 1] */
    for (size_t i = 0; i < n; i++)
        id[i] = b->bytes[(unsigned char)p[i]];
    for (size_t i = 0; i + 1 < n; i++)
        pair[i] = find_merge(b, id[i], id[i + 1]);
    while (n > 1) {
        size_t best = n;
        for (size_t i = 0; i + 1 < n; i++)
            if (pair[i] && (best == n || pair[i]->rank < pair[best]->rank))
                best = i;
        if (best == n)
            break;
        id[best] = pair[best]->to;
        n--;
        for (size_t i = best + 1; i < n; i++) {
            id[i] = id[i + 1];
            pair[i - 1] = pair[i];
        }
        if (best > 0)
            pair[best - 1] = find_merge(b, id[best - 1], id[best]);
        if (best + 1 < n)
            pair[best] = find_merge(b, id[best], id[best + 1]);
    }
    ns_ids_append(out, id, n);
}

/* A binary heap of rank << 32 | position: the lowest rank comes first, and among equals the leftmost. */
static void heap_push(uint64_t *h, size_t *n, uint64_t x)
{
    size_t i = (*n)++;
    for (; i > 0 && h[(i - 1) / 2] > x; i = (i - 1) / 2)
        h[i] = h[(i - 1) / 2];
    h[i] = x;
}

static uint64_t heap_pop(uint64_t *h, size_t *n)
{
    uint64_t top = h[0], x = h[--*n];
    size_t i = 0;
    for (size_t c; (c = 2 * i + 1) < *n; i = c) {
        if (c + 1 < *n && h[c + 1] < h[c])
            c++;
        if (h[c] >= x)
            break;
        h[i] = h[c];
    }
    h[i] = x;
    return top;
}

static int reserve(ns_bpe_scratch *s, size_t n, ns_err *e)
{
    if (n <= s->symbols_cap)
        return 0;
    free(s->symbols);
    free(s->heap);
    /* Every pair enters once at the start, n - 1; each of at most n - 1 merges adds two. */
    *s = (ns_bpe_scratch){ .symbols = malloc(n * sizeof *s->symbols), .heap = malloc(3 * n * sizeof *s->heap) };
    if (!s->symbols || !s->heap) {
        ns_bpe_scratch_release(s);
        return ns_fail(e, NS_ENOMEM, "a piece of %zu bytes: out of memory", n);
    }
    s->symbols_cap = n;
    return 0;
}

static void push_pair(const ns_bpe *b, ns_bpe_scratch *s, size_t n, uint32_t at, size_t *heap_len)
{
    const symbol *y = s->symbols;
    if (at >= n || y[at].next >= n)
        return;
    const ns_merge *m = find_merge(b, y[at].id, y[y[at].next].id);
    if (m)
        heap_push(s->heap, heap_len, (uint64_t)m->rank << 32 | at);
}

static int encode_long(const ns_bpe *b, ns_bpe_scratch *s, const char *p, size_t n, ns_ids *out, ns_err *e)
{
    size_t heap_len = 0;
    if (reserve(s, n, e) != 0)
        return -1;
    symbol *y = s->symbols;
    for (size_t i = 0; i < n; i++)
        y[i] = (symbol){ .id = b->bytes[(unsigned char)p[i]], .prev = (uint32_t)(i - 1), .next = (uint32_t)(i + 1) };
    for (size_t i = 0; i + 1 < n; i++)
        push_pair(b, s, n, (uint32_t)i, &heap_len);
    while (heap_len > 0) {
        uint64_t top = heap_pop(s->heap, &heap_len);
        uint32_t at = (uint32_t)top, next = y[at].next;
        if (y[at].id == NONE || next >= n)
            continue;
        const ns_merge *m = find_merge(b, y[at].id, y[next].id);
        if (!m || m->rank != (uint32_t)(top >> 32)) /* the pair that was pushed is gone */
            continue;
        y[at].id = m->to;
        y[at].next = y[next].next;
        y[next].id = NONE;
        if (y[at].next < n)
            y[y[at].next].prev = at;
        push_pair(b, s, n, y[at].prev, &heap_len);
        push_pair(b, s, n, at, &heap_len);
    }
    for (size_t i = 0; i < n; i = y[i].next)
        ns_ids_add(out, y[i].id);
    return 0;
}

int ns_bpe_encode(const ns_bpe *b, ns_bpe_scratch *s, const char *p, size_t n, ns_ids *out, ns_err *e)
{
    if (n > SHORT_PIECE)
        return encode_long(b, s, p, n, out, e);
    encode_short(b, p, n, out);
    return 0;
}

void ns_bpe_scratch_release(ns_bpe_scratch *s)
{
    free(s->symbols);
    free(s->heap);
    *s = (ns_bpe_scratch){ 0 };
}
