/* Graders: is what a model said the answer of this problem? One function per rule; the table of tasks (task_table.c) says which task uses
 * which. A grader extracts the answer by its rule, puts what it found into `extracted` and compares. It never guesses: what it has no
 * rule for is NS_GRADE_NONE, which counts neither as right nor as wrong. */
#ifndef NS_EVAL_GRADE_H
#define NS_EVAL_GRADE_H
#include "base/buf.h"
#include "eval/score.h"
#include "eval/task.h"

/* `said`: the answer without the thought, trimmed. */
typedef enum ns_grade ns_grade_fn(const ns_task_item *item, ns_text said, ns_buf *extracted);

ns_grade_fn ns_grade_exact;        /* all that was said */
ns_grade_fn ns_grade_number;       /* GSM8K: behind ####, else the last number */
ns_grade_fn ns_grade_aime;         /* an integer 0 .. 999: the last box, else the last number */
ns_grade_fn ns_grade_math;         /* the last \boxed{}, LaTeX normalised */
ns_grade_fn ns_grade_letter4;      /* A .. D */
ns_grade_fn ns_grade_letter10;     /* A .. J */
ns_grade_fn ns_grade_bbh;          /* behind "the answer is", else the last line, in the target's own form */
ns_grade_fn ns_grade_instructions; /* IFEval, IFBench: every instruction of item->check followed */

/* The number in `s` in one spelling: no sign of plus, no commas, no currency, no zeros that say nothing ("-1,200.50" is "-1200.5").
 * False where s is no such number. */
bool ns_number_canonical(ns_text s, ns_buf *out);
/* The last number in a text, canonical; false without one. */
bool ns_number_last(ns_text s, ns_buf *out);
/* The content of the last \boxed{..} or \fbox{..}, braces balanced; p is NULL without one. */
ns_text ns_boxed_last(ns_text s);
/* LaTeX in one spelling, and whether two answers in that spelling are the same. */
void ns_math_normal(ns_text s, ns_buf *out);
bool ns_math_same(const char *a, const char *b);

/* One verifiable instruction. `prompt` is what the user was asked. */
typedef struct ns_instruction {
    const json_t *kwargs; /* object */
    const char *prompt;
} ns_instruction;
typedef enum ns_grade ns_instruction_fn(const ns_instruction *in, ns_text said);
typedef struct ns_instruction_kind {
    const char *id;
    ns_instruction_fn *check;
} ns_instruction_kind;
extern const ns_instruction_kind ns_ifeval_kinds[], ns_ifbench_kinds[], ns_ifbench_word_kinds[], ns_ifbench_form_kinds[],
    ns_ifbench_custom_kinds[]; /* end with id NULL */
/* NONE for an id without a rule. */
enum ns_grade ns_instruction_check(const char *id, const json_t *kwargs, const char *prompt, ns_text said);
#endif
