/* The training loop. Each worker thread takes whole packs through the network with its own activations and gradients; gradients are
 * summed over workers and ranks bucket by bucket while the backward pass goes on; every rank updates its share of the parameters.
 *
 * The same files, options and number of ranks and workers give the same bits. A run of N ranks computes what one rank with N times
 * the packs computes, up to the order of additions. */
#ifndef NS_TRAIN_TRAINER_H
#define NS_TRAIN_TRAINER_H
#include "base/json.h"
#include "block/net.h"
#include "train/comm.h"
#include "train/data.h"
#include "train/optim.h"
#include "train/qad.h"

/* What is trained, beside the data's own cross-entropy. All callbacks may be NULL. Every rank sees the same calls. */
typedef struct ns_objective {
    void *ctx;
    const ns_real *teacher; /* parameters of a frozen teacher in the same layout: KL to it instead of cross-entropy; NULL */
    double ce;              /* with a teacher: share of cross-entropy added to the KL (0) */
    double temperature;     /* 1 */
    bool teacher_masked;    /* the teacher runs under the student's mask: each size is taught by the same size */
    ns_qad *qad;            /* the network runs with qad->seen, which every update makes anew from w; NULL: with w */
    /* The mask of micro-batch `micro` of a step; NULL: none. The trainer gives each worker a copy; asked for once each. */
    const ns_net_mask *(*mask)(void *ctx, int64_t step, int micro);
    /* The mask under which the beginnings of a micro-batch's documents are computed, whose states the rest then goes on from under the mask
     * of the micro-batch: the beginnings are constants and have no loss. NULL: whole documents. *seed decides where each is cut. Depends
     * on step and micro alone, and is asked for more than once; needs a teacher. */
    ns_net_mask *(*before)(void *ctx, int64_t step, int micro, uint64_t *seed);
    /* After a micro-batch: `grad` holds the mask's gradients of this rank's share of the step's mean loss (NULL when mask gave NULL).
     * `loss` is this rank's. */
    int (*micro_done)(void *ctx, int64_t step, int micro, const ns_net_mask *grad, const ns_loss *loss, ns_err *e);
    /* After all micro-batches, beside the model's own update: sums its gradients over ranks, steps its parameters, adds what it
     * wants logged. progress = step / steps. */
    int (*update)(void *ctx, int64_t step, double progress, ns_comm *comm, json_t *log, ns_err *e);
    /* Named arrays that a checkpoint must hold so that a resumed run goes on bit for bit. state_n of them. */
    int n_state;
    const char *const *state_name;
    void *const *state_data;    /* bytes are read and, on resume, overwritten */
    const size_t *state_bytes;
    bool freeze_model; /* only the objective's own parameters move */
} ns_objective;

typedef struct ns_train_opts {
    int64_t steps;
    int seq_tokens;           /* tokens of a pack */
    int packs;                /* packs of a micro-batch on one rank; spread over the workers */
    int micro_batches;        /* gradient accumulation */
    int workers;              /* threads; 0: the cores */
    ns_schedule schedule;
    ns_adamw_opts adamw;
    const char *optimizer;    /* "adamw" or "muon" (matrices of the layers; the rest stays with AdamW) */
    double clip;              /* global gradient norm; 0: none */
    double balance_rate;      /* aux-loss-free expert balancing: correction bias += rate * sign(mean load - load), per step; 0: off */
    ns_recompute recompute;
    int64_t eval_every;       /* steps between evaluations on the held-out documents, and at the end; 0: none */
    int64_t eval_docs;        /* of those that ns_data_hold_out set aside, the first so many; 0: all */
    int64_t save_every;       /* steps between resumable checkpoints; 0: only at the end and on interruption */
    double spike;             /* stop when the loss is NaN or over spike x the running mean; 0: NaN only */
    void (*on_step)(void *ctx, const json_t *log); /* after every step, on rank 0: the line that log.jsonl got (docs/TRAIN.md) */
    void *on_step_ctx;
    const volatile int *interrupted; /* set by a signal handler: the step is finished, a checkpoint written, NS_ECANCELLED returned */
} ns_train_opts;
ns_train_opts ns_train_defaults(void);

/* Trains `w` (flat parameters, in place). `dir` holds the run: log.jsonl, and resume/ (parameters, moments, data position, objective
 * state; replaced by rename). With `resume` the run goes on from there when it is present; otherwise an existing run is refused. The caller
 * writes the finished checkpoint (ns_params_save). An error that stops training names step, tensor and batch. */
int ns_train(const ns_params *p, ns_real *w, ns_data *data, const ns_objective *obj, const ns_train_opts *o, const char *dir, bool resume,
             ns_comm *comm, ns_err *e);

/* Sums over the held-out documents under a mask (may be NULL): cross-entropy always; KL and agreement with a teacher (may be NULL). With
 * `before` (needs a teacher) that mask's size computes the first half of each document and hands its state over; the second half counts. */
int ns_train_eval(const ns_params *p, const ns_real *w, const ns_real *teacher, ns_net_mask *mask, ns_net_mask *before, ns_data *data,
                  const ns_train_opts *o, ns_comm *comm, ns_loss *out, ns_err *e);
#endif
