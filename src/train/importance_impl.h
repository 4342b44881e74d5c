/* What importance.c and importance_depth.c share. */
#ifndef NS_TRAIN_IMPORTANCE_IMPL_H
#define NS_TRAIN_IMPORTANCE_IMPL_H
#include "block/net.h"
#include "kernel/pool.h"
#include "train/importance.h"

/* Threads with a network each. */
typedef struct ns_crew {
    const ns_params *p;
    const ns_real *w;
    const ns_importance_opts *o;
    ns_blas *blas;
    ns_pool *pool;
    int n;
    ns_net **net; /* [n] */
} ns_crew;

bool ns_crew_interrupted(const ns_crew *c, ns_err *e);
/* depth.order and depth.score. */
int ns_importance_depth(const ns_crew *c, ns_data *data, ns_scores *out, ns_err *e);
#endif
