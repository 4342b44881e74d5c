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
    int *first; /* of a bundle: the tasks that one thread does in a row; NULL: one each */
};

static void multiply(const struct run *r, const struct task *t)
{
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

static void run_task(void *ctx, int i, int thread)
{
    (void)thread;
    const struct run *r = ctx;
    for (int t = r->first ? r->first[i] : i, end = r->first ? r->first[i + 1] : i + 1; t < end; t++)
        multiply(r, &r->task[t]);
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

/* ---- products that share a matrix ---- */

/* The tasks of one product, ascending in their rows. */
struct list {
    const ns_mat *w;
    const struct task *next, *end;
};

static int by_matrix(const void *a, const void *b)
{
    const struct list *x = a, *y = b;
    if (x->w != y->w)
        return x->w < y->w ? -1 : 1;
    return x->next < y->next ? -1 : x->next > y->next;
}

/* Bundles the tasks of n lists about one matrix: one bundle per block of its rows. Returns the bundles there are now. */
static int bundle(struct list *l, int n, struct run *r, struct task **to, int bundles)
{
    for (;;) {
        int first = -1;
        for (int i = 0; i < n; i++)
            if (l[i].next < l[i].end && (first < 0 || l[i].next->row / ROWS < first))
                first = l[i].next->row / ROWS;
        if (first < 0)
            return bundles;
        r->first[bundles++] = (int)(*to - r->task);
        for (int i = 0; i < n; i++)
            while (l[i].next < l[i].end && l[i].next->row / ROWS == first)
                *(*to)++ = *l[i].next++;
    }
}

/* Sorts r's tasks into bundles; 0 where memory is out. */
static int bundle_all(ns_scratch *s, struct run *r, const ns_product *p, int n, int tasks)
{
    struct list *l = ns_scratch_get(s, (size_t)n, sizeof *l);
    struct task *sorted = ns_scratch_get(s, (size_t)tasks, sizeof *sorted), *to = sorted;
    const struct task *t = r->task;
    int bundles = 0;
    r->first = ns_scratch_get(s, (size_t)tasks + 1, sizeof *r->first);
    if (ns_scratch_failed(s))
        return 0;
    for (int i = 0; i < n; i++) {
        l[i] = (struct list){ p[i].w, t, t + count_tasks(&p[i]) };
        t = l[i].end;
    }
    qsort(l, (size_t)n, sizeof *l, by_matrix);
    r->task = sorted;
    for (int i = 0, k; i < n; i += k) {
        for (k = 1; i + k < n && l[i + k].w == l[i].w; k++)
            ;
        bundles = bundle(l + i, k, r, &to, bundles);
    }
    r->first[bundles] = tasks;
    return bundles;
}

void ns_products_run(const ns_model *m, ns_scratch *s, ns_product *p, int n, bool shared)
{
    int tasks = 0;
    for (int i = 0; i < n; i++) {
        pack(m, s, p[i].x, p[i].w->dtype);
        tasks += count_tasks(&p[i]);
    }
    struct run r = { .ops = m->ops, .task = ns_scratch_get(s, (size_t)tasks, sizeof(struct task)) };
    if (ns_scratch_failed(s))
        return;
    struct task *t = r.task;
    for (int i = 0; i < n; i++)
        t = add_tasks(t, &p[i]);
    int runs = shared ? bundle_all(s, &r, p, n, tasks) : tasks;
    if (!ns_scratch_failed(s))
        ns_parallel(m, runs, run_task, &r);
}
