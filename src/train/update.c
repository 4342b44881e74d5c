/* From gradients to parameters. Each rank updates a contiguous share and has the moments of that share only. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "train/trainer_impl.h"

enum { STRETCH = 1 << 16 }; /* elements: stays in the second-level cache through norm and update */

/* ---- shares ---- */

static bool by_muon(const ns_trainer *t, const ns_param *x)
{
    return strcmp(t->o.optimizer, "muon") == 0 && x->matrix && x->layer >= 0 && x->rows > 1 && x->cols > 1;
}

/* Where a share may begin, at or before x: a matrix of Muon's stays whole. */
static size_t boundary(const ns_trainer *t, size_t at)
{
    for (int i = 0; i < t->p->n; i++) {
        const ns_param *x = &t->p->p[i];
        if (at >= x->off && at < x->off + x->count && by_muon(t, x))
            return at - (at - x->off) % ((size_t)x->rows * (size_t)x->cols);
    }
    return at;
}

static void add_stretch(ns_trainer *t, ns_stretch s, bool count)
{
    if (!count)
        t->stretch[t->n_stretches] = s;
    t->n_stretches++;
}

/* Cuts this rank's share; the first walk counts. */
static void cut_share(ns_trainer *t, bool count)
{
    const int rank = ns_comm_rank(t->comm);
    const size_t lo = t->part[rank], hi = t->part[rank + 1];
    t->n_stretches = 0;
    for (int i = 0; i < t->p->n; i++) {
        const ns_param *x = &t->p->p[i];
        const bool muon = by_muon(t, x);
        const size_t piece = muon ? (size_t)x->rows * (size_t)x->cols : STRETCH, end = x->off + x->count < hi ? x->off + x->count : hi;
        for (size_t at = x->off > lo ? x->off : lo, n; at < end && !x->buffer; at += n) {
            n = end - at < piece ? end - at : piece;
            add_stretch(t, (ns_stretch){ at, at + n, x, muon, 0 }, count);
            if (muon && ns_muon_scratch(x->rows, x->cols) > t->muon_size)
                t->muon_size = ns_muon_scratch(x->rows, x->cols);
        }
    }
}

static size_t count_experts(const ns_arch *a)
{
    size_t n = 0;
    for (int i = 0; i < a->n_layers; i++)
        n += a->layers[i].kind == NS_LAYER_MOE ? (size_t)a->layers[i].width[NS_AXIS_EXPERTS] : 0;
    return n;
}

int ns_update_init(ns_trainer *t, ns_err *e)
{
    const int rank = ns_comm_rank(t->comm), size = ns_comm_size(t->comm);
    if (ns_trainer_frozen(t))
        return 0;
    t->part = calloc((size_t)size + 1, sizeof *t->part);
    if (!t->part)
        goto no_memory;
    for (int r = 1; r < size; r++)
        t->part[r] = boundary(t, t->p->count / (size_t)size * (size_t)r);
    t->part[size] = t->p->count;
    cut_share(t, true);
    t->stretch = malloc((size_t)(t->n_stretches + 1) * sizeof *t->stretch);
    if (!t->stretch)
        goto no_memory;
    cut_share(t, false);
    const size_t share = t->part[rank + 1] - t->part[rank];
    t->m = calloc(share + 1, sizeof *t->m);
    t->v = calloc(share + 1, sizeof *t->v);
    t->muon_scratch = ns_alloc_aligned((t->muon_size * (size_t)ns_pool_threads(t->crew.pool) + 1) * sizeof *t->muon_scratch);
    t->n_load = t->o.balance_rate > 0 ? count_experts(t->p->arch) : 0;
    t->load = calloc(t->n_load + 1, sizeof *t->load);
    if (t->m && t->v && t->muon_scratch && t->load)
        return 0;
no_memory:
    return ns_fail(e, NS_ENOMEM, "the optimiser's state of %zu parameters: out of memory", t->p->count);
}

void ns_update_release(ns_trainer *t)
{
    free(t->part);
    free(t->stretch);
    free(t->m);
    free(t->v);
    free(t->muon_scratch);
    free(t->load);
}

/* ---- the norm ---- */

/* Eight sums, so that the additions need not wait for each other. */
static double sum_squares(const ns_real *x, size_t n)
{
    double s[8] = { 0 }, sum = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (size_t k = 0; k < 8; k++)
            s[k] += (double)x[i + k] * (double)x[i + k];
    for (; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    for (size_t k = 0; k < 8; k++)
        sum += s[k];
    return sum;
}

static void norm_stretch(void *ctx, int i, int thread)
{
    ns_trainer *t = ctx;
    ns_stretch *s = &t->stretch[i];
    (void)thread;
    s->sum = sum_squares(t->crew.worker[0].g + s->lo, s->hi - s->lo);
}

int ns_update_norm(ns_trainer *t, ns_err *e)
{
    double sum = 0;
    t->shrink = 1;
    t->grad_norm = 0;
    if (ns_trainer_frozen(t))
        return 0;
    ns_pool_run(t->crew.pool, t->n_stretches, norm_stretch, t);
    for (int i = 0; i < t->n_stretches; i++)
        sum += t->stretch[i].sum;
    if (ns_comm_sum_doubles(t->comm, &sum, 1, e) != 0)
        return -1;
    t->grad_norm = sqrt(sum);
    if (t->o.clip > 0 && t->grad_norm > t->o.clip)
        t->shrink = t->o.clip / (t->grad_norm + 1e-6);
    return 0;
}

/* ---- the update ---- */

static void update_stretch(void *ctx, int i, int thread)
{
    ns_trainer *t = ctx;
    const ns_stretch *s = &t->stretch[i];
    const size_t n = s->hi - s->lo, at = s->lo - t->part[ns_comm_rank(t->comm)];
    ns_real *g = t->crew.worker[0].g + s->lo, shrink = (ns_real)t->shrink;
    for (size_t k = 0; k < n && t->shrink < 1; k++)
        g[k] *= shrink;
    if (s->muon) {
        const ns_muon_opts o = { .lr = t->lr, .momentum = 0.95, .weight_decay = t->o.adamw.weight_decay };
        ns_muon_step(&o, t->crew.blas, s->p->rows, s->p->cols, t->w + s->lo, g, t->m + at, t->muon_scratch + t->muon_size * (size_t)thread);
        return;
    }
    ns_adamw_opts o = t->o.adamw;
    o.lr = t->lr;
    ns_adamw_step(&o, t->step + 1, n, t->w + s->lo, g, t->m + at, t->v + at, s->p->matrix);
}

/* Tokens per expert of this step, over workers and ranks, layer after layer. */
static int sum_loads(ns_trainer *t, ns_err *e)
{
    const ns_arch *a = t->p->arch;
    double *at = t->load;
    for (int l = 0; l < a->n_layers; l++) {
        const int n = a->layers[l].kind == NS_LAYER_MOE ? a->layers[l].width[NS_AXIS_EXPERTS] : 0;
        for (int x = 0; x < n; x++, at++) {
            *at = 0;
            for (int i = 0; i < t->crew.n; i++)
                *at += (double)ns_net_expert_load(t->crew.worker[i].net, l)[x];
        }
    }
    return ns_comm_sum_doubles(t->comm, t->load, t->n_load, e);
}

/* Expert balancing without a loss (Wang and others 2024): correction bias += rate sign(mean load - load). */
static int balance(ns_trainer *t, ns_err *e)
{
    const ns_arch *a = t->p->arch;
    const double *load = t->load;
    if (t->n_load == 0)
        return 0;
    if (sum_loads(t, e) != 0)
        return -1;
    for (int l = 0; l < a->n_layers; l++) {
        ns_real *bias = ns_params_at(t->p, t->w, l, NS_W_GATE_CORRECTION, 0);
        const int n = bias ? a->layers[l].width[NS_AXIS_EXPERTS] : 0;
        double mean = 0;
        for (int x = 0; x < n; x++)
            mean += load[x] / n;
        for (int x = 0; x < n; x++)
            bias[x] += (ns_real)(t->o.balance_rate * ((load[x] < mean) - (load[x] > mean)));
        load += n;
    }
    return 0;
}

int ns_update_apply(ns_trainer *t, ns_err *e)
{
    t->lr = ns_schedule_at(&t->o.schedule, t->step);
    if (ns_trainer_frozen(t))
        return 0;
    ns_pool_run(t->crew.pool, t->n_stretches, update_stretch, t);
    return ns_comm_gather(t->comm, t->w, t->part, e) == 0 ? balance(t, e) : -1;
}
