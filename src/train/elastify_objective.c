/* What one stage of an elastification trains: each micro-batch runs one size, drawn by the seed, under its mask. */
#include "train/elastify_objective.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the router and what it needs to learn ---- */

int ns_elastic_learner_init(const ns_arch *a, ns_router *r, ns_elastic_learner *out, ns_err *e)
{
    *out = (ns_elastic_learner){ .r = r };
    if (!r)
        return 0;
    if (ns_router_pass_init(r, &out->pass, e) < 0 || ns_expect_init(a, &out->x, e) < 0 || ns_expect_init(a, &out->dx, e) < 0)
        return -1;
    out->g = ns_arena_array(&out->arena, r->count, sizeof(double));
    out->m = ns_arena_array(&out->arena, r->count, sizeof(double));
    out->v = ns_arena_array(&out->arena, r->count, sizeof(double));
    out->dp = ns_arena_array(&out->arena, r->n_out, sizeof(double));
    return out->g && out->m && out->v && out->dp ? 0 : ns_fail(e, NS_ENOMEM, "the router's optimiser: out of memory");
}

void ns_elastic_learner_release(ns_elastic_learner *l)
{
    ns_router_pass_release(&l->pass);
    ns_expect_release(&l->x);
    ns_expect_release(&l->dx);
    ns_arena_release(&l->arena);
    *l = (ns_elastic_learner){ 0 };
}

/* ---- before a micro-batch ---- */

static ns_router_draw draw_at(const ns_elastic_stage *s, int64_t step, ns_rng *rng)
{
    const ns_elastify_opts *o = s->o;
    const double at = (double)(s->first + step), last = (double)(s->total > 1 ? s->total - 1 : 1);
    const double decay = o->tau_decay > 0 ? o->tau_decay : pow(0.05, 1 / (double)(s->total > 1 ? s->total : 1));
    return (ns_router_draw){ .scale = o->scale_from + (o->scale_to - o->scale_from) * at / last, .tau = o->tau * pow(decay, at),
                             .hard = o->hard, .rng = rng };
}

static int draw_size(const ns_elastic_plan *p, int stage, ns_rng *rng)
{
    double u = ns_rng_uniform(rng);
    int last = 0;
    for (int i = 0; i < p->n; i++) {
        if (p->weight[stage][i] > 0)
            last = i;
        if ((u -= p->weight[stage][i]) < 0)
            return i;
    }
    return last; /* rounding */
}

/* The same on every rank: everything drawn comes from the seed and the number of the micro-batch. `series`: independent draws of it. */
static ns_rng rng_of(const ns_elastic_stage *s, int64_t step, int micro, uint64_t series)
{
    ns_rng rng;
    uint64_t number = (uint64_t)(s->first + step) * (uint64_t)s->train->micro_batches + (uint64_t)micro;
    ns_rng_init(&rng, (s->o->seed + 1) * 0x9e3779b97f4a7c15u ^ (number + 1) * 0xd1342543de82ef95u ^ (uint64_t)s->stage << 63 ^ series);
    return rng;
}

/* One of the sizes that the stage draws, but for `at`, all alike; `at` where there is no other. */
static int draw_other(const ns_elastic_plan *p, int stage, int at, ns_rng *rng)
{
    int n = 0, list[NS_ELASTIC_MAX];
    for (int i = 0; i < p->n; i++)
        if (i != at && p->weight[stage][i] > 0)
            list[n++] = i;
    return n > 0 ? list[(int)(ns_rng_uniform(rng) * n)] : at;
}

/* Draws the micro-batch's size into s->at and, with the probability of --switch, another for the beginnings into s->from; *rng goes on as
 * if there were none, *seed is for the places of the change. */
static void draw_sizes(ns_elastic_stage *s, int64_t step, int micro, ns_rng *rng, uint64_t *seed)
{
    ns_rng change = rng_of(s, step, micro, 0xda942042e4dd58b5u);
    *rng = rng_of(s, step, micro, 0);
    s->at = s->from = draw_size(s->plan, s->stage, rng);
    if (!s->soft && ns_rng_uniform(&change) < s->o->change) {
        s->from = draw_other(s->plan, s->stage, s->at, &change);
        *seed = ns_rng_u64(&change);
    }
}

static ns_net_mask *before(void *ctx, int64_t step, int micro, uint64_t *seed)
{
    ns_elastic_stage *s = ctx;
    ns_rng rng;
    draw_sizes(s, step, micro, &rng, seed);
    if (s->from == s->at)
        return NULL;
    ns_mask_set_cut(s->arch, &s->plan->size[s->from].cut, &s->before);
    return &s->before;
}

static const ns_net_mask *mask(void *ctx, int64_t step, int micro)
{
    ns_elastic_stage *s = ctx;
    ns_rng rng;
    uint64_t seed;
    draw_sizes(s, step, micro, &rng, &seed);
    if (s->soft) {
        const ns_router_draw d = draw_at(s, step, &rng);
        ns_router_forward(s->learner->r, s->plan->size[s->at].budget, &d, &s->learner->pass);
        ns_router_mask(s->arch, s->learner->r, s->learner->pass.p, &s->mask);
    } else {
        ns_mask_set_cut(s->arch, &s->plan->size[s->at].cut, &s->mask);
    }
    return &s->mask;
}

/* ---- after it ---- */

/* The budget's part is the same on every rank, so each adds its share. */
static void add_router_gradient(ns_elastic_stage *s, const ns_net_mask *grad)
{
    ns_elastic_learner *l = s->learner;
    const double share = s->plan->size[s->at].budget, unit = s->o->alpha / s->train->micro_batches / s->ranks;
    double loss;
    memset(l->dp, 0, l->r->n_out * sizeof *l->dp);
    ns_router_mask_backward(s->arch, l->r, l->pass.p, grad, l->dp);
    ns_router_expect(s->arch, l->r, l->pass.p, &l->x);
    ns_expect_zero(&l->dx);
    loss = ns_budget_loss(&s->plan->budget, &l->x, share, unit, &l->dx);
    ns_router_expect_backward(s->arch, l->r, &l->dx, l->dp);
    if (share == 1)
        loss += ns_router_anchor(l->r, l->pass.p, unit, l->dp);
    s->budget_loss += loss / s->train->micro_batches;
    ns_router_backward(l->r, &l->pass, l->dp, l->g);
}

static int micro_done(void *ctx, int64_t step, int micro, const ns_net_mask *grad, const ns_loss *loss, ns_err *e)
{
    ns_elastic_stage *s = ctx;
    (void)step, (void)micro, (void)e;
    const int n = s->plan->n, pair = s->from * n + s->at;
    s->sums[pair] += loss->loss;
    s->sums[n * n + pair] += loss->weight;
    if (s->soft)
        add_router_gradient(s, grad);
    return 0;
}

/* ---- after a step ---- */

static int step_router(ns_elastic_stage *s, int64_t step, double lr, ns_comm *comm, ns_err *e)
{
    ns_elastic_learner *l = s->learner;
    double norm = 0;
    if (ns_comm_sum_doubles(comm, l->g, l->r->count, e) < 0)
        return -1;
    for (size_t i = 0; i < l->r->count; i++)
        norm += l->g[i] * l->g[i];
    norm = sqrt(norm);
    if (!isfinite(norm))
        return ns_fail(e, NS_EFORMAT, "step %lld: the router's gradient is not finite", (long long)step);
    for (size_t i = 0; s->train->clip > 0 && norm > s->train->clip && i < l->r->count; i++)
        l->g[i] *= s->train->clip / norm;
    ns_adamw_opts o = s->train->adamw;
    o.lr = lr;
    o.weight_decay = 0;
    ns_router_step(l->r, &o, s->first + step + 1, l->g, l->m, l->v);
    memset(l->g, 0, l->r->count * sizeof *l->g);
    return 0;
}

/* What the router now expects each budget to cost, without noise, as shares of the parent. */
static json_t *shares_json(ns_elastic_stage *s, int64_t step)
{
    ns_elastic_learner *l = s->learner;
    const ns_router_draw d = draw_at(s, step, NULL);
    json_t *obj = json_object();
    for (int i = 0; i < s->plan->n; i++) {
        ns_router_forward(l->r, s->plan->size[i].budget, &d, &l->pass);
        ns_router_expect(s->arch, l->r, l->pass.p, &l->x);
        json_object_set_new(obj, s->plan->size[i].name, json_real(ns_budget_cost(&s->plan->budget, &l->x, 0, NULL) / s->plan->budget.full));
    }
    return obj;
}

/* The model's schedule in shape, the router's rate in height. */
static double router_rate(const ns_elastic_stage *s, int64_t step)
{
    ns_schedule c = s->train->schedule;
    c.lr_min = s->o->router_lr * (c.lr > 0 ? c.lr_min / c.lr : 1);
    c.lr = s->o->router_lr;
    return ns_schedule_at(&c, step);
}

/* Mean losses: "small" for whole documents, "small>full" for those that full went on with. */
static json_t *sizes_json(const ns_elastic_stage *s)
{
    const int n = s->plan->n;
    json_t *sizes = json_object();
    for (int i = 0; i < n * n; i++) {
        const char *from = s->plan->size[i / n].name, *to = s->plan->size[i % n].name;
        char name[2 * sizeof s->plan->size[0].name];
        snprintf(name, sizeof name, i / n == i % n ? "%s" : "%s>%s", from, to);
        if (s->sums[n * n + i] > 0)
            json_object_set_new(sizes, name, json_real(s->sums[i] / s->sums[n * n + i]));
    }
    return sizes;
}

static int update(void *ctx, int64_t step, double progress, ns_comm *comm, json_t *log, ns_err *e)
{
    ns_elastic_stage *s = ctx;
    const size_t pairs = (size_t)s->plan->n * (size_t)s->plan->n;
    const double lr = router_rate(s, step);
    (void)progress;
    if (ns_comm_sum_doubles(comm, s->sums, 2 * pairs, e) < 0 || (s->soft && step_router(s, step, lr, comm, e) < 0))
        return -1;
    json_object_set_new(log, "sizes", sizes_json(s));
    if (s->soft) {
        const ns_router_draw d = draw_at(s, step, NULL);
        json_object_set_new(log, "budget_loss", json_real(s->budget_loss));
        json_object_set_new(log, "router_lr", json_real(lr));
        json_object_set_new(log, "tau", json_real(d.tau));
        json_object_set_new(log, "shares", shares_json(s, step));
    }
    memset(s->sums, 0, 2 * pairs * sizeof *s->sums);
    s->budget_loss = 0;
    return 0;
}

/* ---- */

int ns_elastic_stage_init(ns_elastic_stage *s, const ns_real *teacher, ns_objective *obj, ns_err *e)
{
    static const char *const names[] = { "router.w", "router.m", "router.v" };
    ns_elastic_learner *l = s->learner;
    s->sums = calloc(2 * (size_t)s->plan->n * (size_t)s->plan->n, sizeof *s->sums);
    s->budget_loss = 0;
    if (!s->sums)
        return ns_fail(e, NS_ENOMEM, "losses of %d sizes: out of memory", s->plan->n);
    if (ns_mask_init(s->arch, &s->mask, e) < 0 || ns_mask_init(s->arch, &s->before, e) < 0)
        return -1;
    *obj = (ns_objective){ .ctx = s, .teacher = teacher, .ce = s->o->ce, .temperature = s->o->temperature, .mask = mask,
                           .before = s->o->change > 0 && !s->soft ? before : NULL, .micro_done = micro_done, .update = update };
    if (!l->r)
        return 0;
    double *const data[] = { l->r->w, l->m, l->v };
    for (int i = 0; i < 3; i++) {
        s->state_name[i] = names[i];
        s->state_data[i] = data[i];
        s->state_bytes[i] = l->r->count * sizeof(double);
    }
    obj->n_state = 3;
    obj->state_name = s->state_name;
    obj->state_data = s->state_data;
    obj->state_bytes = s->state_bytes;
    return 0;
}

void ns_elastic_stage_release(ns_elastic_stage *s)
{
    ns_mask_release(&s->mask);
    ns_mask_release(&s->before);
    free(s->sums);
}
