/* A task: problems that can be graded, read from a file that the user has. Own problems are JSONL: a line is {"messages": [..], "answer":
 * ".."} or {"question": "..", "answer": ".."}, with "kind" (a string) and "level" (an integer) where results are to be told apart by them;
 * messages behind the last one that is not an assistant's are the solution and left out. Published benchmarks are read in the forms in
 * which they are published (docs/EVAL.md). */
#ifndef NS_EVAL_TASK_H
#define NS_EVAL_TASK_H
#include "base/json.h"

enum ns_grade { NS_GRADE_WRONG, NS_GRADE_RIGHT, NS_GRADE_NONE /* no rule for it */ };

typedef struct ns_task_item {
    json_t *messages;  /* what is asked; owned */
    char *answer;      /* white space at both ends is gone; "" where `check` says it all; owned */
    char *kind;        /* NULL; owned */
    char *key;         /* the problem's name in its file, NULL; owned */
    json_t *check;     /* IFEval: {"prompt", "ids", "kwargs"}; NULL; owned */
    int level;         /* -1: none */
} ns_task_item;

struct ns_task_kind;
typedef struct ns_task {
    const struct ns_task_kind *kind;
    ns_task_item *item; /* [n] */
    int n;
    char hash[17];      /* of everything in the items, hexadecimal */
} ns_task;

/* `spec` is FILE.jsonl of own problems, or NAME:PATH (ns_task_names) with a file or a folder. The first `limit` problems, 0: all. A bad
 * line is an error with its number; blank lines are skipped. */
int ns_task_open(const char *spec, int limit, ns_task *out, ns_err *e);
void ns_task_release(ns_task *t);
const char *ns_task_names(void); /* "gsm8k, aime, .." */
#endif
