/* Orders of a model's axes: which old entry comes to each new place. Where an axis lives in groups (Mamba heads, query heads, experts of a
 * router with groups) an order moves entries inside their group only. HIDDEN has one order for the model, every other axis one per
 * layer; the experts of a layer share that of their FFN, the heads that of their channels, the groups that of the SSM state. */
#ifndef NS_FORGE_ORDERS_H
#define NS_FORGE_ORDERS_H
#include "arch/manifest.h"
#include "store/safetensors.h"

typedef struct ns_orders {
    const ns_arch *arch;        /* borrowed */
    int **order[NS_AXIS_COUNT]; /* [n_layers] each; NULL entries: as it is. HIDDEN stands at layer 0. All in the arena */
    ns_arena arena;
} ns_orders;

enum { NS_ORDERS_ALL = (1 << NS_AXIS_COUNT) - 1 }; /* sets of axes are bits 1 << axis */

int ns_orders_init(ns_orders *o, const ns_arch *a, ns_err *e); /* everything as it is */
void ns_orders_release(ns_orders *o);
/* [width of the axis in that layer]: the old index of each new one; NULL where nothing moves. The layer does not matter for HIDDEN. */
const int *ns_orders_find(const ns_orders *o, int layer, ns_axis x);
/* Copies `order`; refused when it is no permutation or leaves its groups. */
int ns_orders_set(ns_orders *o, int layer, ns_axis x, const int *order, ns_err *e);
bool ns_orders_identity(const ns_orders *o);
/* `out` must be fresh (zeroed). Applying both, one after the other, moves nothing. */
int ns_orders_inverse(const ns_orders *o, ns_orders *out, ns_err *e);

/* Random orders of the given axes, wherever the model has them. */
int ns_orders_random(ns_orders *o, unsigned axes, uint64_t seed, ns_err *e);
/* By the scores in a statistics file (docs/IMPORTANCE.md), highest first; equal scores keep their order. Every score that the axes need
 * must be there, finite, and as many as the model has entries. */
typedef struct ns_orders_metric {
    bool expert_frequency; /* experts by how often they are picked, not by REAP */
    bool ffn_active;       /* FFN neurons by what leaves ReLU^2, not by what enters it */
} ns_orders_metric;
int ns_orders_rank(ns_orders *o, unsigned axes, const ns_store *stats, const ns_orders_metric *m, ns_err *e);

/* The same for a whole dimension of a weight in a layer (-1: model level): out[new] = old, in the arena; NULL where nothing moves. */
int ns_orders_dim(const ns_orders *o, int layer, ns_dim_id id, ns_arena *arena, const int **out, ns_err *e);
/* Does a factor of this dimension have this axis? */
bool ns_orders_dim_has(const ns_arch *a, int layer, ns_dim_id id, ns_axis x);
#endif
