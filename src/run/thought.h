/* Where a thought ends: the one rule, for a session's answer (run/answer.c) and for batches of them (eval/generate.c).
 * A thought lies between the tokens "<think>" and "</think>"; text that only spells them is text. It has a budget in tokens. At the budget
 * it is closed by force: within the grace at the first token that has a line break in it, else after budget + grace tokens. What is put in
 * is the rule's text, or, where the thought is empty or ends with a line, that text from "</think>" on. A budget of 0 closes a thought
 * before its first token, without grace. Pure: tokens in, decisions out. */
#ifndef NS_RUN_THOUGHT_H
#define NS_RUN_THOUGHT_H
#include <limits.h>

#include "text/tokenizer.h"

enum { NS_THOUGHT_FREE = INT_MAX };

typedef struct ns_thought_rule {
    int open, close; /* the ids of the marks; -1: the vocabulary has none, and there are no thoughts */
    ns_ids text;     /* what closes a thought; owned */
    size_t marker;   /* where in it `close` stands */
    int grace;
} ns_thought_rule;

/* `text` must hold "</think>". Without a tokenizer, or without the marks in it, the rule knows no thoughts. */
int ns_thought_rule_init(ns_thought_rule *r, const ns_tokenizer *t, const char *text, int grace, ns_err *e);
void ns_thought_rule_release(ns_thought_rule *r);

typedef struct ns_thought {
    enum ns_phase phase; /* THINK or ANSWER: what the next token belongs to */
    bool may_open;     /* nothing was said yet: a "<think>" now begins a thought */
    bool closed;       /* by force */
    bool line, ends;   /* the last token of the thought has a line break in it; ends in one (or there is none yet) */
    int budget, n;     /* tokens of thought: at most, so far */
} ns_thought;

enum ns_thought_step {
    NS_THOUGHT_ON,    /* go on */
    NS_THOUGHT_OVER,  /* the model ended the thought, the answer begins */
    NS_THOUGHT_CLOSE  /* the budget is used up: ns_thought_close, then the answer begins */
};

/* Behind a prompt: inside a thought where it left one open. */
enum ns_thought_step ns_thought_begin(ns_thought *t, const ns_thought_rule *r, const ns_tokenizer *tok, int budget, const int *prompt, size_t n);
/* A token was sampled; bytes[0..n) are its text. */
enum ns_thought_step ns_thought_take(ns_thought *t, const ns_thought_rule *r, int id, const char *bytes, size_t n);
/* Would this budget close the thought where it is now? */
bool ns_thought_due(const ns_thought *t, const ns_thought_rule *r, int budget);
/* Closes it: the ids to put in. Also before its budget, when time runs out. */
void ns_thought_close(ns_thought *t, const ns_thought_rule *r, const int **ids, size_t *n);
#endif
