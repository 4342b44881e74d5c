#include "eval/drift.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 64 }; /* tokens of a step: their logits of both sides are held */

typedef struct side {
    const ns_engine *en;
    ns_plan *plan;
    ns_state *state;
    ns_scratch *scratch;
    float *logits;  /* [ROWS, vocab] */
    float *stream;  /* [n_layers, ROWS, hidden]: after each layer, as the taps brought it */
    int hidden;     /* live channels */
    int n_layers;
} side;

struct ns_drift_pair {
    side a, b;
    int vocab, context;
    ns_drift d;
};

static int init_side(side *s, const ns_engine *en, const ns_cut *cut, int context, ns_err *e)
{
    const ns_arch *arch = en->model.arch;
    size_t rows = 0, layers = 0;
    *s = (side){ .en = en, .hidden = ns_cut_hidden(cut), .n_layers = arch->n_layers };
    if (!ns_mul_size((size_t)arch->vocab_size, ROWS * sizeof(float), &rows) ||
        !ns_mul_size((size_t)arch->n_layers * ROWS * sizeof(float), (size_t)s->hidden, &layers))
        return ns_fail(e, NS_ENOMEM, "compare: out of memory");
    s->logits = malloc(rows);
    s->stream = calloc(1, layers);
    s->scratch = ns_scratch_new();
    if (!s->logits || !s->stream || !s->scratch)
        return ns_fail(e, NS_ENOMEM, "compare: out of memory");
    s->plan = ns_plan_new(&en->model, cut, e);
    s->state = s->plan ? ns_model_state(&en->model, cut, context, e) : NULL;
    return s->state ? 0 : -1;
}

static void release_side(side *s)
{
    ns_state_free(s->state);
    ns_plan_free(s->plan);
    ns_scratch_free(s->scratch);
    free(s->logits);
    free(s->stream);
}

ns_drift_pair *ns_drift_new(const ns_engine *a, const ns_cut *cut_a, const ns_engine *b, const ns_cut *cut_b, int context, ns_err *e)
{
    const ns_arch *x = a->model.arch, *y = b->model.arch;
    if (x->vocab_size != y->vocab_size) {
        ns_fail(e, NS_EINVAL, "compare: vocabularies of %d and %d tokens", x->vocab_size, y->vocab_size);
        return NULL;
    }
    ns_drift_pair *p = calloc(1, sizeof *p);
    if (!p) {
        ns_fail(e, NS_ENOMEM, "compare: out of memory");
        return NULL;
    }
    p->vocab = x->vocab_size;
    p->context = context;
    p->d.n_layers = x->n_layers == y->n_layers ? x->n_layers : 0;
    p->d.diff = calloc((size_t)p->d.n_layers + 1, sizeof *p->d.diff);
    p->d.size = calloc((size_t)p->d.n_layers + 1, sizeof *p->d.size);
    int rc = p->d.diff && p->d.size ? 0 : ns_fail(e, NS_ENOMEM, "compare: out of memory");
    if (rc == 0)
        rc = init_side(&p->a, a, cut_a, context, e);
    if (rc == 0)
        rc = init_side(&p->b, b, cut_b, context, e);
    if (rc == 0)
        return p;
    ns_drift_free(p);
    return NULL;
}

void ns_drift_free(ns_drift_pair *p)
{
    if (!p)
        return;
    release_side(&p->a);
    release_side(&p->b);
    free(p->d.diff);
    free(p->d.size);
    free(p);
}

const ns_drift *ns_drift_get(const ns_drift_pair *p)
{
    return &p->d;
}

static void on_hidden(void *ctx, int layer, const float *x, int n, int hidden)
{
    side *s = ctx;
    memcpy(s->stream + (size_t)layer * ROWS * (size_t)s->hidden, x, (size_t)n * (size_t)hidden * sizeof *x);
}

/* A layer that the cut leaves out is not tapped: its stream is that of the layer before. */
static void fill_dropped(side *s)
{
    const size_t layer = ROWS * (size_t)s->hidden;
    for (int i = 1; i < s->n_layers; i++)
        if (!s->plan->layer[i].keep)
            memcpy(s->stream + (size_t)i * layer, s->stream + (size_t)(i - 1) * layer, layer * sizeof *s->stream);
}

static int run(side *s, const int *ids, int n, ns_err *e)
{
    const ns_step_tap tap = { .ctx = s, .hidden = on_hidden };
    ns_item item = { .state = s->state, .ids = ids, .n = n, .n_logits = n, .logits = s->logits };
    if (ns_forward(s->plan, &item, 1, s->scratch, &tap, e) != 0)
        return -1;
    fill_dropped(s);
    return 0;
}

static void compare_layers(ns_drift_pair *p, int n)
{
    const int h = p->a.hidden < p->b.hidden ? p->a.hidden : p->b.hidden;
    for (int i = 0; i < p->d.n_layers; i++)
        for (int t = 0; t < n; t++) {
            const float *x = p->a.stream + ((size_t)i * ROWS + (size_t)t) * (size_t)p->a.hidden;
            const float *y = p->b.stream + ((size_t)i * ROWS + (size_t)t) * (size_t)p->b.hidden;
            for (int c = 0; c < h; c++) {
                const double d = (double)x[c] - (double)y[c];
                p->d.diff[i] += d * d;
                p->d.size[i] += (double)x[c] * (double)x[c];
            }
        }
}

/* log of the sum of exp, and the likeliest token (the first among equals) */
static double log_sum(const float *x, int n, int *best)
{
    double sum = 0;
    *best = 0;
    for (int i = 1; i < n; i++)
        *best = x[i] > x[*best] ? i : *best;
    for (int i = 0; i < n; i++)
        sum += exp((double)x[i] - (double)x[*best]);
    return (double)x[*best] + log(sum);
}

static void compare_row(ns_drift_pair *p, int row, int target)
{
    const float *x = p->a.logits + (size_t)row * (size_t)p->vocab, *y = p->b.logits + (size_t)row * (size_t)p->vocab;
    int best_x, best_y;
    const double zx = log_sum(x, p->vocab, &best_x), zy = log_sum(y, p->vocab, &best_y);
    double kl = 0;
    for (int i = 0; i < p->vocab; i++) {
        const double lx = (double)x[i] - zx;
        kl += exp(lx) * (lx - ((double)y[i] - zy));
    }
    p->d.tokens++;
    p->d.kl += kl;
    p->d.worst_kl = kl > p->d.worst_kl ? kl : p->d.worst_kl;
    p->d.agree += best_x == best_y;
    p->d.nll_a += zx - (double)x[target];
    p->d.nll_b += zy - (double)y[target];
}

int ns_drift_add(ns_drift_pair *p, const int *ids, int n, ns_err *e)
{
    ns_state_reset(p->a.state);
    ns_state_reset(p->b.state);
    for (int at = 0; at < n; at += ROWS) {
        const int rows = n - at < ROWS ? n - at : ROWS;
        if (run(&p->a, ids + at, rows, e) != 0 || run(&p->b, ids + at, rows, e) != 0)
            return -1;
        compare_layers(p, rows);
        for (int i = 0; i < rows && at + i + 1 < n; i++)
            compare_row(p, i, ids[at + i + 1]);
    }
    return 0;
}
