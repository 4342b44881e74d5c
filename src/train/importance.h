/* Importance: how much each entry of every axis does on real text, from one pass of the network in F32 with nothing masked. Formulas and
 * the names of the scores: docs/IMPORTANCE.md. The same data, options and weights give the same bits, whatever the number of threads. */
#ifndef NS_TRAIN_IMPORTANCE_H
#define NS_TRAIN_IMPORTANCE_H
#include "block/params.h"
#include "train/data.h"
#include "train/scores.h"

typedef struct ns_importance_opts {
    int64_t tokens;       /* of the pass, up to the end of a pack; 0, or more than there are: once through the data */
    int pack_tokens;      /* of a pack: means are taken over it. At least the data's max_doc */
    int depth_keep;       /* rank layers by removing them one by one until so many are left; 0: do not */
    int64_t depth_tokens; /* of the sample on which layers are ranked: the first packs of the pass */
    int threads;          /* 0: the cores */
    void (*progress)(void *ctx, size_t done, size_t total);       /* tokens of the pass; may be NULL */
    void (*depth_progress)(void *ctx, size_t done, size_t total); /* tokens of all removals; may be NULL */
    void *ctx;
    const volatile int *interrupted; /* set by a signal handler: NS_ECANCELLED; may be NULL */
} ns_importance_opts;
ns_importance_opts ns_importance_defaults(void); /* 1024 packs of 2048 tokens, depth on 4 packs */

/* The stream of `data` starts at position 0. */
int ns_importance(const ns_params *p, const ns_real *w, ns_data *data, const ns_importance_opts *o, ns_scores *out, ns_err *e);
#endif
