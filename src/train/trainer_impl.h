/* Inside train/: what the files of the training loop share.
 *   crew.c        workers: threads, networks, evaluation
 *   step.c        packs through the workers; gradients summed over workers and ranks
 *   update.c      norm, clipping, optimiser, expert balancing
 *   diagnose.c    what is not finite, and where
 *   resume.c      the run's state in a file
 *   trainer.c     the loop */
#ifndef NS_TRAIN_TRAINER_IMPL_H
#define NS_TRAIN_TRAINER_IMPL_H
#include <stdatomic.h>
#include <stdio.h>

#include "kernel/pool.h"
#include "train/split.h"
#include "train/trainer.h"

typedef struct ns_worker {
    ns_net *net, *teacher; /* teacher: forward only; NULL without one */
    ns_real *g;            /* [params.count]; NULL where no gradients are wanted. Worker 0's becomes the sum over workers, then ranks */
    ns_net_mask mask;      /* its copy of the micro-batch's mask */
    ns_split split;        /* the pack at hand, where the size changes inside documents */
    ns_loss loss;          /* of the micro-batch */
    int bad;               /* its first pack of the micro-batch whose loss is not finite; -1 */
} ns_worker;

typedef struct ns_crew {
    const ns_params *p;
    ns_blas *blas;
    ns_pool *pool;
    int n;
    ns_worker *worker;   /* [n] */
    int n_packs;
    ns_pack *pack;       /* [n_packs] of this rank */
    ns_pack other;       /* packs of other ranks pass through it */
} ns_crew;

typedef struct ns_crew_opts {
    int seq_tokens, workers, packs; /* workers 0: the cores, but not more than packs; packs 0: one for each worker */
    int micro_batches;
    ns_recompute recompute;
    bool forward_only, gradients, teacher, split;
} ns_crew_opts;
int ns_crew_init(ns_crew *c, const ns_params *p, const ns_crew_opts *o, ns_err *e);
void ns_crew_release(ns_crew *c);
/* Room for the states of documents' beginnings in every worker. */
int ns_crew_reserve(ns_crew *c, int n_tokens, int n_seqs, ns_err *e);
/* Computes the beginnings of the pack's documents under `before` (forward only: all workers may share it) and returns the rest, ready to
 * go on. It is the worker's, as its split.row. */
const ns_pack *ns_worker_begin(ns_worker *k, const ns_real *w, ns_net_mask *before, const ns_pack *pack, ns_rng *rng);
/* Held-out documents up to `limit` pieces (0: all), summed over ranks. `before`: as ns_train_eval. */
int ns_crew_eval(ns_crew *c, const ns_real *w, const ns_real *teacher, const ns_net_mask *mask, ns_net_mask *before, ns_data *data,
                 int64_t limit, ns_comm *comm, ns_loss *out, ns_err *e);

/* A stretch of this rank's share that one thread updates: part of a tensor, or a matrix for Muon. */
typedef struct ns_stretch {
    size_t lo, hi;
    const ns_param *p;
    bool muon;
    double sum; /* of squared gradients */
} ns_stretch;

typedef struct ns_trainer {
    const ns_params *p;
    ns_real *w;
    const ns_real *run;       /* what the network runs with: w, or the quantised weights made from it */
    ns_data *data;
    const ns_objective *obj;
    ns_train_opts o;
    ns_comm *comm;
    const char *dir;
    ns_crew crew;

    /* the step at hand */
    int micro;
    const ns_net_mask *mask;  /* of the micro-batch; NULL: none */
    ns_net_mask *before;      /* of its documents' beginnings; NULL: they are not cut */
    uint64_t cuts;            /* seed of the places where they are */
    ns_net_mask mask_grad;    /* sum over workers */
    double weight;            /* sum over all packs of all ranks */
    int64_t step_tokens;      /* likewise */
    int64_t first_doc;        /* of the step */
    ns_loss loss;             /* sums over ranks */
    atomic_int *left;         /* [n_buckets] workers that have not finished it */
    ns_err sum_err;           /* why a sum over ranks could not be started */
    ns_err bad;               /* why a loss is not finite */

    /* the update */
    size_t *part;             /* [ranks + 1] */
    ns_real *m, *v;           /* of part[rank] .. part[rank + 1] */
    ns_stretch *stretch;
    int n_stretches;
    double lr, grad_norm, shrink; /* gradients are multiplied by shrink */
    ns_real *muon_scratch;        /* of every thread */
    size_t muon_size;
    double *load;             /* [sum of experts] */
    size_t n_load;

    /* the run */
    int64_t step, tokens;     /* finished */
    uint64_t data_hash;
    double running;           /* mean of the loss, for spikes */
    FILE *log;
    double began;
    int64_t began_step;
} ns_trainer;

static inline bool ns_trainer_frozen(const ns_trainer *t)
{
    return t->obj && t->obj->freeze_model;
}

/* Every rank fails where one has failed. `rc` and e are this rank's. */
int ns_trainer_agree(ns_trainer *t, int rc, ns_err *e);

/* All micro-batches of t->step: fills loss, and the workers' gradients. `bad` is set on a rank that met a loss that is not finite. */
int ns_step_init(ns_trainer *t, ns_err *e);
void ns_step_release(ns_trainer *t);
int ns_step_run(ns_trainer *t, ns_err *e);

int ns_update_init(ns_trainer *t, ns_err *e);
void ns_update_release(ns_trainer *t);
/* Norm over all ranks, with clipping decided; then the update itself. */
int ns_update_norm(ns_trainer *t, ns_err *e);
int ns_update_apply(ns_trainer *t, ns_err *e);

/* Fills e with the first value of this pack's forward pass that is not finite. The worker's network and mask are as they were. */
void ns_diagnose_pack(ns_trainer *t, ns_worker *k, const ns_pack *pack, ns_err *e);
void ns_diagnose_gradient(ns_trainer *t, ns_err *e);

/* DIR/resume/state.safetensors */
int ns_resume_save(ns_trainer *t, ns_err *e);
/* *found false: there is nothing to go on from. */
int ns_resume_load(ns_trainer *t, bool *found, ns_err *e);
bool ns_resume_exists(const char *dir);
#endif
