/* Measures a checkpoint on a task: every size under every budget of thought, answered greedily, compared exactly. */
#ifndef NS_EVAL_EVAL_H
#define NS_EVAL_EVAL_H
#include <limits.h>

#include "eval/generate.h"
#include "eval/task.h"

enum { NS_EVAL_OFF = 0 /* thinking is off: the template opens no thought */, NS_EVAL_INF = INT_MAX /* up to max_thought */ };

typedef struct ns_eval_opts {
    const char *const *sizes; /* [n_sizes] as --size */
    int n_sizes;
    const int *budgets;       /* [n_budgets] tokens of thought, NS_EVAL_OFF, NS_EVAL_INF; in any order, each once */
    int n_budgets;
    int batch, max_thought, max_answer;
    const char *results;      /* a JSONL file with every answer; NULL */
    const volatile sig_atomic_t *interrupted; /* may be NULL */
    void (*progress)(void *ctx, const char *size, int done, int total); /* answers; may be NULL */
    void *progress_ctx;
} ns_eval_opts;
/* Full size, thinking to the end; batch 32, 512 tokens of thought, 64 of answer. */
ns_eval_opts ns_eval_defaults(void);

/* {"problems": n, "interrupted": bool, "rows": [{"size", "budget" (a number, "off", "inf"), "n", "correct", "accuracy", "low", "high" (Wilson, 95 %),
 * "thinking_tokens", "answer_tokens" (means), "closed" (thoughts closed by the budget), "unfinished" (answers cut at max_answer),
 * "tokens_per_second" (of the pass that answered it), "kinds": {name: {"n", "correct"}}, "levels": {..}}]}. Rows without an answer, after an
 * interruption, are left out. NULL on failure. */
json_t *ns_eval_run(const ns_engine *en, const ns_task *t, const ns_eval_opts *o, ns_err *e);
#endif
