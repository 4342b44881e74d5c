/* What the results of `nestar eval` say: runs are read from SQLite files into one struct, figures are worked out in it, and a page,
 * figures and a model card are written from it. Reading knows SQL and nothing of statistics; computing knows neither SQL nor HTML.
 *
 * Runs belong to one group where checkpoint (its fingerprint), task and the task's problems are the same; their answers are pooled, plan
 * by plan. A plan is a way to answer: the size that thinks, the size that answers, the budget of thought, and how the first hands over to
 * the second. All memory is the report's arena's. */
#ifndef NS_EVAL_REPORT_H
#define NS_EVAL_REPORT_H
#include <math.h>
#include <stdint.h>

#include "base/err.h"
#include "base/mem.h"

enum { NS_REPORT_TO_END = -1 /* a budget: thoughts that end by themselves */, NS_REPORT_CHUNK = 64 /* see ns_report_run.chunk */ };

typedef struct ns_report_speed { /* tokens a second, at batch 1 */
    const char *size;
    double prefill, decode, switch_s;
} ns_report_speed;

typedef struct ns_report_run {
    const char *file, *created, *version, *checkpoint, *options, *machine; /* options and machine are JSON */
    int chunk; /* tokens that a late handover has still to read when the thought ends: "chunk" of the options, or NS_REPORT_CHUNK */
    bool chunk_assumed;
    ns_report_speed *speed;
    int n_speeds;
} ns_report_run;

typedef struct ns_report_problem {
    const char *kind; /* NULL: none */
    int level;        /* -1: none */
    bool asked;       /* a run has it */
} ns_report_problem;

/* The answers of one plan to one problem in one run: counts and sums over its samples. */
typedef struct ns_report_cell {
    int n, graded, correct, closed, unended, timed;
    double prompt, thought, answer; /* tokens */
    double tail;                    /* tokens a late handover reads: the smaller of chunk and prefix, summed */
    double seconds;                 /* of the timed samples */
} ns_report_cell;

enum ns_report_latency { NS_LATENCY_NONE, NS_LATENCY_COMPUTED, NS_LATENCY_MEASURED };

typedef struct ns_report_plan {
    const char *think, *answer, *handover;
    int64_t budget; /* NS_REPORT_TO_END, 0: no thought */
    int64_t think_active, answer_active, think_bytes, answer_bytes;
    ns_report_cell **cell; /* [n_runs] -> [n_problems]; NULL where the run has not this plan */

    /* computed; means per answer */
    double *graded_of, *right_of, *n_of, *seconds_of; /* [n_problems] over all runs */
    long n, graded, right, closed, unended;
    double accuracy, lo, hi; /* mean over problems of the share of right among graded answers; 95 % */
    double prompt, thought, reply, seconds, bytes;
    enum ns_report_latency latency;
    bool complete; /* every problem has a graded answer; only then the plan is compared with others */
    bool pareto;
} ns_report_plan;

typedef struct ns_report_range {
    double value, lo, hi; /* NAN: not known */
} ns_report_range;

/* A mixed plan against ordinary budgets with its answering size alone. */
typedef struct ns_report_claim {
    int plan;               /* -1: the mean over the pair's plans */
    ns_report_range gain;   /* accuracy at equal latency */
    ns_report_range ratio;  /* latency of the one size at equal accuracy, over the plan's; INFINITY: the one size never gets there */
    int n_gain, n_ratio;    /* plans in the mean: those whose gain is known, whose ratio is finite */
} ns_report_claim;

typedef struct ns_report_pair {
    const char *think, *answer, *handover;
    ns_report_claim *claim; /* [n] by budget */
    int n;
    ns_report_claim mean;
} ns_report_pair;

typedef struct ns_report_size {
    const char *name;
    int64_t active, bytes;                /* parameters and bytes of one token */
    int64_t total, weight_bytes;          /* from the checkpoint; 0: not known */
    int plan;                             /* the one-size plan by which it is judged; -1: none */
    ns_report_range against_full;         /* difference of accuracy, paired */
} ns_report_size;

typedef struct ns_report_group {
    const char *fingerprint, *task, *task_hash;
    ns_report_run **run;
    ns_report_problem *problem;
    ns_report_plan **plan; /* by sizes, handover, budget; computed */
    ns_report_size *size;  /* the largest first; computed */
    ns_report_pair *pair;  /* computed */
    const char **kind;     /* computed */
    int *level;            /* ascending; computed */
    int n_runs, n_problems, n_plans, n_sizes, n_pairs, n_kinds, n_levels, n_draws;
} ns_report_group;

typedef struct ns_report_drift {
    const char *file, *size;
    double tokens, kl, worst_kl, agree, perplexity_a, perplexity_b, *layer;
    int n_layers;
} ns_report_drift;

typedef struct ns_report {
    ns_report_group **group;
    ns_report_drift *drift;
    int n_groups, n_drifts;
    double deadline; /* seconds asked for; 0: none */
    ns_arena arena;
} ns_report;

/* ---- report_write.c ---- */

/* The folder: index.html, MODEL_CARD.md, figures. */
int ns_report_write(const ns_report *r, const char *dir, ns_err *e);

/* ---- report_read.c, report_drift.c ---- */

int ns_report_read(ns_report *r, const char *const *files, int n, ns_err *e);
/* Adds the rows of `nestar compare --json`. */
int ns_report_read_drift(ns_report *r, const char *file, ns_err *e);
void ns_report_release(ns_report *r);

/* ---- report.c, report_claims.c ---- */

typedef struct ns_report_opts {
    int draws; /* of the bootstrap */
    uint64_t seed;
} ns_report_opts;
ns_report_opts ns_report_defaults(void);
/* Everything "computed" above, in every group. */
int ns_report_compute(ns_report *r, const ns_report_opts *o, ns_err *e);
int ns_report_claims(ns_arena *a, ns_report_group *g, const ns_report_opts *o, ns_err *e); /* its last step */

/* Seconds of a cell's answers at batch 1 by the speeds of its run; NAN where a speed is missing. */
double ns_report_cell_seconds(const ns_report_run *run, const ns_report_plan *p, const ns_report_cell *c);
bool ns_report_comparable(const ns_report_plan *p); /* complete, with a latency */
/* The most accurate plan within the deadline, the quicker of two; -1: there is none. */
int ns_report_best(const ns_report_group *g, double deadline);
/* The plans on the Pareto front by latency; malloc'ed, NULL when memory is out. */
ns_report_plan **ns_report_front(const ns_report_group *g, int *n);
/* Are the two accuracies told apart: do their intervals not overlap? */
bool ns_report_apart(const ns_report_plan *a, const ns_report_plan *b);
/* The accuracy of a plan on the problems of one kind and level (NULL, -1: of all); n: graded answers. */
ns_report_range ns_report_accuracy(const ns_report_group *g, const ns_report_plan *p, const char *kind, int level, long *n);

/* Two plans, problem by problem and run by run: a problem is right where at least half of its graded answers are. */
typedef struct ns_report_tally {
    long both, lost, won, neither; /* lost: right by the first, wrong by the second */
} ns_report_tally;
ns_report_tally ns_report_compare(const ns_report_group *g, const ns_report_plan *first, const ns_report_plan *second, const char *kind, int level);
/* Sign test: how likely a split of lost + won as uneven as this is where neither is better. */
double ns_report_sign_test(long lost, long won);

/* The curve of one size over its budgets, points in any order, read as "the best within this latency": accuracy at a latency, linear
 * between points, NAN below the first; the smallest latency with an accuracy, INFINITY where it never comes. */
double ns_report_curve_at(const double *seconds, const double *accuracy, int n, double t);
double ns_report_curve_reach(const double *seconds, const double *accuracy, int n, double wanted);
#endif
