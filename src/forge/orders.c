#include "forge/orders.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

enum { N_DIM_IDS = NS_DIM_LATENT + 1 };

static int no_memory(ns_err *e)
{
    return ns_fail(e, NS_ENOMEM, "orders: out of memory");
}

int ns_orders_init(ns_orders *o, const ns_arch *a, ns_err *e)
{
    *o = (ns_orders){ .arch = a };
    for (int x = 0; x < NS_AXIS_COUNT; x++) {
        o->order[x] = ns_arena_array(&o->arena, (size_t)a->n_layers, sizeof *o->order[x]);
        if (!o->order[x]) {
            ns_orders_release(o);
            return no_memory(e);
        }
    }
    return 0;
}

void ns_orders_release(ns_orders *o)
{
    ns_arena_release(&o->arena);
    *o = (ns_orders){ 0 };
}

static int slot_of(int layer, ns_axis x)
{
    return x == NS_AXIS_HIDDEN ? 0 : layer;
}

const int *ns_orders_find(const ns_orders *o, int layer, ns_axis x)
{
    return o->order[x][slot_of(layer, x)];
}

/* ---- which axes there are, and their groups: as the manifest's dimensions say ---- */

static const ns_factor *find_factor(const ns_dim *d, ns_axis x)
{
    for (int p = 0; p < d->n_parts; p++)
        for (int f = 0; f < d->part[p].n_factors; f++)
            if (d->part[p].factor[f].axis == x)
                return &d->part[p].factor[f];
    return NULL;
}

bool ns_orders_dim_has(const ns_arch *a, int layer, ns_dim_id id, ns_axis x)
{
    ns_dim d = ns_arch_dim(a, layer, id);
    return find_factor(&d, x) != NULL;
}

static int groups_of(const ns_arch *a, int layer, ns_axis x)
{
    for (int id = 0; id < N_DIM_IDS; id++) {
        ns_dim d = ns_arch_dim(a, layer, (ns_dim_id)id);
        const ns_factor *f = find_factor(&d, x);
        if (f)
            return f->divide;
    }
    return 1;
}

/* Calls fn for every (layer, axis) of the model in the set; HIDDEN once, with layer 0. */
typedef int order_fn(ns_orders *o, int layer, ns_axis x, int width, void *ctx, ns_err *e);
static int each_order(ns_orders *o, unsigned axes, order_fn *fn, void *ctx, ns_err *e)
{
    int rc = 0;
    for (int i = 0; i < o->arch->n_layers && rc == 0; i++)
        for (int x = 0; x < NS_AXIS_COUNT && rc == 0; x++) {
            int width = o->arch->layers[i].width[x];
            if ((axes >> x & 1) && width > 0 && slot_of(i, (ns_axis)x) == i)
                rc = fn(o, i, (ns_axis)x, width, ctx, e);
        }
    return rc;
}

/* ---- setting ---- */

static bool is_identity(const int *order, int n)
{
    for (int i = 0; i < n; i++)
        if (order[i] != i)
            return false;
    return true;
}

int ns_orders_set(ns_orders *o, int layer, ns_axis x, const int *order, ns_err *e)
{
    const int n = o->arch->layers[layer].width[x], group = n / groups_of(o->arch, layer, x);
    int *copy = ns_arena_array(&o->arena, (size_t)n, sizeof *copy);
    bool *seen = calloc((size_t)n + 1, sizeof *seen);
    int rc = copy && seen ? 0 : no_memory(e);
    for (int i = 0; rc == 0 && i < n; i++) {
        if (order[i] < 0 || order[i] >= n || seen[order[i]])
            rc = ns_fail(e, NS_EINVAL, "layer %d: the order of %s is no permutation of %d entries", layer, ns_axis_name(x), n);
        else if (order[i] / group != i / group)
            rc = ns_fail(e, NS_EINVAL, "layer %d: the order of %s moves entry %d out of its group", layer, ns_axis_name(x), order[i]);
        else
            seen[order[i]] = true;
    }
    if (rc == 0) {
        memcpy(copy, order, (size_t)n * sizeof *copy);
        o->order[x][slot_of(layer, x)] = is_identity(order, n) ? NULL : copy;
    }
    free(seen);
    return rc;
}

bool ns_orders_identity(const ns_orders *o)
{
    for (int x = 0; x < NS_AXIS_COUNT; x++)
        for (int i = 0; i < o->arch->n_layers; i++)
            if (o->order[x][i])
                return false;
    return true;
}

static int invert(ns_orders *out, int layer, ns_axis x, int width, void *ctx, ns_err *e)
{
    const int *order = ns_orders_find(ctx, layer, x);
    int *inverse = order ? malloc((size_t)width * sizeof *inverse) : NULL;
    if (!order)
        return 0;
    if (!inverse)
        return no_memory(e);
    for (int i = 0; i < width; i++)
        inverse[order[i]] = i;
    int rc = ns_orders_set(out, layer, x, inverse, e);
    free(inverse);
    return rc;
}

int ns_orders_inverse(const ns_orders *o, ns_orders *out, ns_err *e)
{
    if (ns_orders_init(out, o->arch, e) != 0)
        return -1;
    int rc = each_order(out, NS_ORDERS_ALL, invert, (void *)(uintptr_t)o, e);
    if (rc != 0)
        ns_orders_release(out);
    return rc;
}

/* ---- by score ---- */

typedef struct scored {
    float score;
    int index, group;
} scored;

static int by_score(const void *a, const void *b)
{
    const scored *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

static int set_by_score(ns_orders *o, int layer, ns_axis x, int width, const float *score, ns_err *e)
{
    const int group = width / groups_of(o->arch, layer, x);
    scored *s = malloc((size_t)width * sizeof *s);
    int *order = malloc((size_t)width * sizeof *order);
    int rc = s && order ? 0 : no_memory(e);
    for (int i = 0; rc == 0 && i < width; i++)
        s[i] = (scored){ score[i], i, i / group };
    if (rc == 0) {
        qsort(s, (size_t)width, sizeof *s, by_score);
        for (int i = 0; i < width; i++)
            order[i] = s[i].index;
        rc = ns_orders_set(o, layer, x, order, e);
    }
    free(s);
    free(order);
    return rc;
}

static int set_random(ns_orders *o, int layer, ns_axis x, int width, void *ctx, ns_err *e)
{
    float *score = malloc((size_t)width * sizeof *score);
    if (!score)
        return no_memory(e);
    for (int i = 0; i < width; i++)
        score[i] = (float)ns_rng_uniform(ctx);
    int rc = set_by_score(o, layer, x, width, score, e);
    free(score);
    return rc;
}

int ns_orders_random(ns_orders *o, unsigned axes, uint64_t seed, ns_err *e)
{
    ns_rng r;
    ns_rng_init(&r, seed);
    return each_order(o, axes, set_random, &r, e);
}

typedef struct ranking {
    const ns_store *stats;
    const ns_orders_metric *metric;
} ranking;

/* "hidden", "layers.3.mamba_heads", "layers.3.experts.reap", "layers.3.dense_ffn.active" */
static void score_name(const ns_orders_metric *m, int layer, ns_axis x, char *out, size_t cap)
{
    const char *kind = "";
    if (x == NS_AXIS_EXPERTS)
        kind = m->expert_frequency ? ".frequency" : ".reap";
    else if (m->ffn_active && (x == NS_AXIS_EXPERT_FFN || x == NS_AXIS_SHARED_FFN || x == NS_AXIS_DENSE_FFN))
        kind = ".active";
    if (x == NS_AXIS_HIDDEN)
        snprintf(out, cap, "%s", ns_axis_name(x));
    else
        snprintf(out, cap, "layers.%d.%s%s", layer, ns_axis_name(x), kind);
}

static int set_ranked(ns_orders *o, int layer, ns_axis x, int width, void *ctx, ns_err *e)
{
    const ranking *k = ctx;
    char name[80];
    score_name(k->metric, layer, x, name, sizeof name);
    const ns_tensor *t = ns_store_get(k->stats, name, e);
    if (!t)
        return -1;
    if (t->dtype != NS_F32 || t->n_dims != 1 || t->shape[0] != width) {
        ns_buf found = { 0 };
        ns_tensor_print(t, &found);
        ns_fail(e, NS_EFORMAT, "%s: tensor %s: %s, expected F32 [%d]: are these the statistics of this model?", ns_store_path(k->stats),
                name, found.failed ? "another shape" : found.data, width);
        ns_buf_release(&found);
        return -1;
    }
    float *score = malloc(t->bytes);
    if (!score)
        return no_memory(e);
    memcpy(score, t->data, t->bytes); /* the file aligns nothing */
    int rc = 0;
    for (int i = 0; rc == 0 && i < width; i++)
        if (!isfinite(score[i]))
            rc = ns_fail(e, NS_EFORMAT, "%s: tensor %s: entry %d is %g", ns_store_path(k->stats), name, i, (double)score[i]);
    if (rc == 0)
        rc = set_by_score(o, layer, x, width, score, e);
    free(score);
    return rc;
}

int ns_orders_rank(ns_orders *o, unsigned axes, const ns_store *stats, const ns_orders_metric *m, ns_err *e)
{
    return each_order(o, axes, set_ranked, &(ranking){ stats, m }, e);
}

/* ---- dimensions ---- */

/* Old index of entry `i` of factor f, whose copy among those of the outer factors is `copy`. */
static int move(const ns_orders *o, int layer, const ns_factor *f, int copy, int i)
{
    const int *order = f->axis == NS_AXIS_FIXED ? NULL : ns_orders_find(o, layer, f->axis);
    if (!order)
        return i;
    return f->divide == 1 ? order[i] : order[copy * f->size + i] - copy * f->size; /* every copy is a group with its own order */
}

static int part_size(const ns_part *p)
{
    int n = 1;
    for (int f = 0; f < p->n_factors; f++)
        n *= p->factor[f].size;
    return n;
}

static void map_part(const ns_orders *o, int layer, const ns_part *p, int base, int *out)
{
    const int n = part_size(p);
    for (int i = 0; i < n; i++) {
        int inner = n, copy = 0, at = 0;
        for (int f = 0; f < p->n_factors; f++) {
            const ns_factor *k = &p->factor[f];
            inner /= k->size;
            int here = i / inner % k->size;
            at = at * k->size + move(o, layer, k, copy, here);
            copy = copy * k->size + here;
        }
        out[i] = base + at;
    }
}

int ns_orders_dim(const ns_orders *o, int layer, ns_dim_id id, ns_arena *arena, const int **out, ns_err *e)
{
    ns_dim d = ns_arch_dim(o->arch, layer, id);
    bool moves = false;
    *out = NULL;
    for (int x = 0; x < NS_AXIS_COUNT; x++)
        moves = moves || (find_factor(&d, (ns_axis)x) && ns_orders_find(o, layer, (ns_axis)x));
    if (!moves)
        return 0;
    int *map = ns_arena_array(arena, (size_t)ns_dim_size(&d), sizeof *map);
    if (!map)
        return no_memory(e);
    for (int p = 0, base = 0; p < d.n_parts; base += part_size(&d.part[p++]))
        map_part(o, layer, &d.part[p], base, map + base);
    *out = map;
    return 0;
}
