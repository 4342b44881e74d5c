/* Reasoning problems that a program makes and can check: what the bundled small model is trained on and measured by.
 * A problem is a question, the steps to its answer (one short line each), and the answer, alone and in plain digits. Numbers stay
 * small, so that what is learnt is following steps, and what an answer without steps lacks is exactly the steps:
 *   chain  Start with 7. Add 5. Multiply by 3.       7+5=12 / 12*3=36
 *   vars   Let m=k+4, k=3, q=m-2. Find q.            k=3 / m=3+4=7 / q=7-2=5
 *   list   Take 4193. Reverse. Sort. Drop.           Reverse 3914 / Sort 1349 / Drop 349
 *   expr   Compute (3+4)*(5-1).                      7*(5-1) / 7*4 / 28
 *   sum    Compute 47+86.                            7+6+0=13 / 4+8+1=13
 * The level is the number of steps. Whether a problem is for training or for testing is decided by its question's hash: no question is
 * ever both. Problem i of a seed is the same whatever the count. */
#ifndef NS_TRAIN_PROBLEMS_H
#define NS_TRAIN_PROBLEMS_H
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

typedef enum ns_problem_kind { NS_PROBLEM_CHAIN, NS_PROBLEM_VARS, NS_PROBLEM_LIST, NS_PROBLEM_EXPR, NS_PROBLEM_SUM, NS_PROBLEM_KINDS } ns_problem_kind;

const char *ns_problem_kind_name(ns_problem_kind k);
int ns_problem_kind_find(const char *name); /* -1: none */

typedef enum ns_problem_split { NS_PROBLEM_TRAIN, NS_PROBLEM_TEST, NS_PROBLEM_BOTH } ns_problem_split;

enum { NS_PROBLEM_LEVEL_MAX = 12, NS_PROBLEM_TEST_SHARE = 16 /* one question in so many is a test question */ };

typedef struct ns_problem_opts {
    uint64_t seed;
    unsigned kinds;      /* bit per kind */
    int level_lo, level_hi;
    ns_problem_split split;
    double no_think;     /* share of lines whose answer comes without steps */
    double cut;          /* share of lines whose steps break off somewhere, and the answer comes all the same */
} ns_problem_opts;
/* All kinds, levels 2 to 6. For training 0.15 without steps and 0.1 cut; for testing neither. */
ns_problem_opts ns_problem_defaults(ns_problem_split split);

typedef struct ns_problem {
    ns_problem_kind kind;
    int level;
    ns_buf question, thought, answer; /* owned, reused by the next make; thought lines have '\n' between them */
} ns_problem;

int ns_problem_make(const ns_problem_opts *o, uint64_t index, ns_problem *out, ns_err *e);
void ns_problem_release(ns_problem *p);
ns_problem_split ns_problem_split_of(const char *question);

/* Appends problem `index` as a line of training data: {"messages": [..], "answer", "kind", "level"}. A cut one is a prompt that ends
 * behind the broken thought, and a completion, so that nothing teaches to break off. */
int ns_problem_line(const ns_problem_opts *o, uint64_t index, ns_problem *scratch, ns_buf *out, ns_err *e);
int ns_problems_write(const ns_problem_opts *o, uint64_t count, const char *path, ns_err *e);
#endif
