/* The number formats themselves: bits to float and back, and rows of stored matrices to float.
 * Every rounding is to nearest, ties to even. Nothing here depends on the FPU's flush-to-zero state or rounding mode,
 * except the products with a scale, which are plain float arithmetic.
 *   bf16   1-8-7   f32's upper half                  f16   1-5-10  IEEE binary16
 *   e4m3   1-4-3   "FN": no infinity, S.1111.111 is NaN, largest 448      e5m2  1-5-2  IEEE-like
 *   e2m1   1-2-1   0 .5 1 1.5 2 3 4 6, no infinity, no NaN                e8m0  2^(code-127), 255 is NaN */
#ifndef NS_TENSOR_FORMAT_H
#define NS_TENSOR_FORMAT_H
#include <stdint.h>
#include <string.h>

#include "tensor/dtype.h"

extern const float ns_e4m3_values[256];
extern const float ns_e2m1_values[16];

static inline uint32_t ns_f32_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float ns_f32_from_bits(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline float ns_bf16_to_f32(uint16_t h)
{
    return ns_f32_from_bits((uint32_t)h << 16);
}

static inline uint16_t ns_f32_to_bf16(float x)
{
    uint32_t u = ns_f32_bits(x);
    if ((u & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(u >> 16 | 0x40); /* NaN stays NaN: the carry of the rounding could make it an infinity */
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

static inline float ns_e4m3_to_f32(uint8_t c)
{
    return ns_e4m3_values[c];
}

static inline float ns_e2m1_to_f32(unsigned code) /* the low four bits */
{
    return ns_e2m1_values[code & 15];
}

float ns_f16_to_f32(uint16_t h);
uint16_t ns_f32_to_f16(float x);  /* overflow becomes infinity, NaN stays NaN */
float ns_e5m2_to_f32(uint8_t c);
float ns_e8m0_to_f32(uint8_t c);
uint8_t ns_f32_to_e4m3(float x);  /* saturates to +-448, infinities too; any NaN becomes 0x7f */
uint8_t ns_f32_to_e2m1(float x);  /* saturates to +-6; NaN becomes 0 */

/* out[0..n) = elements (row, col..col+n) of `m`, dequantised: F32, F16, BF16, F8_E4M3 or NVFP4.
 * `col` must be even for NVFP4; the data may have any alignment. NVFP4: e2m1 * (e4m3 * global_scale), each product in f32. */
void ns_row_decode(const ns_mat *m, int row, int col, int n, float *out);

/* One row to NVFP4 as ModelOpt does it: n elements, n a multiple of 16; q gets n/2 bytes, scale n/16 E4M3 bytes.
 *   s = e4m3(clamp(amax / (6 * global_scale), 2^-9, 448)), 1.0 where the quotient is 0;  q = e2m1(x / (s * global_scale))
 * global_scale is amax(tensor) / (6 * 448). */
void ns_nvfp4_encode_row(const float *x, int n, float global_scale, uint8_t *q, uint8_t *scale);
/* One block of 16 under a given scale: q[0..8) = e2m1(x / s), in pairs. */
void ns_nvfp4_encode_block(const float *x, float s, uint8_t *q);
#endif
