/* Before a token is drawn: how likely each is, and which may not come. */
#include <math.h>

#include "run/sched_impl.h"

/* Likeliest first; the lower id at a tie. */
static void insert(ns_sched_top *top, int *have, int n, int id, float x)
{
    int at = *have < n ? (*have)++ : n - 1;
    for (; at > 0 && top[at - 1].logprob < x; at--)
        top[at] = top[at - 1];
    top[at] = (ns_sched_top){ id, x };
}

double ns_sched_likeliest(const float *logits, int vocab, int n, ns_sched_top *top)
{
    double max = (double)logits[0], sum = 0.0;
    int have = 0;
    for (int i = 1; i < vocab; i++)
        max = (double)logits[i] > max ? (double)logits[i] : max;
    for (int i = 0; i < vocab; i++) {
        sum += exp((double)logits[i] - max);
        if (n && (have < n || logits[i] > top[n - 1].logprob))
            insert(top, &have, n, i, logits[i]);
    }
    sum = max + log(sum);
    for (int i = 0; i < have; i++)
        top[i].logprob = (float)((double)top[i].logprob - sum);
    return sum;
}

enum ns_sched_choice ns_sched_constrain(ns_sched *s, ns_job *j)
{
    int vocab = s->en->model.arch->vocab_size, words = (vocab + 63) / 64, left = 0, opens = ns_answer_may_open(j->answer);
    memset(s->bits, 0, (size_t)words * sizeof *s->bits);
    if (!j->asked.allow.mask(j->asked.allow.ctx, s->bits))
        return NS_CHOICE_SOME;
    if (opens >= 0) /* a thought is nobody's to forbid */
        s->bits[opens / 64] |= 1ull << opens % 64;
    for (int i = 0; i < vocab; i++) {
        if (s->bits[i / 64] >> i % 64 & 1)
            left++;
        else
            j->session->logits[i] = -INFINITY;
    }
    return left ? NS_CHOICE_SOME : NS_CHOICE_NONE;
}
