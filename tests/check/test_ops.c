/* Every kernel of every rung against the reference, over odd shapes, tails and unaligned data, with guard bytes around outputs.
 * Tolerances scale with the inputs: a sum of k products of size ab may differ by c * k * ab * 2^-24. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/mem.h"
#include "base/rng.h"
#include "kernel/ops.h"
#include "tensor/format.h"

enum { GUARD = 64 };
static const uint8_t guard_byte = 0xa5;

/* n floats with guards on both sides; checked and freed by done(). */
static float *guarded(size_t n)
{
    uint8_t *p = malloc(n * sizeof(float) + 2 * GUARD);
    memset(p, guard_byte, n * sizeof(float) + 2 * GUARD);
    return (float *)(p + GUARD);
}

static void done(float *f, size_t n)
{
    uint8_t *p = (uint8_t *)f - GUARD;
    for (int i = 0; i < GUARD; i++) {
        assert_int_equal(p[i], guard_byte);
        assert_int_equal(p[GUARD + n * sizeof(float) + (size_t)i], guard_byte);
    }
    free(p);
}

static float *randoms(ns_rng *r, size_t n, double scale)
{
    float *x = malloc((n ? n : 1) * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(ns_rng_normal(r) * scale);
    return x;
}

static void close_to(const float *got, const float *want, size_t n, double tol, const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)got[i] - (double)want[i]) <= tol))
            fail_msg("%s: element %zu is %.9g, the reference says %.9g (tolerance %.3g)", what, i, (double)got[i], (double)want[i], tol);
}

/* A random stored matrix at an odd address, rows further apart than they are long. */
struct stored {
    ns_mat m;
    uint8_t *data, *scale;
};

static struct stored make_mat(ns_rng *r, ns_dtype t, int rows, int cols)
{
    struct stored s = { .m = { .dtype = t, .rows = rows, .cols = cols, .global_scale = 1.0f } };
    size_t row = ns_dtype_row_bytes(t, (size_t)cols);
    s.m.stride = row + 3;
    s.data = malloc(s.m.stride * (size_t)rows + 1);
    s.m.data = s.data + 1;
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) {
            uint8_t *p = s.data + 1 + (size_t)i * s.m.stride;
            float v = (float)ns_rng_normal(r);
            if (t == NS_F32)
                memcpy(p + 4 * j, &v, 4);
            else if (t == NS_BF16)
                memcpy(p + 2 * j, &(uint16_t){ ns_f32_to_bf16(v) }, 2);
            else if (t == NS_F16)
                memcpy(p + 2 * j, &(uint16_t){ ns_f32_to_f16(v * 1e-3f) }, 2); /* subnormals among them */
            else if (t == NS_F8_E4M3)
                p[j] = (uint8_t)(ns_rng_u64(r) % 127 | (ns_rng_u64(r) & 0x80)); /* every finite code */
            else if (j % 2 == 0)
                p[j / 2] = (uint8_t)ns_rng_u64(r);
        }
    if (t == NS_F8_E4M3 || t == NS_NVFP4)
        s.m.global_scale = 0.0371f;
    if (t == NS_NVFP4) {
        s.m.scale_stride = (size_t)cols / 16 + 1;
        s.scale = malloc(s.m.scale_stride * (size_t)rows);
        for (size_t i = 0; i < s.m.scale_stride * (size_t)rows; i++)
            s.scale[i] = (uint8_t)(ns_rng_u64(r) % 127);
        s.m.scale = s.scale;
    }
    return s;
}

static bool is_act8(const ns_ops *o)
{
    return o == ns_ops_find_act8(NS_RUNG_AVX512);
}

/* The table that rounds activations as `o` does, or not at all. */
static const ns_ops *reference_of(const ns_ops *o)
{
    return is_act8(o) ? ns_ops_find_act8(NS_RUNG_REF) : ns_ops_find(NS_RUNG_REF);
}

/* Vectors of n columns against the first n of a longer matrix are the same vectors with zeros behind against all of it, bit for bit. */
static void check_zeros_behind(const ns_ops *o, ns_dtype t, int rows, int cols, int n, int m, uint64_t seed)
{
    ns_rng r;
    ns_rng_init(&r, seed);
    struct stored s = make_mat(&r, t, rows, cols);
    float *x = randoms(&r, (size_t)m * (size_t)cols, 1.0), *y[2];
    for (int i = 0; i < m; i++)
        memset(x + (size_t)i * (size_t)cols + n, 0, (size_t)(cols - n) * sizeof *x);
    for (int k = 0; k < 2; k++) {
        int live = k ? cols : n;
        ns_mat view = ns_mat_view(&s.m, 0, rows, 0, live);
        size_t bytes = o->act_bytes(t, live);
        char *packed = ns_alloc_aligned((size_t)m * bytes);
        for (int i = 0; i < m; i++)
            o->act_pack(t, x + (size_t)i * (size_t)cols, live, packed + (size_t)i * bytes);
        y[k] = calloc((size_t)m * (size_t)rows, sizeof **y);
        o->matmul(&view, 0, rows, packed, NULL, m, y[k], (size_t)rows, false);
        free(packed);
    }
    if (memcmp(y[0], y[1], (size_t)m * (size_t)rows * sizeof **y) != 0)
        fail_msg("%s: %s: %d vectors of %d of %d columns differ with zeros behind them", o->name, ns_dtype_name(t), m, n, cols);
    free(y[0]);
    free(y[1]);
    free(x);
    free(s.data);
    free(s.scale);
}

static void check_matmul(const ns_ops *o, ns_dtype t, int rows, int cols, int m, bool add, bool indexed, uint64_t seed)
{
    const ns_ops *ref = reference_of(o);
    ns_rng r;
    ns_rng_init(&r, seed);
    struct stored s = make_mat(&r, t, rows, cols);
    int row0 = rows / 3, n_rows = rows - row0, n_x = m + 2;
    size_t ldy = (size_t)n_rows + 5, n_y = (size_t)(m - 1) * ldy + (size_t)n_rows;
    float *x = randoms(&r, (size_t)n_x * (size_t)cols, 1.0), *y[2];
    int idx[64];
    for (int i = 0; i < m; i++)
        idx[i] = (int)(ns_rng_u64(&r) % (uint64_t)n_x);
    const ns_ops *ops[2] = { ref, o };
    for (int k = 0; k < 2; k++) {
        size_t bytes = ops[k]->act_bytes(t, cols);
        assert_int_equal(bytes % 64, 0);
        char *packed = ns_alloc_aligned(bytes * (size_t)n_x);
        for (int i = 0; i < n_x; i++)
            ops[k]->act_pack(t, x + (size_t)i * (size_t)cols, cols, packed + (size_t)i * bytes);
        y[k] = guarded(n_y);
        for (size_t i = 0; i < n_y; i++)
            y[k][i] = (float)(i % 7);
        ops[k]->matmul(&s.m, row0, n_rows, packed, indexed ? idx : NULL, m, y[k], ldy, add);
        free(packed);
    }
    /* |row| * |x| bounds the sum; NVFP4 rungs may quantise activations to 16 bits of the vector's maximum; to 8 bits, both do alike */
    float *w = malloc((size_t)cols * sizeof *w);
    for (int i = 0; i < n_rows; i++) {
        double norm = add ? 7.0 : 0.0;
        ns_row_decode(&s.m, row0 + i, 0, cols, w);
        for (int k = 0; k < cols; k++)
            norm += fabs((double)w[k]);
        double tol = norm * (t == NS_NVFP4 && !is_act8(o) ? 6.0 / 65534.0 : 0.0) + norm * 6.0 * (8 + sqrt((double)cols)) * 0x1p-24 + 1e-6;
        for (int j = 0; j < m; j++) {
            char what[100];
            snprintf(what, sizeof what, "%s matmul %s [%d,%d] m=%d row %d vector %d", o->name, ns_dtype_name(t), rows, cols, m, i, j);
            close_to(&y[1][(size_t)j * ldy + (size_t)i], &y[0][(size_t)j * ldy + (size_t)i], 1, tol, what);
        }
    }
    for (int j = 0; j + 1 < m; j++) /* between rows of the output nothing is written */
        assert_memory_equal(y[1] + (size_t)j * ldy + (size_t)n_rows, y[0] + (size_t)j * ldy + (size_t)n_rows, 5 * sizeof(float));
    done(y[0], n_y);
    done(y[1], n_y);
    free(w);
    free(x);
    free(s.data);
    free(s.scale);
}

static void matmul_matches(void **state)
{
    const ns_ops *o = *state;
    static const ns_dtype types[] = { NS_F32, NS_F16, NS_BF16, NS_F8_E4M3, NS_NVFP4 };
    static const int cols[] = { 16, 48, 112, 128, 144, 272, 2688 }, odd[] = { 1, 3, 15, 17, 33, 100, 257 };
    static const int ms[] = { 1, 2, 3, 4, 5, 7, 8, 9, 19 };
    for (size_t t = 0; t < 5; t++)
        for (size_t c = 0; c < 7; c++)
            for (size_t k = 0; k < 9; k++) {
                int n = types[t] == NS_NVFP4 || (k & 1) ? cols[c] : odd[c];
                for (int rows = 1; rows < 12; rows += 3)
                    check_matmul(o, types[t], rows, n, ms[k], k % 2 == 0, k % 3 == 0, t * 1000 + c * 10 + k);
            }
    check_matmul(o, NS_NVFP4, 600, 1856, 9, false, false, 1); /* more rows than the decoding scratch holds */
}

static void zeros_behind_do_not_matter(void **state)
{
    const ns_ops *o = *state;
    static const ns_dtype types[] = { NS_F32, NS_F16, NS_BF16, NS_F8_E4M3, NS_NVFP4 };
    static const int live[] = { 16, 48, 128, 144, 256, 384, 400, 1024, 1120, 1920 }, longer[] = { 272, 640, 1040, 1856, 2688 };
    static const int ms[] = { 1, 2, 3, 5, 8, 17 };
    for (size_t t = 0; t < 5; t++)
        for (size_t i = 0; i < 10; i++)
            for (size_t j = 0; j < 5; j++)
                if (live[i] < longer[j])
                    check_zeros_behind(o, types[t], 9, longer[j], live[i], ms[(i + j) % 6], t * 100 + i * 10 + j);
}

/* A vector's product has the same bits alone and in company: what a request gets does not depend on the batch it is in. */
static void company_does_not_matter(void **state)
{
    const ns_ops *o = *state;
    static const ns_dtype types[] = { NS_F32, NS_F16, NS_BF16, NS_F8_E4M3, NS_NVFP4 };
    enum { M = 13, ROWS = 9 };
    ns_rng r;
    ns_rng_init(&r, 8);
    for (size_t t = 0; t < 5; t++)
        for (int cols = 1008; cols < 2800; cols += 288) { /* over and under the blocks that sums are made in */
            struct stored s = make_mat(&r, types[t], ROWS, cols);
            size_t bytes = o->act_bytes(types[t], cols);
            char *x = ns_alloc_aligned(bytes * M);
            float together[M * ROWS], alone[ROWS];
            for (int i = 0; i < M; i++) {
                float *v = randoms(&r, (size_t)cols, 1.0);
                o->act_pack(types[t], v, cols, x + (size_t)i * bytes);
                free(v);
            }
            for (int m = 1; m <= M; m++) {
                o->matmul(&s.m, 0, ROWS, x, NULL, m, together, ROWS, false);
                for (int i = 0; i < m; i++) {
                    o->matmul(&s.m, 0, ROWS, x + (size_t)i * bytes, NULL, 1, alone, ROWS, false);
                    assert_memory_equal(alone, together + i * ROWS, sizeof alone);
                }
            }
            free(x);
            free(s.data);
            free(s.scale);
        }
}

static void nan_propagates(void **state)
{
    const ns_ops *o = *state;
    uint8_t fp8[32], codes[16], scale[2] = { 0x38, 0x7f };
    memset(fp8, 0x38, sizeof fp8);
    memset(codes, 0x22, sizeof codes);
    ns_mat a = { .dtype = NS_F8_E4M3, .rows = 1, .cols = 32, .data = fp8, .stride = 32, .global_scale = 1.0f };
    ns_mat b = { .dtype = NS_NVFP4, .rows = 1, .cols = 32, .data = codes, .stride = 16, .scale = scale, .scale_stride = 2,
                 .global_scale = 1.0f };
    float x[32], y[2];
    for (int i = 0; i < 32; i++)
        x[i] = 1.0f;
    _Alignas(64) char packed[512];
    for (int m = 1; m <= 2; m++) {
        int idx[2] = { 0, 0 };
        fp8[5] = 0x38;
        o->act_pack(NS_F8_E4M3, x, 32, packed);
        o->matmul(&a, 0, 1, packed, idx, m, y, 1, false);
        assert_float_equal(y[0], 32.0f, 1e-4);
        fp8[5] = 0xff;
        o->matmul(&a, 0, 1, packed, idx, m, y, 1, false);
        assert_true(isnan(y[0]));
        o->act_pack(NS_NVFP4, x, 32, packed);
        o->matmul(&b, 0, 1, packed, idx, m, y, 1, false);
        assert_true(isnan(y[0]));
    }
    x[3] = INFINITY;
    scale[1] = 0x38;
    o->act_pack(NS_NVFP4, x, 32, packed);
    o->matmul(&b, 0, 1, packed, NULL, 1, y, 1, false);
    assert_true(!(fabsf(y[0]) < INFINITY));
}

/* NVFP4 against blocks of activations that differ by many powers of two, down to subnormals; a block scale of zero gives zero. */
static void magnitudes_matter_not(void **state)
{
    const ns_ops *o = *state, *ref = reference_of(o);
    static const float block[] = { 1.0f, 0.0f, 1e-30f, 1e-6f, 1e-42f, 3e4f, 1e-3f }, whole[] = { 1.0f, 1e-36f, 1e25f };
    enum { COLS = 400, M = 9 }; /* a wide part and a narrow one */
    ns_rng r;
    ns_rng_init(&r, 9);
    struct stored s = make_mat(&r, NS_NVFP4, 2, COLS);
    memset(s.scale + s.m.scale_stride, 0, COLS / 16);
    float w[COLS], *x = randoms(&r, COLS, 1.0), y[M][2], want[2];
    ns_row_decode(&s.m, 0, 0, COLS, w);
    char *px = ns_alloc_aligned(ref->act_bytes(NS_NVFP4, COLS)), *po = ns_alloc_aligned(o->act_bytes(NS_NVFP4, COLS));
    for (int k = 0; k < 3; k++) {
        float v[COLS], most = 0.0f;
        double sum = 0.0;
        for (int i = 0; i < COLS; i++) {
            v[i] = x[i] * block[i / 16 % 7] * whole[k];
            most = fabsf(v[i]) > most ? fabsf(v[i]) : most;
            sum += fabs((double)w[i]);
        }
        ref->act_pack(NS_NVFP4, v, COLS, px);
        ref->matmul(&s.m, 0, 2, px, NULL, 1, want, 2, false);
        o->act_pack(NS_NVFP4, v, COLS, po);
        o->matmul(&s.m, 0, 2, po, (int[M]){ 0 }, M, y[0], 2, false);
        for (int i = 0; i < M; i++) {
            close_to(&y[i][0], &want[0], 1, sum * (double)most / 32767.0, "blocks of many magnitudes");
            assert_float_equal(y[i][1], 0.0f, 0.0);
        }
    }
    free(px);
    free(po);
    free(x);
    free(s.data);
    free(s.scale);
}

/* 8-bit activations are off by at most half a step, a 254th of their block's largest, and the block's largest keeps its value. Packed
 * vectors of the reference are plain floats. */
static void act8_rounds(void **state)
{
    (void)state;
    const ns_ops *o = ns_ops_find_act8(NS_RUNG_REF);
    enum { COLS = 80 };
    static const float size[COLS / 16] = { 1.0f, 1e-20f, 3e30f, 7.0f, 0.0f };
    _Alignas(64) float out[COLS];
    ns_rng r;
    ns_rng_init(&r, 10);
    for (int k = 0; k < 100; k++) {
        float *x = randoms(&r, COLS, 1.0);
        for (int i = 0; i < COLS; i++)
            x[i] *= size[i / 16];
        o->act_pack(NS_NVFP4, x, COLS, out);
        int differ = 0;
        for (int b = 0; b < COLS; b += 16) {
            float most = 0.0f;
            for (int i = b; i < b + 16; i++)
                most = fmaxf(most, fabsf(x[i]));
            for (int i = b; i < b + 16; i++) {
                close_to(&out[i], &x[i], 1, (double)most / 254.0 * (1.0 + 1e-4), "a rounded activation");
                if (fabsf(x[i]) == most)
                    close_to(&out[i], &x[i], 1, (double)most * 1e-6, "a block's largest");
                differ += fabsf(out[i] - x[i]) > most * 1e-4f;
            }
        }
        assert_in_range(differ, COLS / 4, COLS); /* it does round */
        o->act_pack(NS_BF16, x, COLS, out);
        assert_memory_equal(out, x, sizeof out); /* for other weights it does not */
        free(x);
    }
}

static void gemm_matches(void **state)
{
    const ns_ops *o = *state, *ref = ns_ops_find(NS_RUNG_REF);
    ns_rng r;
    ns_rng_init(&r, 5);
    static const int sizes[] = { 1, 2, 5, 7, 13, 16, 31, 64, 70, 130 };
    for (int i = 0; i < 10; i++)
        for (int j = 0; j < 10; j++)
            for (int flip = 0; flip < 2; flip++) {
                int m = sizes[i], n = sizes[j], k = sizes[(i + 2 * j) % 10];
                size_t ldc = (size_t)n + 3, nc = (size_t)(m - 1) * ldc + (size_t)n;
                float *a = randoms(&r, (size_t)m * (size_t)k, 1.0), *b = randoms(&r, (size_t)k * (size_t)n, 1.0);
                float *c[2] = { guarded(nc), guarded(nc) };
                for (size_t t = 0; t < nc; t++)
                    c[0][t] = c[1][t] = (float)(t % 5);
                size_t row = flip ? 1 : (size_t)k, col = flip ? (size_t)m : 1;
                ref->gemm(m, n, k, a, row, col, b, (size_t)n, c[0], ldc, flip);
                o->gemm(m, n, k, a, row, col, b, (size_t)n, c[1], ldc, flip);
                close_to(c[1], c[0], nc, (double)k * 16.0 * 0x1p-24 * 4.0 + 1e-6, "gemm");
                done(c[0], nc);
                done(c[1], nc);
                free(a);
                free(b);
            }
}

static void elementwise_match(void **state)
{
    const ns_ops *o = *state, *ref = ns_ops_find(NS_RUNG_REF);
    ns_rng r;
    ns_rng_init(&r, 6);
    for (int n = 1; n < 150; n += n < 40 ? 1 : 13) {
        size_t un = (size_t)n;
        float *x = randoms(&r, un, 3.0), *z = randoms(&r, un, 3.0), *w = randoms(&r, un, 1.0), *y[2] = { guarded(un), guarded(un) };
        ref->rmsnorm(x, w, n, 1e-5f, y[0]);
        o->rmsnorm(x, w, n, 1e-5f, y[1]);
        close_to(y[1], y[0], un, 4e-5, "rmsnorm");
        int group = n % 3 == 0 ? n / 3 : n, live = group > 1 ? group - 1 : 1;
        ref->gated_norm(x, z, w, n, group, live, 1e-5f, y[0]);
        memcpy(y[1], x, un * sizeof *x); /* in place, as the model calls it */
        o->gated_norm(y[1], z, w, n, group, live, 1e-5f, y[1]);
        close_to(y[1], y[0], un, 4e-5, "gated_norm");
        for (int k = 0; k < 2; k++)
            memcpy(y[k], x, un * sizeof *x);
        ref->relu2(y[0], n);
        o->relu2(y[1], n);
        close_to(y[1], y[0], un, 0.0, "relu2");
        for (int k = 0; k < 2; k++)
            for (int i = 0; i < n; i++)
                y[k][i] = i == n / 2 ? -INFINITY : x[i] * 9.0f;
        float s0 = ref->exp_sum(y[0], n, 50.0f), s1 = o->exp_sum(y[1], n, 50.0f);
        for (int i = 0; i < n; i++)
            close_to(&y[1][i], &y[0][i], 1, (double)y[0][i] * 4e-7 + 1e-37, "exp_sum");
        close_to(&s1, &s0, 1, (double)s0 * 2e-6, "exp_sum sum");
        memcpy(y[0], z, un * sizeof *z);
        memcpy(y[1], z, un * sizeof *z);
        ref->axpy(n, 0.7f, x, y[0]);
        o->axpy(n, 0.7f, x, y[1]);
        close_to(y[1], y[0], un, 2e-6, "axpy");
        done(y[0], un);
        done(y[1], un);
        free(x);
        free(z);
        free(w);
    }
}

/* Every code, in every place of a vector: the same bits, but for what kind of NaN it is. */
static void codes_widen_alike(void **state)
{
    const ns_ops *o = *state, *ref = ns_ops_find(NS_RUNG_REF);
    ns_rng r;
    ns_rng_init(&r, 9);
    for (int n = 1; n <= 300; n++) {
        size_t un = (size_t)n;
        uint8_t *x = malloc(un);
        float *y[2] = { guarded(un), guarded(un) }, a = n % 3 ? (float)ns_rng_uniform(&r) : 1.0f;
        for (int i = 0; i < n; i++)
            x[i] = (uint8_t)(n + i);
        ref->widen_e4m3(x, n, a, y[0]);
        o->widen_e4m3(x, n, a, y[1]);
        for (int i = 0; i < n; i++) {
            if (x[i] % 128 == 127 ? y[1][i] == y[1][i] : memcmp(&y[0][i], &y[1][i], sizeof a) != 0)
                fail_msg("code %d times %.9g: %.9g, the reference says %.9g", x[i], (double)a, (double)y[1][i], (double)y[0][i]);
            if (x[i] % 128 != 127)
                assert_true(y[0][i] == ns_e4m3_to_f32(x[i]) * a);
        }
        done(y[0], un);
        done(y[1], un);
        free(x);
    }
}

static void recurrences_match(void **state)
{
    const ns_ops *o = *state, *ref = ns_ops_find(NS_RUNG_REF);
    ns_rng r;
    ns_rng_init(&r, 7);
    for (int n = 1; n < 80; n += 6)
        for (int k = 1; k <= 5; k++)
            for (int m = 1; m <= 6; m += 5) {
                size_t un = (size_t)n, ld = un + 2, nm = (size_t)(m - 1) * ld + un, ns = un * (size_t)(k - 1);
                float *x = randoms(&r, nm, 1.0), *w = randoms(&r, un * (size_t)k, 1.0), *b = randoms(&r, un, 1.0);
                float *s0 = randoms(&r, ns, 1.0), *st[2], *y[2];
                for (int v = 0; v < 2; v++) {
                    st[v] = guarded(ns);
                    memcpy(st[v], s0, ns * sizeof *s0);
                    y[v] = guarded(nm);
                    memset(y[v], 0, nm * sizeof **y);
                    (v ? o : ref)->conv_silu(x, ld, m, n, k, w, k == 2 ? NULL : b, st[v], un, y[v], ld);
                }
                close_to(y[1], y[0], nm, 2e-5, "conv_silu");
                close_to(st[1], st[0], ns, 0.0, "conv_silu state");
                done(st[0], ns);
                done(st[1], ns);
                done(y[0], nm);
                done(y[1], nm);
                free(x);
                free(w);
                free(b);
                free(s0);
            }
    for (int p = 1; p < 150; p += p < 20 ? 1 : 17)
        for (int n = 1; n < 40; n += 9) {
            size_t np = (size_t)n * (size_t)p, up = (size_t)p;
            float *s0 = randoms(&r, np, 1.0), *b = randoms(&r, (size_t)n, 1.0), *c = randoms(&r, (size_t)n, 1.0), *x = randoms(&r, up, 1.0);
            float *s[2], *y[2];
            for (int v = 0; v < 2; v++) {
                s[v] = guarded(np);
                y[v] = guarded(up);
                memcpy(s[v], s0, np * sizeof *s0);
                (v ? o : ref)->ssm_step(s[v], n, p, 0.9f, 0.1f, b, c, x, 0.5f, y[v]);
            }
            close_to(s[1], s[0], np, 2e-6, "ssm_step state");
            close_to(y[1], y[0], up, 6e-5, "ssm_step y");
            done(s[0], np);
            done(s[1], np);
            done(y[0], up);
            done(y[1], up);
            free(s0);
            free(b);
            free(c);
            free(x);
        }
}

static int setup_avx2(void **state)
{
    *state = (void *)(uintptr_t)ns_ops_find(NS_RUNG_AVX2);
    return 0;
}

static int setup_avx512(void **state)
{
    *state = (void *)(uintptr_t)ns_ops_find(NS_RUNG_AVX512);
    return 0;
}

static int setup_act8(void **state)
{
    *state = (void *)(uintptr_t)ns_ops_find_act8(NS_RUNG_AVX512);
    return 0;
}

int main(void)
{
    struct CMUnitTest tests[24];
    size_t n = 0;
#define ADD(rung)                                                                                                              \
    if (ns_ops_find(NS_RUNG_##rung)) {                                                                                         \
        CMUnitTestFunction f[] = { matmul_matches, company_does_not_matter, zeros_behind_do_not_matter, nan_propagates,        \
                                   magnitudes_matter_not, gemm_matches, elementwise_match, codes_widen_alike,                  \
                                   recurrences_match };                                                                        \
        const char *names[] = { #rung " matmul", #rung " company", #rung " zeros", #rung " NaN", #rung " magnitudes",          \
                                #rung " gemm", #rung " elementwise", #rung " codes", #rung " recurrences" };                   \
        for (size_t i = 0; i < 9; i++)                                                                                         \
            tests[n++] = (struct CMUnitTest){ names[i], f[i], SETUP_##rung, NULL, NULL };                                      \
    } else                                                                                                                     \
        printf("skipped: this machine has no %s\n", #rung);
#define SETUP_AVX2 setup_avx2
#define SETUP_AVX512 setup_avx512
    ADD(AVX2)
    ADD(AVX512)
    tests[n++] = (struct CMUnitTest){ "8-bit activations in the reference", act8_rounds, NULL, NULL, NULL };
    if (ns_ops_find_act8(NS_RUNG_AVX512)) {
        CMUnitTestFunction f[] = { matmul_matches, company_does_not_matter, zeros_behind_do_not_matter, nan_propagates, magnitudes_matter_not };
        const char *names[] = { "8-bit matmul", "8-bit company", "8-bit zeros", "8-bit NaN", "8-bit magnitudes" };
        for (size_t i = 0; i < 5; i++)
            tests[n++] = (struct CMUnitTest){ names[i], f[i], setup_act8, NULL, NULL };
    }
    return _cmocka_run_group_tests("ops", tests, n, NULL, NULL);
}
