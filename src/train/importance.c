/* The pass: sums of magnitudes per channel of every place that the network shows, pack by pack, and the scores that follow from them. */
#include "train/importance.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/importance_impl.h"

ns_importance_opts ns_importance_defaults(void)
{
    return (ns_importance_opts){ .tokens = 1024 * 2048, .pack_tokens = 2048, .depth_tokens = 4 * 2048 };
}

/* ---- places that are watched ---- */

/* Of each layer, and of the final norm as layer n_layers. FFN is that of the experts, or the dense one. */
typedef enum place {
    NORM,
    FFN,
    FFN_ACTIVE,
    SHARED,
    SHARED_ACTIVE,
    MAMBA_X,
    MAMBA_BC,
    ATTENTION,
    ROUTED, /* sum over its tokens of gate * ||out||, per expert: no mean, no square */
    PICKED, /* tokens per expert */
    PLACES
} place;

typedef struct layout {
    const ns_arch *arch;
    size_t *off; /* [(n_layers + 1) * PLACES + 1] into a frame's sums */
    size_t total;
} layout;

/* What one pack adds up to. */
typedef struct frame {
    const layout *l;
    double *sum;   /* [total] of magnitudes over the rows */
    int64_t *rows; /* [(n_layers + 1) * PLACES] */
} frame;

static int width_of(const ns_arch *a, int layer, place k)
{
    static const ns_layer none;
    const int *w = layer < a->n_layers ? a->layers[layer].width : none.width;
    switch (k) {
    case NORM: return a->hidden_size;
    case FFN:
    case FFN_ACTIVE: return w[NS_AXIS_EXPERT_FFN] + w[NS_AXIS_DENSE_FFN]; /* a layer has one of them */
    case SHARED:
    case SHARED_ACTIVE: return w[NS_AXIS_SHARED_FFN];
    case MAMBA_X: return w[NS_AXIS_MAMBA_HEADS] * w[NS_AXIS_MAMBA_HEAD_DIM];
    case MAMBA_BC: return 2 * a->n_groups * w[NS_AXIS_SSM_STATE];
    case ATTENTION: return w[NS_AXIS_ATTN_HEADS] * a->head_dim;
    default: return w[NS_AXIS_EXPERTS];
    }
}

static int layout_init(layout *l, const ns_arch *a, ns_err *e)
{
    const int n = (a->n_layers + 1) * PLACES;
    *l = (layout){ .arch = a, .off = calloc((size_t)n + 1, sizeof *l->off) };
    if (!l->off)
        return ns_fail(e, NS_ENOMEM, "importance: out of memory");
    for (int i = 0; i < n; i++)
        l->off[i + 1] = l->off[i] + (size_t)width_of(a, i / PLACES, (place)(i % PLACES));
    l->total = l->off[n];
    return 0;
}

static int frame_init(frame *f, const layout *l)
{
    f->l = l;
    f->sum = malloc((l->total + 1) * sizeof *f->sum);
    f->rows = malloc((size_t)(l->arch->n_layers + 1) * PLACES * sizeof *f->rows);
    return f->sum && f->rows ? 0 : -1;
}

static void frame_clear(frame *f)
{
    memset(f->sum, 0, f->l->total * sizeof *f->sum);
    memset(f->rows, 0, (size_t)(f->l->arch->n_layers + 1) * PLACES * sizeof *f->rows);
}

static double *at(const layout *l, double *x, int layer, place k)
{
    return x + l->off[layer * PLACES + (int)k];
}

/* ---- watching ---- */

static void add_magnitudes(frame *f, const ns_tap *t, place k)
{
    double *sum = at(f->l, f->sum, t->layer, k);
    for (int i = 0; i < t->rows; i++)
        for (int j = 0; j < t->cols; j++)
            sum[j] += fabs((double)t->x[(size_t)i * t->ld + (size_t)j]);
    f->rows[t->layer * PLACES + (int)k] += t->rows;
}

/* What leaves ReLU^2. */
static void add_active(frame *f, const ns_tap *t, place k)
{
    double *sum = at(f->l, f->sum, t->layer, k);
    for (int i = 0; i < t->rows; i++)
        for (int j = 0; j < t->cols; j++) {
            const double x = (double)t->x[(size_t)i * t->ld + (size_t)j], r = x < 0 ? 0 : x; /* a NaN stays one */
            sum[j] += r * r;
        }
    f->rows[t->layer * PLACES + (int)k] += t->rows;
}

static void add_routed(frame *f, const ns_tap *t)
{
    double *sum = &at(f->l, f->sum, t->layer, ROUTED)[t->expert];
    for (int i = 0; i < t->rows; i++) {
        double squares = 0;
        for (int j = 0; j < t->cols; j++) {
            const double x = (double)t->x[(size_t)i * t->ld + (size_t)j];
            squares += x * x;
        }
        *sum += (double)t->gate[i] * sqrt(squares);
    }
    at(f->l, f->sum, t->layer, PICKED)[t->expert] += t->rows;
}

static void on_tap(void *ctx, const ns_tap *t)
{
    frame *f = ctx;
    const bool shared = t->kind == NS_TAP_FFN && t->expert < 0 && f->l->arch->layers[t->layer].kind == NS_LAYER_MOE;
    switch (t->kind) {
    case NS_TAP_NORM: add_magnitudes(f, t, NORM); return;
    case NS_TAP_FFN:
        add_magnitudes(f, t, shared ? SHARED : FFN);
        add_active(f, t, shared ? SHARED_ACTIVE : FFN_ACTIVE);
        return;
    case NS_TAP_MAMBA_X: add_magnitudes(f, t, MAMBA_X); return;
    case NS_TAP_MAMBA_BC: add_magnitudes(f, t, MAMBA_BC); return;
    case NS_TAP_ATTENTION: add_magnitudes(f, t, ATTENTION); return;
    case NS_TAP_EXPERT_OUT: add_routed(f, t); return;
    }
}

/* ---- the pass ---- */

typedef struct pass {
    const ns_crew *crew;
    layout l;
    frame *frame;  /* [crew.n] one for each pack of a round */
    ns_pack *pack; /* [crew.n] */
    double *acc;   /* [total] sums over packs: of squared means, or (ROUTED, PICKED) plain */
} pass;

static void run_pack(void *ctx, int task, int thread)
{
    pass *p = ctx;
    ns_net *net = p->crew->net[thread];
    frame_clear(&p->frame[task]);
    ns_net_tap(net, on_tap, &p->frame[task]);
    ns_net_forward(net, p->crew->w, NULL, &p->pack[task].seqs);
    ns_net_tap(net, NULL, NULL);
}

static void add_frame(pass *p, const frame *f)
{
    for (int i = 0; i < (p->l.arch->n_layers + 1) * PLACES; i++) {
        const bool plain = i % PLACES == ROUTED || i % PLACES == PICKED;
        const double rows = (double)f->rows[i];
        for (size_t j = p->l.off[i]; j < p->l.off[i + 1]; j++) {
            if (plain)
                p->acc[j] += f->sum[j];
            else if (rows > 0)
                p->acc[j] += (f->sum[j] / rows) * (f->sum[j] / rows);
        }
    }
}

bool ns_crew_interrupted(const ns_crew *c, ns_err *e)
{
    if (!c->o->interrupted || !*c->o->interrupted)
        return false;
    ns_fail(e, NS_ECANCELLED, "interrupted; nothing was written");
    return true;
}

static int run_pass(pass *p, ns_data *data, ns_scores *out, ns_err *e)
{
    const ns_importance_opts *o = p->crew->o;
    const int64_t all = ns_data_tokens(data) - ns_data_docs(data); /* a document's last token takes no room */
    const int64_t target = o->tokens > 0 && o->tokens < all ? o->tokens : all > 0 ? all : 1;
    ns_data_seek(data, 0);
    while (out->tokens < target) {
        int n = 0;
        for (; n < p->crew->n && out->tokens < target; n++) {
            ns_data_next(data, &p->pack[n]);
            out->tokens += p->pack[n].seqs.n_tokens;
        }
        ns_pool_run(p->crew->pool, n, run_pack, p);
        for (int i = 0; i < n; i++)
            add_frame(p, &p->frame[i]);
        if (ns_crew_interrupted(p->crew, e))
            return -1;
        if (o->progress)
            o->progress(o->ctx, (size_t)out->tokens, (size_t)(target > out->tokens ? target : out->tokens));
    }
    return 0;
}

static int pass_init(pass *p, const ns_crew *c, ns_err *e)
{
    *p = (pass){ .crew = c };
    if (layout_init(&p->l, c->p->arch, e) != 0)
        return -1;
    p->acc = calloc(p->l.total + 1, sizeof *p->acc);
    p->frame = calloc((size_t)c->n, sizeof *p->frame);
    p->pack = calloc((size_t)c->n, sizeof *p->pack);
    if (!p->acc || !p->frame || !p->pack)
        return ns_fail(e, NS_ENOMEM, "importance: out of memory");
    for (int i = 0; i < c->n; i++)
        if (frame_init(&p->frame[i], &p->l) != 0 || ns_pack_init(&p->pack[i], c->o->pack_tokens, e) != 0)
            return ns_fail(e, NS_ENOMEM, "importance: out of memory");
    return 0;
}

static void pass_release(pass *p)
{
    for (int i = 0; i < p->crew->n; i++) {
        if (p->frame) {
            free(p->frame[i].sum);
            free(p->frame[i].rows);
        }
        if (p->pack)
            ns_pack_release(&p->pack[i]);
    }
    free(p->frame);
    free(p->pack);
    free(p->acc);
    free(p->l.off);
}

/* ---- from sums to scores ---- */

static int add_hidden(pass *p, ns_scores *out, ns_err *e)
{
    const ns_arch *a = p->l.arch;
    float *x = ns_scores_add(out, a->hidden_size, e, "hidden");
    for (int j = 0; x && j < a->hidden_size; j++) {
        double sum = 0;
        for (int i = 0; i <= a->n_layers; i++)
            sum += sqrt(at(&p->l, p->acc, i, NORM)[j]);
        x[j] = (float)sum;
    }
    return x ? 0 : -1;
}

static int add_roots(pass *p, int layer, place k, const char *name, const char *kind, ns_scores *out, ns_err *e)
{
    const int n = width_of(p->l.arch, layer, k);
    float *x = n ? ns_scores_add(out, n, e, "layers.%d.%s%s", layer, name, kind) : NULL;
    for (int j = 0; x && j < n; j++)
        x[j] = (float)sqrt(at(&p->l, p->acc, layer, k)[j]);
    return x || n == 0 ? 0 : -1;
}

static int add_ffn(pass *p, int layer, ns_scores *out, ns_err *e)
{
    const char *name = ns_axis_name(p->l.arch->layers[layer].kind == NS_LAYER_MOE ? NS_AXIS_EXPERT_FFN : NS_AXIS_DENSE_FFN);
    const char *shared = ns_axis_name(NS_AXIS_SHARED_FFN);
    int rc = add_roots(p, layer, FFN, name, "", out, e);
    if (rc == 0)
        rc = add_roots(p, layer, FFN_ACTIVE, name, ".active", out, e);
    if (rc == 0)
        rc = add_roots(p, layer, SHARED, shared, "", out, e);
    return rc == 0 ? add_roots(p, layer, SHARED_ACTIVE, shared, ".active", out, e) : rc;
}

/* The root of the sum over j of sum[i * step + j * stride], for i in 0..n: L2 over the other entries of a matrix of channels. */
static int add_l2(ns_scores *out, int layer, ns_axis x, const double *sum, int n, int step, int others, int stride, ns_err *e)
{
    float *score = ns_scores_add(out, n, e, "layers.%d.%s", layer, ns_axis_name(x));
    for (int i = 0; score && i < n; i++) {
        double s = 0;
        for (int j = 0; j < others; j++)
            s += sum[i * step + j * stride];
        score[i] = (float)sqrt(s);
    }
    return score ? 0 : -1;
}

static int add_mamba(pass *p, int layer, ns_scores *out, ns_err *e)
{
    const ns_arch *a = p->l.arch;
    const int *w = a->layers[layer].width, heads = w[NS_AXIS_MAMBA_HEADS], dim = w[NS_AXIS_MAMBA_HEAD_DIM], n = w[NS_AXIS_SSM_STATE];
    const double *x = at(&p->l, p->acc, layer, MAMBA_X), *b = at(&p->l, p->acc, layer, MAMBA_BC), *c = b + a->n_groups * n;
    if (add_l2(out, layer, NS_AXIS_MAMBA_HEADS, x, heads, dim, dim, 1, e) != 0 ||
        add_l2(out, layer, NS_AXIS_MAMBA_HEAD_DIM, x, dim, 1, heads, dim, e) != 0)
        return -1;
    float *score = ns_scores_add(out, n, e, "layers.%d.%s", layer, ns_axis_name(NS_AXIS_SSM_STATE));
    for (int i = 0; score && i < n; i++) {
        double s = 0;
        for (int g = 0; g < a->n_groups; g++)
            s += b[g * n + i] * c[g * n + i];
        score[i] = (float)sqrt(s);
    }
    return score ? 0 : -1;
}

static int add_experts(pass *p, int layer, ns_scores *out, ns_err *e)
{
    const int n = width_of(p->l.arch, layer, PICKED);
    const double *routed = at(&p->l, p->acc, layer, ROUTED), *picked = at(&p->l, p->acc, layer, PICKED);
    float *reap = ns_scores_add(out, n, e, "layers.%d.experts.reap", layer);
    float *often = reap ? ns_scores_add(out, n, e, "layers.%d.experts.frequency", layer) : NULL;
    for (int i = 0; often && i < n; i++) {
        reap[i] = picked[i] > 0 ? (float)(routed[i] / picked[i]) : 0; /* never asked: last */
        often[i] = (float)(picked[i] / (double)out->tokens);
    }
    return often ? 0 : -1;
}

static int add_layer(pass *p, int layer, ns_scores *out, ns_err *e)
{
    const ns_arch *a = p->l.arch;
    const int heads = a->layers[layer].width[NS_AXIS_ATTN_HEADS];
    switch (a->layers[layer].kind) {
    case NS_LAYER_MAMBA: return add_mamba(p, layer, out, e);
    case NS_LAYER_ATTENTION:
        return add_l2(out, layer, NS_AXIS_ATTN_HEADS, at(&p->l, p->acc, layer, ATTENTION), heads, a->head_dim, a->head_dim, 1, e);
    case NS_LAYER_MOE:
        if (add_experts(p, layer, out, e) != 0)
            return -1;
        return add_ffn(p, layer, out, e);
    default: return add_ffn(p, layer, out, e);
    }
}

static int add_scores(pass *p, ns_scores *out, ns_err *e)
{
    int rc = add_hidden(p, out, e);
    for (int i = 0; rc == 0 && i < p->l.arch->n_layers; i++)
        rc = add_layer(p, i, out, e);
    for (int i = 0; rc == 0 && i < out->n; i++)
        for (int j = 0; rc == 0 && j < out->s[i].n; j++)
            if (!isfinite(out->s[i].x[j]))
                rc = ns_fail(e, NS_EFORMAT, "the score %s of entry %d is %g: this model's activations are not finite", out->s[i].name, j,
                             (double)out->s[i].x[j]);
    return rc;
}

/* ---- all of it ---- */

static int crew_init(ns_crew *c, ns_err *e)
{
    const ns_net_opts o = { .max_tokens = c->o->pack_tokens, .max_seqs = c->o->pack_tokens, .forward_only = true };
    if (!(c->pool = ns_pool_new(c->o->threads, e)) || !(c->blas = ns_blas_open(e)))
        return -1;
    c->n = ns_pool_threads(c->pool);
    c->net = calloc((size_t)c->n, sizeof *c->net);
    if (!c->net)
        return ns_fail(e, NS_ENOMEM, "importance: out of memory");
    for (int i = 0; i < c->n; i++)
        if (!(c->net[i] = ns_net_new(c->p, c->blas, &o, e)))
            return -1;
    return 0;
}

static void crew_release(ns_crew *c)
{
    for (int i = 0; c->net && i < c->n; i++)
        ns_net_free(c->net[i]);
    free(c->net);
    ns_pool_free(c->pool);
    ns_blas_close(c->blas);
}

int ns_importance(const ns_params *p, const ns_real *w, ns_data *data, const ns_importance_opts *o, ns_scores *out, ns_err *e)
{
    ns_crew c = { .p = p, .w = w, .o = o };
    pass k = { .crew = &c };
    *out = (ns_scores){ 0 };
    int rc = crew_init(&c, e);
    if (rc == 0)
        rc = pass_init(&k, &c, e);
    if (rc == 0)
        rc = run_pass(&k, data, out, e);
    if (rc == 0)
        rc = add_scores(&k, out, e);
    if (rc == 0 && o->depth_keep > 0)
        rc = ns_importance_depth(&c, data, out, e);
    pass_release(&k);
    crew_release(&c);
    if (rc != 0)
        ns_scores_release(out);
    return rc;
}
