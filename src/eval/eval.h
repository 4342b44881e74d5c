/* Measures a checkpoint on a task: every plan, that is every size (or two, one that thinks and one that answers) under every budget of
 * thought, on every problem, one or more times. With a results file (eval/results.h) answers are kept as they come, and a run that was
 * stopped goes on where it was. */
#ifndef NS_EVAL_EVAL_H
#define NS_EVAL_EVAL_H
#include <limits.h>

#include "eval/generate.h"
#include "eval/task.h"

enum { NS_EVAL_OFF = 0 /* thinking is off: the template opens no thought */, NS_EVAL_INF = INT_MAX /* up to max_thought */ };

typedef struct ns_eval_pair {
    const char *think, *answer; /* sizes; the same twice is one size */
} ns_eval_pair;

typedef struct ns_eval_progress {
    const char *plan;         /* "small", "small:full" */
    long done, total;         /* answers, those of earlier runs included */
    double tokens_per_second; /* of this process */
    double seconds_left;      /* -1: not known yet */
} ns_eval_progress;

typedef struct ns_eval_opts {
    const char *const *sizes; /* [n_sizes] as --size: one size that thinks and answers */
    int n_sizes;
    const ns_eval_pair *pairs; /* [n_pairs] */
    int n_pairs;
    const enum ns_handover *handovers; /* [n_handovers] for pairs of two sizes: CACHE, PREFILL, LATE; each is a plan. AUTO is one of these */
    int n_handovers;
    const int *budgets;       /* [n_budgets] tokens of thought, NS_EVAL_OFF (pairs of two sizes leave it out), NS_EVAL_INF; each once */
    int n_budgets;
    int batch, max_thought, max_answer, grace;
    int samples;              /* of each problem; more than one needs `sampling` */
    const ns_sampling *sampling; /* NULL: greedy */
    const char *answers;      /* a JSONL file with every answer; NULL */
    const char *results;      /* an SQLite file; NULL */
    const char *checkpoint, *nest_path, *task; /* as given; for the results file */
    const volatile sig_atomic_t *interrupted; /* may be NULL */
    void (*progress)(void *ctx, const ns_eval_progress *p); /* may be NULL */
    void *progress_ctx;
} ns_eval_opts;
/* Full size, thinking to the end; batch 32, 512 tokens of thought, 64 of answer; prefill as the handover; one greedy answer. */
ns_eval_opts ns_eval_defaults(void);

/* {"task", "problems": n, "samples", "interrupted": bool, "rows": [{"size" ("a:b" for two), "budget" (a number, "off", "inf"), "handover"
 * (two sizes), "n" (graded answers), "correct", "ungraded" (where there are), "accuracy", "low", "high" (95 %; eval/score.h), "pass_at"
 * ({"1": .., "2": ..}, several samples), "thinking_tokens", "answer_tokens" (means), "closed" (thoughts closed by the budget), "unfinished"
 * (answers cut at max_answer), "tokens_per_second" (of the passes that answered it), "kinds": {name: {"n", "correct"}}, "levels": {..}}]}.
 * For tasks of instructions "kinds" are single instructions. Rows without an answer, after an interruption, are left out. NULL on failure. */
json_t *ns_eval_run(ns_engine *en, const ns_task *t, const ns_eval_opts *o, ns_err *e);
#endif
