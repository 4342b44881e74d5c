#include "block/conv_block.h"

#define INLINE static inline __attribute__((always_inline))

/* Row l of u. `from`: the first tap that has a row. Inlined with constants for the usual four taps, which then stay in one pass. */
INLINE void forward_row(int taps, int from, int n, const ns_real *restrict w, const ns_real *restrict bias, const ns_real *restrict x,
                        size_t ldx, ns_real *restrict u)
{
    for (int c = 0; c < n; c++) {
        ns_real sum = bias ? bias[c] : 0;
        for (int k = from; k < taps; k++)
            sum += w[(size_t)k * (size_t)n + (size_t)c] * x[(size_t)(k - from) * ldx + (size_t)c];
        u[c] = sum;
    }
}

NS_CLONES void ns_conv_forward(const ns_conv *c, const ns_real *x, size_t ldx, int before, int q, ns_real *u)
{
    for (int l = 0; l < q; l++) {
        int have = l + before < c->taps - 1 ? l + before : c->taps - 1, from = c->taps - 1 - have;
        const ns_real *first = x + (size_t)l * ldx - (size_t)have * ldx;
        if (c->taps == 4 && from == 0)
            forward_row(4, 0, c->channels, c->w, c->bias, first, ldx, u + (size_t)l * (size_t)c->channels);
        else
            forward_row(c->taps, from, c->channels, c->w, c->bias, first, ldx, u + (size_t)l * (size_t)c->channels);
    }
}

/* dx_s = sum_k w[k] du_{s+taps-1-k} */
INLINE void input_row(int taps, int n, const ns_real *restrict w, const ns_real *restrict du, ns_real *restrict dx)
{
    for (int c = 0; c < n; c++) {
        ns_real sum = 0;
        for (int k = 0; k < taps; k++)
            sum += w[(size_t)k * (size_t)n + (size_t)c] * du[(size_t)(taps - 1 - k) * (size_t)n + (size_t)c];
        dx[c] = sum;
    }
}

/* dw[k] += du_t x_{t-taps+1+k} */
INLINE void weight_row(int taps, int from, int n, const ns_real *restrict du, const ns_real *restrict x, size_t ldx, ns_real *restrict dw)
{
    for (int c = 0; c < n; c++)
        for (int k = from; k < taps; k++)
            dw[(size_t)k * (size_t)n + (size_t)c] += du[c] * x[(size_t)(k - from) * ldx + (size_t)c];
}

NS_CLONES void ns_conv_backward(const ns_conv *c, const ns_real *x, size_t ldx, int before, int q, const ns_real *du, ns_real *dx,
                                size_t lddx, ns_real *dw, ns_real *db)
{
    size_t n = (size_t)c->channels;
    for (int l = 0; l < q; l++) {
        int have = l + before < c->taps - 1 ? l + before : c->taps - 1, from = c->taps - 1 - have;
        const ns_real *first = x + (size_t)l * ldx - (size_t)have * ldx, *d = du + (size_t)l * n;
        if (c->taps == 4)
            input_row(4, c->channels, c->w, d, dx + (size_t)l * lddx);
        else
            input_row(c->taps, c->channels, c->w, d, dx + (size_t)l * lddx);
        if (dw && c->taps == 4 && from == 0)
            weight_row(4, 0, c->channels, d, first, ldx, dw);
        else if (dw)
            weight_row(c->taps, from, c->channels, d, first, ldx, dw);
        if (db)
            for (size_t i = 0; i < n; i++)
                db[i] += d[i];
    }
}
