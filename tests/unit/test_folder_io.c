/* Checkpoint folders to flat parameters and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "arch/config.h"
#include "base/file.h"
#include "tensor/format.h"
#include "tiny/tiny.h"
#include "train/folder_io.h"

typedef struct model {
    ns_ckpt *c;
    ns_params p;
    ns_real *flat;
} model;

static void load(model *m, ns_ckpt *c)
{
    ns_err e = { 0 };
    m->c = c;
    assert_int_equal(ns_params_plan(c->arch, &m->p, &e), 0);
    m->flat = malloc(m->p.count * sizeof *m->flat);
    if (ns_params_load(&m->p, c, m->flat, &e) != 0)
        fail_msg("%s", e.msg);
}

static void unload(model *m)
{
    ns_params_release(&m->p);
    free(m->flat);
    ns_ckpt_close(m->c);
}

static const char *const dtypes[] = { "f32", "f16", "bf16", "fp8-all", "nvfp4-all" };

/* Every element of every stored type, against a decoding of its own. */
static int compare(void *ctx, int layer, ns_role r, int expert)
{
    const model *m = ctx;
    const ns_bound *b = ns_ckpt_weight(m->c, layer, r, expert);
    const ns_real *at = ns_params_cat(&m->p, m->flat, layer, r, expert);
    float *row = malloc((size_t)b->mat.cols * sizeof *row);
    for (int i = 0; i < b->mat.rows; i++) {
        ns_row_decode(&b->mat, i, 0, b->mat.cols, row);
        assert_memory_equal(row, at + (size_t)i * (size_t)b->mat.cols, (size_t)b->mat.cols * sizeof *row);
    }
    free(row);
    return 0;
}

static void test_load_any_type(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        tiny_opts o = tiny_defaults();
        model m;
        o.dtype = dtypes[i];
        o.biases = i == 0;
        o.latent = i == 2 ? 32 : 0;
        o.tied = i == 1;
        load(&m, tiny_open(tiny_base, dtypes[i], &o));
        assert_int_equal(ns_manifest_each(m.c->arch, compare, &m), 0);
        unload(&m);
    }
}

static ns_ckpt *save(const model *m, const char *name, ns_dtype dtype)
{
    ns_err e = { 0 };
    char *dir = tiny_path(tiny_base, name);
    json_t *config = ns_params_config(m->c->arch->config, dtype, &e);
    assert_non_null(config);
    if (ns_params_save(&m->p, m->flat, config, dtype, m->c->dir, NULL, NULL, dir, &e) != 0)
        fail_msg("%s", e.msg);
    json_decref(config);
    ns_ckpt *c = ns_ckpt_open(dir, NULL, &e);
    if (!c)
        fail_msg("%s", e.msg);
    free(dir);
    return c;
}

static void test_save_f32_is_exact(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        tiny_opts o = tiny_defaults();
        char name[40], out[48];
        model m, back;
        snprintf(name, sizeof name, "exact-%s", dtypes[i]);
        snprintf(out, sizeof out, "%s-out", name);
        o.dtype = dtypes[i];
        o.biases = true;
        load(&m, tiny_open(tiny_base, name, &o));
        load(&back, save(&m, out, NS_F32));
        assert_int_equal(back.p.count, m.p.count);
        assert_memory_equal(back.flat, m.flat, m.p.count * sizeof *m.flat);
        assert_string_equal(json_string_value(json_object_get(ns_config_text(back.c->arch->config), "torch_dtype")), "float32");
        assert_null(json_object_get(back.c->arch->config, "quantization_config"));
        unload(&m);
        unload(&back);
    }
}

static void test_save_bf16_rounds_once(void **state)
{
    (void)state;
    model m, back;
    load(&m, tiny_open(tiny_base, "round", NULL));
    load(&back, save(&m, "round-out", NS_BF16));
    for (int i = 0; i < m.p.n; i++)
        for (size_t k = m.p.p[i].off; k < m.p.p[i].off + m.p.p[i].count; k++)
            assert_float_equal(back.flat[k], m.p.p[i].buffer ? m.flat[k] : ns_bf16_to_f32(ns_f32_to_bf16(m.flat[k])), 0);
    assert_int_equal(ns_ckpt_weight(back.c, 1, NS_W_GATE_CORRECTION, 0)->mat.dtype, NS_F32);
    assert_int_equal(ns_ckpt_weight(back.c, 0, NS_W_A_LOG, 0)->mat.dtype, NS_BF16);
    unload(&m);
    unload(&back);
}

static int add_file(void *ctx, const char *dir, ns_err *e)
{
    ns_buf path = { 0 };
    int rc = ns_file_write(ns_path_join(&path, dir, ctx), "x", 1, e);
    ns_buf_release(&path);
    return rc;
}

static int refuse(void *ctx, const char *dir, ns_err *e)
{
    (void)ctx;
    return ns_fail(e, NS_EIO, "%s: refused", dir);
}

static void test_extra_files_and_failures(void **state)
{
    (void)state;
    ns_err e = { 0 };
    model m;
    char *dir = tiny_path(tiny_base, "extra-out"), *file = tiny_path(dir, "more.txt");
    char more[] = "more.txt";
    load(&m, tiny_open(tiny_base, "extra", NULL));
    const json_t *config = m.c->arch->config;
    assert_int_equal(ns_params_save(&m.p, m.flat, config, NS_F32, NULL, refuse, NULL, dir, &e), -1);
    assert_false(ns_dir_exists(dir)); /* nothing appears that is not complete */
    e = (ns_err){ 0 };
    assert_int_equal(ns_params_save(&m.p, m.flat, config, NS_F16, NULL, NULL, NULL, dir, &e), -1);
    assert_non_null(strstr(e.msg, "F16"));
    e = (ns_err){ 0 };
    assert_int_equal(ns_params_save(&m.p, m.flat, config, NS_F32, NULL, add_file, more, dir, &e), 0);
    assert_true(ns_file_exists(file));
    assert_int_equal(ns_params_save(&m.p, m.flat, config, NS_F32, NULL, NULL, NULL, dir, &e), -1); /* it is there already */
    unload(&m);
    free(file);
    free(dir);
}

/* A plan of one architecture does not take the weights of another. */
static void test_wrong_architecture(void **state)
{
    (void)state;
    ns_err e = { 0 };
    tiny_opts o = tiny_defaults();
    o.dense_ffn = 112;
    model m;
    load(&m, tiny_open(tiny_base, "one", NULL));
    ns_ckpt *other = tiny_open(tiny_base, "other", &o);
    assert_int_equal(ns_params_load(&m.p, other, m.flat, &e), -1);
    assert_non_null(strstr(e.msg, "up_proj"));
    ns_ckpt_close(other);
    unload(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load_any_type),          cmocka_unit_test(test_save_f32_is_exact),
        cmocka_unit_test(test_save_bf16_rounds_once),  cmocka_unit_test(test_extra_files_and_failures),
        cmocka_unit_test(test_wrong_architecture),
    };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
