/* Grouped-query attention without positions, causal inside each packed sequence:
 *   o = softmax(q k^T / sqrt(head_dim)) v,  y = W_o (m o)  with a mask m per query head.
 * Sequences that go on from a beginning (carry.h) see its keys and values before their own; these get no gradient.
 * Scores live for one block of query rows of one head; saved is log(sum exp) per row, from which backward has the probabilities again.
 * Backward, with do = m W_o^T dy and delta = <do, o>:  p = exp(s - lse), ds = p (do v^T - delta), dq = ds k, dk = ds^T q, dv = p^T do.
 * Inference twin: src/model/attention.c. */
#include <string.h>

#include "block/carry.h"
#include "block/dense.h"
#include "block/space.h"
#include "block/vec.h"

enum { ROWS = 64 }; /* of a block; the part of it above the diagonal is computed in vain */

typedef struct attn {
    const ns_block_ctx *c;
    const ns_axis_mask *mask; /* NULL: ones */
    ns_dense q, k, v, o;
    const int *past;           /* [n_seqs + 1] first tokens of the beginnings; NULL: there are none */
    int n, n_keys, heads, per_kv, hd, q_dim, kv_dim, h;
    ns_real scale;
} attn;

static attn attn_of(const ns_block_ctx *c)
{
    const ns_arch *a = c->arch;
    attn t = { .c = c, .mask = ns_mask_of(c, NS_AXIS_ATTN_HEADS), .n = c->seqs->n_tokens, .hd = a->head_dim, .h = a->hidden_size };
    t.past = c->seqs->from ? c->seqs->from->start : NULL;
    t.n_keys = t.n + (t.past ? t.past[c->seqs->n_seqs] : 0);
    t.heads = a->layers[c->layer].width[NS_AXIS_ATTN_HEADS];
    t.per_kv = t.heads / a->n_kv_heads;
    t.q_dim = t.heads * t.hd;
    t.kv_dim = a->n_kv_heads * t.hd;
    t.q = ns_dense_of(c, NS_W_Q, NS_W_Q_BIAS, 0, c->hidden, t.q_dim);
    t.k = ns_dense_of(c, NS_W_K, NS_W_K_BIAS, 0, c->hidden, t.kv_dim);
    t.v = ns_dense_of(c, NS_W_V, NS_W_V_BIAS, 0, c->hidden, t.kv_dim);
    t.o = ns_dense_of(c, NS_W_O, NS_W_O_BIAS, 0, t.q_dim, c->hidden);
    t.scale = 1 / NS_R(sqrt)((ns_real)t.hd);
    return t;
}

/* ---- memory ---- */

typedef struct kept {
    ns_real *q, *k, *v, *o, *lse; /* [n, q_dim], [n_keys, kv_dim] twice, [n, q_dim], [n, heads] */
} kept;

static kept kept_at(const ns_arch *a, int layer, size_t n, size_t n_keys, ns_space *s)
{
    const size_t heads = (size_t)a->layers[layer].width[NS_AXIS_ATTN_HEADS], hd = (size_t)a->head_dim;
    const size_t kv = n_keys * (size_t)a->n_kv_heads * hd;
    kept k = { .q = ns_space_take(s, n * heads * hd), .k = ns_space_take(s, kv) };
    k.v = ns_space_take(s, kv);
    k.o = ns_space_take(s, n * heads * hd);
    k.lse = ns_space_take(s, n * heads);
    return k;
}

typedef struct work {
    ns_real *mo, *dout, *dq, *dk, *dv, *delta; /* as o, o, q, k, v, lse */
    ns_real *p, *dp;                            /* [ROWS, keys] */
} work;

static work work_at(const ns_arch *a, int layer, size_t n, size_t n_keys, ns_space *s)
{
    const size_t heads = (size_t)a->layers[layer].width[NS_AXIS_ATTN_HEADS], hd = (size_t)a->head_dim;
    const size_t kv = n_keys * (size_t)a->n_kv_heads * hd;
    work w = { .mo = ns_space_take(s, n * heads * hd), .dout = ns_space_take(s, n * heads * hd) };
    w.dq = ns_space_take(s, n * heads * hd);
    w.dk = ns_space_take(s, kv);
    w.dv = ns_space_take(s, kv);
    w.delta = ns_space_take(s, n * heads);
    w.p = ns_space_take(s, ROWS * n_keys);
    w.dp = ns_space_take(s, ROWS * n_keys);
    return w;
}

static size_t saved(const ns_arch *a, int layer, int n_tokens, int n_seqs)
{
    ns_space s = { 0 };
    (void)n_seqs;
    kept_at(a, layer, (size_t)n_tokens, (size_t)n_tokens, &s); /* beginnings and continuations together are no more */
    return s.used;
}

static size_t scratch(const ns_arch *a, int layer, int n_tokens, int n_seqs)
{
    ns_space s = { 0 };
    (void)n_seqs;
    work_at(a, layer, (size_t)n_tokens, (size_t)n_tokens, &s);
    return s.used;
}

static size_t carried(const ns_arch *a, int layer, int n_tokens, int n_seqs)
{
    (void)layer, (void)n_seqs;
    return 2 * (size_t)n_tokens * (size_t)(a->n_kv_heads * a->head_dim); /* keys, then values */
}

/* ---- beginnings and continuations ---- */

/* Rows of the sequence's beginning, and of it together with everything before it. */
static int past_of(const attn *t, int seq)
{
    return t->past ? t->past[seq + 1] - t->past[seq] : 0;
}

static size_t first_key(const attn *t, int seq)
{
    return (size_t)(t->c->seqs->start[seq] + (t->past ? t->past[seq] : 0));
}

/* all [n_keys]: each sequence's past rows, then its own */
static void join_keys(const attn *t, const ns_real *past, const ns_real *own, ns_real *all)
{
    const int *start = t->c->seqs->start;
    const size_t row = (size_t)t->kv_dim;
    for (int i = 0; i < t->c->seqs->n_seqs; i++) {
        const size_t before = (size_t)past_of(t, i), n = (size_t)(start[i + 1] - start[i]);
        ns_real *to = all + first_key(t, i) * row;
        memcpy(to, past + (size_t)t->past[i] * row, before * row * sizeof *to);
        memcpy(to + before * row, own + (size_t)start[i] * row, n * row * sizeof *to);
    }
}

/* The sequences' own rows of what join_keys made, moved to the front. */
static void keep_own(const attn *t, ns_real *all)
{
    const int *start = t->c->seqs->start;
    const size_t row = (size_t)t->kv_dim;
    for (int i = 0; t->past && i < t->c->seqs->n_seqs; i++)
        memmove(all + (size_t)start[i] * row, all + (first_key(t, i) + (size_t)past_of(t, i)) * row,
                (size_t)(start[i + 1] - start[i]) * row * sizeof *all);
}

/* Keys (which 0) or values (1) of a batch; `tmp` [n, kv_dim]. */
static void project_keys(const attn *t, const ns_dense *d, const ns_real *x, int which, ns_real *tmp, ns_real *all)
{
    const ns_seqs *s = t->c->seqs;
    const size_t kv = (size_t)t->kv_dim;
    ns_dense_forward(t->c->blas, d, t->n, x, t->h, false, t->past ? tmp : all, t->kv_dim);
    if (t->past)
        join_keys(t, s->from->layer[t->c->layer] + (size_t)which * (size_t)t->past[s->n_seqs] * kv, tmp, all);
    if (s->leave)
        memcpy(s->leave->layer[t->c->layer] + (size_t)which * (size_t)t->n * kv, all, (size_t)t->n * kv * sizeof *all);
}

/* ---- heads ---- */

/* A block: query rows of a sequence, of one head, and the keys they see: the first row sees those before `seen` and its own. */
typedef struct block {
    int rows, seen, keys, head;
    size_t q, kv; /* offsets of the first query row, and of the sequence's first key */
} block;

typedef void block_fn(const attn *t, const kept *k, const work *w, const block *b);

static void each_block(const attn *t, const kept *k, const work *w, block_fn *fn)
{
    const ns_seqs *s = t->c->seqs;
    for (int i = 0; i < s->n_seqs; i++)
        for (int head = 0; head < t->heads; head++)
            for (int row = 0, len = s->start[i + 1] - s->start[i]; row < len; row += ROWS) {
                block b = { .rows = len - row < ROWS ? len - row : ROWS, .seen = past_of(t, i) + row, .head = head };
                b.keys = b.seen + b.rows;
                b.q = (size_t)(s->start[i] + row) * (size_t)t->q_dim + (size_t)(head * t->hd);
                b.kv = first_key(t, i) * (size_t)t->kv_dim + (size_t)(head / t->per_kv * t->hd);
                fn(t, k, w, &b);
            }
}

static ns_real *row_stat(const attn *t, ns_real *stat, const block *b, int i) /* lse or delta of a row */
{
    return stat + (b->q / (size_t)t->q_dim + (size_t)i) * (size_t)t->heads + b->head;
}

static void scores(const attn *t, const kept *k, const block *b, ns_real *p)
{
    ns_gemm(t->c->blas, false, true, b->rows, b->keys, t->hd, k->q + b->q, t->q_dim, k->k + b->kv, t->kv_dim, false, p, b->keys);
}

NS_CLONES static void shift(int n, ns_real scale, ns_real by, ns_real *x)
{
    for (int i = 0; i < n; i++)
        x[i] = x[i] * scale - by;
}

NS_CLONES static ns_real sum_of(int n, const ns_real *x)
{
    ns_real s = 0;
    for (int i = 0; i < n; i++)
        s += x[i];
    return s;
}

NS_CLONES static void times(int n, ns_real a, ns_real *x)
{
    for (int i = 0; i < n; i++)
        x[i] *= a;
}

static void attend(const attn *t, const kept *k, const work *w, const block *b)
{
    scores(t, k, b, w->p);
    for (int i = 0; i < b->rows; i++) {
        ns_real *p = w->p + (size_t)i * (size_t)b->keys;
        const int seen = b->seen + i + 1;
        const ns_real max = ns_vec_max(p, (size_t)seen) * t->scale;
        shift(seen, t->scale, max, p);
        ns_vec_exp(p, (size_t)seen, p);
        const ns_real sum = sum_of(seen, p);
        times(seen, 1 / sum, p);
        memset(p + seen, 0, (size_t)(b->keys - seen) * sizeof *p);
        *row_stat(t, k->lse, b, i) = max + NS_R(log)(sum);
    }
    ns_gemm(t->c->blas, false, false, b->rows, t->hd, b->keys, w->p, b->keys, k->v + b->kv, t->kv_dim, false, k->o + b->q, t->q_dim);
}

/* dp = p (dp - delta) scale */
NS_CLONES static void score_gradient(int n, const ns_real *p, ns_real delta, ns_real scale, ns_real *dp)
{
    for (int i = 0; i < n; i++)
        dp[i] = p[i] * (dp[i] - delta) * scale;
}

static void attend_backward(const attn *t, const kept *k, const work *w, const block *b)
{
    const ns_blas *blas = t->c->blas;
    scores(t, k, b, w->p);
    ns_gemm(blas, false, true, b->rows, b->keys, t->hd, w->dout + b->q, t->q_dim, k->v + b->kv, t->kv_dim, false, w->dp, b->keys);
    for (int i = 0; i < b->rows; i++) {
        ns_real *p = w->p + (size_t)i * (size_t)b->keys, *dp = w->dp + (size_t)i * (size_t)b->keys;
        const int seen = b->seen + i + 1;
        shift(seen, t->scale, *row_stat(t, k->lse, b, i), p);
        ns_vec_exp(p, (size_t)seen, p);
        score_gradient(seen, p, *row_stat(t, w->delta, b, i), t->scale, dp);
        memset(p + seen, 0, (size_t)(b->keys - seen) * sizeof *p);
        memset(dp + seen, 0, (size_t)(b->keys - seen) * sizeof *dp);
    }
    ns_gemm(blas, true, false, b->keys, t->hd, b->rows, w->p, b->keys, w->dout + b->q, t->q_dim, true, w->dv + b->kv, t->kv_dim);
    ns_gemm(blas, true, false, b->keys, t->hd, b->rows, w->dp, b->keys, k->q + b->q, t->q_dim, true, w->dk + b->kv, t->kv_dim);
    ns_gemm(blas, false, false, b->rows, t->hd, b->keys, w->dp, b->keys, k->k + b->kv, t->kv_dim, false, w->dq + b->q, t->q_dim);
}

/* ---- the mixer ---- */

/* The input of o_proj: o itself, or with a mask its product in w->mo. */
NS_CLONES static const ns_real *masked_output(const attn *t, const kept *k, const work *w)
{
    if (!t->mask)
        return k->o;
    for (size_t i = 0; i < (size_t)t->n * (size_t)t->heads; i++) {
        const ns_real m = t->mask->m[i % (size_t)t->heads];
        for (int j = 0; j < t->hd; j++)
            w->mo[i * (size_t)t->hd + (size_t)j] = m * k->o[i * (size_t)t->hd + (size_t)j];
    }
    return w->mo;
}

static void forward(const ns_block_ctx *c, const ns_real *x, ns_real *y, ns_real *save)
{
    const attn t = attn_of(c);
    ns_space keep = ns_space_of(save), space = ns_space_of(c->scratch);
    const kept k = kept_at(c->arch, c->layer, (size_t)t.n, (size_t)t.n_keys, &keep);
    const work w = work_at(c->arch, c->layer, (size_t)t.n, (size_t)t.n_keys, &space);
    ns_dense_forward(c->blas, &t.q, t.n, x, t.h, false, k.q, t.q_dim);
    project_keys(&t, &t.k, x, 0, w.dk, k.k);
    project_keys(&t, &t.v, x, 1, w.dk, k.v);
    each_block(&t, &k, &w, attend);
    const ns_real *mo = masked_output(&t, &k, &w);
    if (c->tap) {
        ns_tap tap = { .kind = NS_TAP_ATTENTION, .layer = c->layer, .expert = -1, .rows = t.n, .cols = t.q_dim, .x = mo };
        tap.ld = (size_t)t.q_dim;
        c->tap(c->tap_ctx, &tap);
    }
    ns_dense_forward(c->blas, &t.o, t.n, mo, t.q_dim, false, y, t.h);
}

/* The gradient of m o in w->dout becomes that of o; delta of each row; the mask's gradient. */
NS_CLONES static void mask_backward(const attn *t, const kept *k, const work *w)
{
    for (size_t i = 0; i < (size_t)t->n * (size_t)t->heads; i++) {
        ns_real *d = w->dout + i * (size_t)t->hd, dot = 0;
        const ns_real *o = k->o + i * (size_t)t->hd;
        for (int j = 0; j < t->hd; j++)
            dot += d[j] * o[j];
        w->delta[i] = dot;
        if (!t->mask)
            continue;
        const ns_real m = t->mask->m[i % (size_t)t->heads];
        w->delta[i] = m * dot;
        for (int j = 0; j < t->hd; j++)
            d[j] *= m;
        if (t->mask->dm)
            t->mask->dm[i % (size_t)t->heads] += dot;
    }
}

static void backward(const ns_block_ctx *c, const ns_real *x, const ns_real *dy, const ns_real *save, ns_real *dx)
{
    const attn t = attn_of(c);
    ns_space keep = ns_space_of(save), space = ns_space_of(c->scratch);
    const kept k = kept_at(c->arch, c->layer, (size_t)t.n, (size_t)t.n_keys, &keep);
    const work w = work_at(c->arch, c->layer, (size_t)t.n, (size_t)t.n_keys, &space);
    ns_dense_backward(c->blas, &t.o, t.n, masked_output(&t, &k, &w), t.q_dim, dy, t.h, false, w.dout, t.q_dim);
    mask_backward(&t, &k, &w);
    memset(w.dk, 0, (size_t)t.n_keys * (size_t)t.kv_dim * sizeof *w.dk);
    memset(w.dv, 0, (size_t)t.n_keys * (size_t)t.kv_dim * sizeof *w.dv);
    each_block(&t, &k, &w, attend_backward);
    keep_own(&t, w.dk);
    keep_own(&t, w.dv);
    ns_dense_backward(c->blas, &t.q, t.n, x, t.h, w.dq, t.q_dim, false, dx, t.h);
    ns_dense_backward(c->blas, &t.k, t.n, x, t.h, w.dk, t.kv_dim, true, dx, t.h);
    ns_dense_backward(c->blas, &t.v, t.n, x, t.h, w.dv, t.kv_dim, true, dx, t.h);
}

const ns_mixer ns_mixer_attention = { saved, scratch, carried, forward, backward };
