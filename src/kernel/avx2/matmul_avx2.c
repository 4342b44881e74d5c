/* Matrix products against stored weights, AVX2 + FMA + F16C. The scheme is that of avx512/matmul_avx512.c; what differs:
 *
 * - 64 columns at a time. A 16-bit lane of 32 bytes holds the codes of columns 4j..4j+3. There is no 16-bit table look-up, but a
 *   byte shuffle whose index sits in the high byte (index 0 in the low byte gives code 0, which is 0) makes 256 * 2 * e2m1.
 *   32-bit sums stay below 2^31: 12 * 256 * 32767 * 8 products.
 * - y = x_scale * global_scale * 0.5 * sum over blocks of (e4m3 scale * 2^-8) * (sum of 256 * 2 * e2m1 * q). */
#include <immintrin.h>
#include <math.h>

#include "kernel/simd/rung.h"

enum { CHUNK = 64, HEADER = 64 };

static size_t chunks_of(int cols)
{
    return ((size_t)cols + CHUNK - 1) / CHUNK;
}

static size_t act_bytes(ns_dtype w, int cols)
{
    if (w == NS_NVFP4)
        return (HEADER + chunks_of(cols) * CHUNK * sizeof(int16_t) + 63) / 64 * 64;
    return ((size_t)cols + 15) / 16 * 16 * sizeof(float);
}

static void pack_nvfp4(const float *x, int cols, void *out)
{
    float amax = 0.0f;
    bool bad = false;
    for (int i = 0; i < cols; i++) {
        float v = fabsf(x[i]);
        bad |= !(v < INFINITY);
        amax = v > amax ? v : amax;
    }
    *(float *)out = bad ? NAN : amax / 32767.0f;
    float inv = amax > 0.0f && !bad ? 32767.0f / amax : 0.0f;
    int16_t *q = (int16_t *)((char *)out + HEADER);
    memset(q, 0, chunks_of(cols) * CHUNK * sizeof *q);
    if (inv == 0.0f)
        return;
    for (int i = 0; i < cols; i++) /* chunk, column mod 4, column div 4 */
        q[i / CHUNK * CHUNK + i % 4 * 16 + i % CHUNK / 4] = (int16_t)_mm_cvtss_si32(_mm_set_ss(x[i] * inv));
}

static void pack_float(ns_dtype w, const float *x, int cols, float *out)
{
    size_t padded = act_bytes(w, cols) / sizeof(float);
    if (w != NS_BF16) {
        memcpy(out, x, (size_t)cols * sizeof *x);
        memset(out + cols, 0, (padded - (size_t)cols) * sizeof *x);
        for (size_t i = 0; w == NS_F8_E4M3 && i < padded; i++)
            out[i] *= E4M3_HALF;
        return;
    }
    for (size_t i = 0; i < padded; i++) { /* 8 even columns, then 8 odd ones */
        size_t from = i / 16 * 16 + i % 8 * 2 + i % 16 / 8;
        out[i] = from < (size_t)cols ? x[from] : 0.0f;
    }
}

static void act_pack(ns_dtype w, const float *x, int cols, void *out)
{
    if (w == NS_NVFP4)
        pack_nvfp4(x, cols, out);
    else
        pack_float(w, x, cols, out);
}

static float reduce(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* ---- NVFP4 ---- */

/* Four E4M3 block scales times 2^-8, each in two neighbouring lanes; the NaN code becomes NaN. */
static inline __m256 block_scales(const uint8_t *p, int n)
{
    uint32_t u = 0;
    if (n == 4)
        memcpy(&u, p, 4);
    else
        memcpy(&u, p, (size_t)n);
    __m128i b = _mm_cvtsi32_si128((int)u);
    __m128i h = _mm_cvtepu8_epi16(_mm_unpacklo_epi8(b, b));
    h = _mm_and_si128(_mm_srai_epi16(_mm_slli_epi16(h, 8), 1), _mm_set1_epi16((short)0xbfff));
    const __m128i top = _mm_set1_epi16(0x3f80);
    h = _mm_or_si128(h, _mm_and_si128(_mm_cmpeq_epi16(_mm_and_si128(h, top), top), _mm_set1_epi16(0x7e00)));
    return _mm256_cvtph_ps(h);
}

static inline __attribute__((always_inline)) void nvfp4_decode(__m256i v, __m256i w[4])
{
    const __m256i table = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
    const __m256i high = _mm256_set1_epi16(0x0f00);
    w[0] = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_slli_epi16(v, 8), high));
    w[1] = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_slli_epi16(v, 4), high));
    w[2] = _mm256_shuffle_epi8(table, _mm256_and_si256(v, high));
    w[3] = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(v, 4), high));
}

static inline __attribute__((always_inline)) __m256 dot4(const __m256i w[4], const int16_t *x, __m256 scale, __m256 acc)
{
    __m256i a = _mm256_madd_epi16(w[0], _mm256_loadu_si256((const __m256i *)x));
    __m256i b = _mm256_madd_epi16(w[1], _mm256_loadu_si256((const __m256i *)(x + 16)));
    a = _mm256_add_epi32(a, _mm256_madd_epi16(w[2], _mm256_loadu_si256((const __m256i *)(x + 32))));
    b = _mm256_add_epi32(b, _mm256_madd_epi16(w[3], _mm256_loadu_si256((const __m256i *)(x + 48))));
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(a, b)), scale, acc);
}

static inline __m256i load_codes(const uint8_t *p, int cols)
{
    if (cols >= CHUNK)
        return _mm256_loadu_si256((const __m256i *)p);
    uint8_t t[32] = { 0 };
    memcpy(t, p, (size_t)cols / 2);
    return _mm256_loadu_si256((const __m256i *)t);
}

static inline __attribute__((always_inline)) void prefetch_row(const uint8_t *p, size_t stride)
{
    _mm_prefetch((const char *)p + FAR * stride, _MM_HINT_T1);
    _mm_prefetch((const char *)p + AHEAD * stride, _MM_HINT_T0);
}

/* `rows` (a constant) rows against one vector, decoding on the way. */
static inline __attribute__((always_inline)) void nvfp4_vec(const ns_mat *w, int r, int rows, const char *x, float *y, bool add)
{
    const int16_t *q = (const int16_t *)(x + HEADER);
    __m256 acc[2];
    for (int i = 0; i < rows; i++)
        acc[i] = _mm256_setzero_ps();
    for (int c = 0; c < w->cols; c += CHUNK) {
        int left = w->cols - c;
        for (int i = 0; i < rows; i++) {
            __m256i wv[4];
            const uint8_t *p = w->data + (size_t)(r + i) * w->stride + (size_t)c / 2;
            nvfp4_decode(load_codes(p, left), wv);
            prefetch_row(p, w->stride);
            __m256 s = block_scales(w->scale + (size_t)(r + i) * w->scale_stride + (size_t)c / 16, left >= CHUNK ? 4 : left / 16);
            acc[i] = dot4(wv, q + c, s, acc[i]);
        }
    }
    float f = *(const float *)x * w->global_scale * 0.5f;
    for (int i = 0; i < rows; i++)
        y[i] = (add ? y[i] : 0.0f) + reduce(acc[i]) * f;
}

/* Several vectors: rows decoded once into scratch in the second-level cache, then met by four vectors at a time. */
enum { SCRATCH = 256 * 1024, TILE = 4, DECODED = 160 /* bytes per chunk: 4 weight vectors, 8 scales */ };

static void nvfp4_decode_row(const ns_mat *w, int r, char *out)
{
    const uint8_t *p = w->data + (size_t)r * w->stride, *s = w->scale + (size_t)r * w->scale_stride;
    for (int c = 0; c < w->cols; c += CHUNK, out += DECODED) {
        int left = w->cols - c;
        __m256i wv[4];
        nvfp4_decode(load_codes(p + c / 2, left), wv);
        prefetch_row(p + c / 2, w->stride);
        for (int j = 0; j < 4; j++)
            _mm256_store_si256((__m256i *)(out + 32 * j), wv[j]);
        _mm256_store_ps((float *)(out + 128), block_scales(s + c / 16, left >= CHUNK ? 4 : left / 16));
    }
}

static inline __attribute__((always_inline)) void nvfp4_tile(const char *const *row, int rows, size_t n_chunks, const char *const *x, int m,
                                                             float f, float *y, size_t ldy, bool add)
{
    __m256 acc[2][TILE];
    for (int i = 0; i < rows; i++)
        for (int t = 0; t < m; t++)
            acc[i][t] = _mm256_setzero_ps();
    for (size_t c = 0; c < n_chunks; c++)
        for (int i = 0; i < rows; i++) {
            const char *p = row[i] + c * DECODED;
            __m256i wv[4];
            for (int j = 0; j < 4; j++)
                wv[j] = _mm256_load_si256((const __m256i *)(p + 32 * j));
            __m256 s = _mm256_load_ps((const float *)(p + 128));
            for (int t = 0; t < m; t++)
                acc[i][t] = dot4(wv, (const int16_t *)(x[t] + HEADER) + c * CHUNK, s, acc[i][t]);
        }
    for (int t = 0; t < m; t++)
        for (int i = 0; i < rows; i++) {
            float *o = y + (size_t)t * ldy + (size_t)i;
            *o = (add ? *o : 0.0f) + reduce(acc[i][t]) * (f * *(const float *)x[t]);
        }
}

static void nvfp4_batch(const ns_mat *w, int row0, int rows, const char *x, size_t stride, const int *idx, int m, float *y, size_t ldy,
                        bool add)
{
    _Alignas(64) char scratch[SCRATCH];
    size_t n_chunks = chunks_of(w->cols), row_bytes = n_chunks * DECODED;
    int block = (int)(SCRATCH / row_bytes);
    float f = w->global_scale * 0.5f;
    for (int r0 = 0; r0 < rows; r0 += block) {
        int n = rows - r0 < block ? rows - r0 : block;
        for (int r = 0; r < n; r++)
            nvfp4_decode_row(w, row0 + r0 + r, scratch + (size_t)r * row_bytes);
        for (int t0 = 0; t0 < m;) {
            const char *xt[TILE];
            int mt = m - t0 < TILE ? m - t0 : TILE;
            for (int t = 0; t < mt; t++)
                xt[t] = x + (size_t)(idx ? idx[t0 + t] : t0 + t) * stride;
            float *yt = y + (size_t)t0 * ldy + (size_t)r0;
            int r = 0;
            for (; r + 2 <= n; r += 2) {
                const char *pair[2] = { scratch + (size_t)r * row_bytes, scratch + (size_t)(r + 1) * row_bytes };
                float *out = yt + r;
                switch (mt) {
                case 4: nvfp4_tile(pair, 2, n_chunks, xt, 4, f, out, ldy, add); break;
                case 3: nvfp4_tile(pair, 2, n_chunks, xt, 3, f, out, ldy, add); break;
                case 2: nvfp4_tile(pair, 2, n_chunks, xt, 2, f, out, ldy, add); break;
                default: nvfp4_tile(pair, 2, n_chunks, xt, 1, f, out, ldy, add); break;
                }
            }
            const char *last = scratch + (size_t)r * row_bytes;
            for (int t = 0; r < n && t < mt; t++)
                nvfp4_tile(&last, 1, n_chunks, xt + t, 1, f, yt + r + (size_t)t * ldy, ldy, add);
            t0 += mt;
        }
    }
}

static void nvfp4_matmul(const ns_mat *w, int row0, int rows, const char *x, size_t stride, const int *idx, int m, float *y, size_t ldy,
                         bool add)
{
    if (m > 1 && chunks_of(w->cols) * DECODED <= SCRATCH) {
        nvfp4_batch(w, row0, rows, x, stride, idx, m, y, ldy, add);
        return;
    }
    for (int t = 0; t < m; t++) {
        const char *xt = x + (size_t)(idx ? idx[t] : t) * stride;
        float *yt = y + (size_t)t * ldy;
        int r = 0;
        for (; r + 2 <= rows; r += 2)
            nvfp4_vec(w, row0 + r, 2, xt, yt + r, add);
        if (r < rows)
            nvfp4_vec(w, row0 + r, 1, xt, yt + r, add);
    }
}

/* ---- the float family ---- */

/* 16 columns of a row, widened, in the order of the packed activations. nan: bytes become 255 where E4M3's NaN stands. */
static inline __attribute__((always_inline)) void load16(ns_dtype t, const uint8_t *p, __m256 v[2], __m128i *nan)
{
    if (t == NS_F32) {
        v[0] = _mm256_loadu_ps((const float *)p);
        v[1] = _mm256_loadu_ps((const float *)(p + 32));
    } else if (t == NS_BF16) {
        __m256i u = _mm256_loadu_si256((const __m256i *)p);
        v[0] = _mm256_castsi256_ps(_mm256_slli_epi32(u, 16));
        v[1] = _mm256_castsi256_ps(_mm256_and_si256(u, _mm256_set1_epi32((int)0xffff0000)));
    } else if (t == NS_F16) {
        v[0] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
        v[1] = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p + 16)));
    } else {
        const __m128i seven = _mm_set1_epi8(0x7f), u = _mm_loadu_si128((const __m128i *)p);
        const __m256i fields = _mm256_set1_epi32((int)0x87ffffff);
        *nan = _mm_or_si128(*nan, _mm_cmpeq_epi8(_mm_and_si128(u, seven), seven));
        v[0] = _mm256_castsi256_ps(_mm256_and_si256(_mm256_slli_epi32(_mm256_cvtepi8_epi32(u), 20), fields));
        v[1] = _mm256_castsi256_ps(_mm256_and_si256(_mm256_slli_epi32(_mm256_cvtepi8_epi32(_mm_srli_si128(u, 8)), 20), fields));
    }
}

static inline __attribute__((always_inline)) void load_cols(ns_dtype t, const uint8_t *p, int left, __m256 v[2], __m128i *nan)
{
    if (left >= 16) {
        load16(t, p, v, nan);
        return;
    }
    uint8_t tail[64] = { 0 };
    memcpy(tail, p, (size_t)left * ns_dtype_bits(t) / 8);
    load16(t, tail, v, nan);
}

static inline __attribute__((always_inline)) void float_tile(ns_dtype t, const ns_mat *w, int r, int rows, const char *const *x, int m,
                                                             float *y, size_t ldy, bool add)
{
    __m256 acc[4][4];
    __m128i nan[4];
    for (int i = 0; i < rows; i++) {
        nan[i] = _mm_setzero_si128();
        for (int j = 0; j < m; j++)
            acc[i][j] = _mm256_setzero_ps();
    }
    size_t step = ns_dtype_bits(t) * 2; /* bytes of 16 columns */
    const uint8_t *p = w->data + (size_t)r * w->stride;
    for (int c = 0; c < w->cols; c += 16, p += step) {
        __m256 wv[4][2];
        for (int i = 0; i < rows; i++) {
            load_cols(t, p + (size_t)i * w->stride, w->cols - c, wv[i], &nan[i]);
            if ((size_t)c / 16 * step % 64 == 0)
                prefetch_row(p + (size_t)i * w->stride, w->stride);
        }
        for (int j = 0; j < m; j++) {
            const float *xj = (const float *)x[j] + c;
            __m256 x0 = _mm256_loadu_ps(xj), x1 = _mm256_loadu_ps(xj + 8);
            for (int i = 0; i < rows; i++)
                acc[i][j] = _mm256_fmadd_ps(wv[i][1], x1, _mm256_fmadd_ps(wv[i][0], x0, acc[i][j]));
        }
    }
    for (int i = 0; i < rows; i++) {
        float f = w->global_scale * (t != NS_F8_E4M3 ? 1.0f : _mm_movemask_epi8(nan[i]) ? NAN : E4M3_HALF);
        for (int j = 0; j < m; j++) {
            float *o = y + (size_t)j * ldy + (size_t)i;
            *o = (add ? *o : 0.0f) + reduce(acc[i][j]) * f;
        }
    }
}

static inline __attribute__((always_inline)) void float_matmul(ns_dtype t, const ns_mat *w, int row0, int rows, const char *x, size_t stride,
                                                               const int *idx, int m, float *y, size_t ldy, bool add)
{
    for (int t0 = 0; t0 < m;) {
        const char *xt[4];
        int mt = m - t0 < 4 ? m - t0 : 4, group = mt == 1 ? 4 : 2, r = 0;
        for (int j = 0; j < mt; j++)
            xt[j] = x + (size_t)(idx ? idx[t0 + j] : t0 + j) * stride;
        float *yt = y + (size_t)t0 * ldy;
        for (; r + group <= rows; r += group)
            switch (mt) {
            case 4: float_tile(t, w, row0 + r, 2, xt, 4, yt + r, ldy, add); break;
            case 3: float_tile(t, w, row0 + r, 2, xt, 3, yt + r, ldy, add); break;
            case 2: float_tile(t, w, row0 + r, 2, xt, 2, yt + r, ldy, add); break;
            default: float_tile(t, w, row0 + r, 4, xt, 1, yt + r, ldy, add); break;
            }
        for (; r < rows; r++)
            for (int j = 0; j < mt; j++)
                float_tile(t, w, row0 + r, 1, xt + j, 1, yt + (size_t)j * ldy + (size_t)r, ldy, add);
        t0 += mt;
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

void ns_ops_fill_avx2(ns_ops *o)
{
    o->name = "avx2";
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
    o->widen_e4m3 = NS_RUNG(widen_e4m3);
}
