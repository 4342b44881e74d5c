/* The Mamba-2 mixer, forward and backward.
 *   [z | xBC | dt] = in_proj(in);  u = conv(xBC);  [x | B | C] = silu(u) o mask;  dt = softplus(dt + dt_bias), clamped
 *   y = ssd(x, B, C, dt);  o = gated norm of q = y silu(z), group by group;  out = out_proj(o)
 * A sequence that goes on from a beginning (carry.h) has its last inputs before the convolution's first, and its state entering the first
 * chunk; neither gets a gradient.
 * Between the two projections a sequence goes chunk by chunk, so that what the steps hand to each other stays in cache; backward
 * goes through the chunks from the last to the first and recomputes all but in_proj's output, y and the states between chunks. */
#include <string.h>

#include "block/carry.h"
#include "block/conv_block.h"
#include "block/dense.h"
#include "block/gated_norm.h"
#include "block/space.h"
#include "block/ssd.h"
#include "block/vec.h"

enum { Q = NS_SSD_CHUNK };

typedef struct dims {
    int groups, per_group, heads, p, n; /* heads in a group and in all, head_dim, state */
    int inner, bc, conv, taps, total;   /* heads x p; groups x n; x|B|C; the convolution's width; z|x|B|C|dt */
    size_t state;                       /* elements of all states: [groups][n, per_group x p] */
} dims;

/* Scratch. Of one chunk unless said. */
typedef struct work {
    ns_real *o, *dproj;                       /* [T, inner], where backward's dL/do becomes o; [T, total] */
    ns_real *wt, *channel, *a;                /* convolution's weights [taps, conv]; product of the masks [conv]; A [heads] */
    ns_real *dwt, *db, *dchannel;             /* sums over the batch, up to u: convolution's gradients; that of `channel` */
    ns_real *da, *dd, *d_dt_bias;             /* [heads] */
    ns_real *u, *sig, *post;                  /* [Q, conv]: before the activation; sigmoid(u); after activation and mask */
    ns_real *joined;                          /* [taps - 1 + Q, conv]: the convolution's inputs behind those that a beginning left */
    ns_real *dpost;                           /* [Q + taps - 1, conv]: rows past the chunk are those of the chunk after it */
    ns_real *raw, *dt, *ddt;                  /* [heads][Q]: before softplus, after */
    ns_real *gy;                              /* [Q, inner] */
    ns_real *ds, *ssd, *norm;                 /* gradient of the entering states; workspaces of the scan and of the norm */
} work;

/* What forward leaves for backward. */
typedef struct kept {
    ns_real *proj, *y, *states; /* [T, total]; [T, inner]; the states that enter chunks, but for first chunks */
} kept;

typedef struct mamba {
    const ns_block_ctx *c;
    dims d;
    work w;
    kept kept;
    ns_dense in, out;
    const ns_real *dt_bias, *skip;
    const ns_axis_mask *heads, *head_dim, *state; /* NULL without a mask */
    ns_norm_mask *norm_mask;                      /* likewise */
    ns_gated_norm norm;
    ns_conv conv;
} mamba;

typedef struct chunk {
    size_t tok;        /* first token in the batch */
    int seq, at, q;    /* its sequence; where it begins there; tokens */
    bool last;         /* of its sequence */
    size_t slot;       /* chunks before it, of all sequences, that are not first: where its entering state lies */
} chunk;

/* ---- sizes ---- */

static dims dims_of(const ns_arch *a, int layer)
{
    const int *width = a->layers[layer].width;
    dims d = { .groups = a->n_groups, .heads = width[NS_AXIS_MAMBA_HEADS], .p = width[NS_AXIS_MAMBA_HEAD_DIM],
               .n = width[NS_AXIS_SSM_STATE], .taps = a->conv_kernel };
    d.per_group = d.heads / d.groups;
    d.inner = d.heads * d.p;
    d.bc = d.groups * d.n;
    d.conv = d.inner + 2 * d.bc;
    d.total = d.inner + d.conv + d.heads;
    d.state = (size_t)d.inner * (size_t)d.n;
    return d;
}

static void place_work(const dims *d, size_t tokens, ns_space *s, work *w)
{
    const size_t inner = (size_t)d->inner, conv = (size_t)d->conv, taps = (size_t)d->taps, heads = (size_t)d->heads;
    struct { ns_real **at; size_t n; } part[] = {
        { &w->o, tokens * inner }, { &w->dproj, tokens * (size_t)d->total }, { &w->wt, taps * conv }, { &w->channel, conv },
        { &w->a, heads }, { &w->dwt, taps * conv }, { &w->db, conv }, { &w->dchannel, conv }, { &w->da, heads }, { &w->dd, heads },
        { &w->d_dt_bias, heads }, { &w->u, Q * conv }, { &w->sig, Q * conv }, { &w->post, Q * conv }, { &w->joined, (Q + taps - 1) * conv },
        { &w->dpost, (Q + taps - 1) * conv }, { &w->raw, heads * Q }, { &w->dt, heads * Q }, { &w->ddt, heads * Q }, { &w->gy, Q * inner }, { &w->ds, d->state },
        { &w->ssd, ns_ssd_work(d->per_group, d->p) }, { &w->norm, 5 * inner },
    };
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        *part[i].at = ns_space_take(s, part[i].n);
}

static size_t mamba_scratch(const ns_arch *a, int layer, int n_tokens, int n_seqs)
{
    (void)n_seqs;
    dims d = dims_of(a, layer);
    ns_space s = { 0 };
    work w;
    place_work(&d, (size_t)n_tokens, &s, &w);
    return s.used;
}

static void place_kept(const dims *d, size_t tokens, ns_space *s, kept *k)
{
    k->proj = ns_space_take(s, tokens * (size_t)d->total);
    k->y = ns_space_take(s, tokens * (size_t)d->inner);
    k->states = ns_space_take(s, tokens / Q * d->state); /* every one of them has a full chunk before it */
}

static size_t mamba_saved(const ns_arch *a, int layer, int n_tokens, int n_seqs)
{
    (void)n_seqs;
    dims d = dims_of(a, layer);
    ns_space s = { 0 };
    kept k;
    place_kept(&d, (size_t)n_tokens, &s, &k);
    return s.used;
}

/* What a beginning leaves: the convolution's last taps - 1 inputs (zeros before its first token), then the state. */
static size_t tail_of(const dims *d)
{
    return (size_t)(d->taps - 1) * (size_t)d->conv;
}

static size_t mamba_carried(const ns_arch *a, int layer, int n_tokens, int n_seqs)
{
    (void)n_tokens;
    dims d = dims_of(a, layer);
    return (size_t)n_seqs * (tail_of(&d) + d.state);
}

static ns_real *carried_at(const ns_carry *y, const ns_block_ctx *c, const dims *d, int seq)
{
    return y->layer[c->layer] + (size_t)seq * (tail_of(d) + d->state);
}

/* ---- what both directions begin with ---- */

static const ns_real *weight(const ns_block_ctx *c, ns_role r)
{
    return ns_params_cat(c->params, c->w, c->layer, r, 0);
}

static ns_real *gradient(const ns_block_ctx *c, ns_role r)
{
    return c->g ? ns_params_at(c->params, c->g, c->layer, r, 0) : NULL;
}

/* The factor of every channel of x|B|C after the activation. */
static void channel_mask(const mamba *m)
{
    const dims *d = &m->d;
    for (int h = 0; h < d->heads; h++)
        for (int i = 0; i < d->p; i++)
            m->w.channel[h * d->p + i] = (m->heads->m ? m->heads->m[h] : 1) * (m->head_dim->m ? m->head_dim->m[i] : 1);
    for (int g = 0; g < 2 * d->groups; g++)
        for (int i = 0; i < d->n; i++)
            m->w.channel[d->inner + g * d->n + i] = g < d->groups && m->state->m ? m->state->m[i] : 1;
}

static mamba begin(const ns_block_ctx *c, const ns_real *saved)
{
    mamba m = { .c = c, .d = dims_of(c->arch, c->layer) };
    ns_space scratch = ns_space_of(c->scratch), keep = ns_space_of(saved);
    place_work(&m.d, (size_t)c->seqs->n_tokens, &scratch, &m.w);
    place_kept(&m.d, (size_t)c->seqs->n_tokens, &keep, &m.kept);
    m.in = ns_dense_of(c, NS_W_IN_PROJ, NS_W_IN_PROJ_BIAS, 0, c->hidden, m.d.total);
    m.out = ns_dense_of(c, NS_W_OUT_PROJ, NS_W_OUT_PROJ_BIAS, 0, m.d.inner, c->hidden);
    m.dt_bias = weight(c, NS_W_DT_BIAS);
    m.skip = weight(c, NS_W_D);
    m.norm = (ns_gated_norm){ m.d.inner, m.d.per_group * m.d.p, weight(c, NS_W_GATED_NORM), (ns_real)c->arch->gated_norm_eps, 1, m.w.norm };
    m.conv = (ns_conv){ m.d.conv, m.d.taps, m.w.wt, weight(c, NS_W_CONV_BIAS) };
    const ns_real *conv = weight(c, NS_W_CONV), *a_log = weight(c, NS_W_A_LOG);
    for (int i = 0; i < m.d.conv; i++)
        for (int k = 0; k < m.d.taps; k++)
            m.w.wt[k * m.d.conv + i] = conv[i * m.d.taps + k];
    for (int h = 0; h < m.d.heads; h++)
        m.w.a[h] = -NS_R(exp)(a_log[h]);
    if (c->mask) {
        m.heads = &c->mask->axis[NS_AXIS_MAMBA_HEADS];
        m.head_dim = &c->mask->axis[NS_AXIS_MAMBA_HEAD_DIM];
        m.state = &c->mask->axis[NS_AXIS_SSM_STATE];
        m.norm_mask = &c->mask->gated;
        m.norm.eps *= m.norm_mask->eps_factor;
        m.norm.scale = m.norm_mask->scale;
        channel_mask(&m);
    }
    return m;
}

/* The heads of a group that the scan computes: all but the last ones that a mask without gradient sets to zero. Their x is zero,
 * hence y and everything that backward could find but the mask's own gradient. */
static int live_heads(const mamba *m, int group)
{
    int n = m->d.per_group;
    if (m->heads && m->heads->m && !m->heads->dm)
        while (n > 0 && m->heads->m[group * m->d.per_group + n - 1] == 0)
            n--;
    return n;
}

NS_CLONES static void activate(size_t q, size_t n, const ns_real *restrict u, const ns_real *restrict sig, const ns_real *restrict mask,
                               ns_real *restrict post)
{
    for (size_t l = 0; l < q; l++)
        for (size_t i = 0; i < n; i++)
            post[l * n + i] = u[l * n + i] * sig[l * n + i] * (mask ? mask[i] : 1);
}

/* The convolution's inputs of a chunk: x at its first token, `before` rows of the sequence in front of it. Where these reach into a
 * beginning, all are copied together: its last rows, those of the sequence, those of the chunk. */
typedef struct conv_in {
    const ns_real *x;
    size_t ld;
    int before;
} conv_in;

static conv_in conv_in_of(const mamba *m, const chunk *k)
{
    const dims *d = &m->d;
    const ns_carry *from = m->c->seqs->from;
    const int reach = d->taps - 1;
    const size_t conv = (size_t)d->conv, total = (size_t)d->total;
    const ns_real *x = m->kept.proj + k->tok * total + d->inner;
    if (!from || k->at >= reach)
        return (conv_in){ x, total, k->at < reach ? k->at : reach };
    const int own = k->at;
    memcpy(m->w.joined, carried_at(from, m->c, d, k->seq) + (size_t)own * conv, (size_t)(reach - own) * conv * sizeof *x);
    for (int l = -own; l < k->q; l++)
        memcpy(m->w.joined + (size_t)(reach + l) * conv, x + (ptrdiff_t)l * (ptrdiff_t)total, conv * sizeof *x);
    return (conv_in){ m->w.joined + (size_t)reach * conv, conv, reach };
}

/* u, sig, post, raw and dt of a chunk. */
static void chunk_inputs(const mamba *m, const chunk *k)
{
    const dims *d = &m->d;
    const work *w = &m->w;
    const ns_real low = (ns_real)m->c->arch->dt_min, high = (ns_real)m->c->arch->dt_max;
    const ns_real *row = m->kept.proj + k->tok * (size_t)d->total;
    size_t n = (size_t)k->q * (size_t)d->conv, all = (size_t)d->heads * Q;
    const conv_in in = conv_in_of(m, k);
    ns_conv_forward(&m->conv, in.x, in.ld, in.before, k->q, w->u);
    ns_vec_sigmoid(w->u, n, w->sig);
    activate((size_t)k->q, (size_t)d->conv, w->u, w->sig, m->heads ? w->channel : NULL, w->post);
    for (int l = 0; l < Q; l++) /* entries past the chunk are computed with the others and not used */
        for (int h = 0; h < d->heads; h++)
            w->raw[h * Q + l] = l < k->q ? row[l * d->total + d->inner + d->conv + h] + m->dt_bias[h] : 0;
    ns_vec_softplus(w->raw, all, w->dt);
    for (size_t i = 0; i < all; i++)
        w->dt[i] = w->dt[i] < low ? low : w->dt[i] > high ? high : w->dt[i];
}

static ns_ssd scan_of(const mamba *m, const chunk *k, int group, int live)
{
    const dims *d = &m->d;
    const ns_real *b = m->w.post + d->inner + group * d->n;
    const ns_carry *from = m->c->seqs->from;
    const ns_real *states = k->at ? m->kept.states + k->slot * d->state : from ? carried_at(from, m->c, d, k->seq) + tail_of(d) : NULL;
    int head = group * d->per_group;
    return (ns_ssd){ .q = k->q, .heads = live, .p = d->p, .n = d->n, .lds = d->per_group * d->p, .ld = d->conv,
                     .x = m->w.post + head * d->p, .b = b, .c = b + d->bc, .dt = m->w.dt + head * Q, .a = m->w.a + head,
                     .d = m->skip + head,
                     .s_in = states ? states + (size_t)group * (d->state / (size_t)d->groups) : NULL };
}

/* ---- forward ---- */

/* Where the states go that leave a chunk; NULL: nowhere. */
static ns_real *states_after(const mamba *m, const chunk *k)
{
    const ns_carry *leave = m->c->seqs->leave;
    if (!k->last)
        return m->kept.states + (k->slot + (k->at > 0)) * m->d.state;
    return leave ? carried_at(leave, m->c, &m->d, k->seq) + tail_of(&m->d) : NULL;
}

/* A beginning's last inputs of the convolution. */
static void leave_tail(const mamba *m, int seq)
{
    const dims *d = &m->d;
    const int *start = m->c->seqs->start, reach = d->taps - 1, n = start[seq + 1] - start[seq], rows = n < reach ? n : reach;
    ns_real *to = carried_at(m->c->seqs->leave, m->c, d, seq) + (size_t)(reach - rows) * (size_t)d->conv;
    for (int l = 0; l < rows; l++)
        memcpy(to + (size_t)l * (size_t)d->conv, m->kept.proj + (size_t)(start[seq + 1] - rows + l) * (size_t)d->total + d->inner,
               (size_t)d->conv * sizeof *to);
}

static void chunk_forward(const mamba *m, const chunk *k)
{
    const dims *d = &m->d;
    const size_t inner = (size_t)d->inner;
    const ns_real *proj = m->kept.proj + k->tok * (size_t)d->total;
    ns_real *next = states_after(m, k);
    int width = d->per_group * d->p;
    chunk_inputs(m, k);
    if (m->c->tap)
        m->c->tap(m->c->tap_ctx, &(ns_tap){ .kind = NS_TAP_MAMBA_BC, .layer = m->c->layer, .expert = -1, .rows = k->q, .cols = 2 * d->bc,
                                            .x = m->w.post + d->inner, .ld = (size_t)d->conv });
    for (int g = 0; g < d->groups; g++) {
        int live = live_heads(m, g);
        ns_real *y = m->kept.y + k->tok * inner + g * width;
        for (int l = 0; l < k->q && live < d->per_group; l++)
            memset(y + l * d->inner + live * d->p, 0, (size_t)(width - live * d->p) * sizeof *y);
        if (live == 0)
            continue;
        ns_ssd s = scan_of(m, k, g, live);
        ns_ssd_forward(m->c->blas, &s, y, d->inner, next ? next + g * d->n * width : NULL, m->w.ssd);
    }
    for (int l = 0; l < k->q; l++) {
        size_t at = (k->tok + (size_t)l) * inner;
        ns_gated_norm_forward(&m->norm, proj + l * d->total, m->kept.y + at, m->w.o + at);
    }
}

static void mamba_forward(const ns_block_ctx *c, const ns_real *x, ns_real *out, ns_real *saved)
{
    mamba m = begin(c, saved);
    const dims *d = &m.d;
    const int tokens = c->seqs->n_tokens, H = c->arch->hidden_size;
    ns_dense_forward(c->blas, &m.in, tokens, x, H, false, m.kept.proj, d->total);
    if (c->tap)
        c->tap(c->tap_ctx, &(ns_tap){ .kind = NS_TAP_MAMBA_X, .layer = c->layer, .expert = -1, .rows = tokens, .cols = d->inner,
                                      .x = m.kept.proj + d->inner, .ld = (size_t)d->total });
    chunk k = { 0 };
    for (int s = 0; s < c->seqs->n_seqs; s++) {
        int n = c->seqs->start[s + 1] - c->seqs->start[s];
        k.seq = s;
        for (k.at = 0; k.at < n; k.at += Q) {
            k.tok = (size_t)(c->seqs->start[s] + k.at);
            k.q = n - k.at < Q ? n - k.at : Q;
            k.last = k.at + Q >= n;
            chunk_forward(&m, &k);
            k.slot += k.at > 0;
        }
        if (c->seqs->leave)
            leave_tail(&m, s);
    }
    ns_dense_forward(c->blas, &m.out, tokens, m.w.o, d->inner, false, out, H);
}

/* ---- backward ---- */

/* dz into dproj, dL/dy into gy; dL/do in w->o becomes o. */
static void norm_backward(const mamba *m, const chunk *k, ns_real *d_norm)
{
    const size_t inner = (size_t)m->d.inner, total = (size_t)m->d.total;
    ns_real d_eps = 0;
    for (size_t l = 0; l < (size_t)k->q; l++) {
        size_t t = k->tok + l;
        ns_gated_norm_backward(&m->norm, m->kept.proj + t * total, m->kept.y + t * inner, m->w.o + t * inner, m->w.dproj + t * total,
                               m->w.gy + l * inner, d_norm, m->norm_mask ? &d_eps : NULL, m->norm_mask ? &m->norm_mask->d_scale : NULL);
    }
    if (m->norm_mask)
        m->norm_mask->d_eps_factor += d_eps * (ns_real)m->c->arch->gated_norm_eps;
}

/* From the gradient of the masked activation to that of its input, in place; sums up the masks' gradient. */
NS_CLONES static void activate_backward(size_t q, size_t n, const ns_real *restrict u, const ns_real *restrict sig,
                                        const ns_real *restrict mask, ns_real *restrict d, ns_real *restrict dmask)
{
    for (size_t l = 0; l < q; l++)
        for (size_t i = 0; i < n; i++) {
            size_t at = l * n + i;
            ns_real v = u[at] * sig[at];
            if (mask) {
                dmask[i] += d[at] * v;
                d[at] *= mask[i];
            }
            d[at] *= sig[at] + v * (1 - sig[at]);
        }
}

/* The scan's gradients: dpost and ddt from gy. ds goes from chunk to chunk. */
static void scan_backward(const mamba *m, const chunk *k)
{
    const dims *d = &m->d;
    const work *w = &m->w;
    for (int g = 0; g < d->groups; g++) {
        int live = live_heads(m, g), head = g * d->per_group, width = d->per_group * d->p;
        ns_real *db = w->dpost + d->inner + g * d->n, *dc = db + d->bc;
        for (int l = 0; l < k->q && live < d->per_group; l++) {
            memset(w->dpost + l * d->conv + (head + live) * d->p, 0, (size_t)((d->per_group - live) * d->p) * sizeof *db);
            for (int i = 0; i < d->n && live == 0; i++)
                db[l * d->conv + i] = dc[l * d->conv + i] = 0;
        }
        memset(w->ddt + (head + live) * Q, 0, (size_t)(d->per_group - live) * Q * sizeof *w->ddt);
        if (live == 0)
            continue;
        ns_ssd s = scan_of(m, k, g, live);
        ns_ssd_grad grad = { .dx = w->dpost + head * d->p, .db = db, .dc = dc, .ddt = w->ddt + head * Q, .da = w->da + head,
                             .dd = w->dd + head, .ds = w->ds + g * d->n * width, .have_ds = !k->last };
        ns_ssd_backward(m->c->blas, &s, w->gy + head * d->p, d->inner, &grad, w->ssd);
    }
}

/* Through the clamp and softplus into dproj's dt columns. */
static void dt_backward(const mamba *m, const chunk *k)
{
    const dims *d = &m->d;
    const work *w = &m->w;
    const ns_real low = (ns_real)m->c->arch->dt_min, high = (ns_real)m->c->arch->dt_max;
    ns_real *row = w->dproj + k->tok * (size_t)d->total + d->inner + d->conv, *slope = w->sig; /* sig is no longer needed */
    for (int h = 0; h < d->heads; h++) {
        ns_vec_sigmoid(w->raw + h * Q, Q, slope);
        for (int l = 0; l < k->q; l++) {
            int i = h * Q + l;
            ns_real g = w->dt[i] <= low || w->dt[i] >= high ? 0 : w->ddt[i] * (w->raw[i] > 20 ? 1 : slope[l]);
            row[l * d->total + h] = g;
            w->d_dt_bias[h] += g;
        }
    }
}

static void chunk_backward(const mamba *m, const chunk *k, ns_real *d_norm, bool weights)
{
    const dims *d = &m->d;
    const work *w = &m->w;
    const size_t conv = (size_t)d->conv, tail = (size_t)(d->taps - 1) * conv, total = (size_t)d->total;
    const size_t at = k->tok * total + (size_t)d->inner;
    norm_backward(m, k, d_norm);
    chunk_inputs(m, k);
    if (k->last) /* nothing follows; in the other chunks the rows from Q on are the next one's first */
        memset(w->dpost + (size_t)k->q * conv, 0, tail * sizeof *w->dpost);
    scan_backward(m, k);
    activate_backward((size_t)k->q, conv, w->u, w->sig, m->heads ? w->channel : NULL, w->dpost, w->dchannel);
    const conv_in in = conv_in_of(m, k);
    ns_conv_backward(&m->conv, in.x, in.ld, in.before, k->q, w->dpost, w->dproj + at, total, weights ? w->dwt : NULL,
                     weights ? w->db : NULL);
    memmove(w->dpost + Q * conv, w->dpost, tail * sizeof *w->dpost);
    dt_backward(m, k);
}

/* dchannel, the gradient of the product of the masks, to the masks. */
static void mask_backward(const mamba *m)
{
    const dims *d = &m->d;
    for (int h = 0; h < d->heads; h++)
        for (int i = 0; i < d->p; i++) {
            ns_real g = m->w.dchannel[h * d->p + i];
            if (m->heads->dm)
                m->heads->dm[h] += g * (m->head_dim->m ? m->head_dim->m[i] : 1);
            if (m->head_dim->dm)
                m->head_dim->dm[i] += g * (m->heads->m ? m->heads->m[h] : 1);
        }
    for (int g = 0; g < d->groups && m->state->dm; g++)
        ns_vec_axpy((size_t)d->n, 1, m->w.dchannel + d->inner + g * d->n, m->state->dm);
}

/* The gradients that were summed in scratch. */
static void add_small(const mamba *m)
{
    const ns_block_ctx *c = m->c;
    const dims *d = &m->d;
    ns_real *conv = gradient(c, NS_W_CONV), *bias = gradient(c, NS_W_CONV_BIAS), *a_log = gradient(c, NS_W_A_LOG);
    for (int i = 0; i < d->conv; i++)
        for (int k = 0; k < d->taps; k++)
            conv[i * d->taps + k] += m->w.dwt[k * d->conv + i];
    if (bias)
        ns_vec_axpy((size_t)d->conv, 1, m->w.db, bias);
    for (int h = 0; h < d->heads; h++)
        a_log[h] += m->w.da[h] * m->w.a[h]; /* A = -exp(A_log) */
    ns_vec_axpy((size_t)d->heads, 1, m->w.dd, gradient(c, NS_W_D));
    ns_vec_axpy((size_t)d->heads, 1, m->w.d_dt_bias, gradient(c, NS_W_DT_BIAS));
}

/* All chunks from the last to the first. */
static void chunks_backward(const mamba *m, ns_real *d_norm, bool weights)
{
    const ns_seqs *seqs = m->c->seqs;
    chunk k = { 0 };
    for (int s = 0; s < seqs->n_seqs; s++)
        k.slot += (size_t)((seqs->start[s + 1] - seqs->start[s] - 1) / Q);
    for (int s = seqs->n_seqs - 1; s >= 0; s--) {
        int n = seqs->start[s + 1] - seqs->start[s];
        k.seq = s;
        for (k.at = (n - 1) / Q * Q; k.at >= 0; k.at -= Q) {
            k.tok = (size_t)(seqs->start[s] + k.at);
            k.q = n - k.at < Q ? n - k.at : Q;
            k.last = k.at + Q >= n;
            k.slot -= k.at > 0;
            chunk_backward(m, &k, d_norm, weights);
        }
    }
}

static void mamba_backward(const ns_block_ctx *c, const ns_real *x, const ns_real *dy, const ns_real *saved, ns_real *dx)
{
    mamba m = begin(c, saved);
    const dims *d = &m.d;
    const work *w = &m.w;
    const int tokens = c->seqs->n_tokens, H = c->arch->hidden_size;
    ns_gemm(c->blas, false, false, tokens, d->inner, c->hidden, dy, H, m.out.w, d->inner, false, w->o, d->inner);
    memset(w->dwt, 0, (size_t)(w->u - w->dwt) * sizeof *w->dwt);
    chunks_backward(&m, gradient(c, NS_W_GATED_NORM), c->g != NULL);
    ns_dense_backward(c->blas, &m.in, tokens, x, H, w->dproj, d->total, false, dx, H);
    if (m.heads)
        mask_backward(&m);
    ns_dense_backward(c->blas, &m.out, tokens, w->o, d->inner, dy, H, false, NULL, 0);
    if (c->g)
        add_small(&m);
}

const ns_mixer ns_mixer_mamba = { mamba_saved, mamba_scratch, mamba_carried, mamba_forward, mamba_backward };
