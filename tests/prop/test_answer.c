/* Answers by a plan: what holds for every budget, handover and size, alone and in batches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "eval/generate.h"
#include "prop/prop.h"
#include "run/answer.h"

static const char nest[] = "{\"version\": 1, \"variants\": [{\"name\": \"whole\"},"
                           "{\"name\": \"small\", \"cut\": {\"hidden\": 48, \"expert_ffn\": 32}},"
                           "{\"name\": \"tight\", \"cut\": {\"hidden\": 48, \"mamba_heads\": 4}}]}";

enum { VOCAB = 384, MOST = 700 };

static ns_engine *engine; /* of one thread */

static int setup(void **state)
{
    static const char *const names[] = { "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja" };
    tiny_opts o = tiny_defaults();
    char from[600];
    const char *src = getenv("NS_TEST_SRC");
    if (tiny_setup(state) != 0 || !src)
        return -1;
    char *dir = tiny_path(tiny_base, "model");
    o.vocab = VOCAB;
    o.nest = nest;
    int rc = tiny_make(dir, &o);
    for (size_t i = 0; rc == 0 && i < sizeof names / sizeof *names; i++) {
        char *to = tiny_path(dir, names[i]);
        snprintf(from, sizeof from, "%s/examples/demo/text/%s", src, names[i]);
        rc = ns_file_copy(from, to, NULL);
        free(to);
    }
    engine = rc == 0 ? ns_engine_open(dir, &(ns_engine_opts){ .n_threads = 1 }, NULL) : NULL;
    free(dir);
    return engine ? 0 : -1;
}

static int teardown(void **state)
{
    ns_engine_close(engine);
    return tiny_teardown(state);
}

/* ---- one run ---- */

static const ns_sampling greedy = { .temperature = 0.0, .top_p = 1.0, .repetition_penalty = 1.0 };

static void prompt(int i, bool think, int **ids, size_t *n)
{
    char text[200];
    snprintf(text, sizeof text, "{\"messages\": [{\"role\": \"user\", \"content\": \"%.*s\"}], \"add_generation_prompt\": true, \"enable_thinking\": %s}",
             3 * i + 1, "Compute 12+34*(5-6). And then some more.", think ? "true" : "false");
    assert_int_equal(ns_engine_chat(engine, text, ids, n, NULL), 0);
}

typedef struct result {
    int ids[MOST], n;
    ns_answer_info info;
    float logits[VOCAB];
    enum ns_handover handover;
} result;

static result answer(int which, const ns_answer_opts *o, const ns_sampling *sampling, const ns_answer_clock *clock)
{
    static result r;
    ns_err e = { 0 };
    int *ids, id = 0;
    size_t n;
    ns_sampling sa = sampling ? *sampling : greedy;
    sa.seed += (uint64_t)which;
    ns_session *s = ns_session_new(engine, &(ns_session_opts){ .context = 700, .sampling = &sa }, &e);
    ns_answer *a = s ? ns_answer_new_at(s, o, clock, &e) : NULL;
    if (!a)
        fail_msg("%s", e.msg);
    prompt(which, true, &ids, &n);
    assert_int_equal(ns_session_feed(s, ids, n, &e), 0);
    memset(&r, 0, sizeof r);
    while (id >= 0) {
        if (ns_answer_next(a, &id, &e) != 0)
            fail_msg("%s", e.msg);
        if (id >= 0 && r.n < MOST)
            r.ids[r.n++] = id;
    }
    r.info = ns_answer_about(a);
    r.handover = ns_session_stats(s).handover;
    memcpy(r.logits, ns_session_logits(s), sizeof r.logits);
    assert_non_null(r.info.end);
    free(ids);
    ns_answer_free(a);
    ns_session_free(s);
    return r;
}

/* A session at a size that has read a prompt and more, at most `chunk` of it at once. */
static ns_session *fresh(const char *size, int which, const int *more, int n_more, int chunk)
{
    ns_err e = { 0 };
    int *ids;
    size_t n;
    ns_session *s = ns_session_new(engine, &(ns_session_opts){ .size = size, .context = 700, .sampling = &greedy }, &e);
    assert_non_null(s);
    prompt(which, true, &ids, &n);
    if (chunk == 0) { /* all at once */
        ids = realloc(ids, (n + (size_t)n_more) * sizeof *ids);
        assert_non_null(ids);
        memcpy(ids + n, more, (size_t)n_more * sizeof *ids);
        n += (size_t)n_more;
    }
    assert_int_equal(ns_session_feed(s, ids, n, &e), 0);
    for (int at = 0; chunk && at < n_more; at += chunk)
        assert_int_equal(ns_session_feed(s, more + at, (size_t)(n_more - at < chunk ? n_more - at : chunk), &e), 0);
    free(ids);
    return s;
}

static void goes_on_as(const result *r, int from, ns_session *s)
{
    for (int i = from; i < r->n; i++) {
        int id;
        assert_int_equal(ns_session_next(s, &id, NULL), 0);
        assert_int_equal(id, r->ids[i]);
    }
    prop_same(ns_session_logits(s), r->logits, VOCAB, "logits at the end");
    ns_session_free(s);
}

static const int *closing(size_t *n)
{
    static int out[16];
    int *ids;
    assert_int_equal(ns_engine_tokenize(engine, "\n</think>\n", 10, true, &ids, n, NULL), 0);
    assert_true(*n <= 16);
    memcpy(out, ids, *n * sizeof *ids);
    free(ids);
    return out;
}

static bool has_break(int id, bool at_end)
{
    const char *p;
    size_t n;
    return ns_engine_token_bytes(engine, id, &p, &n) == 0 && n && (at_end ? p[n - 1] == '\n' : memchr(p, '\n', n) != NULL);
}

/* ---- properties ---- */

/* The text that closes is what the bundled template writes between a thought and an answer. */
static void test_close_text(void **state)
{
    (void)state;
    ns_buf b = { 0 };
    assert_int_equal(ns_engine_close_text(engine, &b, NULL), 0);
    assert_string_equal(b.data, "\n</think>\n");
    ns_buf_release(&b);
}

static void test_one_size(void **state)
{
    (void)state;
    static const ns_segment all[] = { { NS_PHASE_ALL, 0, "small" } };
    for (int i = 0; i < 4; i++) {
        result r = answer(i, &(ns_answer_opts){ .segment = all, .n_segments = 1, .max_tokens = 40, .ignore_stop = true }, NULL, NULL);
        assert_int_equal(r.n, 40);
        assert_string_equal(r.info.end, "length");
        goes_on_as(&r, 0, fresh("small", i, NULL, 0, 1));
    }
}

/* Never a token more than the budget and its grace, never closed early, always an answer. */
static void test_budgets(void **state)
{
    (void)state;
    static const int budgets[] = { 1, 2, 5, 17, 60 }, graces[] = { 0, 1, 9, 40 };
    ns_sampling hot = { .temperature = 2.0, .top_p = 1.0, .repetition_penalty = 1.0 };
    size_t n_close;
    const int *close = closing(&n_close);
    int at_line = 0, hard = 0;
    for (int i = 0; i < 4; i++)
        for (int b = 0; b < 5; b++)
            for (int g = 0; g < 4; g++) {
                int budget = budgets[b], grace = graces[g];
                hot.seed += 1000; /* another thought each time */
                result r = answer(i, &(ns_answer_opts){ .think_budget = budget, .grace = grace, .answer_tokens = 8, .ignore_stop = true }, &hot, NULL);
                int n = r.info.thought;
                assert_int_equal(r.info.answer, 8);
                assert_true(n <= budget + grace);
                if (!r.info.closed) /* the model did */
                    continue;
                assert_true(n >= budget);
                for (int k = budget; k < n; k++) /* nowhere to stop before */
                    assert_false(has_break(r.ids[k - 1], false));
                assert_true(n == budget + grace || has_break(r.ids[n - 1], false));
                size_t skip = has_break(r.ids[n - 1], true) ? 1 : 0; /* the line break of the closing text */
                assert_memory_equal(r.ids + n, close + skip, (n_close - skip) * sizeof *close);
                assert_int_equal(r.n, n + (int)(n_close - skip) + 8);
                at_line += n < budget + grace;
                hard += n == budget + grace;
            }
    assert_true(at_line > 0 && hard > 0);
}

static void test_no_thought(void **state)
{
    (void)state;
    size_t n_close;
    const int *close = closing(&n_close);
    result r = answer(1, &(ns_answer_opts){ .think_budget = NS_THINK_NONE, .grace = 30, .answer_tokens = 5, .ignore_stop = true }, NULL, NULL);
    assert_int_equal(r.info.thought, 0);
    assert_int_equal(r.info.answer, 5);
    assert_memory_equal(r.ids, close + 1, (n_close - 1) * sizeof *close); /* the prompt ended with a line */
    assert_int_equal(r.n, 5 + (int)n_close - 1);
}

static void test_seeds(void **state)
{
    (void)state;
    static const ns_segment plan[] = { { NS_PHASE_THINK, 0, "small" }, { NS_PHASE_ANSWER, 0, "full" } };
    const ns_answer_opts o = { .segment = plan, .n_segments = 2, .think_budget = 20, .answer_tokens = 20, .ignore_stop = true };
    ns_sampling hot = { .temperature = 1.5, .top_p = 0.95, .repetition_penalty = 1.0, .seed = 3 };
    result a = answer(0, &o, &hot, NULL), b = answer(0, &o, &hot, NULL);
    assert_int_equal(a.n, b.n);
    assert_memory_equal(a.ids, b.ids, sizeof a.ids);
    hot.seed = 4;
    b = answer(0, &o, &hot, NULL);
    assert_memory_not_equal(a.ids, b.ids, sizeof a.ids);
}

static void test_handovers(void **state)
{
    (void)state;
    static const char *const pairs[][2] = { { "small", "full" }, { "full", "tight" }, { "tight", "small" } };
    for (int p = 0; p < 3; p++) {
        const ns_segment plan[] = { { NS_PHASE_THINK, 0, pairs[p][0] }, { NS_PHASE_ANSWER, 0, pairs[p][1] } };
        ns_answer_opts o = { .segment = plan, .n_segments = 2, .think_budget = 150, .answer_tokens = 10, .ignore_stop = true,
                             .handover = NS_HANDOVER_PREFILL };
        result r = answer(p, &o, NULL, NULL);
        int from = r.n - 10;
        assert_int_equal(r.handover, NS_HANDOVER_PREFILL);
        goes_on_as(&r, from, fresh(pairs[p][1], p, r.ids, from, 0)); /* as if it had always been the answer's size */
        o.handover = NS_HANDOVER_LATE;
        result late = answer(p, &o, NULL, NULL);
        assert_int_equal(late.handover, NS_HANDOVER_LATE);
        assert_memory_equal(late.ids, r.ids, sizeof r.ids);
        prop_same(late.logits, r.logits, VOCAB, "late and prefill");
        o.handover = NS_HANDOVER_AUTO; /* nobody said that the cache may be kept */
        assert_int_equal(answer(p, &o, NULL, NULL).handover, NS_HANDOVER_PREFILL);
    }
    const ns_segment same[] = { { NS_PHASE_THINK, 0, "whole" }, { NS_PHASE_ANSWER, 0, "full" } };
    ns_answer_opts o = { .segment = same, .n_segments = 2, .think_budget = 30, .answer_tokens = 10, .ignore_stop = true,
                         .handover = NS_HANDOVER_CACHE };
    result r = answer(0, &o, NULL, NULL);
    o.segment = NULL;
    o.n_segments = 0;
    result plain = answer(0, &o, NULL, NULL);
    assert_memory_equal(r.ids, plain.ids, sizeof r.ids);
    prop_same(r.logits, plain.logits, VOCAB, "the cache handed to the same cut");
}

/* Wherever the change comes, and so whatever is left over for it: around multiples of the scan's chunk and of a step's tokens. */
static void test_late_anywhere(void **state)
{
    (void)state;
    static const ns_segment plan[] = { { NS_PHASE_THINK, 0, "small" }, { NS_PHASE_ANSWER, 0, "full" } };
    int *ids;
    size_t n;
    prompt(1, true, &ids, &n);
    free(ids);
    for (int k = 64; k <= NS_STEP_TOKENS; k *= 2)
        for (int budget = k - (int)n - 6; budget < k - (int)n + 6; budget++) {
            ns_answer_opts o = { .segment = plan, .n_segments = 2, .think_budget = budget, .answer_tokens = 3, .ignore_stop = true,
                                 .handover = NS_HANDOVER_LATE };
            if (budget < 1)
                continue;
            result late = answer(1, &o, NULL, NULL);
            o.handover = NS_HANDOVER_PREFILL;
            result at_once = answer(1, &o, NULL, NULL);
            assert_memory_equal(late.ids, at_once.ids, sizeof late.ids);
            prop_same(late.logits, at_once.logits, VOCAB, "late and prefill");
        }
}

/* With threads to spare a late handover reads beside the thought. What comes out is the same, whenever it got how far. */
static void test_late_beside(void **state)
{
    (void)state;
    static const int budgets[] = { 5, 63, 64, 65, 130, 190 };
    static const ns_segment plan[] = { { NS_PHASE_THINK, 0, "small" }, { NS_PHASE_THINK, 10, "tight" }, { NS_PHASE_ANSWER, 0, "full" } };
    ns_engine *one = engine;
    for (int threads = 2; threads < 6; threads += 3)
        for (size_t i = 0; i < sizeof budgets / sizeof *budgets; i++) {
            ns_answer_opts o = { .segment = plan, .n_segments = 3, .think_budget = budgets[i], .answer_tokens = 10, .ignore_stop = true,
                                 .handover = NS_HANDOVER_LATE };
            result alone = answer((int)i, &o, NULL, NULL);
            o.handover = NS_HANDOVER_PREFILL;
            result at_once = answer((int)i, &o, NULL, NULL);
            o.handover = NS_HANDOVER_LATE;
            assert_memory_equal(alone.ids, at_once.ids, sizeof alone.ids);
            prop_same(alone.logits, at_once.logits, VOCAB, "late and prefill");
            engine = ns_engine_open(one->ckpt->dir, &(ns_engine_opts){ .n_threads = threads }, NULL);
            assert_non_null(engine);
            for (int again = 0; again < 3; again++) {
                result beside = answer((int)i, &o, NULL, NULL);
                assert_int_equal(beside.n, alone.n);
                assert_memory_equal(beside.ids, alone.ids, sizeof alone.ids);
                prop_same(beside.logits, alone.logits, VOCAB, "read beside the thought");
            }
            ns_engine_close(engine);
            engine = one;
        }
}

/* An answer that is given up, and one that is cancelled, while another size reads beside it: what the session has read stays good. */
static void test_late_given_up(void **state)
{
    (void)state;
    static const ns_segment plan[] = { { NS_PHASE_THINK, 0, "small" }, { NS_PHASE_ANSWER, 0, "full" } };
    const ns_answer_opts o = { .segment = plan, .n_segments = 2, .think_budget = 300, .answer_tokens = 10, .ignore_stop = true,
                               .handover = NS_HANDOVER_LATE };
    ns_engine *one = engine;
    engine = ns_engine_open(one->ckpt->dir, &(ns_engine_opts){ .n_threads = 3 }, NULL);
    assert_non_null(engine);
    for (int at = 1; at < 150; at += 37) {
        ns_err e = { 0 };
        int *ids, id = 0, seen[200];
        size_t n;
        ns_session *s = ns_session_new(engine, &(ns_session_opts){ .context = 700, .sampling = &greedy }, &e);
        ns_answer *a = ns_answer_new(s, &o, &e);
        assert_non_null(a);
        prompt(2, true, &ids, &n);
        assert_int_equal(ns_session_feed(s, ids, n, &e), 0);
        for (int i = 0; i < at; i++) {
            assert_int_equal(ns_answer_next(a, &id, &e), 0);
            seen[i] = id;
        }
        ns_answer_free(a);
        result rest = { .n = 0 };
        for (int i = 0; i < 5; i++)
            assert_int_equal(ns_session_next(s, &rest.ids[rest.n++], &e), 0);
        memcpy(rest.logits, ns_session_logits(s), sizeof rest.logits);
        goes_on_as(&rest, 0, fresh("small", 2, seen, at, 1));
        ns_session_free(s);
        free(ids);
    }
    ns_engine_close(engine);
    engine = one;
}

/* What auto comes to is the checkpoint's to say, and goes through nest.json and back. */
static void test_auto(void **state)
{
    (void)state;
    static const struct {
        const char *says;
        enum ns_handover same_shape;
    } c[] = { { "", NS_HANDOVER_PREFILL }, { "\"handover\": \"prefill\", ", NS_HANDOVER_PREFILL },
              { "\"handover\": \"cache\", ", NS_HANDOVER_CACHE } };
    char text[500], *dir = tiny_path(tiny_base, "model"), *path = tiny_path(tiny_base, "auto.json");
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        ns_err e = { 0 };
        ns_cut full, small, tight;
        char name[64];
        enum ns_handover how;
        snprintf(text, sizeof text, "{%s%s", c[i].says, nest + 1);
        assert_int_equal(ns_file_write(path, text, strlen(text), &e), 0);
        ns_engine *en = ns_engine_open(dir, &(ns_engine_opts){ .nest_path = path, .n_threads = 1 }, &e);
        if (!en)
            fail_msg("%s", e.msg);
        ns_engine_cut(en, "full", 9, &full, name, sizeof name, &e);
        ns_engine_cut(en, "small", 9, &small, name, sizeof name, &e);
        ns_engine_cut(en, "tight", 9, &tight, name, sizeof name, &e);
        assert_int_equal(ns_engine_handover(en, &full, &small, NS_HANDOVER_AUTO, &how, &e), 0);
        assert_int_equal(how, c[i].same_shape);
        assert_int_equal(ns_engine_handover(en, &full, &tight, NS_HANDOVER_AUTO, &how, &e), 0);
        assert_int_equal(how, NS_HANDOVER_PREFILL);
        assert_int_equal(ns_engine_handover(en, &full, &tight, NS_HANDOVER_CACHE, &how, &e), -1);
        e = (ns_err){ 0 };
        json_t *back = ns_variants_json(en->model.arch, &en->ckpt->variants, &e);
        const char *said = json_string_value(json_object_get(back, "handover"));
        assert_true(c[i].says[0] ? said && strstr(c[i].says, said) : !said);
        json_decref(back);
        ns_cut_release(&full);
        ns_cut_release(&small);
        ns_cut_release(&tight);
        ns_engine_close(en);
    }
    free(dir);
    free(path);
}

/* Three sizes in one answer, the thought's last tokens among them. */
static void test_schedule(void **state)
{
    (void)state;
    static const ns_segment plan[] = { { NS_PHASE_THINK, 0, "small" }, { NS_PHASE_THINK, -10, "tight" }, { NS_PHASE_ANSWER, 0, "full" } };
    ns_answer_opts o = { .segment = plan, .n_segments = 3, .think_budget = 30, .answer_tokens = 10, .ignore_stop = true,
                         .handover = NS_HANDOVER_PREFILL };
    result r = answer(2, &o, NULL, NULL);
    assert_int_equal(r.info.thought, 30);
    int from = r.n - 10;
    ns_session *s = fresh("small", 2, NULL, 0, 1), *t = fresh("tight", 2, r.ids, 20, 0);
    for (int i = 0; i < 30; i++) {
        int id;
        assert_int_equal(ns_session_next(i < 20 ? s : t, &id, NULL), 0);
        assert_int_equal(id, r.ids[i]);
    }
    ns_session_free(s);
    ns_session_free(t);
    goes_on_as(&r, from, fresh("full", 2, r.ids, from, 0));
}

/* ---- batches ---- */

enum { PROMPTS = 5, BUDGETS = 4 };

struct io {
    result got[PROMPTS][BUDGETS]; /* ids: thought and answer in a row */
    int times[PROMPTS][BUDGETS];
};

static int give(void *ctx, int i, ns_ids *out, ns_err *e)
{
    int *ids;
    size_t n;
    (void)ctx;
    (void)e;
    prompt(i, true, &ids, &n);
    ns_ids_append(out, ids, n);
    free(ids);
    return 0;
}

static int receive(void *ctx, const ns_gen_answer *a, ns_err *e)
{
    struct io *io = ctx;
    result *r = &io->got[a->prompt][a->budget];
    (void)e;
    assert_true(a->n_thought + a->n_ids <= MOST);
    memcpy(r->ids, a->thought, (size_t)a->n_thought * sizeof *r->ids);
    memcpy(r->ids + a->n_thought, a->ids, (size_t)a->n_ids * sizeof *r->ids);
    r->info = (ns_answer_info){ .thought = a->n_thought, .answer = a->n_ids, .closed = a->closed };
    io->times[a->prompt][a->budget]++;
    return 0;
}

static void compare_batch(const char *think, const char *says, enum ns_handover how, int grace, const ns_sampling *sampling)
{
    static const int budget[BUDGETS] = { 3, 9, 10, 33 };
    const ns_segment plan[] = { { NS_PHASE_ALL, 0, think }, { NS_PHASE_ANSWER, 0, says } };
    struct io *io = calloc(1, sizeof *io);
    ns_cut cut, other;
    char name[64];
    ns_gen_stats stats;
    ns_err e = { 0 };
    assert_int_equal(ns_engine_cut(engine, think, 100, &cut, name, sizeof name, &e), 0);
    assert_int_equal(ns_engine_cut(engine, says, 100, &other, name, sizeof name, &e), 0);
    const ns_gen_opts o = { .batch = 3, .answer = &other, .handover = how, .budget = budget, .n_budgets = BUDGETS, .grace = grace,
                            .max_answer = 12, .sampling = sampling };
    const ns_gen_io g = { .ctx = io, .n_prompts = PROMPTS, .prompt = give, .answer = receive };
    if (ns_gen_run(engine, &cut, &o, &g, &stats, &e) != 0)
        fail_msg("%s", e.msg);
    for (int i = 0; i < PROMPTS; i++)
        for (int b = 0; b < BUDGETS; b++) {
            const result *got = &io->got[i][b];
            result want = answer(i, &(ns_answer_opts){ .segment = plan, .n_segments = 2, .handover = how, .think_budget = budget[b], .grace = grace,
                                                       .answer_tokens = 12 }, sampling, NULL);
            int n = want.n - (strcmp(want.info.end, "stop") == 0);
            assert_int_equal(io->times[i][b], 1);
            assert_int_equal(got->info.thought, want.info.thought);
            assert_int_equal(got->info.answer, want.info.answer);
            assert_int_equal(got->info.closed, want.info.closed);
            assert_memory_equal(got->ids, want.ids, (size_t)want.info.thought * sizeof *want.ids);
            assert_memory_equal(got->ids + got->info.thought, want.ids + n - want.info.answer, (size_t)want.info.answer * sizeof *want.ids);
        }
    ns_cut_release(&cut);
    ns_cut_release(&other);
    free(io);
}

/* All budgets in one pass, in batches, at two sizes: each answer is the session's alone. */
static void test_batches(void **state)
{
    (void)state;
    const ns_sampling hot = { .temperature = 1.5, .top_p = 0.95, .repetition_penalty = 1.1, .seed = 11 };
    for (int i = 0; i < 4; i++) {
        const ns_sampling *sa = i % 2 ? &hot : NULL;
        int grace = i / 2 ? 6 : 0;
        compare_batch("full", "full", NS_HANDOVER_AUTO, grace, sa);
        compare_batch("small", "full", NS_HANDOVER_CACHE, grace, sa);
        compare_batch("small", "full", NS_HANDOVER_PREFILL, grace, sa);
        compare_batch("full", "tight", NS_HANDOVER_AUTO, grace, sa);
    }
}

/* ---- deadlines ---- */

/* A clock that runs by tokens: 20 ms at "small", 50 at the others; read text at a tenth. */
static double token_time(void *ctx, const char *size, int tokens)
{
    double *t = ctx, step = size && strcmp(size, "small") == 0 ? 0.02 : 0.05;
    *t += tokens * (tokens > 1 ? step / 10 : step);
    return *t;
}

static void test_deadline(void **state)
{
    (void)state;
    static const ns_segment plan[] = { { NS_PHASE_ALL, 0, "small" }, { NS_PHASE_ANSWER, 0, "full" } };
    static const enum ns_handover how[] = { NS_HANDOVER_PREFILL, NS_HANDOVER_CACHE, NS_HANDOVER_LATE };
    for (int i = 0; i < 3; i++) {
        double t = 100.0;
        const ns_answer_clock clock = { .ctx = &t, .now = token_time };
        ns_answer_opts o = { .segment = plan, .n_segments = 2, .handover = how[i], .deadline = 6.0, .answer_tokens = 40, .ignore_stop = true };
        result r = answer(0, &o, NULL, &clock);
        assert_true(r.info.closed);
        assert_int_equal(r.info.answer, 40);
        assert_string_equal(r.info.end, "length");
        assert_true(t <= 106.0 && t > 105.0); /* in time, and the time is used */
        o.deadline = 0.6;                     /* measuring takes most of it: the answer begins at once and is cut */
        t = 100.0;
        r = answer(0, &o, NULL, &clock);
        assert_string_equal(r.info.end, "deadline");
        assert_true(r.info.thought <= 1 && r.info.answer < 40);
        assert_true(t <= 100.6);
        o.deadline = 1000.0; /* a budget is still a budget */
        o.think_budget = 7;
        r = answer(0, &o, NULL, &clock);
        assert_int_equal(r.info.thought, 7);
    }
    double t = 0.0;
    const ns_answer_clock clock = { .ctx = &t, .now = token_time };
    ns_err e = { 0 };
    ns_session *s = ns_session_new(engine, &(ns_session_opts){ .context = 400 }, &e);
    ns_answer *a = ns_answer_new_at(s, &(ns_answer_opts){ .deadline = 60.0, .answer_tokens = 100 }, &clock, &e);
    assert_non_null(a); /* there is time for everything: the widest */
    assert_string_equal(ns_answer_size(a, NS_PHASE_THINK), "full");
    assert_string_equal(ns_answer_size(a, NS_PHASE_ANSWER), "full");
    ns_answer_free(a);
    a = ns_answer_new_at(s, &(ns_answer_opts){ .deadline = 6.0, .answer_tokens = 100 }, &clock, &e);
    assert_non_null(a); /* for little */
    assert_string_equal(ns_answer_size(a, NS_PHASE_ANSWER), "small");
    ns_answer_free(a);
    ns_session_free(s);
}

/* ---- refusals ---- */

static void refuse(ns_answer_opts o, const char *why)
{
    ns_err e = { 0 };
    ns_session *s = ns_session_new(engine, NULL, &e);
    assert_null(ns_answer_new(s, &o, &e));
    if (!strstr(e.msg, why))
        fail_msg("\"%s\" instead of \"%s\"", e.msg, why);
    ns_session_free(s);
}

static void test_refusals(void **state)
{
    (void)state;
    static const ns_segment last[] = { { NS_PHASE_THINK, -5, "small" } }, nowhere[] = { { NS_PHASE_ALL, 0, "huge" } };
    refuse((ns_answer_opts){ .segment = last, .n_segments = 1 }, "only a thought with a budget");
    refuse((ns_answer_opts){ .segment = nowhere, .n_segments = 1 }, "huge");
    refuse((ns_answer_opts){ .close = "done." }, "has no </think> in it");
    refuse((ns_answer_opts){ .think_budget = -2 }, "below 0");
    refuse((ns_answer_opts){ .grace = -1 }, "below 0");
    refuse((ns_answer_opts){ .n_segments = 17 }, "at most 16");
    ns_err e = { 0 };
    char *dir = tiny_path(tiny_base, "model");
    ns_engine *en = ns_engine_open(dir, &(ns_engine_opts){ .no_text = true }, &e);
    ns_session *s = ns_session_new(en, NULL, &e);
    assert_null(ns_answer_new(s, &(ns_answer_opts){ .think_budget = 5 }, &e));
    assert_non_null(strstr(e.msg, "no tokenizer with a token </think>"));
    ns_session_free(s);
    ns_engine_close(en);
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_close_text), cmocka_unit_test(test_one_size),  cmocka_unit_test(test_budgets),  cmocka_unit_test(test_no_thought),
        cmocka_unit_test(test_seeds),      cmocka_unit_test(test_handovers), cmocka_unit_test(test_late_anywhere), cmocka_unit_test(test_late_beside), cmocka_unit_test(test_late_given_up), cmocka_unit_test(test_auto), cmocka_unit_test(test_schedule), cmocka_unit_test(test_batches),
        cmocka_unit_test(test_deadline),   cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
