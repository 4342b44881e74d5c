#include "eval/score.h"

#include <math.h>
#include <string.h>

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

ns_text ns_answer_trim(const char *p, size_t n)
{
    while (n && is_space(p[n - 1]))
        n--;
    while (n && is_space(*p)) {
        p++;
        n--;
    }
    return (ns_text){ p, n };
}

ns_text ns_answer_extract(const char *p, size_t n)
{
    static const char close[] = "</think>";
    const size_t len = sizeof close - 1;
    for (size_t at = n; n >= len && at >= len; at--)
        if (memcmp(p + at - len, close, len) == 0)
            return ns_answer_trim(p + at, n - at);
    return ns_answer_trim(p, n);
}

bool ns_answer_is(ns_text answer, const char *expected)
{
    return answer.n == strlen(expected) && memcmp(answer.p, expected, answer.n) == 0;
}

/* Share p of m answers. */
static void wilson(double p, double m, double *lo, double *hi)
{
    const double z = 1.959963984540054; /* two-sided 95 % */
    *lo = 0.0;
    *hi = 1.0;
    if (m <= 0.0)
        return;
    double mid = p + z * z / (2.0 * m), half = z * sqrt(p * (1.0 - p) / m + z * z / (4.0 * m * m));
    if (p > 0.0) /* exactly 0 and 1 at the ends, which rounding would miss */
        *lo = (mid - half) / (1.0 + z * z / m);
    if (p < 1.0)
        *hi = (mid + half) / (1.0 + z * z / m);
}

void ns_wilson(long k, long n, double *lo, double *hi)
{
    wilson(n > 0 ? (double)k / (double)n : 0.0, (double)n, lo, hi);
}

void ns_wilson_clustered(double mean, double var, long problems, long answers, double *lo, double *hi)
{
    double least = (double)problems, most = (double)answers, n = var > 0.0 ? mean * (1.0 - mean) * least / var : mean > 0.0 && mean < 1.0 ? most : least;
    wilson(mean, n < least ? least : n > most ? most : n, lo, hi);
}

double ns_pass_at(int n, int c, int k)
{
    double none = 1.0; /* of k drawn without putting back */
    for (int i = 0; i < k; i++)
        none *= n - c - i > 0 ? (double)(n - c - i) / (n - i) : 0.0;
    return 1.0 - none;
}
