/* Many prompts answered, many sequences a step, under one or more budgets of thought; the thought at one size, the answer at the same
 * or another. The rule of closing is run/thought.h's, so an answer is what `nestar run` gives under the same plan.
 *
 * A thought is what comes before "</think>". Where it reaches a budget it is closed by force and the answer drawn; the sequence then goes
 * back to the mark and thinks on towards the next budget. So all budgets together cost one pass and their answers, and each answer is
 * what a run with that budget alone would give. Sequences come and go: one that ends makes room for the next prompt. Memory is that of
 * `batch` states, one mark each, and one step. */
#ifndef NS_EVAL_GENERATE_H
#define NS_EVAL_GENERATE_H
#include <signal.h>

#include "run/engine.h"

typedef struct ns_gen_opts {
    int batch;                   /* sequences at a time, 1 .. NS_STEP_TOKENS */
    const ns_cut *answer;        /* the size that answers; NULL: the one that thinks */
    enum ns_handover handover;   /* from the one to the other; late is prefill here */
    const int *budget;           /* [n_budgets] tokens of thought, ascending, each at least 1 */
    int n_budgets;               /* 0: there is no thought, everything generated is the answer */
    int grace;                   /* tokens beyond a budget in which the thought may come to the end of a line */
    const char *close;           /* what closes a thought; NULL: the checkpoint's own (ns_engine_close_text) */
    int max_answer;              /* tokens */
    const ns_sampling *sampling; /* NULL: greedy. Prompt i draws with seed + i, whatever runs beside it */
    const volatile sig_atomic_t *interrupted; /* may be NULL */
} ns_gen_opts;

typedef struct ns_gen_answer {
    int prompt, budget;   /* indices */
    const int *thought;   /* [n_thought] */
    const int *ids;       /* [n_ids] the answer, without the token that ended it */
    int n_thought, n_ids;
    bool closed;          /* the budget closed the thought */
    bool ended;           /* by a stop token, not by max_answer */
} ns_gen_answer;

typedef struct ns_gen_stats {
    size_t prompt_tokens, tokens; /* tokens: generated, those that close a thought included */
    double seconds;
    bool interrupted;
    enum ns_handover handover; /* what "auto" came to: cache or prefill */
} ns_gen_stats;

/* Where prompts come from and answers go to. `prompt` appends the ids of prompt i; `answer` is called once per prompt and budget, in the
 * order in which they finish. Either ends the run by returning -1 with the error filled. */
typedef struct ns_gen_io {
    void *ctx;
    int n_prompts;
    int (*prompt)(void *ctx, int i, ns_ids *out, ns_err *e);
    int (*answer)(void *ctx, const ns_gen_answer *a, ns_err *e);
} ns_gen_io;

/* An interruption is no error: what had finished was handed out, stats->interrupted is set. */
int ns_gen_run(const ns_engine *en, const ns_cut *cut, const ns_gen_opts *o, const ns_gen_io *io, ns_gen_stats *stats, ns_err *e);
#endif
