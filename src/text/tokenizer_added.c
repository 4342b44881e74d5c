#include "text/tokenizer_added.h"

#include <stdlib.h>
#include <string.h>

int ns_added_set_add(ns_added_set *s, const ns_added *a, ns_err *e)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? s->cap * 2 : 64;
        ns_added *p = realloc(s->items, cap * sizeof *p);
        if (!p)
            return ns_fail(e, NS_ENOMEM, "out of memory");
        s->items = p;
        s->cap = cap;
    }
    char *copy = malloc(a->len);
    if (!copy)
        return ns_fail(e, NS_ENOMEM, "out of memory");
    s->items[s->n] = *a;
    s->items[s->n++].content = memcpy(copy, a->content, a->len);
    s->first[(unsigned char)copy[0]] = true;
    return 0;
}

static int compare(const void *a, const void *b)
{
    const ns_added *x = a, *y = b;
    int c = memcmp(x->content, y->content, x->len < y->len ? x->len : y->len);
    return c ? c : (x->len > y->len) - (x->len < y->len);
}

void ns_added_set_seal(ns_added_set *s)
{
    size_t n = 0;
    if (s->n)
        qsort(s->items, s->n, sizeof *s->items, compare);
    for (size_t i = 0; i < s->n; i++) {
        if (n > 0 && compare(&s->items[n - 1], &s->items[i]) == 0)
            free(s->items[i].content);
        else
            s->items[n++] = s->items[i];
    }
    s->n = n;
}

/* The first item of [lo, hi) whose byte at `depth` is at least c; all of them have more than `depth` bytes. */
static size_t lower_bound(const ns_added_set *s, size_t lo, size_t hi, size_t depth, unsigned c)
{
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if ((unsigned char)s->items[mid].content[depth] < c)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

const ns_added *ns_added_match(const ns_added_set *s, const char *p, size_t n)
{
    const ns_added *best = NULL;
    size_t lo = 0, hi = s->n; /* the items that begin with the bytes seen so far */
    for (size_t depth = 0; depth < n && lo < hi; depth++) {
        unsigned c = (unsigned char)p[depth];
        lo = lower_bound(s, lo, hi, depth, c);
        hi = lower_bound(s, lo, hi, depth, c + 1);
        if (lo < hi && s->items[lo].len == depth + 1) /* a whole content sorts before its continuations */
            best = &s->items[lo++];
    }
    return best;
}

void ns_added_set_release(ns_added_set *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->items[i].content);
    free(s->items);
    *s = (ns_added_set){ 0 };
}
