#include "model/linear.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* ---- scratch ---- */

typedef struct block {
    struct block *next;
    size_t size, used;
    char *data;
} block;

struct arena {
    block *head;
};

struct ns_scratch {
    struct arena layer, step;
    bool failed;
};

ns_scratch *ns_scratch_new(void)
{
    return calloc(1, sizeof(ns_scratch));
}

static void free_blocks(struct arena *a)
{
    for (block *b = a->head, *next; b; b = next) {
        next = b->next;
        free(b->data);
        free(b);
    }
    a->head = NULL;
}

void ns_scratch_free(ns_scratch *s)
{
    if (!s)
        return;
    free_blocks(&s->layer);
    free_blocks(&s->step);
    free(s);
}

static bool add_block(ns_scratch *s, struct arena *a, size_t size)
{
    block *b = calloc(1, sizeof *b);
    if (!b || !(b->data = ns_alloc_aligned(size))) {
        free(b);
        s->failed = true;
        return false;
    }
    b->size = size;
    b->next = a->head;
    a->head = b;
    return true;
}

static void *get(ns_scratch *s, struct arena *a, size_t n, size_t size)
{
    size_t bytes;
    if (s->failed || !ns_mul_size(n, size, &bytes) || bytes > ((size_t)1 << 48)) {
        s->failed = true;
        return NULL;
    }
    bytes = (bytes + 63) / 64 * 64;
    if ((!a->head || a->head->size - a->head->used < bytes) && !add_block(s, a, bytes > (1u << 20) ? bytes : (1u << 20)))
        return NULL;
    void *p = a->head->data + a->head->used;
    a->head->used += bytes;
    return p;
}

void *ns_scratch_get(ns_scratch *s, size_t n, size_t size)
{
    return get(s, &s->layer, n, size);
}

void *ns_scratch_get_step(ns_scratch *s, size_t n, size_t size)
{
    return get(s, &s->step, n, size);
}

/* What took several blocks fits one the next time. */
static void reset(ns_scratch *s, struct arena *a)
{
    size_t total = 0;
    for (block *b = a->head; b; b = b->next)
        total += b->size;
    if (a->head && a->head->next) {
        free_blocks(a);
        add_block(s, a, total);
    }
    if (a->head)
        a->head->used = 0;
}

void ns_scratch_reset(ns_scratch *s)
{
    reset(s, &s->layer);
}

void ns_scratch_reset_step(ns_scratch *s)
{
    s->failed = false; /* a new step may ask for less */
    reset(s, &s->step);
    reset(s, &s->layer);
}

bool ns_scratch_failed(const ns_scratch *s)
{
    return s->failed;
}

/* ---- activations ---- */

ns_acts ns_acts_of_segs(const float *x, size_t ldx, int m, const ns_segs *cols)
{
    return (ns_acts){ .x = x, .ldx = ldx, .m = m, .cols = *cols };
}

ns_acts ns_acts_of(const float *x, size_t ldx, int m, int cols)
{
    return (ns_acts){ .x = x, .ldx = ldx, .m = m, .cols = { .n = 1, .total = cols } }; /* seg NULL: the prefix */
}

int ns_acts_pieces(const ns_acts *a)
{
    int n = 1;
    if (!a->panels)
        return a->cols.n;
    while (n < a->panels->n && a->panels->end[n - 1] < a->cols.total)
        n++;
    return n;
}

ns_seg ns_acts_piece(const ns_acts *a, int s)
{
    if (a->cols.seg)
        return a->cols.seg[s];
    if (!a->panels)
        return (ns_seg){ 0, a->cols.total };
    int first = s ? a->panels->end[s - 1] : 0, end = a->panels->end[s];
    return (ns_seg){ first, (end < a->cols.total ? end : a->cols.total) - first };
}

struct pack {
    const ns_ops *ops;
    const ns_acts *a;
    ns_dtype dtype;
};

static void pack_one(void *ctx, int i, int thread)
{
    (void)thread;
    const struct pack *p = ctx;
    const float *x = p->a->x + (size_t)i * p->a->ldx;
    char *out = p->a->packed[p->dtype];
    for (int s = 0; s < ns_acts_pieces(p->a); s++) {
        int len = ns_acts_piece(p->a, s).len;
        size_t bytes = p->ops->act_bytes(p->dtype, len);
        p->ops->act_pack(p->dtype, x, len, out + (size_t)i * bytes);
        out += (size_t)p->a->m * bytes;
        x += len;
    }
}

void ns_acts_pack(const ns_model *m, ns_scratch *s, ns_acts *a, const ns_mat *w)
{
    const ns_dtype t = w->dtype;
    assert(!a->cols.seg || !w->panels);
    for (int i = 0; i <= NS_NVFP4; i++)
        assert(!a->packed[i] || a->panels == w->panels);
    if (a->packed[t])
        return;
    a->panels = w->panels;
    size_t bytes = 0;
    for (int i = 0; i < ns_acts_pieces(a); i++)
        bytes += m->ops->act_bytes(t, ns_acts_piece(a, i).len);
    a->packed[t] = ns_scratch_get(s, (size_t)a->m, bytes);
    struct pack p = { m->ops, a, t };
    if (a->packed[t])
        ns_parallel(m, a->m, pack_one, &p);
}

void ns_parallel(const ns_model *m, int n, ns_task_fn *fn, void *ctx)
{
    ns_pool_run(m->pool, n, fn, ctx);
}
