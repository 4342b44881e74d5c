/* Mamba-2's state space scan over one chunk of one group, as matrix products (SSD, Dao and Gu 2024), and its gradient.
 * Per head, with u_m = dt_m x_m, A < 0, cs the inclusive running sum of dt A in the chunk, cs_Q its last entry:
 *   E_lm  = exp(cs_l - cs_m) for m <= l, else 0;   M = (C B^T) o E         C B^T is shared by the heads of the group
 *   y_l   = sum_m M_lm u_m + exp(cs_l) C_l S_in + D x_l
 *   S_out = exp(cs_Q) S_in + sum_m exp(cs_Q - cs_m) B_m (x) u_m            S is [state, head_dim]
 * Backward, with gy = dL/dy and dS = dL/dS_out, chunks from last to first:
 *   du_m   = sum_l M_lm gy_l + exp(cs_Q - cs_m) B_m dS;     dx_m = dt_m du_m + D gy_m;     ddt_m = x_m . du_m + A ddA_m
 *   dCB    = sum over heads of K o E, K_lm = gy_l . u_m
 *   dC_l   = sum_m dCB_lm B_m + sum over heads of exp(cs_l) gy_l S_in^T
 *   dB_m   = sum_l dCB_lm C_l + sum over heads of exp(cs_Q - cs_m) u_m dS^T
 *   dS_in  = exp(cs_Q) dS + sum_l exp(cs_l) C_l (x) gy_l
 * ddA_j, the gradient of dt_j A, is the sum of everything that passes over step j, with no differences of large sums:
 *   ddA_j  = sum_{l >= j > m} K_lm M_lm + sum_{l >= j} exp(cs_l) gy_l . (C_l S_in)
 *          + sum_{m < j} exp(cs_Q - cs_m) u_m . (B_m dS) + exp(cs_Q) <dS, S_in> */
#ifndef NS_BLOCK_SSD_H
#define NS_BLOCK_SSD_H
#include "block/blas.h"

enum { NS_SSD_CHUNK = 64 };

typedef struct ns_ssd {
    int q;                    /* tokens of the chunk, 1 .. NS_SSD_CHUNK */
    int heads, p, n;          /* heads computed (at least 1), head_dim, state */
    int lds;                  /* row length of the states [n, heads x p] */
    int ld;                   /* row length of x, B, C and of their gradients */
    const ns_real *x, *b, *c; /* [q, heads x p], [q, n], [q, n] */
    const ns_real *dt;        /* [heads][NS_SSD_CHUNK] */
    const ns_real *a, *d;     /* [heads]: A, D */
    const ns_real *s_in;      /* NULL: zero */
} ns_ssd;

typedef struct ns_ssd_grad {
    ns_real *dx, *db, *dc; /* overwritten */
    ns_real *ddt;          /* [heads][NS_SSD_CHUNK] overwritten */
    ns_real *da, *dd;      /* [heads] accumulated */
    ns_real *ds;           /* dL/dS_out becomes dL/dS_in (left alone when s_in is NULL) */
    bool have_ds;          /* false: dL/dS_out is zero, whatever ds holds */
} ns_ssd_grad;

size_t ns_ssd_work(int heads, int p); /* elements of `work` */
/* s_out NULL: not wanted. */
void ns_ssd_forward(const ns_blas *b, const ns_ssd *s, ns_real *y, int ldy, ns_real *s_out, ns_real *work);
void ns_ssd_backward(const ns_blas *b, const ns_ssd *s, const ns_real *gy, int ldgy, const ns_ssd_grad *g, ns_real *work);
#endif
