/* Matrix products against NVFP4 weights, AVX-512 with VNNI; the arithmetic and the layout of activations: nvfp4_avx512.h. Decoded
 * weights lie in the same way, with scales at the end. `bits`, of an activation, is a constant everywhere: 16 or 8. */
#include "kernel/avx512/nvfp4_avx512.h"

/* E4M3 block scales times 2^-8: the sign and the seven other bits, moved to their places in binary16, whose conversion handles
 * subnormals. The NaN code becomes NaN. */
static inline __attribute__((always_inline)) __m512 block_scales(__m128i b)
{
    __m256i h = _mm256_cvtepu8_epi16(b);
    h = _mm256_and_si256(_mm256_srai_epi16(_mm256_slli_epi16(h, 8), 1), _mm256_set1_epi16((short)0xbfff));
    const __m256i top = _mm256_set1_epi16(0x3f80);
    __mmask16 nan = _mm256_cmpeq_epi16_mask(_mm256_and_si256(h, top), top);
    h = _mm256_mask_mov_epi16(h, nan, _mm256_set1_epi16(0x7e00));
    return _mm512_cvtph_ps(h);
}

/* Vector j of a part: 2 * e2m1 of codes 0..15 in 16 bits (vpermw takes the low five, so the table repeats); the same and 12 more in
 * bytes. */
static inline __attribute__((always_inline)) __m512i look_up(const __m512i half[2], int j, int bits)
{
    if (bits == 8) {
        const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
        return _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(half[j / 2], j % 2 * 4), _mm512_set1_epi8(15)));
    }
    const __m512i table = _mm512_set_epi16(-12, -8, -6, -4, -3, -2, -1, 0, 12, 8, 6, 4, 3, 2, 1, 0, -12, -8, -6, -4, -3, -2, -1, 0, 12, 8, 6,
                                           4, 3, 2, 1, 0);
    return _mm512_permutexvar_epi16(_mm512_srli_epi16(half[j / 4], j % 4 * 4), table);
}

/* A part (wide or not, a constant) at codes p and scales s, zeros where `left` ends. Whole parts take plain loads: with
 * masked ones a core streams 5 GB/s here, with plain ones 15 to 18. half: the codes of even and odd 32-bit lanes of a wide part. */
static inline __attribute__((always_inline)) __m128i load_codes(const uint8_t *p, const uint8_t *s, int left, bool wide, __m512i half[2])
{
    if (!wide) {
        __mmask64 codes = left >= NARROW ? ~(__mmask64)0 : ((__mmask64)1 << (left / 2)) - 1;
        half[0] = _mm512_maskz_loadu_epi8(codes, p);
        return _mm_maskz_loadu_epi8((__mmask16)((1u << (left / 16)) - 1), s);
    }
    __m512i a = _mm512_loadu_si512(p), b;
    __m128i scales;
    if (left >= WIDE) {
        b = _mm512_loadu_si512(p + 64);
        scales = _mm_loadu_si128((const __m128i *)s);
    } else {
        b = _mm512_maskz_loadu_epi8(((__mmask64)1 << ((left - NARROW) / 2)) - 1, p + 64);
        scales = _mm_maskz_loadu_epi8((__mmask16)((1u << (left / 16)) - 1), s);
    }
    half[0] = _mm512_permutex2var_epi32(a, even_lanes(), b);
    half[1] = _mm512_permutex2var_epi32(a, _mm512_add_epi32(even_lanes(), _mm512_set1_epi32(1)), b);
    return scales;
}

static inline __attribute__((always_inline)) void prefetch_row(const ns_mat *w, const uint8_t *p, const uint8_t *s, int c)
{
    _mm_prefetch((const char *)p + FAR * w->stride, _MM_HINT_T1);
    _mm_prefetch((const char *)p + 64 + FAR * w->stride, _MM_HINT_T1);
    _mm_prefetch((const char *)p + AHEAD * w->stride, _MM_HINT_T0);
    _mm_prefetch((const char *)p + 64 + AHEAD * w->stride, _MM_HINT_T0);
    if (c % (4 * WIDE) == 0)
        _mm_prefetch((const char *)s + AHEAD * w->scale_stride, _MM_HINT_T0);
}

/* ---- a tile of vectors against a group of rows ---- */

enum { TILE = 7, GROUP = 4 };

/* The sums of a part become part of the accumulators. scales: of the activations, from x[t]. */
static inline __attribute__((always_inline)) void add_part(__m512 acc[TILE][GROUP], __m512i sum[TILE][GROUP], int i, __m512 scale, int m,
                                                           const char *const *x, size_t scales, int bits)
{
    /* to a scale that is 0 or NaN no exponent may be added */
    __mmask16 k = _mm512_cmp_ps_mask(scale, _mm512_setzero_ps(), _CMP_NEQ_OQ);
    __m512i s = _mm512_castps_si512(scale);
    UNROLL
    for (int t = 0; t < m; t++) {
        __m512 both = bits == 8 ? _mm512_mul_ps(scale, _mm512_load_ps(x[t] + scales))
                                : _mm512_castsi512_ps(_mm512_mask_add_epi32(s, k, s, _mm512_load_si512(x[t] + scales)));
        acc[t][i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t][i]), both, acc[t][i]);
    }
}

/* sum[t][i] += w[i] * vector j of a part that lies `at` bytes into x[t] */
static inline __attribute__((always_inline)) void add_products(__m512i sum[TILE][GROUP], const __m512i *w, int rows, const char *const *x, size_t at,
                                                               int j, int m, int bits)
{
    UNROLL
    for (int t = 0; t < m; t++) {
        __m512i xv = _mm512_load_si512(x[t] + at + (size_t)j * 64);
        if (rows > 1)
            __asm__("" : "+v"(xv)); /* a memory operand of several rows would be loaded as often */
        UNROLL
        for (int i = 0; i < rows; i++)
            sum[t][i] = bits == 8 ? _mm512_dpbusd_epi32(sum[t][i], w[i], xv) : _mm512_dpwssd_epi32(sum[t][i], w[i], xv);
    }
}

/* The two lanes that a block has in a narrow part become the one that it would have in a wide one: integers, so nothing is rounded, and
 * zeros behind the columns change no bit. */
static inline __attribute__((always_inline)) void fold(__m512i sum[TILE][GROUP], int rows, int m)
{
    UNROLL
    for (int t = 0; t < m; t++)
        UNROLL
        for (int i = 0; i < rows; i++) {
            __m512i both = _mm512_add_epi32(sum[t][i], _mm512_shuffle_epi32(sum[t][i], _MM_PERM_CDAB));
            sum[t][i] = _mm512_maskz_permutexvar_epi32(0x00ff, even_lanes(), both);
        }
}

static inline __attribute__((always_inline)) __m512i first_sum(const char *x, size_t starts, int bits)
{
    return bits == 8 ? _mm512_load_si512(x + starts) : _mm512_setzero_si512();
}

/* One part of `rows` rows against m vectors, both constants. The sums of all pairs grow side by side: each is a chain that waits four
 * cycles at every link. keep, where given, gets the decoded rows. */
static inline __attribute__((always_inline)) void part(const ns_mat *w, int r, int rows, int c, int left, bool wide, const char *const *x,
                                                       size_t at, int m, __m512 acc[TILE][GROUP], char *keep, int bits)
{
    int n = part_vectors(wide ? WIDE : NARROW, bits);
    size_t extra = at + (size_t)n * 64, scales_at = extra + (size_t)(part_extra(bits) - 1) * 64;
    __m512i half[GROUP][2], sum[TILE][GROUP];
    __m128i scales[GROUP];
    UNROLL
    for (int i = 0; i < rows; i++) {
        const uint8_t *p = w->data + (size_t)(r + i) * w->stride + (size_t)c / 2;
        const uint8_t *s = w->scale + (size_t)(r + i) * w->scale_stride + (size_t)c / 16;
        prefetch_row(w, p, s, c);
        scales[i] = load_codes(p, s, left, wide, half[i]);
        UNROLL
        for (int t = 0; t < m; t++)
            sum[t][i] = first_sum(x[t], extra, bits);
    }
    UNROLL
    for (int j = 0; j < n; j++) {
        __m512i wv[GROUP];
        UNROLL
        for (int i = 0; i < rows; i++) {
            wv[i] = look_up(half[i], j, bits);
            if (keep)
                _mm512_store_si512(keep + (size_t)(i * (n + 1) + j) * 64, wv[i]);
        }
        add_products(sum, wv, rows, x, at, j, m, bits);
    }
    if (!wide)
        fold(sum, rows, m);
    UNROLL
    for (int i = 0; i < rows; i++) {
        __m512 scale = block_scales(scales[i]);
        if (keep)
            _mm512_store_ps(keep + (size_t)(i * (n + 1) + n) * 64, scale);
        add_part(acc, sum, i, scale, m, x, scales_at, bits);
    }
}

/* The same for two rows that were kept. */
static inline __attribute__((always_inline)) void kept_part(const char *w, bool wide, const char *const *x, size_t at, int m,
                                                            __m512 acc[TILE][GROUP], int bits)
{
    int n = part_vectors(wide ? WIDE : NARROW, bits);
    size_t extra = at + (size_t)n * 64, scales_at = extra + (size_t)(part_extra(bits) - 1) * 64;
    __m512i sum[TILE][GROUP];
    UNROLL
    for (int t = 0; t < m; t++)
        sum[t][0] = sum[t][1] = first_sum(x[t], extra, bits);
    UNROLL
    for (int j = 0; j < n; j++) {
        __m512i wv[2] = { _mm512_load_si512(w + (size_t)j * 64), _mm512_load_si512(w + (size_t)(n + 1 + j) * 64) };
        add_products(sum, wv, 2, x, at, j, m, bits);
    }
    if (!wide)
        fold(sum, 2, m);
    UNROLL
    for (int i = 0; i < 2; i++)
        add_part(acc, sum, i, _mm512_load_ps(w + (size_t)(i * (n + 1) + n) * 64), m, x, scales_at, bits);
}

enum kept { NONE, KEEP, KEPT }; /* rows are decoded; decoded and kept; taken from where they were kept */

/* Columns from .. to - 1, whole parts unless they are the last. Before the last, the accumulators wait in `sums`. */
static inline __attribute__((always_inline)) void tile(const ns_mat *w, int r, int rows, const char *const *x, int m, float *y, size_t ldy,
                                                       bool add, enum kept how, char *kept, int bits, int from, int to, float *sums)
{
    int n = part_vectors(WIDE, bits);
    __m512 acc[TILE][GROUP];
    UNROLL
    for (int t = 0; t < m; t++)
        UNROLL
        for (int i = 0; i < rows; i++)
            acc[t][i] = from > 0 ? _mm512_load_ps(sums + (t * rows + i) * 16) : _mm512_setzero_ps();
    int c = from, left;
    size_t at = HEADER + (size_t)(from / WIDE * (n + part_extra(bits))) * 64;
    if (how != NONE)
        kept += from / WIDE * 2 * (n + 1) * 64;
    for (; c + WIDE <= to; c += WIDE, at += (size_t)(n + part_extra(bits)) * 64) {
        if (how == KEPT)
            kept_part(kept, true, x, at, m, acc, bits);
        else
            part(w, r, rows, c, WIDE, true, x, at, m, acc, how == KEEP ? kept : NULL, bits);
        if (how != NONE)
            kept += 2 * (n + 1) * 64;
    }
    if (to < w->cols) {
        UNROLL
        for (int t = 0; t < m; t++)
            UNROLL
            for (int i = 0; i < rows; i++)
                _mm512_store_ps(sums + (t * rows + i) * 16, acc[t][i]);
        return;
    }
    left = w->cols - c;
    if (how == KEPT && left > NARROW)
        kept_part(kept, true, x, at, m, acc, bits);
    else if (how == KEPT && left > 0)
        kept_part(kept, false, x, at, m, acc, bits);
    else if (left > NARROW)
        part(w, r, rows, c, left, true, x, at, m, acc, how == KEEP ? kept : NULL, bits);
    else if (left > 0)
        part(w, r, rows, c, left, false, x, at, m, acc, how == KEEP ? kept : NULL, bits);
    UNROLL
    for (int t = 0; t < m; t++)
        finish(y + (size_t)t * ldy, acc[t], rows, w->global_scale * 128.0f * *(const float *)x[t], add);
}

/* m (1..TILE, a constant) vectors against all rows, `group` at a time. */
static inline __attribute__((always_inline)) void tiles(const ns_mat *w, int row0, int rows, int group, const char *const *x, int m, float *y,
                                                        size_t ldy, bool add, int bits)
{
    int r = 0;
    for (; r + group <= rows; r += group)
        tile(w, row0 + r, group, x, m, y + r, ldy, add, NONE, NULL, bits, 0, w->cols, NULL);
    for (; r < rows; r++)
        for (int t = 0; t < m; t++)
            tile(w, row0 + r, 1, x + t, 1, y + (size_t)t * ldy + (size_t)r, ldy, add, NONE, NULL, bits, 0, w->cols, NULL);
}

/* What decoded rows are kept in: the rows in pairs, part by part, in the second-level cache; and a tile's accumulators. */
enum { SCRATCH = 400 * 1024, KEPT_ROWS = 128, COLUMNS = 4 * WIDE };
struct scratch {
    _Alignas(64) char rows[SCRATCH];
    _Alignas(64) float sums[KEPT_ROWS * TILE * 16];
};

/* The same for rows that are kept, an even number. Once they are, they are taken in blocks of columns, so that what a block needs of seven
 * vectors stays in the first-level cache (those of 8 bits do anyway); out of memory whole rows come faster. */
static inline __attribute__((always_inline)) void kept_tiles(const ns_mat *w, int row0, int rows, const char *const *x, int m, float *y, size_t ldy,
                                                             bool add, enum kept how, struct scratch *s, int bits)
{
    size_t step = 2 * parts_bytes(w->cols, bits, 1);
    for (int from = 0, to; from < w->cols; from = to) {
        to = how == KEPT && bits == 16 && w->cols - from > COLUMNS ? from + COLUMNS : w->cols;
        for (int r = 0; r < rows; r += 2)
            tile(w, row0 + r, 2, x, m, y + r, ldy, add, how, s->rows + (size_t)(r / 2) * step, bits, from, to, s->sums + r * TILE * 16);
    }
}

static inline __attribute__((always_inline)) void lone_tile(const ns_mat *w, int row0, int rows, const char *const *x, int m, float *y, size_t ldy,
                                                            bool add, int bits)
{
    switch (m) {
    case 7: tiles(w, row0, rows, 2, x, 7, y, ldy, add, bits); break;
    case 6: tiles(w, row0, rows, 2, x, 6, y, ldy, add, bits); break;
    case 5: tiles(w, row0, rows, 2, x, 5, y, ldy, add, bits); break;
    case 4: tiles(w, row0, rows, 2, x, 4, y, ldy, add, bits); break;
    case 3: tiles(w, row0, rows, 2, x, 3, y, ldy, add, bits); break;
    case 2: tiles(w, row0, rows, 4, x, 2, y, ldy, add, bits); break;
    default: tiles(w, row0, rows, 4, x, 1, y, ldy, add, bits); break;
    }
}

/* A multiple of two rows, m > 2: TILE vectors or fewer out of more than TILE. */
static inline __attribute__((always_inline)) void kept_tile(const ns_mat *w, int row0, int rows, const char *const *x, int m, float *y, size_t ldy,
                                                            bool add, enum kept how, struct scratch *s, int bits)
{
    switch (m) {
    case 7: kept_tiles(w, row0, rows, x, 7, y, ldy, add, how, s, bits); break;
    case 6: kept_tiles(w, row0, rows, x, 6, y, ldy, add, how, s, bits); break;
    case 5: kept_tiles(w, row0, rows, x, 5, y, ldy, add, how, s, bits); break;
    case 4: kept_tiles(w, row0, rows, x, 4, y, ldy, add, how, s, bits); break;
    default: kept_tiles(w, row0, rows, x, 3, y, ldy, add, how, s, bits); break;
    }
}

/* Vectors in tiles of even shares: 6 + 1 would be slower than 4 + 3. Of several tiles, the first keeps the decoded rows. */
static inline __attribute__((always_inline)) void vectors(const ns_mat *w, int row0, int rows, const char *x, size_t stride, const int *idx, int m,
                                                          float *y, size_t ldy, bool add, struct scratch *scratch, int bits)
{
    int left = (m + TILE - 1) / TILE;
    for (int t0 = 0, mt; t0 < m; t0 += mt, left--) {
        const char *xt[TILE];
        mt = (m - t0 + left - 1) / left;
        for (int t = 0; t < mt; t++)
            xt[t] = x + (size_t)(idx ? idx[t0 + t] : t0 + t) * stride;
        float *yt = y + (size_t)t0 * ldy;
        if (!scratch)
            lone_tile(w, row0, rows, xt, mt, yt, ldy, add, bits);
        else if (t0 == 0)
            kept_tile(w, row0, rows, xt, mt, yt, ldy, add, KEEP, scratch, bits);
        else
            kept_tile(w, row0, rows, xt, mt, yt, ldy, add, KEPT, scratch, bits);
    }
}

static inline __attribute__((always_inline)) void product(const ns_mat *w, int row0, int rows, const char *x, const int *idx, int m, float *y,
                                                          size_t ldy, bool add, int bits)
{
    struct scratch scratch;
    size_t stride = ns_nvfp4_act_bytes_avx512(w->cols, bits);
    int r = 0, block = (int)(SCRATCH / parts_bytes(w->cols, bits, 1) / 2 * 2);
    block = block < KEPT_ROWS ? block : KEPT_ROWS;
    for (int n; m > TILE && block > 0 && rows - r > 1; r += n) {
        n = rows - r < block ? (rows - r) / 2 * 2 : block;
        vectors(w, row0 + r, n, x, stride, idx, m, y + r, ldy, add, &scratch, bits);
    }
    if (r < rows) /* few vectors, a row without a partner, or rows too long to be kept */
        vectors(w, row0 + r, rows - r, x, stride, idx, m, y + r, ldy, add, NULL, bits);
}

void ns_nvfp4_matmul_avx512(const ns_mat *w, int row0, int rows, const char *x, const int *idx, int m, float *y, size_t ldy, bool add)
{
    product(w, row0, rows, x, idx, m, y, ldy, add, 16);
}

void ns_nvfp4_matmul8_avx512(const ns_mat *w, int row0, int rows, const char *x, const int *idx, int m, float *y, size_t ldy, bool add)
{
    product(w, row0, rows, x, idx, m, y, ldy, add, 8);
}
