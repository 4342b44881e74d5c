/* What a cut costs: parameters, bytes, operations. One walk over the manifest with the cut's dims. */
#include "nest/cut.h"

typedef struct tally {
    const ns_arch *a;
    const ns_cut *c;
    ns_dtype_of_fn *dtype_of;
    void *ctx;
    ns_cost *out;
} tally;

static ns_stored stored_of(const tally *t, int layer, ns_role r, int expert)
{
    return t->dtype_of ? t->dtype_of(t->ctx, layer, r, expert) : (ns_stored){ NS_F32, 0 };
}

/* Rows and columns of the cut weight: the last dimension is the row's length, the others multiply. */
static void shape_of(const tally *t, int layer, ns_role r, int64_t *rows, int64_t *cols)
{
    const ns_weight_def *w = ns_weight_get(r);
    *rows = 1;
    for (int d = 0; d < w->n_dims - 1; d++)
        *rows *= ns_cut_dim(t->a, t->c, layer, w->dim[d]);
    *cols = ns_cut_dim(t->a, t->c, layer, w->dim[w->n_dims - 1]);
}

static int64_t bytes_of(ns_stored s, int64_t rows, int64_t cols)
{
    int64_t data = rows * (int64_t)ns_dtype_row_bytes(s.dtype, (size_t)cols);
    return data + (s.dtype == NS_NVFP4 ? rows * (cols / (int64_t)ns_dtype_block(s.dtype)) : 0) + s.scalar_bytes;
}

static void add_bytes(ns_cost *out, ns_dtype t, int64_t bytes)
{
    out->weight_bytes += bytes;
    out->weight_bytes_by_dtype[t] += bytes;
}

/* A weight that every token reads, the embedding excepted: of that it reads one row. */
static void add_common(tally *t, int layer, ns_role r)
{
    int64_t rows, cols;
    ns_stored s = stored_of(t, layer, r, 0);
    shape_of(t, layer, r, &rows, &cols);
    int64_t bytes = bytes_of(s, rows, cols);
    add_bytes(t->out, s.dtype, bytes);
    t->out->params_total += rows * cols;
    t->out->params_active += rows * cols;
    if (r == NS_W_EMBED)
        t->out->active_bytes += bytes_of((ns_stored){ s.dtype, 0 }, 1, cols);
    if (r == NS_W_EMBED && !t->a->tie_embeddings)
        return;
    t->out->active_bytes += bytes; /* a tied embedding is read whole, as the head */
    if (ns_weight_get(r)->n_dims > 1)
        t->out->flops_per_token += 2.0 * (double)rows * (double)cols;
}

/* A weight of the routed experts: all kept ones are stored, topk of them are read. Where their dtypes differ, the mean counts. */
static void add_experts(tally *t, int layer, ns_role r)
{
    const ns_layer *l = &t->a->layers[layer];
    int64_t rows, cols, all = 0, kept = 0;
    shape_of(t, layer, r, &rows, &cols);
    for (int x = 0; x < l->width[NS_AXIS_EXPERTS]; x++) {
        if (!ns_cut_has_expert(t->a, t->c, layer, x))
            continue;
        ns_stored s = stored_of(t, layer, r, x);
        int64_t bytes = bytes_of(s, rows, cols);
        add_bytes(t->out, s.dtype, bytes);
        all += bytes;
        kept++;
    }
    t->out->params_total += kept * rows * cols;
    t->out->params_active += l->topk * rows * cols;
    if (kept > 0)
        t->out->active_bytes += (int64_t)((double)all * l->topk / (double)kept);
    if (ns_weight_get(r)->n_dims > 1)
        t->out->flops_per_token += 2.0 * l->topk * (double)rows * (double)cols;
}

/* Caches in the engine's layout (F32), and the multiply-accumulates that no weight matrix shows. */
static void add_state(tally *t, int layer)
{
    const ns_arch *a = t->a;
    if (a->layers[layer].kind == NS_LAYER_MAMBA) {
        const int *w = t->c->layer[layer].width;
        int64_t ssm = (int64_t)w[NS_AXIS_MAMBA_HEADS] * w[NS_AXIS_MAMBA_HEAD_DIM] * w[NS_AXIS_SSM_STATE];
        int64_t conv = (int64_t)(a->conv_kernel - 1) * ns_cut_dim(a, t->c, layer, NS_DIM_CONV);
        t->out->state_bytes += 4 * (ssm + conv);
        t->out->flops_per_token += 2.0 * 3.0 * (double)ssm; /* decay, input, read-out */
    } else if (a->layers[layer].kind == NS_LAYER_ATTENTION) {
        t->out->kv_bytes_per_token += 4 * 2 * (int64_t)ns_cut_dim(a, t->c, layer, NS_DIM_KV);
        t->out->flops_per_token += 2.0 * 2.0 * ns_cut_dim(a, t->c, layer, NS_DIM_Q); /* one key, one value */
    }
}

int ns_cut_cost(const ns_arch *a, const ns_cut *c, ns_dtype_of_fn *dtype_of, void *ctx, ns_cost *out, ns_err *e)
{
    tally t = { a, c, dtype_of, ctx, out };
    *out = (ns_cost){ 0 };
    if (c->n_layers != a->n_layers)
        return ns_fail(e, NS_EINVAL, "a cut of %d layers for a model of %d", c->n_layers, a->n_layers);
    for (int i = -1; i < a->n_layers; i++) {
        if (i >= 0 && !c->layer[i].keep)
            continue;
        for (int r = 0; r < NS_W_COUNT; r++) {
            if (!ns_weight_exists(a, i, (ns_role)r))
                continue;
            if (ns_weight_get((ns_role)r)->per_expert)
                add_experts(&t, i, (ns_role)r);
            else
                add_common(&t, i, (ns_role)r);
        }
        if (i >= 0)
            add_state(&t, i);
    }
    return 0;
}

void ns_cost_set_kv(ns_cost *c, ns_dtype kv)
{
    c->kv_bytes_per_token = c->kv_bytes_per_token / (int64_t)sizeof(float) * (int64_t)ns_dtype_bits(kv) / 8;
}
