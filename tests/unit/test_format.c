/* Scalar formats against the published tables and against "nearest neighbour, ties to the even code"; row codecs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/json.h"
#include "base/rng.h"
#include "tensor/format.h"

static const char *vector_path(const char *name, char *out, size_t n)
{
    const char *dir = getenv("NS_TEST_DATA");
    if (!dir || !*dir)
        return NULL;
    snprintf(out, n, "%s/vectors/fp8_fp4/%s", dir, name);
    return out;
}

static void assert_same(float got, float want, const char *what, unsigned code)
{
    if (isnan(want) ? !isnan(got) : ns_f32_bits(got) != ns_f32_bits(want))
        fail_msg("%s code %02x: %a, expected %a", what, code, (double)got, (double)want);
}

static float e2m1(uint8_t c)
{
    return ns_e2m1_to_f32(c);
}

static void decode_tables(void **state)
{
    static const struct { const char *name; float (*f)(uint8_t); } formats[] = {
        { "e4m3fn", ns_e4m3_to_f32 }, { "e5m2", ns_e5m2_to_f32 }, { "e2m1", e2m1 }, { "e8m0", ns_e8m0_to_f32 },
    };
    (void)state;
    char path[600];
    ns_err e = { 0 };
    if (!vector_path("decode_tables.json", path, sizeof path))
        skip();
    json_t *tables = ns_json_open(path, false, &e);
    if (!tables)
        fail_msg("%s", e.msg);
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        const json_t *t = json_object_get(tables, formats[i].name);
        assert_int_equal(json_array_size(t), i == 2 ? 16 : 256);
        for (unsigned c = 0; c < json_array_size(t); c++)
            assert_same(formats[i].f((uint8_t)c), strtof(json_string_value(json_array_get(t, c)), NULL), formats[i].name, c);
    }
    json_decref(tables);
}

static void encode_cases(void **state)
{
    (void)state;
    char path[600], line[200];
    unsigned bits, fp8, fp4;
    int n = 0;
    if (!vector_path("encode_f32_rne_sat.txt", path, sizeof path))
        skip();
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "%x %x %x", &bits, &fp8, &fp4) != 3)
            continue;
        float x = ns_f32_from_bits(bits);
        if (ns_f32_to_e4m3(x) != fp8 || ns_f32_to_e2m1(x) != fp4)
            fail_msg("%08x: e4m3 %02x e2m1 %x, expected %02x %x", bits, ns_f32_to_e4m3(x), ns_f32_to_e2m1(x), fp8, fp4);
        n++;
    }
    fclose(f);
    assert_true(n > 5000);
}

static void special_values(void **state)
{
    (void)state;
    assert_int_equal(ns_f32_to_e4m3(NAN), 0x7f);
    assert_int_equal(ns_f32_to_e4m3(-NAN), 0x7f);
    assert_int_equal(ns_f32_to_e4m3(INFINITY), 0x7e);
    assert_int_equal(ns_f32_to_e4m3(-INFINITY), 0xfe);
    assert_int_equal(ns_f32_to_e4m3(479), 0x7e);
    assert_int_equal(ns_f32_to_e4m3(-0.0f), 0x80);
    assert_int_equal(ns_f32_to_e2m1(INFINITY), 7);
    assert_int_equal(ns_f32_to_e2m1(-1e30f), 15);
    assert_int_equal(ns_f32_to_e2m1(NAN), 0);
    assert_int_equal(ns_f32_to_e2m1(-NAN), 0);
    assert_int_equal(ns_f32_to_bf16(ns_f32_from_bits(0x7f800001)), 0x7fc0);
    assert_int_equal(ns_f32_to_bf16(ns_f32_from_bits(0xffffffff)), 0xffff);
    assert_int_equal(ns_f32_to_bf16(0x1.fffffep127f), 0x7f80);
    assert_int_equal(ns_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(ns_f32_to_f16(65520), 0x7c00);
    assert_int_equal(ns_f32_to_f16(-INFINITY), 0xfc00);
    assert_int_equal(ns_f32_to_f16(ns_f32_from_bits(0x7f800001)) & 0x7e00, 0x7e00);
    assert_int_equal(ns_f32_to_f16(0x1p-24f), 1);
    assert_int_equal(ns_f32_to_f16(0x1p-25f), 0);
    assert_int_equal(ns_f32_to_f16(0x1.000002p-25f), 1);
    assert_true(ns_f16_to_f32(0x0001) == 0x1p-24f);
    assert_true(ns_f16_to_f32(0xfbff) == -65504);
    assert_true(isnan(ns_f16_to_f32(0x7c01)) && isinf(ns_f16_to_f32(0xfc00)));
}

/* For every pair of neighbouring codes c, c+1 of a format: both values keep their code, the midpoint goes to the even one,
 * and the floats right below and above the midpoint go down and up. Needs a midpoint exact in f32. */
typedef struct pairs {
    float (*decode)(unsigned);
    unsigned (*encode)(float);
    unsigned last, sign; /* the largest finite code, the sign bit */
} pairs;

static void check_pairs(pairs p)
{
    for (unsigned c = 0; c < p.last; c++) {
        float lo = p.decode(c), hi = p.decode(c + 1), mid = lo + (hi - lo) / 2;
        unsigned even = c & 1 ? c + 1 : c;
        for (unsigned s = 0; s <= p.sign; s += p.sign) {
            float k = s ? -1.0f : 1.0f;
            assert_int_equal(p.encode(k * lo), c | s);
            assert_int_equal(p.encode(k * mid), even | s);
            assert_int_equal(p.encode(k * nextafterf(mid, 0)), c | s);
            assert_int_equal(p.encode(k * nextafterf(mid, INFINITY)), (c + 1) | s);
        }
    }
    assert_int_equal(p.encode(p.decode(p.last)), p.last);
}

static float bf16_dec(unsigned c) { return ns_bf16_to_f32((uint16_t)c); }
static unsigned bf16_enc(float x) { return ns_f32_to_bf16(x); }
static float f16_dec(unsigned c) { return ns_f16_to_f32((uint16_t)c); }
static unsigned f16_enc(float x) { return ns_f32_to_f16(x); }
static float e4m3_dec(unsigned c) { return ns_e4m3_to_f32((uint8_t)c); }
static unsigned e4m3_enc(float x) { return ns_f32_to_e4m3(x); }
static float e2m1_dec(unsigned c) { return ns_e2m1_to_f32(c); }
static unsigned e2m1_enc(float x) { return ns_f32_to_e2m1(x); }

static void nearest_even(void **state)
{
    (void)state;
    check_pairs((pairs){ bf16_dec, bf16_enc, 0x7f7f, 0x8000 });
    check_pairs((pairs){ f16_dec, f16_enc, 0x7bff, 0x8000 });
    check_pairs((pairs){ e4m3_dec, e4m3_enc, 0x7e, 0x80 });
    check_pairs((pairs){ e2m1_dec, e2m1_enc, 7, 8 });
}

static void decode_rows(void **state)
{
    (void)state;
    enum { ROWS = 3, COLS = 6 };
    const float want[COLS] = { 1, -2, 0.5f, 448, 0, -0.015625f }; /* exact in every one of these formats */
    uint8_t bytes[1 + ROWS * 40] = { 0 };
    const ns_dtype types[] = { NS_F32, NS_F16, NS_BF16, NS_F8_E4M3 };
    for (size_t k = 0; k < 4; k++) {
        ns_mat m = { .dtype = types[k], .rows = ROWS, .cols = COLS, .data = bytes + 1, .stride = 40, .global_scale = 1 };
        for (int j = 0; j < COLS; j++) {
            uint8_t *p = bytes + 1 + 2 * 40 + ns_dtype_row_bytes(types[k], (size_t)j);
            uint16_t h = types[k] == NS_F16 ? ns_f32_to_f16(want[j]) : ns_f32_to_bf16(want[j]);
            uint8_t b = ns_f32_to_e4m3(want[j]);
            memcpy(p, k == 0 ? (const void *)&want[j] : k == 3 ? (const void *)&b : (const void *)&h, ns_dtype_bits(types[k]) / 8);
        }
        float got[COLS] = { 0 };
        ns_row_decode(&m, 2, 1, COLS - 1, got);
        assert_memory_equal(got, want + 1, (COLS - 1) * sizeof *got);
        m.global_scale = 0.5f;
        ns_row_decode(&m, 2, 0, 2, got);
        assert_true(got[1] == (k == 3 ? -1.0f : -2.0f));
    }
}

static void decode_nvfp4_rows(void **state)
{
    (void)state;
    enum { COLS = 48 };
    uint8_t q[2 * COLS / 2], scale[2 * 3];
    ns_rng r;
    ns_rng_init(&r, 7);
    for (size_t i = 0; i < sizeof q; i++)
        q[i] = (uint8_t)ns_rng_u64(&r);
    for (size_t i = 0; i < sizeof scale; i++)
        scale[i] = (uint8_t)(ns_rng_u64(&r) % 0x7f);
    ns_mat m = { .dtype = NS_NVFP4, .rows = 2, .cols = COLS, .data = q, .stride = COLS / 2,
                 .scale = scale, .scale_stride = 3, .global_scale = 0.37f };
    for (int row = 0; row < 2; row++)
        for (int col = 0; col < COLS; col += 2)
            for (int n = 0; n <= COLS - col; n++) {
                float got[COLS + 1];
                got[n] = 12345;
                ns_row_decode(&m, row, col, n, got);
                assert_true(got[n] == 12345);
                for (int j = 0; j < n; j++) {
                    int c = col + j;
                    float s = ns_e4m3_to_f32(scale[row * 3 + c / 16]) * 0.37f;
                    unsigned code = (unsigned)q[row * COLS / 2 + c / 2] >> (c % 2 ? 4 : 0);
                    assert_true(got[j] == ns_e2m1_to_f32(code) * s);
                }
            }
    ns_mat v = ns_mat_view(&m, 1, 1, 16, 32);
    float a[32], b[32];
    ns_row_decode(&v, 0, 0, 32, a);
    ns_row_decode(&m, 1, 16, 32, b);
    assert_memory_equal(a, b, sizeof a);
}

/* The definition, element by element. */
static uint8_t nearest_e2m1(float x)
{
    unsigned best = 0;
    for (unsigned c = 1; c < 8; c++) {
        float d = fabsf(fabsf(x) - ns_e2m1_to_f32(c)), b = fabsf(fabsf(x) - ns_e2m1_to_f32(best));
        if (d < b || (d == b && c % 2 == 0))
            best = c;
    }
    return (uint8_t)(best | (signbit(x) ? 8u : 0u));
}

static void encode_block(const float *x, float global, uint8_t *q, uint8_t *scale)
{
    float amax = 0;
    for (int j = 0; j < 16; j++)
        amax = fmaxf(amax, fabsf(x[j]));
    float s = amax / (6 * global);
    if (s == 0)
        s = 1;
    *scale = ns_f32_to_e4m3(fminf(fmaxf(s, 0x1p-9f), 448));
    float d = ns_e4m3_to_f32(*scale) * global;
    for (int j = 0; j < 8; j++)
        q[j] = (uint8_t)(nearest_e2m1(x[2 * j] / d) | nearest_e2m1(x[2 * j + 1] / d) << 4);
}

static void encode_nvfp4(void **state)
{
    (void)state;
    enum { N = 160 };
    ns_rng r;
    ns_rng_init(&r, 11);
    for (int round = 0; round < 200; round++) {
        float x[N], amax = 0;
        for (int j = 0; j < N; j++) {
            x[j] = (float)(ns_rng_normal(&r) * pow(10, (j / 16) - 7)); /* block magnitudes over ten decades: both clamps act */
            if (j / 16 == 3)
                x[j] = 0;
            if (j / 16 == 5)
                x[j] = 0.25f * (float)(int)(ns_rng_u64(&r) % 25); /* ties */
            amax = fmaxf(amax, fabsf(x[j]));
        }
        float global = round % 3 ? amax / (6 * 448) : amax / (6 * 448 * 32);
        uint8_t q[N / 2], scale[N / 16], want_q[8], want_scale;
        ns_nvfp4_encode_row(x, N, global, q, scale);
        for (int b = 0; b < N / 16; b++) {
            encode_block(x + 16 * b, global, want_q, &want_scale);
            assert_int_equal(scale[b], want_scale);
            assert_memory_equal(q + 8 * b, want_q, 8);
        }
        assert_int_equal(scale[3], 0x38); /* 1.0 */
    }
}

/* Values that the format represents come back bit for bit. */
static void nvfp4_round_trip(void **state)
{
    (void)state;
    float x[32], y[32];
    for (int j = 0; j < 32; j++)
        x[j] = ns_e2m1_to_f32((unsigned)j) * (j < 16 ? 3.5f : 448.0f) * 0.125f;
    x[8] = x[24] = 0; /* code 8 is -0 */
    uint8_t q[16], scale[2];
    ns_nvfp4_encode_row(x, 32, 0.125f, q, scale);
    ns_mat m = { .dtype = NS_NVFP4, .rows = 1, .cols = 32, .data = q, .stride = 16, .scale = scale, .scale_stride = 2,
                 .global_scale = 0.125f };
    ns_row_decode(&m, 0, 0, 32, y);
    assert_memory_equal(x, y, sizeof x);
    memset(x, 0, sizeof x);
    ns_nvfp4_encode_row(x, 32, 0, q, scale); /* a tensor of zeros has amax 0, hence global scale 0 */
    assert_int_equal(scale[0], 0x38);
    for (int j = 0; j < 16; j++)
        assert_int_equal(q[j], 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decode_tables), cmocka_unit_test(encode_cases),      cmocka_unit_test(special_values),
        cmocka_unit_test(nearest_even),  cmocka_unit_test(decode_rows),       cmocka_unit_test(decode_nvfp4_rows),
        cmocka_unit_test(encode_nvfp4),  cmocka_unit_test(nvfp4_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
