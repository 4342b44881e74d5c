/* The learned router: for a budget, how wide each axis should be (docs/NEST.md, "The router"). One small network per axis, with the
 * budget's one-hot as its input:
 *     logits = fc2 leaky_relu(fc1 x),  fc1 [inner, n_budgets], fc2 [n_slots * n_choices, inner], no biases, slope 0.1
 * and the arg max of each slot's logits is its choice. A budget between two trained ones has the interpolation of their one-hots as input;
 * one outside takes the nearest. An axis has one slot for the model, or one per layer that has it.
 * Here it is data and one function; train/router.h learns it. */
#ifndef NS_NEST_ROUTER_H
#define NS_NEST_ROUTER_H
#include "nest/cut.h"

enum { NS_ROUTER_MAX_BUDGETS = 64, NS_ROUTER_MAX_CHOICES = 64, NS_ROUTER_MAX_INNER = 4096 };

typedef struct ns_router_axis {
    ns_axis axis;    /* NS_AXIS_FIXED when `depth` */
    bool depth;      /* which layers stay: a choice is a number of kept layers, dropped in the order of drop_rank */
    bool per_layer;  /* a slot per layer that has the axis; never for HIDDEN and depth */
    int n_choices;
    int *choice;     /* [n_choices] widths, descending; the first is the full width */
    int n_slots;     /* 1, or the layers that have the axis */
    int *slot;       /* [n_layers] the slot of each layer; -1 where the layer lacks the axis */
    size_t fc1, fc2; /* offsets into w */
    size_t out;      /* offset into logits and probabilities: [n_slots, n_choices] from here */
} ns_router_axis;

typedef struct ns_router {
    int n_layers;
    int n_budgets;
    double *budget;  /* descending shares of the full model's cost */
    char target[16]; /* what the cost was: "active" or "total" parameters, "memory"; a label */
    int inner;
    int n_axes;
    ns_router_axis *axis;
    int *drop_rank;  /* [n_layers] place in the order in which layers are dropped, least important first; n_layers: never dropped */
    size_t n_out;    /* of all logits */
    size_t count;    /* of w */
    double *w;       /* [count]; all zero until has_weights */
    bool has_weights;
    ns_arena arena;
} ns_router;

/* What a router is made of; depth where `axis` is -1. Copied. */
typedef struct ns_router_axis_spec {
    int axis;
    bool per_layer;
    int n_choices;
    const int *choice;
} ns_router_axis_spec;
typedef struct ns_router_spec {
    int n_budgets;
    const double *budget;
    const char *target; /* "active" when NULL */
    int inner;
    int n_axes;
    const ns_router_axis_spec *axis;
    int n_order;        /* layers, least important first; needed with depth: as many as the fewest kept layers leave out */
    const int *order;
} ns_router_spec;

/* Refuses what no model of this architecture can have: each choice must be a width that ns_cut_validate allows by itself. */
ns_router *ns_router_new(const ns_arch *a, const ns_router_spec *spec, ns_err *e);
void ns_router_free(ns_router *r);
/* The "router" object of nest.json, without and from it: errors name the key. The weights are not in it (ckpt/router_file.h). */
ns_router *ns_router_parse(const ns_arch *a, const json_t *obj, ns_err *e);
json_t *ns_router_json(const ns_router *r, ns_err *e);

const char *ns_router_axis_name(const ns_router_axis *x); /* "hidden" .. or "depth" */
/* Does layer stay when `kept` layers stay? */
bool ns_router_keeps(const ns_router *r, int layer, int kept);
/* The input for a budget, [n_budgets]. */
void ns_router_input(const ns_router *r, double budget, double *x);
/* Forward of one axis: h [inner] receives fc1 x before the activation, logits [n_slots * n_choices]. */
void ns_router_axis_forward(const ns_router *r, const ns_router_axis *x, const double *input, double *h, double *logits);
/* The activation and its derivative. */
double ns_router_leaky(double h);
double ns_router_leaky_slope(double h);
/* The cut for a budget in (0, 1]: the arg max of every slot, the first among equals. Valid for the architecture, unless axes conflict. */
int ns_router_cut(const ns_arch *a, const ns_router *r, double budget, ns_cut *out, ns_err *e);
/* The cut of one choice per slot: pick [sum of n_slots], axis by axis. */
int ns_router_pick_cut(const ns_arch *a, const ns_router *r, const int *pick, ns_cut *out, ns_err *e);
#endif
