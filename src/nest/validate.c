/* Which cuts the architecture and the stored blocks can serve. */
#include <stdio.h>

#include "nest/cut.h"

/* Widths move in steps: Mamba heads come in B/C groups, query heads in KV groups, experts in routing groups. */
static int step_of(const ns_arch *a, ns_axis axis, const char **of)
{
    switch (axis) {
    case NS_AXIS_MAMBA_HEADS:
        *of = "n_groups";
        return a->n_groups;
    case NS_AXIS_ATTN_HEADS:
        *of = "num_key_value_heads";
        return a->n_kv_heads;
    case NS_AXIS_EXPERTS:
        *of = "n_group";
        return a->n_group;
    default:
        *of = "";
        return 1;
    }
}

static int check_width(const ns_arch *a, int layer, ns_axis axis, int width, ns_err *e)
{
    const char *axis_name = ns_axis_name(axis), *of;
    int full = a->layers[layer].width[axis], step = step_of(a, axis, &of), below = width - width % step;
    if (full == 0 && width == 0)
        return 0;
    if (full == 0)
        return ns_fail(e, NS_EINVAL, "layer %d has no %s (%d was asked for)", layer, axis_name, width);
    if (width < 1 || width > full)
        return ns_fail(e, NS_EINVAL, "layer %d: %s %d is outside 1..%d", layer, axis_name, width, full);
    if (width % step != 0)
        return ns_fail(e, NS_EINVAL, "layer %d: %s %d is not a multiple of %s = %d; try %d", layer, axis_name, width, of, step,
                       below > 0 ? below : step);
    return 0;
}

int ns_cut_step(const ns_arch *a, ns_axis axis)
{
    const char *of;
    return step_of(a, axis, &of);
}

/* The router picks topk experts out of topk_group groups, and scores a group by its two best. */
static int check_router(const ns_arch *a, int layer, int experts, ns_err *e)
{
    int topk = a->layers[layer].topk, per_group = experts / a->n_group;
    if (per_group * a->topk_group < topk)
        return ns_fail(e, NS_EINVAL, "layer %d: experts %d: the router picks %d and may choose among %d", layer, experts, topk,
                       per_group * a->topk_group);
    if (a->n_group > 1 && per_group < 2)
        return ns_fail(e, NS_EINVAL, "layer %d: experts %d: each of the %d routing groups needs 2", layer, experts, a->n_group);
    return 0;
}

static int check_layer(const ns_arch *a, const ns_cut *c, int layer, ns_err *e)
{
    const ns_cut_layer *l = &c->layer[layer];
    for (int x = 0; x < NS_AXIS_COUNT; x++)
        if ((l->keep || x == NS_AXIS_HIDDEN) && check_width(a, layer, (ns_axis)x, l->width[x], e) < 0)
            return -1;
    if (l->width[NS_AXIS_HIDDEN] != ns_cut_hidden(c))
        return ns_fail(e, NS_EINVAL, "layer %d: hidden %d, but %d in layer 0: it is one width for the whole model", layer,
                       l->width[NS_AXIS_HIDDEN], ns_cut_hidden(c));
    return l->keep && a->layers[layer].kind == NS_LAYER_MOE ? check_router(a, layer, l->width[NS_AXIS_EXPERTS], e) : 0;
}

/* ---- quantisation blocks ---- */

/* Does the cut keep whole blocks only? A dimension that stays whole always does. -1: out of memory. */
static int keeps_blocks(const ns_arch *a, const ns_cut *c, int layer, ns_dim_id id, int block)
{
    ns_arena arena = { 0 };
    ns_dim d = ns_arch_dim(a, layer, id);
    ns_segs segs;
    int ok = -1;
    if (ns_cut_segments(a, c, layer, id, &arena, &segs) < 0)
        goto out;
    ok = 1;
    if (segs.total != ns_dim_size(&d))
        for (int i = 0; i < segs.n && ok; i++)
            ok = segs.seg[i].off % block == 0 && segs.seg[i].len % block == 0;
out:
    ns_arena_release(&arena);
    return ok;
}

/* The nearest width of the axis, below (dir -1) or above (+1), that keeps blocks with everything else as it is; 0 when none is near. */
static int nearest(const ns_arch *a, ns_cut *c, int layer, ns_dim_id id, int block, ns_axis axis, int dir)
{
    const char *of;
    int step = step_of(a, axis, &of), full = a->layers[layer].width[axis], *slot = &c->layer[layer].width[axis];
    int was = *slot, hidden = ns_cut_hidden(c), found = 0;
    for (int i = 1; i <= block && !found; i++) {
        int w = was + dir * i * step;
        if (w < 1 || w > full)
            break;
        *slot = w;
        if (axis == NS_AXIS_HIDDEN) /* segments read it from the layer, model-level ones from layer 0 */
            c->layer[0].width[axis] = w;
        if (keeps_blocks(a, c, layer, id, block) == 1)
            found = w;
    }
    *slot = was;
    c->layer[0].width[NS_AXIS_HIDDEN] = hidden;
    return found;
}

/* Names the axis whose change would mend the cut: of those that cut this dimension, the innermost first. */
static int fail_block(const ns_arch *a, const ns_cut *c, int layer, ns_role r, int block, ns_err *e)
{
    const ns_weight_def *w = ns_weight_get(r);
    ns_dim_id id = w->dim[w->n_dims - 1];
    ns_dim d = ns_arch_dim(a, layer, id);
    int at = layer < 0 ? 0 : layer, low = 0, high = 0;
    ns_axis axis = NS_AXIS_HIDDEN;
    ns_cut try;
    char near[64] = "no width near it does", where[32] = "";
    if (ns_cut_copy(c, &try, e) < 0)
        return -1;
    for (int f = d.part[0].n_factors - 1; f >= 0 && !low && !high; f--) {
        ns_axis x = d.part[0].factor[f].axis;
        if (x == NS_AXIS_FIXED || c->layer[at].width[x] == a->layers[at].width[x])
            continue;
        axis = x;
        low = nearest(a, &try, at, id, block, x, -1);
        high = nearest(a, &try, at, id, block, x, 1);
    }
    ns_cut_release(&try);
    if (low && high)
        snprintf(near, sizeof near, "nearest are %d and %d", low, high);
    else if (low || high)
        snprintf(near, sizeof near, "nearest is %d", low ? low : high);
    if (layer >= 0)
        snprintf(where, sizeof where, "layer %d: ", layer);
    return ns_fail(e, NS_EINVAL, "%s%s %d splits a block of %d stored values of %s; %s", where, ns_axis_name(axis),
                   c->layer[at].width[axis], block, w->name, near);
}

static int check_blocks(const ns_arch *a, const ns_cut *c, int layer, ns_dtype_of_fn *dtype_of, void *ctx, ns_err *e)
{
    for (int r = 0; r < NS_W_COUNT; r++) {
        const ns_weight_def *w = ns_weight_get((ns_role)r);
        if (!w->quantisable || !ns_weight_exists(a, layer, (ns_role)r))
            continue;
        int experts = w->per_expert ? a->layers[layer].width[NS_AXIS_EXPERTS] : 1, checked = 1;
        for (int x = 0; x < experts; x++) {
            int block = (int)ns_dtype_block(dtype_of(ctx, layer, (ns_role)r, x).dtype), ok = 1;
            if (block == checked || (w->per_expert && !ns_cut_has_expert(a, c, layer, x)))
                continue;
            ok = keeps_blocks(a, c, layer, w->dim[w->n_dims - 1], block);
            if (ok < 0)
                return ns_fail(e, NS_ENOMEM, "out of memory");
            if (!ok)
                return fail_block(a, c, layer, (ns_role)r, block, e);
            checked = block; /* the experts of a layer are all alike but for their dtype */
        }
    }
    return 0;
}

int ns_cut_validate(const ns_arch *a, const ns_cut *c, ns_dtype_of_fn *dtype_of, void *ctx, ns_err *e)
{
    int kept = 0;
    if (c->n_layers != a->n_layers)
        return ns_fail(e, NS_EINVAL, "a cut of %d layers for a model of %d", c->n_layers, a->n_layers);
    for (int i = 0; i < a->n_layers; i++) {
        if (check_layer(a, c, i, e) < 0)
            return -1;
        kept += c->layer[i].keep;
    }
    if (kept == 0)
        return ns_fail(e, NS_EINVAL, "the cut keeps no layer");
    if (!dtype_of)
        return 0;
    for (int i = -1; i < a->n_layers; i++)
        if ((i < 0 || c->layer[i].keep) && check_blocks(a, c, i, dtype_of, ctx, e) < 0)
            return -1;
    return 0;
}
