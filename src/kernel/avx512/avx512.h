/* What the files of this rung share. */
#ifndef NS_KERNEL_AVX512_H
#define NS_KERNEL_AVX512_H
#include <immintrin.h>
#include <math.h>

#include "kernel/simd/rung.h"

/* Before loops over registers: gcc leaves the longer ones alone, and what they index in memory. */
#ifdef __clang__
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 8")
#endif

/* The sums of four accumulators, lane i that of v[i]: a third of the instructions of four separate sums. */
static inline __attribute__((always_inline)) __m128 reduce4(__m512 v0, __m512 v1, __m512 v2, __m512 v3)
{
#define HALF(v) _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1))
    __m256 s = _mm256_hadd_ps(_mm256_hadd_ps(HALF(v0), HALF(v1)), _mm256_hadd_ps(HALF(v2), HALF(v3)));
#undef HALF
    return _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
}

/* o[0..n) (+)= f * the sums of n accumulators of neighbouring rows; n is 4, 2 or 1. */
static inline __attribute__((always_inline)) void finish(float *o, const __m512 *v, int n, float f, bool add)
{
    const __m512 zero = _mm512_setzero_ps();
    __m128 s = n == 4 ? reduce4(v[0], v[1], v[2], v[3]) : n == 2 ? reduce4(v[0], v[1], zero, zero) : reduce4(v[0], zero, zero, zero);
    /* the fused form by name: left to the compiler, it would be fused in one copy of this code and not in another */
    s = add ? _mm_fmadd_ps(s, _mm_set1_ps(f), _mm_maskz_loadu_ps((__mmask8)((1u << n) - 1), o)) : _mm_mul_ps(s, _mm_set1_ps(f));
    if (n == 4)
        _mm_storeu_ps(o, s);
    else if (n == 2)
        _mm_storel_pi((__m64 *)o, s);
    else
        _mm_store_ss(o, s);
}

/* nvfp4_*.c: the entries of the op table for weights of that type; bits of an activation: 16 or 8. */
size_t ns_nvfp4_act_bytes_avx512(int cols, int bits);
void ns_nvfp4_act_pack_avx512(const float *x, int cols, int bits, void *out);
void ns_nvfp4_matmul_avx512(const ns_mat *w, int row0, int rows, const char *x, const int *idx, int m, float *y, size_t ldy, bool add);
void ns_nvfp4_matmul8_avx512(const ns_mat *w, int row0, int rows, const char *x, const int *idx, int m, float *y, size_t ldy, bool add);
#endif
