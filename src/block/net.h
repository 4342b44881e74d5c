/* The network in training: packed sequences in, loss and gradients out, under any mask. A net belongs to one worker thread: its
 * activations are planned once for the largest batch. Weights and gradients are the caller's flat arrays. */
#ifndef NS_BLOCK_NET_H
#define NS_BLOCK_NET_H
#include "block/block.h"

typedef enum ns_recompute {
    NS_RECOMPUTE_NONE,  /* every activation that backward needs is kept */
    NS_RECOMPUTE_LAYER, /* only each layer's input is kept; backward runs the layer's forward again */
} ns_recompute;

typedef struct ns_net_opts {
    int max_tokens, max_seqs;
    ns_recompute recompute;
    bool forward_only; /* a teacher: nothing is kept for backward */
} ns_net_opts;

typedef struct ns_net ns_net;

ns_net *ns_net_new(const ns_params *p, const ns_blas *b, const ns_net_opts *o, ns_err *e);
void ns_net_free(ns_net *n);
/* Bytes that ns_net_new would take. */
size_t ns_net_bytes(const ns_params *p, const ns_net_opts *o);

/* Embedding to final norm. mask may be NULL. The sequences are borrowed until backward is done; where they go on from beginnings, both
 * together have no more than max_tokens tokens. */
void ns_net_forward(ns_net *n, const ns_real *w, ns_net_mask *mask, const ns_seqs *s);
/* [n_tokens, H]: input of the head of the last forward. */
const ns_real *ns_net_hidden(const ns_net *n);
/* Tokens that each expert of a layer took, summed over forwards since it was last cleared; NULL for other kinds. */
int64_t *ns_net_expert_load(ns_net *n, int layer);
/* Watches the forwards that follow; fn NULL stops. */
void ns_net_tap(ns_net *n, ns_tap_fn *fn, void *ctx);

/* The loss on the last forward's tokens. Token t predicts target[t]; weight[t] 0 leaves it out (its target may be -1). */
typedef struct ns_loss_spec {
    const int *target;         /* [n_tokens] */
    const ns_real *weight;     /* [n_tokens] */
    ns_real ce;                /* share of cross-entropy with the targets */
    ns_real kd;                /* share of KL(teacher || student) */
    ns_real temperature;       /* of both distributions in the KL, which is multiplied by its square; 1 */
    const ns_real *teacher;    /* [n_tokens, H] the teacher's ns_net_hidden; NULL where kd is 0 */
    const int *teacher_row;    /* [n_tokens] the row of `teacher` that belongs to a token; NULL: its own number */
    const ns_real *teacher_w;  /* the teacher's flat parameters (same layout), for its head */
    double scale;              /* gradients are those of scale * sum_t weight[t] * loss[t] */
} ns_loss_spec;

typedef struct ns_loss {
    double weight;           /* sum of weights */
    double loss, ce, kl;     /* weighted sums (ce and kl only where asked for) */
    double top1;             /* weighted count of tokens whose arg max is the target */
    double agree;            /* of tokens whose arg max is the teacher's */
} ns_loss;

/* Runs the head over blocks of tokens (logits are never all in memory). Also the gradients of the head (into g, unless it is NULL) and
 * of the final hidden states, which ns_net_backward then takes up; these are left out with forward_only, or without g at scale 0.
 * `per_token` [n_tokens] receives each token's loss, or NULL. Adds to *out. */
void ns_net_loss(ns_net *n, const ns_real *w, ns_net_mask *mask, const ns_loss_spec *spec, ns_real *g, ns_real *per_token, ns_loss *out);
/* Logits of tokens t0 .. t0+m-1 into out [m, vocab]. */
void ns_net_logits(ns_net *n, const ns_real *w, const ns_net_mask *mask, int t0, int m, ns_real *out);

/* From the head down to the embedding. `done` (may be NULL) is called when a bucket's gradients (ns_params.bucket) are complete, last
 * bucket first. g NULL: only the masks' gradients. */
typedef void ns_bucket_fn(void *ctx, int bucket);
void ns_net_backward(ns_net *n, const ns_real *w, ns_net_mask *mask, ns_real *g, ns_bucket_fn *done, void *ctx);
#endif
