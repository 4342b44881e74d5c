/* The learned router: for a budget, how wide each axis should be (docs/NEST.md, "The router"; Star Elastic, section 4). One small network
 * per axis: Linear(n_budgets -> inner, no bias), LeakyReLU(0.1), Linear(inner -> n_choices), per layer or once for the model. */
#ifndef NS_TRAIN_ROUTER_H
#define NS_TRAIN_ROUTER_H
#include "base/rng.h"
#include "block/mask.h"

typedef struct ns_router_axis {
    ns_axis axis;
    bool depth;         /* instead of an axis: which layers stay; choices are numbers of kept layers, dropped in `order` */
    bool per_layer;     /* a choice per layer that has the axis; HIDDEN and depth never */
    int n_choices;
    int *choice;        /* [n_choices] widths, widest first */
    int n_slots;        /* 1, or the layers that have the axis */
    int *slot_layer;    /* [n_slots] layer of each slot; -1: all */
    size_t w1, w2;      /* offsets into the flat weights: [inner, n_budgets], [n_slots * n_choices, inner] */
} ns_router_axis;

typedef struct ns_router {
    int n_budgets;
    double *budget;     /* descending shares of the parent's cost */
    int inner;
    int n_axes;
    ns_router_axis *axis;
    int *depth_order;   /* layers, least important first; NULL without depth */
    size_t count;       /* of the flat weights */
    ns_arena arena;
} ns_router;

/* See router.c for what else is here: planning from options, initialisation N(0, 0.1), forward to probabilities with scale, temperature
 * and Gumbel noise, backward, arg max, interpolation between budgets. */
#endif
