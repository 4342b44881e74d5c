/* What a size costs in expectation, differentiably: the router's other teacher (docs/ELASTIFY.md).
 *
 * The number of entries of a weight is a sum of products of axis widths, each axis at most once in a product (NS_WEIGHTS and ns_arch_dim
 * say which). Axes are chosen independently, so the expected cost is the cost at the expected widths: a multilinear function, exact at
 * every cut. Its terms are collected once from the manifest. */
#ifndef NS_TRAIN_BUDGET_H
#define NS_TRAIN_BUDGET_H
#include "nest/cut.h"

typedef enum ns_budget_target {
    NS_BUDGET_ACTIVE, /* parameters read for one token, as ns_cost.params_active */
    NS_BUDGET_TOTAL,  /* all parameters, as ns_cost.params_total */
    NS_BUDGET_MEMORY, /* bytes: weights, KV cache, recurrent state, and the buffer that gathers tokens for experts */
} ns_budget_target;
const char *ns_budget_target_name(ns_budget_target t); /* "active", "total", "memory" */
int ns_budget_target_find(const char *name);           /* -1 when unknown */

/* Bytes per element. X(name, quantisable weights, other weights, KV cache, SSM and conv state, buffer). "f32" is the engine's layout. */
#define NS_BUDGET_PROFILES(X)          \
    X("bf16", 2.0, 2.0, 2.0, 4.0, 2.0) \
    X("f32", 4.0, 4.0, 4.0, 4.0, 4.0)  \
    X("bf16-fp8kv", 2.0, 2.0, 1.0, 4.0, 2.0) \
    X("fp8", 1.0, 2.0, 1.0, 4.0, 2.0)  \
    X("nvfp4", 0.5625, 2.0, 1.0, 4.0, 2.0)

typedef struct ns_budget_opts {
    ns_budget_target target;
    const char *profile; /* NULL: "bf16" */
    int64_t context;     /* tokens of each sequence in the cache */
    int64_t batch;       /* sequences */
    int64_t chunk;       /* tokens of the largest step, for the buffer: chunk x experts per token x (expert input + FFN width) elements
                            in the widest MoE layer */
    bool published;      /* counts as the published training code: the shared expert as FFN width x shared width, no router weights */
} ns_budget_opts;
ns_budget_opts ns_budget_defaults(void); /* active, bf16, 131072 tokens, 1 sequence, chunks of 16384, exact */

/* Expected widths, and gradients with respect to them. A shared axis has the same value in every layer that has it. */
typedef struct ns_expect_layer {
    double keep;
    double width[NS_AXIS_COUNT]; /* HIDDEN unused */
} ns_expect_layer;
typedef struct ns_expect {
    int n_layers;
    double hidden;
    ns_expect_layer *layer;
} ns_expect;
int ns_expect_init(const ns_arch *a, ns_expect *out, ns_err *e); /* zeroes */
void ns_expect_release(ns_expect *x);
void ns_expect_zero(ns_expect *x);
void ns_expect_set_cut(const ns_cut *c, ns_expect *x);

typedef struct ns_budget_term ns_budget_term;
typedef struct ns_budget {
    const ns_arch *arch; /* borrowed */
    ns_budget_opts o;
    int n_terms;
    ns_budget_term *term;
    double full; /* cost of the whole model */
    double buffer_unit;  /* bytes of the buffer per element of expert input or FFN width; 0: none */
} ns_budget;
/* Unknown profiles and absurd numbers are refused by name. */
int ns_budget_plan(const ns_arch *a, const ns_budget_opts *o, ns_budget *out, ns_err *e); /* o may be NULL */
void ns_budget_release(ns_budget *b);

/* The cost at x; with dx, its gradient times g is added there. */
double ns_budget_cost(const ns_budget *b, const ns_expect *x, double g, ns_expect *dx);
/* | cost / (share * full) - 1 |, nothing within 5 % unless share is 1. The gradient (may be NULL) as above. */
double ns_budget_loss(const ns_budget *b, const ns_expect *x, double share, double g, ns_expect *dx);
/* The cost of a cut. */
int ns_budget_of_cut(const ns_budget *b, const ns_cut *c, double *out, ns_err *e);
#endif
