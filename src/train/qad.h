/* Quantisation-aware training. The optimiser moves F32 weights; the network runs with what a quantised checkpoint of them would hold:
 * `seen` is decode(encode(w)), matrix by matrix as nestar quantize does it, with the scales of the whole matrix whatever the size at hand.
 * Rounding has no useful derivative, so gradients go straight through: those with respect to `seen` move w.
 * Belongs to whoever trains; the trainer refreshes it. */
#ifndef NS_TRAIN_QAD_H
#define NS_TRAIN_QAD_H
#include "block/params.h"
#include "forge/quantize.h"
#include "kernel/pool.h"

typedef struct ns_qad_matrix {
    ns_dtype dtype;
    float scale;        /* of the last refresh */
    int first, n;       /* its stretches */
} ns_qad_matrix;

/* What one thread rounds at a time: part of one matrix, or of a parameter that is not quantised. */
typedef struct ns_qad_stretch {
    size_t lo, hi;
    int matrix;         /* -1: none */
    bool bf16;          /* none, and stored as BF16 */
    float amax;
} ns_qad_stretch;

typedef struct ns_qad {
    ns_real *seen;      /* [p->count] */
    char *about;        /* format and options in one line: a run goes on with those it began with */
    ns_formats formats; /* of the checkpoint to be written */
    json_t *hf_quant;
    bool search;
    const ns_real *w;   /* of the refresh at hand */
    ns_qad_matrix *matrix;
    ns_qad_stretch *stretch;
    int n_matrices, n_stretches;
} ns_qad;

/* `c` is what training starts from; p the plan of c->arch; o->bf16 says how the rest will be stored. Refuses what ns_quantize would.
 * Release also after failure. */
int ns_qad_init(ns_qad *q, const ns_ckpt *c, const ns_params *p, const ns_quantize_opts *o, ns_err *e);
void ns_qad_release(ns_qad *q);
/* seen from w [p->count]. The same bits for any number of threads. */
void ns_qad_refresh(ns_qad *q, const ns_real *w, ns_pool *pool);
#endif
