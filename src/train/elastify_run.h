/* Inside train/: an elastification under way, and the writing of what came out of it. */
#ifndef NS_TRAIN_ELASTIFY_RUN_H
#define NS_TRAIN_ELASTIFY_RUN_H
#include "train/elastify_objective.h"
#include "train/qad.h"

typedef struct ns_elastify_run {
    const ns_ckpt *c;
    const ns_tokenizer *tok;
    const ns_elastify_opts *o;
    int64_t steps;   /* of stage one */
    const char *out;
    char *run;
    ns_comm *comm;
    ns_params p;
    ns_real *w, *teacher;
    ns_quantize_opts qad_opts;
    ns_qad qad;
    ns_elastic_plan plan;
    ns_elastic_learner learner;
    ns_data *data;   /* of the last stage */
    ns_loss held[NS_ELASTIC_MAX];
    ns_loss *pairs;  /* [n, n] of held-out documents begun by one size and finished by another; NULL: states do not fit */
    ns_err *e;
} ns_elastify_run;

/* The checkpoint with its nest.json, on rank 0; quantised with --qad. Nothing on other ranks. */
int ns_elastify_save(ns_elastify_run *s);
#endif
