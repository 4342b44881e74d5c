/* Opening checkpoints: every spelling that must be accepted, and everything that must be refused by name. */
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
#include "base/log.h"
#include "tensor/format.h"
#include "tiny/tiny.h"

static char *base; /* the test's folder */

static int setup(void **state)
{
    (void)state;
    base = tiny_dir();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ns_log_sink(NULL, NULL);
    tiny_remove(base);
    free(base);
    return 0;
}

/* Makes base/x with the dtype and loads its tensors. */
static char *make(const char *dtype, tiny_file *f)
{
    tiny_opts o = tiny_defaults();
    char *dir = tiny_path(base, "x");
    o.dtype = dtype;
    assert_int_equal(tiny_make(dir, &o), 0);
    tiny_load(f, dir);
    return dir;
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" does not say \"%s\"", text, part);
}

/* Saves, opens, expects a refusal that says all of the parts; releases both. */
static void expect_refusal(char *dir, tiny_file *f, const char *a, const char *b, const char *c)
{
    ns_err e = { 0 };
    tiny_save(f, dir);
    ns_ckpt *k = ns_ckpt_open(dir, NULL, &e);
    assert_null(k);
    assert_contains(e.msg, a);
    assert_contains(e.msg, b);
    assert_contains(e.msg, c);
    tiny_release(f);
    free(dir);
}

static ns_ckpt *expect_open(const char *dir)
{
    ns_err e = { 0 };
    ns_ckpt *k = ns_ckpt_open(dir, NULL, &e);
    if (!k)
        fail_msg("%s", e.msg);
    return k;
}

static void opens_every_dtype(void **state)
{
    static const char *const dtypes[] = { "f32", "f16", "bf16", "fp8", "nvfp4", "fp8-all", "nvfp4-all" };
    static const ns_dtype up[] = { NS_F32, NS_F16, NS_BF16, NS_F8_E4M3, NS_NVFP4, NS_F8_E4M3, NS_NVFP4 };
    (void)state;
    for (size_t i = 0; i < 7; i++) {
        tiny_opts o = tiny_defaults();
        ns_err e = { 0 };
        o.dtype = dtypes[i];
        ns_ckpt *c = tiny_open(base, dtypes[i], &o);
        assert_int_equal(c->n_used, ns_store_count(c->store));
        assert_int_equal(ns_ckpt_weight(c, 1, NS_W_EXPERT_UP, 7)->mat.dtype, up[i]);
        bool all = strstr(dtypes[i], "all") != NULL;
        assert_int_equal(ns_ckpt_weight(c, -1, NS_W_LM_HEAD, 0)->mat.dtype, i < 3 || all ? up[i] : NS_BF16);
        assert_int_equal(ns_ckpt_verify(c, NULL, NULL, &e), 0);
        ns_ckpt_close(c);
    }
}

static void weight_answers(void **state)
{
    (void)state;
    ns_ckpt *c = tiny_open(base, "x", NULL);
    const ns_bound *b = ns_ckpt_weight(c, 0, NS_W_CONV, 0);
    assert_int_equal(b->mat.rows, 8 * 16 + 2 * 2 * 16);
    assert_int_equal(b->mat.cols, 4);
    b = ns_ckpt_weight(c, 0, NS_W_NORM, 0);
    assert_int_equal(b->mat.rows, 1);
    assert_int_equal(b->mat.cols, 64);
    assert_int_equal(b->expert_index, -1);
    assert_null(ns_ckpt_weight(c, 0, NS_W_Q, 0));           /* another kind of layer */
    assert_null(ns_ckpt_weight(c, 1, NS_W_EXPERT_UP, 8));   /* one too many */
    assert_null(ns_ckpt_weight(c, 0, NS_W_EXPERT_UP, 0));
    assert_null(ns_ckpt_weight(c, 0, NS_W_IN_PROJ_BIAS, 0));
    assert_null(ns_ckpt_weight(c, 8, NS_W_NORM, 0));
    assert_null(ns_ckpt_weight(c, -2, NS_W_NORM, 0));
    ns_ckpt_close(c);
}

static void tied_head_is_the_embedding(void **state)
{
    tiny_opts o = tiny_defaults();
    (void)state;
    o.tied = true;
    ns_ckpt *c = tiny_open(base, "x", &o);
    assert_ptr_equal(ns_ckpt_weight(c, -1, NS_W_LM_HEAD, 0), ns_ckpt_weight(c, -1, NS_W_EMBED, 0));
    ns_ckpt_close(c);
}

static void optional_weights(void **state)
{
    tiny_opts o = tiny_defaults();
    (void)state;
    o.biases = true;
    o.latent = 32;
    o.n_group = 2;
    ns_ckpt *c = tiny_open(base, "x", &o);
    assert_non_null(ns_ckpt_weight(c, 0, NS_W_IN_PROJ_BIAS, 0));
    assert_non_null(ns_ckpt_weight(c, 3, NS_W_V_BIAS, 0));
    assert_int_equal(ns_ckpt_weight(c, 1, NS_W_LATENT_OUT, 0)->mat.cols, 32);
    assert_int_equal(ns_ckpt_weight(c, 1, NS_W_EXPERT_UP, 3)->mat.cols, 32);
    ns_ckpt_close(c);
}

static void other_spellings(void **state)
{
    tiny_file f;
    (void)state;
    char *dir = make("nvfp4", &f);
    tiny_rename_prefix(&f, "backbone.embeddings.", "backbone.embedding.");
    tiny_rename_prefix(&f, "backbone.", "model.");
    tiny_save(&f, dir);
    ns_ckpt *c = expect_open(dir);
    assert_int_equal(c->n_used, ns_store_count(c->store));
    assert_non_null(ns_ckpt_weight(c, 3, NS_W_K, 0)->kv_scale);
    ns_ckpt_close(c);
    tiny_release(&f);
    free(dir);
}

/* ---- fused experts ---- */

static void assert_same_values(const ns_mat *a, const ns_mat *b)
{
    float x[256], y[256];
    assert_int_equal(a->rows, b->rows);
    assert_int_equal(a->cols, b->cols);
    for (int r = 0; r < a->rows; r++) {
        ns_row_decode(a, r, 0, a->cols, x);
        ns_row_decode(b, r, 0, b->cols, y);
        assert_memory_equal(x, y, (size_t)a->cols * sizeof *x);
    }
}

static void fused_equals_separate(void **state)
{
    static const char *const dtypes[] = { "bf16", "fp8", "nvfp4" };
    static const struct { const char *glue; bool suffix; } forms[] = { { ".", false }, { "_", false }, { ".", true } };
    (void)state;
    for (int i = 0; i < 9; i++) {
        tiny_opts o = tiny_defaults();
        tiny_file f;
        char name[64];
        o.dtype = dtypes[i / 3];
        snprintf(name, sizeof name, "a%d", i);
        ns_ckpt *a = tiny_open(base, name, &o);
        name[0] = 'b';
        char *dir = tiny_path(base, name);
        assert_int_equal(tiny_make(dir, &o), 0);
        tiny_load(&f, dir);
        tiny_fuse(&f, forms[i % 3].glue, forms[i % 3].suffix);
        tiny_save(&f, dir);
        ns_ckpt *b = expect_open(dir);
        assert_int_equal(b->n_used, ns_store_count(b->store));
        for (int x = 0; x < 8; x++) {
            const ns_bound *p = ns_ckpt_weight(a, 4, NS_W_EXPERT_DOWN, x), *q = ns_ckpt_weight(b, 4, NS_W_EXPERT_DOWN, x);
            assert_int_equal(p->expert_index, -1);
            assert_int_equal(q->expert_index, x);
            assert_same_values(&p->mat, &q->mat);
        }
        ns_ckpt_close(a);
        ns_ckpt_close(b);
        tiny_release(&f);
        free(dir);
    }
}

/* ---- refusals ---- */

static void missing_tensor(void **state)
{
    tiny_file f;
    (void)state;
    char *dir = make("f32", &f);
    tiny_drop(&f, "backbone.layers.2.mixer.A_log");
    expect_refusal(dir, &f, "backbone.layers.2.mixer.A_log", "missing", "/x");
}

static void missing_expert(void **state)
{
    tiny_file f;
    (void)state;
    char *dir = make("bf16", &f);
    tiny_drop(&f, "backbone.layers.4.mixer.experts.5.down_proj.weight");
    expect_refusal(dir, &f, "backbone.layers.4.mixer.experts.5.down_proj.weight", "missing", "");
}

static void wrong_shape(void **state)
{
    tiny_file f;
    (void)state;
    char *dir = make("f32", &f);
    tiny_tensor *t = tiny_find(&f, "backbone.layers.3.mixer.q_proj.weight");
    t->shape[0] = 64;
    t->shape[1] = 128;
    expect_refusal(dir, &f, "model.safetensors: tensor backbone.layers.3.mixer.q_proj.weight", "shape [64, 128]", "expected [128, 64]");
}

static void wrong_rank(void **state)
{
    tiny_file f;
    (void)state;
    char *dir = make("f32", &f);
    tiny_tensor *t = tiny_find(&f, "backbone.layers.0.mixer.conv1d.weight");
    t->n_dims = 2;
    t->shape[1] = 4;
    expect_refusal(dir, &f, "conv1d.weight", "shape [192, 4]", "expected [192, 1, 4]");
}

static void wrong_dtype(void **state)
{
    tiny_file f;
    (void)state;
    char *dir = make("f32", &f);
    tiny_find(&f, "backbone.layers.0.norm.weight")->dtype = NS_I32;
    expect_refusal(dir, &f, "backbone.layers.0.norm.weight", "type I32", "BF16");
}

static void quantised_vector(void **state)
{
    tiny_file f;
    (void)state;
    const uint8_t codes[64] = { 0 };
    char *dir = make("fp8", &f);
    tiny_drop(&f, "backbone.norm_f.weight");
    tiny_add(&f, "backbone.norm_f.weight", NS_F8_E4M3, 1, (int64_t[]){ 64 }, codes);
    expect_refusal(dir, &f, "backbone.norm_f.weight", "type F8_E4M3", "");
}

static void set_scale(tiny_file *f, const char *name, float x)
{
    memcpy(tiny_find(f, name)->data, &x, sizeof x);
}

static void bad_scales(void **state)
{
    static const struct { const char *dtype, *name; float value; } cases[] = {
        { "nvfp4", "backbone.layers.1.mixer.experts.3.up_proj.weight_scale_2", NAN },
        { "nvfp4", "backbone.layers.1.mixer.experts.3.up_proj.weight_scale_2", INFINITY },
        { "nvfp4", "backbone.layers.1.mixer.experts.3.up_proj.weight_scale_2", 0 },
        { "nvfp4", "backbone.layers.1.mixer.experts.3.up_proj.input_scale", NAN },
        { "fp8", "backbone.layers.0.mixer.in_proj.weight_scale", -1 },
        { "fp8", "backbone.layers.0.mixer.in_proj.weight_scale", NAN },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tiny_file f;
        char *dir = make(cases[i].dtype, &f);
        set_scale(&f, cases[i].name, cases[i].value);
        tiny_save(&f, dir);
        char *again = strdup(dir);
        expect_refusal(dir, &f, cases[i].name, "finite and positive", "");
        tiny_remove(again);
        free(again);
    }
}

static void missing_scales(void **state)
{
    static const struct { const char *dtype, *module, *scale; } cases[] = {
        { "nvfp4", "backbone.layers.1.mixer.experts.3.up_proj", "weight_scale" },
        { "nvfp4", "backbone.layers.1.mixer.experts.3.up_proj", "weight_scale_2" },
        { "fp8", "backbone.layers.0.mixer.in_proj", "weight_scale" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tiny_file f;
        char name[200], why[200];
        char *dir = make(cases[i].dtype, &f), *again = strdup(dir);
        snprintf(name, sizeof name, "%s.%s", cases[i].module, cases[i].scale);
        snprintf(why, sizeof why, "its %s is missing", cases[i].scale);
        tiny_drop(&f, name);
        expect_refusal(dir, &f, cases[i].module, why, "");
        tiny_remove(again);
        free(again);
    }
}

static void scale_of_wrong_shape(void **state)
{
    tiny_file f;
    (void)state;
    const float two[2] = { 1, 1 };
    char *dir = make("fp8", &f), *again = strdup(dir);
    tiny_drop(&f, "backbone.layers.0.mixer.in_proj.weight_scale");
    tiny_add(&f, "backbone.layers.0.mixer.in_proj.weight_scale", NS_F32, 1, (int64_t[]){ 2 }, two);
    expect_refusal(dir, &f, "in_proj.weight_scale", "2 entries", "scalar");
    tiny_remove(again);
    free(again);
    dir = make("nvfp4", &f);
    tiny_find(&f, "backbone.layers.1.mixer.experts.3.up_proj.weight_scale")->shape[0] = 24;
    tiny_find(&f, "backbone.layers.1.mixer.experts.3.up_proj.weight_scale")->shape[1] = 8;
    expect_refusal(dir, &f, "up_proj.weight_scale", "shape [24, 8]", "expected [48, 4]");
}

/* ---- what the quantisation config says, against what the file holds ---- */

/* Puts base/y's tensors of the module's dtype into base/x. */
static void swap_module(tiny_file *f, const char *dtype, const char *module)
{
    tiny_opts o = tiny_defaults();
    tiny_file other;
    char *dir = tiny_path(base, "y");
    o.dtype = dtype;
    assert_int_equal(tiny_make(dir, &o), 0);
    tiny_load(&other, dir);
    for (size_t i = 0, n = f->n; i < n; i++)
        if (f->t[i].name && strncmp(f->t[i].name, module, strlen(module)) == 0)
            tiny_drop(f, f->t[i].name);
    for (size_t i = 0; i < other.n; i++)
        if (strncmp(other.t[i].name, module, strlen(module)) == 0)
            tiny_add(f, other.t[i].name, other.t[i].dtype, other.t[i].n_dims, other.t[i].shape, other.t[i].data);
    tiny_release(&other);
    tiny_remove(dir);
    free(dir);
}

static void scheme_mismatch(void **state)
{
    static const struct { const char *dtype, *other, *module, *stored, *says; } cases[] = {
        { "nvfp4", "fp8", "backbone.layers.5.mixer.up_proj", "stored as F8_E4M3", "says NVFP4" },
        { "nvfp4", "bf16", "backbone.layers.5.mixer.up_proj", "stored as BF16", "says NVFP4" },
        { "fp8", "nvfp4", "backbone.layers.5.mixer.up_proj", "stored as U8", "says FP8" },
        { "fp8", "fp8-all", "lm_head", "stored as F8_E4M3", "says not quantised" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tiny_file f;
        char *dir = make(cases[i].dtype, &f), *again = strdup(dir);
        swap_module(&f, cases[i].other, cases[i].module);
        expect_refusal(dir, &f, cases[i].module, cases[i].stored, cases[i].says);
        tiny_remove(again);
        free(again);
    }
}

/* Without a quantisation config, or with one that lists nothing, the file decides. */
static void scheme_by_dtype(void **state)
{
    static const char one_word[] = "{\"quantization\": {\"quant_algo\": \"NVFP4\", \"kv_cache_quant_algo\": \"FP8\"}}";
    tiny_file f;
    ns_err e = { 0 };
    (void)state;
    char *dir = make("nvfp4", &f), *quant = tiny_path(dir, "hf_quant_config.json");
    swap_module(&f, "fp8", "backbone.layers.5.mixer.up_proj");
    tiny_save(&f, dir);
    for (int i = 0; i < 2; i++) {
        if (i == 0)
            unlink(quant);
        else
            assert_int_equal(ns_file_write(quant, one_word, strlen(one_word), &e), 0);
        ns_ckpt *c = expect_open(dir);
        assert_int_equal(ns_ckpt_dtype_of(c, 5, NS_W_UP, 0).dtype, NS_F8_E4M3);
        assert_int_equal(ns_ckpt_dtype_of(c, 5, NS_W_DOWN, 0).dtype, NS_NVFP4);
        ns_ckpt_close(c);
    }
    tiny_release(&f);
    free(quant);
    free(dir);
}

/* ---- files ---- */

static void truncated_shard(void **state)
{
    tiny_file f;
    ns_err e = { 0 };
    ns_map m;
    (void)state;
    char *dir = make("bf16", &f), *path = tiny_path(dir, "model.safetensors");
    assert_int_equal(ns_map_open(&m, path, &e), 0);
    assert_int_equal(truncate(path, (off_t)m.size - 100), 0);
    ns_map_close(&m);
    assert_null(ns_ckpt_open(dir, NULL, &e));
    assert_contains(e.msg, "model.safetensors");
    tiny_release(&f);
    free(path);
    free(dir);
}

static void not_a_folder(void **state)
{
    ns_err e = { 0 };
    (void)state;
    assert_null(ns_ckpt_open("/nonexistent/model", NULL, &e));
    assert_contains(e.msg, "/nonexistent/model");
    e = (ns_err){ 0 };
    assert_null(ns_ckpt_open(base, NULL, &e));
    assert_contains(e.msg, "config.json");
}

static void count_lines(void *ctx, const char *line)
{
    char *last = ctx;
    snprintf(last + 1, 999, "%s", line);
    last[0]++;
}

static void extra_tensors_are_logged_once(void **state)
{
    tiny_file f;
    char log[1001] = { 0 };
    const float x = 1;
    (void)state;
    char *dir = make("f32", &f);
    tiny_add(&f, "mtp.layers.0.norm.weight", NS_F32, 0, NULL, &x);
    tiny_save(&f, dir);
    ns_log_sink(count_lines, log);
    ns_ckpt_close(expect_open(dir));
    assert_int_equal(log[0], 0);
    tiny_add(&f, "backbone.layers.0.mixer.surprise", NS_F32, 0, NULL, &x);
    tiny_add(&f, "vision.proj", NS_F32, 0, NULL, &x);
    tiny_save(&f, dir);
    ns_ckpt_close(expect_open(dir));
    assert_int_equal(log[0], 1);
    assert_contains(log + 1, "2 tensors");
    assert_contains(log + 1, "backbone.layers.0.mixer.surprise");
    assert_contains(log + 1, "vision.proj");
    tiny_release(&f);
    free(dir);
}

/* ---- the full scan ---- */

static void verify_finds(const char *dtype, const char *name, size_t at, const void *bad, size_t width, const char *where)
{
    tiny_file f;
    ns_err e = { 0 };
    char *dir = make(dtype, &f);
    memcpy(tiny_find(&f, name)->data + at * width, bad, width);
    tiny_save(&f, dir);
    ns_ckpt *c = expect_open(dir);
    assert_int_equal(ns_ckpt_verify(c, NULL, NULL, &e), -1);
    assert_contains(e.msg, name);
    assert_contains(e.msg, where);
    ns_ckpt_close(c);
    tiny_release(&f);
    tiny_remove(dir);
    free(dir);
}

static void verify_names_the_place(void **state)
{
    const float inf = INFINITY;
    const uint16_t bf16_nan = 0xffc0, f16_inf = 0xfc00;
    const uint8_t e4m3_nan = 0xff;
    (void)state;
    verify_finds("f32", "backbone.embeddings.weight", 95 * 64 + 63, &inf, 4, "[95, 63]");
    verify_finds("bf16", "backbone.layers.0.mixer.conv1d.weight", 7 * 4 + 2, &bf16_nan, 2, "[7, 0, 2]");
    verify_finds("f16", "backbone.layers.0.mixer.D", 5, &f16_inf, 2, "[5]");
    verify_finds("fp8", "backbone.layers.5.mixer.down_proj.weight", 3 * 96 + 1, &e4m3_nan, 1, "[3, 1]");
    verify_finds("nvfp4", "backbone.layers.5.mixer.down_proj.weight_scale", 2 * 6 + 5, &e4m3_nan, 1, "[2, 5]");
}

static void sum_progress(void *ctx, size_t done, size_t total)
{
    size_t *last = ctx;
    assert_true(done > last[0] && done <= total);
    last[0] = done;
    last[1] = total;
}

static void verify_reports_progress(void **state)
{
    size_t last[2] = { 0 };
    ns_err e = { 0 };
    (void)state;
    ns_ckpt *c = tiny_open(base, "x", NULL);
    assert_int_equal(ns_ckpt_verify(c, sum_progress, last, &e), 0);
    assert_int_equal(last[0], last[1]);
    assert_int_equal(last[0], ns_store_bytes(c->store));
    ns_ckpt_close(c);
}

/* ---- sizes ---- */

static void sizes_by_name(void **state)
{
    tiny_opts o = tiny_defaults();
    char name[64];
    ns_cut cut;
    ns_err e = { 0 };
    (void)state;
    o.dtype = "nvfp4";
    ns_ckpt *c = tiny_open(base, "x", &o);
    assert_int_equal(ns_ckpt_size(c, "hidden=48,expert_ffn=32", &cut, name, sizeof name, &e), 0);
    assert_int_equal(ns_cut_hidden(&cut), 48);
    ns_cut_release(&cut);
    assert_int_equal(ns_ckpt_size(c, "expert_ffn=40", &cut, name, sizeof name, &e), -1);
    assert_contains(e.msg, "expert_ffn 40");
    assert_contains(e.msg, "32");
    assert_contains(e.msg, "48");
    ns_ckpt_close(c);
}

static void opens_the_golden_fixtures(void **state)
{
    static const char *const names[] = { "aliases", "attn_heavy", "bf16", "biases", "dense", "fp8", "grouped_router", "latent", "long", "mixed",
                                         "moe", "nvfp4", "odd_axes", "tied" };
    const char *src = getenv("NS_TEST_SRC");
    (void)state;
    if (!src)
        skip();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[4096];
        ns_err e = { 0 };
        snprintf(path, sizeof path, "%s/tests/golden/fixtures/%s", src, names[i]);
        ns_ckpt *c = expect_open(path);
        if (ns_ckpt_verify(c, NULL, NULL, &e) != 0)
            fail_msg("%s", e.msg);
        ns_ckpt_close(c);
    }
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(opens_every_dtype), T(weight_answers), T(tied_head_is_the_embedding), T(optional_weights), T(other_spellings), T(fused_equals_separate),
        T(missing_tensor), T(missing_expert), T(wrong_shape), T(wrong_rank), T(wrong_dtype), T(quantised_vector), T(bad_scales), T(missing_scales),
        T(scale_of_wrong_shape), T(scheme_mismatch), T(scheme_by_dtype), T(truncated_shard), T(not_a_folder), T(extra_tensors_are_logged_once),
        T(verify_names_the_place), T(verify_reports_progress), T(sizes_by_name), T(opens_the_golden_fixtures),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
