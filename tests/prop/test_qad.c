/* Quantisation-aware distillation: the weights that are trained are those that are written, at every size. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "forge/slice.h"
#include "tensor/format.h"
#include "prop/stopper.h"
#include "tiny/tiny.h"
#include "train/elastify.h"
#include "train/folder_io.h"

enum { SEQ = 32, STEPS = 4 };

static char *data_path;
static ns_ckpt *parent;
static ns_params params;
static ns_real *original; /* the parent's weights */
static ns_comm *comm;

static void must(int rc, const ns_err *e)
{
    if (rc != 0)
        fail_msg("%s", e->msg);
}

static ns_real *reals(void)
{
    ns_real *x = ns_alloc_aligned(params.count * sizeof *x);
    assert_non_null(x);
    return x;
}

static void write_data(const char *path)
{
    ns_rng r;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    ns_rng_init(&r, 4);
    for (int d = 0; d < 80; d++) {
        fprintf(f, "{\"ids\":[%d", d % 90);
        for (int i = 0; i < 20; i++)
            fprintf(f, ",%d", 3 + (int)(ns_rng_u64(&r) % 90));
        fprintf(f, "]}\n");
    }
    fclose(f);
}

static int setup(void **state)
{
    ns_err e = { 0 };
    tiny_opts o = tiny_defaults();
    tiny_setup(state);
    data_path = tiny_path(tiny_base, "data.jsonl");
    write_data(data_path);
    o.pattern = "MEM*-ME";
    o.nest = "{\"version\": 1, \"variants\": [{\"name\": \"full\"}, {\"name\": \"M\", \"cut\": {\"hidden\": 48}}, "
             "{\"name\": \"S\", \"cut\": {\"hidden\": 32, \"expert_ffn\": 16, \"mamba_heads\": 4}}]}";
    parent = tiny_open(tiny_base, "parent", &o);
    must(ns_params_plan(parent->arch, &params, &e), &e);
    original = reals();
    must(ns_params_load(&params, parent, original, &e), &e);
    comm = ns_comm_open(&e);
    must(comm ? 0 : -1, &e);
    return 0;
}

static int teardown(void **state)
{
    ns_comm_close(comm);
    ns_params_release(&params);
    ns_ckpt_close(parent);
    free(original);
    free(data_path);
    return tiny_teardown(state);
}

/* No sizes are given: they are the parent's own. */
static ns_elastify_opts options(ns_quantize_opts qad)
{
    static const char *paths[1];
    ns_elastify_opts o = ns_elastify_defaults();
    paths[0] = data_path;
    o.data = paths;
    o.n_data = 1;
    o.hold_out = 10;
    o.seed = 3;
    o.qad = qad;
    o.train.steps = STEPS;
    o.train.seq_tokens = SEQ;
    o.train.packs = 2;
    o.train.micro_batches = 3;
    o.train.workers = 2;
    o.train.schedule = (ns_schedule){ .lr = 2e-3, .lr_min = 2e-3 };
    return o;
}

/* Runs it into tiny_base/name. */
static char *distil(const char *name, const ns_elastify_opts *o, json_t **report)
{
    ns_err e = { 0 };
    char *out = tiny_path(tiny_base, name);
    must(ns_elastify(parent, NULL, o, out, comm, report, &e), &e);
    return out;
}

static ns_ckpt *opened(const char *dir)
{
    ns_err e = { 0 };
    ns_ckpt *c = ns_ckpt_open(dir, NULL, &e);
    must(c ? 0 : -1, &e);
    return c;
}

/* An array of a finished run's state. */
static ns_real *state_of(const char *run, const char *name)
{
    char path[512];
    ns_err e = { 0 };
    ns_real *x = reals();
    snprintf(path, sizeof path, "%s/resume/state.safetensors", run);
    ns_store *st = ns_store_open(path, NS_LOAD_MMAP, &e);
    const ns_tensor *t = st ? ns_store_get(st, name, &e) : NULL;
    must(t ? 0 : -1, &e);
    assert_int_equal(t->bytes, params.count * sizeof *x);
    memcpy(x, t->data, t->bytes);
    ns_store_close(st);
    return x;
}

static ns_real *decoded(const char *dir)
{
    ns_err e = { 0 };
    ns_real *x = reals();
    ns_ckpt *c = opened(dir);
    must(ns_params_load(&params, c, x, &e), &e);
    ns_ckpt_close(c);
    return x;
}

static void same_weights(const ns_real *a, const ns_real *b, const char *what)
{
    for (size_t i = 0; i < params.count; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("%s: weight %zu is %.9g and %.9g", what, i, (double)a[i], (double)b[i]);
}

static void same_file(const char *a_dir, const char *b_dir, const char *name)
{
    char a[512], b[512];
    ns_err e = { 0 };
    ns_buf x = { 0 }, y = { 0 };
    snprintf(a, sizeof a, "%s/%s", a_dir, name);
    snprintf(b, sizeof b, "%s/%s", b_dir, name);
    must(ns_file_read(a, SIZE_MAX, &x, &e) || ns_file_read(b, SIZE_MAX, &y, &e), &e);
    if (x.len != y.len || memcmp(x.data, y.data, x.len) != 0)
        fail_msg("%s of %s and %s differ", name, a_dir, b_dir);
    ns_buf_release(&x);
    ns_buf_release(&y);
}

/* ---- what is written ---- */

/* Quantised weights moved off the masters, the others are the masters, in the type that was asked for. */
static void check_types(const char *dir, const ns_elastify_opts *o, const ns_real *masters, const ns_real *w)
{
    const ns_dtype want = strcmp(o->qad.format, "fp8") == 0 ? NS_F8_E4M3 : NS_NVFP4;
    ns_ckpt *c = opened(dir);
    int quantised = 0;
    for (int i = 0; i < params.n; i++) {
        const ns_param *x = &params.p[i];
        const ns_dtype t = ns_ckpt_weight(c, x->layer, x->role, 0)->mat.dtype;
        quantised += t == want;
        for (size_t k = x->off; t != want && k < x->off + x->count; k++)
            assert_true(w[k] == (t == NS_BF16 ? ns_bf16_to_f32(ns_f32_to_bf16(masters[k])) : masters[k]));
        if (t != want)
            assert_int_equal(t, x->buffer ? NS_F32 : o->dtype);
        else
            assert_memory_not_equal(w + x->off, masters + x->off, x->count * sizeof *w);
    }
    /* 3 Mamba, 2 MoE, a dense and an attention layer, and the head; but the attention layer, the Mamba layer before it, and the head */
    assert_int_equal(quantised, (o->qad.all ? 21 : 14) - 4 * o->qad.n_keep);
    ns_ckpt_close(c);
}

/* The masters through `nestar quantize`: the other way to the same weights. */
static ns_real *quantised_apart(const char *name, const ns_elastify_opts *o, const ns_real *masters)
{
    ns_err e = { 0 };
    char f32_name[64], q_name[64];
    snprintf(f32_name, sizeof f32_name, "%s-f32", name);
    snprintf(q_name, sizeof q_name, "%s-q", name);
    char *f32 = tiny_path(tiny_base, f32_name), *out = tiny_path(tiny_base, q_name);
    json_t *config = ns_params_config(parent->arch->config, NS_F32, &e);
    must(ns_params_save(&params, masters, config, NS_F32, NULL, NULL, NULL, f32, &e), &e);
    ns_ckpt *c = opened(f32);
    ns_quantize_opts q = o->qad;
    q.bf16 = o->dtype == NS_BF16;
    must(ns_quantize(c, &q, out, NULL, &e), &e);
    ns_real *w = decoded(out);
    ns_ckpt_close(c);
    json_decref(config);
    free(f32);
    free(out);
    return w;
}

/* What training measured at the end under each size's mask is what the written weights give. */
static void check_losses(const json_t *report, const ns_elastify_opts *o, const ns_real *w)
{
    ns_err e = { 0 };
    const ns_data_opts d = { .paths = o->data, .n_paths = 1, .seed = o->seed, .vocab_size = parent->arch->vocab_size,
                             .eos_id = parent->arch->n_eos > 0 ? parent->arch->eos_ids[0] : -1, .max_doc = SEQ };
    ns_data *data = ns_data_open(&d, NULL, &e);
    must(data ? ns_data_hold_out(data, o->hold_out, &e) : -1, &e);
    ns_net_mask mask;
    must(ns_mask_init(parent->arch, &mask, &e), &e);
    for (int i = 0; i < parent->variants.n; i++) {
        const json_t *held = json_object_get(json_array_get(json_object_get(report, "sizes"), (size_t)i), "held_out");
        ns_loss l;
        ns_mask_set_cut(parent->arch, &parent->variants.v[i].cut, &mask);
        must(ns_train_eval(&params, w, original, &mask, NULL, data, &o->train, comm, &l, &e), &e);
        assert_true(l.kl / l.weight == json_number_value(json_object_get(held, "kl")));
        assert_true(l.ce / l.weight == json_number_value(json_object_get(held, "ce")));
        assert_true(l.kl > 0);
    }
    ns_mask_release(&mask);
    ns_data_free(data);
}

/* Slices of the quantised checkpoint hold, at every size, the numbers that slices of the trained weights hold. */
static void check_slices(const char *dir, const char *name, const ns_real *w)
{
    ns_err e = { 0 };
    char plain_name[64];
    snprintf(plain_name, sizeof plain_name, "%s-plain", name);
    char *plain_dir = tiny_path(tiny_base, plain_name);
    json_t *config = ns_params_config(parent->arch->config, NS_F32, &e);
    must(ns_params_save(&params, w, config, NS_F32, NULL, NULL, NULL, plain_dir, &e), &e);
    ns_ckpt *from[2] = { opened(dir), opened(plain_dir) };
    for (int i = 0; i < parent->variants.n; i++) {
        ns_params p;
        ns_real *got[2];
        for (int k = 0; k < 2; k++) {
            char out[512];
            snprintf(out, sizeof out, "%s/%s-cut%d%d", tiny_base, name, i, k);
            must(ns_slice(from[k], &parent->variants.v[i].cut, out, NULL, &e), &e);
            ns_ckpt *c = opened(out);
            must(ns_params_plan(c->arch, &p, &e), &e);
            got[k] = malloc(p.count * sizeof *got[k]);
            must(ns_params_load(&p, c, got[k], &e), &e);
            assert_true(i == 0 ? p.count == params.count : p.count < params.count);
            if (k == 1)
                assert_memory_equal(got[0], got[1], p.count * sizeof *got[0]);
            ns_params_release(&p);
            ns_ckpt_close(c);
        }
        free(got[0]);
        free(got[1]);
    }
    ns_ckpt_close(from[0]);
    ns_ckpt_close(from[1]);
    json_decref(config);
    free(plain_dir);
}

static void what_is_trained_is_written(void **state)
{
    static const char *const keep[] = { "backbone.layers.1.*" };
    const struct { ns_quantize_opts q; ns_dtype dtype; } cases[] = {
        { { .format = "nvfp4" }, NS_F32 },
        { { .format = "nvfp4", .all = true, .search = true }, NS_BF16 },
        { { .format = "nvfp4", .all = true, .keep = keep, .n_keep = 1 }, NS_F32 },
        { { .format = "fp8" }, NS_BF16 },
        { { .format = "fp8", .all = true }, NS_F32 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[32], run[512];
        json_t *report = NULL;
        ns_err e = { 0 };
        snprintf(name, sizeof name, "case%zu", i);
        ns_elastify_opts o = options(cases[i].q);
        o.dtype = cases[i].dtype;
        char *out = distil(name, &o, &report);
        snprintf(run, sizeof run, "%s.train/stage1", out);
        ns_real *w = decoded(out), *masters = state_of(run, "parameters"), *apart = quantised_apart(name, &o, masters);

        /* what the network ran with after the last step */
        ns_qad q;
        ns_quantize_opts qo = o.qad;
        qo.bf16 = o.dtype == NS_BF16;
        ns_pool *pool = ns_pool_new(3, &e);
        must(ns_qad_init(&q, parent, &params, &qo, &e), &e);
        ns_qad_refresh(&q, masters, pool);
        same_weights(q.seen, w, "trained and written");
        same_weights(apart, w, "quantised apart and written");
        assert_memory_not_equal(masters, original, params.count * sizeof *w);
        check_types(out, &o, masters, w);
        check_losses(report, &o, w);
        check_slices(out, name, w);

        ns_qad_release(&q);
        ns_pool_free(pool);
        json_decref(report);
        free(w);
        free(masters);
        free(apart);
        free(out);
    }
}

/* Where nothing moves, it is nestar quantize. */
static void without_steps_it_quantises(void **state)
{
    (void)state;
    ns_err e = { 0 };
    ns_elastify_opts o = options((ns_quantize_opts){ .format = "nvfp4" });
    o.train.schedule = (ns_schedule){ 0 };
    char *a = distil("still", &o, NULL), *b = tiny_path(tiny_base, "quantised");
    must(ns_quantize(parent, &o.qad, b, NULL, &e), &e);
    same_file(a, b, "model.safetensors");
    same_file(a, b, "hf_quant_config.json");
    same_file(a, b, "nest.json");
    free(a);
    free(b);
}

/* ---- straight through ---- */

/* One step from `w`, which is released; returns the run's folder. */
static char *one_step(const char *name, ns_real *w, ns_qad *q)
{
    ns_err e = { 0 };
    const ns_data_opts d = { .paths = (const char *const[]){ data_path }, .n_paths = 1, .vocab_size = parent->arch->vocab_size, .eos_id = -1,
                             .max_doc = SEQ };
    const ns_objective obj = { .qad = q };
    ns_train_opts o = options((ns_quantize_opts){ 0 }).train;
    o.steps = 1;
    ns_data *data = ns_data_open(&d, NULL, &e);
    must(data ? 0 : -1, &e);
    char *dir = tiny_path(tiny_base, name);
    must(ns_train(&params, w, data, &obj, &o, dir, false, comm, &e), &e);
    ns_data_free(data);
    free(w);
    return dir;
}

/* A step of the masters has the gradient, and so the moments and the update, of a plain step from the quantised weights. */
static void gradients_go_straight_through(void **state)
{
    static const char *const formats[] = { "fp8", "nvfp4" };
    (void)state;
    for (int i = 0; i < 2; i++) {
        ns_err e = { 0 };
        ns_quantize_opts o = { .format = formats[i], .all = true };
        char name[3][32];
        for (int k = 0; k < 3; k++)
            snprintf(name[k], sizeof name[k], "%s-%d", formats[i], k);
        char *folder = tiny_path(tiny_base, name[0]);
        must(ns_quantize(parent, &o, folder, NULL, &e), &e);
        ns_qad q;
        must(ns_qad_init(&q, parent, &params, &o, &e), &e);
        ns_real *start = reals(), *grid = decoded(folder);
        memcpy(start, original, params.count * sizeof *start);
        char *a = one_step(name[1], start, &q), *b = one_step(name[2], grid, NULL);
        ns_real *ma = state_of(a, "first_moment"), *mb = state_of(b, "first_moment");
        ns_real *va = state_of(a, "second_moment"), *vb = state_of(b, "second_moment");
        ns_real *wa = state_of(a, "parameters"), *wb = state_of(b, "parameters");
        same_weights(ma, mb, "first moments");
        same_weights(va, vb, "second moments");
        grid = decoded(folder);
        size_t moved = 0;
        for (size_t k = 0; k < params.count; k++) {
            assert_true(fabsf((wa[k] - original[k]) - (wb[k] - grid[k])) < 1e-6f);
            moved += fabsf(wa[k] - original[k]) > 1e-3f;
        }
        assert_true(moved > params.count / 2);
        assert_memory_not_equal(grid, original, params.count * sizeof *grid);
        ns_qad_release(&q);
        ns_real *all[] = { ma, mb, va, vb, wa, wb, grid };
        for (size_t k = 0; k < sizeof all / sizeof *all; k++)
            free(all[k]);
        free(a);
        free(b);
        free(folder);
    }
}

/* ---- going on, and what is refused ---- */

static void resumes_bit_for_bit(void **state)
{
    (void)state;
    ns_err e = { 0 };
    struct stopper s = { 2, 0 };
    ns_elastify_opts o = options((ns_quantize_opts){ .format = "nvfp4" });
    o.stage2_steps = 2;
    char *whole = distil("whole", &o, NULL), *parts = tiny_path(tiny_base, "parts");
    o.train.on_step = stopper_step;
    o.train.on_step_ctx = &s;
    o.train.interrupted = &s.flag;
    assert_int_equal(ns_elastify(parent, NULL, &o, parts, comm, NULL, &e), -1);
    assert_int_equal(e.code, NS_ECANCELLED);
    o.resume = true;
    o.train.on_step = NULL;
    o.train.interrupted = NULL;
    ns_elastify_opts other = o;
    e = (ns_err){ 0 };
    other.qad.search = true;
    assert_int_equal(ns_elastify(parent, NULL, &other, parts, comm, NULL, &e), -1);
    assert_non_null(strstr(e.msg, "the run began with weights quantised as \"nvfp4\", not \"nvfp4 search\""));
    free(distil("parts", &o, NULL));
    same_file(whole, parts, "model.safetensors");
    free(whole);
    free(parts);
}

static void refused(const ns_ckpt *c, const ns_elastify_opts *o, const char *why)
{
    ns_err e = { 0 };
    char *out = tiny_path(tiny_base, "refused");
    assert_int_equal(ns_elastify(c, NULL, o, out, comm, NULL, &e), -1);
    if (!strstr(e.msg, why))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, why);
    assert_false(ns_dir_exists(out));
    free(out);
}

static void refusals(void **state)
{
    static const char *const split[] = { "full", "S=hidden=40" }, *const everything[] = { "*" };
    (void)state;
    ns_err e = { 0 };
    const ns_quantize_opts nvfp4 = { .format = "nvfp4" };
    char *dir = tiny_path(tiny_base, "quantised-already");
    must(ns_quantize(parent, &nvfp4, dir, NULL, &e), &e);
    ns_ckpt *q = opened(dir);
    ns_elastify_opts o = options(nvfp4);
    refused(q, &o, "is NVFP4 already; quantise from the plain checkpoint");
    o = options((ns_quantize_opts){ .format = "fp6" });
    refused(parent, &o, "unknown format \"fp6\"");
    o = options((ns_quantize_opts){ .format = "fp8", .keep = everything, .n_keep = 1 });
    refused(parent, &o, "no weight is left to quantise");
    o = options(nvfp4);
    o.sizes.fixed = split;
    o.sizes.n_fixed = 2;
    refused(parent, &o, "size S: ");
    refused(parent, &o, "hidden");
    o = options(nvfp4);
    o.sizes.budgets = "1,0.7";
    refused(parent, &o, "--qad nvfp4: the router learns without quantisation");
    ns_ckpt_close(q);
    free(dir);

    tiny_opts t = tiny_defaults();
    t.dense_ffn = 40;
    ns_ckpt *odd = tiny_open(tiny_base, "odd", &t);
    o = options(nvfp4);
    o.sizes.fixed = split;
    o.sizes.n_fixed = 1;
    refused(odd, &o, "40 columns cannot be stored as NVFP4");
    ns_ckpt_close(odd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_trained_is_written), cmocka_unit_test(without_steps_it_quantises),
        cmocka_unit_test(gradients_go_straight_through), cmocka_unit_test(resumes_bit_for_bit), cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
