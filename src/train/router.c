#include "train/router.h"

#include <math.h>
#include <string.h>

static const double ANCHOR = 10; /* as published */

void ns_router_init_weights(ns_router *r, double std, uint64_t seed)
{
    for (int k = 0; k < r->n_axes; k++) {
        const ns_router_axis *x = &r->axis[k];
        size_t end = k + 1 < r->n_axes ? r->axis[k + 1].fc1 : r->count;
        uint64_t id = x->depth ? NS_AXIS_COUNT : (uint64_t)x->axis;
        ns_rng rng;
        ns_rng_init(&rng, seed * (NS_AXIS_COUNT + 1) + id);
        for (size_t i = x->fc1; i < end; i++)
            r->w[i] = std * ns_rng_normal(&rng);
    }
    r->has_weights = true;
}

int ns_router_pass_init(const ns_router *r, ns_router_pass *out, ns_err *e)
{
    *out = (ns_router_pass){ 0 };
    out->input = ns_arena_array(&out->arena, (size_t)r->n_budgets, sizeof(double));
    out->h = ns_arena_array(&out->arena, (size_t)r->n_axes * (size_t)r->inner, sizeof(double));
    out->soft = ns_arena_array(&out->arena, r->n_out, sizeof(double));
    out->p = ns_arena_array(&out->arena, r->n_out, sizeof(double));
    if (out->input && out->h && out->soft && out->p)
        return 0;
    ns_router_pass_release(out);
    return ns_fail(e, NS_ENOMEM, "out of memory");
}

void ns_router_pass_release(ns_router_pass *p)
{
    ns_arena_release(&p->arena);
    *p = (ns_router_pass){ 0 };
}

/* ---- forward and backward of the network and the draw ---- */

static double gumbel(ns_rng *rng)
{
    return -log(-log(ns_rng_uniform(rng) + 0x1p-54)); /* never log 0 */
}

static int arg_max(const double *v, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        best = v[i] > v[best] ? i : best;
    return best;
}

static void softmax(double *v, int n)
{
    double max = v[arg_max(v, n)], sum = 0;
    for (int i = 0; i < n; i++)
        sum += v[i] = exp(v[i] - max);
    for (int i = 0; i < n; i++)
        v[i] /= sum;
}

void ns_router_forward(const ns_router *r, double budget, const ns_router_draw *d, ns_router_pass *out)
{
    bool hard = d->rng && ns_rng_uniform(d->rng) < d->hard;
    ns_router_input(r, budget, out->input);
    out->slope = d->scale / d->tau;
    for (int k = 0; k < r->n_axes; k++) {
        const ns_router_axis *x = &r->axis[k];
        double *soft = out->soft + x->out, *p = out->p + x->out;
        ns_router_axis_forward(r, x, out->input, out->h + (size_t)k * (size_t)r->inner, soft);
        for (int s = 0; s < x->n_slots; s++, soft += x->n_choices, p += x->n_choices) {
            for (int c = 0; c < x->n_choices; c++)
                soft[c] = (d->scale * soft[c] + (d->rng ? gumbel(d->rng) : 0)) / d->tau;
            softmax(soft, x->n_choices);
            int best = arg_max(soft, x->n_choices);
            for (int c = 0; c < x->n_choices; c++)
                p[c] = hard ? c == best : soft[c];
        }
    }
}

/* Through fc2, the activation and fc1, for one output of an axis. */
static void output_backward(const ns_router *r, const ns_router_axis *x, const double *h, int out, double d, double *dh, double *g)
{
    const double *fc2 = r->w + x->fc2 + (size_t)out * (size_t)r->inner;
    double *g2 = g + x->fc2 + (size_t)out * (size_t)r->inner;
    for (int j = 0; j < r->inner; j++) {
        g2[j] += d * ns_router_leaky(h[j]);
        dh[j] += d * fc2[j] * ns_router_leaky_slope(h[j]);
    }
}

void ns_router_backward(const ns_router *r, const ns_router_pass *pass, const double *dp, double *g)
{
    double dh[NS_ROUTER_MAX_INNER];
    for (int k = 0; k < r->n_axes; k++) {
        const ns_router_axis *x = &r->axis[k];
        const double *h = pass->h + (size_t)k * (size_t)r->inner, *p = pass->soft + x->out, *d = dp + x->out;
        memset(dh, 0, (size_t)r->inner * sizeof *dh);
        for (int s = 0; s < x->n_slots; s++, p += x->n_choices, d += x->n_choices) {
            double mean = 0;
            for (int c = 0; c < x->n_choices; c++)
                mean += p[c] * d[c];
            for (int c = 0; c < x->n_choices; c++)
                output_backward(r, x, h, s * x->n_choices + c, pass->slope * p[c] * (d[c] - mean), dh, g);
        }
        for (int j = 0; j < r->inner; j++)
            for (int i = 0; i < r->n_budgets; i++)
                g[x->fc1 + (size_t)(j * r->n_budgets + i)] += dh[j] * pass->input[i];
    }
}

/* ---- what hangs on the probabilities ---- */

double ns_router_anchor(const ns_router *r, const double *p, double g, double *dp)
{
    double total = 0;
    for (const ns_router_axis *x = r->axis; x < r->axis + r->n_axes; x++) {
        int n = x->n_slots * x->n_choices;
        for (int i = 0; i < n; i++) {
            double off = p[x->out + (size_t)i] - (i % x->n_choices == 0);
            total += off * off / n;
            if (dp)
                dp[x->out + (size_t)i] += g * ANCHOR * 2 * off / n;
        }
    }
    return ANCHOR * total;
}

void ns_router_expect(const ns_arch *a, const ns_router *r, const double *p, ns_expect *out)
{
    out->hidden = a->hidden_size;
    for (int i = 0; i < a->n_layers; i++) {
        out->layer[i].keep = 1;
        for (int x = 0; x < NS_AXIS_COUNT; x++)
            out->layer[i].width[x] = a->layers[i].width[x];
    }
    for (const ns_router_axis *x = r->axis; x < r->axis + r->n_axes; x++)
        for (int i = 0; i < a->n_layers; i++) {
            double mean = 0;
            if (x->slot[i] < 0)
                continue;
            const double *q = p + x->out + (size_t)(x->slot[i] * x->n_choices);
            for (int c = 0; c < x->n_choices; c++)
                mean += q[c] * (x->depth ? ns_router_keeps(r, i, x->choice[c]) : x->choice[c]);
            if (x->depth)
                out->layer[i].keep = mean;
            else if (x->axis == NS_AXIS_HIDDEN)
                out->hidden = mean;
            else
                out->layer[i].width[x->axis] = mean;
        }
}

void ns_router_expect_backward(const ns_arch *a, const ns_router *r, const ns_expect *dx, double *dp)
{
    for (const ns_router_axis *x = r->axis; x < r->axis + r->n_axes; x++) {
        bool hidden = !x->depth && x->axis == NS_AXIS_HIDDEN;
        for (int i = 0; i < (hidden ? 1 : a->n_layers); i++) { /* one hidden size, a width per layer of the others */
            if (x->slot[i] < 0)
                continue;
            double d = x->depth ? dx->layer[i].keep : hidden ? dx->hidden : dx->layer[i].width[x->axis];
            double *q = dp + x->out + (size_t)(x->slot[i] * x->n_choices);
            for (int c = 0; c < x->n_choices; c++)
                q[c] += d * (x->depth ? ns_router_keeps(r, i, x->choice[c]) : x->choice[c]);
        }
    }
}

/* ---- */

void ns_router_step(ns_router *r, const ns_adamw_opts *o, int64_t t, const double *g, double *m, double *v)
{
    double c1 = 1 - pow(o->beta1, (double)t), c2 = 1 - pow(o->beta2, (double)t);
    for (size_t i = 0; i < r->count; i++) {
        r->w[i] -= o->lr * o->weight_decay * r->w[i];
        m[i] = o->beta1 * m[i] + (1 - o->beta1) * g[i];
        v[i] = o->beta2 * v[i] + (1 - o->beta2) * g[i] * g[i];
        r->w[i] -= o->lr * (m[i] / c1) / (sqrt(v[i] / c2) + o->eps);
    }
}
