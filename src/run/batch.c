#include "run/batch.h"

#include <stdlib.h>

#include "base/log.h"

static void count(ns_session *s, int n, double seconds)
{
    if (n == 1) {
        s->stats.decode_tokens++;
        s->stats.decode_seconds += seconds;
    } else {
        s->stats.prefill_tokens += (size_t)n;
        s->stats.prefill_seconds += seconds;
    }
}

int ns_batch_step(const ns_batch_item *item, int n, ns_scratch *scratch, ns_err *e)
{
    double start = ns_now();
    ns_item *it = calloc((size_t)n, sizeof *it);
    if (!it)
        return ns_fail(e, NS_ENOMEM, "batch: out of memory");
    for (int i = 0; i < n; i++) {
        ns_session *s = item[i].s;
        it[i] = (ns_item){ .plan = s->plan, .state = s->state, .ids = s->ids + s->state->len, .n = item[i].n,
                           .n_logits = item[i].n == ns_session_pending(s), .logits = s->logits };
        s->has_logits = false;
    }
    int rc = ns_forward(NULL, it, n, scratch, NULL, e);
    double seconds = ns_now() - start;
    for (int i = 0; i < n; i++) {
        if (rc != 0) {
            ns_session_lose(item[i].s, i == 0 ? e : NULL);
            continue;
        }
        item[i].s->has_logits = it[i].n_logits;
        count(item[i].s, item[i].n, seconds);
    }
    free(it);
    return rc;
}
