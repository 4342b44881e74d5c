#include "tensor/encode.h"

#include <math.h>

/* Branch-free in the loop: comparisons with a NaN are false, so those are counted apart. */
float ns_row_amax(const float *x, int n, float amax)
{
    int nans = 0;
    for (int i = 0; i < n; i++) {
        float a = fabsf(x[i]);
        amax = a > amax ? a : amax;
        nans += x[i] != x[i];
    }
    return nans ? NAN : amax;
}

void ns_row_encode_fp8(const float *x, int n, float scale, uint8_t *q, double *squares, double *error)
{
    double ss = 0, se = 0;
    for (int i = 0; i < n; i++) {
        q[i] = ns_f32_to_e4m3(x[i] / scale);
        double d = x[i] - ns_e4m3_to_f32(q[i]) * scale;
        ss += (double)x[i] * x[i];
        se += d * d;
    }
    *squares += ss;
    *error += se;
}

/* Magnitude of the nearest E2M1 value of |a|, ties to the even code, as sums of steps (see ns_f32_to_e2m1). */
static inline float e2m1_round(float a)
{
    return 0.5f * ((float)(a > 0.25f) + (float)(a >= 0.75f) + (float)(a > 1.25f) + (float)(a >= 1.75f)) + (float)(a > 2.5f) +
           (float)(a >= 3.5f) + 2 * (float)(a > 5.0f);
}

static float block_error(const float *x, float s)
{
    float sum = 0;
    const float inverse = 1 / s;
    for (int j = 0; j < 16; j++) {
        float a = fabsf(x[j]), d = a - e2m1_round(a * inverse) * s;
        sum += d * d;
    }
    return sum;
}

/* E4M3 codes are ordered as their values: neighbours are the next scales. */
static uint8_t search_scale(const float *x, float global_scale, uint8_t usual)
{
    const float s0 = ns_e4m3_to_f32(usual);
    float least = block_error(x, s0 * global_scale);
    uint8_t best = usual;
    for (int code = usual - 4; code <= usual + 5; code++) {
        if (code < 1 || code > 0x7e || code == usual)
            continue;
        const float s = ns_e4m3_to_f32((uint8_t)code);
        if (s < 0.75f * s0 || s > 1.5f * s0)
            continue;
        const float err = block_error(x, s * global_scale);
        if (err < least) {
            least = err;
            best = (uint8_t)code;
        }
    }
    return best;
}

void ns_row_encode_nvfp4(const float *x, int n, float global_scale, bool search, uint8_t *q, uint8_t *scale, double *squares, double *error)
{
    double ss = 0, se = 0;
    ns_nvfp4_encode_row(x, n, global_scale, q, scale);
    for (int b = 0; b < n / 16; b++, x += 16, q += 8) {
        if (search) {
            scale[b] = search_scale(x, global_scale, scale[b]);
            ns_nvfp4_encode_block(x, ns_e4m3_to_f32(scale[b]) * global_scale, q);
        }
        const float s = ns_e4m3_to_f32(scale[b]) * global_scale;
        for (int j = 0; j < 16; j++) {
            double d = x[j] - ns_e2m1_to_f32(q[j / 2] >> 4 * (j % 2) & 15) * s;
            ss += (double)x[j] * x[j];
            se += d * d;
        }
    }
    *squares += ss;
    *error += se;
}

void ns_row_encode(ns_dtype t, const float *x, int n, float global_scale, bool search, uint8_t *q, uint8_t *scale, double *squares,
                   double *error)
{
    if (t == NS_NVFP4)
        ns_row_encode_nvfp4(x, n, global_scale, search, q, scale, squares, error);
    else
        ns_row_encode_fp8(x, n, global_scale, q, squares, error);
}

float ns_global_scale(ns_dtype t, float amax)
{
    return amax == 0 ? 1 : amax / (t == NS_NVFP4 ? 6 * 448 : 448);
}
