/* The Mamba-2 mixer.
 *   [z | xBC | dt] = in_proj(u);  xBC = silu(conv1d(xBC));  dt = softplus(dt + dt_bias), clamped to time_step_limit
 *   S_t = exp(dt A) S_{t-1} + dt B_t (x) x_t;   y_t = C_t S_t + D x_t          per head, B and C per group
 *   out = out_proj(gated_norm(y, z))
 * One token: the recurrence. Several: the chunked form (SSD), with cs the running sum of dt A inside a chunk:
 *   y_l = sum_{m<=l} (C_l . B_m) exp(cs_l - cs_m) dt_m x_m + exp(cs_l) C_l S_in + D x_l
 *   S_out = exp(cs_last) S_in + sum_m exp(cs_last - cs_m) dt_m B_m (x) x_m */
#include <math.h>
#include <string.h>

#include "model/block.h"

enum { CHUNK = NS_SCAN_CHUNK, CONV_BLOCK = 512 };

struct ssm {
    ns_step *st;
    const ns_plan_layer *pl;
    int layer;
    size_t ld;        /* of proj */
    float *proj;      /* [n_tokens, z | xBC | dt] */
    float *xbc, *y;   /* [n_tokens, conv_dim], [n_tokens, inner] */
    float *dt, *decay; /* [n_tokens, heads]: softplus'ed dt; dt * A */
    float *cb;        /* [chunk][group][CHUNK, CHUNK]: C_l . B_m */
    int *chunk_item, *chunk_at; /* of every chunk: its item, and its first token there */
    int n_chunks;
    float *work;      /* [threads] x WORK(state) floats */
    size_t work_size;
    ns_acts in, gated;
};

static float softplus(float x)
{
    return x > 20.0f ? x : log1pf(expf(x));
}

static ns_layer_state *state_of(const struct ssm *s, int item)
{
    return &s->st->items[item].state->layer[s->layer];
}

static void conv_task(void *ctx, int t, int thread)
{
    (void)thread;
    struct ssm *s = ctx;
    const ns_plan_layer *pl = s->pl;
    int blocks = (pl->conv_dim + CONV_BLOCK - 1) / CONV_BLOCK, item = t / blocks, c = t % blocks * CONV_BLOCK;
    int n = pl->conv_dim - c < CONV_BLOCK ? pl->conv_dim - c : CONV_BLOCK;
    size_t tok = (size_t)s->st->first[item];
    s->st->m->ops->conv_silu(s->proj + tok * s->ld + (size_t)(pl->inner + c), s->ld, s->st->items[item].n, n, s->st->m->arch->conv_kernel,
                             pl->vec.conv_w + c, pl->vec.conv_b ? pl->vec.conv_b + c : NULL, state_of(s, item)->conv + c,
                             (size_t)pl->conv_dim, s->xbc + tok * (size_t)pl->conv_dim + (size_t)c, (size_t)pl->conv_dim);
}

static void dt_task(void *ctx, int t, int thread)
{
    (void)thread;
    struct ssm *s = ctx;
    const ns_arch *a = s->st->m->arch;
    const ns_plan_layer *pl = s->pl;
    const float *raw = s->proj + (size_t)t * s->ld + (size_t)(pl->inner + pl->conv_dim);
    for (int h = 0; h < pl->heads; h++) {
        float dt = softplus(raw[h] + pl->vec.dt_bias[h]);
        dt = dt < (float)a->dt_min ? (float)a->dt_min : dt > (float)a->dt_max ? (float)a->dt_max : dt;
        s->dt[(size_t)t * (size_t)pl->heads + (size_t)h] = dt;
        s->decay[(size_t)t * (size_t)pl->heads + (size_t)h] = dt * pl->vec.a[h];
    }
}

static const float *b_of(const struct ssm *s, size_t token, int head)
{
    const ns_plan_layer *pl = s->pl;
    int group = head / (pl->heads / pl->groups);
    return s->xbc + token * (size_t)pl->conv_dim + (size_t)(pl->inner + group * pl->state);
}

static const float *c_of(const struct ssm *s, size_t token, int head)
{
    return b_of(s, token, head) + s->pl->groups * s->pl->state;
}

/* C_l . B_m of one chunk and group, through a transposed copy of B. */
static void cb_task(void *ctx, int t, int thread)
{
    struct ssm *s = ctx;
    const ns_plan_layer *pl = s->pl;
    int chunk = t / pl->groups, group = t % pl->groups, head = group * (pl->heads / pl->groups), n = pl->state;
    const ns_item *it = &s->st->items[s->chunk_item[chunk]];
    int at = s->chunk_at[chunk], q = it->n - at < CHUNK ? it->n - at : CHUNK;
    size_t tok = (size_t)(s->st->first[s->chunk_item[chunk]] + at);
    float *bt = s->work + (size_t)thread * s->work_size; /* [n, q] */
    for (int m = 0; m < q; m++) {
        const float *b = b_of(s, tok + (size_t)m, head);
        for (int j = 0; j < n; j++)
            bt[(size_t)j * (size_t)q + (size_t)m] = b[j];
    }
    s->st->m->ops->gemm(q, q, n, c_of(s, tok, head), (size_t)pl->conv_dim, 1, bt, (size_t)q, s->cb + (size_t)t * CHUNK * CHUNK, CHUNK,
                        false);
}

/* One chunk of one head. */
static void ssd_chunk(struct ssm *s, int chunk, int head, size_t tok, int q, float *state, float *work)
{
    const ns_ops *o = s->st->m->ops;
    const ns_plan_layer *pl = s->pl;
    int n = pl->state, p = pl->head_dim, group = head / (pl->heads / pl->groups);
    size_t h = (size_t)pl->heads, ldx = (size_t)pl->conv_dim, ldy = (size_t)pl->inner, un = (size_t)n;
    float *cs = work, *mix = cs + CHUNK, *scaled = mix + CHUNK * CHUNK;
    const float *x = s->xbc + tok * ldx + (size_t)(head * p), *dt = s->dt + tok * h + (size_t)head;
    const float *cb = s->cb + ((size_t)chunk * (size_t)pl->groups + (size_t)group) * CHUNK * CHUNK;
    float *y = s->y + tok * ldy + (size_t)(head * p), sum = 0.0f;
    for (int l = 0; l < q; l++)
        cs[l] = sum += s->decay[(tok + (size_t)l) * h + (size_t)head];
    for (int l = 0; l < q; l++) {
        float *row = mix + l * CHUNK;
        for (int m = 0; m <= l; m++)
            row[m] = cs[l] - cs[m];
        o->exp_sum(row, l + 1, 0.0f);
        for (int m = 0; m < q; m++)
            row[m] = m <= l ? row[m] * cb[l * CHUNK + m] * dt[(size_t)m * h] : 0.0f;
    }
    o->gemm(q, p, q, mix, CHUNK, 1, x, ldx, y, ldy, false);
    for (int l = 0; l < q; l++) {
        const float *c = c_of(s, tok + (size_t)l, head);
        float f = expf(cs[l]);
        for (int j = 0; j < n; j++)
            scaled[(size_t)l * un + (size_t)j] = f * c[j];
    }
    o->gemm(q, p, n, scaled, un, 1, state, (size_t)p, y, ldy, true);
    for (int l = 0; l < q; l++) {
        const float *b = b_of(s, tok + (size_t)l, head);
        float f = expf(cs[q - 1] - cs[l]) * dt[(size_t)l * h];
        for (int j = 0; j < n; j++)
            scaled[(size_t)l * un + (size_t)j] = f * b[j];
        o->axpy(p, pl->vec.d[head], x + (size_t)l * ldx, y + (size_t)l * ldy);
    }
    float f = expf(cs[q - 1]);
    for (int j = 0; j < n * p; j++)
        state[j] *= f;
    o->gemm(n, p, q, scaled, 1, un, x, ldx, state, (size_t)p, true);
}

/* All tokens of one item through one head, in order. */
static void head_task(void *ctx, int t, int thread)
{
    struct ssm *s = ctx;
    const ns_plan_layer *pl = s->pl;
    int item = t / pl->heads, head = t % pl->heads, n = s->st->items[item].n;
    size_t tok = (size_t)s->st->first[item], h = (size_t)pl->heads;
    float *state = state_of(s, item)->ssm + (size_t)head * (size_t)pl->state * (size_t)pl->head_dim;
    if (n == 1) {
        s->st->m->ops->ssm_step(state, pl->state, pl->head_dim, expf(s->decay[tok * h + (size_t)head]), s->dt[tok * h + (size_t)head],
                                b_of(s, tok, head), c_of(s, tok, head), s->xbc + tok * (size_t)pl->conv_dim + (size_t)(head * pl->head_dim),
                                pl->vec.d[head], s->y + tok * (size_t)pl->inner + (size_t)(head * pl->head_dim));
        return;
    }
    for (int c = 0; c < s->n_chunks; c++)
        if (s->chunk_item[c] == item) {
            int at = s->chunk_at[c];
            ssd_chunk(s, c, head, tok + (size_t)at, n - at < CHUNK ? n - at : CHUNK, state, s->work + (size_t)thread * s->work_size);
        }
}

static void norm_task(void *ctx, int t, int thread)
{
    (void)thread;
    struct ssm *s = ctx;
    const ns_plan_layer *pl = s->pl;
    float *y = s->y + (size_t)t * (size_t)pl->inner;
    int live = (pl->mask ? pl->mask->inner : pl->inner) / pl->groups;
    s->st->m->ops->gated_norm(y, s->proj + (size_t)t * s->ld, pl->vec.gated_norm, pl->inner, pl->inner / pl->groups, live,
                              (float)s->st->m->arch->gated_norm_eps, y);
}

static void list_chunks(struct ssm *s)
{
    ns_step *st = s->st;
    int most = 0;
    for (int i = 0; i < st->n_items; i++)
        most += (st->items[i].n + CHUNK - 1) / CHUNK;
    s->chunk_item = ns_scratch_get(st->s, (size_t)most, sizeof(int));
    s->chunk_at = ns_scratch_get(st->s, (size_t)most, sizeof(int));
    for (int i = 0; s->chunk_at && i < st->n_items; i++)
        for (int at = 0; st->items[i].n > 1 && at < st->items[i].n; at += CHUNK) {
            s->chunk_item[s->n_chunks] = i;
            s->chunk_at[s->n_chunks++] = at;
        }
    s->cb = ns_scratch_get(st->s, (size_t)s->n_chunks * (size_t)s->pl->groups, CHUNK * CHUNK * sizeof(float));
    s->work_size = (size_t)(CHUNK + CHUNK * CHUNK + CHUNK * s->pl->state + 15) / 16 * 16;
    s->work = ns_scratch_get(st->s, s->work_size * (size_t)ns_pool_threads(st->m->pool), sizeof(float));
}

static void project_in(ns_step *st, int layer)
{
    const ns_plan_layer *pl = &st->plan->layer[layer];
    size_t n = (size_t)st->n_tokens;
    struct ssm *s = st->mixer = ns_scratch_get(st->s, 1, sizeof *s);
    if (!s)
        return;
    *s = (struct ssm){ .st = st, .pl = pl, .layer = layer, .ld = (size_t)pl->in_proj.total };
    s->proj = ns_scratch_get(st->s, n * s->ld, sizeof(float));
    s->xbc = ns_scratch_get(st->s, n * (size_t)pl->conv_dim, sizeof(float));
    s->y = ns_scratch_get(st->s, n * (size_t)pl->inner, sizeof(float));
    s->dt = ns_scratch_get(st->s, n * (size_t)pl->heads, sizeof(float));
    s->decay = ns_scratch_get(st->s, n * (size_t)pl->heads, sizeof(float));
    list_chunks(s);
    s->in = ns_acts_of(st->normed, (size_t)st->hidden, st->n_tokens, st->hidden);
    ns_ask_linear(st, layer, NS_W_IN_PROJ, &pl->in_proj, 0, &s->in, pl->vec.in_bias, s->proj, s->ld);
}

static void scan_and_project_out(ns_step *st, int layer)
{
    struct ssm *s = st->mixer;
    const ns_plan_layer *pl = s->pl;
    if (pl->mask)
        ns_mask_segs(s->proj, s->ld, st->n_tokens, pl->in_proj.total, &pl->mask->in_proj);
    ns_parallel(st->m, st->n_items * ((pl->conv_dim + CONV_BLOCK - 1) / CONV_BLOCK), conv_task, s);
    if (pl->mask)
        ns_mask_segs(s->xbc, (size_t)pl->conv_dim, st->n_tokens, pl->conv_dim, &pl->mask->conv);
    ns_parallel(st->m, st->n_tokens, dt_task, s);
    ns_parallel(st->m, s->n_chunks * pl->groups, cb_task, s);
    ns_parallel(st->m, st->n_items * pl->heads, head_task, s);
    ns_parallel(st->m, st->n_tokens, norm_task, s);
    s->gated = ns_acts_of_segs(s->y, (size_t)pl->inner, st->n_tokens, &pl->inner_segs);
    ns_ask_linear(st, layer, NS_W_OUT_PROJ, NULL, st->hidden, &s->gated, pl->vec.out_bias, st->out, (size_t)st->hidden);
}

bool ns_mamba_stage(ns_step *st, int layer, int stage)
{
    if (stage == 0)
        project_in(st, layer);
    else if (stage == 1)
        scan_and_project_out(st, layer);
    return stage < 2;
}
