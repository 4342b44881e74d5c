/* A folder of plain floats holds the numbers of the cut that it was made from: for every stored type, fused experts and random cuts, F32
 * bit for bit what the parent's rows decode to, BF16 and F16 their nearest. Nothing of the quantisation is left, and what does not fit the
 * type is refused. */
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

#include "base/file.h"
#include "forge/slice.h"
#include "tensor/format.h"
#include "tiny/tiny.h"

static const char *const stored[] = { "f32", "f16", "bf16", "fp8", "nvfp4", "fp8-all", "nvfp4-all" };
enum { N_STORED = 7 };

static ns_ckpt *need_open(const char *dir)
{
    ns_err e = { 0 };
    ns_ckpt *c = ns_ckpt_open(dir, NULL, &e);
    if (!c)
        fail_msg("%s", e.msg);
    return c;
}

/* Odd ones have fused experts and the other prefix. */
static ns_ckpt *parent(int i)
{
    tiny_opts o = tiny_defaults();
    char name[32];
    snprintf(name, sizeof name, "parent%d", i);
    o.dtype = stored[i / 2 % N_STORED];
    o.biases = i % 3 == 0;
    o.latent = i % 3 == 2 ? 32 : 0;
    o.n_group = i % 4 == 3 ? 2 : 1;
    o.tied = i % 5 == 4;
    o.seed = (uint64_t)i;
    ns_ckpt *c = tiny_open(tiny_base, name, &o);
    if (i % 2 == 0)
        return c;
    tiny_file f;
    char *dir = strdup(c->dir);
    ns_ckpt_close(c);
    tiny_load(&f, dir);
    tiny_fuse(&f, i % 4 == 1 ? "." : "_", false);
    tiny_rename_prefix(&f, "backbone.", "model.");
    tiny_save(&f, dir);
    tiny_release(&f);
    c = need_open(dir);
    free(dir);
    return c;
}

static float rounded(float x, ns_dtype t)
{
    return t == NS_F16 ? ns_f16_to_f32(ns_f32_to_f16(x)) : t == NS_BF16 ? ns_bf16_to_f32(ns_f32_to_bf16(x)) : x;
}

static void check_weight(const ns_ckpt *c, const ns_cut *cut, const ns_ckpt *s, int layer, int new_layer, ns_role r, int expert, int new_expert, ns_dtype t)
{
    const ns_bound *p = ns_ckpt_weight(c, layer, r, expert), *q = ns_ckpt_weight(s, new_layer, r, new_expert);
    const ns_weight_def *def = ns_weight_get(r);
    ns_arena arena = { 0 };
    ns_segs rows = { .n = 1, .total = 1, .seg = &(ns_seg){ 0, 1 } }, cols;
    if (r == NS_W_GATE_CORRECTION)
        t = NS_F32;
    assert_non_null(q);
    assert_int_equal(q->mat.dtype, t);
    assert_null(q->scale);
    assert_null(q->scale_2);
    assert_null(q->input_scale);
    assert_null(q->kv_scale);
    if (def->n_dims > 1)
        assert_int_equal(ns_cut_segments(c->arch, cut, layer, def->dim[0], &arena, &rows), 0);
    assert_int_equal(ns_cut_segments(c->arch, cut, layer, def->dim[def->n_dims - 1], &arena, &cols), 0);
    assert_int_equal(q->mat.rows, rows.total);
    assert_int_equal(q->mat.cols, cols.total);
    float *x = malloc((size_t)p->mat.cols * sizeof *x), *y = malloc((size_t)q->mat.cols * sizeof *y);
    int out = 0;
    for (int g = 0; g < rows.n; g++)
        for (int i = 0; i < rows.seg[g].len; i++, out++) {
            ns_row_decode(&p->mat, rows.seg[g].off + i, 0, p->mat.cols, x);
            ns_row_decode(&q->mat, out, 0, q->mat.cols, y);
            for (int h = 0, at = 0; h < cols.n; at += cols.seg[h++].len)
                for (int k = 0; k < cols.seg[h].len; k++)
                    assert_int_equal(ns_f32_bits(rounded(x[cols.seg[h].off + k], t)), ns_f32_bits(y[at + k]));
        }
    free(x);
    free(y);
    ns_arena_release(&arena);
}

static void check_layer(const ns_ckpt *c, const ns_cut *cut, const ns_ckpt *s, int layer, int new_layer, ns_dtype t)
{
    for (int r = 0; r < NS_W_COUNT; r++) {
        const bool each = ns_weight_get((ns_role)r)->per_expert;
        if (!ns_weight_exists(c->arch, layer, (ns_role)r))
            continue;
        const int n = each ? c->arch->layers[layer].width[NS_AXIS_EXPERTS] : 1;
        for (int x = 0, to = 0; x < n; x++)
            if (!each || ns_cut_has_expert(c->arch, cut, layer, x))
                check_weight(c, cut, s, layer, new_layer, (ns_role)r, x, to++, t);
    }
}

static void assert_no_file(const char *dir, const char *name)
{
    char *path = tiny_path(dir, name);
    assert_false(ns_file_exists(path));
    free(path);
}

static void holds_the_decoded_cut(void **state)
{
    static const struct { const char *name, *key; ns_dtype dtype; } to[] = { { "f32", "float32", NS_F32 }, { "bf16", "bfloat16", NS_BF16 },
                                                                             { "f16", "float16", NS_F16 } };
    (void)state;
    for (int i = 0; i < 2 * N_STORED; i++) {
        ns_ckpt *c = parent(i);
        for (int k = 0; k < 4; k++) {
            char name[32];
            ns_cut cut;
            ns_err e = { 0 };
            const int d = k < 2 ? 0 : k - 1; /* F32 twice */
            snprintf(name, sizeof name, "out%d-%d", i, k);
            char *out = tiny_path(tiny_base, name);
            assert_int_equal(tiny_random_cut(c, (uint64_t)(300 * i + k), &cut), 0);
            ns_slice_opts o = { .dtype = to[d].name, .max_shard_bytes = k ? 30000 : 0 };
            if (ns_slice(c, &cut, out, &o, &e) != 0)
                fail_msg("%s", e.msg);
            ns_ckpt *s = need_open(out);
            for (int l = -1, at = 0; l < c->arch->n_layers; l++)
                if (l < 0 || cut.layer[l].keep)
                    check_layer(c, &cut, s, l, l < 0 ? -1 : at++, to[d].dtype);
            assert_no_file(out, "hf_quant_config.json");
            assert_null(json_object_get(s->arch->config, "quantization_config"));
            assert_string_equal(json_string_value(json_object_get(s->arch->config, "torch_dtype")), to[d].key);
            assert_true(k == 0 || ns_store_n_shards(s->store) > 1);
            free(out);
            ns_cut_release(&cut);
            ns_ckpt_close(s);
        }
        ns_ckpt_close(c);
    }
}

/* quantization_config inside config.json goes as well, and every key that names the type says the new one. */
static void config_is_that_of_plain_weights(void **state)
{
    static const char *const keys[] = { "dtype", "torch_dtype" };
    tiny_opts o = tiny_defaults();
    ns_err e = { 0 };
    ns_cut full;
    (void)state;
    o.dtype = "nvfp4";
    o.nest = "{\"version\": 1, \"variants\": [{\"name\": \"big\"}]}";
    ns_ckpt *c = tiny_open(tiny_base, "p", &o);
    char *config = tiny_path(c->dir, "config.json"), *quant = tiny_path(c->dir, "hf_quant_config.json"), *dir = strdup(c->dir);
    char *out = tiny_path(tiny_base, "s");
    ns_ckpt_close(c);
    json_t *cfg = ns_json_open(config, true, &e), *q = ns_json_open(quant, true, &e);
    json_object_set_new(cfg, "quantization_config", json_deep_copy(json_object_get(q, "quantization")));
    json_object_set_new(cfg, "dtype", json_string("bfloat16"));
    json_object_set_new(cfg, "torch_dtype", json_string("bfloat16"));
    json_object_set_new(cfg, "auto_map", json_pack("{s:s}", "AutoConfig", "configuration_x.X"));
    assert_int_equal(json_dump_file(cfg, config, 0), 0);
    assert_int_equal(unlink(quant), 0);
    json_decref(cfg);
    json_decref(q);
    c = need_open(dir);
    assert_int_equal(ns_cut_full(c->arch, &full, &e), 0);
    if (ns_slice(c, &full, out, &(ns_slice_opts){ .dtype = "f32", .keep_nest = true }, &e) != 0)
        fail_msg("%s", e.msg);
    ns_ckpt *s = need_open(out);
    assert_null(json_object_get(s->arch->config, "quantization_config"));
    assert_null(json_object_get(s->arch->config, "auto_map"));
    for (int i = 0; i < 2; i++)
        assert_string_equal(json_string_value(json_object_get(s->arch->config, keys[i])), "float32");
    const double least_dt = json_real_value(json_object_get(s->arch->config, "time_step_min")); /* absent would be 0.001 to transformers */
    assert_true(least_dt > 0 && least_dt < 1e-15);
    assert_false(s->variants.assumed);
    assert_string_equal(s->variants.v[0].name, "full");
    ns_cut_release(&full);
    ns_ckpt_close(s);
    ns_ckpt_close(c);
    free(config);
    free(quant);
    free(dir);
    free(out);
}

static void refused(const ns_ckpt *c, const ns_cut *cut, const char *dtype, const char *why)
{
    ns_err e = { 0 };
    char *out = tiny_path(tiny_base, "no"), *partial = tiny_path(tiny_base, "no.partial");
    assert_int_equal(ns_slice(c, cut, out, &(ns_slice_opts){ .dtype = dtype }, &e), -1);
    if (!strstr(e.msg, why))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, why);
    assert_false(ns_dir_exists(out));
    assert_false(ns_dir_exists(partial));
    free(out);
    free(partial);
}

static void what_does_not_fit(void **state)
{
    static const char name[] = "backbone.layers.0.mixer.out_proj.weight";
    tiny_file f;
    ns_err e = { 0 };
    ns_cut full, small;
    char text[64];
    (void)state;
    ns_ckpt *c = tiny_open(tiny_base, "p", NULL);
    char *dir = strdup(c->dir);
    ns_ckpt_close(c);
    tiny_load(&f, dir);
    float *x = (float *)(void *)tiny_find(&f, name)->data;
    x[3 * 128 + 100] = 70000; /* [64, 128]: row 3, a column of the second group's second half */
    tiny_save(&f, dir);
    c = need_open(dir);
    assert_int_equal(ns_cut_full(c->arch, &full, &e), 0);
    assert_int_equal(ns_ckpt_size(c, "mamba_heads=4", &small, text, sizeof text, &e), 0);
    refused(c, &full, "f16", name);
    refused(c, &full, "f16", "row 3");
    refused(c, &full, "f64", "f32, bf16 or f16");
    char *out = tiny_path(tiny_base, "fits");
    assert_int_equal(ns_slice(c, &small, out, &(ns_slice_opts){ .dtype = "f16" }, &e), 0); /* the cut lacks that column */
    ns_ckpt_close(c);
    x[0] = INFINITY;
    tiny_save(&f, dir);
    c = need_open(dir);
    refused(c, &full, "f32", "F32 cannot");
    refused(c, &full, "bf16", "BF16 cannot");
    ns_ckpt_close(c);
    ns_cut_release(&full);
    ns_cut_release(&small);
    tiny_release(&f);
    free(dir);
    free(out);
}

#define T(f) cmocka_unit_test_setup_teardown(f, tiny_setup, tiny_teardown)
int main(void)
{
    const struct CMUnitTest tests[] = { T(holds_the_decoded_cut), T(config_is_that_of_plain_weights), T(what_does_not_fit) };
    return cmocka_run_group_tests_name("export_hf", tests, NULL, NULL);
}
