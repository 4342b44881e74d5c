/* The mixture of experts. With a mask a per expert, s = sigmoid(W_gate x), t = a s:
 *   T = top-k of t + a correction  (a = 0: never; groups: only the topk_group best by the sum of their two best)
 *   w_e = t_e / (sum_T t + 1e-20) where norm_topk_prob, else t_e; times routed_scaling
 *   y = sum_T w_e ffn_e(x) + ffn_shared(x);  with a latent size, experts live between fc1 and fc2.
 * Backward: the selection carries no gradient; dw_e = <dy, ffn_e(x)>; with the norm, S the sum and c the scaling,
 *   dt_e = (c dw_e - sum_j dw_j w_j) / S, else c dw_e; da_e += dt_e s_e; d logit_e = dt_e a_e s_e (1 - s_e).
 * Tokens are gathered by expert, each expert is a few products over its rows. Inference twin: src/model/moe.c. */
#include <string.h>

#include "block/dense.h"
#include "block/space.h"
#include "block/vec.h"

enum { MAX_GROUPS = 4096 }; /* arch refuses more */

typedef struct moe {
    const ns_block_ctx *c;
    const ns_axis_mask *experts; /* NULL: ones */
    ns_dense gate, latent_in, latent_out;
    ns_ffn shared; /* up.w NULL: none */
    int n, h, n_experts, topk, ffn, shared_ffn, latent;
    int io, io_ld; /* live width and row length of what the experts read and write */
} moe;

static moe moe_of(const ns_block_ctx *c)
{
    const ns_arch *a = c->arch;
    const int *width = a->layers[c->layer].width, live = ns_live_width(c, NS_AXIS_SHARED_FFN);
    moe m = { .c = c, .experts = ns_mask_of(c, NS_AXIS_EXPERTS), .n = c->seqs->n_tokens, .h = a->hidden_size };
    m.topk = a->layers[c->layer].topk;
    m.n_experts = width[NS_AXIS_EXPERTS];
    m.ffn = width[NS_AXIS_EXPERT_FFN];
    m.shared_ffn = width[NS_AXIS_SHARED_FFN];
    m.latent = a->latent_size;
    m.io = m.latent ? m.latent : c->hidden;
    m.io_ld = m.latent ? m.latent : m.h;
    m.gate = ns_dense_of(c, NS_W_GATE, NS_W_COUNT, 0, c->hidden, m.n_experts);
    if (m.latent) {
        m.latent_in = ns_dense_of(c, NS_W_LATENT_IN, NS_W_LATENT_IN_BIAS, 0, c->hidden, m.latent);
        m.latent_out = ns_dense_of(c, NS_W_LATENT_OUT, NS_W_LATENT_OUT_BIAS, 0, m.latent, c->hidden);
    }
    if (m.shared_ffn)
        m.shared = (ns_ffn){ .up = ns_dense_of(c, NS_W_SHARED_UP, NS_W_SHARED_UP_BIAS, 0, c->hidden, live),
                             .down = ns_dense_of(c, NS_W_SHARED_DOWN, NS_W_SHARED_DOWN_BIAS, 0, live, c->hidden),
                             .mask = ns_mask_of(c, NS_AXIS_SHARED_FFN),
                             .expert = -1,
                             .ld = m.shared_ffn };
    return m;
}

static ns_ffn expert_of(const moe *m, int e)
{
    const int live = ns_live_width(m->c, NS_AXIS_EXPERT_FFN);
    return (ns_ffn){ .up = ns_dense_of(m->c, NS_W_EXPERT_UP, NS_W_COUNT, e, m->io, live),
                     .down = ns_dense_of(m->c, NS_W_EXPERT_DOWN, NS_W_COUNT, e, live, m->io),
                     .mask = ns_mask_of(m->c, NS_AXIS_EXPERT_FFN),
                     .expert = e,
                     .ld = m->ffn };
}

/* ---- memory ---- */

/* What backward needs. A pick is a token's j-th expert; picks lie token by token, rows sorted by expert. */
typedef struct kept {
    ns_real *score, *weight; /* [picks] s and w */
    int *expert, *row;       /* [picks] which expert; its row */
    int *token, *pick;       /* [picks] of a row */
    int *start;              /* [experts + 1] an expert's first row */
    ns_real *u, *shared_u;   /* [picks, ffn], [tokens, shared ffn] */
    ns_real *z, *sum;        /* [tokens, latent]: fc1's output, fc2's input */
} kept;

static kept kept_at(const ns_arch *a, int layer, size_t n, ns_space *s)
{
    const ns_layer *l = &a->layers[layer];
    const size_t picks = n * (size_t)l->topk, latent = n * (size_t)a->latent_size;
    kept k = { .score = ns_space_take(s, picks), .weight = ns_space_take(s, picks) };
    k.expert = ns_space_ints(s, picks);
    k.row = ns_space_ints(s, picks);
    k.token = ns_space_ints(s, picks);
    k.pick = ns_space_ints(s, picks);
    k.start = ns_space_ints(s, (size_t)l->width[NS_AXIS_EXPERTS] + 1);
    k.u = ns_space_take(s, picks * (size_t)l->width[NS_AXIS_EXPERT_FFN]);
    k.shared_u = ns_space_take(s, n * (size_t)l->width[NS_AXIS_SHARED_FFN]);
    k.z = ns_space_take(s, latent);
    k.sum = ns_space_take(s, latent);
    return k;
}

typedef struct work {
    ns_real *logits, *choice;    /* [tokens, experts] also their gradients; [experts] */
    ns_real *x, *y, *weight;     /* one expert's rows: in, out, w; at most one per token */
    ns_real *dx, *dweight;       /* [tokens, io], [picks] (by row) */
    ns_real *act, *du;           /* [tokens, ffn], routed or shared */
    ns_real *dz, *dsum;          /* [tokens, latent] */
} work;

static work work_at(const ns_arch *a, int layer, size_t n, ns_space *s)
{
    const ns_layer *l = &a->layers[layer];
    const size_t experts = (size_t)l->width[NS_AXIS_EXPERTS], io = (size_t)(a->latent_size ? a->latent_size : a->hidden_size);
    const int routed = l->width[NS_AXIS_EXPERT_FFN], shared = l->width[NS_AXIS_SHARED_FFN], widest = routed > shared ? routed : shared;
    work w = { .logits = ns_space_take(s, n * experts), .choice = ns_space_take(s, experts) };
    w.x = ns_space_take(s, n * io);
    w.y = ns_space_take(s, n * io);
    w.weight = ns_space_take(s, n);
    w.dx = ns_space_take(s, n * io);
    w.dweight = ns_space_take(s, n * (size_t)l->topk);
    w.act = ns_space_take(s, n * (size_t)widest);
    w.du = ns_space_take(s, n * (size_t)widest);
    w.dz = ns_space_take(s, n * (size_t)a->latent_size);
    w.dsum = ns_space_take(s, n * (size_t)a->latent_size);
    return w;
}

static size_t saved(const ns_arch *a, int layer, int n_tokens, int n_seqs)
{
    ns_space s = { 0 };
    (void)n_seqs;
    kept_at(a, layer, (size_t)n_tokens, &s);
    return s.used;
}

static size_t scratch(const ns_arch *a, int layer, int n_tokens, int n_seqs)
{
    ns_space s = { 0 };
    (void)n_seqs;
    work_at(a, layer, (size_t)n_tokens, &s);
    return s.used;
}

/* ---- routing ---- */

/* Marks experts of all but the topk_group best groups with -inf. A group's worth is the sum of its two best choices. */
static void drop_groups(const ns_arch *a, int n, ns_real *choice)
{
    const int size = n / a->n_group;
    ns_real worth[MAX_GROUPS];
    bool stays[MAX_GROUPS] = { false };
    for (int g = 0; g < a->n_group; g++) {
        ns_real best = -INFINITY, second = -INFINITY;
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
            if (!stays[g] && (best < 0 || worth[g] > worth[best]))
                best = g;
        stays[best] = true;
    }
    for (int i = 0; i < n; i++)
        if (!stays[i / size])
            choice[i] = -INFINITY;
}

/* The picks of one token, from its scores s. The lowest index wins a tie. */
static void route(const moe *m, const ns_real *s, const ns_real *correction, ns_real *choice, int *expert, ns_real *score, ns_real *weight)
{
    const ns_arch *a = m->c->arch;
    ns_real sum = 0;
    for (int i = 0; i < m->n_experts; i++) {
        const ns_real mask = m->experts ? m->experts->m[i] : 1;
        choice[i] = mask == 0 ? -INFINITY : mask * s[i] + mask * correction[i];
    }
    if (a->n_group > 1)
        drop_groups(a, m->n_experts, choice);
    for (int j = 0; j < m->topk; j++) {
        int best = 0;
        for (int i = 1; i < m->n_experts; i++)
            if (choice[i] > choice[best])
                best = i;
        choice[best] = -INFINITY;
        expert[j] = best;
        score[j] = s[best];
        weight[j] = m->experts ? m->experts->m[best] * s[best] : s[best];
        sum += weight[j];
    }
    const ns_real factor = (ns_real)a->routed_scaling / (a->norm_topk ? sum + (ns_real)1e-20 : 1);
    for (int j = 0; j < m->topk; j++)
        weight[j] *= factor;
}

/* Sorts picks by expert; tokens stay in order within one. */
static void sort_picks(const moe *m, const kept *k)
{
    const int picks = m->n * m->topk;
    memset(k->start, 0, (size_t)(m->n_experts + 1) * sizeof(int));
    for (int i = 0; i < picks; i++)
        k->start[k->expert[i] + 1]++;
    for (int e = 0; e < m->n_experts; e++)
        k->start[e + 1] += k->start[e];
    for (int i = 0; i < picks; i++) {
        const int row = k->start[k->expert[i]]++;
        k->row[i] = row;
        k->pick[row] = i;
        k->token[row] = i / m->topk;
    }
    memmove(k->start + 1, k->start, (size_t)m->n_experts * sizeof(int));
    k->start[0] = 0;
    for (int e = 0; m->c->expert_load && e < m->n_experts; e++)
        m->c->expert_load[e] += k->start[e + 1] - k->start[e];
}

static void route_all(const moe *m, const ns_real *x, const kept *k, const work *w)
{
    const ns_real *correction = ns_params_cat(m->c->params, m->c->w, m->c->layer, NS_W_GATE_CORRECTION, 0);
    ns_dense_forward(m->c->blas, &m->gate, m->n, x, m->h, false, w->logits, m->n_experts);
    ns_vec_sigmoid(w->logits, (size_t)m->n * (size_t)m->n_experts, w->logits);
    for (int t = 0; t < m->n; t++) {
        const size_t at = (size_t)t * (size_t)m->topk;
        route(m, w->logits + (size_t)t * (size_t)m->n_experts, correction, w->choice, k->expert + at, k->score + at, k->weight + at);
    }
    sort_picks(m, k);
}

/* From dweight (by row) to the gradients of the logits [n, n_experts] and of the mask. */
static void route_backward(const moe *m, const kept *k, const work *w)
{
    const ns_arch *a = m->c->arch;
    const ns_real scaling = (ns_real)a->routed_scaling;
    memset(w->logits, 0, (size_t)m->n * (size_t)m->n_experts * sizeof *w->logits);
    for (int t = 0; t < m->n; t++) {
        ns_real sum = 0, dot = 0;
        for (int i = t * m->topk; i < (t + 1) * m->topk; i++) {
            sum += m->experts ? m->experts->m[k->expert[i]] * k->score[i] : k->score[i];
            dot += w->dweight[k->row[i]] * k->weight[i];
        }
        for (int i = t * m->topk; i < (t + 1) * m->topk; i++) {
            const int e = k->expert[i];
            const ns_real s = k->score[i], mask = m->experts ? m->experts->m[e] : 1, dw = scaling * w->dweight[k->row[i]];
            const ns_real dt = a->norm_topk ? (dw - dot) / (sum + (ns_real)1e-20) : dw;
            if (m->experts && m->experts->dm)
                m->experts->dm[e] += dt * s;
            w->logits[(size_t)t * (size_t)m->n_experts + (size_t)e] += dt * mask * s * (1 - s);
        }
    }
}

/* ---- experts ---- */

/* Rows of an expert from those of the tokens. */
static void gather(int rows, int cols, int ld, const int *token, const ns_real *x, ns_real *out)
{
    for (int i = 0; i < rows; i++)
        memcpy(out + (size_t)i * (size_t)ld, x + (size_t)token[i] * (size_t)ld, (size_t)cols * sizeof *out);
}

/* y[token] += weight row; weight NULL: ones. */
NS_CLONES static void scatter(int rows, int cols, int ld, const int *token, const ns_real *weight, const ns_real *x, ns_real *y)
{
    for (int i = 0; i < rows; i++) {
        const ns_real w = weight ? weight[i] : 1, *from = x + (size_t)i * (size_t)ld;
        ns_real *to = y + (size_t)token[i] * (size_t)ld;
        for (int j = 0; j < cols; j++)
            to[j] += w * from[j];
    }
}

static void gather_weights(const kept *k, int first, int rows, ns_real *out)
{
    for (int i = 0; i < rows; i++)
        out[i] = k->weight[k->pick[first + i]];
}

static void zero_rows(int rows, int cols, int ld, ns_real *x)
{
    for (int i = 0; i < rows; i++)
        memset(x + (size_t)i * (size_t)ld, 0, (size_t)cols * sizeof *x);
}

/* y [n, io] += the routed sum over x. */
static void experts_forward(const moe *m, const ns_real *x, ns_real *y, const kept *k, const work *w)
{
    for (int e = 0; e < m->n_experts; e++) {
        const int first = k->start[e], rows = k->start[e + 1] - first;
        if (rows == 0)
            continue;
        const ns_ffn f = expert_of(m, e);
        gather(rows, m->io, m->io_ld, k->token + first, x, w->x);
        gather_weights(k, first, rows, w->weight);
        ns_ffn_forward(m->c, &f, rows, w->x, m->io_ld, k->u + (size_t)first * (size_t)m->ffn, w->act, w->y, m->io_ld);
        if (m->c->tap) {
            ns_tap t = { .kind = NS_TAP_EXPERT_OUT, .layer = m->c->layer, .expert = e, .rows = rows, .cols = m->io, .x = w->y,
                         .ld = (size_t)m->io_ld, .gate = w->weight };
            m->c->tap(m->c->tap_ctx, &t);
        }
        scatter(rows, m->io, m->io_ld, k->token + first, w->weight, w->y, y);
    }
}

/* dx [n, io] += ; dweight of every row. */
static void experts_backward(const moe *m, const ns_real *x, const ns_real *dy, ns_real *dx, const kept *k, const work *w)
{
    for (int e = 0; e < m->n_experts; e++) {
        const int first = k->start[e], rows = k->start[e + 1] - first;
        if (rows == 0)
            continue;
        const ns_ffn f = expert_of(m, e);
        gather(rows, m->io, m->io_ld, k->token + first, x, w->x);
        gather(rows, m->io, m->io_ld, k->token + first, dy, w->y);
        gather_weights(k, first, rows, w->weight);
        ns_ffn_backward(m->c, &f, rows, w->x, m->io_ld, w->y, m->io_ld, w->weight, k->u + (size_t)first * (size_t)m->ffn, w->act, w->du,
                        w->dweight + first, false, w->dx, m->io_ld);
        scatter(rows, m->io, m->io_ld, k->token + first, NULL, w->dx, dx);
    }
}

/* ---- the mixer ---- */

static void forward(const ns_block_ctx *c, const ns_real *x, ns_real *y, ns_real *save)
{
    const moe m = moe_of(c);
    ns_space keep = ns_space_of(save), space = ns_space_of(c->scratch);
    const kept k = kept_at(c->arch, c->layer, (size_t)m.n, &keep);
    const work w = work_at(c->arch, c->layer, (size_t)m.n, &space);
    route_all(&m, x, &k, &w);
    if (m.shared_ffn)
        ns_ffn_forward(c, &m.shared, m.n, x, m.h, k.shared_u, w.act, y, m.h);
    else
        zero_rows(m.n, c->hidden, m.h, y);
    if (!m.latent) {
        experts_forward(&m, x, y, &k, &w);
        return;
    }
    ns_dense_forward(c->blas, &m.latent_in, m.n, x, m.h, false, k.z, m.latent);
    zero_rows(m.n, m.latent, m.latent, k.sum);
    experts_forward(&m, k.z, k.sum, &k, &w);
    ns_dense_forward(c->blas, &m.latent_out, m.n, k.sum, m.latent, true, y, m.h);
}

static void backward(const ns_block_ctx *c, const ns_real *x, const ns_real *dy, const ns_real *save, ns_real *dx)
{
    const moe m = moe_of(c);
    ns_space keep = ns_space_of(save), space = ns_space_of(c->scratch);
    const kept k = kept_at(c->arch, c->layer, (size_t)m.n, &keep);
    const work w = work_at(c->arch, c->layer, (size_t)m.n, &space);
    if (m.shared_ffn)
        ns_ffn_backward(c, &m.shared, m.n, x, m.h, dy, m.h, NULL, k.shared_u, w.act, w.du, NULL, false, dx, m.h);
    else
        zero_rows(m.n, c->hidden, m.h, dx);
    if (m.latent) {
        ns_dense_backward(c->blas, &m.latent_out, m.n, k.sum, m.latent, dy, m.h, false, w.dsum, m.latent);
        zero_rows(m.n, m.latent, m.latent, w.dz);
        experts_backward(&m, k.z, w.dsum, w.dz, &k, &w);
        ns_dense_backward(c->blas, &m.latent_in, m.n, x, m.h, w.dz, m.latent, true, dx, m.h);
    } else {
        experts_backward(&m, x, dy, dx, &k, &w);
    }
    route_backward(&m, &k, &w);
    ns_dense_backward(c->blas, &m.gate, m.n, x, m.h, w.logits, m.n_experts, true, dx, m.h);
}

const ns_mixer ns_mixer_moe = { saved, scratch, NULL, forward, backward };
