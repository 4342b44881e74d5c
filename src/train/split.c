#include "train/split.h"

#include <stdlib.h>
#include <string.h>

int ns_split_init(ns_split *s, int max_tokens, ns_err *e)
{
    *s = (ns_split){ .row = malloc((size_t)max_tokens * sizeof *s->row) };
    if (s->row && ns_pack_init(&s->head, max_tokens, e) == 0 && ns_pack_init(&s->tail, max_tokens, e) == 0)
        return 0;
    ns_split_release(s);
    return ns_fail(e, NS_ENOMEM, "a split pack of %d tokens: out of memory", max_tokens);
}

void ns_split_release(ns_split *s)
{
    ns_pack_release(&s->head);
    ns_pack_release(&s->tail);
    ns_carry_release(&s->carry);
    free(s->row);
    *s = (ns_split){ 0 };
}

/* Tokens of the beginning of the document at [from, to). */
static int cut_of(const ns_pack *p, int from, int to, ns_rng *rng)
{
    int most = to - from - 1; /* tokens before the last counted one */
    while (most > 0 && p->weight[from + most] == 0)
        most--;
    if (!rng)
        return (to - from) / 2 < most ? (to - from) / 2 : most;
    const double u = ns_rng_uniform(rng); /* drawn where there is no choice too: one number a document */
    return most > 0 ? 1 + (int)(u * most) : 0;
}

/* Adds tokens [from, to) of p as the next sequence. */
static void add(ns_pack *part, const ns_pack *p, int from, int to)
{
    ns_seqs *s = &part->seqs;
    const size_t at = (size_t)s->n_tokens, n = (size_t)(to - from);
    memcpy(part->ids + at, p->ids + from, n * sizeof *p->ids);
    memcpy(part->target + at, p->target + from, n * sizeof *p->target);
    memcpy(part->weight + at, p->weight + from, n * sizeof *p->weight);
    for (int t = from; t < to; t++)
        part->weight_sum += (double)p->weight[t];
    s->n_tokens += (int)n;
    part->start[++s->n_seqs] = s->n_tokens;
}

void ns_split_make(ns_split *s, const ns_pack *p, ns_rng *rng)
{
    ns_pack_clear(&s->head, p->first_doc);
    ns_pack_clear(&s->tail, p->first_doc);
    s->head.seqs.leave = &s->carry;
    s->tail.seqs.from = &s->carry;
    for (int i = 0; i < p->seqs.n_seqs; i++) {
        const int from = p->seqs.start[i], to = p->seqs.start[i + 1], cut = from + cut_of(p, from, to, rng);
        for (int t = cut; t < to; t++)
            s->row[s->tail.seqs.n_tokens + t - cut] = t;
        add(&s->head, p, from, cut);
        add(&s->tail, p, cut, to);
    }
}
