/* A cut as masks: numbers in [0,1] over each axis that multiply what a block computes. A hard mask (zeros and ones) computes what the
 * sliced model computes; a soft mask, the expectation over several widths, carries gradients to the router's probabilities.
 *
 * Where a mask is applied, once each and where the block is linear in it (so a soft mask is the expectation of the parts' contributions):
 *   HIDDEN          each read of the residual stream before its norm, each mixer's output before it is added; the embedding table and
 *                   the stream are never masked. Final norm and head read through it too.
 *   EXPERT_FFN, SHARED_FFN, DENSE_FFN   the activations after ReLU^2
 *   EXPERTS         a_e multiplies expert e's sigmoid score and correction bias; a_e = 0 is never picked
 *   MAMBA_HEADS x MAMBA_HEAD_DIM        the x that enters the scan (after convolution and SiLU)
 *   SSM_STATE       B after convolution and SiLU
 *   ATTN_HEADS      the attention output of a query head
 * Norms over masked channels: eps * eps_factor, result * scale; with d of D channels live d/D and sqrt(d/D), which makes the masked
 * norm the d-wide norm; softly the expectations of these. */
#ifndef NS_BLOCK_MASK_H
#define NS_BLOCK_MASK_H
#include "block/real.h"
#include "nest/cut.h"

typedef struct ns_axis_mask {
    ns_real *m;  /* [full width], in storage order (heads group by group); NULL: all ones */
    ns_real *dm; /* gradient, accumulated; NULL: not wanted */
    int live;    /* HIDDEN and the FFN axes: entries from here on are zero, and are not computed; else the full width */
    int full;    /* entries of m and dm, as ns_mask_init made them */
} ns_axis_mask;

typedef struct ns_norm_mask {
    ns_real eps_factor, scale;
    ns_real d_eps_factor, d_scale; /* gradients, accumulated */
} ns_norm_mask;

typedef struct ns_layer_mask {
    ns_real keep, d_keep;               /* multiplies the mixer's output; exactly 0: the layer is not computed (d_keep still is when want_keep) */
    bool want_keep;
    ns_axis_mask axis[NS_AXIS_COUNT];   /* HIDDEN unused here */
    ns_norm_mask gated;                 /* Mamba's gated norm */
} ns_layer_mask;

typedef struct ns_net_mask {
    int n_layers;
    ns_axis_mask hidden;
    ns_norm_mask norm;     /* pre-norms and final norm */
    ns_layer_mask *layer;  /* [n_layers] */
    ns_arena arena;        /* holds all arrays */
} ns_net_mask;

/* All ones, full width, with arrays m and dm for every axis that each layer has. */
int ns_mask_init(const ns_arch *a, ns_net_mask *out, ns_err *e);
void ns_mask_release(ns_net_mask *m);
/* The hard mask of a cut, in place. */
void ns_mask_set_cut(const ns_arch *a, const ns_cut *c, ns_net_mask *m);
/* The soft mask of one axis of one layer (layer -1: HIDDEN): sum_j p[j] prefix(width[j]), with the norm corrections that follow from it
 * (the gated norm's from MAMBA_HEADS and MAMBA_HEAD_DIM both, as they stand). Heads and experts keep the first of every group. The
 * other direction adds d loss / d p[j] from the mask's gradients, for shares of 0 as well. */
void ns_mask_set_soft(const ns_arch *a, ns_net_mask *m, int layer, ns_axis x, int n, const int *width, const ns_real *p);
void ns_mask_soft_backward(const ns_arch *a, const ns_net_mask *m, int layer, ns_axis x, int n, const int *width, const ns_real *p,
                           ns_real *dp);
void ns_mask_zero_grad(ns_net_mask *m);
/* to.gradients += from.gradients; to.values = from.values. Both of the same architecture. */
void ns_mask_add_grad(ns_net_mask *to, const ns_net_mask *from);
void ns_mask_copy(ns_net_mask *to, const ns_net_mask *from);
#endif
