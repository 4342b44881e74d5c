/* Matrix products against NVFP4 weights, AVX-512 with VNNI.
 *
 * The codes are integers (2 x e2m1 is 0 1 2 3 4 6 8 12), so the dot product of a block of 16 is exact in integers once the
 * activations are. Each block of 16 activations becomes 16-bit integers with a power of two as its scale: |error| <= the block's
 * largest 2^-15 (half a step; the largest takes 15 to 16 bits), and a block means the same whatever else the row holds.
 *
 * y = 2^(K-14) * global_scale * 128 * sum over blocks of (e4m3 scale * 2^-8) * 2^e * (sum of 2*e2m1 * q):
 * 128 = 2^8 / 2; 2^K <= the vector's largest < 2^(K+1); e <= 0 belongs to the block of activations.
 *
 * Columns are taken in parts. A wide part has 256: one 32-bit lane for each of 16 blocks, in which eight vpdpwssd add up the 16
 * products; then one conversion and one multiply-add with the scales. What is left over, if it is 128 columns or fewer, is a
 * narrow part: two lanes for each of 8 blocks, four vpdpwssd.
 *
 * A 16-bit lane of stored codes holds columns 4j..4j+3, so four table look-ups (vpermw takes the lane's low five bits; the table
 * repeats after 16) give vectors of weights whose columns are strided by 4; wide parts first sort 32-bit lanes into even and odd
 * ones, the halves of the blocks. Activations are packed in the same order: per part 4 or 8 vectors, then the lanes' e << 23, which
 * is added to the bits of the weights' scale. Decoded weights lie the same way, with scales at the end. */
#include "kernel/avx512/avx512.h"

enum { WIDE = 256, NARROW = 128, HEADER = 64 }; /* columns; bytes before the packed parts, holding 2^(K-14) */

/* Vectors of the part at column c. */
static inline __attribute__((always_inline)) int part_vectors(int left)
{
    return left > NARROW ? 8 : 4;
}

static size_t parts_bytes(int cols)
{
    size_t tail = cols % WIDE == 0 ? 0 : (size_t)part_vectors(cols % WIDE) + 1;
    return 64 * ((size_t)(cols / WIDE) * 9 + tail);
}

size_t ns_nvfp4_act_bytes_avx512(int cols)
{
    return HEADER + parts_bytes(cols);
}

/* ---- packing activations ---- */

static inline __m512i even_lanes(void)
{
    return _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
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

void ns_nvfp4_act_pack_avx512(const float *x, int cols, void *out)
{
    enum { LEAST = -112 }; /* the exponents below still have a reciprocal */
    __m512 most = _mm512_setzero_ps();
    __mmask16 bad = 0;
    for (int i = 0; i < cols; i += 16) {
        __m512 v = _mm512_abs_ps(load_some(x + i, cols - i));
        bad |= _mm512_cmp_ps_mask(v, _mm512_set1_ps(INFINITY), _CMP_NLT_UQ); /* infinite or NaN */
        most = _mm512_max_ps(most, v);
    }
    memset(out, 0, ns_nvfp4_act_bytes_avx512(cols));
    if (bad) {
        *(float *)out = NAN;
        return;
    }
    int top = exponent(_mm512_reduce_max_ps(most));
    top = top > LEAST ? top : LEAST;
    *(float *)out = ldexpf(1.0f, top - 14);
    int low = top - 64 > LEAST ? top - 64 : LEAST;
    char *o = (char *)out + HEADER;
    for (int c = 0; c < cols; c += WIDE) {
        int n = part_vectors(cols - c), e[16];
        __m512i v[2][4];
        pack_half(x + c, cols - c, low, v[0], e);
        if (n == 4) {
            for (int j = 0; j < 4; j++, o += 64)
                _mm512_store_si512(o, v[0][j]);
            for (int i = 0; i < 16; i++)
                ((int *)o)[i] = (e[i / 2] - top) * (1 << 23);
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

/* ---- weights ---- */

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

/* Vector j of a part. */
static inline __attribute__((always_inline)) __m512i look_up(const __m512i half[2], int j)
{
    /* 2 * e2m1 of codes 0..15, twice */
    const __m512i table = _mm512_set_epi16(-12, -8, -6, -4, -3, -2, -1, 0, 12, 8, 6, 4, 3, 2, 1, 0, -12, -8, -6, -4, -3, -2, -1, 0, 12, 8, 6,
                                           4, 3, 2, 1, 0);
    return _mm512_permutexvar_epi16(_mm512_srli_epi16(half[j / 4], j % 4 * 4), table);
}

/* A part of n vectors (8 or 4, a constant) at codes p and scales s, zeros where `left` ends. Whole parts take plain loads: with
 * masked ones a core streams 5 GB/s here, with plain ones 15 to 18. half: the codes of even and odd 32-bit lanes of a wide part. */
static inline __attribute__((always_inline)) __m128i load_codes(const uint8_t *p, const uint8_t *s, int left, int n, __m512i half[2])
{
    if (n == 4) {
        __mmask64 codes = left >= NARROW ? ~(__mmask64)0 : ((__mmask64)1 << (left / 2)) - 1;
        half[0] = _mm512_maskz_loadu_epi8(codes, p);
        __m128i b = _mm_maskz_loadu_epi8((__mmask16)((1u << (left / 16)) - 1), s);
        return _mm_unpacklo_epi8(b, b);
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
    _mm_prefetch((const char *)p + AHEAD * w->stride, _MM_HINT_T0);
    _mm_prefetch((const char *)p + 64 + AHEAD * w->stride, _MM_HINT_T0);
    if (c % (4 * WIDE) == 0)
        _mm_prefetch((const char *)s + AHEAD * w->scale_stride, _MM_HINT_T0);
}

/* ---- a tile of vectors against a group of rows ---- */

enum { TILE = 7, GROUP = 4 };

/* The sums of a part become part of the accumulators. */
static inline __attribute__((always_inline)) void add_part(__m512 acc[TILE][GROUP], __m512i sum[TILE][GROUP], int i, __m512 scale, int m,
                                                           const char *const *x, size_t exponents)
{
    /* to a scale that is 0 or NaN no exponent may be added */
    __mmask16 k = _mm512_cmp_ps_mask(scale, _mm512_setzero_ps(), _CMP_NEQ_OQ);
    __m512i s = _mm512_castps_si512(scale);
    UNROLL
    for (int t = 0; t < m; t++) {
        __m512 both = _mm512_castsi512_ps(_mm512_mask_add_epi32(s, k, s, _mm512_load_si512(x[t] + exponents)));
        acc[t][i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[t][i]), both, acc[t][i]);
    }
}

/* sum[t][i] += w[i] * vector j of a part that lies `at` bytes into x[t] */
static inline __attribute__((always_inline)) void add_products(__m512i sum[TILE][GROUP], const __m512i *w, int rows, const char *const *x, size_t at,
                                                               int j, int m)
{
    UNROLL
    for (int t = 0; t < m; t++) {
        __m512i xv = _mm512_load_si512(x[t] + at + (size_t)j * 64);
        if (rows > 1)
            __asm__("" : "+v"(xv)); /* a memory operand of several rows would be loaded as often */
        UNROLL
        for (int i = 0; i < rows; i++)
            sum[t][i] = _mm512_dpwssd_epi32(sum[t][i], w[i], xv);
    }
}

/* One part of `rows` rows against m vectors, both constants. The sums of all pairs grow side by side: each is a chain that waits four
 * cycles at every link. keep, where given, gets the decoded rows. */
static inline __attribute__((always_inline)) void part(const ns_mat *w, int r, int rows, int c, int left, int n, const char *const *x, size_t at,
                                                       int m, __m512 acc[TILE][GROUP], char *keep)
{
    __m512i half[GROUP][2], sum[TILE][GROUP];
    __m128i scales[GROUP];
    UNROLL
    for (int i = 0; i < rows; i++) {
        const uint8_t *p = w->data + (size_t)(r + i) * w->stride + (size_t)c / 2;
        const uint8_t *s = w->scale + (size_t)(r + i) * w->scale_stride + (size_t)c / 16;
        prefetch_row(w, p, s, c);
        scales[i] = load_codes(p, s, left, n, half[i]);
        UNROLL
        for (int t = 0; t < m; t++)
            sum[t][i] = _mm512_setzero_si512();
    }
    UNROLL
    for (int j = 0; j < n; j++) {
        __m512i wv[GROUP];
        UNROLL
        for (int i = 0; i < rows; i++) {
            wv[i] = look_up(half[i], j);
            if (keep)
                _mm512_store_si512(keep + (size_t)(i * (n + 1) + j) * 64, wv[i]);
        }
        add_products(sum, wv, rows, x, at, j, m);
    }
    UNROLL
    for (int i = 0; i < rows; i++) {
        __m512 scale = block_scales(scales[i]);
        if (keep)
            _mm512_store_ps(keep + (size_t)(i * (n + 1) + n) * 64, scale);
        add_part(acc, sum, i, scale, m, x, at + (size_t)n * 64);
    }
}

/* The same for two rows that were kept. */
static inline __attribute__((always_inline)) void kept_part(const char *w, int n, const char *const *x, size_t at, int m, __m512 acc[TILE][GROUP])
{
    __m512i sum[TILE][GROUP];
    UNROLL
    for (int t = 0; t < m; t++)
        sum[t][0] = sum[t][1] = _mm512_setzero_si512();
    UNROLL
    for (int j = 0; j < n; j++) {
        __m512i wv[2] = { _mm512_load_si512(w + (size_t)j * 64), _mm512_load_si512(w + (size_t)(n + 1 + j) * 64) };
        add_products(sum, wv, 2, x, at, j, m);
    }
    UNROLL
    for (int i = 0; i < 2; i++)
        add_part(acc, sum, i, _mm512_load_ps(w + (size_t)(i * (n + 1) + n) * 64), m, x, at + (size_t)n * 64);
}

enum kept { NONE, KEEP, KEPT }; /* rows are decoded; decoded and kept; taken from where they were kept */

static inline __attribute__((always_inline)) void tile(const ns_mat *w, int r, int rows, const char *const *x, int m, float *y, size_t ldy,
                                                       bool add, enum kept how, char *kept)
{
    __m512 acc[TILE][GROUP];
    UNROLL
    for (int t = 0; t < m; t++)
        UNROLL
        for (int i = 0; i < rows; i++)
            acc[t][i] = _mm512_setzero_ps();
    int c = 0, left;
    size_t at = HEADER;
    for (; c + WIDE <= w->cols; c += WIDE, at += 9 * 64) {
        if (how == KEPT)
            kept_part(kept, 8, x, at, m, acc);
        else
            part(w, r, rows, c, WIDE, 8, x, at, m, acc, how == KEEP ? kept : NULL);
        kept += 2 * 9 * 64;
    }
    left = w->cols - c;
    if (how == KEPT && left > NARROW)
        kept_part(kept, 8, x, at, m, acc);
    else if (how == KEPT && left > 0)
        kept_part(kept, 4, x, at, m, acc);
    else if (left > NARROW)
        part(w, r, rows, c, left, 8, x, at, m, acc, how == KEEP ? kept : NULL);
    else if (left > 0)
        part(w, r, rows, c, left, 4, x, at, m, acc, how == KEEP ? kept : NULL);
    UNROLL
    for (int t = 0; t < m; t++)
        finish(y + (size_t)t * ldy, acc[t], rows, w->global_scale * 128.0f * *(const float *)x[t], add);
}

/* m (1..TILE, a constant) vectors against all rows, `group` at a time; kept rows lie in pairs, part by part: one stream. */
static inline __attribute__((always_inline)) void tiles(const ns_mat *w, int row0, int rows, int group, const char *const *x, int m, float *y,
                                                        size_t ldy, bool add, enum kept how, char *kept)
{
    size_t step = how == NONE ? 0 : 2 * parts_bytes(w->cols);
    int r = 0;
    for (; r + group <= rows; r += group, kept += step)
        tile(w, row0 + r, group, x, m, y + r, ldy, add, how, kept);
    for (; r < rows; r++) /* none where rows are kept */
        for (int t = 0; t < m; t++)
            tile(w, row0 + r, 1, x + t, 1, y + (size_t)t * ldy + (size_t)r, ldy, add, NONE, kept);
}

static void lone_tile(const ns_mat *w, int row0, int rows, const char *const *x, int m, float *y, size_t ldy, bool add)
{
    char none;
    switch (m) {
    case 7: tiles(w, row0, rows, 2, x, 7, y, ldy, add, NONE, &none); break;
    case 6: tiles(w, row0, rows, 2, x, 6, y, ldy, add, NONE, &none); break;
    case 5: tiles(w, row0, rows, 2, x, 5, y, ldy, add, NONE, &none); break;
    case 4: tiles(w, row0, rows, 2, x, 4, y, ldy, add, NONE, &none); break;
    case 3: tiles(w, row0, rows, 2, x, 3, y, ldy, add, NONE, &none); break;
    case 2: tiles(w, row0, rows, 4, x, 2, y, ldy, add, NONE, &none); break;
    default: tiles(w, row0, rows, 4, x, 1, y, ldy, add, NONE, &none); break;
    }
}

/* A multiple of two rows, m > 2: TILE vectors or fewer out of more than TILE. */
static inline __attribute__((always_inline)) void kept_tile(const ns_mat *w, int row0, int rows, const char *const *x, int m, float *y, size_t ldy,
                                                            bool add, enum kept how, char *kept)
{
    switch (m) {
    case 7: tiles(w, row0, rows, 2, x, 7, y, ldy, add, how, kept); break;
    case 6: tiles(w, row0, rows, 2, x, 6, y, ldy, add, how, kept); break;
    case 5: tiles(w, row0, rows, 2, x, 5, y, ldy, add, how, kept); break;
    case 4: tiles(w, row0, rows, 2, x, 4, y, ldy, add, how, kept); break;
    default: tiles(w, row0, rows, 2, x, 3, y, ldy, add, how, kept); break;
    }
}

/* Vectors in tiles of even shares: 6 + 1 would be slower than 4 + 3. Of several tiles, the first keeps the decoded rows in scratch that
 * stays in the second-level cache. */
enum { SCRATCH = 400 * 1024 };

static void vectors(const ns_mat *w, int row0, int rows, const char *x, size_t stride, const int *idx, int m, float *y, size_t ldy, bool add,
                    char *scratch)
{
    int left = (m + TILE - 1) / TILE;
    for (int t0 = 0, mt; t0 < m; t0 += mt, left--) {
        const char *xt[TILE];
        mt = (m - t0 + left - 1) / left;
        for (int t = 0; t < mt; t++)
            xt[t] = x + (size_t)(idx ? idx[t0 + t] : t0 + t) * stride;
        float *yt = y + (size_t)t0 * ldy;
        if (!scratch)
            lone_tile(w, row0, rows, xt, mt, yt, ldy, add);
        else if (t0 == 0)
            kept_tile(w, row0, rows, xt, mt, yt, ldy, add, KEEP, scratch);
        else
            kept_tile(w, row0, rows, xt, mt, yt, ldy, add, KEPT, scratch);
    }
}

void ns_nvfp4_matmul_avx512(const ns_mat *w, int row0, int rows, const char *x, const int *idx, int m, float *y, size_t ldy, bool add)
{
    _Alignas(64) char scratch[SCRATCH];
    size_t stride = ns_nvfp4_act_bytes_avx512(w->cols);
    int r = 0, block = (int)(SCRATCH / parts_bytes(w->cols) / 2 * 2);
    for (int n; m > TILE && block > 0 && rows - r > 1; r += n) {
        n = rows - r < block ? (rows - r) / 2 * 2 : block;
        vectors(w, row0 + r, n, x, stride, idx, m, y + r, ldy, add, scratch);
    }
    if (r < rows) /* few vectors, a row without a partner, or rows too long to be kept */
        vectors(w, row0 + r, rows - r, x, stride, idx, m, y + r, ldy, add, NULL);
}
