/* Reading results of eval and what is worked out from them, on databases that the test fills itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "base/file.h"
#include "eval/report.h"
#include "eval/report_out.h"
#include "eval/results_schema.h"
#include "eval/score.h"

static char folder[64];

struct world {
    sqlite3 *db;
    char path[128];
};

static void sql(struct world *w, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    char *text = sqlite3_vmprintf(fmt, ap);
    va_end(ap);
    if (sqlite3_exec(w->db, text, NULL, NULL, NULL) != SQLITE_OK)
        fail_msg("%s: %s", text, sqlite3_errmsg(w->db));
    sqlite3_free(text);
}

/* A run with n problems of kinds a and b in turn, and the speeds of full and small. */
static void open_world(struct world *w, const char *name, int n)
{
    snprintf(w->path, sizeof w->path, "%s/%s.db", folder, name);
    unlink(w->path);
    assert_int_equal(sqlite3_open(w->path, &w->db), SQLITE_OK);
    sql(w, "PRAGMA user_version = %d; %s", NS_RESULTS_VERSION, NS_RESULTS_SCHEMA);
    sql(w, "BEGIN");
    sql(w, "INSERT INTO run VALUES (1, '2026-11-30T10:00:00Z', '0.1.0', 'ck <i>', 'f00', 'task', 'h1', '{\"chunk\": 8}', '{}')");
    for (int i = 0; i < n; i++)
        sql(w, "INSERT INTO problem VALUES (1, %d, NULL, '%s', %d, '1')", i, i % 2 ? "b" : "a", 1 + i % 3);
    sql(w, "INSERT INTO latency VALUES (1, 'full', 100, 10, 0.5), (1, 'small', 200, 20, 0.25)");
}

/* A plan whose answers are right where the pattern has a 1 and not graded at a '-'; budget -1: to the end. */
static void add_plan(struct world *w, int id, const char *think, const char *answer, int budget, const char *handover, int thought,
                     const char *pattern)
{
    char b[16];
    snprintf(b, sizeof b, budget < 0 ? "NULL" : "%d", budget);
    const bool small_thinks = strcmp(think, "small") == 0, small_answers = strcmp(answer, "small") == 0;
    sql(w, "INSERT INTO plan VALUES (%d, 1, '%s', '%s', %s, '%s', %d, %d, %d, %d, 0, 0, 0)", id, think, answer, b, handover,
        small_thinks ? 50 : 100, small_answers ? 50 : 100, small_thinks ? 500 : 1000, small_answers ? 500 : 1000);
    for (int i = 0; pattern[i]; i++)
        sql(w, "INSERT INTO sample VALUES (%d, %d, 0, %s, NULL, NULL, 10, %d, 5, 0, 1, NULL)", id, i,
            pattern[i] == '-' ? "NULL" : pattern[i] == '1' ? "1" : "0", thought);
}

static void close_world(struct world *w)
{
    sql(w, "COMMIT");
    assert_int_equal(sqlite3_close(w->db), SQLITE_OK);
}

static void read_file(ns_report *r, const char *path)
{
    ns_err e = { 0 };
    if (ns_report_read(r, &path, 1, &e) != 0 || ns_report_compute(r, &(ns_report_opts){ 200, 5 }, &e) != 0)
        fail_msg("%s", e.msg);
}

static const ns_report_plan *find(const ns_report_group *g, const char *think, const char *answer, int budget, const char *handover)
{
    for (int i = 0; i < g->n_plans; i++) {
        const ns_report_plan *p = g->plan[i];
        if (strcmp(p->think, think) == 0 && strcmp(p->answer, answer) == 0 && p->budget == budget && strcmp(p->handover, handover) == 0)
            return p;
    }
    fail_msg("no plan %s %s %d %s", think, answer, budget, handover);
    return NULL;
}

static void near(double a, double b)
{
    if (!(fabs(a - b) < 1e-9))
        fail_msg("%.12g is not %.12g", a, b);
}

/* ---- latency, bytes, accuracy ---- */

static void fill_plans(struct world *w)
{
    add_plan(w, 1, "full", "full", -1, "none", 20, "1110");
    add_plan(w, 2, "full", "full", 4, "none", 4, "1000");
    add_plan(w, 3, "small", "small", -1, "none", 20, "1001");
    add_plan(w, 4, "small", "full", -1, "cache", 20, "1110");
    add_plan(w, 5, "small", "full", -1, "prefill", 20, "1111");
    add_plan(w, 6, "small", "full", -1, "late", 20, "1100");
    add_plan(w, 7, "small", "full", 1, "cache", 1, "1-");
}

static void test_latency(void **state)
{
    struct world w;
    ns_report r = { 0 };
    (void)state;
    open_world(&w, "latency", 4);
    fill_plans(&w);
    close_world(&w);
    read_file(&r, w.path);
    const ns_report_group *g = r.group[0];
    assert_int_equal(r.n_groups, 1);
    assert_int_equal(g->n_plans, 7);
    /* prompt 10, thought 20, answer 5; full reads 100 and writes 10 tokens/s, small 200 and 20 */
    near(find(g, "full", "full", -1, "none")->seconds, 0.1 + 2.0 + 0.5);
    near(find(g, "small", "small", -1, "none")->seconds, 0.05 + 1.0 + 0.25);
    near(find(g, "small", "full", -1, "cache")->seconds, 0.05 + 1.0 + 0.5 + 0.5);
    near(find(g, "small", "full", -1, "prefill")->seconds, 0.05 + 1.0 + 0.3 + 0.5);
    near(find(g, "small", "full", -1, "late")->seconds, 0.05 + 1.0 + 0.08 + 0.5);
    near(find(g, "full", "full", -1, "none")->bytes, 1000 * (1 + 20 + 5));
    near(find(g, "small", "full", -1, "cache")->bytes, 500 * (1 + 20) + 1000 * 5);
    near(find(g, "small", "full", -1, "prefill")->bytes, 500 * (1 + 20) + 1000 * (5 + 1));
    double lo, hi;
    ns_wilson(3, 4, &lo, &hi);
    const ns_report_plan *full = find(g, "full", "full", -1, "none"), *part = find(g, "small", "full", 1, "cache");
    near(full->accuracy, 0.75);
    near(full->lo, lo);
    near(full->hi, hi);
    assert_true(full->complete);
    assert_false(part->complete);
    assert_int_equal(part->n, 2);
    assert_int_equal(part->graded, 1);
    ns_report_release(&r);
}

static void test_measured(void **state)
{
    struct world w;
    ns_report r = { 0 };
    (void)state;
    open_world(&w, "measured", 2);
    add_plan(&w, 1, "full", "full", -1, "none", 20, "11");
    add_plan(&w, 2, "tiny", "tiny", -1, "none", 20, "11"); /* a size without speeds */
    sql(&w, "UPDATE sample SET seconds = 3.0 + problem WHERE plan = 1");
    close_world(&w);
    read_file(&r, w.path);
    const ns_report_plan *p = find(r.group[0], "full", "full", -1, "none"), *tiny = find(r.group[0], "tiny", "tiny", -1, "none");
    assert_int_equal(p->latency, NS_LATENCY_MEASURED);
    near(p->seconds, 3.5);
    assert_int_equal(tiny->latency, NS_LATENCY_NONE);
    assert_false(ns_report_comparable(tiny));
    ns_report_release(&r);
}

/* ---- between plans ---- */

static void test_pareto(void **state)
{
    struct world w;
    ns_report r = { 0 };
    int n;
    (void)state;
    open_world(&w, "pareto", 4);
    fill_plans(&w);
    close_world(&w);
    read_file(&r, w.path);
    const ns_report_group *g = r.group[0];
    /* 1.0 s .25; 1.3 s .5; 1.63 s .5; 1.85 s 1.0; 2.05 s .75; 2.6 s .75 */
    ns_report_plan **front = ns_report_front(g, &n);
    assert_int_equal(n, 3);
    assert_ptr_equal(front[0], find(g, "full", "full", 4, "none"));
    assert_ptr_equal(front[1], find(g, "small", "small", -1, "none"));
    assert_ptr_equal(front[2], find(g, "small", "full", -1, "prefill"));
    free(front);
    assert_int_equal(ns_report_best(g, 0.9), -1);
    assert_ptr_equal(g->plan[ns_report_best(g, 1.8)], find(g, "small", "small", -1, "none"));
    assert_ptr_equal(g->plan[ns_report_best(g, 99)], find(g, "small", "full", -1, "prefill"));
    assert_false(ns_report_apart(find(g, "small", "full", -1, "prefill"), find(g, "small", "small", -1, "none")));
    ns_report_release(&r);
}

static void test_tally(void **state)
{
    struct world w;
    ns_report r = { 0 };
    long n;
    (void)state;
    open_world(&w, "tally", 4);
    fill_plans(&w);
    close_world(&w);
    read_file(&r, w.path);
    const ns_report_group *g = r.group[0];
    const ns_report_plan *full = find(g, "full", "full", -1, "none"), *small = find(g, "small", "small", -1, "none");
    const ns_report_tally t = ns_report_compare(g, full, small, NULL, -1), b = ns_report_compare(g, full, small, "b", -1);
    assert_true(t.both == 1 && t.lost == 2 && t.won == 1 && t.neither == 0);
    assert_true(b.both == 0 && b.lost == 1 && b.won == 1 && b.neither == 0);
    near(ns_report_accuracy(g, full, "b", -1, &n).value, 0.5);
    assert_int_equal(n, 2);
    near(ns_report_accuracy(g, full, NULL, 1, &n).value, 0.5); /* problems 0 and 3 */
    assert_int_equal(g->n_kinds, 2);
    assert_int_equal(g->n_levels, 3);
    assert_int_equal(g->n_sizes, 2);
    assert_string_equal(g->size[0].name, "full");
    near(g->size[1].against_full.value, -0.25);
    near(ns_report_sign_test(0, 5), 2.0 / 32);
    near(ns_report_sign_test(3, 3), 1);
    near(ns_report_sign_test(1, 7), 18.0 / 256);
    near(ns_report_sign_test(0, 0), 1);
    ns_report_release(&r);
}

static void test_curve(void **state)
{
    (void)state;
    /* out of order, and with a dip that the best so far bridges */
    const double x[] = { 3, 1, 2, 5 }, y[] = { 0.5, 0.2, 0.6, 1.0 };
    assert_true(isnan(ns_report_curve_at(x, y, 4, 0.9)));
    near(ns_report_curve_at(x, y, 4, 1), 0.2);
    near(ns_report_curve_at(x, y, 4, 1.5), 0.4);
    near(ns_report_curve_at(x, y, 4, 3), 0.6);
    near(ns_report_curve_at(x, y, 4, 4), 0.8);
    near(ns_report_curve_at(x, y, 4, 9), 1.0);
    near(ns_report_curve_reach(x, y, 4, 0.1), 1);
    near(ns_report_curve_reach(x, y, 4, 0.4), 1.5);
    near(ns_report_curve_reach(x, y, 4, 0.6), 2);
    near(ns_report_curve_reach(x, y, 4, 0.9), 4.5);
    assert_true(isinf(ns_report_curve_reach(x, y, 4, 1.1)));
    assert_true(isnan(ns_report_curve_at(x, y, 0, 1)));
    assert_true(isnan(ns_report_curve_reach(x, y, 0, 1)));
}

/* ---- intervals ---- */

static char *pattern(int n, int right_of_ten)
{
    char *s = calloc((size_t)n + 1, 1);
    for (int i = 0; i < n; i++)
        s[i] = i % 10 < right_of_ten ? '1' : '0';
    return s;
}

/* full alone: 40 % in 1.0 s, 80 % in 2.6 s; small -> full by prefill 80 % in 1.85 s: at that latency the line of full is at 61.25 %. */
static void test_claims(void **state)
{
    struct world w;
    ns_report r = { 0 }, again = { 0 }, other = { 0 };
    ns_err e = { 0 };
    (void)state;
    open_world(&w, "claims", 200);
    char *four = pattern(200, 4), *eight = pattern(200, 8);
    add_plan(&w, 1, "full", "full", 4, "none", 4, four);
    add_plan(&w, 2, "full", "full", -1, "none", 20, eight);
    add_plan(&w, 3, "small", "full", -1, "prefill", 20, eight);
    free(four);
    free(eight);
    close_world(&w);
    read_file(&r, w.path);
    read_file(&again, w.path);
    const char *path = w.path;
    assert_int_equal(ns_report_read(&other, &path, 1, &e), 0);
    assert_int_equal(ns_report_compute(&other, &(ns_report_opts){ 200, 6 }, &e), 0);
    const ns_report_group *g = r.group[0];
    assert_int_equal(g->n_pairs, 1);
    const ns_report_claim *c = &g->pair[0].claim[0], *a = &again.group[0]->pair[0].claim[0], *o = &other.group[0]->pair[0].claim[0];
    near(c->gain.value, 0.8 - (0.4 + 0.4 * 0.85 / 1.6));
    near(c->ratio.value, 2.6 / 1.85);
    assert_true(isnan(c->ratio.lo)); /* the same in every draw, as both plans solve the same problems: no interval */
    near(g->pair[0].mean.gain.value, c->gain.value);
    near(g->pair[0].mean.ratio.value, c->ratio.value);
    /* the gain is 0.46875 of the difference between two plans that differ on 80 of 200 problems: +- 1.96 sqrt(.4 .6 / 200) of it */
    const double half = 0.46875 * 1.96 * sqrt(0.4 * 0.6 / 200);
    assert_true(fabs(c->gain.lo - (c->gain.value - half)) < 0.01);
    assert_true(fabs(c->gain.hi - (c->gain.value + half)) < 0.01);
    near(a->gain.lo, c->gain.lo);
    near(a->gain.hi, c->gain.hi);
    assert_true(o->gain.lo != c->gain.lo || o->gain.hi != c->gain.hi);
    ns_report_release(&r);
    ns_report_release(&again);
    ns_report_release(&other);
}

/* The same answers twice are no more evidence: the interval is that of the problems. Two databases of one checkpoint pool. */
static void test_clusters(void **state)
{
    struct world w[2];
    ns_report r = { 0 };
    ns_err e = { 0 };
    (void)state;
    for (int i = 0; i < 2; i++) {
        char *seven = pattern(100, 7);
        open_world(&w[i], i ? "cluster-b" : "cluster-a", 100);
        add_plan(&w[i], 1, "full", "full", -1, "none", 20, seven);
        close_world(&w[i]);
        free(seven);
    }
    const char *const files[] = { w[0].path, w[1].path };
    assert_int_equal(ns_report_read(&r, files, 2, &e), 0);
    assert_int_equal(ns_report_compute(&r, &(ns_report_opts){ 100, 1 }, &e), 0);
    assert_int_equal(r.n_groups, 1);
    assert_int_equal(r.group[0]->n_runs, 2);
    const ns_report_plan *p = r.group[0]->plan[0];
    double lo, hi;
    assert_int_equal(p->graded, 200);
    ns_wilson(70, 100, &lo, &hi);
    near(p->lo, lo);
    near(p->hi, hi);
    ns_report_release(&r);
}

/* ---- refusals ---- */

static void refuse(const char *path, const char *want)
{
    ns_report r = { 0 };
    ns_err e = { 0 };
    int rc = ns_report_read(&r, &path, 1, &e);
    if (rc == 0)
        rc = ns_report_compute(&r, &(ns_report_opts){ 100, 1 }, &e);
    assert_int_equal(rc, -1);
    if (!strstr(e.msg, want))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, want);
    ns_report_release(&r);
}

static void test_refusals(void **state)
{
    struct world w;
    ns_err e = { 0 };
    char path[128];
    (void)state;
    snprintf(path, sizeof path, "%s/none.db", folder);
    refuse(path, "none.db");
    assert_false(ns_file_exists(path));
    assert_int_equal(ns_file_write(path, "not a database at all, and long enough", 38, &e), 0);
    refuse(path, "not a database");
    open_world(&w, "version", 1);
    sql(&w, "PRAGMA user_version = 2");
    close_world(&w);
    refuse(w.path, "version 2");
    open_world(&w, "empty", 1);
    close_world(&w);
    refuse(w.path, "no answer");
    open_world(&w, "norun", 1);
    sql(&w, "DELETE FROM run");
    close_world(&w);
    refuse(w.path, "no run");
    open_world(&w, "stray", 1);
    add_plan(&w, 1, "full", "full", -1, "none", 20, "11");
    close_world(&w);
    refuse(w.path, "problem 1");
    open_world(&w, "far", 1);
    sql(&w, "INSERT INTO problem VALUES (1, 999999999999, NULL, NULL, NULL, NULL)");
    close_world(&w);
    refuse(w.path, "problem ids");
    open_world(&w, "speed", 1);
    sql(&w, "UPDATE latency SET decode_tokens_per_s = 0 WHERE size = 'full'");
    close_world(&w);
    refuse(w.path, "speeds of size full");
    open_world(&w, "options", 1);
    sql(&w, "UPDATE run SET options = '{\"chunk\": 0}'");
    close_world(&w);
    refuse(w.path, "chunk");
}

static void test_drift(void **state)
{
    static const char good[] = "[{\"size\": \"small\", \"tokens\": 10, \"kl\": 0.5, \"worst_kl\": 1.0, \"agree\": 0.9, \"perplexity_a\": 2.0,"
                               " \"perplexity_b\": 2.5, \"layers\": [0.1, 0.2]}]";
    static const char *const bad[] = { "{}", "[]", "[1]", "[{\"size\": \"s\"}]", "[{\"layers\": []}]",
                                       "[{\"size\": \"s\", \"kl\": 1, \"agree\": 1, \"layers\": [\"x\"]}]" };
    char path[128];
    ns_report r = { 0 };
    ns_err e = { 0 };
    (void)state;
    snprintf(path, sizeof path, "%s/drift.json", folder);
    assert_int_equal(ns_file_write(path, good, strlen(good), &e), 0);
    assert_int_equal(ns_report_read_drift(&r, path, &e), 0);
    assert_int_equal(ns_report_read_drift(&r, path, &e), 0);
    assert_int_equal(r.n_drifts, 2);
    assert_string_equal(r.drift[1].size, "small");
    near(r.drift[0].kl, 0.5);
    near(r.drift[1].layer[1], 0.2);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ns_err why = { 0 };
        assert_int_equal(ns_file_write(path, bad[i], strlen(bad[i]), &e), 0);
        assert_int_equal(ns_report_read_drift(&r, path, &why), -1);
        assert_non_null(strstr(why.msg, "drift.json"));
    }
    assert_int_equal(r.n_drifts, 2);
    ns_report_release(&r);
}

/* ---- words ---- */

static void check_text(void (*escape)(ns_buf *, const char *), const char *in, const char *want)
{
    ns_buf b = { 0 };
    escape(&b, in);
    assert_string_equal(b.data, want);
    ns_buf_release(&b);
}

static void test_text(void **state)
{
    (void)state;
    check_text(ns_html, "<a b=\"c\">&'", "&lt;a b=&quot;c&quot;&gt;&amp;&#39;");
    check_text(ns_markdown, "a|b_c\n<x>", "a\\|b\\_c &lt;x&gt;");
    assert_string_equal(ns_report_count(3449856).text, "3.45 M");
    assert_string_equal(ns_report_count(31.578e9).text, "31.6 B");
    assert_string_equal(ns_report_count(912).text, "912");
    assert_string_equal(ns_report_bytes(999700).text, "1.00 MB");
    assert_string_equal(ns_report_seconds(0.0815).text, "81.5 ms");
    assert_string_equal(ns_report_seconds(12.34).text, "12.3 s");
    assert_string_equal(ns_report_percent(NAN).text, "–");
    assert_string_equal(ns_report_points((ns_report_range){ -0.016, -0.029, -0.004 }).text, "-1.6 (-2.9 to -0.4)");
    assert_string_equal(ns_report_ratio((ns_report_range){ 1.5, 1.2, INFINITY }).text, "1.50 (1.20 to never)");
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/nestar-report.XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_latency), cmocka_unit_test(test_measured), cmocka_unit_test(test_pareto),   cmocka_unit_test(test_tally),
        cmocka_unit_test(test_curve),   cmocka_unit_test(test_claims),   cmocka_unit_test(test_clusters), cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_drift),   cmocka_unit_test(test_text),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
