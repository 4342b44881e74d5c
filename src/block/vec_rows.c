/* Reductions: apart from vec.c because here the compiler may choose the order of a sum. */
#include "block/vec.h"

NS_CLONES ns_real ns_vec_dot(const ns_real *x, const ns_real *y, size_t n)
{
    ns_real sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i] * y[i];
    return sum;
}

/* Sixteen at a time: without -ffinite-math-only the compiler does not reorder a maximum by itself. */
NS_CLONES ns_real ns_vec_max(const ns_real *x, size_t n)
{
    enum { LANES = 16 };
    ns_real best[LANES], most;
    size_t i = 0;
    for (int j = 0; j < LANES; j++)
        best[j] = -(ns_real)INFINITY;
    for (; i + LANES <= n; i += LANES)
        for (int j = 0; j < LANES; j++)
            best[j] = x[i + (size_t)j] > best[j] ? x[i + (size_t)j] : best[j];
    most = best[0];
    for (int j = 1; j < LANES; j++)
        most = best[j] > most ? best[j] : most;
    for (; i < n; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

NS_CLONES ns_real ns_vec_rmsnorm(const ns_real *x, const ns_real *w, int n, int div, ns_real eps, ns_real scale, ns_real *y)
{
    ns_real sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i] * x[i];
    ns_real r = 1 / NS_R(sqrt)(sum / (ns_real)div + eps), f = scale * r;
    for (int i = 0; i < n; i++)
        y[i] = f * w[i] * x[i];
    return r;
}

/* With u = sum dy w x: dx = scale r (dy w - x r^2 u / div), dw = scale r dy x, d_scale = r u, d_eps = -scale r^3 u / 2. */
NS_CLONES void ns_vec_rmsnorm_backward(const ns_real *x, const ns_real *w, const ns_real *dy, int n, int div, ns_real scale, ns_real r,
                                       ns_real *dx, ns_real *dw, ns_real *d_eps, ns_real *d_scale)
{
    ns_real u = 0;
    for (int i = 0; i < n; i++)
        u += dy[i] * w[i] * x[i];
    ns_real f = scale * r, h = r * r * u / (ns_real)div;
    if (dw)
        for (int i = 0; i < n; i++)
            dw[i] += f * dy[i] * x[i];
    for (int i = 0; i < n; i++)
        dx[i] = f * (dy[i] * w[i] - x[i] * h);
    if (d_eps)
        *d_eps -= f * r * r * u / 2;
    if (d_scale)
        *d_scale += r * u;
}
