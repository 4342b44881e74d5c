/* How far one model is from another on the same tokens: two checkpoints, two formats, or two sizes of one. Both must have the same
 * vocabulary; the layers are compared where both have as many. */
#ifndef NS_EVAL_DRIFT_H
#define NS_EVAL_DRIFT_H
#include "run/engine.h"

typedef struct ns_drift {
    size_t tokens;      /* positions compared: all but the last of a document */
    double kl;          /* sum of KL(a || b) in nats */
    double worst_kl;    /* the largest of one position */
    size_t agree;       /* positions where both find the same token likeliest */
    double nll_a, nll_b; /* sums, of the next token */
    int n_layers;       /* 0 where the two have not the same number of layers */
    /* [n_layers] squared difference of the residual stream after the layer, and squared size of a's; over the channels that both have
     * (the first min(hidden)), layers that b's size leaves out included. Owned; free() */
    double *diff, *size;
} ns_drift;

/* Adds one document: ids[0..n), n >= 2, as one sequence from the start, on both sides. */
typedef struct ns_drift_pair ns_drift_pair;
ns_drift_pair *ns_drift_new(const ns_engine *a, const ns_cut *cut_a, const ns_engine *b, const ns_cut *cut_b, int context, ns_err *e);
void ns_drift_free(ns_drift_pair *p);
/* n at most the context. */
int ns_drift_add(ns_drift_pair *p, const int *ids, int n, ns_err *e);
const ns_drift *ns_drift_get(const ns_drift_pair *p);
#endif
