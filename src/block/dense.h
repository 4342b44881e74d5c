/* What the mixers are made of: linear layers and the FFN, over live widths. Inside block/. */
#ifndef NS_BLOCK_DENSE_H
#define NS_BLOCK_DENSE_H
#include "block/block.h"

/* y = x W^T + b over the first `in` columns and `out` rows of W [.., ld]. */
typedef struct ns_dense {
    const ns_real *w, *b; /* b NULL: none */
    ns_real *dw, *db;     /* NULL: not wanted */
    int in, out, ld;
} ns_dense;

/* Expert 0 where the weight is not per expert; `bias` NS_W_COUNT: there is none. */
ns_dense ns_dense_of(const ns_block_ctx *c, ns_role weight, ns_role bias, int expert, int in, int out);
/* `add`: y += */
void ns_dense_forward(const ns_blas *b, const ns_dense *d, int n, const ns_real *x, int ldx, bool add, ns_real *y, int ldy);
/* dw, db accumulate; dx is overwritten or, with `add`, accumulated; NULL: not wanted. */
void ns_dense_backward(const ns_blas *b, const ns_dense *d, int n, const ns_real *x, int ldx, const ns_real *dy, int ldy, bool add,
                       ns_real *dx, int lddx);

/* y = down(m relu(up x)^2) */
typedef struct ns_ffn {
    ns_dense up, down;
    ns_axis_mask *mask; /* NULL: none */
    int expert, ld;     /* for taps: -1 is the shared or dense one; row length of u and act, the full width */
} ns_ffn;

/* Entries of an axis that this block computes. */
int ns_live_width(const ns_block_ctx *c, ns_axis x);
ns_axis_mask *ns_mask_of(const ns_block_ctx *c, ns_axis x); /* NULL where all are ones */

/* u [n, ld] is saved; act [n, ld] is scratch. */
void ns_ffn_forward(const ns_block_ctx *c, const ns_ffn *f, int n, const ns_real *x, int ldx, ns_real *u, ns_real *act, ns_real *y,
                    int ldy);
/* The gradient of sum_i weight[i] <dy_i, y_i>; weight NULL: ones. dweight[i] = <dy_i, y_i> (may be NULL) without y: through
 * dy_i W_down, which is needed anyway. The down projection has no bias where there is a weight. act and du [n, ld] are scratch. */
void ns_ffn_backward(const ns_block_ctx *c, const ns_ffn *f, int n, const ns_real *x, int ldx, const ns_real *dy, int ldy,
                     const ns_real *weight, const ns_real *u, ns_real *act, ns_real *du, ns_real *dweight, bool add, ns_real *dx, int lddx);
#endif
