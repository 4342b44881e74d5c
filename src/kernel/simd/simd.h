/* Vectors of the width a rung has. The files in this folder are compiled once per rung, with that rung's flags and
 * NS_LANES (8 or 16) and NS_RUNG(name) = name_<rung>; GCC's vector extensions keep the arithmetic readable. */
#ifndef NS_KERNEL_SIMD_SIMD_H
#define NS_KERNEL_SIMD_SIMD_H
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "kernel/ops.h"

#define NS_CAT2(a, b) a##_##b
#define NS_CAT(a, b) NS_CAT2(a, b)
#define NS_RUNG(name) NS_CAT(name, NS_RUNG_NAME)

enum { LANES = NS_LANES };
typedef float vf __attribute__((vector_size(NS_LANES * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(NS_LANES * 4), aligned(4), may_alias));
typedef uint32_t vu __attribute__((vector_size(NS_LANES * 4), aligned(4), may_alias));
typedef uint8_t vb __attribute__((vector_size(NS_LANES), aligned(1), may_alias));

static inline vf load(const float *p)
{
    return *(const vf *)p;
}

static inline void store(float *p, vf v)
{
    *(vf *)p = v;
}

static inline vf splat(float x)
{
    return x - (vf){ 0 };
}

static inline vf choose(vi mask, vf a, vf b)
{
    return (vf)(((vi)a & mask) | ((vi)b & ~mask));
}

static inline float sum_lanes(vf v)
{
    float t[NS_LANES], s = 0.0f;
    store(t, v);
    for (int i = 0; i < NS_LANES; i++)
        s += t[i];
    return s;
}

/* The first n < LANES elements; the others are zero. */
static inline vf load_part(const float *p, int n)
{
    float t[NS_LANES] = { 0 };
    memcpy(t, p, (size_t)n * sizeof *t);
    return load(t);
}

static inline void store_part(float *p, vf v, int n)
{
    float t[NS_LANES];
    store(t, v);
    memcpy(p, t, (size_t)n * sizeof *t);
}

/* e^x within 2 ulp: x = n ln 2 + r, a polynomial of degree 7 in r (Cephes' expf), 2^n through the exponent bits.
 * Below -87.3 the result is 0, above 88.7 infinity; NaN stays NaN. */
static inline vf vexp(vf x)
{
    vf n = x * splat(1.44269504f) + splat(12582912.0f); /* 1.5 * 2^23: rounds to an integer in the low bits */
    vu exponent = (vu)n - (vu)splat(12582912.0f); /* unsigned: lanes out of range wrap here and are replaced below */
    n -= splat(12582912.0f);
    vf r = x - n * splat(0.693359375f) - n * splat(-2.12194440e-4f);
    vf p = splat(1.9875691500e-4f);
    p = p * r + splat(1.3981999507e-3f);
    p = p * r + splat(8.3334519073e-3f);
    p = p * r + splat(4.1665795894e-2f);
    p = p * r + splat(1.6666665459e-1f);
    p = p * r + splat(5.0000001201e-1f);
    p = p * (r * r) + r + splat(1.0f);
    vf y = (vf)((vu)p + (exponent << 23));
    y = choose((vi)(x < splat(-87.3f)), splat(0.0f), y);
    y = choose((vi)(x > splat(88.7f)), splat(__builtin_inff()), y);
    return choose((vi)(x != x), x, y);
}

static inline vf vsilu(vf x)
{
    return x / (splat(1.0f) + vexp(-x));
}
#endif
