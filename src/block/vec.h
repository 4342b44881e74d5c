/* Elementwise and row operations of the blocks with their derivatives, vectorised. Lengths are elements; in and out may be the same
 * array where both are [n]. */
#ifndef NS_BLOCK_VEC_H
#define NS_BLOCK_VEC_H
#include <stddef.h>

#include "block/real.h"

void ns_vec_exp(const ns_real *x, size_t n, ns_real *y);      /* relative error under 2e-7 in float */
void ns_vec_softplus(const ns_real *x, size_t n, ns_real *y); /* log(1 + e^x); x for x > 20 */
void ns_vec_sigmoid(const ns_real *x, size_t n, ns_real *y);
void ns_vec_silu(const ns_real *x, size_t n, ns_real *y);
void ns_vec_silu_backward(const ns_real *x, const ns_real *dy, size_t n, ns_real *dx); /* overwrites */
void ns_vec_relu2(const ns_real *x, size_t n, ns_real *y);                              /* max(x,0)^2 */
void ns_vec_relu2_backward(const ns_real *x, const ns_real *dy, size_t n, ns_real *dx);
void ns_vec_mul(const ns_real *x, const ns_real *m, size_t n, ns_real *y); /* y = x m */
void ns_vec_axpy(size_t n, ns_real a, const ns_real *x, ns_real *y);       /* y += a x */
ns_real ns_vec_dot(const ns_real *x, const ns_real *y, size_t n);
ns_real ns_vec_max(const ns_real *x, size_t n);

/* y = scale * w x / sqrt(sum(x^2)/div + eps), over n entries. Returns the reciprocal root for backward. Masked norms pass div = the
 * full width and the corrected eps and scale. */
ns_real ns_vec_rmsnorm(const ns_real *x, const ns_real *w, int n, int div, ns_real eps, ns_real scale, ns_real *y);
/* dx overwritten; dw accumulated (may be NULL); d_eps and d_scale accumulated (may be NULL). r: what forward returned. */
void ns_vec_rmsnorm_backward(const ns_real *x, const ns_real *w, const ns_real *dy, int n, int div, ns_real scale, ns_real r, ns_real *dx,
                             ns_real *dw, ns_real *d_eps, ns_real *d_scale);
#endif
