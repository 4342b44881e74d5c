/* How fast is each size alone, one sequence at a time? A short measurement, the best of a few, so that a report can say what an answer of
 * so many tokens takes; `nestar bench` measures with care. */
#include <string.h>

#include "eval/eval_impl.h"

enum { PROMPT = 256, DECODE = 24, TIMES = 3 };

static double best(double a, double b)
{
    return a > b ? a : b;
}

static int prompt_length(const ns_engine *en)
{
    int room = ns_engine_max_context(en) - DECODE - 2;
    return room <= 0 || room > PROMPT ? PROMPT : room;
}

/* Speeds from the session's own clock. */
static int measure(ns_session *s, const int *ids, int n, ns_results_latency *out, ns_err *e)
{
    for (int k = 0; k < TIMES; k++) {
        ns_stats before = ns_session_stats(s);
        int id;
        if (ns_session_sync(s, NULL, 0, e) != 0 || ns_session_feed(s, ids, (size_t)n, e) != 0)
            return -1;
        for (int i = 0; i < DECODE; i++)
            if (ns_session_next(s, &id, e) != 0 || !ns_session_logits(s))
                return -1;
        ns_stats after = ns_session_stats(s);
        double prefill = after.prefill_seconds - before.prefill_seconds, decode = after.decode_seconds - before.decode_seconds;
        if (prefill > 0.0)
            out->prefill = best(out->prefill, (double)(after.prefill_tokens - before.prefill_tokens) / prefill);
        if (decode > 0.0)
            out->decode = best(out->decode, (double)(after.decode_tokens - before.decode_tokens) / decode);
    }
    return 0;
}

/* To this size from `other` with the cache that the session holds; 0 where their caches differ in shape: then only a prefill is possible, whose
 * time follows from its speed. */
static int change(ns_session *s, const char *size, const char *other, ns_results_latency *out, ns_err *e)
{
    ns_err refused = { 0 };
    if (!other || ns_session_resize(s, other, NS_HANDOVER_CACHE, &refused) != 0)
        return 0;
    ns_stats before = ns_session_stats(s);
    int rc = ns_session_resize(s, size, NS_HANDOVER_CACHE, e);
    out->change = ns_session_stats(s).switch_seconds - before.switch_seconds;
    return rc;
}

static int size_latency(struct eval *v, const char *size, const char *other, ns_err *e)
{
    int ids[PROMPT], n = prompt_length(v->en), vocab = ns_engine_vocab_size(v->en);
    const ns_sampling greedy = { .top_p = 1.0, .repetition_penalty = 1.0 };
    ns_results_latency l = { 0 };
    for (int i = 0; i < n; i++)
        ids[i] = (i * 37 + 11) % vocab;
    ns_session *s = ns_session_new(v->en, &(ns_session_opts){ .size = size, .context = n + DECODE + 1, .sampling = &greedy }, e);
    int rc = s ? measure(s, ids, n, &l, e) : -1;
    if (rc == 0)
        rc = change(s, size, other, &l, e);
    ns_session_free(s);
    return rc == 0 ? ns_results_set_latency(v->store, v->run, size, &l, e) : ns_err_wrap(e, "latency of %s", size);
}

static const char *size_at(const struct eval *v, int i)
{
    return i % 2 ? v->pass[i / 2].answer : v->pass[i / 2].think;
}

int ns_eval_latency(struct eval *v, ns_err *e)
{
    for (int i = 0; i < 2 * v->n_passes; i++) {
        const char *size = size_at(v, i), *other = NULL;
        for (int k = 0; k < 2 * v->n_passes && !other; k++)
            if (strcmp(size_at(v, k), size) != 0)
                other = size_at(v, k);
        if (!ns_results_has_latency(v->store, v->run, size) && size_latency(v, size, other, e) != 0)
            return -1;
    }
    return 0;
}
