/* Matrix products against stored weights, AVX-512 (F, BW, VL, DQ, VNNI).
 *
 * Float family (F32, F16, BF16, F8_E4M3): weights widen to F32 in registers and meet F32 activations.
 *
 * NVFP4: the codes are integers (2 x e2m1 is 0 1 2 3 4 6 8 12), so a block's dot product is exact in integers once the
 * activations are 16-bit integers with one scale per vector: |error| <= amax(x) 2^-16 per element, far below what rounding the
 * activations to bfloat16 would cost. 128 columns at a time: a 16-bit lane of the 64 bytes holds the codes of columns 4j..4j+3,
 * so four table look-ups (vpermw takes the lane's low five bits; the table repeats after 16) give four vectors of weights whose
 * columns are strided by 4, and the activations are packed in that order. Each pair of 32-bit sums belongs to one block of 16.
 *
 * y = x_scale * global_scale * 128 * sum over blocks of (e4m3 scale * 2^-8) * (sum of 2*e2m1 * q):  128 = 2^8 / 2. */
#include <immintrin.h>
#include <math.h>

#include "kernel/simd/rung.h"

enum { CHUNK = 128, HEADER = 64 }; /* columns; bytes before the packed NVFP4 activations, holding the scale */

static size_t chunks_of(int cols)
{
    return ((size_t)cols + CHUNK - 1) / CHUNK;
}

static size_t act_bytes(ns_dtype w, int cols)
{
    if (w == NS_NVFP4)
        return HEADER + chunks_of(cols) * CHUNK * sizeof(int16_t);
    return ((size_t)cols + 31) / 32 * 32 * sizeof(float);
}

static void pack_nvfp4(const float *x, int cols, void *out)
{
    __m512 m = _mm512_setzero_ps();
    __mmask16 bad = 0;
    const __m512 big = _mm512_set1_ps(INFINITY);
    for (int i = 0; i < cols; i += 16) {
        __mmask16 k = cols - i >= 16 ? 0xffff : (__mmask16)((1u << (cols - i)) - 1);
        __m512 v = _mm512_abs_ps(_mm512_maskz_loadu_ps(k, x + i));
        bad |= _mm512_cmp_ps_mask(v, big, _CMP_NLT_UQ); /* infinite or NaN */
        m = _mm512_max_ps(m, v);
    }
    float amax = _mm512_reduce_max_ps(m);
    *(float *)out = bad ? NAN : amax / 32767.0f;
    __m512 inv = _mm512_set1_ps(amax > 0.0f && !bad ? 32767.0f / amax : 0.0f);
    int16_t *q = (int16_t *)((char *)out + HEADER);
    for (int c = 0; c < cols; c += CHUNK, q += CHUNK) {
        /* 16 columns become four quadruples; transposing them 4 x 4 in place of the whole chunk would need no scatter, but packing
         * is a hundredth of the product it serves. */
        _Alignas(64) int32_t t[CHUNK] = { 0 };
        for (int i = 0; i < CHUNK && c + i < cols; i += 16) {
            __mmask16 k = cols - c - i >= 16 ? 0xffff : (__mmask16)((1u << (cols - c - i)) - 1);
            _mm512_store_si512(t + i, _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_maskz_loadu_ps(k, x + c + i), inv)));
        }
        const __m512i stride4 = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48, 52, 56, 60);
        for (int s = 0; s < 4; s++)
            for (int h = 0; h < 2; h++)
                _mm256_storeu_si256((__m256i *)(q + s * 32 + h * 16),
                                    _mm512_cvtepi32_epi16(_mm512_i32gather_epi32(stride4, t + h * 64 + s, 4)));
    }
}

static void pack_float(ns_dtype w, const float *x, int cols, float *out)
{
    size_t padded = act_bytes(w, cols) / sizeof(float);
    memcpy(out, x, (size_t)cols * sizeof *x);
    memset(out + cols, 0, (padded - (size_t)cols) * sizeof *x);
    if (w != NS_BF16)
        return;
    /* BF16 pairs widen as (even, odd): 16 even columns, then 16 odd ones */
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    for (size_t i = 0; i < padded; i += 32) {
        __m512 a = _mm512_loadu_ps(out + i), b = _mm512_loadu_ps(out + i + 16);
        _mm512_storeu_ps(out + i, _mm512_permutex2var_ps(a, even, b));
        _mm512_storeu_ps(out + i + 16, _mm512_permutex2var_ps(a, odd, b));
    }
}

static void act_pack(ns_dtype w, const float *x, int cols, void *out)
{
    if (w == NS_NVFP4)
        pack_nvfp4(x, cols, out);
    else
        pack_float(w, x, cols, out);
}

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

/* ---- NVFP4 ---- */

static inline __m512i code_table(void)
{
    /* 2 * e2m1 of codes 0..15, twice */
    return _mm512_set_epi16(-12, -8, -6, -4, -3, -2, -1, 0, 12, 8, 6, 4, 3, 2, 1, 0, -12, -8, -6, -4, -3, -2, -1, 0, 12, 8, 6, 4, 3, 2,
                            1, 0);
}

/* n (<= 8) E4M3 block scales times 2^-8, each in two neighbouring lanes: the sign and the seven other bits, moved to their
 * places in binary16, whose conversion handles subnormals. The NaN code becomes NaN. */
static inline __attribute__((always_inline)) __m512 block_scales(__m128i b)
{
    __m256i h = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(b, b));
    h = _mm256_and_si256(_mm256_srai_epi16(_mm256_slli_epi16(h, 8), 1), _mm256_set1_epi16((short)0xbfff));
    const __m256i top = _mm256_set1_epi16(0x3f80);
    __mmask16 nan = _mm256_cmpeq_epi16_mask(_mm256_and_si256(h, top), top);
    h = _mm256_mask_mov_epi16(h, nan, _mm256_set1_epi16(0x7e00));
    return _mm512_cvtph_ps(h);
}

/* The codes and block scales of one chunk, zeros past the row's end. Whole chunks take plain loads: with masked ones
 * a core streams 5 GB/s here, with plain ones 15 to 18. */
struct chunk {
    __m512i codes;
    __m128i scales;
};

static inline __attribute__((always_inline)) struct chunk load_chunk(const uint8_t *p, const uint8_t *s, int left)
{
    if (left >= CHUNK)
        return (struct chunk){ _mm512_loadu_si512(p), _mm_loadl_epi64((const __m128i *)s) };
    return (struct chunk){ _mm512_maskz_loadu_epi8(((__mmask64)1 << (left / 2)) - 1, p),
                           _mm_maskz_loadu_epi8((__mmask16)((1u << (left / 16)) - 1), s) };
}

static inline __attribute__((always_inline)) void nvfp4_decode(__m512i v, __m512i table, __m512i w[4])
{
    w[0] = _mm512_permutexvar_epi16(v, table);
    w[1] = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 4), table);
    w[2] = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 8), table);
    w[3] = _mm512_permutexvar_epi16(_mm512_srli_epi16(v, 12), table);
}

static inline __attribute__((always_inline)) __m512 dot4(const __m512i w[4], const __m512i x[4], __m512 scale, __m512 acc)
{
    __m512i s = _mm512_dpwssd_epi32(_mm512_setzero_si512(), w[0], x[0]);
    s = _mm512_dpwssd_epi32(s, w[1], x[1]);
    s = _mm512_dpwssd_epi32(s, w[2], x[2]);
    s = _mm512_dpwssd_epi32(s, w[3], x[3]);
    return _mm512_fmadd_ps(_mm512_cvtepi32_ps(s), scale, acc);
}

/* Rows that lie this many ahead are asked for early: several short streams that jump at every row end are too much for the
 * hardware's own prefetching (a core reads 15 to 18 GB/s here without it, 28 to 32 with it). */
enum { AHEAD = 4 };

static inline __attribute__((always_inline)) void prefetch_row(const ns_mat *w, const uint8_t *p, const uint8_t *s, int c)
{
    _mm_prefetch((const char *)p + AHEAD * w->stride, _MM_HINT_T0);
    if (c % (8 * CHUNK) == 0)
        _mm_prefetch((const char *)s + AHEAD * w->scale_stride, _MM_HINT_T0);
}

/* One chunk of `rows` rows against m vectors, decoding on the way. */
static inline __attribute__((always_inline)) void nvfp4_step(const ns_mat *w, int r, int rows, int c, int left, const char *const *x, int m,
                                                             __m512i table, __m512 acc[4][4] /* [vector][row] */)
{
    for (int i = 0; i < rows; i++) {
        const uint8_t *p = w->data + (size_t)(r + i) * w->stride + (size_t)c / 2;
        const uint8_t *s = w->scale + (size_t)(r + i) * w->scale_stride + (size_t)c / 16;
        struct chunk k = load_chunk(p, s, left);
        prefetch_row(w, p, s, c);
        __m512i wv[4];
        nvfp4_decode(k.codes, table, wv);
        __m512 scale = block_scales(k.scales);
        for (int t = 0; t < m; t++) {
            const char *xt = x[t] + HEADER + (size_t)c * 2;
            __m512i xv[4];
            for (int j = 0; j < 4; j++)
                xv[j] = _mm512_loadu_si512(xt + 64 * j);
            acc[t][i] = dot4(wv, xv, scale, acc[t][i]);
        }
    }
}

static inline __attribute__((always_inline)) void nvfp4_rows(const ns_mat *w, int r, int rows, const char *const *x, int m, float *y, size_t ldy,
                                                             bool add)
{
    const __m512i table = code_table();
    __m512 acc[4][4];
    for (int t = 0; t < m; t++)
        for (int i = 0; i < rows; i++)
            acc[t][i] = _mm512_setzero_ps();
    int c = 0;
    for (; c + CHUNK <= w->cols; c += CHUNK)
        nvfp4_step(w, r, rows, c, CHUNK, x, m, table, acc);
    if (c < w->cols)
        nvfp4_step(w, r, rows, c, w->cols - c, x, m, table, acc);
    for (int t = 0; t < m; t++)
        finish(y + (size_t)t * ldy, acc[t], rows, w->global_scale * 128.0f * *(const float *)x[t], add);
}

/* m (1..4, a constant) vectors against all rows, four rows at a time. */
static inline __attribute__((always_inline)) void nvfp4_few(const ns_mat *w, int row0, int rows, const char *const *x, int m, float *y,
                                                            size_t ldy, bool add)
{
    int r = 0;
    for (; r + 4 <= rows; r += 4)
        nvfp4_rows(w, row0 + r, 4, x, m, y + r, ldy, add);
    for (; r < rows; r++)
        for (int t = 0; t < m; t++)
            nvfp4_rows(w, row0 + r, 1, x + t, 1, y + (size_t)t * ldy + (size_t)r, ldy, add);
}

/* Many vectors: rows are decoded once into scratch that stays in the second-level cache, then met by six vectors at a time. */
enum { SCRATCH = 256 * 1024, TILE = 6 };

static size_t decoded_row_bytes(int cols)
{
    return chunks_of(cols) * (CHUNK * sizeof(int16_t) + 16 * sizeof(float));
}

/* Per chunk: four weight vectors, then the scales. */
static void nvfp4_decode_row(const ns_mat *w, int r, char *out)
{
    const __m512i table = code_table();
    const uint8_t *p = w->data + (size_t)r * w->stride, *s = w->scale + (size_t)r * w->scale_stride;
    for (int c = 0; c < w->cols; c += CHUNK, out += 320) {
        struct chunk k = load_chunk(p + c / 2, s + c / 16, w->cols - c);
        prefetch_row(w, p + c / 2, s + c / 16, c);
        __m512i wv[4];
        nvfp4_decode(k.codes, table, wv);
        for (int j = 0; j < 4; j++)
            _mm512_store_si512(out + 64 * j, wv[j]);
        _mm512_store_ps(out + 256, block_scales(k.scales));
    }
}

static inline __attribute__((always_inline)) void nvfp4_tile(const char *const *row, int rows, size_t n_chunks, const char *const *x, int m,
                                                             float f, float *y, size_t ldy, bool add)
{
    __m512 acc[TILE][2];
    for (int t = 0; t < m; t++)
        for (int i = 0; i < rows; i++)
            acc[t][i] = _mm512_setzero_ps();
    for (size_t c = 0; c < n_chunks; c++) {
        __m512i wv[2][4];
        __m512 s[2];
        for (int i = 0; i < rows; i++) {
            for (int j = 0; j < 4; j++)
                wv[i][j] = _mm512_load_si512(row[i] + c * 320 + (size_t)(64 * j));
            s[i] = _mm512_load_ps(row[i] + c * 320 + 256);
        }
        for (int t = 0; t < m; t++) {
            __m512i xv[4];
            for (int j = 0; j < 4; j++)
                xv[j] = _mm512_loadu_si512(x[t] + HEADER + c * 256 + (size_t)(64 * j));
            if (rows == 2) /* keep them in registers: as memory operands of both rows they would be loaded twice */
                __asm__("" : "+v"(xv[0]), "+v"(xv[1]), "+v"(xv[2]), "+v"(xv[3]));
            for (int i = 0; i < rows; i++)
                acc[t][i] = dot4(wv[i], xv, s[i], acc[t][i]);
        }
    }
    for (int t = 0; t < m; t++)
        finish(y + (size_t)t * ldy, acc[t], rows, f * *(const float *)x[t], add);
}

static void nvfp4_tiles(const char *const *row, int rows, size_t n, const char *const *x, int m, float f, float *y, size_t ldy, bool add)
{
    if (rows == 2) {
        switch (m) {
        case 6: nvfp4_tile(row, 2, n, x, 6, f, y, ldy, add); break;
        case 5: nvfp4_tile(row, 2, n, x, 5, f, y, ldy, add); break;
        case 4: nvfp4_tile(row, 2, n, x, 4, f, y, ldy, add); break;
        case 3: nvfp4_tile(row, 2, n, x, 3, f, y, ldy, add); break;
        case 2: nvfp4_tile(row, 2, n, x, 2, f, y, ldy, add); break;
        default: nvfp4_tile(row, 2, n, x, 1, f, y, ldy, add); break;
        }
        return;
    }
    for (int t = 0; t < m; t++)
        nvfp4_tile(row, 1, n, x + t, 1, f, y + (size_t)t * ldy, ldy, add);
}

static void nvfp4_batch(const ns_mat *w, int row0, int rows, const char *x, size_t stride, const int *idx, int m, float *y, size_t ldy,
                        bool add)
{
    _Alignas(64) char scratch[SCRATCH];
    size_t row_bytes = decoded_row_bytes(w->cols);
    int block = (int)(SCRATCH / row_bytes);
    float f = w->global_scale * 128.0f;
    for (int r0 = 0; r0 < rows; r0 += block) {
        int n = rows - r0 < block ? rows - r0 : block;
        for (int r = 0; r < n; r++)
            nvfp4_decode_row(w, row0 + r0 + r, scratch + (size_t)r * row_bytes);
        /* even shares: 6 + 2 vectors would be slower than 4 + 4 */
        int tiles = (m + TILE - 1) / TILE;
        for (int t0 = 0, mt; t0 < m; t0 += mt, tiles--) {
            const char *xt[TILE];
            mt = (m - t0 + tiles - 1) / tiles;
            for (int t = 0; t < mt; t++)
                xt[t] = x + (size_t)(idx ? idx[t0 + t] : t0 + t) * stride;
            for (int r = 0; r < n; r += 2) {
                const char *pair[2] = { scratch + (size_t)r * row_bytes, scratch + (size_t)(r + 1) * row_bytes };
                nvfp4_tiles(pair, n - r >= 2 ? 2 : 1, chunks_of(w->cols), xt, mt, f, y + (size_t)t0 * ldy + (size_t)(r0 + r), ldy, add);
            }
        }
    }
}

static void nvfp4_matmul(const ns_mat *w, int row0, int rows, const char *x, size_t stride, const int *idx, int m, float *y, size_t ldy,
                         bool add)
{
    if (m > 4 && decoded_row_bytes(w->cols) <= SCRATCH) {
        nvfp4_batch(w, row0, rows, x, stride, idx, m, y, ldy, add);
        return;
    }
    for (int t0 = 0; t0 < m; t0 += 4) {
        const char *xt[4];
        int mt = m - t0 < 4 ? m - t0 : 4;
        for (int t = 0; t < mt; t++)
            xt[t] = x + (size_t)(idx ? idx[t0 + t] : t0 + t) * stride;
        float *yt = y + (size_t)t0 * ldy;
        switch (mt) {
        case 4: nvfp4_few(w, row0, rows, xt, 4, yt, ldy, add); break;
        case 3: nvfp4_few(w, row0, rows, xt, 3, yt, ldy, add); break;
        case 2: nvfp4_few(w, row0, rows, xt, 2, yt, ldy, add); break;
        default: nvfp4_few(w, row0, rows, xt, 1, yt, ldy, add); break;
        }
    }
}

/* ---- the float family ---- */

/* 32 columns of a row, widened, in the order of the packed activations. */
static inline __attribute__((always_inline)) void load32(ns_dtype t, const uint8_t *p, __m512 v[2])
{
    if (t == NS_F32) {
        v[0] = _mm512_loadu_ps(p);
        v[1] = _mm512_loadu_ps(p + 64);
    } else if (t == NS_BF16) {
        __m512i u = _mm512_loadu_si512(p);
        v[0] = _mm512_castsi512_ps(_mm512_slli_epi32(u, 16));
        v[1] = _mm512_castsi512_ps(_mm512_and_si512(u, _mm512_set1_epi32((int)0xffff0000)));
    } else {
        __m512i u;
        if (t == NS_F16) {
            u = _mm512_loadu_si512(p);
        } else {
            u = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)p));
            u = _mm512_and_si512(_mm512_srai_epi16(_mm512_slli_epi16(u, 8), 1), _mm512_set1_epi16((short)0xbfff));
            const __m512i top = _mm512_set1_epi16(0x3f80);
            __mmask32 nan = _mm512_cmpeq_epi16_mask(_mm512_and_si512(u, top), top);
            u = _mm512_mask_mov_epi16(u, nan, _mm512_set1_epi16(0x7e00));
        }
        v[0] = _mm512_cvtph_ps(_mm512_castsi512_si256(u));
        v[1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(u, 1));
    }
}

static inline __attribute__((always_inline)) void float_step(ns_dtype t, const uint8_t *p, size_t stride, int rows, const char *const *x, int m,
                                                             size_t c, __m512 acc[4][4])
{
    __m512 wv[4][2];
    for (int i = 0; i < rows; i++)
        load32(t, p + (size_t)i * stride, wv[i]);
    for (int j = 0; j < m; j++) {
        __m512 x0 = _mm512_loadu_ps(x[j] + c * 4), x1 = _mm512_loadu_ps(x[j] + c * 4 + 64);
        for (int i = 0; i < rows; i++)
            acc[j][i] = _mm512_fmadd_ps(wv[i][1], x1, _mm512_fmadd_ps(wv[i][0], x0, acc[j][i]));
    }
}

/* One block of at most COLUMNS columns; its sums are added to y. */
static inline __attribute__((always_inline)) void float_part(ns_dtype t, const uint8_t *p, size_t stride, int rows, size_t cols,
                                                             const char *const *x, size_t at, int m, float f, float *y, size_t ldy, bool add,
                                                             bool fetch)
{
    __m512 acc[4][4];
    for (int j = 0; j < m; j++)
        for (int i = 0; i < rows; i++)
            acc[j][i] = _mm512_setzero_ps();
    size_t step = ns_dtype_bits(t) * 4, c = 0; /* step: bytes of 32 columns */
    for (; c + 32 <= cols; c += 32, p += step) {
        for (int i = 0; i < rows; i++)
            for (size_t line = 0; fetch && line < step; line += 64)
                _mm_prefetch((const char *)p + (size_t)(i + AHEAD) * stride + line, _MM_HINT_T0);
        float_step(t, p, stride, rows, x, m, at + c, acc);
    }
    if (c < cols) { /* the tail from a copy with zeros behind it: reading on would leave the matrix */
        uint8_t tail[4][128] = { { 0 } };
        for (int i = 0; i < rows; i++)
            memcpy(tail[i], p + (size_t)i * stride, ns_dtype_row_bytes(t, cols - c));
        float_step(t, tail[0], sizeof tail[0], rows, x, m, at + c, acc);
    }
    for (int j = 0; j < m; j++)
        finish(y + (size_t)j * ldy, acc[j], rows, f, add);
}

/* Columns are summed in blocks of COLUMNS however many vectors there are, so that a vector's result does not depend on its company;
 * see float_matmul for what the blocks are good for. */
enum { COLUMNS = 1024 };

static inline __attribute__((always_inline)) void float_rows(ns_dtype t, const ns_mat *w, int r, int rows, const char *const *x, int m, float *y,
                                                             size_t ldy, bool add, bool fetch)
{
    const uint8_t *p = w->data + (size_t)r * w->stride;
    float f = w->global_scale * (t == NS_F8_E4M3 ? 256.0f : 1.0f);
    for (size_t c = 0, cols = (size_t)w->cols; c < cols; c += COLUMNS)
        float_part(t, p + ns_dtype_row_bytes(t, c), w->stride, rows, cols - c < COLUMNS ? cols - c : COLUMNS, x, c, m, f, y, ldy,
                   add || c > 0, fetch);
}

static inline __attribute__((always_inline)) void float_few(ns_dtype t, const ns_mat *w, int row0, int rows, const char *const *x, int m,
                                                            float *y, size_t ldy, bool add, bool fetch)
{
    int r = 0;
    for (; r + 4 <= rows; r += 4)
        float_rows(t, w, row0 + r, 4, x, m, y + r, ldy, add, fetch);
    for (; r < rows; r++)
        for (int j = 0; j < m; j++)
            float_rows(t, w, row0 + r, 1, x + j, 1, y + (size_t)j * ldy + (size_t)r, ldy, add, fetch);
}

/* Columns in blocks, then vectors, then rows: four vectors' share of a block of columns stays in the first-level cache while the
 * caller's block of rows comes from the second. */
static inline __attribute__((always_inline)) void float_block(ns_dtype t, const ns_mat *w, int row0, int rows, const char *x, size_t stride,
                                                              const int *idx, int m, float *y, size_t ldy, bool add)
{
    for (int t0 = 0; t0 < m; t0 += 4) {
        const char *xt[4];
        int mt = m - t0 < 4 ? m - t0 : 4;
        for (int j = 0; j < mt; j++)
            xt[j] = x + (size_t)(idx ? idx[t0 + j] : t0 + j) * stride;
        float *yt = y + (size_t)t0 * ldy;
        switch (mt) {
        case 4:
            if (t0 == 0)
                float_few(t, w, row0, rows, xt, 4, yt, ldy, add, true);
            else /* the rows are in the cache by now */
                float_few(t, w, row0, rows, xt, 4, yt, ldy, add, false);
            break;
        case 3: float_few(t, w, row0, rows, xt, 3, yt, ldy, add, true); break;
        case 2: float_few(t, w, row0, rows, xt, 2, yt, ldy, add, true); break;
        default: float_few(t, w, row0, rows, xt, 1, yt, ldy, add, true); break;
        }
    }
}

/* Widening FP8 takes longer than the products with four vectors: for many, a block is widened once. */
static void widen_block(ns_dtype t, const ns_mat *w, int row0, int rows, float *out)
{
    size_t step = ns_dtype_bits(t) * 4, cols = (size_t)w->cols;
    for (int r = 0; r < rows; r++, out += COLUMNS) {
        const uint8_t *p = w->data + (size_t)(row0 + r) * w->stride;
        uint8_t tail[128] = { 0 };
        memcpy(tail, p + cols / 32 * step, ns_dtype_row_bytes(t, cols % 32));
        for (size_t c = 0; c < cols; c += 32) {
            __m512 v[2];
            load32(t, c + 32 <= cols ? p + c / 32 * step : tail, v);
            _mm512_store_ps(out + c, v[0]);
            _mm512_store_ps(out + c + 16, v[1]);
        }
    }
}

static inline __attribute__((always_inline)) void float_matmul(ns_dtype t, const ns_mat *w, int row0, int rows, const char *x, size_t stride,
                                                               const int *idx, int m, float *y, size_t ldy, bool add)
{
    enum { WIDE_ROWS = SCRATCH / sizeof(float) / COLUMNS };
    _Alignas(64) float wide[WIDE_ROWS * COLUMNS];
    bool widen = m > 4 && (t == NS_F8_E4M3 || t == NS_F16);
    int step = m > 4 ? COLUMNS : w->cols, block = widen ? WIDE_ROWS : rows;
    for (int c = 0; c < w->cols; c += step)
        for (int r = 0; r < rows; r += block) {
            int n = rows - r < block ? rows - r : block;
            ns_mat part = *w;
            part.data += ns_dtype_row_bytes(t, (size_t)c);
            part.cols = w->cols - c < step ? w->cols - c : step;
            const char *xc = x + (size_t)c * sizeof(float);
            if (!widen) {
                float_block(t, &part, row0 + r, n, xc, stride, idx, m, y + r, ldy, add || c > 0);
                continue;
            }
            widen_block(t, &part, row0 + r, n, wide);
            ns_mat f32 = { .dtype = NS_F32, .rows = n, .cols = part.cols, .data = (const uint8_t *)wide, .stride = COLUMNS * sizeof(float),
                           .global_scale = w->global_scale * (t == NS_F8_E4M3 ? 256.0f : 1.0f) };
            float_block(NS_F32, &f32, 0, n, xc, stride, idx, m, y + r, ldy, add || c > 0);
        }
}

static void matmul(const ns_mat *w, int row0, int rows, const void *x, const int *idx, int m, float *y, size_t ldy, bool add)
{
    size_t stride = act_bytes(w->dtype, w->cols);
    switch (w->dtype) {
    case NS_NVFP4: nvfp4_matmul(w, row0, rows, x, stride, idx, m, y, ldy, add); break;
    case NS_F32: float_matmul(NS_F32, w, row0, rows, x, stride, idx, m, y, ldy, add); break;
    case NS_F16: float_matmul(NS_F16, w, row0, rows, x, stride, idx, m, y, ldy, add); break;
    case NS_BF16: float_matmul(NS_BF16, w, row0, rows, x, stride, idx, m, y, ldy, add); break;
    default: float_matmul(NS_F8_E4M3, w, row0, rows, x, stride, idx, m, y, ldy, add); break;
    }
}

void ns_ops_fill_avx512(ns_ops *o)
{
    o->name = "avx512";
    o->act_bytes = act_bytes;
    o->act_pack = act_pack;
    o->matmul = matmul;
    o->gemm = NS_RUNG(gemm);
    o->rmsnorm = NS_RUNG(rmsnorm);
    o->gated_norm = NS_RUNG(gated_norm);
    o->relu2 = NS_RUNG(relu2);
    o->exp_sum = NS_RUNG(exp_sum);
    o->conv_silu = NS_RUNG(conv_silu);
    o->ssm_step = NS_RUNG(ssm_step);
    o->axpy = NS_RUNG(axpy);
}
