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
    float *latent_in, *latent_out; /* [n_tokens, io]; NULL where there is no latent size */
    float *out;
    size_t ldout;
    ns_acts in, latent, mixed, mid_acts, shared_mid_acts;
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

/* Up or down projections of all experts that were chosen, and of the shared expert. */
static void ask_experts(struct moe *m, bool up, ns_acts *in, ns_acts *shared_in)
{
    ns_step *st = m->st;
    const ns_plan_layer *pl = m->pl;
    ns_role role = up ? NS_W_EXPERT_UP : NS_W_EXPERT_DOWN;
    for (int e = 0; e < pl->n_experts; e++) {
        int rows = m->start[e + 1] - m->start[e], full = live_expert(pl, e), n_rows = up ? pl->ffn : m->io;
        const int *idx = (up ? m->token : m->order) + m->start[e];
        if (rows == 0)
            continue;
        ns_tap_input(st, m->layer, role, full, in, idx, rows);
        ns_ask(st, &(ns_product){ .w = &ns_ckpt_weight(st->m->ckpt, m->layer, role, full)->mat, .n_rows = n_rows, .x = in, .idx = idx, .m = rows,
                                  .y = (up ? m->mid : m->down) + (size_t)m->start[e] * (size_t)n_rows, .ldy = (size_t)n_rows });
    }
    if (pl->shared)
        ns_ask_linear(st, m->layer, up ? NS_W_SHARED_UP : NS_W_SHARED_DOWN, NULL, up ? pl->shared : st->hidden, shared_in,
                      up ? pl->vec.shared_up_bias : pl->vec.shared_down_bias, up ? m->shared_mid : m->shared_down,
                      (size_t)(up ? pl->shared : st->hidden));
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

static void choose(ns_step *st, int layer)
{
    const ns_plan_layer *pl = &st->plan->layer[layer];
    size_t latent = (size_t)st->m->arch->latent_size;
    struct moe *m = st->mixer = ns_scratch_get(st->s, 1, sizeof *m);
    if (!m)
        return;
    *m = (struct moe){ .st = st, .pl = pl, .layer = layer, .io = latent ? (int)latent : st->hidden };
    m->latent_in = latent ? ns_scratch_get(st->s, (size_t)st->n_tokens * latent, sizeof(float)) : NULL;
    m->latent_out = latent ? ns_scratch_get(st->s, (size_t)st->n_tokens * latent, sizeof(float)) : NULL;
    if (!get_memory(m))
        return;
    m->in = ns_acts_of(st->normed, (size_t)st->hidden, st->n_tokens, st->hidden);
    ns_ask_linear(st, layer, NS_W_GATE, &pl->experts, 0, &m->in, NULL, m->logits, 2 * (size_t)pl->n_experts);
    if (latent)
        ns_ask_linear(st, layer, NS_W_LATENT_IN, NULL, (int)latent, &m->in, pl->vec.latent_in_bias, m->latent_in, latent);
}

static void expand(struct moe *m)
{
    ns_step *st = m->st;
    ns_parallel(st->m, st->n_tokens, route_task, m);
    group_tokens(m);
    if (st->tap && st->tap->router)
        tap_router(m);
    if (m->latent_in)
        m->latent = ns_acts_of(m->latent_in, (size_t)m->io, st->n_tokens, m->io);
    ask_experts(m, true, m->latent_in ? &m->latent : &m->in, &m->in);
}

static void contract(struct moe *m)
{
    ns_step *st = m->st;
    const ns_plan_layer *pl = m->pl;
    int picks = st->n_tokens * pl->topk;
    if (pl->mask) {
        ns_mask_prefix(m->mid, (size_t)pl->ffn, picks, pl->ffn, pl->mask->ffn);
        ns_mask_prefix(m->shared_mid, (size_t)pl->shared, st->n_tokens, pl->shared, pl->mask->shared);
    }
    ns_parallel(st->m, picks + (pl->shared ? st->n_tokens : 0), relu2_task, m);
    m->mid_acts = ns_acts_of(m->mid, (size_t)pl->ffn, picks, pl->ffn);
    m->shared_mid_acts = ns_acts_of(m->shared_mid, (size_t)pl->shared, st->n_tokens, pl->shared);
    ask_experts(m, false, &m->mid_acts, &m->shared_mid_acts);
}

/* The experts' sum, in the output where there is no latent size between. */
static void combine(struct moe *m)
{
    ns_step *st = m->st;
    m->out = m->latent_out ? m->latent_out : st->out;
    m->ldout = (size_t)m->io;
    ns_parallel(st->m, st->n_tokens, combine_task, m);
    if (m->latent_out) {
        m->mixed = ns_acts_of(m->latent_out, (size_t)m->io, st->n_tokens, m->io);
        ns_ask_linear(st, m->layer, NS_W_LATENT_OUT, NULL, st->hidden, &m->mixed, m->pl->vec.latent_out_bias, st->out, (size_t)st->hidden);
    }
}

static void add_shared(struct moe *m)
{
    m->out = m->st->out;
    m->ldout = (size_t)m->st->hidden;
    if (m->pl->shared)
        ns_parallel(m->st->m, m->st->n_tokens, add_shared_task, m);
}

bool ns_moe_stage(ns_step *st, int layer, int stage)
{
    switch (stage) {
    case 0: choose(st, layer); return true;
    case 1: expand(st->mixer); return true;
    case 2: contract(st->mixer); return true;
    case 3: combine(st->mixer); return true;
    default: add_shared(st->mixer); return false;
    }
}

struct mlp {
    float *mid;
    ns_acts in, mid_acts;
};

bool ns_mlp_stage(ns_step *st, int layer, int stage)
{
    const ns_plan_layer *pl = &st->plan->layer[layer];
    size_t ffn = (size_t)pl->ffn;
    struct mlp *m = st->mixer;
    if (stage == 0) {
        if (!(m = st->mixer = ns_scratch_get(st->s, 1, sizeof *m)))
            return true;
        m->mid = ns_scratch_get(st->s, (size_t)st->n_tokens * ffn, sizeof(float));
        m->in = ns_acts_of(st->normed, (size_t)st->hidden, st->n_tokens, st->hidden);
        ns_ask_linear(st, layer, NS_W_UP, NULL, pl->ffn, &m->in, pl->vec.up_bias, m->mid, ffn);
    } else if (stage == 1) {
        if (pl->mask)
            ns_mask_prefix(m->mid, ffn, st->n_tokens, pl->ffn, pl->mask->ffn);
        for (int t = 0; t < st->n_tokens; t++)
            st->m->ops->relu2(m->mid + (size_t)t * ffn, pl->ffn);
        m->mid_acts = ns_acts_of(m->mid, ffn, st->n_tokens, pl->ffn);
        ns_ask_linear(st, layer, NS_W_DOWN, NULL, st->hidden, &m->mid_acts, pl->vec.down_bias, st->out, (size_t)st->hidden);
    }
    return stage < 2;
}
