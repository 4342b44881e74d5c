/* Learning the router (nest/router.h, which has the network): probabilities by Gumbel-softmax, their way into masks and expected
 * widths, and the way back. All in double: it is tiny, and steers everything else. Probabilities lie as ns_router_axis.out says, [n_slots, n_choices]
 * per axis, n_out in all. */
#ifndef NS_TRAIN_ROUTER_H
#define NS_TRAIN_ROUTER_H
#include "base/rng.h"
#include "block/mask.h"
#include "nest/router.h"
#include "train/budget.h"
#include "train/optim.h"

/* Every weight N(0, std); each axis has its own stream of the seed, so an axis more does not change the others. */
void ns_router_init_weights(ns_router *r, double std, uint64_t seed);

/* How probabilities are drawn: softmax((scale * logits + Gumbel noise) / tau), and with probability `hard` their arg max's one-hot
 * instead (straight through: gradients are those of the probabilities). No noise and never hard where rng is NULL. */
typedef struct ns_router_draw {
    double scale, tau, hard;
    ns_rng *rng;
} ns_router_draw;

/* One forward, kept for its backward. */
typedef struct ns_router_pass {
    double *input;  /* [n_budgets] */
    double *h;      /* [n_axes, inner] */
    double *soft;   /* [n_out] probabilities */
    double *p;      /* [n_out] what is used: soft or one-hot */
    double slope;   /* scale / tau */
    ns_arena arena;
} ns_router_pass;
int ns_router_pass_init(const ns_router *r, ns_router_pass *out, ns_err *e);
void ns_router_pass_release(ns_router_pass *p);
void ns_router_forward(const ns_router *r, double budget, const ns_router_draw *d, ns_router_pass *out);
/* dp [n_out] d loss / d p; g [count] accumulates the weights' gradients. */
void ns_router_backward(const ns_router *r, const ns_router_pass *pass, const double *dp, double *g);

/* 10 x the sum over axes of the mean squared distance of p from the full width's one-hot: what ties the budget 1 to the whole model. Adds g
 * times its gradient to dp (may be NULL). */
double ns_router_anchor(const ns_router *r, const double *p, double g, double *dp);

/* Expected widths under p, and from their gradients to those of p (added). */
void ns_router_expect(const ns_arch *a, const ns_router *r, const double *p, ns_expect *out);
void ns_router_expect_backward(const ns_arch *a, const ns_router *r, const ns_expect *dx, double *dp);

/* The soft mask under p (router_mask.c), in a mask from ns_mask_init, and from the mask's gradients to those of p (added). */
void ns_router_mask(const ns_arch *a, const ns_router *r, const double *p, ns_net_mask *m);
void ns_router_mask_backward(const ns_arch *a, const ns_router *r, const double *p, const ns_net_mask *m, double *dp);

/* One AdamW step, t >= 1, in double; g is not changed. */
void ns_router_step(ns_router *r, const ns_adamw_opts *o, int64_t t, const double *g, double *m, double *v);
#endif
