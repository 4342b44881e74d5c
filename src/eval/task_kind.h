/* The tasks: one row each. What a reader does and what readers share. */
#ifndef NS_EVAL_TASK_KIND_H
#define NS_EVAL_TASK_KIND_H
#include "eval/grade.h"
#include "eval/task.h"

/* Where a reader puts problems: `add` takes over nothing, copies everything. */
typedef struct ns_task_reader {
    ns_task *task;
    int limit;        /* 0: none */
    const char *file; /* being read */
    const char *ask;  /* how the answer is to be given, in the user's message */
} ns_task_reader;

typedef struct ns_task_kind {
    const char *name, *ext;  /* files of a folder that are read: "jsonl" */
    const char *ask;         /* NULL: nothing is added to the question */
    int (*line)(ns_task_reader *r, const json_t *line, ns_err *e); /* one line of JSONL, an object */
    int (*file)(ns_task_reader *r, const char *text, size_t n, ns_err *e); /* a whole file, where a line is not all */
    ns_grade_fn *grade;
    const char *rule;        /* for documents and --help */
} ns_task_kind;
extern const ns_task_kind ns_task_kinds[]; /* the first is own problems; ends with name NULL */

/* One problem: messages or question (with `ask` behind it), and the rest. NULL where something is not there. */
typedef struct ns_problem {
    const json_t *messages;
    const char *question, *answer, *kind, *key;
    int level;      /* -1: none */
    const json_t *check;
} ns_problem;
int ns_task_add(ns_task_reader *r, const ns_problem *p, ns_err *e);
bool ns_task_full(const ns_task_reader *r);

int ns_read_own(ns_task_reader *r, const json_t *line, ns_err *e);
int ns_read_gsm8k(ns_task_reader *r, const json_t *line, ns_err *e);
int ns_read_aime(ns_task_reader *r, const json_t *line, ns_err *e);
int ns_read_math(ns_task_reader *r, const json_t *line, ns_err *e);
int ns_read_mmlu_pro(ns_task_reader *r, const json_t *line, ns_err *e);
int ns_read_instructions(ns_task_reader *r, const json_t *line, ns_err *e);
int ns_read_bbh(ns_task_reader *r, const char *text, size_t n, ns_err *e);
int ns_read_mmlu(ns_task_reader *r, const char *text, size_t n, ns_err *e);
#endif
