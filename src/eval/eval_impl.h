/* What the parts of an evaluation share: eval.c runs it, eval_plan.c makes the plans, eval_out.c writes answers, eval_rows.c counts. */
#ifndef NS_EVAL_IMPL_H
#define NS_EVAL_IMPL_H
#include "base/file.h"
#include "eval/eval.h"
#include "eval/results.h"
#include "eval/task_kind.h"

enum { NS_EVAL_LABEL = 140 };

/* An answer, as far as it is counted. */
struct answer {
    bool there, closed, ended;
    unsigned char grade; /* enum ns_grade */
    int prompt, thought, tokens;
    char *marks;         /* verdicts on single instructions, NULL; owned */
};

/* One row of the report: a pass' sizes under one of its budgets. */
struct plan {
    int budget;
    int64_t id;              /* in the store */
    ns_results_totals before;  /* what earlier processes spent on it */
    ns_results_totals totals;
    struct answer *answer;   /* [problems * samples] */
};

/* Plans that are answered together: the same sizes, with thinking or without. */
struct pass {
    char think[64], answer[64], label[NS_EVAL_LABEL];
    ns_cut think_cut, answer_cut;
    bool two;                /* sizes */
    bool off;                /* no thinking */
    enum ns_handover handover;
    struct plan *plan;       /* [n] budgets ascending */
    int *limit;              /* [n] the budgets in tokens, inf replaced */
    int n;
};

struct eval {
    ns_engine *en;
    const ns_task *t;
    const ns_eval_opts *o;
    struct pass *pass;       /* [n_passes] */
    int n_passes;
    int n_answers;           /* problems * samples */
    ns_outfile out;          /* not open: none */
    ns_results *store;         /* NULL: none */
    int64_t run;
    /* while a pass runs */
    struct pass *now;
    const ns_gen_stats *stats;
    const int *todo;         /* indices of answers, in the order that generation is given */
    int *prompt_tokens;      /* [n_answers] */
    double started, pass_started;
    long done, total, done_before;
    double tokens;           /* generated in this process, for the progress */
    bool interrupted;
};

int ns_eval_make_passes(struct eval *v, ns_err *e);
void ns_eval_free_passes(struct eval *v);
int ns_eval_open_store(struct eval *v, ns_err *e); /* finds the run and takes over its answers */
int ns_eval_take(struct eval *v, const ns_gen_answer *a, ns_err *e); /* grades, counts and writes one */
int ns_eval_save_totals(struct eval *v, const struct pass *p, ns_err *e);
json_t *ns_eval_budget(int budget);
json_t *ns_eval_rows(const struct eval *v, ns_err *e);
int ns_eval_latency(struct eval *v, ns_err *e); /* of every size, into the store */
#endif
