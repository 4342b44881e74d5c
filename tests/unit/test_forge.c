/* Slicing, synthesis and inspection. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "forge/formats.h"
#include "forge/inspect.h"
#include "forge/slice.h"
#include "forge/synth.h"
#include "tensor/format.h"
#include "tiny/tiny.h"

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" does not say \"%s\"", text, part);
}

static ns_ckpt *need_open(const char *dir)
{
    ns_err e = { 0 };
    ns_ckpt *c = ns_ckpt_open(dir, NULL, &e);
    if (!c)
        fail_msg("%s", e.msg);
    return c;
}

static ns_ckpt *slice_to(const ns_ckpt *c, const ns_cut *cut, const char *name, size_t max_shard)
{
    ns_err e = { 0 };
    ns_slice_opts o = ns_slice_defaults();
    char *out = tiny_path(tiny_base, name);
    o.max_shard_bytes = max_shard ? max_shard : o.max_shard_bytes;
    if (ns_slice(c, cut, out, &o, &e) != 0)
        fail_msg("%s", e.msg);
    ns_ckpt *s = need_open(out);
    free(out);
    return s;
}

static void assert_same_store(const ns_store *a, const ns_store *b)
{
    assert_int_equal(ns_store_count(a), ns_store_count(b));
    for (size_t i = 0; i < ns_store_count(a); i++) {
        const ns_tensor *x = ns_store_at(a, i), *y = ns_store_find(b, x->name);
        if (!y)
            fail_msg("%s is missing", x->name);
        assert_int_equal(x->dtype, y->dtype);
        assert_int_equal(x->n_dims, y->n_dims);
        assert_memory_equal(x->shape, y->shape, sizeof x->shape[0] * (size_t)x->n_dims);
        assert_int_equal(x->bytes, y->bytes);
        assert_memory_equal(x->data, y->data, x->bytes);
    }
}

static void assert_same_json(const char *dir_a, const char *dir_b, const char *name)
{
    json_t *a, *b;
    ns_err e = { 0 };
    assert_int_equal(ns_ckpt_json(dir_a, name, &a, &e), 0);
    assert_int_equal(ns_ckpt_json(dir_b, name, &b, &e), 0);
    assert_true((!a && !b) || json_equal(a, b));
    json_decref(a);
    json_decref(b);
}

static const char *const dtypes[] = { "f32", "f16", "bf16", "fp8", "nvfp4", "nvfp4-all" };
enum { N_DTYPES = 6 };

/* A checkpoint of each kind, with fused experts and biases in some. */
static ns_ckpt *parent(int i)
{
    tiny_opts o = tiny_defaults();
    char name[32];
    snprintf(name, sizeof name, "parent%d", i);
    o.dtype = dtypes[i % N_DTYPES];
    o.biases = i % 2;
    o.latent = i % 3 == 2 ? 32 : 0;
    o.n_group = i % 4 == 3 ? 2 : 1;
    o.tied = i % 5 == 4;
    o.seed = (uint64_t)i;
    ns_ckpt *c = tiny_open(tiny_base, name, &o);
    if (i < N_DTYPES)
        return c;
    tiny_file f;
    char *dir = strdup(c->dir);
    ns_ckpt_close(c);
    tiny_load(&f, dir);
    tiny_fuse(&f, i % 2 ? "." : "_", false);
    tiny_rename_prefix(&f, "backbone.", "model.");
    tiny_save(&f, dir);
    tiny_release(&f);
    c = need_open(dir);
    free(dir);
    return c;
}

/* ---- slicing ---- */

static void full_slice_is_the_same(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * N_DTYPES; i++) {
        char name[32];
        ns_cut full;
        ns_err e = { 0 };
        ns_ckpt *c = parent(i);
        snprintf(name, sizeof name, "full%d", i);
        assert_int_equal(ns_cut_full(c->arch, &full, &e), 0);
        ns_ckpt *s = slice_to(c, &full, name, i % 2 ? 20000 : 0);
        assert_true(i % 2 == 0 || ns_store_n_shards(s->store) > 1);
        assert_same_store(c->store, s->store);
        assert_same_json(c->dir, s->dir, "config.json");
        assert_same_json(c->dir, s->dir, "hf_quant_config.json");
        ns_cut_release(&full);
        ns_ckpt_close(s);
        ns_ckpt_close(c);
    }
}

/* The bytes that the cost model foretells are those of the file. */
static void cost_equals_the_file(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * N_DTYPES; i++) {
        ns_ckpt *c = parent(i);
        for (int k = 0; k < 6; k++) {
            char name[32];
            ns_cut cut, full;
            ns_cost foretold, found;
            ns_err e = { 0 };
            snprintf(name, sizeof name, "cut%d-%d", i, k);
            assert_int_equal(tiny_random_cut(c, (uint64_t)(100 * i + k), &cut), 0);
            ns_ckpt *s = slice_to(c, &cut, name, 0);
            assert_int_equal(ns_cut_full(s->arch, &full, &e), 0);
            assert_int_equal(ns_cut_cost(c->arch, &cut, ns_ckpt_dtype_of, c, &foretold, &e), 0);
            assert_int_equal(ns_cut_cost(s->arch, &full, ns_ckpt_dtype_of, s, &found, &e), 0);
            assert_int_equal(foretold.weight_bytes, ns_store_bytes(s->store));
            assert_memory_equal(&foretold, &found, sizeof found);
            ns_cut_release(&cut);
            ns_cut_release(&full);
            ns_ckpt_close(s);
        }
        ns_ckpt_close(c);
    }
}

/* Element (i, j) of the slice is the element of the parent that the segments say: checked through the decoder, by weight. */
static void check_weight(const ns_ckpt *c, const ns_cut *cut, const ns_ckpt *s, int layer, int new_layer, ns_role r, int expert, int new_expert)
{
    const ns_bound *p = ns_ckpt_weight(c, layer, r, expert), *q = ns_ckpt_weight(s, new_layer, r, new_expert);
    const ns_weight_def *def = ns_weight_get(r);
    ns_arena arena = { 0 };
    ns_segs rows = { .n = 1, .total = 1, .seg = &(ns_seg){ 0, 1 } }, cols;
    float *x, *y;
    assert_non_null(q);
    if (def->n_dims > 1)
        assert_int_equal(ns_cut_segments(c->arch, cut, layer, def->dim[0], &arena, &rows), 0);
    assert_int_equal(ns_cut_segments(c->arch, cut, layer, def->dim[def->n_dims - 1], &arena, &cols), 0);
    assert_int_equal(q->mat.rows, rows.total);
    assert_int_equal(q->mat.cols, cols.total);
    assert_true(q->mat.global_scale == p->mat.global_scale);
    x = malloc((size_t)p->mat.cols * sizeof *x);
    y = malloc((size_t)q->mat.cols * sizeof *y);
    int out = 0;
    for (int g = 0; g < rows.n; g++)
        for (int i = 0; i < rows.seg[g].len; i++, out++) {
            ns_row_decode(&p->mat, rows.seg[g].off + i, 0, p->mat.cols, x);
            ns_row_decode(&q->mat, out, 0, q->mat.cols, y);
            for (int h = 0, at = 0; h < cols.n; at += cols.seg[h++].len)
                assert_memory_equal(x + cols.seg[h].off, y + at, (size_t)cols.seg[h].len * sizeof *x);
        }
    free(x);
    free(y);
    ns_arena_release(&arena);
}

static void check_layer(const ns_ckpt *c, const ns_cut *cut, const ns_ckpt *s, int layer, int new_layer)
{
    for (int r = 0; r < NS_W_COUNT; r++) {
        bool each = ns_weight_get((ns_role)r)->per_expert;
        if (!ns_weight_exists(c->arch, layer, (ns_role)r))
            continue;
        int n = each ? c->arch->layers[layer].width[NS_AXIS_EXPERTS] : 1;
        for (int x = 0, to = 0; x < n; x++)
            if (!each || ns_cut_has_expert(c->arch, cut, layer, x))
                check_weight(c, cut, s, layer, new_layer, (ns_role)r, x, to++);
    }
}

static void slice_holds_the_right_numbers(void **state)
{
    (void)state;
    for (int i = 0; i < 2 * N_DTYPES; i++) {
        ns_ckpt *c = parent(i);
        for (int k = 0; k < 4; k++) {
            char name[32];
            ns_cut cut;
            int to = 0;
            snprintf(name, sizeof name, "num%d-%d", i, k);
            assert_int_equal(tiny_random_cut(c, (uint64_t)(7000 + 100 * i + k), &cut), 0);
            ns_ckpt *s = slice_to(c, &cut, name, 0);
            for (int l = -1; l < c->arch->n_layers; l++)
                if (l < 0 || cut.layer[l].keep)
                    check_layer(c, &cut, s, l, l < 0 ? -1 : to++);
            assert_int_equal(to, s->arch->n_layers);
            ns_cut_release(&cut);
            ns_ckpt_close(s);
        }
        ns_ckpt_close(c);
    }
}

static ns_cut size_of(const ns_ckpt *c, const char *text)
{
    ns_cut cut;
    char name[64];
    ns_err e = { 0 };
    if (ns_ckpt_size(c, text, &cut, name, sizeof name, &e) != 0)
        fail_msg("%s", e.msg);
    return cut;
}

static void slice_of_slice_is_the_slice(void **state)
{
    static const char *const big = "hidden=48,expert_ffn=32,mamba_heads=6,attn_heads=6,experts=6,layers=0-5";
    static const char *const small_text = "hidden=32,expert_ffn=16,mamba_heads=4,attn_heads=4,experts=4,layers=0-1+3-5";
    (void)state;
    for (int i = 0; i < 2 * N_DTYPES; i++) {
        char name[32];
        ns_ckpt *c = parent(i);
        ns_cut b = size_of(c, big), s = size_of(c, small_text);
        snprintf(name, sizeof name, "big%d", i);
        ns_ckpt *mid = slice_to(c, &b, name, 0);
        snprintf(name, sizeof name, "small%d", i);
        ns_ckpt *direct = slice_to(c, &s, name, 0);
        ns_cut again = size_of(mid, small_text);
        snprintf(name, sizeof name, "again%d", i);
        ns_ckpt *twice = slice_to(mid, &again, name, 0);
        assert_same_store(direct->store, twice->store);
        assert_same_json(direct->dir, twice->dir, "config.json");
        assert_same_json(direct->dir, twice->dir, "hf_quant_config.json");
        ns_cut_release(&b);
        ns_cut_release(&s);
        ns_cut_release(&again);
        ns_ckpt_close(twice);
        ns_ckpt_close(direct);
        ns_ckpt_close(mid);
        ns_ckpt_close(c);
    }
}

static void slices_of_the_golden_fixtures(void **state)
{
    static const char *const names[] = { "aliases", "attn_heavy", "bf16", "biases", "dense", "fp8", "grouped_router", "latent", "mixed",
                                         "moe", "nvfp4", "odd_axes", "tied" };
    const char *src = getenv("NS_TEST_SRC");
    (void)state;
    if (!src)
        skip();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[4096];
        ns_cut cut;
        snprintf(path, sizeof path, "%s/tests/golden/fixtures/%s", src, names[i]);
        ns_ckpt *c = need_open(path);
        assert_int_equal(tiny_random_cut(c, i, &cut), 0);
        ns_ckpt *s = slice_to(c, &cut, names[i], 0);
        for (int l = -1, to = 0; l < c->arch->n_layers; l++)
            if (l < 0 || cut.layer[l].keep)
                check_layer(c, &cut, s, l, l < 0 ? -1 : to++);
        ns_cut_release(&cut);
        ns_ckpt_close(s);
        ns_ckpt_close(c);
    }
}

static void slice_is_a_plain_checkpoint(void **state)
{
    static const char *const texts[] = { "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
                                         "generation_config.json", "nest.json", "README.md" };
    (void)state;
    ns_err e = { 0 };
    ns_ckpt *c = tiny_open(tiny_base, "p", NULL);
    ns_cut cut = size_of(c, "hidden=48");
    for (size_t i = 0; i < 7; i++) {
        char *path = tiny_path(c->dir, texts[i]);
        assert_int_equal(ns_file_write(path, "{}", 2, &e), 0);
        free(path);
    }
    ns_ckpt *s = slice_to(c, &cut, "s", 0);
    for (size_t i = 0; i < 7; i++) {
        char *path = tiny_path(s->dir, texts[i]);
        assert_int_equal(ns_file_exists(path), i < 5);
        free(path);
    }
    assert_string_equal(ns_store_meta(s->store, "format"), "pt");
    ns_cut_release(&cut);
    ns_ckpt_close(s);
    ns_ckpt_close(c);
}

static void mtp_is_left_out(void **state)
{
    tiny_file f;
    json_t *cfg;
    ns_err e = { 0 };
    const float x = 1;
    (void)state;
    ns_ckpt *c = tiny_open(tiny_base, "p", NULL);
    char *dir = strdup(c->dir), *path = tiny_path(dir, "config.json");
    ns_ckpt_close(c);
    tiny_load(&f, dir);
    tiny_add(&f, "mtp.layers.0.eh_proj.weight", NS_F32, 0, NULL, &x);
    tiny_save(&f, dir);
    cfg = ns_json_open(path, true, &e);
    json_object_set_new(cfg, "num_nextn_predict_layers", json_integer(1));
    json_object_set_new(cfg, "mtp_layers_block_type", json_pack("[s,s]", "attention", "moe"));
    assert_int_equal(json_dump_file(cfg, path, 0), 0);
    json_decref(cfg);
    c = need_open(dir);
    ns_cut cut = size_of(c, "full");
    ns_ckpt *s = slice_to(c, &cut, "s", 0);
    assert_null(ns_store_find(s->store, "mtp.layers.0.eh_proj.weight"));
    assert_null(json_object_get(s->arch->config, "mtp_layers_block_type"));
    assert_int_equal(json_integer_value(json_object_get(s->arch->config, "num_nextn_predict_layers")), 0);
    ns_cut_release(&cut);
    ns_ckpt_close(s);
    ns_ckpt_close(c);
    tiny_release(&f);
    free(path);
    free(dir);
}

static void blocks_are_not_split(void **state)
{
    static const struct { const char *text, *axis, *low, *high; } cases[] = {
        { "hidden=40", "hidden 40", "32", "48" }, { "expert_ffn=20", "expert_ffn 20", "16", "32" }, { "shared_ffn=72", "shared_ffn 72", "64", "80" },
        { "dense_ffn=90", "dense_ffn 90", "80", "96" }, { "mamba_head_dim=12", "mamba_head_dim 12", "16", "" } };
    tiny_opts o = tiny_defaults();
    (void)state;
    o.dtype = "nvfp4";
    ns_ckpt *c = tiny_open(tiny_base, "p", &o);
    char *out = tiny_path(tiny_base, "s");
    for (size_t i = 0; i < 5; i++) {
        ns_cut cut;
        char name[64];
        ns_err e = { 0 };
        assert_int_equal(ns_size_parse(c->arch, &c->variants, cases[i].text, &cut, name, sizeof name, &e), 0);
        assert_int_equal(ns_slice(c, &cut, out, NULL, &e), -1);
        assert_contains(e.msg, cases[i].axis);
        assert_contains(e.msg, cases[i].low);
        assert_contains(e.msg, cases[i].high);
        assert_false(ns_dir_exists(out));
        ns_cut_release(&cut);
    }
    free(out);
    ns_ckpt_close(c);
}

/* ---- failure leaves nothing ---- */

static void assert_nothing_left(const char *out)
{
    char *partial = malloc(strlen(out) + 16);
    sprintf(partial, "%s.partial", out);
    assert_false(ns_dir_exists(out));
    assert_false(ns_dir_exists(partial));
    free(partial);
}

/* In a child, files may not grow beyond `limit` bytes; 0 when `make` failed there with a message about writing. */
static int in_small_disk(rlim_t limit, int (*make)(void *ctx, ns_err *e), void *ctx)
{
    pid_t pid = fork();
    if (pid == 0) {
        ns_err e = { 0 };
        struct rlimit r = { limit, limit };
        signal(SIGXFSZ, SIG_IGN);
        if (setrlimit(RLIMIT_FSIZE, &r) != 0)
            _exit(3);
        _exit(make(ctx, &e) == 0 ? 2 : e.code == NS_EIO ? 0 : 1);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

typedef struct job {
    const ns_ckpt *c;
    const ns_cut *cut;
    const char *config, *out;
} job;

static int make_slice(void *ctx, ns_err *e)
{
    const job *j = ctx;
    return ns_slice(j->c, j->cut, j->out, NULL, e);
}

static int make_synth(void *ctx, ns_err *e)
{
    const job *j = ctx;
    return ns_synth(j->config, NULL, j->out, e);
}

static void failed_write_leaves_nothing(void **state)
{
    (void)state;
    ns_ckpt *c = tiny_open(tiny_base, "p", NULL);
    ns_cut cut = size_of(c, "full");
    char *out = tiny_path(tiny_base, "s"), *config = tiny_path(c->dir, "config.json");
    job j = { c, &cut, config, out };
    for (rlim_t limit = 100; limit <= 300000; limit *= 10) {
        assert_int_equal(in_small_disk(limit, make_slice, &j), 0);
        assert_nothing_left(out);
        assert_int_equal(in_small_disk(limit, make_synth, &j), 0);
        assert_nothing_left(out);
    }
    ns_cut_release(&cut);
    ns_ckpt_close(c);
    free(out);
    free(config);
}

static void existing_output_is_refused(void **state)
{
    ns_err e = { 0 };
    (void)state;
    ns_ckpt *c = tiny_open(tiny_base, "p", NULL);
    ns_cut cut = size_of(c, "full");
    assert_int_equal(ns_slice(c, &cut, c->dir, NULL, &e), -1);
    assert_contains(e.msg, "exists");
    ns_ckpt *again = need_open(c->dir);
    ns_ckpt_close(again);
    ns_cut_release(&cut);
    ns_ckpt_close(c);
}

/* ---- synthesis ---- */

static ns_store *synth_store(const char *name, const char *dtype, uint64_t seed, size_t max_shard)
{
    ns_err e = { 0 };
    tiny_opts to = tiny_defaults();
    ns_synth_opts o = ns_synth_defaults();
    char *config = tiny_path(tiny_base, "t_config.json"), *out = tiny_path(tiny_base, name);
    assert_int_equal(tiny_config(config, &to), 0);
    o.seed = seed;
    o.dtype = dtype;
    o.max_shard_bytes = max_shard ? max_shard : o.max_shard_bytes;
    if (ns_synth(config, &o, out, &e) != 0)
        fail_msg("%s", e.msg);
    ns_store *s = ns_store_open(out, NS_LOAD_MMAP, &e);
    assert_non_null(s);
    free(config);
    free(out);
    return s;
}

static void synth_is_deterministic(void **state)
{
    (void)state;
    for (int i = 0; i < N_DTYPES; i++) {
        char a[32], b[32], c[32];
        snprintf(a, sizeof a, "a%d", i);
        snprintf(b, sizeof b, "b%d", i);
        snprintf(c, sizeof c, "c%d", i);
        ns_store *x = synth_store(a, dtypes[i], 5, 0), *y = synth_store(b, dtypes[i], 5, 10000), *z = synth_store(c, dtypes[i], 6, 0);
        assert_true(ns_store_n_shards(y) > 1);
        assert_same_store(x, y);
        const ns_tensor *p = ns_store_find(x, "backbone.layers.5.mixer.up_proj.weight"), *q = ns_store_find(z, p->name);
        assert_memory_not_equal(p->data, q->data, p->bytes);
        ns_store_close(x);
        ns_store_close(y);
        ns_store_close(z);
    }
}

/* A tensor's bytes follow from the seed and its name: not from what else the model has, and no two tensors are alike. */
static void synth_seeds_by_name(void **state)
{
    tiny_opts o = tiny_defaults();
    (void)state;
    o.dtype = "nvfp4-all";
    ns_ckpt *a = tiny_open(tiny_base, "a", &o);
    o.pattern = "ME";
    ns_ckpt *b = tiny_open(tiny_base, "b", &o);
    const ns_tensor *x = ns_ckpt_weight(a, 1, NS_W_EXPERT_UP, 2)->tensor, *y = ns_ckpt_weight(b, 1, NS_W_EXPERT_UP, 2)->tensor;
    const ns_tensor *other = ns_ckpt_weight(a, 1, NS_W_EXPERT_UP, 3)->tensor;
    assert_memory_equal(x->data, y->data, x->bytes);
    assert_memory_not_equal(x->data, other->data, x->bytes);
    ns_ckpt_close(a);
    ns_ckpt_close(b);
}

static double deviation(const ns_mat *m)
{
    double sum = 0;
    float *x = malloc((size_t)m->cols * sizeof *x);
    for (int r = 0; r < m->rows; r++) {
        ns_row_decode(m, r, 0, m->cols, x);
        for (int i = 0; i < m->cols; i++)
            sum += (double)x[i] * (double)x[i];
    }
    free(x);
    return sqrt(sum / m->rows / m->cols);
}

static void synth_has_the_right_spread(void **state)
{
    (void)state;
    for (int i = 0; i < N_DTYPES; i++) {
        tiny_opts o = tiny_defaults();
        o.dtype = dtypes[i];
        o.hidden = 256;
        ns_ckpt *c = tiny_open(tiny_base, dtypes[i], &o);
        double in = deviation(&ns_ckpt_weight(c, 5, NS_W_UP, 0)->mat) * sqrt(256);
        double out = deviation(&ns_ckpt_weight(c, 5, NS_W_DOWN, 0)->mat) * sqrt(96) * sqrt(16);
        assert_true(in > 0.97 && in < 1.03);
        assert_true(out > 0.97 && out < 1.03);
        const ns_mat *a = &ns_ckpt_weight(c, 0, NS_W_A_LOG, 0)->mat;
        float x[8];
        ns_row_decode(a, 0, 0, 8, x);
        for (int k = 0; k < 8; k++)
            assert_true(x[k] >= 0 && x[k] <= log(16) + 0.01);
        ns_ckpt_close(c);
    }
}

static void synth_of_a_size(void **state)
{
    ns_err e = { 0 };
    (void)state;
    tiny_opts to = tiny_defaults();
    ns_synth_opts o = ns_synth_defaults();
    char *config = tiny_path(tiny_base, "config.json"), *out = tiny_path(tiny_base, "s");
    assert_int_equal(tiny_config(config, &to), 0);
    o.dtype = "nvfp4";
    o.size = "hidden=48,layers=0-1+3-7";
    if (ns_synth(config, &o, out, &e) != 0)
        fail_msg("%s", e.msg);
    ns_ckpt *c = need_open(out);
    assert_int_equal(c->arch->hidden_size, 48);
    assert_int_equal(c->arch->n_layers, 7);
    assert_int_equal(ns_ckpt_dtype_of(c, 2, NS_W_Q, 0).dtype, NS_BF16); /* was layer 3 */
    assert_int_equal(ns_ckpt_dtype_of(c, 0, NS_W_IN_PROJ, 0).dtype, NS_NVFP4);
    ns_ckpt_close(c);
    free(config);
    free(out);
}

static void synth_refuses(void **state)
{
    tiny_opts to = tiny_defaults();
    ns_synth_opts o = ns_synth_defaults();
    ns_err e = { 0 };
    (void)state;
    char *config = tiny_path(tiny_base, "config.json"), *out = tiny_path(tiny_base, "s");
    to.expert_ffn = 40;
    assert_int_equal(tiny_config(config, &to), 0);
    o.dtype = "nvfp4";
    assert_int_equal(ns_synth(config, &o, out, &e), -1);
    assert_contains(e.msg, "experts.0.down_proj");
    assert_contains(e.msg, "multiple of 16");
    assert_nothing_left(out);
    e = (ns_err){ 0 };
    o.dtype = "int3";
    assert_int_equal(ns_synth(config, &o, out, &e), -1);
    assert_contains(e.msg, "int3");
    free(config);
    free(out);
}

/* ---- quantisation configs ---- */

static void names_move_with_their_layers(void **state)
{
    static const char text[] =
        "{\"quantization\": {\"exclude_modules\": [\"lm_head\", \"backbone.layers.2.mixer.in_proj\", \"backbone.layers.3.mixer.q_proj\","
        " \"mtp*\", \"mtp.layers.2.mixer\", \"model.layers.7.norm\", \"backbone.layers.6.mixer.conv1d\"], \"quantized_layers\": {"
        "\"backbone.layers.4.mixer.experts.1.up_proj\": {\"quant_algo\": \"FP8\"}, \"backbone.layers.4.mixer.experts.5.up_proj\": {},"
        "\"backbone.layers.4.mixer.experts\": {}, \"backbone.layers.2.mixer.out_proj\": {}}, \"quant_algo\": \"NVFP4\"}}";
    static const char want[] =
        "{\"quantization\": {\"exclude_modules\": [\"lm_head\", \"backbone.layers.2.mixer.q_proj\", \"mtp*\", \"model.layers.6.norm\","
        " \"backbone.layers.5.mixer.conv1d\"], \"quantized_layers\": {\"backbone.layers.3.mixer.experts.1.up_proj\": {\"quant_algo\": \"FP8\"},"
        "\"backbone.layers.3.mixer.experts\": {}}, \"quant_algo\": \"NVFP4\"}}";
    ns_err e = { 0 };
    (void)state;
    ns_ckpt *c = tiny_open(tiny_base, "p", NULL);
    ns_cut cut = size_of(c, "layers=0-1+3-7,experts=4");
    json_t *q = ns_json_parse(text, strlen(text), false, "text", &e), *w = ns_json_parse(want, strlen(want), false, "want", &e);
    assert_int_equal(ns_formats_renumber(q, c->arch, &cut, &e), 0);
    assert_true(json_equal(q, w));
    json_decref(q);
    json_decref(w);
    q = json_pack("{s:[s]}", "ignore", "backbone.layers.4*");
    assert_int_equal(ns_formats_renumber(q, c->arch, &cut, &e), -1);
    assert_contains(e.msg, "layers.4*");
    json_decref(q);
    ns_cut_release(&cut);
    ns_ckpt_close(c);
}

static void published_exclusions(void **state)
{
    const char *data = getenv("NS_TEST_DATA");
    char path[4096];
    ns_err e = { 0 };
    (void)state;
    if (!data || !*data)
        skip();
    snprintf(path, sizeof path, "%s/nemotron3/configs/nvidia--NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4_config.json", data);
    json_t *published = NULL;
    ns_arch *a = ns_arch_open(path, &e);
    assert_non_null(a);
    assert_int_equal(ns_synth_find_quant(path, &published, &e), 0);
    json_t *ours = ns_formats_config(a, "NVFP4", false, &e);
    json_t *x = json_object_get(json_object_get(ours, "quantization"), "exclude_modules");
    json_t *y = json_object_get(json_object_get(published, "quantization"), "exclude_modules");
    assert_int_equal(json_array_size(x), json_array_size(y));
    for (size_t i = 0; i < json_array_size(y); i++) {
        size_t k = 0;
        while (k < json_array_size(x) && !json_equal(json_array_get(x, k), json_array_get(y, i)))
            k++;
        assert_true(k < json_array_size(x));
    }
    json_decref(ours);
    json_decref(published);
    ns_arch_free(a);
}

/* ---- inspection ---- */

static void inspect_adds_up(void **state)
{
    tiny_opts o = tiny_defaults();
    ns_err e = { 0 };
    (void)state;
    o.dtype = "nvfp4";
    ns_ckpt *c = tiny_open(tiny_base, "p", &o);
    json_t *r = ns_inspect(c, 1000, NS_F32, &e);
    assert_non_null(r);
    const json_t *full = json_array_get(json_object_get(json_object_get(r, "variants"), "list"), 0);
    assert_int_equal(json_integer_value(json_object_get(full, "weight_bytes")), ns_store_bytes(c->store));
    assert_int_equal(json_integer_value(json_object_get(full, "kv_bytes")), 1000 * json_integer_value(json_object_get(full, "kv_bytes_per_token")));
    json_int_t sum = 0;
    const char *key;
    json_t *v;
    json_object_foreach(json_object_get(full, "weight_bytes_by_dtype"), key, v)
        sum += json_integer_value(v);
    assert_int_equal(sum, ns_store_bytes(c->store));
    char *text = NULL, *config = tiny_path(c->dir, "config.json");
    size_t len;
    FILE *f = open_memstream(&text, &len);
    ns_inspect_print(r, f);
    fclose(f);
    assert_contains(text, "MEM*E-ME");
    assert_contains(text, "NVFP4");
    free(text);
    /* a config alone foretells the same */
    json_t *r8 = ns_inspect(c, 1000, NS_F8_E4M3, &e), *full8 = json_array_get(json_object_get(json_object_get(r8, "variants"), "list"), 0);
    assert_int_equal(json_integer_value(json_object_get(full, "kv_bytes")), 4 * json_integer_value(json_object_get(full8, "kv_bytes")));
    assert_int_equal(json_integer_value(json_object_get(full, "state_bytes")), json_integer_value(json_object_get(full8, "state_bytes")));
    json_decref(r8);
    json_t *r2 = ns_inspect_config(config, NULL, 1000, NS_F32, &e);
    assert_non_null(r2);
    assert_true(json_equal(json_object_get(r, "variants"), json_object_get(r2, "variants")));
    json_decref(r2);
    json_decref(r);
    free(config);
    ns_ckpt_close(c);
}

#define T(f) cmocka_unit_test_setup_teardown(f, tiny_setup, tiny_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(full_slice_is_the_same), T(cost_equals_the_file), T(slice_holds_the_right_numbers), T(slice_of_slice_is_the_slice),
        T(slices_of_the_golden_fixtures), T(slice_is_a_plain_checkpoint), T(mtp_is_left_out), T(blocks_are_not_split),
        T(failed_write_leaves_nothing), T(existing_output_is_refused), T(synth_is_deterministic), T(synth_seeds_by_name), T(synth_has_the_right_spread),
        T(synth_of_a_size), T(synth_refuses), T(names_move_with_their_layers), T(published_exclusions), T(inspect_adds_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
