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
/* The same where problems were answered several times: answers to one problem are not independent. `mean` and `var` are those of the
 * problems' own shares (var: the sample variance). It is Wilson's interval for the number of independent answers that would spread as
 * much: mean (1 - mean) / (var / problems), held between the number of problems and the number of answers. */
void ns_wilson_clustered(double mean, double var, long problems, long answers, double *lo, double *hi);
/* The chance that one of k answers is right, from n answers of which c were: 1 - C(n-c, k) / C(n, k), unbiased (Chen et al., 2021).
 * 1 <= k <= n. */
double ns_pass_at(int n, int c, int k);
#endif
