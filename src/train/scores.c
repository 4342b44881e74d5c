#include "train/scores.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store/writer.h"

float *ns_scores_add(ns_scores *s, int n, ns_err *e, const char *fmt, ...)
{
    char name[80];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    if (s->n == s->cap) {
        const int cap = s->cap ? 2 * s->cap : 64;
        ns_score *p = realloc(s->s, (size_t)cap * sizeof *p);
        if (!p)
            goto no_memory;
        s->s = p;
        s->cap = cap;
    }
    float *x = ns_arena_array(&s->arena, (size_t)n, sizeof *x);
    char *copy = ns_arena_strdup(&s->arena, name);
    if (x && copy) {
        s->s[s->n++] = (ns_score){ copy, n, x };
        return x;
    }
no_memory:
    ns_fail(e, NS_ENOMEM, "scores: out of memory");
    return NULL;
}

const ns_score *ns_scores_find(const ns_scores *s, const char *name)
{
    for (int i = 0; i < s->n; i++)
        if (strcmp(s->s[i].name, name) == 0)
            return &s->s[i];
    return NULL;
}

void ns_scores_release(ns_scores *s)
{
    free(s->s);
    ns_arena_release(&s->arena);
    *s = (ns_scores){ 0 };
}

int ns_scores_write(const ns_scores *s, const ns_st_meta *meta, size_t n_meta, const char *path, ns_err *e)
{
    ns_tensor *t = calloc((size_t)s->n + 1, sizeof *t);
    if (!t)
        return ns_fail(e, NS_ENOMEM, "%s: out of memory", path);
    for (int i = 0; i < s->n; i++)
        t[i] = (ns_tensor){ .name = s->s[i].name, .dtype = NS_F32, .n_dims = 1, .shape = { s->s[i].n }, .data = (const uint8_t *)s->s[i].x,
                            .bytes = (size_t)s->s[i].n * sizeof(float) };
    int rc = ns_st_write_file(path, t, (size_t)s->n, meta, n_meta, e);
    free(t);
    return rc;
}
