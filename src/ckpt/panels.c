#include "ckpt/panels.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "ckpt/bind.h"

enum { UNIT = 16 }; /* NVFP4's block, and so a multiple of every other's */

/* A panel is worth its place where it saves the next smaller size more than this share of what that size reads. */
static const double WORTH = 0.1;

typedef struct layout {
    ns_ckpt *c;
    int layer; /* whose panels are known */
    bool known[NS_AXIS_COUNT];
    const ns_panels *panels[NS_AXIS_COUNT]; /* NULL: whole rows */
    uint8_t *spare; /* all panels of a matrix but the first */
    size_t room;
    ns_err *e;
} layout;

static int no_memory(const layout *l)
{
    return ns_fail(l->e, NS_ENOMEM, "%s: out of memory", l->c->dir);
}

/* The axis along which a cut keeps a prefix of the dimension; NS_AXIS_FIXED: none. */
static ns_axis prefix_axis(const ns_arch *a, int layer, ns_dim_id id)
{
    ns_dim d = ns_arch_dim(a, layer, id);
    return d.n_parts == 1 && d.part[0].n_factors == 1 ? d.part[0].factor[0].axis : NS_AXIS_FIXED;
}

static int widest_first(const void *a, const void *b)
{
    return *(const int *)b - *(const int *)a;
}

/* The widths that the sizes have, without those that are close below another. NULL in *out: there is but one panel. */
static int find_panels(layout *l, int layer, ns_dim_id id, const ns_panels **out)
{
    const ns_variants *v = &l->c->variants;
    int *width = calloc((size_t)v->n, sizeof *width), n = 0, kept = 0, end[NS_MAX_PANELS];
    if (!width)
        return no_memory(l);
    for (int i = 0; i < v->n; i++)
        if (layer < 0 || v->v[i].cut.layer[layer].keep)
            width[n++] = ns_cut_dim(l->c->arch, &v->v[i].cut, layer, id);
    qsort(width, (size_t)n, sizeof *width, widest_first);
    for (int i = 0; i < n && kept < NS_MAX_PANELS; i++)
        if (i == 0 || (width[i] % UNIT == 0 && end[kept - 1] - width[i] > WORTH * width[i]))
            end[kept++] = width[i];
    free(width);
    *out = NULL;
    if (kept < 2)
        return 0;
    ns_panels *p = ns_arena_array(&l->c->arena, 1, sizeof *p);
    if (!p)
        return no_memory(l);
    p->n = kept;
    for (int i = 0; i < kept; i++)
        p->end[i] = end[kept - 1 - i];
    *out = p;
    return 0;
}

/* The panels of a weight's columns: one object for all weights of a layer that meet the same activations. */
static int panels_of(layout *l, int layer, ns_role r, const ns_panels **out)
{
    const ns_weight_def *def = ns_weight_get(r);
    const ns_dim_id id = def->dim[1];
    const ns_axis axis = prefix_axis(l->c->arch, layer, id);
    *out = NULL;
    if (def->n_dims != 2 || r == NS_W_EMBED || axis == NS_AXIS_FIXED)
        return 0;
    if (layer != l->layer)
        memset(l->known, 0, sizeof l->known);
    l->layer = layer;
    if (!l->known[axis] && find_panels(l, layer, id, &l->panels[axis]) != 0)
        return -1;
    l->known[axis] = true;
    *out = l->panels[axis];
    return 0;
}

/* `rows` rows of end[n - 1] bytes at p become n panels; end in bytes. The first is closed up in place, the others wait in `spare`. */
static void lay_out(uint8_t *p, size_t rows, const size_t *end, int n, uint8_t *spare)
{
    const size_t row = end[n - 1];
    uint8_t *to = spare;
    for (int k = 1; k < n; k++)
        for (size_t i = 0; i < rows; i++, to += end[k] - end[k - 1])
            memcpy(to, p + i * row + end[k - 1], end[k] - end[k - 1]);
    for (size_t i = 1; i < rows; i++)
        memmove(p + i * end[0], p + i * row, end[0]);
    memcpy(p + rows * end[0], spare, (size_t)(to - spare));
}

static int lay_out_weight(void *ctx, int layer, ns_role r, int expert)
{
    layout *l = ctx;
    const ns_panels *p;
    ns_mat *m = &ns_ckpt_slot(l->c, layer, r, expert)->mat;
    if (panels_of(l, layer, r, &p) != 0)
        return -1;
    if (!p || !m->data)
        return 0;
    assert(p->end[p->n - 1] == m->cols); /* one of the sizes is the whole model */
    size_t end[NS_MAX_PANELS], scale_end[NS_MAX_PANELS];
    for (int i = 0; i < p->n; i++) {
        end[i] = ns_dtype_row_bytes(m->dtype, (size_t)p->end[i]);
        scale_end[i] = (size_t)p->end[i] / UNIT;
    }
    size_t need = (size_t)m->rows * (end[p->n - 1] - end[0]);
    if (need > l->room) {
        free(l->spare);
        l->spare = malloc(need);
        l->room = l->spare ? need : 0;
        if (!l->spare)
            return no_memory(l);
    }
    lay_out(ns_store_own(l->c->store, m->data), (size_t)m->rows, end, p->n, l->spare);
    if (m->scale)
        lay_out(ns_store_own(l->c->store, m->scale), (size_t)m->rows, scale_end, p->n, l->spare);
    m->panels = p;
    l->c->laid_out = true;
    return 0;
}

int ns_ckpt_lay_out(ns_ckpt *c, ns_err *e)
{
    layout l = { .c = c, .layer = -2, .e = e };
    int rc = ns_manifest_each(c->arch, lay_out_weight, &l);
    free(l.spare);
    return rc;
}
