#include "eval/results.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "eval/results_schema.h"

struct ns_results {
    sqlite3 *db;
    char *path;
    sqlite3_stmt *add;   /* a sample */
    bool open;           /* a transaction is */
    double committed;    /* when */
};

static int failed(const ns_results *s, ns_err *e)
{
    return ns_fail(e, NS_EIO, "%s: %s", s->path, sqlite3_errmsg(s->db));
}

static int run_sql(ns_results *s, const char *sql, ns_err *e)
{
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : failed(s, e);
}

static sqlite3_stmt *prepare(ns_results *s, const char *sql, ns_err *e)
{
    sqlite3_stmt *q = NULL;
    if (sqlite3_prepare_v2(s->db, sql, -1, &q, NULL) != SQLITE_OK)
        failed(s, e);
    return q;
}

/* Binds by `types`: s text (NULL is NULL), i int64, d double, n: int64 where -1 is NULL. */
static void bind(sqlite3_stmt *q, const char *types, ...)
{
    va_list ap;
    va_start(ap, types);
    for (int k = 1; *types; types++, k++) {
        if (*types == 's') {
            sqlite3_bind_text(q, k, va_arg(ap, const char *), -1, SQLITE_TRANSIENT);
        } else if (*types == 'd') {
            sqlite3_bind_double(q, k, va_arg(ap, double));
        } else {
            int64_t v = va_arg(ap, int64_t);
            if (*types == 'n' && v == -1)
                sqlite3_bind_null(q, k);
            else
                sqlite3_bind_int64(q, k, v);
        }
    }
    va_end(ap);
}

static int done(ns_results *s, sqlite3_stmt *q, ns_err *e)
{
    int rc = sqlite3_step(q);
    sqlite3_finalize(q);
    return rc == SQLITE_DONE || rc == SQLITE_ROW ? 0 : failed(s, e);
}

/* ---- the file ---- */

static int begin(ns_results *s, ns_err *e)
{
    if (s->open)
        return 0;
    s->open = run_sql(s, "BEGIN IMMEDIATE", e) == 0;
    return s->open ? 0 : -1;
}

int ns_results_commit(ns_results *s, ns_err *e)
{
    if (!s->open)
        return 0;
    s->open = false;
    s->committed = ns_now();
    return run_sql(s, "COMMIT", e);
}

bool ns_results_due(const ns_results *s)
{
    return ns_now() - s->committed >= 1.0;
}

static int layout(ns_results *s, ns_err *e)
{
    sqlite3_stmt *q = prepare(s, "SELECT (SELECT user_version FROM pragma_user_version), (SELECT count(*) FROM sqlite_master)", e);
    char sql[64];
    if (!q)
        return -1;
    if (sqlite3_step(q) != SQLITE_ROW) {
        sqlite3_finalize(q);
        return failed(s, e);
    }
    int version = sqlite3_column_int(q, 0), tables = sqlite3_column_int(q, 1);
    sqlite3_finalize(q);
    if (version == NS_RESULTS_VERSION)
        return 0;
    if (version != 0 || tables != 0)
        return ns_fail(e, NS_EFORMAT, "%s: a database, but not of results (layout %d, expected %d)", s->path, version, NS_RESULTS_VERSION);
    snprintf(sql, sizeof sql, "PRAGMA user_version = %d", NS_RESULTS_VERSION);
    return begin(s, e) || run_sql(s, NS_RESULTS_SCHEMA, e) || run_sql(s, sql, e) || ns_results_commit(s, e);
}

ns_results *ns_results_open(const char *path, ns_err *e)
{
    ns_results *s = calloc(1, sizeof *s);
    if (!s || !(s->path = strdup(path))) {
        free(s);
        ns_fail(e, NS_ENOMEM, "%s: out of memory", path);
        return NULL;
    }
    if (sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NULL) != SQLITE_OK) {
        ns_fail(e, NS_EIO, "%s: %s", path, s->db ? sqlite3_errmsg(s->db) : "out of memory");
        ns_results_close(s);
        return NULL;
    }
    sqlite3_busy_timeout(s->db, 10000);
    if (layout(s, e) != 0) {
        ns_results_close(s);
        return NULL;
    }
    return s;
}

void ns_results_close(ns_results *s)
{
    if (!s)
        return;
    sqlite3_finalize(s->add);
    sqlite3_close(s->db);
    free(s->path);
    free(s);
}

/* ---- runs ---- */

static int add_problems(ns_results *s, int64_t run, const ns_task *t, ns_err *e)
{
    sqlite3_stmt *q = prepare(s, "INSERT INTO problem (run, id, key, kind, level, answer) VALUES (?, ?, ?, ?, ?, ?)", e);
    int rc = q ? 0 : -1;
    for (int i = 0; rc == 0 && i < t->n; i++) {
        const ns_task_item *p = &t->item[i];
        sqlite3_reset(q);
        bind(q, "iissns", run, (int64_t)i, p->key, p->kind, (int64_t)p->level, p->check ? NULL : p->answer);
        if (sqlite3_step(q) != SQLITE_DONE)
            rc = failed(s, e);
    }
    sqlite3_finalize(q);
    return rc;
}

int ns_results_find_run(ns_results *s, const ns_results_run *r, const ns_task *t, int64_t *id, ns_err *e)
{
    char created[32];
    time_t now = time(NULL);
    struct tm tm;
    sqlite3_stmt *q = prepare(s, "SELECT id FROM run WHERE fingerprint = ? AND task_hash = ? AND options = ? ORDER BY id LIMIT 1", e);
    if (!q)
        return -1;
    bind(q, "sss", r->fingerprint, t->hash, r->options);
    bool found = sqlite3_step(q) == SQLITE_ROW;
    if (found)
        *id = sqlite3_column_int64(q, 0);
    sqlite3_finalize(q);
    if (found)
        return 0;
    strftime(created, sizeof created, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    if (begin(s, e) != 0 ||
        !(q = prepare(s, "INSERT INTO run (created, version, checkpoint, fingerprint, task, task_hash, options, machine) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", e)))
        return -1;
    bind(q, "ssssssss", created, ns_version(), r->checkpoint, r->fingerprint, r->task, t->hash, r->options, r->machine);
    if (done(s, q, e) != 0)
        return -1;
    *id = sqlite3_last_insert_rowid(s->db);
    return add_problems(s, *id, t, e) || ns_results_commit(s, e);
}

/* ---- plans ---- */

int ns_results_find_plan(ns_results *s, int64_t run, const ns_results_plan *p, int64_t *id, ns_results_totals *so_far, ns_err *e)
{
    sqlite3_stmt *q = prepare(s, "SELECT id, prompt_tokens, tokens, seconds FROM plan "
                                 "WHERE run = ? AND think = ? AND answer = ? AND budget IS ? AND handover = ?", e);
    *so_far = (ns_results_totals){ 0 };
    if (!q)
        return -1;
    bind(q, "issns", run, p->think, p->answer, p->budget, p->handover);
    bool found = sqlite3_step(q) == SQLITE_ROW;
    if (found) {
        *id = sqlite3_column_int64(q, 0);
        *so_far = (ns_results_totals){ sqlite3_column_int64(q, 1), sqlite3_column_int64(q, 2), sqlite3_column_double(q, 3) };
    }
    sqlite3_finalize(q);
    if (found)
        return 0;
    if (begin(s, e) != 0 || !(q = prepare(s, "INSERT INTO plan (run, think, answer, budget, handover, think_active, answer_active, think_bytes, "
                                             "answer_bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", e)))
        return -1;
    bind(q, "issnsiiii", run, p->think, p->answer, p->budget, p->handover, p->think_active, p->answer_active, p->think_bytes, p->answer_bytes);
    if (done(s, q, e) != 0)
        return -1;
    *id = sqlite3_last_insert_rowid(s->db);
    return 0;
}

int ns_results_set_totals(ns_results *s, int64_t plan, const ns_results_totals *t, ns_err *e)
{
    sqlite3_stmt *q = begin(s, e) == 0 ? prepare(s, "UPDATE plan SET prompt_tokens = ?, tokens = ?, seconds = ? WHERE id = ?", e) : NULL;
    if (!q)
        return -1;
    bind(q, "iidi", t->prompt_tokens, t->tokens, t->seconds, plan);
    return done(s, q, e);
}

/* ---- answers ---- */

int ns_results_add(ns_results *s, int64_t plan, const ns_results_sample *a, ns_err *e)
{
    if (begin(s, e) != 0)
        return -1;
    if (!s->add && !(s->add = prepare(s, "INSERT INTO sample (plan, problem, sample, correct, extracted, output, prompt_tokens, thinking_tokens, "
                                         "answer_tokens, closed, ended) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", e)))
        return -1;
    sqlite3_reset(s->add);
    bind(s->add, "iiinssiiiii", plan, (int64_t)a->problem, (int64_t)a->sample, a->grade == NS_GRADE_NONE ? (int64_t)-1 : (int64_t)a->grade, a->extracted,
         a->output, (int64_t)a->prompt_tokens, (int64_t)a->thinking_tokens, (int64_t)a->answer_tokens, (int64_t)a->closed, (int64_t)a->ended);
    return sqlite3_step(s->add) == SQLITE_DONE ? 0 : failed(s, e);
}

int ns_results_each(ns_results *s, int64_t plan, int (*fn)(void *ctx, const ns_results_sample *a, ns_err *e), void *ctx, ns_err *e)
{
    sqlite3_stmt *q = prepare(s, "SELECT problem, sample, correct, extracted, output, prompt_tokens, thinking_tokens, answer_tokens, closed, ended "
                                 "FROM sample WHERE plan = ? ORDER BY problem, sample", e);
    int rc = q ? 0 : -1, step = SQLITE_DONE;
    if (q)
        bind(q, "i", plan);
    while (rc == 0 && (step = sqlite3_step(q)) == SQLITE_ROW) {
        ns_results_sample a = { .problem = sqlite3_column_int(q, 0), .sample = sqlite3_column_int(q, 1), .extracted = (const char *)sqlite3_column_text(q, 3),
                              .output = (const char *)sqlite3_column_text(q, 4), .prompt_tokens = sqlite3_column_int(q, 5),
                              .thinking_tokens = sqlite3_column_int(q, 6), .answer_tokens = sqlite3_column_int(q, 7),
                              .closed = sqlite3_column_int(q, 8), .ended = sqlite3_column_int(q, 9) };
        a.grade = sqlite3_column_type(q, 2) == SQLITE_NULL ? NS_GRADE_NONE : sqlite3_column_int(q, 2) ? NS_GRADE_RIGHT : NS_GRADE_WRONG;
        rc = fn(ctx, &a, e);
    }
    if (rc == 0 && step != SQLITE_DONE)
        rc = failed(s, e);
    sqlite3_finalize(q);
    return rc;
}

/* ---- latency ---- */

bool ns_results_has_latency(ns_results *s, int64_t run, const char *size)
{
    sqlite3_stmt *q = prepare(s, "SELECT 1 FROM latency WHERE run = ? AND size = ?", NULL);
    if (!q)
        return false;
    bind(q, "is", run, size);
    bool has = sqlite3_step(q) == SQLITE_ROW;
    sqlite3_finalize(q);
    return has;
}

int ns_results_set_latency(ns_results *s, int64_t run, const char *size, const ns_results_latency *l, ns_err *e)
{
    sqlite3_stmt *q = begin(s, e) == 0 ? prepare(s, "INSERT OR REPLACE INTO latency VALUES (?, ?, ?, ?, ?)", e) : NULL;
    if (!q)
        return -1;
    bind(q, "isddd", run, size, l->prefill, l->decode, l->change);
    return done(s, q, e);
}
