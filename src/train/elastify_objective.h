/* Inside train/: the objective of one stage of an elastification. */
#ifndef NS_TRAIN_ELASTIFY_OBJECTIVE_H
#define NS_TRAIN_ELASTIFY_OBJECTIVE_H
#include "train/elastify.h"
#include "train/router.h"

/* The router with its optimiser, kept over both stages. */
typedef struct ns_elastic_learner {
    ns_router *r;       /* the plan's; NULL: fixed sizes */
    double *g, *m, *v;  /* [count] gradient and moments */
    double *dp;         /* [n_out] */
    ns_router_pass pass;
    ns_expect x, dx;
    ns_arena arena;
} ns_elastic_learner;
int ns_elastic_learner_init(const ns_arch *a, ns_router *r, ns_elastic_learner *out, ns_err *e);
void ns_elastic_learner_release(ns_elastic_learner *l);

typedef struct ns_elastic_stage {
    const ns_arch *arch;
    const ns_elastify_opts *o;
    ns_elastic_plan *plan;
    ns_elastic_learner *learner;
    const ns_train_opts *train; /* this stage's */
    int stage;                  /* 0 or 1 */
    bool soft;                  /* the router learns; else sizes are their cuts */
    int64_t first, total;       /* step numbers are over both stages: this stage's first; steps in which the router learns */
    int ranks;
    ns_net_mask mask;           /* of the micro-batch */
    ns_net_mask before;         /* of its documents' beginnings */
    int at, from;               /* its size; that of the beginnings, or the same */
    double *sums;               /* [2][n, n] of the step, this rank's: loss and weight of each pair (from, at) */
    double budget_loss;         /* mean over the step's micro-batches */
    const char *state_name[3];
    void *state_data[3];
    size_t state_bytes[3];
} ns_elastic_stage;

/* Refuses --switch where it cannot act, naming why. `decided`: the sizes are known (with a router only after it has chosen). */
int ns_elastic_check_change(const ns_arch *a, const ns_elastic_plan *p, const ns_elastify_opts *o, bool decided, ns_err *e);
/* Can every size go on from every other's state? */
bool ns_elastic_states_fit(const ns_arch *a, const ns_elastic_plan *p);

/* Fills *obj, whose ctx is the stage. */
int ns_elastic_stage_init(ns_elastic_stage *s, const ns_real *teacher, ns_objective *obj, ns_err *e);
void ns_elastic_stage_release(ns_elastic_stage *s);
#endif
