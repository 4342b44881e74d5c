/* How a sequence is cut into steps, which others share its steps, how many threads work, and whether it was marked, rewound, saved or
 * resized on the way: none of it may change what is computed. In bits, but for the two forms of the Mamba recurrence, which agree
 * up to rounding. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "prop/prop.h"

/* ---- every variant on every rung ---- */

typedef struct run_case {
    const prop_variant *v;
    const char *dir, *name; /* "nvfp4 on avx2, FP8 cache" */
    const ns_ops *ops;
    ns_dtype kv;
    bool loaded; /* into panels */
} run_case;

static ns_ckpt *reopen(const char *dir, bool loaded)
{
    ns_err e = { 0 };
    ns_ckpt *c = ns_ckpt_open(dir, &(ns_ckpt_opts){ .huge_pages = loaded }, &e);
    if (!c)
        fail_msg("%s: %s", dir, e.msg);
    return c;
}

static prop_model model_of(const run_case *c, int threads)
{
    prop_model m = prop_open(reopen(c->dir, c->loaded), c->ops, threads);
    m.m.kv = c->kv;
    return m;
}

typedef void case_fn(const run_case *c);

static void each_rung(const prop_variant *v, case_fn *fn)
{
    char *dir = tiny_path(tiny_base, v->name), name[100];
    if (tiny_make(dir, &v->o) != 0)
        abort();
    for (int i = 0; i < 2 * NS_RUNG_COUNT; i++) {
        run_case c = { v, dir, name, ns_ops_find((enum ns_rung)(i / 2)), i % 2 ? NS_F8_E4M3 : NS_F32, v->o.nest != NULL };
        if (!c.ops || (c.kv != NS_F32 && !strchr(v->o.pattern, '*')))
            continue;
        snprintf(name, sizeof name, "%s on %s%s", v->name, c.ops->name, c.kv == NS_F32 ? "" : ", FP8 cache");
        fn(&c);
    }
    tiny_remove(dir);
    free(dir);
}

static void each_case(case_fn *fn)
{
    prop_variant v[PROP_VARIANTS];
    prop_variants(v);
    for (int i = 0; i < PROP_VARIANTS; i++)
        each_rung(&v[i], fn);
}

static ns_cut whole(const prop_model *m)
{
    ns_err e = { 0 };
    ns_cut c;
    assert_int_equal(ns_cut_full(m->ck->arch, &c, &e), 0);
    return c;
}

static ns_cut cut_of(const prop_model *m, const char *size)
{
    ns_err e = { 0 };
    ns_cut c;
    char name[64];
    if (ns_ckpt_size(m->ck, size, &c, name, sizeof name, &e) != 0)
        fail_msg("%s: %s", size, e.msg);
    return c;
}

static ns_cut random_cut(const prop_model *m, uint64_t seed)
{
    ns_cut c;
    if (tiny_random_cut(m->ck, seed, &c) != 0)
        abort();
    return c;
}

static ns_state *fresh(const prop_model *m, const ns_cut *c, int context)
{
    ns_err e = { 0 };
    ns_state *s = ns_model_state(&m->m, c, context, &e);
    assert_non_null(s);
    return s;
}

/* The worst rounding difference seen, per rung and kind of checkpoint; printed at the end. */
static struct {
    double chunks, ssd;
} worst[NS_RUNG_COUNT][2][2];

static void note(const run_case *c, double d, size_t field, double tol, const char *what)
{
    int r = 0;
    while (ns_ops_find((enum ns_rung)r) != c->ops)
        r++;
    double *w = (double *)((char *)&worst[r][prop_quantised(&c->v->o)][c->kv != NS_F32] + field);
    *w = fmax(*w, d);
    if (!(d <= tol))
        fail_msg("%s: %s differ by %.2e (allowed %.0e)", c->name, what, d, tol);
}

static bool has_mamba(const prop_variant *v)
{
    return strchr(v->o.pattern, 'M') != NULL;
}

/* Rounding of activations to 16 bits of the vector's maximum comes into the NVFP4 products of the vector rungs. */
static double tolerance(const run_case *c)
{
    if (c->kv != NS_F32 && has_mamba(c->v)) /* a key between two codes may fall to either side: one step of E4M3, 1/14 of the largest */
        return 1.0 / 14 + 1e-3;
    return prop_quantised(&c->v->o) && strcmp(c->ops->name, "ref") != 0 ? 3e-4 : 2e-5;
}

/* ---- any chunking ---- */

enum { LONG = 150 };

static void chunks_of(const run_case *c)
{
    prop_model m = model_of(c, 1);
    ns_rng r;
    ns_rng_init(&r, 11);
    int *ids = prop_ids(&m, LONG, &r);
    for (int i = 0; i < 3; i++) {
        ns_cut cut = i ? random_cut(&m, (uint64_t)i) : whole(&m);
        ns_plan *p = prop_plan(&m, &cut);
        prop_feed one = prop_steps(LONG), any = i == 1 ? prop_whole(LONG) : prop_random_feed(LONG, &r);
        prop_trace a = prop_run(p, ids, &one, 0), b = prop_run(p, ids, &any, 0);
        if (!has_mamba(c->v)) {
            prop_same(b.logits, a.logits, a.n_logits, c->name);
            prop_same_state(b.state, a.state, c->name);
        }
        double d = fmax(prop_diff(b.logits, a.logits, a.n_logits), prop_state_diff(b.state, a.state));
        note(c, d, offsetof(__typeof__(worst[0][0][0]), chunks), tolerance(c), "chunks and steps");
        prop_trace_release(&a);
        prop_trace_release(&b);
        ns_plan_free(p);
        ns_cut_release(&cut);
    }
    free(ids);
    prop_close(&m);
}

static void any_chunking(void **state)
{
    (void)state;
    each_case(chunks_of);
}

/* Without Mamba layers a step does the same arithmetic per token, however many there are. */
static void any_chunking_bits(void **state)
{
    (void)state;
    static const char *const patterns[] = { "*E-*", "EE*-", "**" };
    for (int i = 0; i < 3; i++) {
        prop_variant v = { "attention", tiny_defaults() };
        v.o.pattern = patterns[i];
        v.o.seed = (uint64_t)(50 + i);
        v.o.dtype = i == 1 ? "bf16" : "f32";
        each_rung(&v, chunks_of);
    }
}

/* ---- SSD == recurrence ---- */

static void ssd_of(const run_case *c)
{
    static const int lengths[] = { 1, 2, 3, 63, 64, 65, 127, 128, 129, 130, 200 };
    prop_model m = model_of(c, 2);
    ns_cut full = whole(&m);
    ns_plan *p = prop_plan(&m, &full);
    ns_rng r;
    ns_rng_init(&r, 5);
    int *ids = prop_ids(&m, 210, &r), vocab = m.ck->arch->vocab_size;
    for (size_t i = 0; i < 2 * sizeof lengths / sizeof *lengths; i++) {
        int n = lengths[i / 2], before = i % 2 ? 7 : 0; /* from an empty state and from a used one */
        ns_state *a = fresh(&m, &full, 210), *b = fresh(&m, &full, 210);
        float *la = malloc((size_t)(n * vocab) * sizeof *la), *lb = malloc((size_t)(n * vocab) * sizeof *lb);
        prop_feed head = prop_steps(before), at_once = prop_whole(n), steps = prop_steps(n);
        if (before) {
            prop_continue(p, a, ids, &head, NULL);
            prop_continue(p, b, ids, &head, NULL);
        }
        prop_continue(p, a, ids + before, &at_once, la);
        prop_continue(p, b, ids + before, &steps, lb);
        if (n == 1)
            prop_same_state(a, b, c->name);
        double d = fmax(prop_state_diff(a, b), prop_diff(la, lb, (size_t)(n * vocab)));
        note(c, d, offsetof(__typeof__(worst[0][0][0]), ssd), tolerance(c), "SSD and recurrence");
        ns_state_free(a);
        ns_state_free(b);
        free(la);
        free(lb);
    }
    free(ids);
    ns_plan_free(p);
    ns_cut_release(&full);
    prop_close(&m);
}

static void ssd_is_recurrence(void **state)
{
    (void)state;
    static const struct {
        int heads, groups, head_dim, state;
    } shapes[] = { { 8, 2, 16, 16 }, { 4, 1, 64, 128 }, { 6, 3, 24, 40 }, { 2, 2, 80, 9 } };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        prop_variant v = { "mamba", tiny_defaults() };
        v.o.pattern = "MM";
        v.o.seed = i;
        v.o.mamba_heads = shapes[i].heads;
        v.o.mamba_groups = shapes[i].groups;
        v.o.mamba_head_dim = shapes[i].head_dim;
        v.o.state = shapes[i].state;
        each_rung(&v, ssd_of);
    }
}

/* ---- company in a step ---- */

enum { SEQUENCES = 4, ROUNDS = 6 };

static void company_of(const run_case *c, bool sizes)
{
    prop_model m = model_of(c, 2);
    ns_rng r;
    ns_err e = { 0 };
    ns_rng_init(&r, 23);
    ns_cut cut[SEQUENCES];
    ns_plan *p[SEQUENCES];
    ns_scratch *scratch = ns_scratch_new();
    int vocab = m.ck->arch->vocab_size;
    ns_state *together[SEQUENCES], *alone[SEQUENCES];
    float *logits[SEQUENCES], *want = malloc(80 * (size_t)vocab * sizeof *want);
    for (int s = 0; s < SEQUENCES; s++) {
        cut[s] = random_cut(&m, sizes ? 3 + (uint64_t)s % 3 : 3); /* the last has the first one's size, in a plan of its own */
        p[s] = prop_plan(&m, &cut[s]);
        together[s] = fresh(&m, &cut[s], 400);
        alone[s] = fresh(&m, &cut[s], 400);
        logits[s] = malloc(80 * (size_t)vocab * sizeof *want);
    }
    for (int round = 0; round < ROUNDS; round++) {
        ns_item item[SEQUENCES];
        int *ids[SEQUENCES], n = 1 + prop_pick(&r, SEQUENCES);
        for (int s = 0; s < n; s++) {
            int len = round < 2 ? 1 : prop_pick(&r, 2) ? 1 + prop_pick(&r, 70) : 1;
            ids[s] = prop_ids(&m, len, &r);
            item[s] = (ns_item){ .plan = sizes ? p[s] : NULL, .state = together[s], .ids = ids[s], .n = len,
                                 .n_logits = prop_pick(&r, len + 1), .logits = logits[s] };
        }
        assert_int_equal(ns_forward(sizes ? NULL : p[0], item, n, scratch, NULL, &e), 0);
        for (int s = 0; s < n; s++) {
            ns_item one = item[s];
            one.plan = NULL;
            one.state = alone[s];
            one.logits = want;
            assert_int_equal(ns_forward(p[s], &one, 1, scratch, NULL, &e), 0);
            size_t k = (size_t)one.n_logits * (size_t)vocab;
            prop_same(logits[s], want, k, c->name);
            prop_same_state(together[s], alone[s], c->name);
            free(ids[s]);
        }
    }
    for (int s = 0; s < SEQUENCES; s++) {
        ns_state_free(together[s]);
        ns_state_free(alone[s]);
        free(logits[s]);
        ns_plan_free(p[s]);
        ns_cut_release(&cut[s]);
    }
    free(want);
    ns_scratch_free(scratch);
    prop_close(&m);
}

static void batches_of(const run_case *c)
{
    company_of(c, false);
}

static void mixed_batches_of(const run_case *c)
{
    company_of(c, true);
}

static void mixed_batch_in_panels(void **state)
{
    (void)state;
    prop_variant v[PROP_VARIANTS];
    prop_variants(v);
    for (int i = 0; i < PROP_VARIANTS; i++) {
        v[i].o.nest = "{\"version\": 1, \"variants\": [{\"name\": \"full\"}, {\"name\": \"mid\", \"cut\": {\"hidden\": 48}}, "
                      "{\"name\": \"small\", \"cut\": {\"hidden\": 32, \"expert_ffn\": 16, \"dense_ffn\": 48}}]}";
        each_rung(&v[i], mixed_batches_of);
    }
}

static void batch_is_each_alone(void **state)
{
    (void)state;
    each_case(batches_of);
}

static void mixed_batch_is_each_alone(void **state)
{
    (void)state;
    each_case(mixed_batches_of);
}

/* ---- threads ---- */

enum { COUNTS = 4 };

static void threads_of(const run_case *c)
{
    static const int counts[COUNTS] = { 1, 2, 3, 5 };
    prop_model m[COUNTS];
    prop_trace t[COUNTS];
    for (int i = 0; i < COUNTS; i++) {
        char what[200];
        ns_rng r;
        ns_rng_init(&r, 31);
        m[i] = model_of(c, counts[i]);
        int *ids = prop_ids(&m[i], 90, &r);
        ns_cut cut = random_cut(&m[i], 9);
        ns_plan *p = prop_plan(&m[i], &cut);
        prop_feed f = { .n = 6, .step = { 1, 3, 70, 1, 14, 1 } };
        t[i] = prop_run(p, ids, &f, 0);
        snprintf(what, sizeof what, "%s: %d threads and 1", c->name, counts[i]);
        prop_same_trace(&t[i], &t[0], what);
        prop_same_state(t[i].state, t[0].state, what);
        free(ids);
        ns_plan_free(p);
        ns_cut_release(&cut);
    }
    for (int i = 0; i < COUNTS; i++) {
        prop_trace_release(&t[i]);
        prop_close(&m[i]);
    }
}

static void any_threads(void **state)
{
    (void)state;
    each_case(threads_of);
}

/* ---- mark and rewind ---- */

static void rewind_of(const run_case *c)
{
    ns_err e = { 0 };
    prop_model m = model_of(c, 2);
    ns_rng r;
    ns_rng_init(&r, 41);
    ns_cut cut = random_cut(&m, 12);
    ns_plan *p = prop_plan(&m, &cut);
    int *ids = prop_ids(&m, 120, &r), *other = prop_ids(&m, 60, &r);
    size_t vocab = (size_t)m.ck->arch->vocab_size;
    float *want = malloc(60 * vocab * sizeof *want), *got = malloc(60 * vocab * sizeof *got);
    ns_state *s = fresh(&m, &cut, 120);
    prop_feed head = prop_prefill_decode(17, 3), tail = { .n = 4, .step = { 1, 30, 1, 8 } }, detour = { .n = 2, .step = { 50, 1 } };
    prop_continue(p, s, ids, &head, NULL);
    ns_mark *mark = ns_state_mark(s, &e);
    assert_non_null(mark);
    prop_continue(p, s, ids + 20, &tail, want);
    ns_mark *later = ns_state_mark(s, &e);
    for (int i = 0; i < 3; i++) { /* a mark may be used again and again */
        assert_int_equal(ns_state_rewind(s, mark, &e), 0);
        assert_int_equal(s->len, 20);
        if (i == 1) {
            prop_continue(p, s, other, &detour, NULL);
            assert_int_equal(ns_state_rewind(s, mark, &e), 0);
        }
        prop_continue(p, s, ids + 20, &tail, got);
        prop_same(got, want, 40 * vocab, c->name);
    }
    assert_int_equal(ns_state_rewind(s, mark, &e), 0);
    assert_int_equal(ns_state_rewind(s, later, &e), -1); /* it lies ahead */
    assert_int_equal(e.code, NS_EINVAL);
    ns_state_reset(s);
    prop_continue(p, s, ids, &head, NULL); /* an emptied state is as good as a new one */
    prop_continue(p, s, ids + 20, &tail, got);
    prop_same(got, want, 40 * vocab, c->name);
    ns_mark_free(mark);
    ns_mark_free(later);
    ns_state_free(s);
    ns_plan_free(p);
    ns_cut_release(&cut);
    free(ids);
    free(other);
    free(want);
    free(got);
    prop_close(&m);
}

static void rewind_is_replay(void **state)
{
    (void)state;
    each_case(rewind_of);
}

/* ---- files ---- */

static void save_of(const run_case *c)
{
    ns_err e = { 0 };
    prop_model m = model_of(c, 1);
    ns_rng r;
    ns_rng_init(&r, 51);
    ns_cut cut = random_cut(&m, 14);
    ns_plan *p = prop_plan(&m, &cut);
    int *ids = prop_ids(&m, 40, &r), *loaded;
    size_t vocab = (size_t)m.ck->arch->vocab_size;
    char *path = tiny_path(tiny_base, "state");
    float *want = malloc(15 * vocab * sizeof *want), *got = malloc(15 * vocab * sizeof *got);
    ns_state *a = fresh(&m, &cut, 40), *b = fresh(&m, &cut, 77); /* room may differ */
    prop_feed head = prop_prefill_decode(20, 5), tail = prop_prefill_decode(10, 5);
    prop_continue(p, a, ids, &head, NULL);
    prop_continue(p, b, ids + 9, &tail, NULL); /* what is loaded replaces this */
    assert_int_equal(ns_state_save(a, ids, path, &e), 0);
    if (ns_state_load(b, path, &loaded, &e) != 0)
        fail_msg("%s", e.msg);
    assert_memory_equal(loaded, ids, 25 * sizeof *ids);
    prop_same_state(b, a, c->name);
    prop_continue(p, a, ids + 25, &tail, want);
    prop_continue(p, b, ids + 25, &tail, got);
    prop_same(got, want, 15 * vocab, c->name);
    ns_state_free(a);
    ns_state_free(b);
    free(loaded);
    free(path);
    free(ids);
    free(want);
    free(got);
    ns_plan_free(p);
    ns_cut_release(&cut);
    prop_close(&m);
}

static void save_load_continues(void **state)
{
    (void)state;
    each_case(save_of);
}

static void refuse(ns_state *s, const char *path, const void *bytes, size_t n, const char *what)
{
    ns_err e = { 0 };
    int *ids = NULL;
    assert_int_equal(ns_file_write(path, bytes, n, &e), 0);
    if (ns_state_load(s, path, &ids, &e) == 0)
        fail_msg("%s: loaded", what);
    assert_null(ids);
    assert_int_not_equal(e.code, NS_OK);
    if (!strstr(e.msg, path))
        fail_msg("%s: the message does not name the file: %s", what, e.msg);
    if (s->len != 0 && s->len != 3)
        fail_msg("%s: %d tokens after a refusal", what, s->len);
}

static void broken_state_files(void **state)
{
    (void)state;
    ns_err e = { 0 };
    tiny_opts o = tiny_defaults();
    prop_model m = prop_open(tiny_open(tiny_base, "broken", &o), ns_ops_find(NS_RUNG_REF), 1);
    ns_cut full = whole(&m), small = cut_of(&m, "ssm_state=8"), fewer = cut_of(&m, "layers=0-6"), heads = cut_of(&m, "attn_heads=4");
    ns_plan *p = prop_plan(&m, &full);
    int ids[3] = { 5, 6, 7 }, *loaded;
    char *path = tiny_path(tiny_base, "broken-state"), what[100];
    ns_state *s = fresh(&m, &full, 8);
    prop_feed f = prop_whole(3);
    prop_continue(p, s, ids, &f, NULL);
    assert_int_equal(ns_state_save(s, ids, path, &e), 0);
    ns_buf good = { 0 };
    assert_int_equal(ns_file_read(path, 1 << 24, &good, &e), 0);
    unsigned char *b = malloc(good.len + 1);
    memcpy(b, good.data, good.len);
    size_t header = 16 + 5 * 4 + (size_t)m.ck->arch->n_layers * 17;
    for (size_t n = 0; n < good.len; n += n < header + 16 ? 1 : 997) {
        snprintf(what, sizeof what, "the first %zu of %zu bytes", n, good.len);
        refuse(s, path, b, n, what);
    }
    b[good.len] = 0;
    refuse(s, path, b, good.len + 1, "a byte too many");
    for (size_t i = 0; i < header; i++)
        for (int bit = 0; bit < 8; bit += 7) {
            b[i] ^= (unsigned char)(1 << bit);
            snprintf(what, sizeof what, "bit %d of header byte %zu", bit, i);
            refuse(s, path, b, good.len, what);
            b[i] ^= (unsigned char)(1 << bit);
        }
    b[header + 3] = 0x7f; /* the first id */
    refuse(s, path, b, good.len, "an id outside the vocabulary");
    assert_int_equal(ns_file_write(path, good.data, good.len, &e), 0);
    assert_int_equal(ns_state_load(s, path, &loaded, &e), 0); /* still fine after all refusals */
    free(loaded);
    const struct { ns_cut *cut; int context, rc; } other[] = { { &small, 8, -1 }, { &fewer, 8, -1 }, { &full, 2, -1 }, { &heads, 8, 0 }, { &full, 3, 0 } };
    for (size_t i = 0; i < sizeof other / sizeof *other; i++) {
        ns_state *t = fresh(&m, other[i].cut, other[i].context);
        e = (ns_err){ 0 };
        assert_int_equal(ns_state_load(t, path, &loaded, &e), other[i].rc);
        assert_int_equal(t->len, other[i].rc == 0 ? 3 : 0);
        free(loaded);
        ns_state_free(t);
    }
    ns_state *eight = ns_state_new(m.ck->arch, &full, NS_F8_E4M3, 8, &e);
    e = (ns_err){ 0 };
    assert_int_equal(ns_state_load(eight, path, &loaded, &e), -1); /* the other type, both ways */
    assert_non_null(strstr(e.msg, "stored as F32, and this state keeps them as F8_E4M3"));
    e = (ns_err){ 0 };
    assert_int_equal(ns_state_save(eight, ids, path, &e), 0);
    assert_int_equal(ns_state_load(s, path, &loaded, &e), -1);
    assert_non_null(strstr(e.msg, "stored as F8_E4M3, and this state keeps them as F32"));
    assert_int_equal(s->len, 3); /* refused before anything was touched */
    ns_state_free(eight);
    e = (ns_err){ 0 };
    assert_int_equal(ns_state_load(s, "/nonexistent/state", &loaded, &e), -1);
    free(b);
    free(path);
    ns_buf_release(&good);
    ns_state_free(s);
    ns_plan_free(p);
    ns_cut_release(&full);
    ns_cut_release(&small);
    ns_cut_release(&fewer);
    ns_cut_release(&heads);
    prop_close(&m);
}

/* ---- change of size ---- */

/* A cache goes over where head dims agree: then the new size reads exactly what the old one wrote, and writes what it would. */
static void adopt_of(const run_case *c)
{
    static const char *const equal[] = { "hidden=48,expert_ffn=32,shared_ffn=32", "experts=4", "attn_heads=4", "dense_ffn=48" };
    static const char *const unequal[] = { "mamba_heads=4", "ssm_state=8" };
    ns_err e = { 0 };
    prop_model m = model_of(c, 2);
    ns_rng r;
    ns_rng_init(&r, 61);
    ns_cut full = whole(&m);
    ns_plan *p = prop_plan(&m, &full);
    size_t vocab = (size_t)m.ck->arch->vocab_size;
    int *ids = prop_ids(&m, 40, &r);
    float *got = malloc(20 * vocab * sizeof *got), *want = malloc(20 * vocab * sizeof *want);
    prop_feed head = prop_prefill_decode(17, 3), tail = prop_prefill_decode(15, 5);
    for (size_t i = 0; i < sizeof equal / sizeof *equal; i++) {
        ns_cut small = cut_of(&m, equal[i]);
        ns_plan *q = prop_plan(&m, &small);
        ns_state *a = fresh(&m, &full, 40), *b = fresh(&m, &small, 40);
        prop_continue(p, a, ids, &head, NULL);
        prop_continue(p, b, ids, &head, NULL); /* what matters is only that the memory has the same layout */
        assert_int_equal(a->bytes, b->bytes);
        memcpy(b->memory, a->memory, a->bytes);
        assert_int_equal(ns_state_adopt(a, &small, &e), 0);
        assert_true(ns_cut_equal(&a->cut, &small));
        prop_continue(q, a, ids + 20, &tail, got);
        prop_continue(q, b, ids + 20, &tail, want);
        prop_same(got, want, 20 * vocab, c->name);
        assert_int_equal(ns_state_adopt(a, &full, &e), 0); /* and back */
        ns_state_free(a);
        ns_state_free(b);
        ns_plan_free(q);
        ns_cut_release(&small);
    }
    ns_state *s = fresh(&m, &full, 40);
    for (size_t i = 0; i < sizeof unequal / sizeof *unequal; i++) {
        ns_cut small = cut_of(&m, unequal[i]);
        e = (ns_err){ 0 };
        assert_int_equal(ns_state_adopt(s, &small, &e), -1);
        assert_int_equal(e.code, NS_EINVAL);
        assert_true(ns_cut_equal(&s->cut, &full));
        ns_cut_release(&small);
    }
    ns_state_free(s);
    ns_plan_free(p);
    ns_cut_release(&full);
    free(ids);
    free(got);
    free(want);
    prop_close(&m);
}

static void adopting_a_cache(void **state)
{
    (void)state;
    prop_variant v[PROP_VARIANTS];
    prop_variants(v);
    each_rung(&v[0], adopt_of);
    each_rung(&v[4], adopt_of);
}

/* Layers may be dropped on the way down, but not come back: their part of the cache is not up to date. */
static void adopting_without_layers(void **state)
{
    (void)state;
    ns_err e = { 0 };
    tiny_opts o = tiny_defaults();
    prop_model m = prop_open(tiny_open(tiny_base, "layers", &o), ns_ops_find(NS_RUNG_REF), 1);
    ns_cut full = whole(&m), fewer = cut_of(&m, "layers=0-4+7"); /* MEM*E-ME without MLP and Mamba */
    ns_plan *p = prop_plan(&m, &fewer);
    ns_state *s = fresh(&m, &full, 10), *t = fresh(&m, &fewer, 10);
    int ids[3] = { 1, 2, 3 };
    prop_feed f = prop_whole(3);
    prop_continue(p, t, ids, &f, NULL);
    assert_int_equal(ns_state_adopt(s, &fewer, &e), 0);
    prop_continue(p, s, ids, &f, NULL);
    assert_int_equal(ns_state_adopt(s, &full, &e), -1);
    assert_int_equal(s->len, 3);
    ns_state_free(s);
    ns_state_free(t);
    ns_plan_free(p);
    ns_cut_release(&full);
    ns_cut_release(&fewer);
    prop_close(&m);
}

/* Plans of several sizes over one model take turns: each computes what it computes alone, and a prefix prefilled again at another
 * size is a fresh run there. */
static void switch_of(const run_case *c)
{
    prop_model m = model_of(c, 2);
    ns_rng r;
    ns_rng_init(&r, 71);
    size_t vocab = (size_t)m.ck->arch->vocab_size;
    int *ids = prop_ids(&m, 60, &r);
    float *want = malloc(60 * vocab * sizeof *want), *got = malloc(60 * vocab * sizeof *got);
    ns_cut cut[3] = { whole(&m), random_cut(&m, 21), random_cut(&m, 22) };
    ns_plan *p[3] = { prop_plan(&m, &cut[0]), prop_plan(&m, &cut[1]), prop_plan(&m, &cut[2]) };
    ns_state *s = fresh(&m, &cut[0], 60);
    for (int i = 0, at = 20; i < 5; i++, at += 5) {
        int to = prop_pick(&r, 3);
        prop_feed prefix = prop_whole(at), tail = prop_steps(5);
        ns_state *f = fresh(&m, &cut[to], 60);
        ns_state_free(s);
        s = fresh(&m, &cut[to], 60);
        prop_continue(p[to], s, ids, &prefix, got);
        prop_continue(p[to], s, ids + at, &tail, got + (size_t)at * vocab);
        prop_model n = model_of(c, 1); /* nothing shared with the first */
        ns_plan *q = prop_plan(&n, &cut[to]);
        prop_continue(q, f, ids, &prefix, want);
        prop_continue(q, f, ids + at, &tail, want + (size_t)at * vocab);
        prop_same(got, want, (size_t)(at + 5) * vocab, c->name);
        prop_same_state(s, f, c->name);
        ns_plan_free(q);
        ns_state_free(f);
        prop_close(&n);
    }
    ns_state_free(s);
    for (int i = 0; i < 3; i++) {
        ns_plan_free(p[i]);
        ns_cut_release(&cut[i]);
    }
    free(ids);
    free(want);
    free(got);
    prop_close(&m);
}

static void switching_with_prefill(void **state)
{
    (void)state;
    each_case(switch_of);
}

/* ---- refusals ---- */

static void refused_steps(void **state)
{
    (void)state;
    tiny_opts o = tiny_defaults();
    prop_model m = prop_open(tiny_open(tiny_base, "refused", &o), ns_ops_find(NS_RUNG_REF), 1);
    ns_cut full = whole(&m);
    ns_plan *p = prop_plan(&m, &full);
    ns_scratch *scratch = ns_scratch_new();
    ns_state *s = fresh(&m, &full, 5), *untouched = fresh(&m, &full, 5);
    int vocab = m.ck->arch->vocab_size, ids[6] = { 1, 2, 3, 4, 5, 6 }, high[2] = { 1, vocab }, low[2] = { 1, -1 };
    float *logits = malloc(6 * (size_t)vocab * sizeof *logits);
    const ns_item bad[] = { { .state = s, .ids = ids, .n = 6 }, { .state = s, .ids = high, .n = 2 }, { .state = s, .ids = low, .n = 2 },
                            { .state = s, .ids = ids, .n = 0 }, { .state = s, .ids = ids, .n = 2, .n_logits = 3, .logits = logits } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ns_err e = { 0 };
        ns_item item = bad[i];
        assert_int_equal(ns_forward(p, &item, 1, scratch, NULL, &e), -1);
        assert_int_equal(e.code, NS_EINVAL);
        prop_same_state(s, untouched, "after a refusal");
    }
    ns_err e = { 0 };
    ns_item exact = { .state = s, .ids = ids, .n = 5 };
    assert_int_equal(ns_forward(p, &exact, 1, scratch, NULL, &e), 0);
    assert_null(ns_model_state(&m.m, &full, 0, &e));
    free(logits);
    ns_state_free(s);
    ns_state_free(untouched);
    ns_scratch_free(scratch);
    ns_plan_free(p);
    ns_cut_release(&full);
    prop_close(&m);
}

static void print_worst(void **state)
{
    (void)state;
    for (int r = 0; r < NS_RUNG_COUNT; r++)
        for (int q = 0; q < 4 && ns_ops_find((enum ns_rung)r); q++)
            printf("%-6s %-5s %-10s chunks and steps within %.1e, SSD and recurrence within %.1e\n", ns_ops_find((enum ns_rung)r)->name,
                   q / 2 ? "nvfp4" : "plain", q % 2 ? "FP8 cache" : "", worst[r][q / 2][q % 2].chunks, worst[r][q / 2][q % 2].ssd);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(any_chunking),
                                        cmocka_unit_test(any_chunking_bits),
                                        cmocka_unit_test(ssd_is_recurrence),
                                        cmocka_unit_test(batch_is_each_alone), cmocka_unit_test(mixed_batch_is_each_alone),
                                        cmocka_unit_test(mixed_batch_in_panels),
                                        cmocka_unit_test(any_threads),
                                        cmocka_unit_test(rewind_is_replay),
                                        cmocka_unit_test(save_load_continues),
                                        cmocka_unit_test(broken_state_files),
                                        cmocka_unit_test(adopting_a_cache),
                                        cmocka_unit_test(adopting_without_layers),
                                        cmocka_unit_test(switching_with_prefill),
                                        cmocka_unit_test(refused_steps),
                                        cmocka_unit_test(print_worst) };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
