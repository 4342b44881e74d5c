/* Grouped-query attention without positions: softmax(q k^T / sqrt(head_dim)) v, causal, keys and values appended to the cache.
 * One algorithm for one token or many: blocks of query rows (token, head of the group) meet tiles of keys with a running maximum and
 * sum (online softmax). Tiles start at fixed positions, so a token's result does not depend on what else is in the step.
 * An FP8 cache is rounded as it is appended, and widened a tile at a time: the cache is never there in F32. */
#include <math.h>
#include <string.h>

#include "model/block.h"
#include "tensor/format.h"

enum { TILE = 64, ROWS = 48 };

struct attn {
    ns_step *st;
    const ns_plan_layer *pl;
    int layer, per_kv, row_block; /* query heads per kv head; rows per task */
    float *q;                     /* [n_tokens, heads * head_dim] */
    float *k, *v;                 /* [n_tokens, kv heads * head_dim] */
    float *out;                   /* like q */
    int *task_item, *task_row;
    int n_tasks;
    float *work;
    size_t work_size;
    ns_acts in, mixed;
};

static void store_row(ns_dtype kv, const float *x, size_t n, float scale, uint8_t *to)
{
    if (kv == NS_F32)
        memcpy(to, x, n * sizeof *x);
    else
        for (size_t i = 0; i < n; i++)
            to[i] = ns_f32_to_e4m3(x[i] / scale);
}

/* n rows of the cache from `at` on, [n, head_dim]: where they lie, or widened into `wide`. */
static const float *load_rows(const struct attn *a, const ns_state *s, const uint8_t *cache, int at, int n, float scale, float *wide)
{
    const uint8_t *from = cache + (size_t)at * ns_state_row(s);
    if (s->kv == NS_F32)
        return (const float *)from;
    a->st->m->ops->widen_e4m3(from, n * a->pl->head_dim, scale, wide);
    return wide;
}

/* Appends one token's keys and values. */
static void append_task(void *ctx, int t, int thread)
{
    (void)thread;
    struct attn *a = ctx;
    const ns_arch *arch = a->st->m->arch;
    size_t hd = (size_t)arch->head_dim;
    int item = 0;
    while (item + 1 < a->st->n_items && a->st->first[item + 1] <= t)
        item++;
    ns_state *state = a->st->items[item].state;
    const ns_layer_state *ls = &state->layer[a->layer];
    for (int g = 0; g < arch->n_kv_heads; g++) {
        size_t from = ((size_t)t * (size_t)arch->n_kv_heads + (size_t)g) * hd;
        size_t to = ((size_t)g * (size_t)state->context + (size_t)(state->len + t - a->st->first[item])) * ns_state_row(state);
        store_row(state->kv, a->k + from, hd, a->pl->vec.k_scale, ls->k + to);
        store_row(state->kv, a->v + from, hd, a->pl->vec.v_scale, ls->v + to);
    }
}

struct rows {
    int n, first, limit; /* rows; index of the first among the item's; the last position any of them sees, plus one */
    float *q, *o, *p, *kt, *wide, *max, *sum;
};

static const float *query_of(const struct attn *a, int item, int g, int row)
{
    size_t tok = (size_t)(a->st->first[item] + row / a->per_kv);
    return a->q + (tok * (size_t)a->pl->heads + (size_t)(g * a->per_kv + row % a->per_kv)) * (size_t)a->pl->head_dim;
}

/* Scores of one tile, masked, become weights in r->p; sums and outputs are rescaled to the new maximum. */
static void softmax_tile(const struct attn *a, struct rows *r, int at, int n, int pos0)
{
    const ns_ops *o = a->st->m->ops;
    int hd = a->pl->head_dim;
    for (int i = 0; i < r->n; i++) {
        float *p = r->p + i * TILE, max = r->max[i];
        int seen = pos0 + (r->first + i) / a->per_kv + 1 - at; /* keys of this tile that the row sees */
        seen = seen < 0 ? 0 : seen > n ? n : seen;
        for (int j = 0; j < seen; j++)
            max = p[j] > max ? p[j] : max;
        float scale = max == r->max[i] ? 1.0f : expf(r->max[i] - max);
        r->sum[i] = r->sum[i] * scale + (seen ? o->exp_sum(p, seen, max) : 0.0f);
        for (int j = seen; j < n; j++)
            p[j] = 0.0f;
        for (int j = 0; scale != 1.0f && j < hd; j++)
            r->o[i * hd + j] *= scale;
        r->max[i] = max;
    }
}

static void block_task(void *ctx, int t, int thread)
{
    struct attn *a = ctx;
    const ns_ops *o = a->st->m->ops;
    const ns_arch *arch = a->st->m->arch;
    int item = a->task_item[t / arch->n_kv_heads], g = t % arch->n_kv_heads, hd = a->pl->head_dim;
    size_t uhd = (size_t)hd;
    const ns_state *state = a->st->items[item].state;
    const size_t head = (size_t)g * (size_t)state->context * ns_state_row(state);
    const uint8_t *k = state->layer[a->layer].k + head, *v = state->layer[a->layer].v + head;
    struct rows r = { .first = a->task_row[t / arch->n_kv_heads] };
    int all = a->st->items[item].n * a->per_kv;
    r.n = all - r.first < a->row_block ? all - r.first : a->row_block;
    r.limit = state->len + (r.first + r.n - 1) / a->per_kv + 1;
    r.q = a->work + (size_t)thread * a->work_size;
    r.o = r.q + ROWS * uhd;
    r.p = r.o + ROWS * uhd;
    r.kt = r.p + ROWS * TILE;
    r.wide = r.kt + TILE * uhd;
    r.max = r.wide + TILE * uhd;
    r.sum = r.max + ROWS;
    float scale = 1.0f / sqrtf((float)hd);
    for (int i = 0; i < r.n; i++) {
        const float *q = query_of(a, item, g, r.first + i);
        for (int j = 0; j < hd; j++)
            r.q[(size_t)i * uhd + (size_t)j] = q[j] * scale;
        r.max[i] = -INFINITY;
        r.sum[i] = 0.0f;
    }
    memset(r.o, 0, (size_t)r.n * uhd * sizeof(float));
    for (int at = 0; at < r.limit; at += TILE) {
        int n = r.limit - at < TILE ? r.limit - at : TILE;
        const float *tile = load_rows(a, state, k, at, n, a->pl->vec.k_scale, r.wide);
        for (int i = 0; i < n; i++)
            for (int j = 0; j < hd; j++)
                r.kt[j * TILE + i] = tile[(size_t)i * uhd + (size_t)j];
        o->gemm(r.n, n, hd, r.q, uhd, 1, r.kt, TILE, r.p, TILE, false);
        softmax_tile(a, &r, at, n, state->len);
        tile = load_rows(a, state, v, at, n, a->pl->vec.v_scale, r.wide);
        o->gemm(r.n, hd, n, r.p, TILE, 1, tile, uhd, r.o, uhd, true);
    }
    for (int i = 0; i < r.n; i++) {
        float *out = a->out + (query_of(a, item, g, r.first + i) - a->q);
        for (int j = 0; j < hd; j++)
            out[j] = r.o[(size_t)i * uhd + (size_t)j] / r.sum[i];
    }
}

static void list_tasks(struct attn *a)
{
    ns_step *st = a->st;
    int rows = 0, threads = ns_pool_threads(st->m->pool), kv = st->m->arch->n_kv_heads;
    for (int i = 0; i < st->n_items; i++)
        rows += st->items[i].n * a->per_kv;
    /* small enough that every thread has work, large enough that a transposed tile of keys is used often */
    int share = rows * kv / (2 * threads);
    a->row_block = share < 4 ? 4 : share > ROWS ? ROWS : share;
    int most = rows / a->row_block + st->n_items;
    a->task_item = ns_scratch_get(st->s, (size_t)most, sizeof(int));
    a->task_row = ns_scratch_get(st->s, (size_t)most, sizeof(int));
    for (int i = 0; a->task_row && i < st->n_items; i++)
        for (int r = 0; r < st->items[i].n * a->per_kv; r += a->row_block) {
            a->task_item[a->n_tasks] = i;
            a->task_row[a->n_tasks++] = r;
        }
    a->work_size = (size_t)((2 * ROWS + 2 * TILE) * a->pl->head_dim + ROWS * TILE + 2 * ROWS + 15) / 16 * 16;
    a->work = ns_scratch_get(st->s, a->work_size * (size_t)threads, sizeof(float));
}

static void project_in(ns_step *st, int layer)
{
    const ns_plan_layer *pl = &st->plan->layer[layer];
    const ns_arch *arch = st->m->arch;
    size_t n = (size_t)st->n_tokens, kv = (size_t)(arch->n_kv_heads * arch->head_dim), q_dim = (size_t)pl->q.total;
    struct attn *a = st->mixer = ns_scratch_get(st->s, 1, sizeof *a);
    if (!a)
        return;
    *a = (struct attn){ .st = st, .pl = pl, .layer = layer, .per_kv = pl->heads / arch->n_kv_heads };
    a->q = ns_scratch_get(st->s, n * q_dim, sizeof(float));
    a->k = ns_scratch_get(st->s, n * kv, sizeof(float));
    a->v = ns_scratch_get(st->s, n * kv, sizeof(float));
    a->out = ns_scratch_get(st->s, n * q_dim, sizeof(float));
    list_tasks(a);
    a->in = ns_acts_of(st->normed, (size_t)st->hidden, st->n_tokens, st->hidden);
    ns_ask_linear(st, layer, NS_W_Q, &pl->q, 0, &a->in, pl->vec.q_bias, a->q, q_dim);
    ns_ask_linear(st, layer, NS_W_K, NULL, (int)kv, &a->in, pl->vec.k_bias, a->k, kv);
    ns_ask_linear(st, layer, NS_W_V, NULL, (int)kv, &a->in, pl->vec.v_bias, a->v, kv);
}

static void attend_and_project_out(ns_step *st, int layer)
{
    struct attn *a = st->mixer;
    const ns_plan_layer *pl = a->pl;
    const ns_arch *arch = st->m->arch;
    size_t q_dim = (size_t)pl->q.total;
    if (st->tap && st->tap->kv)
        st->tap->kv(st->tap->ctx, layer, a->k, a->v, st->n_tokens, arch->n_kv_heads * arch->head_dim);
    ns_parallel(st->m, st->n_tokens, append_task, a);
    ns_parallel(st->m, a->n_tasks * arch->n_kv_heads, block_task, a);
    if (pl->mask)
        ns_mask_segs(a->out, q_dim, st->n_tokens, (int)q_dim, &pl->mask->q);
    a->mixed = ns_acts_of_segs(a->out, q_dim, st->n_tokens, &pl->q);
    ns_ask_linear(st, layer, NS_W_O, NULL, st->hidden, &a->mixed, pl->vec.o_bias, st->out, (size_t)st->hidden);
}

bool ns_attention_stage(ns_step *st, int layer, int stage)
{
    if (stage == 0)
        project_in(st, layer);
    else if (stage == 1)
        attend_and_project_out(st, layer);
    return stage < 2;
}
