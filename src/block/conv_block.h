/* Mamba's causal depthwise convolution over a stretch of one sequence:
 *   u_t[c] = bias[c] + sum_k w[k][c] x_{t-taps+1+k}[c],  x = 0 before the sequence. */
#ifndef NS_BLOCK_CONV_BLOCK_H
#define NS_BLOCK_CONV_BLOCK_H
#include <stddef.h>

#include "block/real.h"

typedef struct ns_conv {
    int channels, taps;
    const ns_real *w;    /* [taps, channels]: the checkpoint's [channels, taps] transposed */
    const ns_real *bias; /* [channels] or NULL */
} ns_conv;

/* u [q, channels] of q tokens. x points at the first; `before` (at most taps - 1) rows of the sequence lie in front of it. */
void ns_conv_forward(const ns_conv *c, const ns_real *x, size_t ldx, int before, int q, ns_real *u);
/* du [q + taps - 1, channels]: the gradients of the q tokens and of those that follow, zero past the end of the sequence.
 * dx [q, channels] overwritten; dw [taps, channels] and db [channels] accumulated, NULL where not wanted. */
void ns_conv_backward(const ns_conv *c, const ns_real *x, size_t ldx, int before, int q, const ns_real *du, ns_real *dx, size_t lddx,
                      ns_real *dw, ns_real *db);
#endif
