/* Compiled without -fassociative-math (CMakeLists.txt): the argument reduction of exp is a chain of roundings. */
#include "block/vec.h"

#include <stdint.h>
#include <string.h>

#ifdef NS_REAL_DOUBLE
static inline ns_real exp_of(ns_real x)
{
    return exp(x);
}

static inline ns_real log1p_of(ns_real t)
{
    return log1p(t);
}
#else
/* e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln(2)/2, and e^r = 1 + r + r^2 q(r): q minimax of degree 4, relative error 3.3e-9
 * before rounding. 0 below the smallest normal number, infinity above the largest; NaN stays NaN. */
static inline float exp_of(float x)
{
    const float lowest = -87.33654f, highest = 88.72284f, log2e = 1.44269504f;
    const float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f; /* n * ln2_high is exact */
    float c = x > highest ? highest : x < lowest ? lowest : x == x ? x : 0.0f, y;
    int32_t n = (int32_t)(c * log2e + 128.5f) - 128, bits;
    float k = (float)n, r = c - k * ln2_high - k * ln2_low;
    float q = 4.99999930507e-1f + r * (1.66665147913e-1f + r * (4.1668456790e-2f + r * (8.369418847e-3f + r * 1.381314439e-3f)));
    y = 1.0f + (r + r * r * q);
    memcpy(&bits, &y, sizeof bits);
    bits += n * (1 << 23); /* y is in [0.7, 1.42]: the sum stays a normal number for every n that c allows */
    memcpy(&y, &bits, sizeof bits);
    return x > highest ? INFINITY : x < lowest ? 0.0f : x == x ? y : x;
}

/* log(1 + t) for t in [0, 1] = 2 atanh(s), s = t / (2 + t): minimax in s^2, relative error 4.6e-9 before rounding. */
static inline float log1p_of(float t)
{
    float s = t / (2.0f + t), u = s * s;
    return s * (2.0f + u * (6.66664131326e-1f + u * (4.00216990662e-1f + u * (2.79991409779e-1f + u * 2.80244592708e-1f))));
}
#endif

static inline ns_real sigmoid_of(ns_real x)
{
    return 1 / (1 + exp_of(-x));
}

NS_CLONES void ns_vec_exp(const ns_real *x, size_t n, ns_real *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = exp_of(x[i]);
}

NS_CLONES void ns_vec_softplus(const ns_real *x, size_t n, ns_real *y)
{
    for (size_t i = 0; i < n; i++) {
        ns_real t = log1p_of(exp_of(x[i] > 0 ? -x[i] : x[i])) + (x[i] > 0 ? x[i] : 0); /* e^-|x| cannot overflow */
        y[i] = x[i] > 20 ? x[i] : t;
    }
}

NS_CLONES void ns_vec_sigmoid(const ns_real *x, size_t n, ns_real *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = sigmoid_of(x[i]);
}

NS_CLONES void ns_vec_silu(const ns_real *x, size_t n, ns_real *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * sigmoid_of(x[i]);
}

NS_CLONES void ns_vec_silu_backward(const ns_real *x, const ns_real *dy, size_t n, ns_real *dx)
{
    for (size_t i = 0; i < n; i++) {
        ns_real s = sigmoid_of(x[i]);
        dx[i] = dy[i] * s * (1 + x[i] * (1 - s));
    }
}

NS_CLONES void ns_vec_relu2(const ns_real *x, size_t n, ns_real *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] < 0 ? 0 : x[i] * x[i];
}

NS_CLONES void ns_vec_relu2_backward(const ns_real *x, const ns_real *dy, size_t n, ns_real *dx)
{
    for (size_t i = 0; i < n; i++)
        dx[i] = x[i] < 0 ? 0 : 2 * x[i] * dy[i];
}

NS_CLONES void ns_vec_mul(const ns_real *x, const ns_real *m, size_t n, ns_real *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * m[i];
}

NS_CLONES void ns_vec_axpy(size_t n, ns_real a, const ns_real *x, ns_real *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
}
