/* Several sizes decoded in one step, beside the same sequences decoded size by size. */
#include <stdlib.h>

#include "base/log.h"
#include "base/rng.h"
#include "bench/bench.h"

struct mix {
    ns_engine *en;
    const ns_bench_opts *o;
    int n_sizes, n;    /* n: sequences in all, size after size */
    ns_cut *cut;       /* [n_sizes] */
    ns_plan **plan;    /* [n_sizes] */
    ns_item *item;     /* [n] */
    int *ids;          /* [n, NS_STEP_TOKENS / n] */
    float *logits;     /* [n, vocab] */
    ns_scratch *scratch;
    json_t *names;
};

static int prepare(struct mix *m, ns_err *e)
{
    const ns_bench_opts *o = m->o;
    size_t n_sizes = (size_t)m->n_sizes, n = (size_t)m->n, vocab = (size_t)m->en->model.arch->vocab_size;
    m->cut = calloc(n_sizes, sizeof *m->cut);
    m->plan = calloc(n_sizes, sizeof *m->plan);
    m->item = calloc(n, sizeof *m->item);
    m->ids = calloc(NS_STEP_TOKENS, sizeof *m->ids);
    m->logits = malloc(n * vocab * sizeof *m->logits);
    m->scratch = ns_scratch_new();
    m->names = json_array();
    if (!m->cut || !m->plan || !m->item || !m->ids || !m->logits || !m->scratch || !m->names)
        return ns_fail(e, NS_ENOMEM, "bench: out of memory");
    for (int i = 0; i < m->n_sizes; i++) {
        const char *size = o->n_sizes ? o->sizes[i] : m->en->ckpt->variants.v[i].name;
        int context = o->depth + 2 * o->gen;
        char name[64];
        if (ns_engine_cut(m->en, size, context, &m->cut[i], name, sizeof name, e) != 0 || !(m->plan[i] = ns_plan_new(&m->en->model, &m->cut[i], e)))
            return -1;
        json_array_append_new(m->names, json_string(name));
        for (int k = i * o->sequences; k < (i + 1) * o->sequences; k++) {
            m->item[k] = (ns_item){ .plan = m->plan[i], .state = ns_model_state(&m->en->model, &m->cut[i], context, e),
                                    .logits = m->logits + (size_t)k * vocab };
            if (!m->item[k].state)
                return -1;
        }
    }
    return 0;
}

static void release(struct mix *m)
{
    for (int i = 0; m->item && i < m->n; i++)
        ns_state_free(m->item[i].state);
    for (int i = 0; i < m->n_sizes; i++) {
        if (m->plan)
            ns_plan_free(m->plan[i]);
        if (m->cut)
            ns_cut_release(&m->cut[i]);
    }
    free(m->cut);
    free(m->plan);
    free(m->item);
    free(m->ids);
    free(m->logits);
    ns_scratch_free(m->scratch);
    json_decref(m->names);
}

static void draw(struct mix *m, ns_rng *r, int tokens, bool logits)
{
    for (int i = 0; i < m->n; i++) {
        m->item[i].ids = m->ids + i * tokens;
        m->item[i].n = tokens;
        m->item[i].n_logits = logits;
    }
    for (int i = 0; i < m->n * tokens; i++)
        m->ids[i] = (int)(ns_rng_u64(r) % (uint64_t)m->en->model.arch->vocab_size);
}

static int fill(struct mix *m, ns_rng *r, ns_err *e)
{
    int piece = NS_STEP_TOKENS / m->n;
    for (int done = 0, n; done < m->o->depth; done += n) {
        n = m->o->depth - done < piece ? m->o->depth - done : piece;
        draw(m, r, n, false);
        if (ns_forward(NULL, m->item, m->n, m->scratch, NULL, e) != 0)
            return -1;
    }
    return 0;
}

/* All sizes in one step, then each in one of its own, in turn: what the machine does meanwhile meets both alike. */
static int measure(struct mix *m, double *together, double *apart, ns_err *e)
{
    ns_rng r;
    ns_rng_init(&r, 11);
    if (fill(m, &r, e) != 0)
        return -1;
    for (int k = 0; k < m->o->gen; k++) {
        draw(m, &r, 1, true);
        double start = ns_now();
        if (ns_forward(NULL, m->item, m->n, m->scratch, NULL, e) != 0)
            return -1;
        together[k] = ns_now() - start;
        start = ns_now();
        for (int i = 0; i < m->n_sizes; i++)
            if (ns_forward(NULL, m->item + i * m->o->sequences, m->o->sequences, m->scratch, NULL, e) != 0)
                return -1;
        apart[k] = ns_now() - start;
    }
    return 0;
}

json_t *ns_bench_mix(ns_engine *en, const ns_bench_opts *o, ns_err *e)
{
    struct mix m = { .en = en, .o = o, .n_sizes = o->n_sizes ? o->n_sizes : ns_engine_n_sizes(en) };
    double *t = NULL;
    json_t *out = NULL;
    m.n = m.n_sizes * o->sequences;
    if (o->gen < 1 || m.n > NS_STEP_TOKENS) {
        ns_fail(e, NS_EINVAL, "bench: a mix takes at least one decode step and at most %d sequences", NS_STEP_TOKENS);
        return NULL;
    }
    if (!(t = malloc(2 * (size_t)o->gen * sizeof *t)))
        ns_fail(e, NS_ENOMEM, "bench: out of memory");
    else if (prepare(&m, e) == 0 && measure(&m, t, t + o->gen, e) == 0) {
        double together = ns_bench_median(t, o->gen), apart = ns_bench_median(t + o->gen, o->gen);
        out = json_pack("{s:O, s:i, s:i, s:f, s:f, s:f}", "sizes", m.names, "sequences_each", o->sequences, "depth", o->depth, "together_ms",
                        together * 1e3, "apart_ms", apart * 1e3, "ratio", apart / together);
    }
    free(t);
    release(&m);
    return out;
}
