/* Inside train/: what elastify_axes.c and elastify_plan.c share. */
#ifndef NS_TRAIN_ELASTIFY_IMPL_H
#define NS_TRAIN_ELASTIFY_IMPL_H
#include "train/elastify_plan.h"

enum { NS_ELASTIC_DEPTH = NS_AXIS_COUNT, NS_ELASTIC_AXES };

/* Options on their way to a plan. */
typedef struct ns_elastic_planner {
    const ns_ckpt *c;
    const ns_arch *a;
    const ns_elastic_opts *o;
    ns_elastic_plan *out;
    int n_axes, axis[NS_ELASTIC_AXES]; /* NS_ELASTIC_DEPTH for depth */
    bool hetero[NS_ELASTIC_AXES];      /* by axis */
    int n_choice[NS_ELASTIC_AXES], choice[NS_ELASTIC_AXES][NS_ROUTER_MAX_CHOICES];
    int n_order, *order; /* layers, least important first; owned */
    ns_err *e;
} ns_elastic_planner;

/* Calls fn for each part between commas. */
typedef int ns_part_fn(void *ctx, const char *part, int i);
int ns_each_part(const char *text, ns_part_fn *fn, void *ctx, ns_err *e);
int ns_parse_numbers(const char *text, double *out, int cap, int *n, ns_err *e);

/* --axes and --hetero, --depth-order, --choices; errors name the option. */
int ns_elastic_read_axes(ns_elastic_planner *k);
int ns_elastic_read_order(ns_elastic_planner *k);
int ns_elastic_read_choices(ns_elastic_planner *k);
bool ns_elastic_has_axis(const ns_elastic_planner *k, int axis);
/* A legal width near share x full; `down`: not over it, unless nothing is that small. */
int ns_elastic_width(const ns_elastic_planner *k, int axis, double share, bool down);
#endif
