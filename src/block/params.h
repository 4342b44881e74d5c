/* The parameters of a model in training: every weight of the manifest in one flat array, in forward order; gradients and optimiser
 * moments are arrays of the same layout. The experts of a layer lie fused: up [E, F, io], down [E, io, F]. */
#ifndef NS_BLOCK_PARAMS_H
#define NS_BLOCK_PARAMS_H
#include "arch/manifest.h"
#include "block/real.h"

typedef struct ns_param {
    ns_role role;
    int layer;          /* -1: model level */
    int n_experts;      /* 0: not per expert */
    int rows, cols;     /* of one expert's matrix; a vector is one row (as ns_bound) */
    size_t off, count;  /* elements; count includes the experts */
    bool buffer;        /* no gradient: e_score_correction_bias */
    bool matrix;        /* a projection, embedding or head: weight decay and Muon apply to these only */
} ns_param;

/* Buckets: 0 the embedding, 1 + i layer i, n_layers + 1 the final norm and the head. A bucket is contiguous; backward completes
 * them from last to first. A tied head has no weight of its own: its gradient goes to the embedding. */
typedef struct ns_params {
    const ns_arch *arch; /* borrowed */
    int n;
    ns_param *p;         /* [n], ascending off */
    size_t count;        /* of all elements */
    int n_buckets;
    size_t *bucket;      /* [n_buckets + 1] offsets */
    ns_arena arena;
} ns_params;

int ns_params_plan(const ns_arch *a, ns_params *out, ns_err *e);
void ns_params_release(ns_params *p);
/* NULL when the model has no such weight; a tied head answers with the embedding. */
const ns_param *ns_params_find(const ns_params *p, int layer, ns_role r);
/* Start of expert e (0 where not per expert) in a flat array of this layout; NULL where there is no such weight. */
ns_real *ns_params_at(const ns_params *p, ns_real *flat, int layer, ns_role r, int e);
const ns_real *ns_params_cat(const ns_params *p, const ns_real *flat, int layer, ns_role r, int e);
/* The published initialisation (spec of the architecture, initializer_range, rescale_prenorm_residual, time_step_*): linears N(0,
 * initializer_range), out/o/down projections divided by sqrt(n_layers) where the config says so, A_log = log(1..heads), D = 1,
 * dt_bias the inverse softplus of exp(U[ln dt_min, ln dt_max]), norms 1, biases 0. Every tensor has its own stream of the seed. */
int ns_params_init(const ns_params *p, uint64_t seed, ns_real *flat, ns_err *e);
#endif
