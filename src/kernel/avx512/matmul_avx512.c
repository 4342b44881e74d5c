/* Matrix products against stored weights, AVX-512 (F, BW, VL, DQ, VNNI).
 *
 * Float family (F32, F16, BF16, F8_E4M3): weights widen to F32 in registers and meet F32 activations. NVFP4: nvfp4_avx512.c. */
#include "kernel/avx512/avx512.h"

static size_t act_bytes(ns_dtype w, int cols)
{
    if (w == NS_NVFP4)
        return ns_nvfp4_act_bytes_avx512(cols, 16);
    return ((size_t)cols + 31) / 32 * 32 * sizeof(float);
}

static void pack_float(ns_dtype w, const float *x, int cols, float *out)
{
    size_t padded = act_bytes(w, cols) / sizeof(float);
    memcpy(out, x, (size_t)cols * sizeof *x);
    memset(out + cols, 0, (padded - (size_t)cols) * sizeof *x);
    for (size_t i = 0; w == NS_F8_E4M3 && i < padded; i += 16)
        _mm512_storeu_ps(out + i, _mm512_mul_ps(_mm512_loadu_ps(out + i), _mm512_set1_ps(E4M3_HALF)));
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
        ns_nvfp4_act_pack_avx512(x, cols, 16, out);
    else
        pack_float(w, x, cols, out);
}

/* ---- the float family ---- */

/* 32 columns of a row, widened, in the order of the packed activations. nan: gets a bit where E4M3's NaN stands. */
static inline __attribute__((always_inline)) void load32(ns_dtype t, const uint8_t *p, __m512 v[2], __mmask32 *nan)
{
    if (t == NS_F32) {
        v[0] = _mm512_loadu_ps(p);
        v[1] = _mm512_loadu_ps(p + 64);
    } else if (t == NS_BF16) {
        __m512i u = _mm512_loadu_si512(p);
        v[0] = _mm512_castsi512_ps(_mm512_slli_epi32(u, 16));
        v[1] = _mm512_castsi512_ps(_mm512_and_si512(u, _mm512_set1_epi32((int)0xffff0000)));
    } else if (t == NS_F16) {
        v[0] = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
        v[1] = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p + 32)));
    } else {
        const __m256i seven = _mm256_set1_epi8(0x7f);
        *nan |= _mm256_cmpeq_epi8_mask(_mm256_and_si256(_mm256_loadu_si256((const __m256i *)p), seven), seven);
        for (int i = 0; i < 2; i++) {
            __m512i u = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(p + 16 * i)));
            v[i] = _mm512_castsi512_ps(_mm512_and_si512(_mm512_slli_epi32(u, 20), _mm512_set1_epi32((int)0x87ffffff)));
        }
    }
}

static inline __attribute__((always_inline)) void float_step(ns_dtype t, const uint8_t *p, size_t stride, int rows, const char *const *x, int m,
                                                             size_t c, __m512 acc[4][4], __mmask32 nan[4])
{
    __m512 wv[4][2];
    for (int i = 0; i < rows; i++)
        load32(t, p + (size_t)i * stride, wv[i], &nan[i]);
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
    __mmask32 nan[4] = { 0 };
    for (int j = 0; j < m; j++)
        for (int i = 0; i < rows; i++)
            acc[j][i] = _mm512_setzero_ps();
    size_t step = ns_dtype_bits(t) * 4, c = 0; /* step: bytes of 32 columns */
    for (; c + 32 <= cols; c += 32, p += step) {
        for (int i = 0; i < rows; i++)
            for (size_t line = 0; fetch && line < step; line += 64) {
                _mm_prefetch((const char *)p + (size_t)(i + FAR) * stride + line, _MM_HINT_T1);
                _mm_prefetch((const char *)p + (size_t)(i + AHEAD) * stride + line, _MM_HINT_T0);
            }
        float_step(t, p, stride, rows, x, m, at + c, acc, nan);
    }
    if (c < cols) { /* the tail from a copy with zeros behind it: reading on would leave the matrix */
        uint8_t tail[4][128] = { { 0 } };
        for (int i = 0; i < rows; i++)
            memcpy(tail[i], p + (size_t)i * stride, ns_dtype_row_bytes(t, cols - c));
        float_step(t, tail[0], sizeof tail[0], rows, x, m, at + c, acc, nan);
    }
    for (int i = 0; t == NS_F8_E4M3 && i < rows; i++)
        for (int j = 0; nan[i] && j < m; j++)
            acc[j][i] = _mm512_set1_ps(NAN);
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
    float f = w->global_scale * (t == NS_F8_E4M3 ? E4M3_HALF : 1.0f);
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

static inline __attribute__((always_inline)) void float_matmul(ns_dtype t, const ns_mat *w, int row0, int rows, const char *x, size_t stride,
                                                               const int *idx, int m, float *y, size_t ldy, bool add)
{
    int step = m > 4 ? COLUMNS : w->cols;
    for (int c = 0; c < w->cols; c += step) {
        ns_mat part = *w;
        part.data += ns_dtype_row_bytes(t, (size_t)c);
        part.cols = w->cols - c < step ? w->cols - c : step;
        float_block(t, &part, row0, rows, x + (size_t)c * sizeof(float), stride, idx, m, y, ldy, add || c > 0);
    }
}

static void matmul(const ns_mat *w, int row0, int rows, const void *x, const int *idx, int m, float *y, size_t ldy, bool add)
{
    size_t stride = act_bytes(w->dtype, w->cols);
    switch (w->dtype) {
    case NS_NVFP4: ns_nvfp4_matmul_avx512(w, row0, rows, x, idx, m, y, ldy, add); break;
    case NS_F32: float_matmul(NS_F32, w, row0, rows, x, stride, idx, m, y, ldy, add); break;
    case NS_F16: float_matmul(NS_F16, w, row0, rows, x, stride, idx, m, y, ldy, add); break;
    case NS_BF16: float_matmul(NS_BF16, w, row0, rows, x, stride, idx, m, y, ldy, add); break;
    default: float_matmul(NS_F8_E4M3, w, row0, rows, x, stride, idx, m, y, ldy, add); break;
    }
}

/* ---- the same with 8-bit activations for NVFP4 ---- */

static size_t act_bytes8(ns_dtype w, int cols)
{
    return w == NS_NVFP4 ? ns_nvfp4_act_bytes_avx512(cols, 8) : act_bytes(w, cols);
}

static void act_pack8(ns_dtype w, const float *x, int cols, void *out)
{
    if (w == NS_NVFP4)
        ns_nvfp4_act_pack_avx512(x, cols, 8, out);
    else
        act_pack(w, x, cols, out);
}

static void matmul8(const ns_mat *w, int row0, int rows, const void *x, const int *idx, int m, float *y, size_t ldy, bool add)
{
    if (w->dtype == NS_NVFP4)
        ns_nvfp4_matmul8_avx512(w, row0, rows, x, idx, m, y, ldy, add);
    else
        matmul(w, row0, rows, x, idx, m, y, ldy, add);
}

void ns_ops_act8_avx512(ns_ops *o)
{
    o->name = "avx512, 8-bit activations";
    o->act_bytes = act_bytes8;
    o->act_pack = act_pack8;
    o->matmul = matmul8;
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
    o->widen_e4m3 = NS_RUNG(widen_e4m3);
}
