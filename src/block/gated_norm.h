/* Mamba's gated norm of one token: q = y silu(z), o = scale w q / sqrt(mean(q^2) + eps), the mean over each group by itself. */
#ifndef NS_BLOCK_GATED_NORM_H
#define NS_BLOCK_GATED_NORM_H
#include "block/real.h"

typedef struct ns_gated_norm {
    int n, width;      /* channels in all and in a group */
    const ns_real *w;  /* [n] */
    ns_real eps, scale;
    ns_real *work;     /* [5 n] */
} ns_gated_norm;

void ns_gated_norm_forward(const ns_gated_norm *g, const ns_real *z, const ns_real *y, ns_real *o);
/* dL/do in `o` becomes o itself, which out_proj's gradient needs. dz and dy are overwritten; dw [n], d_eps and d_scale accumulate and
 * may be NULL. */
void ns_gated_norm_backward(const ns_gated_norm *g, const ns_real *z, const ns_real *y, ns_real *o, ns_real *dz, ns_real *dy, ns_real *dw,
                            ns_real *d_eps, ns_real *d_scale);
#endif
