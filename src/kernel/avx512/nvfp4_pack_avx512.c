/* Packing activations for NVFP4 weights; the layout: nvfp4_avx512.h. */
#include "kernel/avx512/nvfp4_avx512.h"

size_t ns_nvfp4_act_bytes_avx512(int cols, int bits)
{
    return HEADER + parts_bytes(cols, bits, part_extra(bits));
}

static inline __m512 load_some(const float *x, int left)
{
    return left >= 16 ? _mm512_loadu_ps(x) : _mm512_maskz_loadu_ps((__mmask16)((1u << (left > 0 ? left : 0)) - 1), x);
}

static inline int exponent(float a)
{
    uint32_t u;
    memcpy(&u, &a, sizeof u);
    return (int)(u >> 23) - 127;
}

/* The exponent of the vector's largest, not below -112, so that all that follow still have a reciprocal. False: something is infinite
 * or NaN, and so will the results be; the base is NaN. */
static bool begin(const float *x, int cols, int bits, int *top, void *out)
{
    enum { LEAST = -112 };
    __m512 most = _mm512_setzero_ps();
    __mmask16 bad = 0;
    for (int i = 0; i < cols; i += 16) {
        __m512 v = _mm512_abs_ps(load_some(x + i, cols - i));
        bad |= _mm512_cmp_ps_mask(v, _mm512_set1_ps(INFINITY), _CMP_NLT_UQ);
        most = _mm512_max_ps(most, v);
    }
    memset(out, 0, ns_nvfp4_act_bytes_avx512(cols, bits));
    int k = exponent(_mm512_reduce_max_ps(most));
    *top = k > LEAST ? k : LEAST;
    *(float *)out = bad ? NAN : ldexpf(1.0f, *top - (bits == 8 ? 7 : 14));
    return !bad;
}

/* ---- 16 bits ---- */

/* 128 columns of which `left` exist: v[k] lane j is column 4j + k; e: the blocks' exponents, not below `low`. */
static void pack_half(const float *x, int left, int low, __m512i v[4], int e[8])
{
    const __m512i by4 = _mm512_set_epi16(31, 27, 23, 19, 15, 11, 7, 3, 30, 26, 22, 18, 14, 10, 6, 2, 29, 25, 21, 17, 13, 9, 5, 1, 28, 24, 20,
                                         16, 12, 8, 4, 0);
    __m256i q[8];
    for (int b = 0; b < 8; b++) {
        __m512 f = load_some(x + 16 * b, left - 16 * b);
        int k = exponent(_mm512_reduce_max_ps(_mm512_abs_ps(f)));
        e[b] = k > low ? k : low;
        __m512 to = _mm512_castsi512_ps(_mm512_set1_epi32((14 - e[b] + 127) << 23));
        q[b] = _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(_mm512_mul_ps(f, to)));
    }
    __m512i s[4];
    for (int i = 0; i < 4; i++)
        s[i] = _mm512_permutexvar_epi16(by4, _mm512_inserti64x4(_mm512_castsi256_si512(q[2 * i]), q[2 * i + 1], 1));
    __m512i a = _mm512_shuffle_i32x4(s[0], s[1], 0x44), b = _mm512_shuffle_i32x4(s[0], s[1], 0xee);
    __m512i c = _mm512_shuffle_i32x4(s[2], s[3], 0x44), d = _mm512_shuffle_i32x4(s[2], s[3], 0xee);
    v[0] = _mm512_shuffle_i32x4(a, c, 0x88);
    v[1] = _mm512_shuffle_i32x4(a, c, 0xdd);
    v[2] = _mm512_shuffle_i32x4(b, d, 0x88);
    v[3] = _mm512_shuffle_i32x4(b, d, 0xdd);
}

static void pack16(const float *x, int cols, int top, char *o)
{
    int low = top - 64 > -112 ? top - 64 : -112;
    for (int c = 0; c < cols; c += WIDE) {
        int e[16];
        __m512i v[2][4];
        pack_half(x + c, cols - c, low, v[0], e);
        if (cols - c <= NARROW) {
            for (int j = 0; j < 4; j++, o += 64)
                _mm512_store_si512(o, v[0][j]);
            for (int i = 0; i < 16; i++)
                ((int *)o)[i] = i < 8 ? (e[i] - top) * (1 << 23) : 0;
            return;
        }
        pack_half(x + c + NARROW, cols - c - NARROW, low, v[1], e + 8);
        for (int j = 0; j < 8; j++, o += 64) {
            __m512i lanes = _mm512_add_epi32(even_lanes(), _mm512_set1_epi32(j / 4));
            _mm512_store_si512(o, _mm512_permutex2var_epi32(v[0][j % 4], lanes, v[1][j % 4]));
        }
        for (int i = 0; i < 16; i++)
            ((int *)o)[i] = (e[i] - top) * (1 << 23);
        o += 64;
    }
}

/* ---- 8 bits ---- */

/* 16 blocks of bytes, or 8, as the vectors of a part. Of a block, columns 0 2 4 6, 1 3 5 7, 8 10 12 14 and 9 11 13 15 are the lanes of
 * four vectors, or two neighbouring lanes of two. */
static void sort_bytes(const int8_t *q, int n, __m512i v[4])
{
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
    const __m512i fourth = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    __m512i z[4];
    for (int i = 0; i < n; i++)
        z[i] = _mm512_shuffle_epi8(_mm512_load_si512(q + 64 * i), order);
    for (int j = 0; j < n; j++) {
        __m512i from = _mm512_add_epi32(n == 4 ? fourth : even_lanes(), _mm512_set1_epi32(j));
        v[j] = _mm512_permutex2var_epi32(z[0], from, z[1]);
        if (n == 4)
            v[j] = _mm512_inserti64x4(v[j], _mm512_castsi512_si256(_mm512_permutex2var_epi32(z[2], from, z[3])), 1);
    }
}

/* to: the reciprocal of base, a power of two. Scales below 2^-57 of it are taken as that. */
static void pack8(const float *x, int cols, float to, char *o)
{
    for (int c = 0; c < cols; c += WIDE) {
        int n = part_vectors(cols - c, 8), blocks = 4 * n;
        _Alignas(64) int8_t q[WIDE];
        _Alignas(64) float most[16] = { 0 }, scale[16];
        for (int b = 0; b < blocks; b++)
            most[b] = _mm512_reduce_max_ps(_mm512_abs_ps(load_some(x + c + 16 * b, cols - c - 16 * b)));
        __m512 m = _mm512_max_ps(_mm512_mul_ps(_mm512_load_ps(most), _mm512_set1_ps(to)), _mm512_set1_ps(0x1p-57f));
        _mm512_store_ps(scale, _mm512_div_ps(_mm512_set1_ps(127.0f), m));
        for (int b = 0; b < blocks; b++) {
            __m512 f = _mm512_mul_ps(load_some(x + c + 16 * b, cols - c - 16 * b), _mm512_set1_ps(to));
            f = _mm512_mul_ps(f, _mm512_set1_ps(scale[b]));
            _mm_store_si128((__m128i *)(q + 16 * b), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(f)));
        }
        __m512i v[4], sum = _mm512_setzero_si512();
        sort_bytes(q, n, v);
        for (int j = 0; j < n; j++, o += 64) {
            _mm512_store_si512(o, v[j]);
            sum = _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(12), v[j]);
        }
        _mm512_store_si512(o, _mm512_sub_epi32(_mm512_setzero_si512(), sum));
        m = _mm512_div_ps(m, _mm512_set1_ps(127.0f));
        _mm512_store_ps(o + 64, m);
        o += 128;
    }
}

void ns_nvfp4_act_pack_avx512(const float *x, int cols, int bits, void *out)
{
    int top;
    if (!begin(x, cols, bits, &top, out))
        return;
    if (bits == 8)
        pack8(x, cols, ldexpf(1.0f, 7 - top), (char *)out + HEADER);
    else
        pack16(x, cols, top, (char *)out + HEADER);
}
