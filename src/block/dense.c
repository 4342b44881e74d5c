#include "block/dense.h"

#include <string.h>

#include "block/vec.h"

ns_dense ns_dense_of(const ns_block_ctx *c, ns_role weight, ns_role bias, int expert, int in, int out)
{
    const ns_param *w = ns_params_find(c->params, c->layer, weight);
    const ns_param *b = bias < NS_W_COUNT ? ns_params_find(c->params, c->layer, bias) : NULL;
    const size_t at = w->off + (size_t)expert * (size_t)w->rows * (size_t)w->cols;
    return (ns_dense){ .w = c->w + at,
                       .b = b ? c->w + b->off : NULL,
                       .dw = c->g ? c->g + at : NULL,
                       .db = c->g && b ? c->g + b->off : NULL,
                       .in = in,
                       .out = out,
                       .ld = w->cols };
}

void ns_dense_forward(const ns_blas *b, const ns_dense *d, int n, const ns_real *x, int ldx, bool add, ns_real *y, int ldy)
{
    for (int i = 0; d->b && i < n; i++) {
        ns_real *row = y + (size_t)i * (size_t)ldy;
        if (add)
            ns_vec_axpy((size_t)d->out, 1, d->b, row);
        else
            memcpy(row, d->b, (size_t)d->out * sizeof *y);
    }
    ns_gemm(b, false, true, n, d->out, d->in, x, ldx, d->w, d->ld, add || d->b, y, ldy);
}

/* sum[j] += x[i, j] over i */
NS_CLONES static void add_rows(const ns_real *x, int ld, int rows, int cols, ns_real *sum)
{
    for (int i = 0; i < rows; i++, x += ld)
        for (int j = 0; j < cols; j++)
            sum[j] += x[j];
}

void ns_dense_backward(const ns_blas *b, const ns_dense *d, int n, const ns_real *x, int ldx, const ns_real *dy, int ldy, bool add,
                       ns_real *dx, int lddx)
{
    if (d->dw)
        ns_gemm(b, true, false, d->out, d->in, n, dy, ldy, x, ldx, true, d->dw, d->ld);
    if (d->db)
        add_rows(dy, ldy, n, d->out, d->db);
    if (dx)
        ns_gemm(b, false, false, n, d->in, d->out, dy, ldy, d->w, d->ld, add, dx, lddx);
}

/* ---- the FFN ---- */

ns_axis_mask *ns_mask_of(const ns_block_ctx *c, ns_axis x)
{
    return c->mask && c->mask->axis[x].m ? &c->mask->axis[x] : NULL;
}

int ns_live_width(const ns_block_ctx *c, ns_axis x)
{
    return ns_mask_of(c, x) ? c->mask->axis[x].live : c->arch->layers[c->layer].width[x];
}

/* act = m relu(u)^2; m NULL: ones */
NS_CLONES static void act_rows(int rows, int n, int ld, const ns_real *u, const ns_real *m, ns_real *act)
{
    for (int i = 0; i < rows; i++, u += ld, act += ld)
        for (int j = 0; j < n; j++) {
            ns_real r = u[j] < 0 ? 0 : u[j]; /* a NaN stays one */
            act[j] = m ? r * r * m[j] : r * r;
        }
}

/* One row, with a = dy W_down in du: act = w m relu(u)^2, du = w a m 2 relu(u), dm += w a relu(u)^2; returns <a, m relu(u)^2>. */
NS_CLONES static ns_real act_backward(int n, ns_real w, const ns_real *u, const ns_real *m, ns_real *act, ns_real *du, ns_real *dm)
{
    ns_real dot = 0;
    for (int j = 0; dm && j < n; j++) {
        ns_real r = u[j] < 0 ? 0 : u[j];
        dm[j] += w * du[j] * r * r;
    }
    for (int j = 0; j < n; j++) {
        ns_real r = u[j] < 0 ? 0 : u[j], rm = m ? r * m[j] : r, a = du[j];
        dot += a * r * rm;
        act[j] = w * r * rm;
        du[j] = 2 * w * a * rm;
    }
    return dot;
}

void ns_ffn_forward(const ns_block_ctx *c, const ns_ffn *f, int n, const ns_real *x, int ldx, ns_real *u, ns_real *act, ns_real *y, int ldy)
{
    ns_dense_forward(c->blas, &f->up, n, x, ldx, false, u, f->ld);
    if (c->tap) {
        ns_tap t = { .kind = NS_TAP_FFN, .layer = c->layer, .expert = f->expert, .rows = n, .cols = f->up.out, .x = u };
        t.ld = (size_t)f->ld;
        c->tap(c->tap_ctx, &t);
    }
    act_rows(n, f->up.out, f->ld, u, f->mask ? f->mask->m : NULL, act);
    ns_dense_forward(c->blas, &f->down, n, act, f->ld, false, y, ldy);
}

void ns_ffn_backward(const ns_block_ctx *c, const ns_ffn *f, int n, const ns_real *x, int ldx, const ns_real *dy, int ldy,
                     const ns_real *weight, const ns_real *u, ns_real *act, ns_real *du, ns_real *dweight, bool add, ns_real *dx, int lddx)
{
    const ns_dense *down = &f->down;
    ns_gemm(c->blas, false, false, n, down->in, down->out, dy, ldy, down->w, down->ld, false, du, f->ld);
    for (int i = 0; i < n; i++) {
        const size_t at = (size_t)i * (size_t)f->ld;
        ns_real dot = act_backward(f->up.out, weight ? weight[i] : 1, u + at, f->mask ? f->mask->m : NULL, act + at, du + at,
                                   f->mask ? f->mask->dm : NULL);
        if (dweight)
            dweight[i] = dot;
    }
    if (down->dw)
        ns_gemm(c->blas, true, false, down->out, down->in, n, dy, ldy, act, f->ld, true, down->dw, down->ld);
    if (down->db)
        add_rows(dy, ldy, n, down->out, down->db);
    ns_dense_backward(c->blas, &f->up, n, x, ldx, du, f->ld, add, dx, lddx);
}
