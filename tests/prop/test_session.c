/* include/nestar.h from outside: what a session promises about tokens, sizes, marks, files, cancelling and refusals. */
#include "nestar.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/file.h"
#include "prop/prop.h"

/* "small" shares the cache's shape with "full", "tight" does not, "short" leaves a Mamba layer and an attention layer out. */
static const char nest[] =
    "{\"version\": 1, \"variants\": ["
    "{\"name\": \"whole\", \"budget\": 1.0},"
    "{\"name\": \"small\", \"budget\": 0.6, \"cut\": {\"hidden\": 48, \"expert_ffn\": 32, \"experts\": 6}},"
    "{\"name\": \"short\", \"cut\": {\"layers\": [0, 1, 2, 4, 5, 7]}},"
    "{\"name\": \"tight\", \"cut\": {\"hidden\": 32, \"ssm_state\": 8, \"mamba_heads\": 4}}]}";

enum { VOCAB = 96 };

static char *base, *dir;
static ns_engine *engine;

static ns_engine *open_engine(int threads)
{
    ns_err e = { 0 };
    ns_engine *en = ns_engine_open(dir, &(ns_engine_opts){ .n_threads = threads }, &e);
    if (!en)
        fail_msg("%s", e.msg);
    return en;
}

static int setup(void **state)
{
    (void)state;
    tiny_opts o = tiny_defaults();
    o.nest = nest;
    base = tiny_dir();
    dir = tiny_path(base, "model");
    if (tiny_make(dir, &o) != 0)
        return -1;
    engine = open_engine(2);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ns_engine_close(engine);
    tiny_remove(base);
    free(base);
    free(dir);
    return 0;
}

/* ---- helpers ---- */

static const ns_sampling greedy = { .temperature = 0.0, .top_p = 1.0, .repetition_penalty = 1.0 };

static ns_session *session(ns_engine *en, const char *size, int context)
{
    ns_err e = { 0 };
    ns_session *s = ns_session_new(en, &(ns_session_opts){ .size = size, .context = context, .sampling = &greedy }, &e);
    if (!s)
        fail_msg("%s", e.msg);
    return s;
}

#define ok(call)                                                \
    do {                                                        \
        ns_err e = { 0 };                                       \
        if ((call) != 0)                                        \
            fail_msg("%s: %s", #call, e.msg);                   \
        assert_int_equal(e.code, NS_OK);                        \
    } while (0)

#define refused(expected, call)                                             \
    do {                                                                    \
        ns_err e = { 0 };                                                   \
        assert_int_equal(call, -1);                                         \
        if (e.code != (expected) || !e.msg[0])                              \
            fail_msg("%s: code %d, message \"%s\"", #call, e.code, e.msg);  \
    } while (0)

static void random_ids(ns_rng *r, int *ids, int n)
{
    for (int i = 0; i < n; i++)
        ids[i] = prop_pick(r, VOCAB);
}

static void generate(ns_session *s, int *out, int n)
{
    for (int i = 0; i < n; i++)
        ok(ns_session_next(s, &out[i], &e));
}

static void holds(const ns_session *s, const int *ids, size_t n)
{
    size_t have;
    const int *got = ns_session_tokens(s, &have);
    assert_int_equal(have, n);
    if (n)
        assert_memory_equal(got, ids, n * sizeof *ids);
}

static void same_logits(ns_session *a, ns_session *b, const char *what)
{
    const float *x = ns_session_logits(a), *y = ns_session_logits(b);
    assert_non_null(x);
    assert_non_null(y);
    prop_same(x, y, VOCAB, what);
}

static double worst;

static void near_logits(ns_session *a, ns_session *b, const char *what)
{
    const float *x = ns_session_logits(a), *y = ns_session_logits(b);
    assert_non_null(x);
    assert_non_null(y);
    double d = prop_diff(x, y, VOCAB);
    worst = fmax(worst, d);
    if (!(d <= 2e-5))
        fail_msg("%s: logits differ by %.2e", what, d);
}

/* ---- sizes ---- */

static void sizes(void **state)
{
    (void)state;
    ns_size_info z, y;
    char name[64];
    assert_int_equal(ns_engine_n_sizes(engine), 4);
    int64_t before = INT64_MAX;
    for (int i = 0; i < 4; i++) {
        ok(ns_engine_size(engine, i, &z, &e));
        assert_true(z.params_active <= before);
        assert_true(z.active_bytes <= z.weight_bytes && z.params_active <= z.params_total);
        before = z.params_active;
        ok(ns_engine_resolve(engine, z.name, 100, name, sizeof name, &y, &e));
        assert_string_equal(name, z.name);
        assert_int_equal(y.weight_bytes, z.weight_bytes);
    }
    ok(ns_engine_size(engine, 0, &z, &e));
    assert_string_equal(z.name, "full");
    ok(ns_engine_resolve(engine, "WHOLE", 100, name, sizeof name, &y, &e));
    ok(ns_engine_resolve(engine, "hidden=16", 100, name, sizeof name, &y, &e));
    assert_true(y.weight_bytes < z.weight_bytes);
    ok(ns_engine_resolve(engine, "fit:1GiB", 100, name, sizeof name, &y, &e));
    assert_string_equal(name, "full");
    refused(NS_EINVAL, ns_engine_resolve(engine, "fit:1KiB", 100, name, sizeof name, &y, &e));
    refused(NS_EINVAL, ns_engine_resolve(engine, "fit:lots", 100, name, sizeof name, &y, &e));
    refused(NS_EINVAL, ns_engine_resolve(engine, "huge", 100, name, sizeof name, &y, &e));
    refused(NS_EINVAL, ns_engine_resolve(engine, "hidden=65", 100, name, sizeof name, &y, &e));
    refused(NS_EINVAL, ns_engine_size(engine, 4, &z, &e));
    refused(NS_EINVAL, ns_engine_size(engine, -1, &z, &e));
    ns_err opened = { 0 };
    ns_engine *eight = ns_engine_open(dir, &(ns_engine_opts){ .no_text = true, .kv = NS_KV_FP8 }, &opened);
    assert_non_null(eight);
    ok(ns_engine_resolve(engine, "full", 100, name, sizeof name, &y, &e));
    ok(ns_engine_resolve(eight, "full", 100, name, sizeof name, &z, &e));
    assert_true(y.kv_bytes_per_token == 4 * z.kv_bytes_per_token && y.state_bytes == z.state_bytes);
    ns_session *s = ns_session_new(eight, NULL, &opened), *wide = ns_session_new(engine, NULL, &opened);
    char *path = tiny_path(base, "eight.state");
    ok(ns_session_feed(s, (int[]){ 1, 2, 3 }, 3, &e));
    ok(ns_session_save(s, path, &e));
    ok(ns_session_load(s, path, &e));
    refused(NS_EINVAL, ns_session_load(wide, path, &e)); /* the other type */
    ns_session_free(s);
    ns_session_free(wide);
    ns_engine_close(eight);
    free(path);
    assert_int_equal(ns_engine_vocab_size(engine), VOCAB);
    assert_int_equal(ns_engine_max_context(engine), 512);
    assert_true(ns_engine_is_stop(engine, 2));
    assert_false(ns_engine_is_stop(engine, 3));
    assert_int_equal(ns_engine_threads(engine), 2);
}

static void refused_engines(void **state)
{
    (void)state;
    ns_err e = { 0 };
    char *none = tiny_path(base, "nothing-here"), *bad = tiny_path(base, "bad-nest.json");
    assert_null(ns_engine_open(none, NULL, &e));
    assert_non_null(strstr(e.msg, "nothing-here"));
    e = (ns_err){ 0 };
    assert_int_equal(ns_file_write(bad, "{\"version\": 2}", 14, &e), 0);
    assert_null(ns_engine_open(dir, &(ns_engine_opts){ .nest_path = bad }, &e));
    assert_non_null(strstr(e.msg, "bad-nest.json"));
    ns_engine_close(NULL);
    free(none);
    free(bad);
}

/* ---- tokens ---- */

static void greedy_is_deterministic(void **state)
{
    (void)state;
    static const char *const names[] = { "full", "small", "short", "tight" };
    ns_engine *other = open_engine(5);
    ns_rng r;
    ns_rng_init(&r, 1);
    for (int i = 0; i < 4; i++) {
        int prompt[30], a[20], b[20], c[20];
        random_ids(&r, prompt, 30);
        ns_session *s = session(engine, names[i], 64), *t = session(engine, names[i], 64), *u = session(other, names[i], 64);
        assert_string_equal(ns_session_size(s), names[i]);
        ok(ns_session_feed(s, prompt, 30, &e));
        ok(ns_session_feed(t, prompt, 30, &e));
        ok(ns_session_feed(u, prompt, 30, &e));
        const float *l = ns_session_logits(s);
        int best = 0;
        for (int k = 1; k < VOCAB; k++)
            best = l[k] > l[best] ? k : best;
        for (int k = 0; k < 20; k++) { /* turn by turn: sessions of one engine do not disturb each other */
            ok(ns_session_next(s, &a[k], &e));
            ok(ns_session_next(t, &b[k], &e));
            ok(ns_session_next(u, &c[k], &e));
        }
        assert_int_equal(a[0], best);
        assert_memory_equal(a, b, sizeof a);
        assert_memory_equal(a, c, sizeof a);
        size_t n;
        const int *held = ns_session_tokens(s, &n);
        assert_int_equal(n, 50);
        assert_memory_equal(held + 30, a, sizeof a);
        ns_stats stats = ns_session_stats(s);
        assert_int_equal(stats.prefill_tokens, 30);
        assert_int_equal(stats.decode_tokens, 19); /* the last token is computed when something needs it */
        same_logits(s, u, "1 engine and another");
        ns_session_free(s);
        ns_session_free(t);
        ns_session_free(u);
    }
    ns_engine_close(other);
}

static void draw(uint64_t seed, int *out, int n)
{
    ns_err err = { 0 };
    const int prompt[] = { 3, 1, 4, 1, 5 };
    ns_sampling p = { .temperature = 1.5, .top_p = 0.95, .top_k = 50, .repetition_penalty = 1.0, .seed = seed };
    ns_session *s = ns_session_new(engine, &(ns_session_opts){ .context = 100, .sampling = &p }, &err);
    assert_non_null(s);
    ok(ns_session_feed(s, prompt, 5, &e));
    generate(s, out, n);
    ns_session_free(s);
}

static void a_seed_is_a_text(void **state)
{
    (void)state;
    int a[40], b[40];
    draw(7, a, 40);
    draw(7, b, 40);
    assert_memory_equal(a, b, sizeof a);
    draw(8, b, 40);
    assert_memory_not_equal(a, b, sizeof a);
}

/* Fed in pieces or at once, more than one step's worth or less. */
static void any_feeding(void **state)
{
    (void)state;
    enum { N = 1100 };
    int *ids = malloc(N * sizeof *ids);
    ns_rng r;
    ns_rng_init(&r, 3);
    random_ids(&r, ids, N);
    ns_session *s = session(engine, NULL, N), *t = session(engine, NULL, N);
    ok(ns_session_feed(s, ids, N, &e));
    for (int at = 0, k; at < N; at += k) {
        k = 1 + prop_pick(&r, 90);
        k = k < N - at ? k : N - at;
        ok(ns_session_feed(t, ids + at, (size_t)k, &e));
    }
    holds(t, ids, N);
    near_logits(s, t, "fed in pieces");
    ok(ns_session_feed(t, ids, 0, &e)); /* nothing is no error */
    holds(t, ids, N);
    ns_session_free(s);
    ns_session_free(t);
    free(ids);
}

/* Whatever the session held before, sync leaves it as a fresh one that was fed the same. */
static void sync_is_fresh(void **state)
{
    (void)state;
    ns_rng r;
    ns_rng_init(&r, 5);
    ns_session *s = session(engine, "small", 200);
    int ids[200], n = 0, reused = 0, out[8];
    for (int round = 0; round < 60; round++) {
        size_t held;
        int keep = prop_pick(&r, 5) ? n - prop_pick(&r, n / 4 + 1) : prop_pick(&r, n + 1), more = prop_pick(&r, 40);
        n = keep + more > 190 ? 190 : keep + more;
        n = n < 1 ? 1 : n;
        random_ids(&r, ids + keep, n > keep ? n - keep : 0);
        size_t before = ns_session_stats(s).prefill_tokens + ns_session_stats(s).decode_tokens;
        ok(ns_session_sync(s, ids, (size_t)n, &e));
        size_t work = ns_session_stats(s).prefill_tokens + ns_session_stats(s).decode_tokens - before;
        reused += work < (size_t)n;
        holds(s, ids, (size_t)n);
        ns_session *t = session(engine, "small", 200);
        ok(ns_session_feed(t, ids, (size_t)n, &e));
        near_logits(s, t, "synced and fresh");
        ns_session_free(t);
        if (prop_pick(&r, 2)) {
            generate(s, out, prop_pick(&r, 8)); /* the next prompt goes on from the answer */
            const int *tokens = ns_session_tokens(s, &held);
            memcpy(ids, tokens, held * sizeof *ids);
            n = (int)held;
        }
    }
    if (reused < 20)
        fail_msg("only %d of 60 syncs kept anything", reused);
    ok(ns_session_sync(s, ids, 0, &e)); /* to nothing at all */
    holds(s, ids, 0);
    assert_null(ns_session_logits(s));
    ns_session_free(s);
}

/* A conversation as a server sees it: each prompt repeats what went before and most of it is kept. */
static void sync_keeps_a_conversation(void **state)
{
    (void)state;
    ns_rng r;
    ns_rng_init(&r, 6);
    ns_session *s = session(engine, NULL, 500);
    int ids[500], n = 0, answer[10];
    for (int turn = 0; turn < 6; turn++) {
        random_ids(&r, ids + n, 60);
        n += 60;
        size_t before = ns_session_stats(s).prefill_tokens;
        ok(ns_session_sync(s, ids, (size_t)n, &e));
        assert_true(ns_session_stats(s).prefill_tokens - before <= 60 + 16 + 10);
        generate(s, answer, 10);
        memcpy(ids + n, answer, 8 * sizeof *ids); /* the template writes the answer's end differently */
        n += 8;
    }
    ns_session_free(s);
}

/* ---- sizes of a running session ---- */

static void resize_keeps_the_cache(void **state)
{
    (void)state;
    ns_rng r;
    ns_rng_init(&r, 8);
    int ids[60], out[3];
    random_ids(&r, ids, 60);
    ns_session *s = session(engine, NULL, 80), *t = session(engine, NULL, 80);
    ok(ns_session_feed(s, ids, 40, &e));
    ok(ns_session_feed(t, ids, 40, &e));
    ns_stats before = ns_session_stats(s);
    ok(ns_session_resize(s, "small", NS_HANDOVER_CACHE, &e));
    assert_string_equal(ns_session_size(s), "small");
    holds(s, ids, 40);
    same_logits(s, t, "logits stay until the next token");
    assert_int_equal(ns_session_stats(s).prefill_tokens, before.prefill_tokens);
    assert_int_equal(ns_session_stats(s).switches, 1);
    ok(ns_session_feed(s, ids + 40, 5, &e));
    ok(ns_session_feed(t, ids + 40, 5, &e));
    assert_true(prop_diff(ns_session_logits(s), ns_session_logits(t), VOCAB) > 1e-3);
    ok(ns_session_resize(s, "full", NS_HANDOVER_CACHE, &e)); /* and back, without work */
    ok(ns_session_resize(s, "full", NS_HANDOVER_CACHE, &e)); /* to itself */
    assert_int_equal(ns_session_stats(s).prefill_tokens, 45);
    generate(s, out, 3);
    ns_session_free(s);
    ns_session_free(t);
}

static void resize_by_prefill_is_fresh(void **state)
{
    (void)state;
    static const char *const names[] = { "small", "tight", "full", "short", "hidden=16,attn_heads=2", "tight" };
    ns_rng r;
    ns_rng_init(&r, 9);
    int ids[100], n = 30;
    random_ids(&r, ids, n);
    ns_session *s = session(engine, NULL, 100);
    ok(ns_session_feed(s, ids, (size_t)n, &e));
    for (int i = 0; i < 6; i++) {
        ok(ns_session_resize(s, names[i], NS_HANDOVER_PREFILL, &e));
        ns_session *t = session(engine, names[i], 100);
        ok(ns_session_feed(t, ids, (size_t)n, &e));
        same_logits(s, t, names[i]);
        for (int k = 0; k < 4; k++) { /* the last one is not computed when the size changes */
            int a, b;
            ok(ns_session_next(s, &a, &e));
            ok(ns_session_next(t, &b, &e));
            assert_int_equal(a, b);
            ids[n++] = a;
        }
        holds(s, ids, (size_t)n);
        ns_session_free(t);
    }
    ns_session_free(s);
}

/* A token that was sampled but not computed is computed at the new size. */
static void resize_between_two_tokens(void **state)
{
    (void)state;
    const int prompt[] = { 9, 8, 7, 6, 5 };
    int a, b;
    ns_session *s = session(engine, NULL, 40), *t = session(engine, NULL, 40);
    ok(ns_session_feed(s, prompt, 5, &e));
    ok(ns_session_feed(t, prompt, 5, &e));
    ok(ns_session_next(s, &a, &e));
    ok(ns_session_resize(s, "small", NS_HANDOVER_CACHE, &e));
    ok(ns_session_resize(t, "small", NS_HANDOVER_CACHE, &e));
    ok(ns_session_feed(t, &a, 1, &e));
    same_logits(s, t, "the pending token");
    ok(ns_session_next(s, &a, &e));
    ok(ns_session_next(t, &b, &e));
    assert_int_equal(a, b);
    ns_session_free(s);
    ns_session_free(t);
}

static void resize_refused(void **state)
{
    (void)state;
    const int prompt[] = { 1, 2, 3 };
    ns_session *s = session(engine, NULL, 40), *t = session(engine, NULL, 40);
    int a[5], b[5];
    ok(ns_session_feed(s, prompt, 3, &e));
    ok(ns_session_feed(t, prompt, 3, &e));
    refused(NS_EINVAL, ns_session_resize(s, "tight", NS_HANDOVER_CACHE, &e));
    refused(NS_EINVAL, ns_session_resize(s, "enormous", NS_HANDOVER_AUTO, &e));
    refused(NS_EINVAL, ns_session_resize(s, "hidden=0", NS_HANDOVER_PREFILL, &e));
    assert_string_equal(ns_session_size(s), "full");
    assert_int_equal(ns_session_stats(s).switches, 0);
    generate(s, a, 5);
    generate(t, b, 5);
    assert_memory_equal(a, b, sizeof a);
    ok(ns_session_resize(s, "tight", NS_HANDOVER_AUTO, &e)); /* prefills by itself */
    assert_string_equal(ns_session_size(s), "tight");
    ok(ns_session_resize(s, "full", NS_HANDOVER_AUTO, &e));
    ns_session_free(s);
    ns_session_free(t);
}

/* "prefill" is exact also where the size is the session's already, but part of the cache is another size's. */
static void prefill_mends_a_mixed_cache(void **state)
{
    (void)state;
    const int prompt[] = { 11, 12, 13, 14, 15, 16 };
    ns_session *s = session(engine, NULL, 40), *t = session(engine, "small", 40);
    ok(ns_session_feed(s, prompt, 6, &e));
    ok(ns_session_resize(s, "small", NS_HANDOVER_CACHE, &e));
    ok(ns_session_resize(s, "small", NS_HANDOVER_PREFILL, &e));
    ok(ns_session_feed(t, prompt, 6, &e));
    same_logits(s, t, "prefilled at the size it has");
    ns_session_free(s);
    ns_session_free(t);
}

/* Layers may go from a cache, not come back. */
static void resize_without_layers(void **state)
{
    (void)state;
    const int prompt[] = { 1, 2, 3, 4 };
    ns_session *s = session(engine, NULL, 40), *t = session(engine, NULL, 40);
    ok(ns_session_feed(s, prompt, 4, &e));
    ok(ns_session_resize(s, "short", NS_HANDOVER_CACHE, &e));
    ok(ns_session_feed(s, prompt, 4, &e));
    refused(NS_EINVAL, ns_session_resize(s, "full", NS_HANDOVER_CACHE, &e));
    ok(ns_session_resize(s, "full", NS_HANDOVER_AUTO, &e));
    ok(ns_session_feed(t, (const int[]){ 1, 2, 3, 4, 1, 2, 3, 4 }, 8, &e));
    same_logits(s, t, "layers back by prefill");
    ns_session_free(s);
    ns_session_free(t);
}

/* ---- marks ---- */

static void marks(void **state)
{
    (void)state;
    const int prompt[] = { 20, 21, 22, 23, 24, 25, 26 };
    int a[6], b[6], first, second, third;
    float want[VOCAB];
    ns_session *s = session(engine, "small", 60);
    ok(ns_session_mark(s, &first, &e)); /* of nothing */
    ok(ns_session_feed(s, prompt, 7, &e));
    ok(ns_session_mark(s, &second, &e));
    memcpy(want, ns_session_logits(s), sizeof want);
    generate(s, a, 6);
    ok(ns_session_mark(s, &third, &e));
    for (int i = 0; i < 2; i++) {
        ok(ns_session_rewind(s, second, &e));
        holds(s, prompt, 7);
        prop_same(ns_session_logits(s), want, VOCAB, "logits at a mark");
        generate(s, b, 6);
        assert_memory_equal(a, b, sizeof a);
    }
    refused(NS_EINVAL, ns_session_rewind(s, third, &e)); /* it died when the session went back before it */
    ok(ns_session_rewind(s, first, &e));
    holds(s, prompt, 0);
    assert_null(ns_session_logits(s));
    refused(NS_EINVAL, ns_session_rewind(s, second, &e));
    refused(NS_EINVAL, ns_session_rewind(s, -1, &e));
    refused(NS_EINVAL, ns_session_rewind(s, 99, &e));
    ok(ns_session_feed(s, prompt, 7, &e));
    prop_same(ns_session_logits(s), want, VOCAB, "replay from nothing");
    ns_session_free(s);
}

/* A mark from before a change of size by cache still holds: it is of the sequence, not of the size. */
static void marks_across_sizes(void **state)
{
    (void)state;
    const int prompt[] = { 30, 31, 32, 33 };
    int mark, a[5], b[5];
    ns_session *s = session(engine, NULL, 60);
    ok(ns_session_feed(s, prompt, 4, &e));
    ok(ns_session_mark(s, &mark, &e));
    generate(s, a, 5);
    ok(ns_session_rewind(s, mark, &e));
    ok(ns_session_resize(s, "small", NS_HANDOVER_CACHE, &e));
    generate(s, b, 5);
    ok(ns_session_rewind(s, mark, &e));
    ok(ns_session_resize(s, "full", NS_HANDOVER_CACHE, &e));
    generate(s, b, 5);
    assert_memory_equal(a, b, sizeof a);
    ok(ns_session_resize(s, "tight", NS_HANDOVER_PREFILL, &e)); /* another shape: the mark is gone, not broken */
    refused(NS_EINVAL, ns_session_rewind(s, mark, &e));
    ns_session_free(s);
}

/* ---- files ---- */

static void save_and_load(void **state)
{
    (void)state;
    static const char *const names[] = { "full", "small", "short", "tight" };
    const int prompt[] = { 40, 41, 42, 43, 44, 45 };
    char *path = tiny_path(base, "session");
    for (int i = 0; i < 8; i++) {
        int before = i % 2 ? 3 : 0, a[10], b[10]; /* right after a prompt, and with a token not yet computed */
        ns_session *s = session(engine, names[i / 2], 60), *t = session(engine, names[i / 2], 80);
        ok(ns_session_feed(s, prompt, 6, &e));
        generate(s, a, before);
        ok(ns_session_save(s, path, &e));
        ok(ns_session_feed(t, prompt, 3, &e));
        ok(ns_session_load(t, path, &e));
        size_t n;
        const int *ids = ns_session_tokens(s, &n);
        holds(t, ids, n);
        generate(s, a, 10);
        generate(t, b, 10);
        assert_memory_equal(a, b, sizeof a);
        same_logits(s, t, "saved and loaded");
        ns_session_free(s);
        ns_session_free(t);
    }
    ns_session *empty = session(engine, NULL, 10), *used = session(engine, NULL, 10);
    ok(ns_session_save(empty, path, &e));
    ok(ns_session_feed(used, prompt, 5, &e));
    ok(ns_session_load(used, path, &e));
    holds(used, prompt, 0);
    assert_null(ns_session_logits(used));
    ns_session_free(empty);
    ns_session_free(used);
    free(path);
}

/* Saved after its cache went over to a size with fewer layers: a session of that size can go on from it. */
static void save_after_layers_went(void **state)
{
    (void)state;
    const int prompt[] = { 1, 2, 3, 4 };
    char *path = tiny_path(base, "short-session");
    int a[5], b[5];
    ns_session *s = session(engine, NULL, 40), *t = session(engine, "short", 40);
    ok(ns_session_feed(s, prompt, 4, &e));
    ok(ns_session_resize(s, "short", NS_HANDOVER_CACHE, &e));
    ok(ns_session_save(s, path, &e));
    ok(ns_session_load(t, path, &e));
    generate(s, a, 5);
    generate(t, b, 5);
    assert_memory_equal(a, b, sizeof a);
    ok(ns_session_save(t, path, &e));
    ok(ns_session_load(s, path, &e)); /* and the other way */
    ns_session_free(s);
    ns_session_free(t);
    free(path);
}

static void load_refused(void **state)
{
    (void)state;
    const int prompt[] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    char *path = tiny_path(base, "refused-session");
    ns_err e0 = { 0 };
    ns_session *s = session(engine, NULL, 40), *tight = session(engine, "tight", 40), *little = session(engine, NULL, 7);
    ok(ns_session_feed(s, prompt, 8, &e));
    ok(ns_session_save(s, path, &e));
    refused(NS_EFORMAT, ns_session_load(tight, path, &e));
    refused(NS_EINVAL, ns_session_load(little, path, &e));
    refused(NS_EIO, ns_session_load(s, "/nonexistent/session", &e));
    refused(NS_EIO, ns_session_save(s, "/nonexistent/session", &e));
    ns_buf b = { 0 };
    assert_int_equal(ns_file_read(path, 1 << 24, &b, &e0), 0);
    for (size_t cut = 1; cut < b.len; cut += cut < 600 ? 7 : 301) {
        assert_int_equal(ns_file_write(path, b.data, b.len - cut, &e0), 0);
        refused(NS_EFORMAT, ns_session_load(s, path, &e));
        holds(s, prompt, 0);
        assert_null(ns_session_logits(s));
    }
    ns_buf_release(&b);
    ns_session *all[] = { s, tight, little };
    for (int i = 0; i < 3; i++) {
        ok(ns_session_feed(all[i], prompt, 7, &e)); /* each is of use afterwards */
        assert_non_null(ns_session_logits(all[i]));
        ns_session_free(all[i]);
    }
    free(path);
}

/* ---- cancel ---- */

static void *cancel_soon(void *arg)
{
    struct timespec t = { 0, 3000000 };
    nanosleep(&t, NULL);
    ns_session_cancel(arg);
    return NULL;
}

/* Whenever the word comes, what the session holds is whole: going on from there is as good as a fresh start. */
static void cancel(void **state)
{
    (void)state;
    enum { N = 4000 };
    int *ids = malloc(N * sizeof *ids), cancelled = 0;
    ns_rng r;
    ns_rng_init(&r, 12);
    random_ids(&r, ids, N);
    ns_session *want = session(engine, NULL, N);
    ok(ns_session_feed(want, ids, N, &e));
    for (int i = 0; i < 3; i++) {
        ns_session *s = session(engine, NULL, N);
        pthread_t thread;
        ns_err err = { 0 };
        size_t n;
        assert_int_equal(pthread_create(&thread, NULL, cancel_soon, s), 0);
        int rc = ns_session_feed(s, ids, N, &err);
        pthread_join(thread, NULL);
        const int *held = ns_session_tokens(s, &n);
        assert_int_equal(err.code, rc == 0 ? NS_OK : NS_ECANCELLED);
        assert_true(rc == 0 ? n == N : n < N);
        assert_memory_equal(held, ids, n * sizeof *ids);
        cancelled += rc != 0;
        if (rc != 0) {
            ok(ns_session_feed(s, ids + n, N - n, &e));
            near_logits(s, want, "cancelled and gone on");
        }
        ns_session_free(s);
    }
    printf("cancelled %d of 3 in time\n", cancelled);
    ns_session_free(want);
    free(ids);
}

/* ---- refusals ---- */

static void refusals(void **state)
{
    (void)state;
    const int prompt[] = { 1, 2, 3, 4, 5, 6, 7, 8 };
    int id, best;
    ns_err e0 = { 0 };
    ns_session *s = session(engine, NULL, 8), *t = session(engine, NULL, 8);
    assert_int_equal(ns_session_context(s), 8);
    assert_null(ns_session_logits(s));
    refused(NS_EINVAL, ns_session_next(s, &id, &e));
    ok(ns_session_feed(s, prompt, 6, &e));
    ok(ns_session_feed(t, prompt, 6, &e));
    refused(NS_EINVAL, ns_session_feed(s, prompt, 3, &e)); /* no room: nothing is taken */
    holds(s, prompt, 6);
    refused(NS_EINVAL, ns_session_feed(s, (const int[]){ 1, VOCAB }, 2, &e));
    refused(NS_EINVAL, ns_session_feed(s, (const int[]){ -1 }, 1, &e));
    holds(s, prompt, 6);
    same_logits(s, t, "after refusals");
    ok(ns_session_next(s, &id, &e));
    ok(ns_session_next(t, &best, &e));
    assert_int_equal(id, best);
    ok(ns_session_next(s, &id, &e)); /* the last place */
    refused(NS_EINVAL, ns_session_next(s, &id, &e));
    refused(NS_EINVAL, ns_session_feed(s, prompt, 1, &e));
    refused(NS_EINVAL, ns_session_sync(s, (const int[]){ 1, 2, 3, 4, 5, 6, 7, 8, 9 }, 9, &e));
    ok(ns_session_sync(s, prompt, 8, &e));
    holds(s, prompt, 8);
    refused(NS_EINVAL, ns_session_sync(s, (const int[]){ 1, 2, VOCAB }, 3, &e));
    assert_null(ns_session_new(engine, &(ns_session_opts){ .size = "galactic" }, &e0));
    assert_int_equal(e0.code, NS_EINVAL);
    assert_non_null(strstr(e0.msg, "galactic"));
    const ns_sampling bad[] = { { .temperature = -1.0, .top_p = 1.0, .repetition_penalty = 1.0 },
                                { .temperature = NAN, .top_p = 1.0, .repetition_penalty = 1.0 },
                                { .temperature = 1.0, .top_p = 0.0, .repetition_penalty = 1.0 },
                                { .temperature = 1.0, .top_p = 1.0, .repetition_penalty = 0.0 },
                                { .temperature = 1.0, .top_p = 1.0, .top_k = -1, .repetition_penalty = 1.0 } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ns_err err = { 0 };
        ns_session *x = ns_session_new(engine, &(ns_session_opts){ .sampling = &bad[i] }, &err);
        if (x)
            fail_msg("sampling options %zu were taken", i);
        assert_int_equal(err.code, NS_EINVAL);
    }
    ns_session *d = ns_session_new(engine, NULL, &e0);
    assert_non_null(d);
    assert_int_equal(ns_session_context(d), 512);
    ns_session_free(d);
    ns_session_free(s);
    ns_session_free(t);
    ns_session_free(NULL);
}

static void print_worst(void **state)
{
    (void)state;
    printf("synced, pieced and cancelled sessions within %.1e of fresh ones\n", worst);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(sizes),
                                        cmocka_unit_test(refused_engines),
                                        cmocka_unit_test(greedy_is_deterministic),
                                        cmocka_unit_test(a_seed_is_a_text),
                                        cmocka_unit_test(any_feeding),
                                        cmocka_unit_test(sync_is_fresh),
                                        cmocka_unit_test(sync_keeps_a_conversation),
                                        cmocka_unit_test(resize_keeps_the_cache),
                                        cmocka_unit_test(resize_by_prefill_is_fresh),
                                        cmocka_unit_test(resize_between_two_tokens),
                                        cmocka_unit_test(resize_refused),
                                        cmocka_unit_test(prefill_mends_a_mixed_cache),
                                        cmocka_unit_test(resize_without_layers),
                                        cmocka_unit_test(marks),
                                        cmocka_unit_test(marks_across_sizes),
                                        cmocka_unit_test(save_and_load),
                                        cmocka_unit_test(save_after_layers_went),
                                        cmocka_unit_test(load_refused),
                                        cmocka_unit_test(cancel),
                                        cmocka_unit_test(refusals),
                                        cmocka_unit_test(print_worst) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
