#include "model/linear.h"

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

static ns_seg col_seg(const ns_acts *a, int s)
{
    return a->cols.seg ? a->cols.seg[s] : (ns_seg){ 0, a->cols.total };
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
    for (int s = 0; s < p->a->cols.n; s++) {
        int len = col_seg(p->a, s).len;
        size_t bytes = p->ops->act_bytes(p->dtype, len);
        p->ops->act_pack(p->dtype, x, len, out + (size_t)i * bytes);
        out += (size_t)p->a->m * bytes;
        x += len;
    }
}

static void pack(const ns_model *m, ns_scratch *s, ns_acts *a, ns_dtype t)
{
    if (a->packed[t])
        return;
    size_t bytes = 0;
    for (int i = 0; i < a->cols.n; i++)
        bytes += m->ops->act_bytes(t, col_seg(a, i).len);
    a->packed[t] = ns_scratch_get(s, (size_t)a->m, bytes);
    struct pack p = { m->ops, a, t };
    if (a->packed[t])
        ns_parallel(m, a->m, pack_one, &p);
}

void ns_parallel(const ns_model *m, int n, ns_task_fn *fn, void *ctx)
{
    ns_pool_run(m->pool, n, fn, ctx);
}

/* ---- products ---- */

enum { ROWS = 64 }; /* of one task: a few hundred kilobytes of weights at most, so they stay in a core's second-level cache */

struct task {
    const ns_product *p;
    int row, rows, out; /* rows of the stored matrix; position among the live ones */
};

struct run {
    const ns_ops *ops;
    struct task *task;
};

static void run_task(void *ctx, int i, int thread)
{
    (void)thread;
    const struct run *r = ctx;
    const struct task *t = &r->task[i];
    const ns_product *p = t->p;
    const char *x = p->x->packed[p->w->dtype];
    float *y = p->y + t->out;
    for (int s = 0; s < p->x->cols.n; s++) {
        ns_seg c = col_seg(p->x, s);
        ns_mat view = ns_mat_view(p->w, 0, p->w->rows, c.off, c.len);
        r->ops->matmul(&view, t->row, t->rows, x, p->idx, p->m, y, p->ldy, s > 0);
        x += (size_t)p->x->m * r->ops->act_bytes(p->w->dtype, c.len);
    }
    for (int v = 0; p->bias && v < p->m; v++)
        r->ops->axpy(t->rows, 1.0f, p->bias + t->out, y + (size_t)v * p->ldy);
}

static int count_tasks(const ns_product *p)
{
    int n = 0, segs = p->rows ? p->rows->n : 1;
    for (int s = 0; s < segs; s++)
        n += ((p->rows ? p->rows->seg[s].len : p->n_rows) + ROWS - 1) / ROWS;
    return p->m > 0 ? n : 0;
}

static struct task *add_tasks(struct task *t, const ns_product *p)
{
    int segs = p->rows ? p->rows->n : 1, out = 0;
    for (int s = 0; s < segs && p->m > 0; s++) {
        ns_seg g = p->rows ? p->rows->seg[s] : (ns_seg){ 0, p->n_rows };
        for (int r = 0; r < g.len; r += ROWS) {
            int rows = g.len - r < ROWS ? g.len - r : ROWS;
            *t++ = (struct task){ p, g.off + r, rows, out + r };
        }
        out += g.len;
    }
    return t;
}

void ns_products_run(const ns_model *m, ns_scratch *s, ns_product *p, int n)
{
    int tasks = 0;
    for (int i = 0; i < n; i++) {
        pack(m, s, p[i].x, p[i].w->dtype);
        tasks += count_tasks(&p[i]);
    }
    struct run r = { m->ops, ns_scratch_get(s, (size_t)tasks, sizeof(struct task)) };
    if (ns_scratch_failed(s))
        return;
    struct task *t = r.task;
    for (int i = 0; i < n; i++)
        t = add_tasks(t, &p[i]);
    ns_parallel(m, tasks, run_task, &r);
}
