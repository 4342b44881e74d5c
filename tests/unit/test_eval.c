/* Scoring, tasks, and generation under budgets of thought: on a model that says what the test scripts, and on a random one, where the
 * answers of all budgets in one pass are those of every budget alone. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "eval/eval.h"
#include "eval/score.h"
#include "tensor/format.h"
#include "tiny/tiny.h"

/* ---- scoring ---- */

static void test_wilson(void **state)
{
    (void)state;
    /* from the closed form, worked out with another program */
    static const struct {
        long k, n;
        double lo, hi;
    } want[] = { { 0, 10, 0.0, 0.2775328 }, { 5, 10, 0.2365931, 0.7634069 }, { 10, 10, 0.7224672, 1.0 }, { 1, 1000, 0.0001765, 0.0056426 },
                 { 93, 100, 0.8625049, 0.9656807 }, { 0, 0, 0.0, 1.0 } };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        double lo, hi;
        ns_wilson(want[i].k, want[i].n, &lo, &hi);
        assert_true(fabs(lo - want[i].lo) < 1e-6);
        assert_true(fabs(hi - want[i].hi) < 1e-6);
    }
}

static void check_extract(const char *said, const char *want, bool right)
{
    ns_text t = ns_answer_extract(said, strlen(said));
    assert_int_equal(ns_answer_is(t, want), right);
}

static void test_answers(void **state)
{
    (void)state;
    check_extract("42", "42", true);
    check_extract(" \r\n42\t\n", "42", true);
    check_extract("1+1=2\n</think>\n42\n", "42", true);
    check_extract("a</think>41</think>42", "42", true);
    check_extract("41</think>", "", true);
    check_extract("</think>", "", true);
    check_extract("4 2", "42", false);
    check_extract("421", "42", false);
    check_extract("4", "42", false);
    check_extract("", "42", false);
    check_extract("42 </think", "42", false);
}

/* ---- tasks ---- */

static char *write_task(const char *name, const char *text)
{
    char *path = tiny_path(tiny_base, name);
    assert_int_equal(ns_file_write(path, text, strlen(text), NULL), 0);
    return path;
}

static void test_task(void **state)
{
    (void)state;
    char *path = write_task("good.jsonl",
                            "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", \"content\": \"q\"}, "
                            "{\"role\": \"assistant\", \"content\": \"no\"}], \"answer\": \" 7\\n\", \"kind\": \"k\", \"level\": 3}\n"
                            "  \n{\"question\": \"q2\", \"answer\": \"x y\"}\n{\"question\": \"q3\", \"answer\": \"z\"}");
    ns_task t;
    assert_int_equal(ns_task_open(path, 0, &t, NULL), 0);
    assert_int_equal(t.n, 3);
    assert_int_equal(json_array_size(t.item[0].messages), 2);
    assert_string_equal(t.item[0].answer, "7");
    assert_string_equal(t.item[0].kind, "k");
    assert_int_equal(t.item[0].level, 3);
    assert_string_equal(t.item[1].answer, "x y");
    assert_null(t.item[1].kind);
    assert_int_equal(t.item[1].level, -1);
    ns_task_release(&t);
    assert_int_equal(ns_task_open(path, 2, &t, NULL), 0);
    assert_int_equal(t.n, 2);
    ns_task_release(&t);
    free(path);
}

static void refuse_task(const char *text, const char *why)
{
    char *path = write_task("bad.jsonl", text);
    ns_task t;
    ns_err e = { 0 };
    assert_int_equal(ns_task_open(path, 0, &t, &e), -1);
    assert_non_null(strstr(e.msg, why));
    assert_null(t.item);
    free(path);
}

static void test_bad_tasks(void **state)
{
    (void)state;
    const char *good = "{\"question\": \"q\", \"answer\": \"a\"}\n";
    char text[300];
    static const struct {
        const char *line, *why;
    } bad[] = { { "{\"question\": \"q\"}", "bad.jsonl:2: key \"answer\" is missing" },
                { "{\"question\": \"q\", \"answer\": 7}", "bad.jsonl:2: key \"answer\"" },
                { "{\"question\": \"q\", \"answer\": \" \"}", "is empty" },
                { "{\"answer\": \"a\"}", "expected \"messages\"" },
                { "{\"messages\": [{\"role\": \"assistant\"}], \"answer\": \"a\"}", "asks nothing" },
                { "[1]", "bad.jsonl:2: expected an object" },
                { "{", "bad.jsonl:2: " } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(text, sizeof text, "%s%s\n", good, bad[i].line);
        refuse_task(text, bad[i].why);
    }
    refuse_task("\n \n", "no problem in it");
    ns_task t;
    ns_err e = { 0 };
    assert_int_equal(ns_task_open("/nowhere.jsonl", 0, &t, &e), -1);
    assert_non_null(strstr(e.msg, "/nowhere.jsonl"));
}

/* ---- checkpoints with the bundled text files ---- */

static void copy_text(const char *dir)
{
    static const char *const names[] = { "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja" };
    const char *src = getenv("NS_TEST_SRC");
    char from[600];
    assert_non_null(src);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *to = tiny_path(dir, names[i]);
        snprintf(from, sizeof from, "%s/examples/demo/text/%s", src, names[i]);
        assert_int_equal(ns_file_copy(from, to, NULL), 0);
        free(to);
    }
}

static char *make(const char *name)
{
    tiny_opts o = tiny_defaults();
    char *dir = tiny_path(tiny_base, name);
    o.vocab = 384;
    assert_int_equal(tiny_make(dir, &o), 0);
    copy_text(dir);
    return dir;
}

static ns_engine *open_engine(const char *dir)
{
    ns_err e = { 0 };
    ns_engine *en = ns_engine_open(dir, &(ns_engine_opts){ .n_threads = 1 }, &e);
    if (!en)
        fail_msg("%s", e.msg);
    return en;
}

static int id_of(const ns_engine *en, const char *token)
{
    int *ids;
    size_t n;
    assert_int_equal(ns_engine_tokenize(en, token, strlen(token), true, &ids, &n, NULL), 0);
    assert_int_equal(n, 1);
    int id = ids[0];
    free(ids);
    return id;
}

/* Every mixer gives nothing, and the head answers each token with the one behind it in the script. */
static void script(const char *dir, const ns_engine *en, const char *const (*follows)[2], int n)
{
    enum { H = 64, V = 384 };
    tiny_file f;
    tiny_load(&f, dir);
    for (size_t i = 0; i < f.n; i++)
        if (strstr(f.t[i].name, "out_proj.weight") || strstr(f.t[i].name, "o_proj.weight") || strstr(f.t[i].name, "down_proj.weight"))
            memset(f.t[i].data, 0, f.t[i].bytes);
    const float *embed = (const float *)(const void *)tiny_find(&f, "backbone.embeddings.weight")->data;
    float *head = (float *)(void *)tiny_find(&f, "lm_head.weight")->data;
    memset(head, 0, (size_t)V * H * sizeof *head);
    for (int i = 0; i < n; i++) {
        int from = id_of(en, follows[i][0]), to = id_of(en, follows[i][1]);
        for (int k = 0; k < H; k++)
            head[(size_t)to * H + (size_t)k] += embed[(size_t)from * H + (size_t)k];
    }
    tiny_save(&f, dir);
    tiny_release(&f);
}

/* Behind a line break: abcde</think>xy<|im_end|>. */
static char *scripted(void)
{
    static const char *const follows[][2] = { { "\n", "a" },        { "a", "b" }, { "b", "c" }, { "c", "d" },         { "d", "e" },
                                              { "e", "</think>" }, { "</think>", "x" }, { "x", "y" }, { "y", "<|im_end|>" } };
    char *dir = make("scripted");
    ns_engine *en = open_engine(dir);
    script(dir, en, follows, (int)(sizeof follows / sizeof *follows));
    ns_engine_close(en);
    return dir;
}

/* ---- what generation hands out ---- */

enum { PROMPTS = 7, BUDGETS = 4, LONGEST = 200 };

struct seen {
    int times, n_thought, n_ids, thought[LONGEST], ids[LONGEST];
    bool closed, ended;
};

struct io {
    const ns_engine *en;
    struct seen seen[PROMPTS][BUDGETS];
    const char *mode; /* "think", "off" */
    int stop_after;   /* answers; 0: never */
    volatile sig_atomic_t interrupted;
    int answers;
};

static int give(void *ctx, int i, ns_ids *out, ns_err *e)
{
    const struct io *io = ctx;
    char text[200];
    int *ids;
    size_t n;
    (void)e;
    snprintf(text, sizeof text, "{\"messages\": [{\"role\": \"user\", \"content\": \"%.*s\"}], \"add_generation_prompt\": true, \"enable_thinking\": %s}",
             3 * i + 1, "Compute 12+34*(5-6). And then some more.", strcmp(io->mode, "off") ? "true" : "false");
    assert_int_equal(ns_engine_chat(io->en, text, &ids, &n, NULL), 0);
    ns_ids_append(out, ids, n);
    free(ids);
    return 0;
}

static int receive(void *ctx, const ns_gen_answer *a, ns_err *e)
{
    struct io *io = ctx;
    struct seen *s = &io->seen[a->prompt][a->budget];
    (void)e;
    s->times++;
    s->n_thought = a->n_thought;
    s->n_ids = a->n_ids;
    s->closed = a->closed;
    s->ended = a->ended;
    assert_true(a->n_thought < LONGEST && a->n_ids < LONGEST);
    if (a->n_thought)
        memcpy(s->thought, a->thought, (size_t)a->n_thought * sizeof *a->thought);
    if (a->n_ids)
        memcpy(s->ids, a->ids, (size_t)a->n_ids * sizeof *a->ids);
    if (++io->answers == io->stop_after)
        io->interrupted = 1;
    return 0;
}

static ns_gen_stats generate(struct io *io, const char *size, int batch, const int *budget, int n_budgets)
{
    ns_cut cut;
    char name[64];
    ns_err e = { 0 };
    ns_gen_stats stats;
    const ns_gen_opts o = { .batch = batch, .budget = budget, .n_budgets = n_budgets, .max_answer = 12, .interrupted = &io->interrupted };
    const ns_gen_io g = { .ctx = io, .n_prompts = PROMPTS, .prompt = give, .answer = receive };
    assert_int_equal(ns_engine_cut(io->en, size, 256, &cut, name, sizeof name, NULL), 0);
    if (ns_gen_run(io->en, &cut, &o, &g, &stats, &e) != 0)
        fail_msg("%s", e.msg);
    ns_cut_release(&cut);
    return stats;
}

static void said(const ns_engine *en, const struct seen *s, const char *thought, const char *answer)
{
    ns_buf b = { 0 };
    assert_int_equal(ns_tokenizer_decode(en->tokenizer, s->thought, (size_t)s->n_thought, false, &b, NULL), 0);
    assert_string_equal(b.data ? b.data : "", thought);
    ns_buf_clear(&b);
    assert_int_equal(ns_tokenizer_decode(en->tokenizer, s->ids, (size_t)s->n_ids, false, &b, NULL), 0);
    assert_string_equal(b.data && b.len ? b.data : "", answer);
    ns_buf_release(&b);
}

static void test_script(void **state)
{
    (void)state;
    static const int budget[] = { 3, 5, 6, 100 };
    char *dir = scripted();
    struct io io = { .en = open_engine(dir), .mode = "think" };
    ns_gen_stats stats = generate(&io, "full", 3, budget, BUDGETS);
    for (int i = 0; i < PROMPTS; i++) {
        const struct seen *s = io.seen[i];
        for (int b = 0; b < BUDGETS; b++) {
            assert_int_equal(s[b].times, 1);
            assert_true(s[b].ended);
            assert_int_equal(s[b].closed, b < 2);
        }
        said(io.en, &s[0], "abc", "abcde</think>xy"); /* the closing line break starts the script anew */
        said(io.en, &s[1], "abcde", "abcde</think>xy");
        said(io.en, &s[2], "abcde", "xy");
        said(io.en, &s[3], "abcde", "xy");
    }
    /* thought 5 and its end; two closings of 3 tokens with answers of 8 and a stop; one natural answer of 2 and a stop */
    assert_int_equal(stats.tokens, PROMPTS * (6 + 2 * (3 + 9) + 3));
    struct io off = { .en = io.en, .mode = "off" };
    generate(&off, "full", 2, NULL, 0);
    for (int i = 0; i < PROMPTS; i++)
        said(io.en, &off.seen[i][0], "", "xy");
    ns_engine_close((ns_engine *)(uintptr_t)io.en);
    tiny_remove(dir);
    free(dir);
}

/* One pass under all budgets, in batches, is every budget alone, one prompt at a time; at a size with dropped heads too. */
static void test_together(void **state)
{
    (void)state;
    static const int budget[] = { 2, 9, 10, 33 };
    static const char *const sizes[] = { "full", "hidden=48,mamba_heads=4,expert_ffn=32" };
    char *dir = make("random");
    ns_engine *en = open_engine(dir);
    struct io *all = calloc(1, sizeof *all), *one = calloc(1, sizeof *one);
    for (int k = 0; k < 2; k++) {
        *all = (struct io){ .en = en, .mode = "think" };
        generate(all, sizes[k], 4, budget, BUDGETS);
        for (int b = 0; b < BUDGETS; b++) {
            *one = (struct io){ .en = en, .mode = "think" };
            generate(one, sizes[k], 1, budget + b, 1);
            for (int i = 0; i < PROMPTS; i++)
                assert_memory_equal(&all->seen[i][b], &one->seen[i][0], sizeof one->seen[i][0]);
        }
        assert_int_equal(all->seen[0][3].n_thought, 33); /* a random model does not end its thought */
    }
    assert_int_equal(all->answers, PROMPTS * BUDGETS);
    free(all);
    free(one);
    ns_engine_close(en);
    tiny_remove(dir);
    free(dir);
}

static void test_interruption(void **state)
{
    (void)state;
    static const int budget[] = { 3, 6 };
    char *dir = scripted();
    struct io io = { .en = open_engine(dir), .mode = "think", .stop_after = 3 };
    ns_gen_stats stats = generate(&io, "full", 1, budget, 2);
    assert_true(stats.interrupted);
    assert_int_equal(io.answers, 3);
    ns_engine_close((ns_engine *)(uintptr_t)io.en);
    tiny_remove(dir);
    free(dir);
}

static void refuse(const ns_engine *en, ns_gen_opts o, const char *why)
{
    struct io io = { .en = en, .mode = "think" };
    const ns_gen_io g = { .ctx = &io, .n_prompts = PROMPTS, .prompt = give, .answer = receive };
    ns_cut cut;
    ns_err e = { 0 };
    ns_gen_stats stats;
    assert_int_equal(ns_cut_full(en->model.arch, &cut, NULL), 0);
    assert_int_equal(ns_gen_run(en, &cut, &o, &g, &stats, &e), -1);
    assert_non_null(strstr(e.msg, why));
    ns_cut_release(&cut);
}

static void test_refusals(void **state)
{
    (void)state;
    static const int down[] = { 5, 5 }, zero[] = { 0 }, good[] = { 5 }, long_one[] = { 1 << 20 };
    char *dir = make("random");
    ns_engine *en = open_engine(dir);
    refuse(en, (ns_gen_opts){ .batch = 0, .budget = good, .n_budgets = 1, .max_answer = 4 }, "batch 0");
    refuse(en, (ns_gen_opts){ .batch = 1, .budget = down, .n_budgets = 2, .max_answer = 4 }, "number 1 is 5");
    refuse(en, (ns_gen_opts){ .batch = 1, .budget = zero, .n_budgets = 1, .max_answer = 4 }, "number 0 is 0");
    refuse(en, (ns_gen_opts){ .batch = 1, .budget = good, .n_budgets = 1 }, "at most 0");
    refuse(en, (ns_gen_opts){ .batch = 1, .budget = long_one, .n_budgets = 1, .max_answer = 4 }, "positions");
    ns_engine_close(en);
    tiny_remove(dir);
    free(dir);
}

/* ---- the report ---- */

static json_t *row(const json_t *report, size_t i)
{
    return json_array_get(json_object_get(report, "rows"), i);
}

static void test_report(void **state)
{
    (void)state;
    static const int budgets[] = { NS_EVAL_INF, 3, NS_EVAL_OFF };
    static const char *const sizes[] = { "full", "hidden=64,experts=4" };
    char *dir = scripted(), *out = tiny_path(tiny_base, "results.jsonl");
    char *path = write_task("task.jsonl", "{\"question\": \"p\", \"answer\": \"xy\", \"kind\": \"a\", \"level\": 1}\n"
                                          "{\"question\": \"q\", \"answer\": \"x\", \"kind\": \"a\", \"level\": 2}\n"
                                          "{\"question\": \"r\", \"answer\": \" xy \", \"kind\": \"b\", \"level\": 2}\n");
    ns_engine *en = open_engine(dir);
    ns_task t;
    ns_eval_opts o = ns_eval_defaults();
    ns_buf b = { 0 };
    int lines = 0;
    o.sizes = sizes;
    o.n_sizes = 2;
    o.budgets = budgets;
    o.n_budgets = 3;
    o.max_thought = 50;
    o.answers = out;
    assert_int_equal(ns_task_open(path, 0, &t, NULL), 0);
    ns_err e = { 0 };
    json_t *report = ns_eval_run(en, &t, &o, &e);
    if (!report)
        fail_msg("%s", e.msg);
    assert_int_equal(json_array_size(json_object_get(report, "rows")), 6);
    for (size_t i = 0; i < 6; i++) {
        const json_t *r = row(report, i);
        assert_string_equal(json_string_value(json_object_get(r, "size")), sizes[i / 3]);
        assert_int_equal(json_integer_value(json_object_get(r, "n")), 3);
        assert_int_equal(json_integer_value(json_object_get(r, "correct")), 2);
        assert_int_equal(json_integer_value(json_object_get(r, "closed")), i % 3 == 1 ? 3 : 0);
        assert_true(json_real_value(json_object_get(r, "thinking_tokens")) == (i % 3 == 0 ? 0.0 : i % 3 == 1 ? 3.0 : 5.0));
        assert_int_equal(json_integer_value(json_object_get(json_object_get(json_object_get(r, "kinds"), "a"), "correct")), 1);
        assert_int_equal(json_integer_value(json_object_get(json_object_get(json_object_get(r, "levels"), "2"), "n")), 2);
    }
    assert_string_equal(json_string_value(json_object_get(row(report, 0), "budget")), "off");
    assert_int_equal(json_integer_value(json_object_get(row(report, 1), "budget")), 3);
    assert_string_equal(json_string_value(json_object_get(row(report, 2), "budget")), "inf");
    json_decref(report);
    assert_int_equal(ns_file_read(out, 1 << 20, &b, NULL), 0);
    for (char *at = b.data; (at = strchr(at, '\n')); at++)
        lines++;
    assert_int_equal(lines, 18);
    assert_non_null(strstr(b.data, "\"thought\":\"abcde\""));
    ns_buf_release(&b);

    static const int twice[] = { 5, 5 }, far[] = { 50 };
    o.answers = NULL;
    o.budgets = twice;
    o.n_budgets = 2;
    assert_null(ns_eval_run(en, &t, &o, &e));
    assert_non_null(strstr(e.msg, "given twice"));
    e = (ns_err){ 0 };
    o.budgets = far;
    o.n_budgets = 1;
    assert_null(ns_eval_run(en, &t, &o, &e));
    assert_non_null(strstr(e.msg, "thoughts end at 50"));
    ns_task_release(&t);
    ns_engine_close(en);
    tiny_remove(dir);
    free(dir);
    free(out);
    free(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wilson),    cmocka_unit_test(test_answers),      cmocka_unit_test(test_task),
        cmocka_unit_test(test_bad_tasks), cmocka_unit_test(test_script),       cmocka_unit_test(test_together),
        cmocka_unit_test(test_interruption), cmocka_unit_test(test_refusals),  cmocka_unit_test(test_report),
    };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
