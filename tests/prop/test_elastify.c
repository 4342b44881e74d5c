/* Elastification of a tiny parent, from data to a checkpoint that answers budgets. */
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
#include "nestar.h"
#include "store/safetensors.h"
#include "prop/stopper.h"
#include "tiny/tiny.h"
#include "train/elastify.h"

enum { SEQ = 32 };

static char *data_path, *parent_path;
static ns_ckpt *parent;
static ns_comm *comm;

/* Documents with something to learn in them: each goes round a short random cycle of ids. */
static void write_data(const char *path)
{
    ns_rng r;
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    ns_rng_init(&r, 4);
    for (int d = 0; d < 120; d++) {
        int n = 12 + (int)(ns_rng_u64(&r) % 18), period = 2 + (int)(ns_rng_u64(&r) % 3), ids[5];
        for (int i = 0; i < 5; i++)
            ids[i] = 3 + (int)(ns_rng_u64(&r) % 90);
        fprintf(f, "{\"ids\":[");
        for (int i = 0; i < n; i++)
            fprintf(f, "%s%d", i ? "," : "", ids[i % period]);
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
    o.pattern = "ME*M-E";
    o.hidden = 32;
    parent_path = tiny_path(tiny_base, "parent");
    parent = tiny_open(tiny_base, "parent", &o);
    comm = ns_comm_open(&e);
    if (!comm)
        fail_msg("%s", e.msg);
    return 0;
}

static int teardown(void **state)
{
    ns_comm_close(comm);
    ns_ckpt_close(parent);
    free(parent_path);
    free(data_path);
    return tiny_teardown(state);
}

static ns_elastify_opts options(int64_t steps, int64_t stage2)
{
    static const char *const choices[] = { "hidden=1,0.75,0.5", "expert_ffn=1,0.75,0.5", "dense_ffn=1,0.75,0.5" };
    static const char *paths[1];
    ns_elastify_opts o = ns_elastify_defaults();
    paths[0] = data_path;
    o.data = paths;
    o.n_data = 1;
    o.hold_out = 10;
    o.seed = 3;
    o.dtype = NS_F32;
    o.sizes.budgets = "1,0.75,0.55";
    o.sizes.axes = "hidden,expert_ffn,dense_ffn,mamba_heads,depth";
    o.sizes.depth_order = "5,1";
    o.sizes.choices = choices;
    o.sizes.n_choices = 3;
    o.sizes.round = 4;
    o.sizes.inner = 16;
    o.train.steps = steps;
    o.train.seq_tokens = SEQ;
    o.train.packs = 2;
    o.train.micro_batches = 3;
    o.train.workers = 1;
    o.train.schedule = (ns_schedule){ .lr = 2e-3, .lr_min = 2e-4 };
    o.stage2_steps = stage2;
    o.stage2_seq = 2 * SEQ;
    return o;
}

/* Runs it into tiny_base/name. */
static char *elastify(const char *name, const ns_elastify_opts *o, json_t **report)
{
    ns_err e = { 0 };
    char *out = tiny_path(tiny_base, name);
    if (ns_elastify(parent, NULL, o, out, comm, report, &e) != 0)
        fail_msg("%s", e.msg);
    return out;
}

/* The lines of a stage's log. */
static json_t *log_of(const char *out, int stage)
{
    char path[512], *line = NULL;
    size_t cap = 0;
    json_t *list = json_array();
    snprintf(path, sizeof path, "%s.train/stage%d/log.jsonl", out, stage);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (getline(&line, &cap, f) > 0)
        assert_int_equal(json_array_append_new(list, json_loads(line, 0, NULL)), 0);
    free(line);
    fclose(f);
    return list;
}

static double mean(const json_t *log, const char *key, size_t from, size_t to)
{
    double sum = 0;
    for (size_t i = from; i < to; i++)
        sum += json_number_value(json_object_get(json_array_get(log, i), key)) / (double)(to - from);
    return sum;
}

static void same_file(const char *a_dir, const char *b_dir, const char *name)
{
    char a[512], b[512];
    ns_err e = { 0 };
    ns_buf x = { 0 }, y = { 0 };
    snprintf(a, sizeof a, "%s/%s", a_dir, name);
    snprintf(b, sizeof b, "%s/%s", b_dir, name);
    if (ns_file_read(a, SIZE_MAX, &x, &e) != 0 || ns_file_read(b, SIZE_MAX, &y, &e) != 0)
        fail_msg("%s", e.msg);
    assert_int_equal(x.len, y.len);
    if (memcmp(x.data, y.data, x.len) != 0)
        fail_msg("%s of %s and %s differ", name, a_dir, b_dir);
    ns_buf_release(&x);
    ns_buf_release(&y);
}

/* Feeds some tokens at a size; the logits must be finite. */
static void run_at(ns_engine *en, const char *size, float *out)
{
    static const int ids[] = { 5, 9, 5, 9, 5, 40 };
    ns_err e = { 0 };
    ns_session *s = ns_session_new(en, &(ns_session_opts){ .size = size, .context = 16 }, &e);
    if (!s || ns_session_feed(s, ids, 6, &e) != 0)
        fail_msg("%s: %s", size, e.msg);
    memcpy(out, ns_session_logits(s), 96 * sizeof *out);
    for (int i = 0; i < 96; i++)
        assert_true(isfinite(out[i]));
    ns_session_free(s);
}

static void trains_and_answers_budgets(void **state)
{
    (void)state;
    ns_err e = { 0 };
    json_t *report = NULL;
    ns_elastify_opts o = options(40, 8);
    char *out = elastify("routed", &o, &report);
    json_t *log = log_of(out, 1), *log2 = log_of(out, 2);
    assert_int_equal(json_array_size(log), 40);
    assert_int_equal(json_array_size(log2), 8);
    double first = mean(log, "loss", 0, 10), last = mean(log, "loss", 30, 40);
    if (!(last < 0.8 * first))
        fail_msg("the loss went from %g to %g", first, last);
    double tau = mean(log2, "tau", 7, 8);
    assert_true(tau > 0.05 && tau < 0.06);
    assert_true(mean(log, "budget_loss", 30, 40) < mean(log, "budget_loss", 0, 10));
    json_decref(log);
    json_decref(log2);

    /* the report says what the folder holds */
    ns_ckpt *c = ns_ckpt_open(out, NULL, &e);
    if (!c)
        fail_msg("%s", e.msg);
    assert_non_null(c->variants.router);
    assert_true(c->variants.router->n_budgets == 3);
    size_t i;
    json_t *z;
    json_array_foreach(json_object_get(report, "sizes"), i, z) {
        char text[16], name[64];
        ns_cut cut;
        ns_cost cost;
        snprintf(text, sizeof text, "%g", json_number_value(json_object_get(z, "budget")));
        assert_int_equal(ns_ckpt_size(c, text, &cut, name, sizeof name, &e), 0);
        assert_int_equal(ns_cut_cost(c->arch, &cut, NULL, NULL, &cost, &e), 0);
        assert_int_equal(cost.params_active, json_integer_value(json_object_get(z, "params_active")));
        assert_non_null(ns_variants_find(&c->variants, name)); /* every trained budget is a named size */
        assert_true(json_number_value(json_object_get(json_object_get(z, "held_out"), "kl")) > 0);
        ns_cut_release(&cut);
    }
    assert_int_equal(i, 3);
    int n_sizes = c->variants.n;
    ns_ckpt_close(c);
    json_decref(report);

    /* every size runs, and so does a budget between them */
    ns_engine *en = ns_engine_open(out, &(ns_engine_opts){ .no_text = true, .n_threads = 1 }, &e);
    if (!en)
        fail_msg("%s", e.msg);
    float full[96], other[96];
    run_at(en, "full", full);
    assert_true(n_sizes >= 2);
    for (int k = 0; k < n_sizes; k++) {
        ns_size_info info;
        assert_int_equal(ns_engine_size(en, k, &info, &e), 0);
        run_at(en, info.name, other);
        assert_true((memcmp(full, other, sizeof full) == 0) == (strcmp(info.name, "full") == 0));
    }
    run_at(en, "0.9", other);
    ns_engine_close(en);
    free(out);
}

/* Without learning rates nothing moves: the whole model is the parent, and its distance from the teacher is rounding. */
static void starts_at_the_parent(void **state)
{
    static const char *const sizes[] = { "full", "S=hidden=16,expert_ffn=24" };
    (void)state;
    ns_elastify_opts o = options(3, 0);
    o.sizes = (ns_elastic_opts){ .fixed = sizes, .n_fixed = 2 };
    o.train.schedule = (ns_schedule){ 0 };
    json_t *report = NULL;
    char *out = elastify("still", &o, &report);
    json_t *full = json_array_get(json_object_get(report, "sizes"), 0), *small = json_array_get(json_object_get(report, "sizes"), 1);
    assert_true(fabs(json_number_value(json_object_get(json_object_get(full, "held_out"), "kl"))) < 1e-6);
    assert_true(json_number_value(json_object_get(json_object_get(full, "held_out"), "agree")) == 1);
    assert_true(json_number_value(json_object_get(json_object_get(small, "held_out"), "kl")) > 1e-3);
    tiny_file a, b;
    tiny_load(&a, parent_path);
    tiny_load(&b, out);
    assert_int_equal(a.n, b.n);
    for (size_t i = 0; i < a.n; i++) {
        tiny_tensor *t = tiny_find(&b, a.t[i].name);
        assert_int_equal(t->bytes, a.t[i].bytes);
        assert_memory_equal(t->data, a.t[i].data, t->bytes);
    }
    tiny_release(&a);
    tiny_release(&b);
    json_decref(report);
    free(out);
}

/* ---- resuming ---- */

/* Interrupted in both stages, and finished, it writes what the run without interruptions writes. */
static void resumes_bit_for_bit(void **state)
{
    static const char *const files[] = { "model.safetensors", "router.safetensors", "nest.json", "config.json" };
    (void)state;
    ns_elastify_opts o = options(6, 4);
    char *whole = elastify("whole", &o, NULL), *parts = tiny_path(tiny_base, "parts");
    for (int stop = 0; stop < 2; stop++) { /* after step 3 of stage one, after step 2 of stage two */
        ns_err e = { 0 };
        struct stopper s = { stop == 0 ? 3 : 5, 0 };
        o.train.on_step = stopper_step;
        o.train.on_step_ctx = &s;
        o.train.interrupted = &s.flag;
        assert_int_equal(ns_elastify(parent, NULL, &o, parts, comm, NULL, &e), -1);
        assert_int_equal(e.code, NS_ECANCELLED);
        assert_non_null(strstr(e.msg, stop == 0 ? "stage 1" : "stage 2"));
        o.resume = true;
    }
    o.train.on_step = NULL;
    o.train.interrupted = NULL;
    free(elastify("parts", &o, NULL));
    for (int i = 0; i < 4; i++)
        same_file(whole, parts, files[i]);
    json_t *a = log_of(whole, 2), *b = log_of(parts, 2);
    assert_int_equal(json_array_size(a), json_array_size(b));
    json_decref(a);
    json_decref(b);
    free(whole);
    free(parts);
}

/* ---- */

/* Training one size alone moves nothing outside its prefix. */
static void only_one_size(void **state)
{
    static const char *const sizes[] = { "full", "S=hidden=16,expert_ffn=24" };
    (void)state;
    ns_elastify_opts o = options(3, 0);
    o.sizes = (ns_elastic_opts){ .fixed = sizes, .n_fixed = 2, .only = "S" };
    char *out = elastify("only", &o, NULL);
    tiny_file a, b;
    tiny_load(&a, parent_path);
    tiny_load(&b, out);
    const float *x = (const float *)tiny_find(&a, "backbone.layers.1.mixer.experts.0.up_proj.weight")->data;
    const float *y = (const float *)tiny_find(&b, "backbone.layers.1.mixer.experts.0.up_proj.weight")->data;
    int moved = 0;
    for (int row = 0; row < 48; row++)
        for (int col = 0; col < 32; col++) {
            bool inside = row < 24 && col < 16, same = x[row * 32 + col] == y[row * 32 + col];
            assert_true(inside || same);
            moved += !same;
        }
    assert_true(moved > 24 * 16 / 4);
    tiny_release(&a);
    tiny_release(&b);
    ns_err e = { 0 };
    ns_ckpt *c = ns_ckpt_open(out, NULL, &e);
    assert_non_null(c);
    assert_null(c->variants.router);
    assert_int_equal(c->variants.n, 2);
    assert_non_null(ns_variants_find(&c->variants, "S"));
    ns_ckpt_close(c);
    free(out);
}

/* The router's weights in the state of a stage. */
static double *state_router(const char *out, int stage, size_t *n)
{
    char path[512];
    ns_err e = { 0 };
    snprintf(path, sizeof path, "%s.train/stage%d/resume/state.safetensors", out, stage);
    ns_store *st = ns_store_open(path, NS_LOAD_MMAP, &e);
    const ns_tensor *t = st ? ns_store_get(st, "router.w", &e) : NULL;
    if (!t)
        fail_msg("%s", e.msg);
    double *w = malloc(t->bytes);
    *n = t->bytes / sizeof *w;
    memcpy(w, t->data, t->bytes);
    ns_store_close(st);
    return w;
}

static void frozen_router(void **state)
{
    (void)state;
    ns_elastify_opts o = options(4, 4);
    o.freeze_router = true;
    char *out = elastify("frozen", &o, NULL);
    size_t n1, n2;
    double *w1 = state_router(out, 1, &n1), *w2 = state_router(out, 2, &n2);
    assert_int_equal(n1, n2);
    for (size_t i = 0; i < n1; i++)
        assert_true((double)(float)w1[i] == w2[i]);
    json_t *log = log_of(out, 2);
    assert_null(json_object_get(json_array_get(log, 0), "tau"));
    json_decref(log);
    free(w1);
    free(w2);
    free(out);
    ns_err e = { 0 };
    o.stage2_steps = 0;
    assert_int_equal(ns_elastify(parent, NULL, &o, "x", comm, NULL, &e), -1);
    assert_non_null(strstr(e.msg, "--freeze-router: there is no second stage"));
}

/* ---- a change of size inside documents ---- */

static ns_elastify_opts changing(int64_t steps, double change)
{
    static const char *const sizes[] = { "full", "M=hidden=24,expert_ffn=36", "S=hidden=16,expert_ffn=24" };
    ns_elastify_opts o = options(steps, 0);
    o.sizes = (ns_elastic_opts){ .fixed = sizes, .n_fixed = 3 };
    o.change = change;
    return o;
}

static double pair_kl(const json_t *report, const char *from, const char *to)
{
    size_t i;
    json_t *z;
    json_array_foreach(json_object_get(report, "switches"), i, z) {
        if (strcmp(json_string_value(json_object_get(z, "from")), from) == 0 && strcmp(json_string_value(json_object_get(z, "to")), to) == 0)
            return json_number_value(json_object_get(json_object_get(z, "held_out"), "kl"));
    }
    fail_msg("no pair %s, %s", from, to);
    return 0;
}

/* Nothing moves, and one size is the parent under another name: documents that change between these two have no loss in training and
 * none in the report; those that change to or from the small one have. */
/* What the nest.json of a folder says of caches. */
static enum ns_handover handover_of(const char *dir)
{
    ns_err e = { 0 };
    ns_ckpt *c = ns_ckpt_open(dir, NULL, &e);
    assert_non_null(c);
    const enum ns_handover how = c->variants.handover;
    ns_ckpt_close(c);
    return how;
}

static void changes_of_size(void **state)
{
    static const char *const sizes[] = { "full", "F=hidden=32", "S=hidden=16,expert_ffn=24" };
    (void)state;
    json_t *report = NULL;
    int seen[2] = { 0 };
    ns_elastify_opts o = changing(30, 0.6);
    o.sizes.fixed = sizes;
    o.train.schedule = (ns_schedule){ 0 };
    char *out = elastify("changing", &o, &report);
    json_t *log = log_of(out, 1), *v;
    for (size_t i = 0; i < json_array_size(log); i++) {
        const char *name;
        json_object_foreach(json_object_get(json_array_get(log, i), "sizes"), name, v) {
            const bool small = strchr(name, 'S') != NULL;
            if (strchr(name, '>'))
                seen[small]++;
            if (!(small ? json_number_value(v) > 1e-4 : fabs(json_number_value(v)) < 1e-6))
                fail_msg("step %zu: %s has the loss %g", i + 1, name, json_number_value(v));
        }
    }
    assert_true(seen[0] > 0 && seen[1] > 0);
    assert_int_equal(json_array_size(json_object_get(report, "switches")), 9);
    assert_int_equal(handover_of(out), NS_HANDOVER_CACHE);
    assert_true(fabs(pair_kl(report, "full", "full")) < 1e-6 && fabs(pair_kl(report, "full", "F")) < 1e-6);
    assert_true(pair_kl(report, "S", "full") > 1e-4 && pair_kl(report, "full", "S") > 1e-3);
    json_decref(report);
    json_decref(log);
    free(out);
}

/* Interrupted and finished: the same bits; and what two workers compute is what one does, up to the order of additions. */
static void changes_resume_and_spread(void **state)
{
    (void)state;
    ns_err e = { 0 };
    ns_elastify_opts o = changing(6, 0.6);
    char *whole = elastify("whole change", &o, NULL), *parts = tiny_path(tiny_base, "parts change"), *spread;
    struct stopper s = { 3, 0 };
    o.train.on_step = stopper_step;
    o.train.on_step_ctx = &s;
    o.train.interrupted = &s.flag;
    assert_int_equal(ns_elastify(parent, NULL, &o, parts, comm, NULL, &e), -1);
    assert_int_equal(e.code, NS_ECANCELLED);
    o.train.on_step = NULL;
    o.train.interrupted = NULL;
    o.resume = true;
    free(elastify("parts change", &o, NULL));
    same_file(whole, parts, "model.safetensors");
    o.resume = false;
    o.train.workers = 2;
    spread = elastify("spread change", &o, NULL);
    json_t *a = log_of(whole, 1), *b = log_of(spread, 1);
    for (size_t i = 0; i < 6; i++) {
        const char *name;
        json_t *v, *sizes = json_object_get(json_array_get(b, i), "sizes");
        json_object_foreach(json_object_get(json_array_get(a, i), "sizes"), name, v) {
            const double x = json_number_value(v), y = json_number_value(json_object_get(sizes, name));
            if (!(fabs(x - y) <= 1e-4 * fabs(x) + 1e-7))
                fail_msg("step %zu, %s: %.9g by one worker, %.9g by two", i + 1, name, x, y);
        }
    }
    json_decref(a);
    json_decref(b);
    free(whole);
    free(parts);
    free(spread);
}

static void refuse(const ns_elastify_opts *o, const char *why)
{
    ns_err e = { 0 };
    assert_int_equal(ns_elastify(parent, NULL, o, "x", comm, NULL, &e), -1);
    if (!strstr(e.msg, why))
        fail_msg("\"%s\" lacks \"%s\"", e.msg, why);
}

static void change_refusals(void **state)
{
    static const char *const heads[] = { "full", "S=mamba_heads=4" }, *const depth[] = { "full", "S=layers=0-2+4-5" };
    (void)state;
    ns_elastify_opts o = changing(2, 0.5);
    o.sizes.only = "S";
    refuse(&o, "--switch: a single size is trained");
    o = changing(2, 0.5);
    o.sizes.fixed = heads;
    o.sizes.n_fixed = 2;
    refuse(&o, "--switch: sizes full and S differ in mamba_heads");
    o.sizes.fixed = depth;
    refuse(&o, "--switch: sizes full and S differ in depth");
    o = options(2, 0);
    o.change = 0.5;
    refuse(&o, "--switch: a router that learns has no sizes yet");
}

static void uniform_sizes(void **state)
{
    (void)state;
    ns_elastify_opts o = options(2, 0);
    o.sizes.choices = NULL;
    o.sizes.n_choices = 0;
    o.sizes.uniform = true;
    o.sizes.axes = "hidden,expert_ffn,dense_ffn";
    char *out = elastify("uniform", &o, NULL);
    ns_err e = { 0 };
    ns_ckpt *c = ns_ckpt_open(out, NULL, &e);
    assert_non_null(c);
    assert_int_equal(c->variants.n, 3);
    assert_true(c->variants.v[1].budget == 0.75 && ns_cut_hidden(&c->variants.v[1].cut) < 32);
    ns_ckpt_close(c);
    free(out);
}

/* ---- the teacher ---- */

/* Mean loss of a size over the log's steps that drew it. */
static double loss_of(const char *out, const char *size)
{
    json_t *log = log_of(out, 1);
    double sum = 0;
    int n = 0;
    for (size_t i = 0; i < json_array_size(log); i++) {
        const json_t *x = json_object_get(json_object_get(json_array_get(log, i), "sizes"), size);
        sum += json_number_value(x);
        n += x != NULL;
    }
    json_decref(log);
    assert_true(n > 0);
    return sum / n;
}

/* Where nothing moves, a size taught by the same size is at no distance, by the whole model or by another one it is. */
static void teachers(void **state)
{
    static const char *const sizes[] = { "full", "S=hidden=16,expert_ffn=24" };
    (void)state;
    tiny_opts t = tiny_defaults();
    t.pattern = "ME*M-E";
    t.hidden = 32;
    t.seed = 77;
    ns_ckpt *other = tiny_open(tiny_base, "other", &t);
    ns_elastify_opts o = options(4, 0);
    o.sizes = (ns_elastic_opts){ .fixed = sizes, .n_fixed = 2 };
    o.train.schedule = (ns_schedule){ 0 };
    char *whole = elastify("whole-teacher", &o, NULL);
    o.same_size = true;
    char *same = elastify("same-teacher", &o, NULL);
    o.teacher = other;
    char *by_other = elastify("other-teacher", &o, NULL);
    assert_true(fabs(loss_of(whole, "full")) < 1e-6 && loss_of(whole, "S") > 1e-3);
    assert_true(fabs(loss_of(same, "full")) < 1e-6 && fabs(loss_of(same, "S")) < 1e-6);
    assert_true(loss_of(by_other, "full") > 1e-3 && loss_of(by_other, "S") > 1e-3);
    ns_ckpt_close(other);
    free(whole);
    free(same);
    free(by_other);
}

/* With neither budgets nor fixed sizes they are the checkpoint's, and stay with their router. */
static void own_sizes(void **state)
{
    static const char *const files[] = { "nest.json", "router.safetensors" };
    (void)state;
    ns_err e = { 0 };
    ns_elastify_opts o = options(6, 0);
    char *nested = elastify("nested", &o, NULL), *on = tiny_path(tiny_base, "on");
    ns_ckpt *c = ns_ckpt_open(nested, NULL, &e);
    assert_non_null(c);
    json_t *report = NULL;
    o.sizes = (ns_elastic_opts){ 0 };
    if (ns_elastify(c, NULL, &o, on, comm, &report, &e) != 0)
        fail_msg("%s", e.msg);
    for (int i = 0; i < 2; i++)
        same_file(nested, on, files[i]);
    const json_t *list = json_object_get(report, "sizes");
    assert_int_equal(json_array_size(list), c->variants.n);
    for (int i = 0; i < c->variants.n; i++)
        assert_string_equal(json_string_value(json_object_get(json_array_get(list, (size_t)i), "name")), c->variants.v[i].name);
    json_decref(report);
    assert_int_equal(handover_of(on), NS_HANDOVER_AUTO);
    o.change = 0.5;
    char *changing = tiny_path(tiny_base, "on-changing");
    if (ns_elastify(c, NULL, &o, changing, comm, NULL, &e) != 0)
        fail_msg("%s", e.msg);
    same_file(nested, changing, "router.safetensors");
    assert_int_equal(handover_of(changing), NS_HANDOVER_CACHE);
    free(changing);
    o.change = 0;
    o.sizes.axes = "hidden";
    char *out = tiny_path(tiny_base, "axes");
    assert_int_equal(ns_elastify(c, NULL, &o, out, comm, NULL, &e), -1);
    assert_non_null(strstr(e.msg, "the sizes are those of nest.json"));
    ns_ckpt_close(c);
    free(out);
    free(on);
    free(nested);
}

static void refusals(void **state)
{
    (void)state;
    ns_err e = { 0 };
    ns_elastify_opts o = options(2, 0);
    assert_int_equal(ns_elastify(parent, NULL, &o, parent_path, comm, NULL, &e), -1);
    assert_non_null(strstr(e.msg, "exists already"));
    e = (ns_err){ 0 };
    o.data = (const char *const[]){ "no/such.jsonl" };
    char *out = tiny_path(tiny_base, "refused");
    assert_int_equal(ns_elastify(parent, NULL, &o, out, comm, NULL, &e), -1);
    assert_non_null(strstr(e.msg, "no/such.jsonl"));
    assert_false(ns_dir_exists(out));
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trains_and_answers_budgets), cmocka_unit_test(starts_at_the_parent), cmocka_unit_test(resumes_bit_for_bit),
        cmocka_unit_test(only_one_size),              cmocka_unit_test(frozen_router),        cmocka_unit_test(uniform_sizes),
        cmocka_unit_test(refusals),                   cmocka_unit_test(changes_of_size),
        cmocka_unit_test(changes_resume_and_spread),  cmocka_unit_test(change_refusals),
        cmocka_unit_test(teachers),                   cmocka_unit_test(own_sizes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
