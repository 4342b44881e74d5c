/* From the router's probabilities to the network's mask and back. In its own file because masks are ns_real: the gradient tests compile it
 * in double with the blocks. */
#include "train/router.h"

/* One slot's probabilities as the mask takes them. */
static void copy_slot(const ns_router_axis *x, int slot, const double *p, ns_real *out)
{
    for (int c = 0; c < x->n_choices; c++)
        out[c] = (ns_real)p[x->out + (size_t)(slot * x->n_choices + c)];
}

static const ns_router_axis *axis_of(const ns_router *r, int axis)
{
    for (int k = 0; k < r->n_axes; k++)
        if (!r->axis[k].depth && (int)r->axis[k].axis == axis)
            return &r->axis[k];
    return NULL;
}

static const ns_router_axis *depth_of(const ns_router *r)
{
    for (int k = 0; k < r->n_axes; k++)
        if (r->axis[k].depth)
            return &r->axis[k];
    return NULL;
}

void ns_router_mask(const ns_arch *a, const ns_router *r, const double *p, ns_net_mask *m)
{
    const ns_router_axis *x;
    ns_real q[NS_ROUTER_MAX_CHOICES];
    for (int k = 0; k < NS_AXIS_COUNT; k++) { /* heads come before head dims, as the gated norm's correction wants */
        if (!(x = axis_of(r, k)))
            continue;
        for (int i = k == NS_AXIS_HIDDEN ? -1 : 0; i < (k == NS_AXIS_HIDDEN ? 0 : a->n_layers); i++) {
            int slot = i < 0 ? 0 : x->slot[i];
            if (slot < 0)
                continue;
            copy_slot(x, slot, p, q);
            ns_mask_set_soft(a, m, i, (ns_axis)k, x->n_choices, x->choice, q);
        }
    }
    if (!(x = depth_of(r)))
        return;
    for (int i = 0; i < a->n_layers; i++) {
        double keep = 0;
        m->layer[i].want_keep = !ns_router_keeps(r, i, x->choice[x->n_choices - 1]);
        for (int c = 0; c < x->n_choices; c++)
            keep += ns_router_keeps(r, i, x->choice[c]) ? p[x->out + (size_t)c] : 0;
        m->layer[i].keep = m->layer[i].want_keep ? (ns_real)keep : 1;
    }
}

void ns_router_mask_backward(const ns_arch *a, const ns_router *r, const double *p, const ns_net_mask *m, double *dp)
{
    const ns_router_axis *x;
    ns_real q[NS_ROUTER_MAX_CHOICES], dq[NS_ROUTER_MAX_CHOICES];
    for (int k = 0; k < NS_AXIS_COUNT; k++) {
        if (!(x = axis_of(r, k)))
            continue;
        for (int i = k == NS_AXIS_HIDDEN ? -1 : 0; i < (k == NS_AXIS_HIDDEN ? 0 : a->n_layers); i++) {
            int slot = i < 0 ? 0 : x->slot[i];
            if (slot < 0)
                continue;
            copy_slot(x, slot, p, q);
            for (int c = 0; c < x->n_choices; c++)
                dq[c] = 0;
            ns_mask_soft_backward(a, m, i, (ns_axis)k, x->n_choices, x->choice, q, dq);
            for (int c = 0; c < x->n_choices; c++)
                dp[x->out + (size_t)(slot * x->n_choices + c)] += (double)dq[c];
        }
    }
    if (!(x = depth_of(r)))
        return;
    for (int i = 0; i < a->n_layers; i++)
        for (int c = 0; c < x->n_choices; c++)
            if (m->layer[i].want_keep && ns_router_keeps(r, i, x->choice[c]))
                dp[x->out + (size_t)c] += (double)m->layer[i].d_keep;
}
