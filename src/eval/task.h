/* A task: problems with one right answer each, from a JSONL file. A line is {"messages": [..], "answer": ".."} or {"question": "..",
 * "answer": ".."}, with "kind" (a string) and "level" (an integer) where results are to be told apart by them. Messages behind the last
 * one that is not an assistant's are the solution and left out. */
#ifndef NS_EVAL_TASK_H
#define NS_EVAL_TASK_H
#include "base/json.h"

typedef struct ns_task_item {
    json_t *messages;  /* what is asked; owned */
    char *answer;      /* white space at both ends is gone; owned */
    char *kind;        /* NULL; owned */
    int level;         /* -1: none */
} ns_task_item;

typedef struct ns_task {
    ns_task_item *item; /* [n] */
    int n;
} ns_task;

/* The first `limit` problems, 0: all. A bad line is an error with its number; blank lines are skipped. */
int ns_task_open(const char *path, int limit, ns_task *out, ns_err *e);
void ns_task_release(ns_task *t);
#endif
