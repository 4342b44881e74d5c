/* Results in SQLite: a run that was stopped, by interruption or by a kill, and taken up again reports what a run in one go does; intervals
 * and pass@k. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/file.h"
#include "eval/eval.h"
#include "eval/fingerprint.h"
#include "eval/results.h"
#include "eval/score.h"
#include "tiny/tiny.h"

/* ---- figures ---- */

static void test_pass_at(void **state)
{
    (void)state;
    assert_true(fabs(ns_pass_at(10, 3, 1) - 0.3) < 1e-12);
    assert_true(fabs(ns_pass_at(10, 3, 2) - (1.0 - 42.0 / 90.0)) < 1e-12); /* 7 * 6 / (10 * 9) */
    assert_true(fabs(ns_pass_at(4, 2, 4) - 1.0) < 1e-12);
    assert_true(ns_pass_at(8, 0, 8) == 0.0);
    /* over all subsets of 3 of 6 answers, 2 of them right */
    int hit = 0, all = 0;
    for (int m = 0; m < 64; m++)
        if (__builtin_popcount((unsigned)m) == 3) {
            all++;
            hit += (m & 3) != 0;
        }
    assert_true(fabs(ns_pass_at(6, 2, 3) - (double)hit / all) < 1e-12);
}

static void test_clustered(void **state)
{
    (void)state;
    double lo, hi, a, b;
    /* every problem all right or all wrong: answers say no more than problems do */
    ns_wilson_clustered(0.5, 0.25 * 20 / 19, 20, 80, &lo, &hi);
    ns_wilson(10, 20, &a, &b);
    assert_true(fabs(lo - a) < 1e-9 && fabs(hi - b) < 1e-9);
    /* every problem half right: as good as independent answers */
    ns_wilson_clustered(0.5, 0.0, 20, 80, &lo, &hi);
    ns_wilson(40, 80, &a, &b);
    assert_true(fabs(lo - a) < 1e-9 && fabs(hi - b) < 1e-9);
    /* between them */
    ns_wilson_clustered(0.5, 0.1, 20, 80, &lo, &hi);
    double n = 0.25 * 20 / 0.1, z = 1.959963984540054;
    assert_true(fabs((hi + lo) / 2 - 0.5) < 1e-9 && fabs((hi - lo) / 2 - z * sqrt(0.25 / n + z * z / (4 * n * n)) / (1 + z * z / n)) < 1e-9);
    ns_wilson_clustered(1.0, 0.0, 20, 80, &lo, &hi); /* all right: of 20 problems, not of 80 answers */
    ns_wilson(20, 20, &a, &b);
    assert_true(fabs(lo - a) < 1e-9 && hi == 1.0);
}

/* ---- runs ---- */

struct setting {
    char *dir, *task_path, *db, *jsonl;
    ns_task task;
    ns_engine *en;
    volatile sig_atomic_t interrupted;
    int stop_after, seen, kill;
};

static void setting_open(struct setting *s)
{
    static const char *const names[] = { "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja" };
    tiny_opts o = tiny_defaults();
    char from[600];
    ns_buf text = { 0 };
    ns_err e = { 0 };
    *s = (struct setting){ .dir = tiny_path(tiny_base, "model"), .task_path = tiny_path(tiny_base, "task.jsonl"), .db = tiny_path(tiny_base, "r.db"),
                           .jsonl = tiny_path(tiny_base, "r.jsonl") };
    o.vocab = 384;
    assert_int_equal(tiny_make(s->dir, &o), 0);
    for (size_t i = 0; i < 4; i++) {
        char *to = tiny_path(s->dir, names[i]);
        snprintf(from, sizeof from, "%s/examples/demo/text/%s", getenv("NS_TEST_SRC"), names[i]);
        assert_int_equal(ns_file_copy(from, to, NULL), 0);
        free(to);
    }
    for (int i = 0; i < 9; i++)
        ns_buf_addf(&text, "{\"question\": \"Compute %d+%d.\", \"answer\": \"%d\", \"kind\": \"k%d\", \"level\": %d}\n", i, i * i, i, i % 2, i % 3);
    assert_int_equal(ns_file_write(s->task_path, text.data, text.len, NULL), 0);
    ns_buf_release(&text);
    assert_int_equal(ns_task_open(s->task_path, 0, &s->task, NULL), 0);
    s->en = ns_engine_open(s->dir, &(ns_engine_opts){ .n_threads = 1 }, &e);
    if (!s->en)
        fail_msg("%s", e.msg);
}

static void setting_close(struct setting *s)
{
    ns_engine_close(s->en);
    ns_task_release(&s->task);
    remove(s->db);
    tiny_remove(s->dir);
    free(s->dir);
    free(s->task_path);
    free(s->db);
    free(s->jsonl);
}

static void progress(void *ctx, const ns_eval_progress *p)
{
    struct setting *s = ctx;
    assert_true(p->done <= p->total);
    if (++s->seen != s->stop_after)
        return;
    if (s->kill)
        raise(SIGKILL);
    s->interrupted = 1;
}

static json_t *run(struct setting *s, const char *db, const char *jsonl, int samples, int stop_after)
{
    static const int budgets[] = { 0, 3, NS_EVAL_INF };
    static const char *const sizes[] = { "full", "hidden=48,expert_ffn=32" };
    const ns_sampling sampling = { .temperature = 1.0, .top_p = 1.0, .repetition_penalty = 1.0, .seed = 5 };
    ns_eval_opts o = ns_eval_defaults();
    ns_err e = { 0 };
    o.sizes = sizes;
    o.n_sizes = 2;
    o.budgets = budgets;
    o.n_budgets = 3;
    o.batch = 4;
    o.max_thought = 12;
    o.max_answer = 5;
    o.samples = samples;
    o.sampling = samples > 1 ? &sampling : NULL;
    o.results = db;
    o.answers = jsonl;
    o.interrupted = &s->interrupted;
    o.progress = progress;
    o.progress_ctx = s;
    s->interrupted = 0;
    s->seen = 0;
    s->stop_after = stop_after;
    json_t *report = ns_eval_run(s->en, &s->task, &o, &e), *row;
    size_t i;
    if (!report)
        fail_msg("%s", e.msg);
    json_array_foreach(json_object_get(report, "rows"), i, row)
        json_object_del(row, "tokens_per_second");
    return report;
}

static int64_t count(const char *db, const char *sql)
{
    sqlite3 *d;
    sqlite3_stmt *q;
    assert_int_equal(sqlite3_open(db, &d), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(d, sql, -1, &q, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(q), SQLITE_ROW);
    int64_t n = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    sqlite3_close(d);
    return n;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The lines of a file, sorted, as one text. */
static char *sorted(const char *path)
{
    ns_buf b = { 0 }, out = { 0 };
    char *line[1000];
    int n = 0;
    assert_int_equal(ns_file_read(path, 1 << 24, &b, NULL), 0);
    for (char *p = strtok(b.data, "\n"); p && n < 1000; p = strtok(NULL, "\n"))
        line[n++] = p;
    qsort(line, (size_t)n, sizeof *line, by_text);
    for (int i = 0; i < n; i++)
        ns_buf_addf(&out, "%s\n", line[i]);
    ns_buf_release(&b);
    return out.data;
}

static void stopped_and_taken_up(int samples)
{
    struct setting s;
    setting_open(&s);
    int answers = 6 * 9 * samples;
    json_t *whole = run(&s, NULL, s.jsonl, samples, 0);
    char *lines = sorted(s.jsonl);
    for (int stop = 1, rest = answers; rest > 0; stop += 7) { /* again and again, until nothing is left to do */
        json_t *part = run(&s, s.db, s.jsonl, samples, stop);
        assert_int_equal(json_is_true(json_object_get(part, "interrupted")), s.interrupted);
        rest -= s.seen;
        assert_int_equal(count(s.db, "SELECT count(*) FROM sample"), answers - rest);
        if (rest == 0 && !s.interrupted)
            assert_true(json_equal(part, whole));
        json_decref(part);
    }
    json_t *again = run(&s, s.db, s.jsonl, samples, 0);
    char *lines_again = sorted(s.jsonl);
    assert_int_equal(s.seen, 0);
    assert_true(json_equal(again, whole));
    assert_string_equal(lines_again, lines);
    assert_int_equal(count(s.db, "SELECT count(*) FROM run"), 1);
    assert_int_equal(count(s.db, "SELECT count(*) FROM plan"), 6);
    assert_int_equal(count(s.db, "SELECT count(*) FROM problem"), 9);
    assert_int_equal(count(s.db, "SELECT count(*) FROM plan WHERE seconds > 0 AND tokens > 0 AND prompt_tokens > 0"), 6);
    assert_int_equal(count(s.db, "SELECT count(*) FROM latency WHERE prefill_tokens_per_s > 0 AND decode_tokens_per_s > 0"), 2);
    if (samples > 1)
        assert_non_null(json_object_get(json_object_get(json_array_get(json_object_get(again, "rows"), 0), "pass_at"), "2"));
    json_decref(again);
    json_decref(whole);
    free(lines);
    free(lines_again);
    setting_close(&s);
}

static void test_stopped(void **state)
{
    (void)state;
    stopped_and_taken_up(1);
}

static void test_stopped_samples(void **state)
{
    (void)state;
    stopped_and_taken_up(3);
}

/* A process that is killed at once loses at most what was not committed; the file stays whole. */
static void test_killed(void **state)
{
    (void)state;
    struct setting s;
    int status;
    setting_open(&s);
    json_t *whole = run(&s, NULL, NULL, 1, 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        s.kill = 1;
        json_decref(run(&s, s.db, NULL, 1, 25)); /* the first pass of a size is over by then, and committed */
        _exit(1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    int64_t kept = count(s.db, "SELECT count(*) FROM sample");
    assert_true(kept >= 9 && kept <= 25);
    json_t *rest = run(&s, s.db, NULL, 1, 0);
    assert_int_equal(s.seen, 54 - kept);
    assert_true(json_equal(rest, whole));
    json_decref(rest);
    json_decref(whole);
    setting_close(&s);
}

/* Another checkpoint, other problems or other options: another run in the same file. */
static void test_other_runs(void **state)
{
    (void)state;
    struct setting s;
    char before[17], after[17];
    tiny_file f;
    setting_open(&s);
    json_decref(run(&s, s.db, NULL, 1, 0));
    json_decref(run(&s, s.db, NULL, 2, 0)); /* options */
    assert_int_equal(count(s.db, "SELECT count(*) FROM run"), 2);
    ns_task few;
    assert_int_equal(ns_task_open(s.task_path, 3, &few, NULL), 0);
    assert_string_not_equal(few.hash, s.task.hash);
    ns_task all = s.task;
    s.task = few;
    json_decref(run(&s, s.db, NULL, 1, 0));
    assert_int_equal(count(s.db, "SELECT count(*) FROM run"), 3);
    s.task = all;
    ns_task_release(&few);
    assert_int_equal(ns_fingerprint(s.dir, NULL, before, NULL), 0);
    ns_engine_close(s.en);
    s.en = NULL;
    tiny_load(&f, s.dir);
    for (size_t i = 0; i < f.n; i++)
        for (size_t k = 0; k < f.t[i].bytes; k += 64) /* as training on does */
            ((char *)f.t[i].data)[k] = (char)(((char *)f.t[i].data)[k] ^ 1);
    tiny_save(&f, s.dir);
    tiny_release(&f);
    assert_int_equal(ns_fingerprint(s.dir, NULL, after, NULL), 0);
    assert_string_not_equal(before, after);
    setting_close(&s);
}

static void test_no_results_file(void **state)
{
    (void)state;
    ns_err e = { 0 };
    char *path = tiny_path(tiny_base, "not.db");
    assert_int_equal(ns_file_write(path, "this is text, and long enough to be taken for a header of pages", 63, NULL), 0);
    assert_null(ns_results_open(path, &e));
    assert_non_null(strstr(e.msg, "not.db"));
    remove(path);
    sqlite3 *d;
    assert_int_equal(sqlite3_open(path, &d), SQLITE_OK);
    assert_int_equal(sqlite3_exec(d, "CREATE TABLE t (x)", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(d);
    e = (ns_err){ 0 };
    assert_null(ns_results_open(path, &e));
    assert_non_null(strstr(e.msg, "but not of results"));
    free(path);
    e = (ns_err){ 0 };
    assert_null(ns_results_open("/nowhere/r.db", &e));
    assert_non_null(strstr(e.msg, "/nowhere/r.db"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pass_at),        cmocka_unit_test(test_clustered),  cmocka_unit_test(test_stopped),         cmocka_unit_test(test_killed),
        cmocka_unit_test(test_stopped_samples), cmocka_unit_test(test_other_runs), cmocka_unit_test(test_no_results_file),
    };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
