/* Can sizes go on from each other's states? What --switch needs, and the report of pairs. */
#include "train/elastify_objective.h"

/* Why a state of one size is none of the other's, as an axis; NULL: it is. */
static const char *misfit(const ns_arch *a, const ns_cut *x, const ns_cut *y)
{
    static const ns_axis axes[] = { NS_AXIS_MAMBA_HEADS, NS_AXIS_MAMBA_HEAD_DIM, NS_AXIS_SSM_STATE };
    if (ns_cut_same_state(a, x, y) && ns_cut_same_state(a, y, x))
        return NULL;
    for (int i = 0; i < x->n_layers; i++)
        for (size_t k = 0; k < sizeof axes / sizeof *axes; k++)
            if (x->layer[i].keep && y->layer[i].keep && x->layer[i].width[axes[k]] != y->layer[i].width[axes[k]])
                return ns_axis_name(axes[k]);
    return "depth";
}

bool ns_elastic_states_fit(const ns_arch *a, const ns_elastic_plan *p)
{
    for (int i = 1; i < p->n; i++)
        if (misfit(a, &p->size[0].cut, &p->size[i].cut))
            return false;
    return true;
}

int ns_elastic_check_change(const ns_arch *a, const ns_elastic_plan *p, const ns_elastify_opts *o, bool decided, ns_err *e)
{
    if (o->change <= 0)
        return 0;
    if (p->router && !o->freeze_router)
        return ns_fail(e, NS_EINVAL, "--switch: a router that learns has no sizes yet to change between; give --freeze-router and a second "
                       "stage, or --fixed or --uniform sizes");
    if (p->n < 2 || o->sizes.only)
        return ns_fail(e, NS_EINVAL, "--switch: a single size is trained, there is none to change to");
    for (int i = 1; decided && i < p->n; i++) {
        const char *axis = misfit(a, &p->size[0].cut, &p->size[i].cut);
        if (axis)
            return ns_fail(e, NS_EINVAL, "--switch: sizes %s and %s differ in %s: the state of one cannot be continued by the other",
                           p->size[0].name, p->size[i].name, axis);
    }
    return 0;
}
