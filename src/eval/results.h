/* Results of evaluations in one SQLite file, written as answers come. A file holds many runs; a run is one checkpoint on one task under one
 * set of options, and a plan of it is how problems were answered: sizes, budget of thought, handover. Writing goes through transactions
 * that are committed about once a second: a process that is killed loses that second and nothing else, and the same command goes on. */
#ifndef NS_EVAL_RESULTS_H
#define NS_EVAL_RESULTS_H
#include "base/err.h"
#include "eval/grade.h"

typedef struct ns_results ns_results;

/* Makes the file where there is none; refuses one that is no database of this layout. */
ns_results *ns_results_open(const char *path, ns_err *e);
void ns_results_close(ns_results *s); /* what is not committed is lost; NULL is allowed */
int ns_results_commit(ns_results *s, ns_err *e);
bool ns_results_due(const ns_results *s); /* the last commit was a second ago */

typedef struct ns_results_run {
    const char *checkpoint, *fingerprint, *task, *options, *machine; /* the last two: JSON */
} ns_results_run;
/* The run with this fingerprint, task (by its hash) and options, made where there is none. */
int ns_results_find_run(ns_results *s, const ns_results_run *r, const ns_task *t, int64_t *id, ns_err *e);

typedef struct ns_results_plan {
    const char *think, *answer, *handover;
    int64_t budget; /* -1: to the end */
    int64_t think_active, answer_active, think_bytes, answer_bytes;
} ns_results_plan;
typedef struct ns_results_totals { /* of a plan's batched passes */
    int64_t prompt_tokens, tokens;
    double seconds;
} ns_results_totals;
int ns_results_find_plan(ns_results *s, int64_t run, const ns_results_plan *p, int64_t *id, ns_results_totals *so_far, ns_err *e);
int ns_results_set_totals(ns_results *s, int64_t plan, const ns_results_totals *t, ns_err *e);

typedef struct ns_results_sample {
    int problem, sample;
    enum ns_grade grade;
    const char *extracted, *output; /* output: the thought, "</think>" and the answer; without thinking the answer alone */
    int prompt_tokens, thinking_tokens, answer_tokens;
    bool closed, ended;
} ns_results_sample;
int ns_results_add(ns_results *s, int64_t plan, const ns_results_sample *a, ns_err *e);
/* Every answer of a plan so far, in the order of problems and samples. */
int ns_results_each(ns_results *s, int64_t plan, int (*fn)(void *ctx, const ns_results_sample *a, ns_err *e), void *ctx, ns_err *e);

typedef struct ns_results_latency {
    double prefill, decode, change; /* tokens/s, tokens/s, seconds */
} ns_results_latency;
bool ns_results_has_latency(ns_results *s, int64_t run, const char *size);
int ns_results_set_latency(ns_results *s, int64_t run, const char *size, const ns_results_latency *l, ns_err *e);
#endif
