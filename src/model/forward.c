#include <assert.h>
#include <math.h>
#include <string.h>

#include "model/block.h"
#include "tensor/format.h"

void ns_mask_segs(float *v, size_t ld, int n, int full, const ns_segs *live)
{
    for (int i = 0; i < n; i++, v += ld) {
        int at = 0;
        for (int s = 0; s < live->n; s++) {
            memset(v + at, 0, (size_t)(live->seg[s].off - at) * sizeof *v);
            at = live->seg[s].off + live->seg[s].len;
        }
        memset(v + at, 0, (size_t)(full - at) * sizeof *v);
    }
}

void ns_mask_prefix(float *v, size_t ld, int n, int full, int live)
{
    for (int i = 0; i < n; i++, v += ld)
        memset(v + live, 0, (size_t)(full - live) * sizeof *v);
}

void ns_ask(ns_step *st, const ns_product *p)
{
    assert(st->asked->n < st->asked->cap);
    if (!ns_scratch_failed(st->s))
        st->asked->p[st->asked->n++] = *p;
}

void ns_ask_linear(ns_step *st, int layer, ns_role role, const ns_segs *rows, int n_rows, ns_acts *x, const float *bias, float *y, size_t ldy)
{
    ns_tap_input(st, layer, role, 0, x, NULL, x->m);
    ns_ask(st, &(ns_product){ .w = &ns_ckpt_weight(st->m->ckpt, layer, role, 0)->mat, .rows = rows, .n_rows = n_rows, .x = x, .m = x->m, .y = y,
                              .ldy = ldy, .bias = bias });
}

void ns_tap_input(const ns_step *st, int layer, ns_role role, int expert, const ns_acts *x, const int *idx, int n)
{
    if (st->tap && st->tap->input && !ns_scratch_failed(st->s))
        st->tap->input(st->tap->ctx, &(ns_step_input){ .layer = layer, .expert = expert, .role = role, .x = x->x, .ld = x->ldx, .idx = idx,
                                                       .n = n, .cols = x->cols.total });
}

struct norm {
    const ns_step *st;
    const float *x, *w;
    float *y;
    int live;
};

/* Over the live prefix only: that is the exact form of the mask's correction (eps' = eps d/D, output times sqrt(d/D)). */
static void norm_task(void *ctx, int t, int thread)
{
    (void)thread;
    const struct norm *n = ctx;
    size_t h = (size_t)n->st->hidden;
    n->st->m->ops->rmsnorm(n->x + (size_t)t * h, n->w, n->live, (float)n->st->m->arch->norm_eps, n->y + (size_t)t * h);
    ns_mask_prefix(n->y + (size_t)t * h, h, 1, n->st->hidden, n->live);
}

static int live_hidden(const ns_step *st)
{
    return st->plan->mask ? st->plan->mask->hidden : st->hidden;
}

struct add {
    const ns_step *st;
    const float *y;
    float *x;
};

static void add_task(void *ctx, int t, int thread)
{
    (void)thread;
    const struct add *a = ctx;
    size_t h = (size_t)a->st->hidden;
    a->st->m->ops->axpy(live_hidden(a->st), 1.0f, a->y + (size_t)t * h, a->x + (size_t)t * h);
}

static ns_mixer_fn *mixer_of(char kind)
{
    switch (kind) {
    case NS_LAYER_MAMBA: return ns_mamba_stage;
    case NS_LAYER_ATTENTION: return ns_attention_stage;
    case NS_LAYER_MOE: return ns_moe_stage;
    default: return ns_mlp_stage;
    }
}

static void compute_asked(const ns_model *m, ns_scratch *s, ns_asked *asked, bool shared)
{
    if (!ns_scratch_failed(s))
        ns_products_run(m, s, asked->p, asked->n, shared);
    asked->n = 0;
}

/* A layer over all parts whose sizes keep it. Where memory runs out it stops between stages. */
static void run_layer(const ns_model *m, ns_scratch *s, ns_step *part, int n_parts, int layer)
{
    ns_mixer_fn *mixer = mixer_of(m->arch->layers[layer].kind);
    bool busy = true;
    for (int i = 0; i < n_parts; i++)
        if (part[i].plan->layer[layer].keep) {
            struct norm n = { &part[i], part[i].x, part[i].plan->layer[layer].vec.norm, part[i].normed, live_hidden(&part[i]) };
            ns_parallel(m, part[i].n_tokens, norm_task, &n);
        }
    for (int stage = 0; busy && !ns_scratch_failed(s); stage++) {
        busy = false;
        for (int i = 0; i < n_parts && !ns_scratch_failed(s); i++)
            busy = (part[i].plan->layer[layer].keep && mixer(&part[i], layer, stage)) || busy;
        compute_asked(m, s, part->asked, n_parts > 1);
    }
    for (int i = 0; i < n_parts && !ns_scratch_failed(s); i++) {
        ns_step *st = &part[i];
        if (!st->plan->layer[layer].keep)
            continue;
        struct add a = { st, st->out, st->x };
        ns_parallel(m, st->n_tokens, add_task, &a);
        if (st->tap && st->tap->hidden)
            st->tap->hidden(st->tap->ctx, layer, st->x, st->n_tokens, st->hidden);
    }
}

/* ---- the head ---- */

struct head {
    float *rows, *normed, *logits; /* [n, hidden], the same normed, [n, vocab] */
    int n;
    ns_acts in;
};

/* Final norm, for the positions that were asked for, and the product. */
static void ask_head(ns_step *st)
{
    size_t h = (size_t)st->hidden, vocab = (size_t)st->m->arch->vocab_size;
    struct head *d = st->mixer = ns_scratch_get(st->s, 1, sizeof *d);
    if (!d)
        return;
    *d = (struct head){ 0 };
    for (int i = 0; i < st->n_items; i++)
        d->n += st->items[i].n_logits;
    if (d->n == 0)
        return;
    d->rows = ns_scratch_get(st->s, (size_t)d->n * h, sizeof(float));
    d->normed = ns_scratch_get(st->s, (size_t)d->n * h, sizeof(float));
    d->logits = st->n_items == 1 ? st->items[0].logits : ns_scratch_get(st->s, (size_t)d->n * vocab, sizeof(float));
    if (ns_scratch_failed(st->s))
        return;
    float *row = d->rows;
    for (int i = 0; i < st->n_items; i++) {
        const ns_item *it = &st->items[i];
        memcpy(row, st->x + (size_t)(st->first[i] + it->n - it->n_logits) * h, (size_t)it->n_logits * h * sizeof *row);
        row += (size_t)it->n_logits * h;
    }
    struct norm norm = { st, d->rows, st->m->final_norm, d->normed, live_hidden(st) };
    ns_parallel(st->m, d->n, norm_task, &norm);
    d->in = ns_acts_of(d->normed, h, d->n, st->hidden);
    ns_ask_linear(st, -1, NS_W_LM_HEAD, NULL, st->m->arch->vocab_size, &d->in, NULL, d->logits, vocab);
}

/* One value per row stands for all: a NaN or infinity in the normed input reaches every logit; weights of the head alone are the verifier's
 * to find. */
static int hand_out_logits(const ns_step *st, ns_err *e)
{
    const struct head *d = st->mixer;
    size_t h = (size_t)st->hidden, vocab = (size_t)st->m->arch->vocab_size;
    const float *row = d->logits;
    for (int i = 0; i < st->n_items && d->n; i++) {
        if (row != st->items[i].logits && st->items[i].n_logits)
            memcpy(st->items[i].logits, row, (size_t)st->items[i].n_logits * vocab * sizeof *row);
        row += (size_t)st->items[i].n_logits * vocab;
    }
    for (size_t i = 0; i < (size_t)d->n * h; i++)
        if (!isfinite(d->normed[i]))
            return ns_fail(e, NS_EFORMAT, "the hidden state is not finite: a weight of this checkpoint is broken");
    return 0;
}

static int head(const ns_model *m, ns_scratch *s, ns_step *part, int n_parts, ns_err *e)
{
    int rc = 0;
    ns_scratch_reset(s);
    for (int i = 0; i < n_parts; i++)
        ask_head(&part[i]);
    compute_asked(m, s, part->asked, n_parts > 1);
    if (ns_scratch_failed(s))
        return ns_fail(e, NS_ENOMEM, "forward: out of memory");
    for (int i = 0; i < n_parts && rc == 0; i++)
        rc = hand_out_logits(&part[i], e);
    return rc;
}

/* ---- a step ---- */

static const ns_plan *plan_of(const ns_plan *p, const ns_item *it)
{
    return it->plan ? it->plan : p;
}

static int check(const ns_plan *p, const ns_item *items, int n_items, ns_err *e)
{
    for (int i = 0; i < n_items; i++) {
        const ns_item *it = &items[i];
        if (it->n < 1 || it->n_logits < 0 || it->n_logits > it->n)
            return ns_fail(e, NS_EINVAL, "forward: item %d: %d tokens, %d logits", i, it->n, it->n_logits);
        if (it->n > ns_state_room(it->state))
            return ns_fail(e, NS_EINVAL, "the context of %d tokens is full", it->state->context);
        int vocab = plan_of(p, it)->model->arch->vocab_size;
        for (int j = 0; j < it->n; j++)
            if (it->ids[j] < 0 || it->ids[j] >= vocab)
                return ns_fail(e, NS_EINVAL, "token id %d is outside the vocabulary of %d", it->ids[j], vocab);
    }
    return 0;
}

static bool same_size(const ns_plan *a, const ns_plan *b)
{
    return a == b || (!a->mask && !b->mask && ns_cut_equal(&a->cut, &b->cut));
}

/* Sorts the items by size, in `sorted`, and begins a part for each size. Returns how many; the parts' items lie one after the other. */
static int split(const ns_plan *p, const ns_item *items, int n_items, ns_item *sorted, ns_step *part)
{
    int n_parts = 0, n = 0;
    for (int i = 0; i < n_items; i++) {
        const ns_plan *own = plan_of(p, &items[i]);
        int k = 0;
        while (k < n_parts && !same_size(part[k].plan, own))
            k++;
        if (k < n_parts)
            continue;
        ns_step *st = &part[n_parts++];
        *st = (ns_step){ .m = own->model, .plan = own, .items = sorted + n, .hidden = own->hidden };
        for (int j = i; j < n_items; j++)
            if (same_size(own, plan_of(p, &items[j])))
                st->items[st->n_items++] = items[j];
        n += st->n_items;
    }
    return n_parts;
}

/* Memory and embeddings of a part. */
static void begin_part(ns_step *st)
{
    st->first = ns_scratch_get_step(st->s, (size_t)st->n_items, sizeof(int));
    for (int i = 0; st->first && i < st->n_items; i++) {
        st->first[i] = st->n_tokens;
        st->n_tokens += st->items[i].n;
    }
    size_t h = (size_t)st->hidden, size = (size_t)st->n_tokens * h;
    st->x = ns_scratch_get_step(st->s, size, sizeof(float));
    st->normed = ns_scratch_get_step(st->s, size, sizeof(float));
    st->out = ns_scratch_get_step(st->s, size, sizeof(float));
    const ns_mat *embed = &ns_ckpt_weight(st->m->ckpt, -1, NS_W_EMBED, 0)->mat;
    for (int i = 0; i < st->n_items && !ns_scratch_failed(st->s); i++)
        for (int j = 0; j < st->items[i].n; j++)
            ns_row_decode(embed, st->items[i].ids[j], 0, st->hidden, st->x + (size_t)(st->first[i] + j) * h);
}

/* The most that a stage asks for: every expert's product and the shared one's, of every part. */
static int most_asked(const ns_model *m, int n_parts)
{
    int most = 3;
    for (int l = 0; l < m->arch->n_layers; l++)
        if (m->arch->layers[l].kind == NS_LAYER_MOE && m->arch->layers[l].width[NS_AXIS_EXPERTS] + 1 > most)
            most = m->arch->layers[l].width[NS_AXIS_EXPERTS] + 1;
    return most * n_parts;
}

int ns_forward(const ns_plan *p, ns_item *items, int n_items, ns_scratch *s, const ns_step_tap *tap, ns_err *e)
{
    if (n_items < 1)
        return ns_fail(e, NS_EINVAL, "forward: nothing to do");
    const ns_model *m = plan_of(p, items)->model;
    if (check(p, items, n_items, e) != 0)
        return -1;
    ns_scratch_reset_step(s);
    ns_item *sorted = ns_scratch_get_step(s, (size_t)n_items, sizeof *sorted);
    ns_step *part = ns_scratch_get_step(s, (size_t)n_items, sizeof *part);
    if (ns_scratch_failed(s))
        return ns_fail(e, NS_ENOMEM, "forward: out of memory");
    int n_parts = split(p, items, n_items, sorted, part);
    ns_asked asked = { .cap = most_asked(m, n_parts) };
    asked.p = ns_scratch_get_step(s, (size_t)asked.cap, sizeof *asked.p);
    for (int i = 0; i < n_parts; i++) {
        part[i].s = s;
        part[i].tap = tap;
        part[i].asked = &asked;
        begin_part(&part[i]);
    }
    for (int l = 0; l < m->arch->n_layers && !ns_scratch_failed(s); l++) {
        ns_scratch_reset(s);
        run_layer(m, s, part, n_parts, l);
    }
    if (ns_scratch_failed(s))
        return ns_fail(e, NS_ENOMEM, "forward: out of memory");
    int rc = head(m, s, part, n_parts, e);
    for (int i = 0; i < n_items; i++)
        items[i].state->len += items[i].n;
    return rc;
}
