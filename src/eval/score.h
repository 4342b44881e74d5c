/* Is an answer right, and what does a share of right answers say? */
#ifndef NS_EVAL_SCORE_H
#define NS_EVAL_SCORE_H
#include <stdbool.h>
#include <stddef.h>

typedef struct ns_text {
    const char *p; /* borrowed, not NUL-terminated */
    size_t n;
} ns_text;

/* Without white space at both ends. */
ns_text ns_answer_trim(const char *p, size_t n);
/* The answer in what a model said: all that is behind the last "</think>", trimmed. */
ns_text ns_answer_extract(const char *p, size_t n);
bool ns_answer_is(ns_text answer, const char *expected);

/* Wilson's score interval (1927) for k of n at 95 %: [*lo, *hi]; n 0 gives [0, 1]. */
void ns_wilson(long k, long n, double *lo, double *hi);
/* The same for a share p of n, where n may be an effective number of observations. */
void ns_wilson_share(double p, double n, double *lo, double *hi);
#endif
