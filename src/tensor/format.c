#include "tensor/format.h"

#include <assert.h>
#include <math.h>

/* (8 + m) * 2^(e - 10), or m * 2^-9 for the subnormals; constant expressions, so that the table is plain read-only data. */
#define E4M3_MAG(c) ((c) == 127 ? NAN : (c) < 8 ? (float)(c) / 512 : (float)((8 + (c) % 8) * (1 << (c) / 8)) / 1024)
#define E4M3(c) ((c) < 128 ? E4M3_MAG((c) % 128) : -E4M3_MAG((c) % 128))
#define ROW8(c) E4M3(c), E4M3(c + 1), E4M3(c + 2), E4M3(c + 3), E4M3(c + 4), E4M3(c + 5), E4M3(c + 6), E4M3(c + 7)
#define ROW64(c) ROW8(c), ROW8(c + 8), ROW8(c + 16), ROW8(c + 24), ROW8(c + 32), ROW8(c + 40), ROW8(c + 48), ROW8(c + 56)

const float ns_e4m3_values[256] = { ROW64(0), ROW64(64), ROW64(128), ROW64(192) };

const float ns_e2m1_values[16] = { 0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6 };

float ns_f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 0x3ff;
    if (e == 31)
        return ns_f32_from_bits(sign | 0x7f800000 | m << 13);
    if (e == 0) {
        float x = (float)m / 16777216; /* m * 2^-24: an f32 normal, exact */
        return sign ? -x : x;
    }
    return ns_f32_from_bits(sign | (e + 127 - 15) << 23 | m << 13);
}

float ns_e5m2_to_f32(uint8_t c)
{
    return ns_f16_to_f32((uint16_t)(c << 8)); /* e5m2 is the upper half of f16 */
}

float ns_e8m0_to_f32(uint8_t c)
{
    if (c == 255)
        return NAN;
    return ns_f32_from_bits(c ? (uint32_t)c << 23 : 0x400000); /* 2^-127 is an f32 subnormal */
}

/* m / 2^shift to the nearest integer, ties to even. */
static uint32_t shift_rne(uint32_t m, uint32_t shift)
{
    if (shift > 31)
        return 0;
    return (uint32_t)(((uint64_t)m + ((1u << (shift - 1)) - 1) + (m >> shift & 1)) >> shift);
}

/* The bits of |x| to a narrower float with `man` mantissa bits and exponent bias `bias`, as exponent and mantissa side by
 * side. There is no upper bound: a carry runs on into larger exponents, the caller saturates. */
static uint32_t narrow(uint32_t a, uint32_t man, uint32_t bias)
{
    uint32_t e = a >> 23;
    if (e > 127 - bias)
        return shift_rne(a, 23 - man) - ((127 - bias) << man);
    /* subnormal result, in units of 2^(1 - bias - man): |x| = m * 2^(e - 150) */
    uint32_t m = e ? (a & 0x7fffff) | 0x800000 : a;
    return shift_rne(m, 151 - bias - man - (e ? e : 1));
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

uint16_t ns_f32_to_f16(float x)
{
    uint32_t u = ns_f32_bits(x), a = u & 0x7fffffff;
    uint32_t code = a > 0x7f800000 ? 0x7e00 | (a >> 13 & 0x3ff) : min_u32(narrow(a, 10, 15), 0x7c00);
    return (uint16_t)((u >> 16 & 0x8000) | code);
}

uint8_t ns_f32_to_e4m3(float x)
{
    uint32_t u = ns_f32_bits(x), a = u & 0x7fffffff;
    if (a > 0x7f800000)
        return 0x7f;
    return (uint8_t)((u >> 24 & 0x80) | min_u32(narrow(a, 3, 7), 0x7e));
}

/* The comparisons are strict exactly where the tie belongs to the lower, even code. No branches: compilers vectorise it. */
uint8_t ns_f32_to_e2m1(float x)
{
    float a = fabsf(x);
    int code = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) + (a >= 3.5f) + (a > 5.0f);
    uint32_t sign = x == x ? ns_f32_bits(x) >> 28 & 8 : 0;
    return (uint8_t)(sign | (uint32_t)code);
}

static uint16_t load_u16(const uint8_t *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static void decode_nvfp4(const ns_mat *m, const uint8_t *q, const uint8_t *scale, int col, int n, float *out)
{
    assert(col % 2 == 0);
    q += col / 2;
    for (int j = 0; j < n;) {
        float s = ns_e4m3_values[scale[(col + j) / 16]] * m->global_scale;
        int end = j + 16 - (col + j) % 16;
        for (end = end < n ? end : n; j < end; j++)
            out[j] = ns_e2m1_values[q[j / 2] >> 4 * (j % 2) & 15] * s;
    }
}

/* Panel by panel; a view begins with a block of 16. */
static void decode_panels(const ns_mat *m, int row, int col, int n, float *out)
{
    for (int run; n > 0; col += run, n -= run, out += run) {
        run = ns_mat_run(m, col) < n ? ns_mat_run(m, col) : n;
        ns_mat v = ns_mat_view(m, row, 1, col - col % 16, run + col % 16);
        ns_row_decode(&v, 0, col % 16, run, out);
    }
}

void ns_row_decode(const ns_mat *m, int row, int col, int n, float *out)
{
    assert(row >= 0 && row < m->rows && col >= 0 && n >= 0 && n <= m->cols - col);
    if (m->panels) {
        decode_panels(m, row, col, n, out);
        return;
    }
    const uint8_t *p = m->data + (size_t)row * m->stride;
    switch (m->dtype) {
    case NS_F32:
        memcpy(out, p + (size_t)col * 4, (size_t)n * 4);
        break;
    case NS_F16:
        for (int j = 0; j < n; j++)
            out[j] = ns_f16_to_f32(load_u16(p + ((size_t)col + (size_t)j) * 2));
        break;
    case NS_BF16:
        for (int j = 0; j < n; j++)
            out[j] = ns_bf16_to_f32(load_u16(p + ((size_t)col + (size_t)j) * 2));
        break;
    case NS_F8_E4M3:
        for (int j = 0; j < n; j++)
            out[j] = ns_e4m3_values[p[col + j]] * m->global_scale;
        break;
    case NS_NVFP4:
        decode_nvfp4(m, p, m->scale + (size_t)row * m->scale_stride, col, n, out);
        break;
    default:
        assert(false && "a matrix has a floating-point dtype");
    }
}

/* Returns the E4M3 code of a block's scale. A quotient that is 0 or not a number (a zero tensor) gives 1.0. */
static uint8_t block_scale(const float *x, float global_scale)
{
    float amax = 0;
    for (int j = 0; j < 16; j++)
        amax = fabsf(x[j]) > amax ? fabsf(x[j]) : amax;
    float s = amax / (6 * global_scale);
    if (!(s > 0))
        s = 1;
    s = s < 0x1p-9f ? 0x1p-9f : s > 448 ? 448 : s;
    return ns_f32_to_e4m3(s);
}

void ns_nvfp4_encode_block(const float *x, float s, uint8_t *q)
{
    uint8_t code[16];
    for (int j = 0; j < 16; j++)
        code[j] = ns_f32_to_e2m1(x[j] / s);
    for (int j = 0; j < 8; j++)
        q[j] = (uint8_t)(code[2 * j] | code[2 * j + 1] << 4);
}

void ns_nvfp4_encode_row(const float *x, int n, float global_scale, uint8_t *q, uint8_t *scale)
{
    assert(n % 16 == 0);
    for (int b = 0; b < n / 16; b++) {
        scale[b] = block_scale(x + 16 * b, global_scale);
        ns_nvfp4_encode_block(x + 16 * b, ns_e4m3_values[scale[b]] * global_scale, q + 8 * b);
    }
}
