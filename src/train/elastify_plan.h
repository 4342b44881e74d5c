/* What `nestar elastify` makes: which sizes, or which axes and choices a router is to choose them from. Text of options to data. */
#ifndef NS_TRAIN_ELASTIFY_PLAN_H
#define NS_TRAIN_ELASTIFY_PLAN_H
#include "ckpt/ckpt.h"
#include "train/budget.h"

enum { NS_ELASTIC_MAX = NS_ROUTER_MAX_BUDGETS };

/* How sizes are found; with neither budgets nor fixed ones they are the checkpoint's own, those of its nest.json. Texts are as the options
 * of the command write them (docs/ELASTIFY.md); NULL is the default. */
typedef struct ns_elastic_opts {
    const char *budgets;        /* "1.0,0.78,0.58": shares of the parent's cost, in any order */
    const char *names;          /* "L,M,S", largest first */
    const char *axes;           /* "hidden,expert_ffn,depth"; default: hidden and the routed or dense FFN width */
    const char *const *choices; /* "AXIS=1,0.75,48": shares up to 1, above it widths */
    int n_choices;
    const char *hetero;         /* axes with a choice per layer */
    const char *depth_order;    /* "3,5,1", layers, least important first; or a statistics file with the tensor depth.order */
    const char *const *fixed;   /* "NAME=SIZE" or "full": given sizes, no router */
    int n_fixed;
    bool uniform;               /* for each budget the widest common share of the axes that fits, no router */
    const char *only;           /* of the fixed or uniform sizes, train this one alone */
    const char *weights;        /* ".5,.3,.2": how often stage two draws each size, largest first */
    int round;                  /* widths from shares are multiples of this where the full width is; 0: 16 */
    int inner;                  /* hidden units of the router; 0: 256 */
    ns_budget_opts budget;
} ns_elastic_opts;
ns_elastic_opts ns_elastic_defaults(void);
static inline bool ns_elastic_own_sizes(const ns_elastic_opts *o)
{
    return !o->budgets && !o->n_fixed;
}

typedef struct ns_elastic_size {
    char name[64];
    double budget; /* share asked for; of a fixed size what it has */
    ns_cut cut;    /* with a router: unset until it has decided */
} ns_elastic_size;

/* Sizes largest first. */
typedef struct ns_elastic_plan {
    int n;
    ns_elastic_size size[NS_ELASTIC_MAX];
    double weight[2][NS_ELASTIC_MAX]; /* [stage] probability of each size; sums to 1 */
    ns_router *router; /* NULL: fixed sizes */
    ns_budget budget;
} ns_elastic_plan;

/* Every cut is validated against the stored blocks. Budgets that the choices cannot reach are refused. */
int ns_elastic_plan_make(const ns_ckpt *c, const ns_elastic_opts *o, ns_elastic_plan *out, ns_err *e);
void ns_elastic_plan_release(ns_elastic_plan *p);
/* The sizes' cuts from a trained router, validated. */
int ns_elastic_plan_decide(const ns_ckpt *c, ns_elastic_plan *p, ns_err *e);
#endif
