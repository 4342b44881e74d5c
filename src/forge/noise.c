#include "forge/noise.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/format.h"

enum { LEVELS = 65536, CACHED = 8 };

/* 16 random bits pick one of 65536 equally likely values: the quantiles of the normal distribution. */
struct ns_noise {
    float normal[LEVELS];
    uint8_t e4m3[LEVELS];   /* normal * 100 */
    uint8_t nibbles[LEVELS]; /* 8 bits for each of the two */
    uint8_t block_scale[256];
    float e4m3_scale, nvfp4_scale;
    /* `normal` in a 16-bit type at some deviation; the oldest is replaced */
    struct { uint16_t value[LEVELS]; ns_dtype dtype; float deviation; } half[CACHED];
    int n_half;
};

/* Inverse of the normal distribution function for p in (0, 1/2], rational approximation of P. J. Acklam (relative error 1.2e-9). */
static double normal_quantile(double p)
{
    static const double a[] = { -3.969683028665376e+01, 2.209460984245205e+02, -2.759285104469687e+02,
                                1.383577518672690e+02, -3.066479806614716e+01, 2.506628277459239e+00 };
    static const double b[] = { -5.447609879822406e+01, 1.615858368580409e+02, -1.556989798598866e+02,
                                6.680131188771972e+01, -1.328068155288572e+01, 1 };
    static const double c[] = { -7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e+00,
                                -2.549732539343734e+00, 4.374664141464968e+00, 2.938163982698783e+00 };
    static const double d[] = { 7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e+00, 3.754408661907416e+00, 1 };
    double num = 0, den = 0, x = p < 0.02425 ? sqrt(-2 * log(p)) : (p - 0.5) * (p - 0.5);
    if (p < 0.02425) {
        for (int i = 0; i < 6; i++)
            num = num * x + c[i];
        for (int i = 0; i < 5; i++)
            den = den * x + d[i];
        return num / den;
    }
    for (int i = 0; i < 6; i++) {
        num = num * x + a[i];
        den = den * x + b[i];
    }
    return num / den * (p - 0.5);
}

static void fill_normal(float *out, int n)
{
    for (int i = 0; i < n / 2; i++) {
        out[i] = (float)normal_quantile((i + 0.5) / n);
        out[n - 1 - i] = -out[i];
    }
}

static void fill_e4m3(ns_noise *t)
{
    double sum = 0;
    for (int i = 0; i < LEVELS; i++) {
        t->e4m3[i] = ns_f32_to_e4m3(t->normal[i] * 100);
        sum += (double)ns_e4m3_to_f32(t->e4m3[i]) * ns_e4m3_to_f32(t->e4m3[i]);
    }
    t->e4m3_scale = (float)(1 / sqrt(sum / LEVELS));
}

/* A block's largest of 16 normal values is near 2 deviations, and is stored as 6. Block scales vary by a fifth. */
static void fill_nvfp4(ns_noise *t)
{
    float q[256];
    uint8_t code[256];
    double sum_q = 0, sum_s = 0;
    fill_normal(q, 256);
    for (int i = 0; i < 256; i++) {
        code[i] = ns_f32_to_e2m1(q[i] * 3);
        sum_q += (double)ns_e2m1_to_f32(code[i]) * ns_e2m1_to_f32(code[i]);
        t->block_scale[i] = ns_f32_to_e4m3(200 * (1 + 0.2f * q[i]));
        sum_s += (double)ns_e4m3_to_f32(t->block_scale[i]) * ns_e4m3_to_f32(t->block_scale[i]);
    }
    for (int i = 0; i < LEVELS; i++)
        t->nibbles[i] = (uint8_t)(code[i & 255] | code[i >> 8] << 4);
    t->nvfp4_scale = (float)(1 / sqrt(sum_q / 256 * (sum_s / 256)));
}

ns_noise *ns_noise_new(void)
{
    ns_noise *t = malloc(sizeof *t);
    if (!t)
        return NULL;
    t->n_half = 0;
    fill_normal(t->normal, LEVELS);
    fill_e4m3(t);
    fill_nvfp4(t);
    return t;
}

void ns_noise_free(ns_noise *n)
{
    free(n);
}

float ns_noise_e4m3_scale(const ns_noise *t)
{
    return t->e4m3_scale;
}

float ns_noise_nvfp4_scale(const ns_noise *t)
{
    return t->nvfp4_scale;
}

void ns_noise_seed(ns_rng *r, uint64_t seed, const char *name)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a of the name, from a start that the seed has moved */
    h ^= seed * 0x9e3779b97f4a7c15u;
    for (; *name; name++)
        h = (h ^ (uint8_t)*name) * 0x100000001b3u;
    ns_rng_init(r, h);
}

/* ---- bytes: each 64-bit draw serves four 16-bit picks, the rest of the last draw is thrown away ---- */

#define PICK(i) ((size_t)(bits >> (16 * (i))) & 0xffff)

static void pick8(const uint8_t *table, ns_rng *r, uint8_t *out, size_t n)
{
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        uint64_t bits = ns_rng_u64(r);
        uint8_t four[4] = { table[PICK(0)], table[PICK(1)], table[PICK(2)], table[PICK(3)] };
        memcpy(out + i, four, 4);
    }
    for (uint64_t bits = i < n ? ns_rng_u64(r) : 0; i < n; i++, bits >>= 16)
        out[i] = table[PICK(0)];
}

static void pick16(const uint16_t *table, ns_rng *r, uint8_t *out, size_t n)
{
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        uint64_t bits = ns_rng_u64(r);
        uint16_t four[4] = { table[PICK(0)], table[PICK(1)], table[PICK(2)], table[PICK(3)] };
        memcpy(out + 2 * i, four, sizeof four);
    }
    for (uint64_t bits = i < n ? ns_rng_u64(r) : 0; i < n; i++, bits >>= 16)
        memcpy(out + 2 * i, &table[PICK(0)], 2);
}

static void pick32(const float *table, float deviation, ns_rng *r, uint8_t *out, size_t n)
{
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        uint64_t bits = ns_rng_u64(r);
        float four[4] = { table[PICK(0)] * deviation, table[PICK(1)] * deviation, table[PICK(2)] * deviation, table[PICK(3)] * deviation };
        memcpy(out + 4 * i, four, sizeof four);
    }
    for (uint64_t bits = i < n ? ns_rng_u64(r) : 0; i < n; i++, bits >>= 16) {
        float x = table[PICK(0)] * deviation;
        memcpy(out + 4 * i, &x, sizeof x);
    }
}

static const uint16_t *half_table(ns_noise *t, ns_dtype dtype, float deviation)
{
    for (int i = 0; i < t->n_half && i < CACHED; i++)
        if (t->half[i].dtype == dtype && t->half[i].deviation == deviation)
            return t->half[i].value;
    const int k = t->n_half++ % CACHED;
    for (int i = 0; i < LEVELS; i++) {
        float x = t->normal[i] * deviation;
        t->half[k].value[i] = dtype == NS_F16 ? ns_f32_to_f16(x) : ns_f32_to_bf16(x);
    }
    t->half[k].dtype = dtype;
    t->half[k].deviation = deviation;
    return t->half[k].value;
}

void ns_noise_floats(ns_noise *t, ns_rng *r, ns_dtype dtype, float deviation, void *out, size_t n)
{
    if (dtype == NS_F32)
        pick32(t->normal, deviation, r, out, n / 4);
    else
        pick16(half_table(t, dtype, deviation), r, out, n / 2);
}

void ns_noise_e4m3(const ns_noise *t, ns_rng *r, void *out, size_t n)
{
    pick8(t->e4m3, r, out, n);
}

void ns_noise_nibbles(const ns_noise *t, ns_rng *r, void *out, size_t n)
{
    pick8(t->nibbles, r, out, n);
}

void ns_noise_block_scales(const ns_noise *t, ns_rng *r, void *out, size_t n)
{
    uint8_t *p = out;
    for (size_t i = 0; i < n; i += 8) {
        uint64_t bits = ns_rng_u64(r);
        for (size_t k = i; k < n && k < i + 8; k++, bits >>= 8)
            p[k] = t->block_scale[bits & 255];
    }
}
