/* Head and loss, a block of tokens at a time. With z the student's logits, u the teacher's, tau the temperature:
 *   ce = log sum exp(z) - z[target];  kl = tau^2 sum q (log q - log p), q = softmax(u / tau), p = softmax(z / tau)
 *   d ce / dz = softmax(z) - onehot(target);  d kl / dz = tau (p - q) */
#include <assert.h>
#include <string.h>

#include "block/net_impl.h"
#include "block/vec.h"

/* Logits [m, V] of rows of final hidden states, row length H. */
static void head(const ns_net *n, const ns_real *w, int live, int m, const ns_real *x, ns_real *logits)
{
    const int h = n->p->arch->hidden_size, v = n->p->arch->vocab_size;
    ns_gemm(n->blas, false, true, m, v, live, x, h, ns_params_cat(n->p, w, -1, NS_W_LM_HEAD, 0), h, false, logits, v);
}

void ns_net_logits(ns_net *n, const ns_real *w, const ns_net_mask *mask, int t0, int m, ns_real *out)
{
    head(n, w, ns_net_live(n, mask), m, n->hidden + (size_t)t0 * (size_t)n->p->arch->hidden_size, out);
}

/* ---- one token ---- */

typedef struct softmax {
    ns_real max, sum; /* of x; of exp((x - max) / tau) */
} softmax;

NS_CLONES static void shifted(size_t n, ns_real by, ns_real f, const ns_real *x, ns_real *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = (x[i] - by) * f;
}

NS_CLONES static ns_real sum_of(size_t n, const ns_real *x)
{
    ns_real s = 0;
    for (size_t i = 0; i < n; i++)
        s += x[i];
    return s;
}

/* e = exp((x - max) / tau); e may be x */
static softmax exponents(size_t n, ns_real max, ns_real tau, const ns_real *x, ns_real *e)
{
    shifted(n, max, 1 / tau, x, e);
    ns_vec_exp(e, n, e);
    return (softmax){ max, sum_of(n, e) };
}

static int first_of(size_t n, const ns_real *x, ns_real value)
{
    for (size_t i = 0; i < n; i++)
        if (x[i] == value)
            return (int)i;
    return -1; /* NaN */
}

/* sum q (log q - log p) */
NS_CLONES static ns_real divergence(size_t n, ns_real tau, const ns_real *u, softmax q, const ns_real *eq, const ns_real *z, softmax p)
{
    ns_real dot = 0;
    for (size_t i = 0; i < n; i++)
        dot += eq[i] * ((u[i] - q.max) - (z[i] - p.max));
    return dot / (q.sum * tau) + NS_R(log)(p.sum) - NS_R(log)(q.sum);
}

/* z = a ep - b eq, the gradient of the divergence */
NS_CLONES static void difference(size_t n, ns_real a, const ns_real *ep, ns_real b, const ns_real *eq, ns_real *z)
{
    for (size_t i = 0; i < n; i++)
        z[i] = a * ep[i] - b * eq[i];
}

typedef struct token_loss {
    ns_real ce, kl;
    bool top1, agree;
} token_loss;

/* Cross-entropy only; z becomes `factor` times its gradient. */
static void loss_ce(size_t v, int target, ns_real max, ns_real factor, ns_real *z, token_loss *out)
{
    const ns_real at = z[target];
    const softmax p = exponents(v, max, 1, z, z);
    out->ce = max - at + NS_R(log)(p.sum);
    shifted(v, 0, factor / p.sum, z, z);
    z[target] -= factor;
}

/* KL and a share of cross-entropy; tmp [2 v]. */
static void loss_kd(const ns_loss_spec *s, size_t v, int target, ns_real max, ns_real factor, ns_real *z, const ns_real *u, ns_real *tmp,
                    token_loss *out)
{
    const ns_real tau = s->temperature, umax = ns_vec_max(u, v), f = factor * s->kd * tau;
    ns_real *ep = tmp, *eq = tmp + v;
    const softmax q = exponents(v, umax, tau, u, eq), p = exponents(v, max, tau, z, ep);
    out->kl = tau * tau * divergence(v, tau, u, q, eq, z, p);
    if (s->ce == 0) {
        difference(v, f / p.sum, ep, f / q.sum, eq, z);
        return;
    }
    loss_ce(v, target, max, factor * s->ce, z, out);
    ns_vec_axpy(v, f / p.sum, ep, z);
    ns_vec_axpy(v, -f / q.sum, eq, z);
}

/* ---- a block of tokens ---- */

typedef struct loss_run {
    ns_net *n;
    const ns_real *w;
    const ns_loss_spec *spec;
    ns_real *g;
    ns_real *per_token;
    ns_loss *out;
    int live, m; /* tokens of the block, in n->loss_token */
    bool gradient;
} loss_run;

static void gather_rows(const loss_run *r, const ns_real *from, const int *row)
{
    const size_t h = (size_t)r->n->p->arch->hidden_size;
    for (int i = 0; i < r->m; i++) {
        const int t = r->n->loss_token[i];
        memcpy(r->n->head_x + (size_t)i * h, from + (size_t)(row ? row[t] : t) * h, h * sizeof *from);
    }
}

static void row_loss(const loss_run *r, int i)
{
    const ns_loss_spec *s = r->spec;
    ns_net *n = r->n;
    const size_t v = (size_t)n->p->arch->vocab_size;
    const int t = n->loss_token[i], target = s->target ? s->target[t] : -1;
    const double weight = (double)s->weight[t];
    ns_real *z = n->logits + (size_t)i * v, *u = n->teacher_logits + (size_t)i * v;
    const ns_real max = ns_vec_max(z, v), factor = (ns_real)(s->scale * weight);
    const int top = first_of(v, z, max);
    token_loss l = { .top1 = top >= 0 && top == target };
    assert(s->ce == 0 || (target >= 0 && target < n->p->arch->vocab_size));
    if (s->kd != 0) {
        l.agree = top >= 0 && top == first_of(v, u, ns_vec_max(u, v));
        loss_kd(s, v, target, max, factor, z, u, n->loss_row, &l);
    } else {
        loss_ce(v, target, max, factor * s->ce, z, &l);
    }
    const double loss = (s->ce != 0 ? (double)(s->ce * l.ce) : 0) + (s->kd != 0 ? (double)(s->kd * l.kl) : 0);
    r->out->weight += weight;
    r->out->loss += weight * loss;
    r->out->ce += weight * (double)l.ce;
    r->out->kl += weight * (double)l.kl;
    r->out->top1 += l.top1 ? weight : 0;
    r->out->agree += l.agree ? weight : 0;
    if (r->per_token)
        r->per_token[t] = (ns_real)loss;
}

static void run_block(const loss_run *r)
{
    ns_net *n = r->n;
    const int h = n->p->arch->hidden_size, v = n->p->arch->vocab_size;
    if (r->spec->kd != 0) {
        gather_rows(r, r->spec->teacher, r->spec->teacher_row);
        head(n, r->spec->teacher_w, h, r->m, n->head_x, n->teacher_logits);
    }
    gather_rows(r, n->hidden, NULL);
    head(n, r->w, r->live, r->m, n->head_x, n->logits);
    for (int i = 0; i < r->m; i++)
        row_loss(r, i);
    if (r->g)
        ns_gemm(n->blas, true, false, v, r->live, r->m, n->logits, v, n->head_x, h, true, ns_params_at(n->p, r->g, -1, NS_W_LM_HEAD, 0), h);
    if (!r->gradient)
        return;
    ns_gemm(n->blas, false, false, r->m, r->live, v, n->logits, v, ns_params_cat(n->p, r->w, -1, NS_W_LM_HEAD, 0), h, false, n->head_dx, h);
    for (int i = 0; i < r->m; i++)
        memcpy(n->dhidden + (size_t)n->loss_token[i] * (size_t)h, n->head_dx + (size_t)i * (size_t)h, (size_t)r->live * sizeof(ns_real));
}

void ns_net_loss(ns_net *n, const ns_real *w, ns_net_mask *mask, const ns_loss_spec *spec, ns_real *g, ns_real *per_token, ns_loss *out)
{
    const int tokens = n->seqs->n_tokens;
    loss_run r = { .n = n, .w = w, .spec = spec, .g = g, .per_token = per_token, .out = out, .live = ns_net_live(n, mask) };
    assert(spec->ce != 0 || spec->kd != 0);
    assert(spec->kd == 0 || (spec->teacher && spec->teacher_w && spec->temperature > 0));
    assert(!g || !n->o.forward_only);
    r.gradient = !n->o.forward_only && (g || spec->scale != 0);
    if (!n->o.forward_only)
        memset(n->dhidden, 0, (size_t)tokens * (size_t)n->p->arch->hidden_size * sizeof *n->dhidden);
    if (per_token)
        memset(per_token, 0, (size_t)tokens * sizeof *per_token);
    for (int t = 0; t < tokens; t++) {
        if (spec->weight[t] != 0)
            n->loss_token[r.m++] = t;
        if (r.m == n->block || (t == tokens - 1 && r.m > 0)) {
            run_block(&r);
            r.m = 0;
        }
    }
}
