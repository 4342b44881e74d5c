/* A trained parent to a nested checkpoint: all sizes are trained together against the frozen parent, and a router learns how wide each axis
 * should be for a budget (docs/ELASTIFY.md; Star Elastic, sections 4 to 6). */
#ifndef NS_TRAIN_ELASTIFY_H
#define NS_TRAIN_ELASTIFY_H
#include "text/tokenizer.h"
#include "train/elastify_plan.h"
#include "train/trainer.h"

typedef struct ns_elastify_opts {
    ns_elastic_opts sizes;
    const char *const *data; /* as ns_data_opts.paths */
    int n_data;
    int64_t hold_out;        /* documents for the report at the end */
    uint64_t seed;           /* of data order, sizes drawn, router and its noise */

    ns_train_opts train;     /* stage one: sizes are drawn alike. steps 0: once through the data; lr_min and warmup below 0: a tenth of
                                lr, and 2 % of a stage's steps */
    int64_t stage2_steps;    /* stage two: longer sequences, large sizes more often; 0: none */
    int stage2_seq;          /* 0: as stage one */
    double stage2_lr;        /* 0: 0.7 of stage one's, as published */

    double temperature;      /* of the distillation */
    const ns_ckpt *teacher;  /* of the parent's architecture; NULL: the parent */
    bool same_size;          /* each size is taught by the teacher's same size; else by the whole teacher */
    ns_quantize_opts qad;    /* format NULL: none. Else sizes are distilled as a checkpoint quantised like this would run them, and such a
                                checkpoint is what is written; no router learns meanwhile. bf16 and threads follow from what is below */
    double ce;               /* share of cross-entropy beside it */
    double alpha;            /* weight of the budget loss */
    double router_lr;        /* follows the model's schedule in its shape */
    double router_std;       /* of its first weights */
    double scale_from, scale_to; /* of logits, linear over the steps in which the router learns */
    double tau;                  /* first temperature */
    double tau_decay;            /* per step; 0: such that 0.05 of tau is left at the end */
    double hard;                 /* probability of a hard sample */
    double change;               /* probability of a micro-batch whose documents change size midway; where cuts are hard */
    bool freeze_router;          /* in stage two: sizes are then the arg max cuts, hard */

    ns_dtype dtype;          /* NS_F32 or NS_BF16, of the checkpoint that is written */
    const char *run_dir;     /* logs and resumable state of both stages; NULL: OUT.train */
    bool resume;
} ns_elastify_opts;
ns_elastify_opts ns_elastify_defaults(void);

/* Sizes that are the parent's own (no --fixed, no --budgets) keep their nest.json and router.
 * Writes OUT: a folder as transformers reads it, with nest.json and, unless sizes were given, router.safetensors. `tok` may be NULL when
 * all data has ids. *report (may be NULL) receives sizes, costs and held-out losses, on rank 0. */
int ns_elastify(const ns_ckpt *parent, const ns_tokenizer *tok, const ns_elastify_opts *o, const char *out, ns_comm *comm, json_t **report,
                ns_err *e);
#endif
