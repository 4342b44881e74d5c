#include "run/sampler.h"

#include <math.h>
#include <stdlib.h>

int ns_sampling_check(const ns_sampling *o, ns_err *e)
{
    if (!(o->temperature >= 0.0) || !isfinite(o->temperature))
        return ns_fail(e, NS_EINVAL, "temperature %g: must be 0 or more", o->temperature);
    if (!(o->top_p > 0.0) || o->top_p > 1.0)
        return ns_fail(e, NS_EINVAL, "top_p %g: must be in (0, 1]", o->top_p);
    if (!(o->min_p >= 0.0) || o->min_p > 1.0)
        return ns_fail(e, NS_EINVAL, "min_p %g: must be in [0, 1]", o->min_p);
    if (o->top_k < 0)
        return ns_fail(e, NS_EINVAL, "top_k %d: must be 0 or more", o->top_k);
    if (!(o->repetition_penalty > 0.0) || !isfinite(o->repetition_penalty))
        return ns_fail(e, NS_EINVAL, "repetition penalty %g: must be above 0", o->repetition_penalty);
    return 0;
}

int ns_sampler_init(ns_sampler *s, const ns_sampling *opts, int vocab, ns_err *e)
{
    *s = (ns_sampler){ .opts = *opts, .vocab = vocab };
    if (ns_sampling_check(opts, e) != 0)
        return -1;
    s->p = malloc((size_t)vocab * sizeof *s->p);
    s->heap = malloc((size_t)vocab * sizeof *s->heap);
    if (!s->p || !s->heap) {
        ns_sampler_release(s);
        return ns_fail(e, NS_ENOMEM, "sampler: out of memory");
    }
    ns_rng_init(&s->rng, opts->seed);
    return 0;
}

void ns_sampler_release(ns_sampler *s)
{
    free(s->p);
    free(s->heap);
    *s = (ns_sampler){ 0 };
}

static int argmax(const double *p, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (p[i] > p[best])
            best = i;
    return best;
}

/* Larger weight first; the lower id at a tie. */
static bool before(const ns_sampler *s, int a, int b)
{
    return s->p[a] > s->p[b] || (s->p[a] == s->p[b] && a < b);
}

static void sift(ns_sampler *s, int i, int n)
{
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(s, s->heap[child + 1], s->heap[child]))
            child++;
        if (!before(s, s->heap[child], s->heap[i]))
            return;
        int t = s->heap[i];
        s->heap[i] = s->heap[child];
        s->heap[child] = t;
    }
}

/* Pops candidates in order until a limit is reached; they end up, best first, at the heap array's end. Returns how many, and their
 * total weight. A heap, not a sort: usually a handful of 131,072 is popped. */
static int keep(ns_sampler *s, double total, double *kept)
{
    int n = s->vocab, count = 0;
    for (int i = 0; i < n; i++)
        s->heap[i] = i;
    for (int i = n / 2 - 1; i >= 0; i--)
        sift(s, i, n);
    double first = s->p[s->heap[0]];
    *kept = 0.0;
    while (n > 0) {
        int id = s->heap[0];
        if (count > 0 && (*kept >= s->opts.top_p * total || (s->opts.top_k && count >= s->opts.top_k) || s->p[id] < s->opts.min_p * first))
            break;
        *kept += s->p[id];
        count++;
        s->heap[0] = s->heap[--n];
        sift(s, 0, n);
        s->heap[n] = id;
    }
    return count;
}

int ns_sampler_draw(ns_sampler *s, const float *logits, const int *seen, size_t n)
{
    const ns_sampling *o = &s->opts;
    for (int i = 0; i < s->vocab; i++)
        s->p[i] = (double)logits[i];
    for (size_t i = 0; o->repetition_penalty != 1.0 && i < n; i++) /* assigned from the logit, so a repeat counts once */
        s->p[seen[i]] = logits[seen[i]] > 0.0f ? (double)logits[seen[i]] / o->repetition_penalty
                                               : (double)logits[seen[i]] * o->repetition_penalty;
    int best = argmax(s->p, s->vocab);
    if (o->temperature == 0.0 || o->top_k == 1)
        return best;
    double max = s->p[best], total = 0.0;
    for (int i = 0; i < s->vocab; i++) {
        s->p[i] = exp((s->p[i] - max) / o->temperature);
        total += s->p[i];
    }
    double r = ns_rng_uniform(&s->rng);
    if (o->top_k == 0 && o->top_p >= 1.0 && o->min_p == 0.0) {
        r *= total;
        for (int i = 0; i < s->vocab; i++)
            if ((r -= s->p[i]) < 0.0)
                return i;
        return best; /* rounding left a crumb */
    }
    double kept;
    int count = keep(s, total, &kept);
    r *= kept;
    for (int i = 0; i < count; i++) {
        int id = s->heap[s->vocab - 1 - i];
        if ((r -= s->p[id]) < 0.0)
            return id;
    }
    return best;
}
