/* Quantising: the stored numbers, what is left alone, what is refused, and that sizes survive. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rng.h"
#include "forge/quantize.h"
#include "forge/slice.h"
#include "store/writer.h"
#include "tensor/encode.h"
#include "tiny/tiny.h"

static ns_ckpt *plain(const char *name, const char *dtype, const char *nest)
{
    tiny_opts o = tiny_defaults();
    o.dtype = dtype;
    o.nest = nest;
    return tiny_open(tiny_base, name, &o);
}

static ns_ckpt *quantised(const ns_ckpt *c, ns_quantize_opts o, const char *name, ns_quantize_report *r)
{
    ns_err e = { 0 };
    char *out = tiny_path(tiny_base, name);
    if (ns_quantize(c, &o, out, r, &e) != 0)
        fail_msg("%s", e.msg);
    ns_ckpt *q = ns_ckpt_open(out, NULL, &e);
    if (!q)
        fail_msg("%s", e.msg);
    free(out);
    return q;
}

static void refused(const ns_ckpt *c, ns_quantize_opts o, const char *why)
{
    ns_err e = { 0 };
    char *out = tiny_path(tiny_base, "refused"), *partial = tiny_path(tiny_base, "refused.partial");
    assert_int_equal(ns_quantize(c, &o, out, NULL, &e), -1);
    if (!strstr(e.msg, why))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, why);
    assert_int_not_equal(access(out, F_OK), 0);
    assert_int_not_equal(access(partial, F_OK), 0);
    free(out);
    free(partial);
}

typedef struct pair {
    const ns_ckpt *from, *to;
    bool fp4, all;
    int quantised;
} pair;

/* Every row by the definition: the matrix's largest magnitude gives its scale; blocks and codes follow row by row. */
static void check_rows(const pair *p, const ns_mat *a, const ns_mat *b)
{
    float *x = malloc((size_t)a->cols * 4), *y = malloc((size_t)a->cols * 4), amax = 0;
    uint8_t *q = malloc((size_t)a->cols), *s = malloc((size_t)a->cols);
    for (int r = 0; r < a->rows; r++) {
        ns_row_decode(a, r, 0, a->cols, x);
        for (int i = 0; i < a->cols; i++)
            amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    }
    assert_true(b->global_scale == amax / (p->fp4 ? 6 * 448 : 448));
    for (int r = 0; r < a->rows; r++) {
        ns_row_decode(a, r, 0, a->cols, x);
        if (p->fp4) {
            ns_nvfp4_encode_row(x, a->cols, b->global_scale, q, s);
            assert_memory_equal(q, b->data + (size_t)r * b->stride, (size_t)a->cols / 2);
            assert_memory_equal(s, b->scale + (size_t)r * b->scale_stride, (size_t)a->cols / 16);
        } else {
            ns_row_decode(b, r, 0, a->cols, y);
            for (int i = 0; i < a->cols; i++) /* no other code would be nearer: half a step is 1/16 of the value at most */
                assert_true(fabsf(x[i] - y[i]) <= fmaxf(fabsf(x[i]) / 16, b->global_scale * 0x1p-10f) * 1.0001f);
        }
    }
    free(x);
    free(y);
    free(q);
    free(s);
}

static int check_weight(void *ctx, int layer, ns_role r, int expert)
{
    pair *p = ctx;
    const ns_bound *a = ns_ckpt_weight(p->from, layer, r, expert), *b = ns_ckpt_weight(p->to, layer, r, expert);
    const bool attention = r == NS_W_Q || r == NS_W_K || r == NS_W_V || r == NS_W_O;
    /* the tiny pattern is MEM*E-ME: layer 2 is the Mamba layer before attention */
    const bool left = r == NS_W_LM_HEAD || attention || (layer == 2 && (r == NS_W_IN_PROJ || r == NS_W_OUT_PROJ));
    assert_non_null(b);
    if (!ns_weight_get(r)->quantisable || (left && !p->all)) {
        assert_int_equal(a->mat.dtype, b->mat.dtype);
        assert_memory_equal(a->mat.data, b->mat.data, ns_mat_bytes(&a->mat));
        return 0;
    }
    assert_int_equal(b->mat.dtype, p->fp4 ? NS_NVFP4 : NS_F8_E4M3);
    assert_null(b->input_scale);
    p->quantised++;
    check_rows(p, &a->mat, &b->mat);
    return 0;
}

static void numbers_are_those_of_the_format(void **state)
{
    (void)state;
    ns_ckpt *c = plain("from", "bf16", NULL);
    for (int i = 0; i < 4; i++) {
        char name[16];
        ns_quantize_report r = { 0 };
        pair p = { .from = c, .fp4 = i & 1, .all = i & 2 };
        snprintf(name, sizeof name, "q%d", i);
        ns_ckpt *q = quantised(c, (ns_quantize_opts){ .format = p.fp4 ? "nvfp4" : "fp8", .all = p.all, .threads = 1 + i % 3 }, name, &r);
        p.to = q;
        ns_manifest_each(c->arch, check_weight, &p);
        assert_int_equal(p.quantised, r.n_tensors);
        assert_int_equal(r.bytes_out, ns_store_bytes(q->store));
        const double error = sqrt(r.sum_error / r.sum_squares);
        assert_true(p.fp4 ? error > 0.07 && error < 0.12 : error > 0.02 && error < 0.03); /* of normal numbers */
        ns_ckpt_close(q);
    }
    ns_ckpt_close(c);
}

static int check_rest(void *ctx, int layer, ns_role r, int expert)
{
    pair *p = ctx;
    const ns_bound *a = ns_ckpt_weight(p->from, layer, r, expert), *b = ns_ckpt_weight(p->to, layer, r, expert);
    float x[256], y[256];
    if (b->mat.dtype == NS_NVFP4)
        return 0;
    p->quantised++;
    assert_int_equal(b->mat.dtype, r == NS_W_GATE_CORRECTION ? NS_F32 : NS_BF16);
    assert_int_equal(b->tensor->n_dims, a->tensor->n_dims);
    assert_true(a->mat.cols <= 256);
    for (int row = 0; row < a->mat.rows; row++) {
        ns_row_decode(&a->mat, row, 0, a->mat.cols, x);
        ns_row_decode(&b->mat, row, 0, a->mat.cols, y);
        for (int i = 0; i < a->mat.cols; i++)
            assert_true(y[i] == (b->mat.dtype == NS_BF16 ? ns_bf16_to_f32(ns_f32_to_bf16(x[i])) : x[i]));
    }
    return 0;
}

/* Of an F32 checkpoint: what stays plain is rounded where that is asked for. */
static void the_rest_as_bf16(void **state)
{
    (void)state;
    ns_ckpt *c = plain("wide", "f32", NULL);
    pair p = { .from = c };
    ns_ckpt *q = quantised(c, (ns_quantize_opts){ .format = "nvfp4", .bf16 = true }, "narrow", NULL);
    p.to = q;
    ns_manifest_each(c->arch, check_rest, &p);
    assert_true(p.quantised > 20);
    ns_ckpt_close(q);
    ns_ckpt_close(c);
}

static void search_lowers_the_error(void **state)
{
    (void)state;
    ns_ckpt *c = plain("plain", "f32", NULL);
    ns_quantize_report usual, found;
    ns_ckpt *a = quantised(c, (ns_quantize_opts){ .format = "nvfp4" }, "usual", &usual);
    ns_ckpt *b = quantised(c, (ns_quantize_opts){ .format = "nvfp4", .search = true }, "found", &found);
    assert_true(found.sum_error < 0.9 * usual.sum_error);
    ns_ckpt_close(a);
    ns_ckpt_close(b);
    ns_ckpt_close(c);
}

/* By brute force over every E4M3 scale: none within the searched range is better. */
static void search_finds_the_least(void **state)
{
    (void)state;
    ns_rng g;
    ns_rng_init(&g, 7);
    for (int round = 0; round < 300; round++) {
        float x[16], gs = 1e-3f;
        uint8_t q[8], scale, usual;
        double ss = 0, se = 0;
        for (int i = 0; i < 16; i++)
            x[i] = (float)ns_rng_normal(&g) * (i == round % 16 ? 4 : 1);
        ns_nvfp4_encode_row(x, 16, gs, q, &usual);
        ns_row_encode_nvfp4(x, 16, gs, true, q, &scale, &ss, &se);
        const float s0 = ns_e4m3_to_f32(usual);
        for (int code = 1; code < 0x7f; code++) {
            const float s = ns_e4m3_to_f32((uint8_t)code);
            double err = 0;
            if (s < 0.75f * s0 || s > 1.5f * s0)
                continue;
            ns_nvfp4_encode_block(x, s * gs, q);
            for (int i = 0; i < 16; i++)
                err += pow(x[i] - ns_e2m1_to_f32(q[i / 2] >> 4 * (i % 2) & 15) * s * gs, 2);
            assert_true(err >= se * 0.9999);
        }
    }
}

static void sizes_survive(void **state)
{
    (void)state;
    static const char nest[] = "{\"version\": 1, \"variants\": [{\"name\": \"big\"}, {\"name\": \"small\", \"cut\": {\"hidden\": 48, "
                               "\"expert_ffn\": 32}}]}";
    ns_ckpt *c = plain("nested", "bf16", nest);
    ns_ckpt *q = quantised(c, (ns_quantize_opts){ .format = "nvfp4" }, "nested4", NULL);
    ns_err e = { 0 };
    const ns_variant *v = ns_variants_find(&q->variants, "small");
    assert_non_null(v);
    char *out = tiny_path(tiny_base, "sliced");
    assert_int_equal(ns_slice(q, &v->cut, out, NULL, &e), 0);
    ns_ckpt *s = ns_ckpt_open(out, NULL, &e);
    for (int r = NS_W_EXPERT_UP; r <= NS_W_EXPERT_DOWN; r++)
        for (int x = 0; x < q->arch->layers[1].width[NS_AXIS_EXPERTS]; x++) {
            const ns_mat *whole = &ns_ckpt_weight(q, 1, (ns_role)r, x)->mat, *part = &ns_ckpt_weight(s, 1, (ns_role)r, x)->mat;
            assert_int_equal(part->dtype, NS_NVFP4);
            assert_true(whole->global_scale == part->global_scale); /* the whole tensor's, wherever its largest entry lies */
            for (int i = 0; i < part->rows; i++) {
                assert_memory_equal(part->data + (size_t)i * part->stride, whole->data + (size_t)i * whole->stride, (size_t)part->cols / 2);
                assert_memory_equal(part->scale + (size_t)i * part->scale_stride, whole->scale + (size_t)i * whole->scale_stride,
                                    (size_t)part->cols / 16);
            }
        }
    free(out);
    ns_ckpt_close(s);
    ns_ckpt_close(q);
    ns_ckpt_close(c);
}

static void a_size_that_splits_a_block(void **state)
{
    (void)state;
    static const char nest[] = "{\"version\": 1, \"variants\": [{\"name\": \"big\"}, {\"name\": \"odd\", \"cut\": {\"hidden\": 40}}]}";
    ns_ckpt *c = plain("odd", "bf16", nest);
    refused(c, (ns_quantize_opts){ .format = "nvfp4" }, "size odd");
    ns_ckpt *q = quantised(c, (ns_quantize_opts){ .format = "fp8" }, "odd8", NULL); /* FP8 has no blocks */
    ns_ckpt_close(q);
    ns_ckpt_close(c);
}

static void kept_modules(void **state)
{
    (void)state;
    const char *keep[] = { "backbone.layers.0.*", "backbone.layers.1.mixer.experts.3.up_proj" };
    ns_ckpt *c = plain("keep", "f32", NULL);
    ns_ckpt *q = quantised(c, (ns_quantize_opts){ .format = "fp8", .keep = keep, .n_keep = 2 }, "kept", NULL);
    assert_int_equal(ns_ckpt_weight(q, 0, NS_W_IN_PROJ, 0)->mat.dtype, NS_F32);
    assert_int_equal(ns_ckpt_weight(q, 1, NS_W_EXPERT_UP, 3)->mat.dtype, NS_F32);
    assert_int_equal(ns_ckpt_weight(q, 1, NS_W_EXPERT_UP, 2)->mat.dtype, NS_F8_E4M3);
    assert_int_equal(ns_ckpt_weight(q, 1, NS_W_EXPERT_DOWN, 3)->mat.dtype, NS_F8_E4M3);
    ns_ckpt_close(q);
    ns_ckpt_close(c);
}

/* ---- statistics ---- */

typedef struct stats {
    ns_tensor t[400];
    size_t n;
    float value, other; /* of expert 5: each has its own */
} stats;

static int add_stat(void *ctx, int layer, ns_role r, int expert)
{
    stats *s = ctx;
    char name[300];
    if (!ns_weight_get(r)->quantisable)
        return 0;
    ns_weight_name(layer, r, expert, name, sizeof name);
    for (int k = 0; k < 2; k++) {
        snprintf(strstr(name, k ? "input_amax" : "weight"), 20, "%s", k ? "output_amax" : "input_amax");
        s->t[s->n++] = (ns_tensor){ .name = strdup(name), .dtype = NS_F32, .bytes = 4,
                                      .data = (const uint8_t *)(expert == 5 ? &s->other : &s->value) };
    }
    return 0;
}

static void statistics_become_scales(void **state)
{
    (void)state;
    stats s = { .value = 8.96f, .other = 4.48f };
    ns_err e = { 0 };
    ns_ckpt *c = plain("stat", "bf16", NULL);
    char *path = tiny_path(tiny_base, "stats.safetensors");
    ns_manifest_each(c->arch, add_stat, &s);
    assert_int_equal(ns_st_write_file(path, s.t, s.n, NULL, 0, &e), 0);
    ns_ckpt *q = quantised(c, (ns_quantize_opts){ .format = "fp8", .calib = path, .kv_fp8 = true }, "stat8", NULL);
    const ns_bound *b = ns_ckpt_weight(q, 1, NS_W_EXPERT_UP, 5), *k = ns_ckpt_weight(q, 3, NS_W_K, 0);
    float x;
    assert_non_null(b->input_scale);
    memcpy(&x, b->input_scale->data, 4);
    assert_true(x == 4.48f / 448);
    memcpy(&x, ns_ckpt_weight(q, 1, NS_W_EXPERT_UP, 4)->input_scale->data, 4);
    assert_true(x == 8.96f / 448);
    assert_true(k->kv_factor == 8.96f / 448 && ns_ckpt_weight(q, 3, NS_W_V, 0)->kv_factor == 8.96f / 448);
    assert_non_null(k->kv_scale);
    memcpy(&x, k->kv_scale->data, 4);
    assert_true(x == 8.96f / 448);
    assert_string_equal(ns_quant_kv_algo(q->quant), "FP8");
    ns_ckpt_close(q);
    q = quantised(c, (ns_quantize_opts){ .format = "nvfp4", .calib = path }, "stat4", NULL);
    memcpy(&x, ns_ckpt_weight(q, 1, NS_W_EXPERT_UP, 4)->input_scale->data, 4);
    assert_true(x == 8.96f / (6 * 448));
    assert_null(ns_quant_kv_algo(q->quant));
    assert_true(ns_ckpt_weight(q, 3, NS_W_K, 0)->kv_factor == 1);
    ns_ckpt_close(q);
    s.value = NAN;
    assert_int_equal(ns_st_write_file(path, s.t, s.n, NULL, 0, &e), 0);
    refused(c, (ns_quantize_opts){ .format = "fp8", .calib = path }, "no largest magnitude");
    assert_int_equal(ns_st_write_file(path, s.t, 1, NULL, 0, &e), 0);
    refused(c, (ns_quantize_opts){ .format = "fp8", .calib = path }, "input_amax");
    for (size_t i = 0; i < s.n; i++)
        free((char *)(uintptr_t)s.t[i].name);
    free(path);
    ns_ckpt_close(c);
}

static void refusals(void **state)
{
    (void)state;
    ns_ckpt *c = plain("ok", "bf16", NULL), *done = plain("done", "fp8", NULL);
    refused(c, (ns_quantize_opts){ .format = "int4" }, "int4");
    refused(c, (ns_quantize_opts){ .format = "fp8", .kv_fp8 = true }, "statistics");
    refused(done, (ns_quantize_opts){ .format = "nvfp4" }, "already");
    ns_ckpt_close(c);
    ns_ckpt_close(done);

    tiny_file f;
    char *dir = tiny_path(tiny_base, "ok");
    ns_err e = { 0 };
    tiny_load(&f, dir);
    tiny_tensor *t = tiny_find(&f, "backbone.layers.1.mixer.experts.2.down_proj.weight");
    memcpy(t->data + 10, (uint16_t[]){ 0x7fc0 }, 2);
    tiny_save(&f, dir);
    tiny_release(&f);
    ns_ckpt *bad = ns_ckpt_open(dir, NULL, &e);
    refused(bad, (ns_quantize_opts){ .format = "nvfp4" }, "experts.2.down_proj");
    ns_ckpt_close(bad);
    free(dir);
}

#define T(f) cmocka_unit_test_setup_teardown(f, tiny_setup, tiny_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = { T(numbers_are_those_of_the_format), T(the_rest_as_bf16), T(search_lowers_the_error), T(search_finds_the_least),
                                        T(sizes_survive), T(a_size_that_splits_a_block), T(kept_modules), T(statistics_become_scales),
                                        T(refusals) };
    return cmocka_run_group_tests_name("quantize", tests, NULL, NULL);
}
