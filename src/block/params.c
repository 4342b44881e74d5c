#include "block/params.h"

#include <math.h>
#include <string.h>

#include "arch/config.h"
#include "base/rng.h"

/* ---- the plan ---- */

/* Shape of one expert's tensor; a vector is one row, conv1d.weight [channels, 1, taps] is [channels, taps]. */
static void shape_of(const ns_arch *a, int layer, ns_role r, int *rows, int *cols)
{
    const ns_weight_def *def = ns_weight_get(r);
    int size[3] = { 1, 1, 1 };
    for (int i = 0; i < def->n_dims; i++) {
        ns_dim d = ns_arch_dim(a, layer, def->dim[i]);
        size[i] = ns_dim_size(&d);
    }
    *rows = def->n_dims == 1 ? 1 : size[0];
    *cols = def->n_dims == 1 ? size[0] : size[1] * size[2];
}

typedef struct plan {
    ns_params *out;
    bool fill; /* the first walk counts */
} plan;

static int add(void *ctx, int layer, ns_role r, int expert)
{
    plan *pl = ctx;
    ns_params *out = pl->out;
    if (expert > 0)
        return 0;
    if (pl->fill) {
        const ns_weight_def *def = ns_weight_get(r);
        ns_param *p = &out->p[out->n];
        *p = (ns_param){ .role = r, .layer = layer, .off = out->count, .buffer = r == NS_W_GATE_CORRECTION, .matrix = def->n_dims == 2 };
        p->n_experts = def->per_expert ? out->arch->layers[layer].width[NS_AXIS_EXPERTS] : 0;
        shape_of(out->arch, layer, r, &p->rows, &p->cols);
        p->count = (size_t)p->rows * (size_t)p->cols * (size_t)(p->n_experts ? p->n_experts : 1); /* arch bounds the total */
        out->count += p->count;
    }
    out->n++;
    return 0;
}

static int bucket_of(const ns_params *p, const ns_param *x)
{
    return x->layer >= 0 ? 1 + x->layer : x->role == NS_W_EMBED ? 0 : p->n_buckets - 1;
}

int ns_params_plan(const ns_arch *a, ns_params *out, ns_err *e)
{
    plan pl = { .out = out };
    *out = (ns_params){ .arch = a, .n_buckets = a->n_layers + 2 };
    ns_manifest_each(a, add, &pl);
    out->p = ns_arena_array(&out->arena, (size_t)out->n, sizeof *out->p);
    out->bucket = ns_arena_array(&out->arena, (size_t)out->n_buckets + 1, sizeof *out->bucket);
    if (!out->p || !out->bucket) {
        ns_params_release(out);
        return ns_fail(e, NS_ENOMEM, "planning the parameters: out of memory");
    }
    out->n = 0;
    pl.fill = true;
    ns_manifest_each(a, add, &pl);
    for (int i = out->n - 1; i >= 0; i--) /* from the back, so that the first of a bucket stays */
        out->bucket[bucket_of(out, &out->p[i])] = out->p[i].off;
    out->bucket[out->n_buckets] = out->count;
    return 0;
}

void ns_params_release(ns_params *p)
{
    if (!p)
        return;
    ns_arena_release(&p->arena);
    *p = (ns_params){ 0 };
}

const ns_param *ns_params_find(const ns_params *p, int layer, ns_role r)
{
    const ns_role want = layer < 0 && r == NS_W_LM_HEAD && p->arch->tie_embeddings ? NS_W_EMBED : r;
    const int b = layer >= 0 ? 1 + layer : want == NS_W_EMBED ? 0 : p->n_buckets - 1;
    int lo = 0, hi = p->n;
    while (lo < hi) { /* the bucket's first */
        int mid = (lo + hi) / 2;
        if (p->p[mid].off < p->bucket[b])
            lo = mid + 1;
        else
            hi = mid;
    }
    for (; lo < p->n && p->p[lo].off < p->bucket[b + 1]; lo++)
        if (p->p[lo].role == want)
            return &p->p[lo];
    return NULL;
}

const ns_real *ns_params_cat(const ns_params *p, const ns_real *flat, int layer, ns_role r, int e)
{
    const ns_param *x = ns_params_find(p, layer, r);
    return x ? flat + x->off + (size_t)e * (size_t)x->rows * (size_t)x->cols : NULL;
}

ns_real *ns_params_at(const ns_params *p, ns_real *flat, int layer, ns_role r, int e)
{
    const ns_param *x = ns_params_find(p, layer, r);
    return x ? flat + x->off + (size_t)e * (size_t)x->rows * (size_t)x->cols : NULL;
}

/* ---- initialisation ---- */

typedef struct init {
    double range, dt_min, dt_max, dt_floor;
    bool rescale;
} init;

/* Keys of the published config that matter here only; the defaults are its own. */
static int read_init(const ns_arch *a, init *in, ns_err *e)
{
    const json_t *text = ns_config_text(a->config);
    if (ns_config_real(text, "initializer_range", 0, 1e3, 0.02, &in->range, e) < 0 ||
        ns_config_real(text, "time_step_min", 1e-30, 1e3, 1e-3, &in->dt_min, e) < 0 ||
        ns_config_real(text, "time_step_max", 1e-30, 1e3, 1e-1, &in->dt_max, e) < 0 ||
        ns_config_real(text, "time_step_floor", 1e-30, 1e3, 1e-4, &in->dt_floor, e) < 0 ||
        ns_config_bool(text, "rescale_prenorm_residual", true, &in->rescale, e) < 0)
        return -1;
    if (in->dt_min > in->dt_max)
        return ns_fail(e, NS_EFORMAT, "time_step_min %g is over time_step_max %g", in->dt_min, in->dt_max);
    return 0;
}

static bool writes_residual(const ns_arch *a, ns_role r)
{
    return r == NS_W_OUT_PROJ || r == NS_W_O || r == NS_W_SHARED_DOWN || r == NS_W_DOWN || r == NS_W_LATENT_OUT ||
           (r == NS_W_EXPERT_DOWN && !a->latent_size);
}

/* One stream per tensor of the checkpoint (an expert's is its own): FNV-1a of its name, from a start that the seed has moved. */
static void seed_stream(ns_rng *g, uint64_t seed, const char *name)
{
    uint64_t h = 0xcbf29ce484222325u ^ (seed * 0x9e3779b97f4a7c15u);
    for (; *name; name++)
        h = (h ^ (uint8_t)*name) * 0x100000001b3u;
    ns_rng_init(g, h);
}

static double dt_bias(const init *in, ns_rng *g)
{
    double dt = exp(log(in->dt_min) + ns_rng_uniform(g) * (log(in->dt_max) - log(in->dt_min)));
    dt = dt < in->dt_floor ? in->dt_floor : dt;
    return dt + log(-expm1(-dt)); /* softplus of it is dt */
}

static void init_tensor(const ns_params *p, const ns_param *x, const init *in, ns_rng *g, ns_real *w)
{
    const size_t n = (size_t)x->rows * (size_t)x->cols;
    const double deviation = in->range / (in->rescale && writes_residual(p->arch, x->role) ? sqrt(p->arch->n_layers) : 1);
    const double bound = 1 / sqrt(x->cols); /* conv1d: the uniform default of its fan-in, the taps; N(0, 0.02) would mute it */
    for (size_t i = 0; i < n; i++) {
        double v = 0; /* biases, and the correction of the router */
        if (x->matrix)
            v = deviation * ns_rng_normal(g);
        else if (x->role == NS_W_CONV)
            v = bound * (2 * ns_rng_uniform(g) - 1);
        else if (x->role == NS_W_A_LOG)
            v = log((double)i + 1);
        else if (x->role == NS_W_DT_BIAS)
            v = dt_bias(in, g);
        else if (x->role == NS_W_NORM || x->role == NS_W_GATED_NORM || x->role == NS_W_FINAL_NORM || x->role == NS_W_D)
            v = 1;
        w[i] = (ns_real)v;
    }
}

int ns_params_init(const ns_params *p, uint64_t seed, ns_real *flat, ns_err *e)
{
    init in;
    if (read_init(p->arch, &in, e) != 0)
        return -1;
    for (int i = 0; i < p->n; i++) {
        const ns_param *x = &p->p[i];
        for (int k = 0; k < (x->n_experts ? x->n_experts : 1); k++) {
            char name[256];
            ns_rng g;
            ns_weight_name(x->layer, x->role, k, name, sizeof name);
            seed_stream(&g, seed, name);
            init_tensor(p, x, &in, &g, flat + x->off + (size_t)k * (size_t)x->rows * (size_t)x->cols);
        }
    }
    return 0;
}
