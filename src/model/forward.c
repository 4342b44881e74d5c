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

void ns_linear(ns_step *st, int layer, ns_role role, const ns_segs *rows, int n_rows, ns_acts *x, const float *bias, float *y, size_t ldy)
{
    ns_product p = { .w = &ns_ckpt_weight(st->m->ckpt, layer, role, 0)->mat, .rows = rows, .n_rows = n_rows, .x = x, .m = x->m,
                     .y = y, .ldy = ldy, .bias = bias };
    ns_tap_input(st, layer, role, 0, x, NULL, x->m);
    if (!ns_scratch_failed(st->s))
        ns_products_run(st->m, st->s, &p, 1);
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

static void run_layer(ns_step *st, int layer, float *x, float *normed, float *out)
{
    struct norm n = { st, x, st->plan->layer[layer].vec.norm, normed, live_hidden(st) };
    ns_parallel(st->m, st->n_tokens, norm_task, &n);
    switch (st->plan->layer[layer].kind) {
    case NS_LAYER_MAMBA: ns_mamba_forward(st, layer, normed, out); break;
    case NS_LAYER_ATTENTION: ns_attention_forward(st, layer, normed, out); break;
    case NS_LAYER_MOE: ns_moe_forward(st, layer, normed, out); break;
    default: ns_mlp_forward(st, layer, normed, out); break;
    }
    if (ns_scratch_failed(st->s))
        return;
    struct add a = { st, out, x };
    ns_parallel(st->m, st->n_tokens, add_task, &a);
    if (st->tap && st->tap->hidden)
        st->tap->hidden(st->tap->ctx, layer, x, st->n_tokens, st->hidden);
}

/* Final norm and head, for the positions that were asked for. */
static int head(ns_step *st, const float *x, ns_scratch *s, ns_err *e)
{
    size_t h = (size_t)st->hidden, vocab = (size_t)st->m->arch->vocab_size;
    int n = 0, at = 0;
    for (int i = 0; i < st->n_items; i++)
        n += st->items[i].n_logits;
    if (n == 0)
        return 0;
    float *rows = ns_scratch_get(s, (size_t)n * h, sizeof *rows), *normed = ns_scratch_get(s, (size_t)n * h, sizeof *normed);
    float *logits = st->n_items == 1 ? st->items[0].logits : ns_scratch_get(s, (size_t)n * vocab, sizeof *logits);
    if (ns_scratch_failed(s))
        return ns_fail(e, NS_ENOMEM, "forward: out of memory");
    for (int i = 0; i < st->n_items; i++) {
        const ns_item *it = &st->items[i];
        memcpy(rows + (size_t)at * h, x + (size_t)(st->first[i] + it->n - it->n_logits) * h, (size_t)it->n_logits * h * sizeof *rows);
        at += it->n_logits;
    }
    struct norm norm = { st, rows, st->m->final_norm, normed, live_hidden(st) };
    ns_parallel(st->m, n, norm_task, &norm);
    ns_acts in = ns_acts_of(normed, h, n, st->hidden);
    ns_linear(st, -1, NS_W_LM_HEAD, NULL, st->m->arch->vocab_size, &in, NULL, logits, vocab);
    if (ns_scratch_failed(s))
        return ns_fail(e, NS_ENOMEM, "forward: out of memory");
    for (int i = 0, row = 0; i < st->n_items; row += st->items[i].n_logits, i++)
        if (logits != st->items[i].logits && st->items[i].n_logits)
            memcpy(st->items[i].logits, logits + (size_t)row * vocab, (size_t)st->items[i].n_logits * vocab * sizeof *logits);
    /* one value per row stands for all: a NaN or infinity in the normed input reaches every logit; weights of the head alone are the
     * verifier's to find */
    for (size_t i = 0; i < (size_t)n * h; i++)
        if (!isfinite(normed[i]))
            return ns_fail(e, NS_EFORMAT, "the hidden state is not finite: a weight of this checkpoint is broken");
    return 0;
}

static int check(const ns_plan *p, const ns_item *items, int n_items, ns_err *e)
{
    for (int i = 0; i < n_items; i++) {
        const ns_item *it = &items[i];
        if (it->n < 1 || it->n_logits < 0 || it->n_logits > it->n)
            return ns_fail(e, NS_EINVAL, "forward: item %d: %d tokens, %d logits", i, it->n, it->n_logits);
        if (it->n > ns_state_room(it->state))
            return ns_fail(e, NS_EINVAL, "the context of %d tokens is full", it->state->context);
        for (int j = 0; j < it->n; j++)
            if (it->ids[j] < 0 || it->ids[j] >= p->model->arch->vocab_size)
                return ns_fail(e, NS_EINVAL, "token id %d is outside the vocabulary of %d", it->ids[j], p->model->arch->vocab_size);
    }
    return 0;
}

static int forward_one(const ns_plan *p, ns_item *items, int n_items, ns_scratch *s, const ns_step_tap *tap, ns_err *e)
{
    const ns_model *m = p->model;
    if (check(p, items, n_items, e) != 0)
        return -1;
    ns_step st = { .m = m, .plan = p, .s = s, .tap = tap, .items = items, .n_items = n_items, .hidden = p->hidden };
    ns_scratch_reset_step(s);
    st.first = ns_scratch_get_step(s, (size_t)n_items, sizeof(int));
    for (int i = 0; st.first && i < n_items; i++) {
        st.first[i] = st.n_tokens;
        st.n_tokens += items[i].n;
    }
    size_t size = (size_t)st.n_tokens * (size_t)p->hidden;
    float *x = ns_scratch_get_step(s, size, sizeof *x), *normed = ns_scratch_get_step(s, size, sizeof *x);
    float *out = ns_scratch_get_step(s, size, sizeof *x);
    if (ns_scratch_failed(s))
        return ns_fail(e, NS_ENOMEM, "forward: out of memory");
    const ns_mat *embed = &ns_ckpt_weight(m->ckpt, -1, NS_W_EMBED, 0)->mat;
    for (int i = 0; i < n_items; i++)
        for (int j = 0; j < items[i].n; j++)
            ns_row_decode(embed, items[i].ids[j], 0, p->hidden, x + (size_t)(st.first[i] + j) * (size_t)p->hidden);
    for (int l = 0; l < m->arch->n_layers && !ns_scratch_failed(s); l++)
        if (p->layer[l].keep) {
            ns_scratch_reset(s);
            run_layer(&st, l, x, normed, out);
        }
    ns_scratch_reset(s);
    if (ns_scratch_failed(s))
        return ns_fail(e, NS_ENOMEM, "forward: out of memory");
    int rc = head(&st, x, s, e);
    for (int i = 0; i < n_items; i++)
        items[i].state->len += items[i].n;
    return rc;
}

int ns_forward(const ns_plan *p, ns_item *items, int n_items, ns_scratch *s, const ns_step_tap *tap, ns_err *e)
{
    int rc = 0;
    for (int i = 0, n; rc == 0 && i < n_items; i += n) {
        const ns_plan *own = items[i].plan ? items[i].plan : p;
        for (n = 1; i + n < n_items && (items[i + n].plan ? items[i + n].plan : p) == own; n++)
            ;
        rc = forward_one(own, items + i, n, s, tap, e);
    }
    return rc;
}
