/* The mixture of experts, and the plain MLP.
 *   s = sigmoid(W_gate x);  c = s + correction (selection only);  groups: keep the topk_group best by the sum of their two best c
 *   T = top-k of c;  w_e = s_e / (sum_T s + 1e-20) where norm_topk_prob, times routed_scaling
 *   out = sum_T w_e down_e(relu(up_e x)^2) + shared(x);  with a latent size, experts live between fc1 and fc2
 * Tokens are grouped by expert, so an expert's weights are read once per step however many tokens chose it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/block.h"

enum { MAX_GROUPS = 4096 }; /* arch refuses more */

struct moe {
    ns_step *st;
    const ns_plan_layer *pl;
    int layer, io;               /* io: hidden, or the latent size */
    float *logits;               /* [n_tokens, n_experts] -> sigmoid scores */
    int *pick;                   /* [n_tokens, topk] expert among the live ones */
    float *weight;               /* [n_tokens, topk] */
    int *where;                  /* [n_tokens, topk] row of that pick in the expert-sorted order */
    int *order;                  /* [n_tokens * topk] 0, 1, 2 ..: sorted rows in their own order */
    int *token;                  /* [n_tokens * topk] token of a sorted row */
    int *start;                  /* [n_experts + 1] first sorted row of an expert */
    float *mid, *shared_mid;     /* [n_tokens * topk, ffn], [n_tokens, shared] */
    float *down, *shared_down;   /* [n_tokens * topk, io], [n_tokens, hidden] */
    float *out;
    size_t ldout;
};

static int live_expert(const ns_plan_layer *pl, int j) /* index in the full model */
{
    for (int s = 0; s < pl->experts.n; s++) {
        if (j < pl->experts.seg[s].len)
            return pl->experts.seg[s].off + j;
        j -= pl->experts.seg[s].len;
    }
    abort(); /* picks are below experts.total by construction */
}

static bool expert_dead(const struct moe *m, int j)
{
    return m->pl->mask && !ns_cut_has_expert(m->st->m->arch, &m->st->plan->mask->cut, m->layer, live_expert(m->pl, j));
}

/* Marks experts of all but the topk_group best groups with -inf. A group's worth is the sum of its two best choices. */
static void drop_groups(const ns_arch *a, float *choice, int n)
{
    int size = n / a->n_group;
    float worth[MAX_GROUPS];
    bool kept[MAX_GROUPS] = { false };
    for (int g = 0; g < a->n_group; g++) {
        float best = -INFINITY, second = -INFINITY;
        for (int i = g * size; i < (g + 1) * size; i++) {
            if (choice[i] > best) {
                second = best;
                best = choice[i];
            } else if (choice[i] > second) {
                second = choice[i];
            }
        }
        worth[g] = size > 1 ? best + second : best;
    }
    for (int k = 0; k < a->topk_group; k++) {
        int best = -1;
        for (int g = 0; g < a->n_group; g++)
            if (!kept[g] && (best < 0 || worth[g] > worth[best]))
                best = g;
        kept[best] = true;
    }
    for (int i = 0; i < n; i++)
        if (!kept[i / size])
            choice[i] = -INFINITY;
}

static void route_task(void *ctx, int t, int thread)
{
    (void)thread;
    struct moe *m = ctx;
    const ns_arch *a = m->st->m->arch;
    const ns_plan_layer *pl = m->pl;
    int n = pl->n_experts, k = pl->topk, *pick = m->pick + (size_t)t * (size_t)k;
    float *s = m->logits + (size_t)t * 2 * (size_t)n, *choice = s + n, *w = m->weight + (size_t)t * (size_t)k;
    for (int i = 0; i < n; i++) {
        s[i] = 1.0f / (1.0f + expf(-s[i]));
        choice[i] = expert_dead(m, i) ? -INFINITY : s[i] + pl->vec.correction[i];
    }
    if (a->n_group > 1)
        drop_groups(a, choice, n);
    float sum = 0.0f;
    for (int j = 0; j < k; j++) { /* the lowest index wins a tie */
        int best = 0;
        for (int i = 1; i < n; i++)
            if (choice[i] > choice[best])
                best = i;
        choice[best] = -INFINITY;
        pick[j] = best;
        w[j] = s[best];
        sum += s[best];
    }
    for (int j = 0; j < k; j++)
        w[j] = (a->norm_topk ? w[j] / (sum + 1e-20f) : w[j]) * (float)a->routed_scaling;
}

/* Sorts picks by expert; tokens stay in order within one. */
static void group_tokens(struct moe *m)
{
    int k = m->pl->topk, n = m->st->n_tokens * k;
    memset(m->start, 0, (size_t)(m->pl->n_experts + 1) * sizeof(int));
    for (int i = 0; i < n; i++)
        m->start[m->pick[i] + 1]++;
    for (int e = 0; e < m->pl->n_experts; e++)
        m->start[e + 1] += m->start[e];
    for (int i = 0; i < n; i++) {
        int row = m->start[m->pick[i]]++;
        m->where[i] = row;
        m->order[i] = i;
        m->token[row] = i / k;
    }
    for (int e = m->pl->n_experts; e > 0; e--)
        m->start[e] = m->start[e - 1];
    m->start[0] = 0;
}

static void relu2_task(void *ctx, int t, int thread)
{
    (void)thread;
    struct moe *m = ctx;
    int rows = m->st->n_tokens * m->pl->topk;
    if (t < rows)
        m->st->m->ops->relu2(m->mid + (size_t)t * (size_t)m->pl->ffn, m->pl->ffn);
    else
        m->st->m->ops->relu2(m->shared_mid + (size_t)(t - rows) * (size_t)m->pl->shared, m->pl->shared);
}

static void combine_task(void *ctx, int t, int thread)
{
    (void)thread;
    struct moe *m = ctx;
    int k = m->pl->topk;
    float *out = m->out + (size_t)t * m->ldout;
    memset(out, 0, (size_t)m->io * sizeof *out);
    for (int j = 0; j < k; j++)
        m->st->m->ops->axpy(m->io, m->weight[t * k + j], m->down + (size_t)m->where[t * k + j] * (size_t)m->io, out);
}

static void add_shared_task(void *ctx, int t, int thread)
{
    (void)thread;
    struct moe *m = ctx;
    m->st->m->ops->axpy(m->st->hidden, 1.0f, m->shared_down + (size_t)t * (size_t)m->st->hidden, m->out + (size_t)t * m->ldout);
}

static const ns_mat *mat_of(const ns_step *st, int layer, ns_role r, int expert)
{
    return &ns_ckpt_weight(st->m->ckpt, layer, r, expert)->mat;
}

/* Up or down projections of all experts that were chosen, and of the shared expert, as one set of products. */
static void run_experts(struct moe *m, bool up, ns_acts *in, ns_acts *shared_in, ns_product *p)
{
    ns_step *st = m->st;
    const ns_plan_layer *pl = m->pl;
    int n = 0;
    for (int e = 0; e < pl->n_experts; e++) {
        int rows = m->start[e + 1] - m->start[e], full = live_expert(pl, e);
        if (rows == 0)
            continue;
        p[n] = (ns_product){ .w = mat_of(st, m->layer, up ? NS_W_EXPERT_UP : NS_W_EXPERT_DOWN, full),
                             .n_rows = up ? pl->ffn : m->io,
                             .x = in,
                             .m = rows };
        p[n].idx = (up ? m->token : m->order) + m->start[e];
        p[n].ldy = (size_t)p[n].n_rows;
        p[n].y = (up ? m->mid : m->down) + (size_t)m->start[e] * p[n].ldy;
        ns_tap_input(st, m->layer, up ? NS_W_EXPERT_UP : NS_W_EXPERT_DOWN, full, in, p[n].idx, rows);
        n++;
    }
    if (pl->shared) {
        ns_tap_input(st, m->layer, up ? NS_W_SHARED_UP : NS_W_SHARED_DOWN, 0, shared_in, NULL, st->n_tokens);
        p[n++] = (ns_product){ .w = mat_of(st, m->layer, up ? NS_W_SHARED_UP : NS_W_SHARED_DOWN, 0),
                               .n_rows = up ? pl->shared : st->hidden,
                               .x = shared_in,
                               .m = st->n_tokens,
                               .y = up ? m->shared_mid : m->shared_down,
                               .ldy = (size_t)(up ? pl->shared : st->hidden),
                               .bias = up ? pl->vec.shared_up_bias : pl->vec.shared_down_bias };
    }
    ns_products_run(st->m, st->s, p, n);
}

static void tap_router(const struct moe *m)
{
    ns_step *st = m->st;
    size_t n = (size_t)st->n_tokens * (size_t)m->pl->topk;
    int *full = ns_scratch_get(st->s, n, sizeof *full);
    for (size_t i = 0; full && i < n; i++)
        full[i] = live_expert(m->pl, m->pick[i]);
    if (full)
        st->tap->router(st->tap->ctx, m->layer, full, m->weight, st->n_tokens, m->pl->topk);
}

static bool get_memory(struct moe *m)
{
    ns_scratch *s = m->st->s;
    const ns_plan_layer *pl = m->pl;
    size_t n = (size_t)m->st->n_tokens, picks = n * (size_t)pl->topk;
    m->logits = ns_scratch_get(s, n * 2 * (size_t)pl->n_experts, sizeof(float));
    m->pick = ns_scratch_get(s, picks, sizeof(int));
    m->weight = ns_scratch_get(s, picks, sizeof(float));
    m->where = ns_scratch_get(s, picks, sizeof(int));
    m->token = ns_scratch_get(s, picks, sizeof(int));
    m->order = ns_scratch_get(s, picks, sizeof(int));
    m->start = ns_scratch_get(s, (size_t)pl->n_experts + 1, sizeof(int));
    m->mid = ns_scratch_get(s, picks * (size_t)pl->ffn, sizeof(float));
    m->shared_mid = ns_scratch_get(s, n * (size_t)pl->shared, sizeof(float));
    m->down = ns_scratch_get(s, picks * (size_t)m->io, sizeof(float));
    m->shared_down = ns_scratch_get(s, n * (size_t)m->st->hidden, sizeof(float));
    return !ns_scratch_failed(s);
}

void ns_moe_forward(ns_step *st, int layer, const float *x, float *out)
{
    const ns_plan_layer *pl = &st->plan->layer[layer];
    size_t n = (size_t)st->n_tokens, hidden = (size_t)st->hidden;
    int latent = st->m->arch->latent_size;
    struct moe m = { .st = st, .pl = pl, .layer = layer, .io = latent ? latent : st->hidden };
    float *z = latent ? ns_scratch_get(st->s, 2 * n * (size_t)latent, sizeof(float)) : NULL;
    ns_product *products = ns_scratch_get(st->s, (size_t)pl->n_experts + 1, sizeof *products);
    if (!get_memory(&m) || !products)
        return;
    ns_acts in = ns_acts_of(x, hidden, st->n_tokens, st->hidden), lat = in, *expert_in = &in;
    ns_linear(st, layer, NS_W_GATE, &pl->experts, 0, &in, NULL, m.logits, 2 * (size_t)pl->n_experts);
    ns_parallel(st->m, st->n_tokens, route_task, &m);
    group_tokens(&m);
    if (st->tap && st->tap->router)
        tap_router(&m);
    if (latent) {
        ns_linear(st, layer, NS_W_LATENT_IN, NULL, latent, &in, pl->vec.latent_in_bias, z, (size_t)latent);
        lat = ns_acts_of(z, (size_t)latent, st->n_tokens, latent);
        expert_in = &lat;
    }
    run_experts(&m, true, expert_in, &in, products);
    int picks = st->n_tokens * pl->topk;
    if (pl->mask) {
        ns_mask_prefix(m.mid, (size_t)pl->ffn, picks, pl->ffn, pl->mask->ffn);
        ns_mask_prefix(m.shared_mid, (size_t)pl->shared, st->n_tokens, pl->shared, pl->mask->shared);
    }
    ns_parallel(st->m, picks + (pl->shared ? st->n_tokens : 0), relu2_task, &m);
    ns_acts mid = ns_acts_of(m.mid, (size_t)pl->ffn, picks, pl->ffn);
    ns_acts shared_mid = ns_acts_of(m.shared_mid, (size_t)pl->shared, st->n_tokens, pl->shared);
    run_experts(&m, false, &mid, &shared_mid, products);
    m.out = latent ? z + n * (size_t)latent : out;
    m.ldout = (size_t)m.io;
    ns_parallel(st->m, st->n_tokens, combine_task, &m);
    if (latent) {
        ns_acts y = ns_acts_of(m.out, (size_t)latent, st->n_tokens, latent);
        ns_linear(st, layer, NS_W_LATENT_OUT, NULL, st->hidden, &y, pl->vec.latent_out_bias, out, hidden);
    }
    m.out = out;
    m.ldout = hidden;
    if (pl->shared)
        ns_parallel(st->m, st->n_tokens, add_shared_task, &m);
}

void ns_mlp_forward(ns_step *st, int layer, const float *x, float *out)
{
    const ns_plan_layer *pl = &st->plan->layer[layer];
    size_t ffn = (size_t)pl->ffn;
    float *mid = ns_scratch_get(st->s, (size_t)st->n_tokens * ffn, sizeof *mid);
    ns_acts in = ns_acts_of(x, (size_t)st->hidden, st->n_tokens, st->hidden);
    if (!mid)
        return;
    ns_linear(st, layer, NS_W_UP, NULL, pl->ffn, &in, pl->vec.up_bias, mid, ffn);
    if (pl->mask)
        ns_mask_prefix(mid, ffn, st->n_tokens, pl->ffn, pl->mask->ffn);
    for (int t = 0; t < st->n_tokens; t++)
        st->m->ops->relu2(mid + (size_t)t * ffn, pl->ffn);
    ns_acts y = ns_acts_of(mid, ffn, st->n_tokens, pl->ffn);
    ns_linear(st, layer, NS_W_DOWN, NULL, st->hidden, &y, pl->vec.down_bias, out, (size_t)st->hidden);
}
