#include "nest/cut.h"

#include <stdlib.h>
#include <string.h>

static int alloc_layers(ns_cut *out, int n, ns_err *e)
{
    out->n_layers = n;
    out->layer = calloc((size_t)n, sizeof *out->layer);
    return out->layer ? 0 : ns_fail(e, NS_ENOMEM, "out of memory");
}

int ns_cut_full(const ns_arch *a, ns_cut *out, ns_err *e)
{
    if (alloc_layers(out, a->n_layers, e) < 0)
        return -1;
    for (int i = 0; i < a->n_layers; i++) {
        out->layer[i].keep = true;
        memcpy(out->layer[i].width, a->layers[i].width, sizeof out->layer[i].width);
    }
    return 0;
}

int ns_cut_copy(const ns_cut *c, ns_cut *out, ns_err *e)
{
    if (alloc_layers(out, c->n_layers, e) < 0)
        return -1;
    memcpy(out->layer, c->layer, (size_t)c->n_layers * sizeof *c->layer);
    return 0;
}

void ns_cut_release(ns_cut *c)
{
    if (!c)
        return;
    free(c->layer);
    *c = (ns_cut){ 0 };
}

/* The widths of a dropped layer mean nothing. */
bool ns_cut_equal(const ns_cut *a, const ns_cut *b)
{
    if (a->n_layers != b->n_layers || ns_cut_hidden(a) != ns_cut_hidden(b))
        return false;
    for (int i = 0; i < a->n_layers; i++) {
        const ns_cut_layer *x = &a->layer[i], *y = &b->layer[i];
        if (x->keep != y->keep || (x->keep && memcmp(x->width, y->width, sizeof x->width) != 0))
            return false;
    }
    return true;
}

int ns_cut_hidden(const ns_cut *c)
{
    return c->layer[0].width[NS_AXIS_HIDDEN];
}

bool ns_cut_set(const ns_arch *a, ns_cut *c, ns_axis axis, int width)
{
    bool any = false;
    for (int i = 0; i < a->n_layers; i++)
        if (a->layers[i].width[axis] > 0) {
            c->layer[i].width[axis] = width;
            any = true;
        }
    return any;
}

bool ns_cut_same_state(const ns_arch *a, const ns_cut *from, const ns_cut *to)
{
    static const ns_axis head_axes[] = { NS_AXIS_MAMBA_HEADS, NS_AXIS_MAMBA_HEAD_DIM, NS_AXIS_SSM_STATE };
    for (int i = 0; i < a->n_layers; i++) {
        const ns_cut_layer *f = &from->layer[i], *t = &to->layer[i];
        if (!t->keep || (a->layers[i].kind != NS_LAYER_MAMBA && a->layers[i].kind != NS_LAYER_ATTENTION))
            continue;
        if (!f->keep)
            return false;
        if (a->layers[i].kind == NS_LAYER_ATTENTION) /* keys and values are never cut */
            continue;
        for (size_t x = 0; x < sizeof head_axes / sizeof *head_axes; x++)
            if (f->width[head_axes[x]] != t->width[head_axes[x]])
                return false;
    }
    return true;
}

bool ns_cut_has_expert(const ns_arch *a, const ns_cut *c, int layer, int e)
{
    int group = a->layers[layer].width[NS_AXIS_EXPERTS] / a->n_group;
    return e % group < c->layer[layer].width[NS_AXIS_EXPERTS] / a->n_group;
}
