#include <stdlib.h>

#include "model/model.h"

static bool is_prefix(const ns_segs *s)
{
    return s->n == 1 && s->seg[0].off == 0;
}

/* The live entries of v [full]; v itself where they are a prefix. NULL stays NULL. */
static int gather(ns_plan *p, float **v, const ns_segs *s)
{
    if (!*v || is_prefix(s))
        return 0;
    float *out = ns_arena_array(&p->arena, (size_t)s->total, sizeof *out), *o = out;
    if (!out)
        return -1;
    for (int i = 0; i < s->n; i++)
        for (int j = 0; j < s->seg[i].len; j++)
            *o++ = (*v)[s->seg[i].off + j];
    *v = out;
    return 0;
}

/* Conv weights [kernel, channels]: rows must be as long as the live channels, like the state's. */
static int gather_conv(ns_plan *p, ns_plan_layer *pl, int kernel, int full)
{
    if (pl->conv_dim == full)
        return 0;
    float *out = ns_arena_array(&p->arena, (size_t)kernel * (size_t)pl->conv_dim, sizeof *out), *o = out;
    if (!out)
        return -1;
    for (int k = 0; k < kernel; k++)
        for (int i = 0; i < pl->conv.n; i++)
            for (int j = 0; j < pl->conv.seg[i].len; j++)
                *o++ = pl->vec.conv_w[(size_t)k * (size_t)full + (size_t)(pl->conv.seg[i].off + j)];
    pl->vec.conv_w = out;
    return 0;
}

static int plan_mamba(ns_plan *p, ns_plan_layer *pl, int i)
{
    const ns_arch *a = p->model->arch;
    const int *w = p->cut.layer[i].width;
    if (ns_cut_segments(a, &p->cut, i, NS_DIM_IN_PROJ, &p->arena, &pl->in_proj) != 0 ||
        ns_cut_segments(a, &p->cut, i, NS_DIM_CONV, &p->arena, &pl->conv) != 0 ||
        ns_cut_segments(a, &p->cut, i, NS_DIM_INNER, &p->arena, &pl->inner_segs) != 0 ||
        ns_cut_segments(a, &p->cut, i, NS_DIM_MAMBA_HEADS, &p->arena, &pl->mamba_heads) != 0)
        return -1;
    pl->groups = a->n_groups;
    pl->heads = w[NS_AXIS_MAMBA_HEADS];
    pl->head_dim = w[NS_AXIS_MAMBA_HEAD_DIM];
    pl->state = w[NS_AXIS_SSM_STATE];
    pl->conv_dim = pl->conv.total;
    pl->inner = pl->inner_segs.total;
    ns_dim full = ns_arch_dim(a, i, NS_DIM_CONV);
    return gather_conv(p, pl, a->conv_kernel, ns_dim_size(&full)) == 0 && gather(p, &pl->vec.conv_b, &pl->conv) == 0 &&
                   gather(p, &pl->vec.in_bias, &pl->in_proj) == 0 && gather(p, &pl->vec.gated_norm, &pl->inner_segs) == 0 &&
                   gather(p, &pl->vec.dt_bias, &pl->mamba_heads) == 0 && gather(p, &pl->vec.a, &pl->mamba_heads) == 0 &&
                   gather(p, &pl->vec.d, &pl->mamba_heads) == 0
               ? 0
               : -1;
}

static int plan_layer(ns_plan *p, int i)
{
    const ns_arch *a = p->model->arch;
    const int *w = p->cut.layer[i].width;
    ns_plan_layer *pl = &p->layer[i];
    *pl = (ns_plan_layer){ .kind = a->layers[i].kind, .keep = p->cut.layer[i].keep, .vec = p->model->vec[i] };
    switch (pl->kind) {
    case NS_LAYER_MAMBA:
        return plan_mamba(p, pl, i);
    case NS_LAYER_ATTENTION:
        pl->heads = w[NS_AXIS_ATTN_HEADS];
        pl->head_dim = a->head_dim;
        return ns_cut_segments(a, &p->cut, i, NS_DIM_Q, &p->arena, &pl->q) == 0 ? gather(p, &pl->vec.q_bias, &pl->q) : -1;
    case NS_LAYER_MOE:
        pl->topk = a->layers[i].topk;
        pl->n_experts = w[NS_AXIS_EXPERTS];
        pl->ffn = w[NS_AXIS_EXPERT_FFN];
        pl->shared = w[NS_AXIS_SHARED_FFN];
        return ns_cut_segments(a, &p->cut, i, NS_DIM_EXPERTS, &p->arena, &pl->experts) == 0 ? gather(p, &pl->vec.correction, &pl->experts)
                                                                                         : -1;
    default:
        pl->ffn = w[NS_AXIS_DENSE_FFN];
        return 0;
    }
}

ns_plan *ns_plan_new(const ns_model *m, const ns_cut *cut, ns_err *e)
{
    ns_plan *p = calloc(1, sizeof *p);
    if (!p)
        goto no_memory;
    p->model = m;
    if (ns_cut_copy(cut, &p->cut, e) != 0)
        goto fail;
    p->hidden = ns_cut_hidden(cut);
    p->layer = ns_arena_array(&p->arena, (size_t)m->arch->n_layers, sizeof *p->layer);
    if (!p->layer)
        goto no_memory;
    for (int i = 0; i < m->arch->n_layers; i++)
        if (plan_layer(p, i) != 0)
            goto no_memory;
    return p;
no_memory:
    ns_fail(e, NS_ENOMEM, "planning a size: out of memory");
fail:
    ns_plan_free(p);
    return NULL;
}

ns_plan *ns_plan_new_masked(const ns_model *m, const ns_cut *cut, ns_err *e)
{
    ns_cut full = { 0 };
    ns_plan *p = NULL;
    if (ns_cut_full(m->arch, &full, e) != 0)
        return NULL;
    for (int i = 0; i < full.n_layers; i++)
        full.layer[i].keep = cut->layer[i].keep; /* a dropped layer has no mask: it is left out */
    p = ns_plan_new(m, &full, e);
    if (p && !(p->mask = ns_plan_new(m, cut, e))) {
        ns_plan_free(p);
        p = NULL;
    }
    for (int i = 0; p && i < full.n_layers; i++)
        p->layer[i].mask = &p->mask->layer[i];
    ns_cut_release(&full);
    return p;
}

void ns_plan_free(ns_plan *p)
{
    if (!p)
        return;
    ns_plan_free(p->mask);
    ns_cut_release(&p->cut);
    ns_arena_release(&p->arena);
    free(p);
}
