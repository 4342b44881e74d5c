#include "arch/manifest.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

static const ns_weight_def defs[NS_W_COUNT] = {
#define X(id, kinds, name, per_expert, quantisable, n_dims, d0, d1, d2) \
    { #id, kinds, name, per_expert, quantisable, n_dims, { NS_DIM_##d0, NS_DIM_##d1, NS_DIM_##d2 } },
    NS_WEIGHTS(X)
#undef X
};

const ns_weight_def *ns_weight_get(ns_role r)
{
    return &defs[r];
}

bool ns_weight_exists(const ns_arch *a, int layer, ns_role r)
{
    const char *kinds = defs[r].kinds;
    if (layer < 0)
        return !*kinds && !(r == NS_W_LM_HEAD && a->tie_embeddings);
    const ns_layer *l = &a->layers[layer];
    if (!strchr(kinds, l->kind) || !*kinds)
        return false;
    switch (r) {
    case NS_W_IN_PROJ_BIAS:
    case NS_W_OUT_PROJ_BIAS:
        return a->mamba_bias;
    case NS_W_CONV_BIAS:
        return a->conv_bias;
    case NS_W_Q_BIAS:
    case NS_W_K_BIAS:
    case NS_W_V_BIAS:
    case NS_W_O_BIAS:
        return a->attention_bias;
    case NS_W_LATENT_IN:
    case NS_W_LATENT_OUT:
        return a->latent_size > 0;
    case NS_W_LATENT_IN_BIAS:
    case NS_W_LATENT_OUT_BIAS:
        return a->latent_size > 0 && a->mlp_bias;
    case NS_W_SHARED_UP:
    case NS_W_SHARED_DOWN:
        return l->width[NS_AXIS_SHARED_FFN] > 0;
    case NS_W_SHARED_UP_BIAS:
    case NS_W_SHARED_DOWN_BIAS:
        return l->width[NS_AXIS_SHARED_FFN] > 0 && a->mlp_bias;
    case NS_W_UP_BIAS:
    case NS_W_DOWN_BIAS:
        return a->mlp_bias;
    default:
        return true;
    }
}

void ns_weight_name(int layer, ns_role r, int expert, char *out, size_t cap)
{
    const ns_weight_def *d = &defs[r];
    const char *hole = strstr(d->name, "%d");
    if (r == NS_W_LM_HEAD)
        snprintf(out, cap, "%s", d->name);
    else if (!*d->kinds)
        snprintf(out, cap, "backbone.%s", d->name);
    else if (!hole)
        snprintf(out, cap, "backbone.layers.%d.%s", layer, d->name);
    else
        snprintf(out, cap, "backbone.layers.%d.%.*s%d%s", layer, (int)(hole - d->name), d->name, expert, hole + 2);
}

/* ---- dimensions ---- */

static ns_factor fixed(int size)
{
    return (ns_factor){ NS_AXIS_FIXED, size, 1 };
}

/* A factor cut along an axis, inside `groups` copies. */
static ns_factor cut(const ns_layer *l, ns_axis axis, int groups)
{
    return (ns_factor){ axis, l->width[axis] / groups, groups };
}

static ns_part part1(ns_factor a)
{
    return (ns_part){ 1, { a } };
}

static ns_part part2(ns_factor a, ns_factor b)
{
    return (ns_part){ 2, { a, b } };
}

static ns_part part3(ns_factor a, ns_factor b, ns_factor c)
{
    return (ns_part){ 3, { a, b, c } };
}

static ns_dim dim1(ns_part p)
{
    return (ns_dim){ 1, { p } };
}

ns_dim ns_arch_dim(const ns_arch *a, int layer, ns_dim_id id)
{
    static const ns_layer none;
    const ns_layer *l = layer < 0 ? &none : &a->layers[layer];
    const int g = a->n_groups;
    const ns_part channels = part3(fixed(g), cut(l, NS_AXIS_MAMBA_HEADS, g), cut(l, NS_AXIS_MAMBA_HEAD_DIM, 1));
    const ns_part bc = part2(fixed(g), cut(l, NS_AXIS_SSM_STATE, 1));
    const ns_part heads = part2(fixed(g), cut(l, NS_AXIS_MAMBA_HEADS, g));
    switch (id) {
    case NS_DIM_ONE:
        return dim1(part1(fixed(1)));
    case NS_DIM_HIDDEN:
        return dim1(part1((ns_factor){ NS_AXIS_HIDDEN, a->hidden_size, 1 }));
    case NS_DIM_VOCAB:
        return dim1(part1(fixed(a->vocab_size)));
    case NS_DIM_IN_PROJ:
        return (ns_dim){ 5, { channels, channels, bc, bc, heads } };
    case NS_DIM_CONV:
        return (ns_dim){ 3, { channels, bc, bc } };
    case NS_DIM_CONV_KERNEL:
        return dim1(part1(fixed(a->conv_kernel)));
    case NS_DIM_INNER:
        return dim1(channels);
    case NS_DIM_MAMBA_HEADS:
        return dim1(heads);
    case NS_DIM_Q:
        return dim1(part3(fixed(a->n_kv_heads), cut(l, NS_AXIS_ATTN_HEADS, a->n_kv_heads), fixed(a->head_dim)));
    case NS_DIM_KV:
        return dim1(part2(fixed(a->n_kv_heads), fixed(a->head_dim)));
    case NS_DIM_EXPERTS:
        return dim1(part2(fixed(a->n_group), cut(l, NS_AXIS_EXPERTS, a->n_group)));
    case NS_DIM_EXPERT_IO:
        return ns_arch_dim(a, layer, a->latent_size ? NS_DIM_LATENT : NS_DIM_HIDDEN);
    case NS_DIM_EXPERT_FFN:
        return dim1(part1(cut(l, NS_AXIS_EXPERT_FFN, 1)));
    case NS_DIM_SHARED_FFN:
        return dim1(part1(cut(l, NS_AXIS_SHARED_FFN, 1)));
    case NS_DIM_DENSE_FFN:
        return dim1(part1(cut(l, NS_AXIS_DENSE_FFN, 1)));
    case NS_DIM_LATENT:
        return dim1(part1(fixed(a->latent_size)));
    }
    return dim1(part1(fixed(0)));
}

int ns_dim_size(const ns_dim *d)
{
    int total = 0;
    for (int p = 0; p < d->n_parts; p++) {
        int n = 1;
        for (int f = 0; f < d->part[p].n_factors; f++)
            n *= d->part[p].factor[f].size;
        total += n;
    }
    return total;
}

/* ---- the walk ---- */

/* Layers' weights stand between the model-level ones: the embedding before them, the final norm and head after. */
static int each_level(const ns_arch *a, int layer, int from, int to, ns_weight_fn *fn, void *ctx)
{
    int rc = 0;
    for (int r = from; r < to && rc == 0; r++)
        if (ns_weight_exists(a, layer, (ns_role)r) && !defs[r].per_expert)
            rc = fn(ctx, layer, (ns_role)r, 0);
    return rc;
}

/* Experts follow each other, each with all its weights: the order in which checkpoints lay them out. */
static int each_expert(const ns_arch *a, int layer, ns_weight_fn *fn, void *ctx)
{
    int n = a->layers[layer].width[NS_AXIS_EXPERTS], rc = 0;
    for (int x = 0; x < n && rc == 0; x++)
        for (int r = NS_W_EXPERT_UP; r <= NS_W_EXPERT_DOWN && rc == 0; r++)
            if (ns_weight_exists(a, layer, (ns_role)r))
                rc = fn(ctx, layer, (ns_role)r, x);
    return rc;
}

int ns_manifest_each(const ns_arch *a, ns_weight_fn *fn, void *ctx)
{
    int rc = each_level(a, -1, 0, NS_W_NORM, fn, ctx);
    for (int i = 0; i < a->n_layers && rc == 0; i++) {
        rc = each_level(a, i, 0, NS_W_EXPERT_UP, fn, ctx);
        if (rc == 0 && a->layers[i].kind == NS_LAYER_MOE)
            rc = each_expert(a, i, fn, ctx);
        if (rc == 0)
            rc = each_level(a, i, NS_W_EXPERT_DOWN + 1, NS_W_COUNT, fn, ctx);
    }
    return rc == 0 ? each_level(a, -1, NS_W_NORM, NS_W_COUNT, fn, ctx) : rc;
}
