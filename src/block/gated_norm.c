#include "block/gated_norm.h"

#include <string.h>

#include "block/vec.h"

void ns_gated_norm_forward(const ns_gated_norm *g, const ns_real *z, const ns_real *y, ns_real *o)
{
    ns_real *q = g->work;
    ns_vec_silu(z, (size_t)g->n, q);
    ns_vec_mul(q, y, (size_t)g->n, q);
    for (int i = 0; i < g->n; i += g->width)
        ns_vec_rmsnorm(q + i, g->w + i, g->width, g->width, g->eps, g->scale, o + i);
}

/* gate: sigmoid(z), becomes silu(z); dgate = silu'(z); q = y silu(z) */
NS_CLONES static void open_gate(size_t n, const ns_real *restrict z, const ns_real *restrict y, ns_real *restrict gate,
                                ns_real *restrict dgate, ns_real *restrict q)
{
    for (size_t i = 0; i < n; i++) {
        ns_real s = gate[i], v = z[i] * s;
        gate[i] = v;
        dgate[i] = s + v * (1 - s);
        q[i] = v * y[i];
    }
}

NS_CLONES static void close_gate(size_t n, const ns_real *restrict dq, const ns_real *restrict y, const ns_real *restrict gate,
                                 const ns_real *restrict dgate, ns_real *restrict dz, ns_real *restrict dy)
{
    for (size_t i = 0; i < n; i++) {
        dy[i] = dq[i] * gate[i];
        dz[i] = dq[i] * y[i] * dgate[i];
    }
}

void ns_gated_norm_backward(const ns_gated_norm *g, const ns_real *z, const ns_real *y, ns_real *o, ns_real *dz, ns_real *dy, ns_real *dw,
                            ns_real *d_eps, ns_real *d_scale)
{
    const size_t n = (size_t)g->n;
    ns_real *gate = g->work, *dgate = gate + n, *q = dgate + n, *dq = q + n, *out = dq + n;
    ns_vec_sigmoid(z, n, gate);
    open_gate(n, z, y, gate, dgate, q);
    for (int i = 0; i < g->n; i += g->width) {
        ns_real r = ns_vec_rmsnorm(q + i, g->w + i, g->width, g->width, g->eps, g->scale, out + i);
        ns_vec_rmsnorm_backward(q + i, g->w + i, o + i, g->width, g->width, g->scale, r, dq + i, dw ? dw + i : NULL, d_eps, d_scale);
    }
    memcpy(o, out, n * sizeof *o);
    close_gate(n, dq, y, gate, dgate, dz, dy);
}
