/* An answer by a deadline: what the rest of it will take, from the measured speed of each size.
 * A size's step and read times are measured once, on an empty state; `load` is how much longer steps take than that now (a longer context,
 * other work on the machine) and holds for all sizes. Arithmetic only; the times come from outside. */
#ifndef NS_RUN_PACE_H
#define NS_RUN_PACE_H
#include <stdbool.h>

enum { NS_PACE_SIZES = 64 };

typedef struct ns_pace {
    double end;         /* the deadline, on the answer's clock; 0: there is none */
    int answer_tokens;  /* that time is kept for */
    double load;        /* moving mean of measured / first measured; 1 at first */
    int n;
    struct {
        const char *name;
        double step, read; /* seconds of a decode step; per token of a text that is read */
    } size[NS_PACE_SIZES];
} ns_pace;

/* What is still to come when a thought is closed: `unread` tokens to read and `put` tokens of closing text, at size i. */
double ns_pace_reserve(const ns_pace *p, int answer, int unread, int put);
/* Would one more token of thought take what the answer needs? */
bool ns_pace_must_close(const ns_pace *p, double now, int think, int answer, int unread, int put);
/* Would one more token come too late? */
bool ns_pace_over(const ns_pace *p, double now, int answer);
/* A step of size i took so long. */
void ns_pace_took(ns_pace *p, int i, double seconds);
/* Sizes, widest first, for a prompt of `prompt` tokens when nothing was asked for: the answer at the widest that leaves half of the time,
 * the thought at the widest that then has time for as many tokens as the answer; else the last. `cache` hands over without reading. */
void ns_pace_choose(const ns_pace *p, double now, int prompt, bool cache, int *think, int *answer);
#endif
