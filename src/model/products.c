/* Matrix products, split over the threads by blocks of rows.
 * Sizes of one model that meet in a step have the same matrices, with other numbers of live rows and columns. Their products with one matrix
 * become one: the vectors that are shorter get zeros behind them, which changes no bit of the results (kernel/ops.h, tests/check), and every
 * row meets the vectors of all sizes in which it is live. Vectors whose live columns are not a prefix stay alone; their rows come from the
 * cache if another product has just used them. */
#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "model/linear.h"

enum { ROWS = 64 }; /* of one task: a few hundred kilobytes of weights at most, so they stay in a core's second-level cache */

/* Rows row .. row + rows - 1 of the stored matrix; `out` is the first one's position among the live ones. */
struct task {
    const ns_product *p;
    int row, rows, out;
};

struct run {
    const ns_ops *ops;
    struct task *task;
    int *first;     /* of a bundle: the tasks about one block of rows, which one thread does; NULL: one each */
    float *out;     /* [threads, most, ROWS] results of a joint product */
    int *idx;       /* [threads, most] */
    int most;       /* vectors of a joint product */
};

static int segments_of(const ns_product *p)
{
    return p->rows ? p->rows->n : 1;
}

static ns_seg row_seg(const ns_product *p, int s)
{
    return p->rows ? p->rows->seg[s] : (ns_seg){ 0, p->n_rows };
}

/* Blocks begin at multiples of ROWS, so that those of several sizes coincide. */
static int block_end(int row, int end)
{
    int next = (row / ROWS + 1) * ROWS;
    return next < end ? next : end;
}

static int count_tasks(const ns_product *p)
{
    int n = 0;
    for (int s = 0; s < segments_of(p) && p->m > 0; s++) {
        ns_seg g = row_seg(p, s);
        n += g.len > 0 ? (g.off + g.len - 1) / ROWS - g.off / ROWS + 1 : 0;
    }
    return n;
}

static struct task *add_tasks(struct task *t, const ns_product *p)
{
    int out = 0;
    for (int s = 0; s < segments_of(p) && p->m > 0; s++) {
        ns_seg g = row_seg(p, s);
        for (int r = g.off, end = g.off + g.len, next; r < end; r = next) {
            next = block_end(r, end);
            *t++ = (struct task){ p, r, next - r, out + r - g.off };
        }
        out += g.len;
    }
    return t;
}

static void add_bias(const ns_ops *ops, const ns_product *p, int out, int rows)
{
    for (int v = 0; p->bias && v < p->m; v++)
        ops->axpy(rows, 1.0f, p->bias + out, p->y + out + (size_t)v * p->ldy);
}

/* Rows row .. row + rows - 1 of w with the m vectors idx of a, piece by piece. */
static void matmul(const ns_ops *ops, const ns_mat *w, int row, int rows, const ns_acts *a, const int *idx, int m, float *y, size_t ldy)
{
    const char *x = a->packed[w->dtype];
    for (int s = 0; s < ns_acts_pieces(a); s++) {
        ns_seg c = ns_acts_piece(a, s);
        ns_mat view = ns_mat_view(w, 0, w->rows, c.off, c.len);
        ops->matmul(&view, row, rows, x, idx, m, y, ldy, s > 0);
        x += (size_t)a->m * ops->act_bytes(w->dtype, c.len);
    }
}

static void multiply(const struct run *r, const struct task *t)
{
    const ns_product *p = t->p;
    matmul(r->ops, p->w, t->row, t->rows, p->x, p->idx, p->m, p->y + t->out, p->ldy);
    add_bias(r->ops, p, t->out, t->rows);
}

/* ---- one product for several sizes ---- */

/* Rows [row, end) of the n tasks that have them: one product, then everyone's share of it. */
static void multiply_rows(const struct run *r, const struct task *t, int n, int row, int end, int thread)
{
    const ns_acts *joint = t->p->x->joint;
    const ns_mat *w = t->p->w;
    int *idx = r->idx + (size_t)thread * (size_t)r->most, m = 0, rows = end - row;
    float *out = r->out + (size_t)thread * (size_t)r->most * ROWS;
    for (int i = 0; i < n; i++)
        if (t[i].row <= row && row < t[i].row + t[i].rows)
            for (int v = 0; v < t[i].p->m; v++)
                idx[m++] = t[i].p->x->base + (t[i].p->idx ? t[i].p->idx[v] : v);
    matmul(r->ops, w, row, rows, joint, idx, m, out, (size_t)rows);
    for (int i = 0; i < n; i++) {
        const ns_product *p = t[i].p;
        int to = t[i].out + row - t[i].row;
        if (!(t[i].row <= row && row < t[i].row + t[i].rows))
            continue;
        for (int v = 0; v < p->m; v++, out += rows)
            memcpy(p->y + to + (size_t)v * p->ldy, out, (size_t)rows * sizeof *out);
        add_bias(r->ops, p, to, rows);
    }
}

/* n tasks about a block of one matrix, whose vectors are in one joint set: the block falls into runs of rows that the same tasks have. */
static void multiply_jointly(const struct run *r, const struct task *t, int n, int thread)
{
    for (int row = t->row / ROWS * ROWS, end; ; row = end) {
        bool any = false;
        end = INT_MAX;
        for (int i = 0; i < n; i++) {
            int from = t[i].row, to = from + t[i].rows;
            any = any || (from <= row && row < to);
            if (row < from && from < end)
                end = from;
            if (row < to && to < end)
                end = to;
        }
        if (end == INT_MAX)
            return;
        if (any)
            multiply_rows(r, t, n, row, end, thread);
    }
}

/* Those that join stand before those that do not (see by_matrix). */
static void run_task(void *ctx, int i, int thread)
{
    const struct run *r = ctx;
    int at = r->first ? r->first[i] : i, end = r->first ? r->first[i + 1] : i + 1, n = 0;
    while (r->first && at + n < end && r->task[at + n].p->joint)
        n++;
    if (n > 0)
        multiply_jointly(r, r->task + at, n, thread);
    for (int t = at + n; t < end; t++)
        multiply(r, &r->task[t]);
}

/* ---- who joins ---- */

/* The tasks of one product, ascending in their rows. */
struct list {
    ns_product *p;
    const struct task *next, *end;
};

static bool is_prefix(const ns_acts *a)
{
    return a->cols.n == 1 && (!a->cols.seg || a->cols.seg[0].off == 0);
}

static int by_matrix(const void *a, const void *b)
{
    const struct list *x = a, *y = b;
    int px = !is_prefix(x->p->x), py = !is_prefix(y->p->x);
    if (x->p->w != y->p->w)
        return x->p->w < y->p->w ? -1 : 1;
    if (px != py)
        return px - py;
    return x->p < y->p ? -1 : x->p > y->p;
}

/* Vectors of several sizes as one: each has zeros behind it up to the longest. ns_acts.joint points to the first member. */
struct set {
    ns_acts acts;
    float *x;
};

/* The distinct inputs of a call's products. */
struct inputs {
    ns_acts **a;
    int n;
};

static struct inputs find_inputs(ns_scratch *s, const struct list *l, int n)
{
    struct inputs in = { .a = ns_scratch_get(s, (size_t)n, sizeof *in.a) };
    for (int i = 0, k; in.a && i < n; i++) {
        ns_acts *a = l[i].p->x;
        for (k = in.n - 1; k >= 0 && in.a[k] != a; k--)
            ;
        if (k < 0)
            in.a[in.n++] = a;
        a->joint = NULL; /* of an earlier call */
    }
    return in;
}

/* a's set and b's become one. */
static void join(ns_scratch *s, const struct inputs *in, ns_acts *a, ns_acts *b)
{
    if (!a->joint) {
        struct set *set = ns_scratch_get(s, 1, sizeof *set);
        if (!set)
            return;
        *set = (struct set){ .x = NULL };
        a->joint = &set->acts;
    }
    ns_acts *from = b->joint, *to = a->joint;
    b->joint = to;
    for (int i = 0; i < in->n && from && from != to; i++)
        if (in->a[i]->joint == from)
            in->a[i]->joint = to;
}

static void fill_sets(ns_scratch *s, const struct inputs *in)
{
    for (int i = 0; i < in->n; i++) {
        ns_acts *a = in->a[i], *set = a->joint;
        if (!set)
            continue;
        a->base = set->m;
        *set = ns_acts_of(NULL, 0, set->m + a->m, a->cols.total > set->cols.total ? a->cols.total : set->cols.total);
    }
    for (int i = 0; i < in->n; i++) {
        ns_acts *a = in->a[i];
        struct set *set = (struct set *)a->joint;
        if (!set)
            continue;
        size_t ld = (size_t)set->acts.cols.total, live = (size_t)a->cols.total;
        if (!set->x)
            set->acts.x = set->x = ns_scratch_get(s, (size_t)set->acts.m, ld * sizeof(float));
        set->acts.ldx = ld;
        for (int v = 0; set->x && v < a->m; v++) {
            float *to = set->x + (size_t)(a->base + v) * ld;
            memcpy(to, a->x + (size_t)v * a->ldx, live * sizeof *to);
            memset(to + live, 0, (ld - live) * sizeof *to);
        }
    }
}

/* Inputs that meet the same matrix are joined, and packed for it. */
static void join_inputs(const ns_model *m, ns_scratch *s, const struct list *l, int n, struct run *r)
{
    struct inputs in = find_inputs(s, l, n);
    for (int i = 1; i < n; i++)
        if (l[i].p->w == l[i - 1].p->w && is_prefix(l[i].p->x)) {
            join(s, &in, l[i - 1].p->x, l[i].p->x);
            l[i - 1].p->joint = l[i].p->joint = true;
        }
    if (ns_scratch_failed(s))
        return;
    fill_sets(s, &in);
    for (int i = 0; i < n && !ns_scratch_failed(s); i++) {
        ns_acts *x = l[i].p->joint ? l[i].p->x->joint : l[i].p->x;
        ns_acts_pack(m, s, x, l[i].p->w);
        if (x->m > r->most)
            r->most = x->m;
    }
}

/* ---- a call ---- */

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

/* Joins what can be joined and sorts r's tasks into bundles; 0 where memory is out. */
static int bundle_all(const ns_model *m, ns_scratch *s, struct run *r, ns_product *p, int n, int tasks)
{
    struct list *l = ns_scratch_get(s, (size_t)n, sizeof *l);
    struct task *sorted = ns_scratch_get(s, (size_t)tasks, sizeof *sorted), *to = sorted;
    const struct task *t = r->task;
    size_t threads = (size_t)ns_pool_threads(m->pool);
    int bundles = 0;
    r->first = ns_scratch_get(s, (size_t)tasks + 1, sizeof *r->first);
    if (ns_scratch_failed(s))
        return 0;
    for (int i = 0; i < n; i++) {
        l[i] = (struct list){ &p[i], t, t + count_tasks(&p[i]) };
        t = l[i].end;
    }
    qsort(l, (size_t)n, sizeof *l, by_matrix);
    join_inputs(m, s, l, n, r);
    r->idx = ns_scratch_get(s, threads * (size_t)r->most, sizeof *r->idx);
    r->out = ns_scratch_get(s, threads * (size_t)r->most, ROWS * sizeof *r->out);
    if (ns_scratch_failed(s))
        return 0;
    r->task = sorted;
    for (int i = 0, k; i < n; i += k) {
        for (k = 1; i + k < n && l[i + k].p->w == l[i].p->w; k++)
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
        if (!shared)
            ns_acts_pack(m, s, p[i].x, p[i].w);
        tasks += count_tasks(&p[i]);
    }
    struct run r = { .ops = m->ops, .task = ns_scratch_get(s, (size_t)tasks, sizeof(struct task)) };
    if (ns_scratch_failed(s))
        return;
    struct task *t = r.task;
    for (int i = 0; i < n; i++)
        t = add_tasks(t, &p[i]);
    int runs = shared ? bundle_all(m, s, &r, p, n, tasks) : tasks;
    if (!ns_scratch_failed(s))
        ns_parallel(m, runs, run_task, &r);
}
