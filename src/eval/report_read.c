/* From SQLite to ns_report. The files are opened read-only; a version of the schema other than ours is refused. */
#include <limits.h>
#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "eval/results_schema.h"
#include "eval/report.h"

enum { MAX_PROBLEMS = 1 << 22 };

/* Where a run of a file went. */
struct place {
    sqlite3_int64 id;
    ns_report_group *g;
    int run;
};

struct reader {
    ns_report *r;
    const char *file;
    sqlite3 *db;
    struct place *place; /* [n_places] runs of this file; owned */
    int n_places;
    ns_err *e;
};

static int out_of_memory(struct reader *x)
{
    return ns_fail(x->e, NS_ENOMEM, "%s: out of memory", x->file);
}

static int sql_failed(struct reader *x)
{
    return ns_fail(x->e, NS_EFORMAT, "%s: %s", x->file, sqlite3_errmsg(x->db));
}

/* Calls `row` for each row of a query; ?1 is `arg`. */
static int each(struct reader *x, const char *sql, sqlite3_int64 arg, int (*row)(struct reader *x, sqlite3_stmt *s, void *ctx), void *ctx)
{
    sqlite3_stmt *s = NULL;
    int rc = 0, got = SQLITE_DONE;
    if (sqlite3_prepare_v2(x->db, sql, -1, &s, NULL) != SQLITE_OK)
        return sql_failed(x);
    sqlite3_bind_int64(s, 1, arg); /* fails where there is no ?1, which is fine */
    while (rc == 0 && (got = sqlite3_step(s)) == SQLITE_ROW)
        rc = row(x, s, ctx);
    if (rc == 0 && got != SQLITE_DONE)
        rc = sql_failed(x);
    sqlite3_finalize(s);
    return rc;
}

static char *text(struct reader *x, sqlite3_stmt *s, int column)
{
    const char *p = (const char *)sqlite3_column_text(s, column);
    return ns_arena_strdup(&x->r->arena, p ? p : "");
}

/* A longer copy of an array of the arena's; what it held is freed with the arena. */
static void *grown(ns_arena *a, const void *old, int n, size_t size)
{
    void *p = ns_arena_array(a, (size_t)n + 1, size);
    if (p && n)
        memcpy(p, old, (size_t)n * size);
    return p;
}

/* ---- runs ---- */

static ns_report_group *group_of(struct reader *x, const char *fingerprint, const char *task, const char *hash)
{
    ns_report *r = x->r;
    for (int i = 0; i < r->n_groups; i++) {
        ns_report_group *g = r->group[i];
        if (strcmp(g->fingerprint, fingerprint) == 0 && strcmp(g->task, task) == 0 && strcmp(g->task_hash, hash) == 0)
            return g;
    }
    ns_report_group *g = ns_arena_alloc(&r->arena, sizeof *g), **list = grown(&r->arena, r->group, r->n_groups, sizeof *list);
    if (!g || !list)
        return NULL;
    *g = (ns_report_group){ .fingerprint = fingerprint, .task = task, .task_hash = hash };
    r->group = list;
    return r->group[r->n_groups++] = g;
}

static int read_chunk(struct reader *x, ns_report_run *run)
{
    int64_t chunk = 0;
    json_t *o = ns_json_parse(run->options, strlen(run->options), false, "run.options", x->e);
    int rc = o ? ns_json_int(o, "chunk", 1, INT_MAX, 0, &chunk, x->e) : -1;
    json_decref(o);
    run->chunk_assumed = chunk == 0;
    run->chunk = chunk ? (int)chunk : NS_REPORT_CHUNK;
    return rc ? ns_err_wrap(x->e, "%s", x->file) : 0;
}

static int add_run(struct reader *x, sqlite3_stmt *s, void *ctx)
{
    ns_arena *a = &x->r->arena;
    (void)ctx;
    ns_report_run *run = ns_arena_alloc(a, sizeof *run);
    char *fingerprint = text(x, s, 6), *task = text(x, s, 7), *hash = text(x, s, 8);
    ns_report_group *g = run && fingerprint && task && hash ? group_of(x, fingerprint, task, hash) : NULL;
    struct place *places = realloc(x->place, ((size_t)x->n_places + 1) * sizeof *places);
    if (places)
        x->place = places;
    if (!g || !places)
        return out_of_memory(x);
    *run = (ns_report_run){ .file = ns_arena_strdup(a, x->file), .created = text(x, s, 1), .version = text(x, s, 2), .checkpoint = text(x, s, 3),
                            .options = text(x, s, 4), .machine = text(x, s, 5) };
    ns_report_run **list = grown(a, g->run, g->n_runs, sizeof *list);
    if (!run->file || !run->created || !run->version || !run->checkpoint || !run->options || !run->machine || !list)
        return out_of_memory(x);
    g->run = list;
    x->place[x->n_places++] = (struct place){ sqlite3_column_int64(s, 0), g, g->n_runs };
    g->run[g->n_runs++] = run;
    return read_chunk(x, run);
}

/* ---- problems and speeds ---- */

static int count_problems(struct reader *x, sqlite3_stmt *s, void *ctx)
{
    const struct place *p = ctx;
    const sqlite3_int64 last = sqlite3_column_int64(s, 0), first = sqlite3_column_int64(s, 1);
    if (sqlite3_column_type(s, 0) == SQLITE_NULL)
        return 0;
    if (first < 0 || last >= MAX_PROBLEMS)
        return ns_fail(x->e, NS_EFORMAT, "%s: run %lld: problem ids from %lld to %lld", x->file, (long long)p->id, (long long)first, (long long)last);
    if (last < p->g->n_problems)
        return 0;
    ns_report_problem *list = ns_arena_array(&x->r->arena, (size_t)last + 1, sizeof *list);
    if (!list)
        return out_of_memory(x);
    if (p->g->n_problems)
        memcpy(list, p->g->problem, (size_t)p->g->n_problems * sizeof *list);
    p->g->problem = list;
    p->g->n_problems = (int)last + 1;
    return 0;
}

static int add_problem(struct reader *x, sqlite3_stmt *s, void *ctx)
{
    const struct place *p = ctx;
    ns_report_problem *q = &p->g->problem[sqlite3_column_int(s, 0)];
    if (q->asked)
        return 0;
    *q = (ns_report_problem){ .level = sqlite3_column_type(s, 2) == SQLITE_NULL ? -1 : sqlite3_column_int(s, 2), .asked = true };
    if (sqlite3_column_type(s, 1) != SQLITE_NULL && !(q->kind = text(x, s, 1)))
        return out_of_memory(x);
    return 0;
}

static int add_speed(struct reader *x, sqlite3_stmt *s, void *ctx)
{
    const struct place *p = ctx;
    ns_report_run *run = p->g->run[p->run];
    ns_report_speed *list = grown(&x->r->arena, run->speed, run->n_speeds, sizeof *list);
    const ns_report_speed v = { text(x, s, 0), sqlite3_column_double(s, 1), sqlite3_column_double(s, 2), sqlite3_column_double(s, 3) };
    if (!list || !v.size)
        return out_of_memory(x);
    if (!(v.prefill > 0) || !(v.decode > 0) || !(v.switch_s >= 0))
        return ns_fail(x->e, NS_EFORMAT, "%s: run %lld: speeds of size %s: %g and %g tokens/s, %g s a switch", x->file, (long long)p->id, v.size,
                       v.prefill, v.decode, v.switch_s);
    run->speed = list;
    run->speed[run->n_speeds++] = v;
    return 0;
}

/* ---- plans and samples ---- */

struct target {
    const struct place *p;
    ns_report_cell *cell;
};

static bool same_plan(const ns_report_plan *a, const ns_report_plan *b)
{
    return a->budget == b->budget && strcmp(a->think, b->think) == 0 && strcmp(a->answer, b->answer) == 0 && strcmp(a->handover, b->handover) == 0;
}

static ns_report_plan *plan_of(struct reader *x, ns_report_group *g, const ns_report_plan *like)
{
    for (int i = 0; i < g->n_plans; i++)
        if (same_plan(g->plan[i], like))
            return g->plan[i];
    ns_report_plan *p = ns_arena_alloc(&x->r->arena, sizeof *p), **list = grown(&x->r->arena, g->plan, g->n_plans, sizeof *list);
    if (!p || !list)
        return NULL;
    *p = *like;
    p->cell = ns_arena_array(&x->r->arena, (size_t)g->n_runs, sizeof *p->cell);
    g->plan = list;
    return p->cell ? g->plan[g->n_plans++] = p : NULL;
}

static int add_sample(struct reader *x, sqlite3_stmt *s, void *ctx)
{
    const struct target *t = ctx;
    const ns_report_group *g = t->p->g;
    const sqlite3_int64 at = sqlite3_column_int64(s, 0);
    if (at < 0 || at >= g->n_problems || !g->problem[at].asked)
        return ns_fail(x->e, NS_EFORMAT, "%s: run %lld: an answer to problem %lld, which is not there", x->file, (long long)t->p->id, (long long)at);
    ns_report_cell *c = &t->cell[at];
    const int chunk = g->run[t->p->run]->chunk;
    const double prompt = sqlite3_column_double(s, 2), thought = sqlite3_column_double(s, 3);
    c->n++;
    if (sqlite3_column_type(s, 1) != SQLITE_NULL) {
        c->graded++;
        c->correct += sqlite3_column_int(s, 1) != 0;
    }
    c->prompt += prompt;
    c->thought += thought;
    c->answer += sqlite3_column_double(s, 4);
    c->tail += prompt + thought < chunk ? prompt + thought : chunk;
    c->closed += sqlite3_column_int(s, 5) != 0;
    c->unended += sqlite3_column_int(s, 6) == 0;
    if (sqlite3_column_type(s, 7) != SQLITE_NULL) {
        c->timed++;
        c->seconds += sqlite3_column_double(s, 7);
    }
    return 0;
}

static int add_plan(struct reader *x, sqlite3_stmt *s, void *ctx)
{
    const struct place *p = ctx;
    ns_report_group *g = p->g;
    const ns_report_plan like = { .think = text(x, s, 1), .answer = text(x, s, 2),
                                  .budget = sqlite3_column_type(s, 3) == SQLITE_NULL ? NS_REPORT_TO_END : sqlite3_column_int64(s, 3),
                                  .handover = text(x, s, 4), .think_active = sqlite3_column_int64(s, 5), .answer_active = sqlite3_column_int64(s, 6),
                                  .think_bytes = sqlite3_column_int64(s, 7), .answer_bytes = sqlite3_column_int64(s, 8) };
    if (!like.think || !like.answer || !like.handover)
        return out_of_memory(x);
    ns_report_plan *plan = plan_of(x, g, &like);
    struct target t = { .p = p, .cell = plan ? plan->cell[p->run] : NULL }; /* there already: UNIQUE lets a NULL budget come twice */
    if (plan && !t.cell)
        t.cell = ns_arena_array(&x->r->arena, (size_t)g->n_problems + 1, sizeof *t.cell);
    if (!t.cell)
        return out_of_memory(x);
    plan->cell[p->run] = t.cell;
    return each(x, "SELECT problem, correct, prompt_tokens, thinking_tokens, answer_tokens, closed, ended, seconds FROM sample WHERE plan = ?1",
                sqlite3_column_int64(s, 0), add_sample, &t);
}

/* ---- files ---- */

static int check_version(struct reader *x, sqlite3_stmt *s, void *ctx)
{
    const int found = sqlite3_column_int(s, 0);
    (void)ctx;
    return found == NS_RESULTS_VERSION ? 0 : ns_fail(x->e, NS_EFORMAT, "%s: results of version %d; this nestar reads version %d", x->file, found, NS_RESULTS_VERSION);
}

static int open_file(struct reader *x)
{
    if (sqlite3_open_v2(x->file, &x->db, SQLITE_OPEN_READONLY, NULL) != SQLITE_OK)
        return x->db ? sql_failed(x) : out_of_memory(x);
    sqlite3_busy_timeout(x->db, 5000); /* an evaluation may be writing to it */
    if (each(x, "PRAGMA user_version", 0, check_version, NULL) != 0 || sqlite3_exec(x->db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK)
        return ns_fail(x->e, NS_EFORMAT, "%s: %s", x->file, sqlite3_errmsg(x->db));
    if (each(x, "SELECT id, created, version, checkpoint, options, machine, fingerprint, task, task_hash FROM run ORDER BY id", 0, add_run, NULL) != 0)
        return -1;
    return x->n_places ? 0 : ns_fail(x->e, NS_EFORMAT, "%s: no run in it", x->file);
}

static int read_problems(struct reader *x)
{
    for (struct place *p = x->place; p < x->place + x->n_places; p++)
        if (each(x, "SELECT max(id), min(id) FROM problem WHERE run = ?1", p->id, count_problems, p) != 0 ||
            each(x, "SELECT id, kind, level FROM problem WHERE run = ?1", p->id, add_problem, p) != 0 ||
            each(x, "SELECT size, prefill_tokens_per_s, decode_tokens_per_s, switch_s FROM latency WHERE run = ?1", p->id, add_speed, p) != 0)
            return -1;
    return 0;
}

static int read_plans(struct reader *x)
{
    for (struct place *p = x->place; p < x->place + x->n_places; p++)
        if (each(x, "SELECT id, think, answer, budget, handover, think_active, answer_active, think_bytes, answer_bytes FROM plan WHERE run = ?1 "
                 "ORDER BY id", p->id, add_plan, p) != 0)
            return -1;
    return 0;
}

int ns_report_read(ns_report *r, const char *const *files, int n, ns_err *e)
{
    struct reader *x = calloc((size_t)n, sizeof *x);
    int rc = x ? 0 : ns_fail(e, NS_ENOMEM, "results: out of memory");
    for (int i = 0; i < n && rc == 0; i++) {
        x[i] = (struct reader){ .r = r, .file = files[i], .e = e };
        rc = open_file(&x[i]);
    }
    /* Runs and problems of all files first: they say how long the arrays of a group's plans are. */
    for (int i = 0; i < n && rc == 0; i++)
        rc = read_problems(&x[i]);
    for (int i = 0; i < n && rc == 0; i++)
        rc = read_plans(&x[i]);
    for (int i = 0; x && i < n; i++) {
        sqlite3_close(x[i].db);
        free(x[i].place);
    }
    free(x);
    return rc;
}

void ns_report_release(ns_report *r)
{
    ns_arena_release(&r->arena);
    *r = (ns_report){ 0 };
}
