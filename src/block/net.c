#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "block/carry.h"
#include "block/net_impl.h"
#include "block/vec.h"

/* ---- memory ---- */

/* Logits of a block stay within about 32 MB, however large the vocabulary. */
static int block_of(const ns_arch *a, const ns_net_opts *o)
{
    const int fits = (8 << 20) / a->vocab_size, block = fits < 16 ? 16 : fits > 256 ? 256 : fits;
    return block < o->max_tokens ? block : o->max_tokens;
}

static size_t saved_of(const ns_arch *a, int layer, const ns_net_opts *o)
{
    return ns_mixer_of(a->layers[layer].kind)->saved(a, layer, o->max_tokens, o->max_seqs);
}

/* Parts that a layer has for itself, or that all layers share. */
static ns_net_layer place_layer(ns_space *s, size_t th, const ns_net_opts *o, size_t saved)
{
    ns_net_layer l = { .x = ns_space_take(s, th), .root = ns_space_take(s, (size_t)o->max_tokens) };
    l.saved = ns_space_take(s, saved);
    l.y = ns_space_take(s, th);
    return l;
}

/* Forward's memory: n NULL only counts. */
static void place_forward(const ns_arch *a, const ns_net_opts *o, ns_space *s, ns_net *n)
{
    const size_t th = (size_t)o->max_tokens * (size_t)a->hidden_size;
    const bool own = !o->forward_only && o->recompute == NS_RECOMPUTE_NONE;
    size_t largest = 0, scratch = 0;
    for (int i = 0; i < a->n_layers; i++) {
        const size_t saved = saved_of(a, i, o), work = ns_mixer_of(a->layers[i].kind)->scratch(a, i, o->max_tokens, o->max_seqs);
        largest = saved > largest ? saved : largest;
        scratch = work > scratch ? work : scratch;
    }
    ns_real *stream = o->forward_only ? ns_space_take(s, th) : NULL;
    const ns_net_layer shared = own ? (ns_net_layer){ 0 } : place_layer(s, th, o, largest);
    for (int i = 0; i < a->n_layers; i++) {
        ns_net_layer l = own ? place_layer(s, th, o, saved_of(a, i, o)) : shared;
        l.stream = o->forward_only ? stream : ns_space_take(s, th);
        if (n) {
            l.load = n->layer[i].load;
            n->layer[i] = l;
        }
    }
    ns_net none;
    n = n ? n : &none;
    n->last = o->forward_only ? stream : ns_space_take(s, th);
    n->hidden = ns_space_take(s, th);
    n->root = ns_space_take(s, (size_t)o->max_tokens);
    n->scratch = ns_space_take(s, scratch);
}

static void place(const ns_arch *a, const ns_net_opts *o, ns_space *s, ns_net *n)
{
    const size_t h = (size_t)a->hidden_size, th = (size_t)o->max_tokens * h, v = (size_t)a->vocab_size, block = (size_t)block_of(a, o);
    place_forward(a, o, s, n);
    ns_net none;
    n = n ? n : &none;
    n->row[0] = ns_space_take(s, h);
    n->row[1] = ns_space_take(s, h);
    n->logits = ns_space_take(s, block * v);
    n->teacher_logits = ns_space_take(s, block * v);
    n->loss_row = ns_space_take(s, 2 * v);
    n->head_x = ns_space_take(s, block * h);
    n->head_dx = ns_space_take(s, block * h);
    n->loss_token = ns_space_ints(s, block);
    if (o->forward_only)
        return;
    n->dhidden = ns_space_take(s, th);
    n->dstream = ns_space_take(s, th);
    n->dy = ns_space_take(s, th);
    n->dx = ns_space_take(s, th);
}

size_t ns_net_bytes(const ns_params *p, const ns_net_opts *o)
{
    ns_space s = { 0 };
    place(p->arch, o, &s, NULL);
    return s.used * sizeof(ns_real);
}

ns_net *ns_net_new(const ns_params *p, const ns_blas *b, const ns_net_opts *o, ns_err *e)
{
    const ns_arch *a = p->arch;
    ns_space s = { 0 };
    ns_net *n = calloc(1, sizeof *n);
    if (!n)
        goto no_memory;
    n->p = p;
    n->blas = b;
    n->o = *o;
    n->block = block_of(a, o);
    n->layer = ns_arena_array(&n->arena, (size_t)a->n_layers, sizeof *n->layer);
    s.base = n->memory = ns_alloc_aligned(ns_net_bytes(p, o));
    if (!n->layer || !n->memory)
        goto no_memory;
    for (int i = 0; i < a->n_layers; i++)
        if (a->layers[i].kind == NS_LAYER_MOE &&
            !(n->layer[i].load = ns_arena_array(&n->arena, (size_t)a->layers[i].width[NS_AXIS_EXPERTS], sizeof *n->layer[i].load)))
            goto no_memory;
    place(a, o, &s, n);
    return n;
no_memory:
    ns_fail(e, NS_ENOMEM, "activations of %d tokens, %zu MB: out of memory", o->max_tokens, ns_net_bytes(p, o) >> 20);
    ns_net_free(n);
    return NULL;
}

void ns_net_free(ns_net *n)
{
    if (!n)
        return;
    free(n->memory);
    ns_arena_release(&n->arena);
    free(n);
}

const ns_real *ns_net_hidden(const ns_net *n)
{
    return n->hidden;
}

int64_t *ns_net_expert_load(ns_net *n, int layer)
{
    return n->layer[layer].load;
}

void ns_net_tap(ns_net *n, ns_tap_fn *fn, void *ctx)
{
    n->tap = fn;
    n->tap_ctx = ctx;
}

int ns_net_live(const ns_net *n, const ns_net_mask *mask)
{
    return mask && mask->hidden.m ? mask->hidden.live : n->p->arch->hidden_size;
}

/* ---- reading and writing the stream ---- */

/* y = a x m (m NULL: ones) */
NS_CLONES static void product(int n, ns_real a, const ns_real *x, const ns_real *m, ns_real *y)
{
    for (int i = 0; i < n; i++)
        y[i] = m ? a * x[i] * m[i] : a * x[i];
}

/* y += a x m */
NS_CLONES static void add_product(int n, ns_real a, const ns_real *x, const ns_real *m, ns_real *y)
{
    for (int i = 0; i < n; i++)
        y[i] += m ? a * x[i] * m[i] : a * x[i];
}

typedef struct norm {
    const ns_real *w;
    ns_real *dw;         /* NULL: not wanted */
    ns_net_mask *mask;   /* NULL: none */
    const ns_real *m;    /* its ones and zeros; NULL: ones */
    ns_real eps, scale;
    int n, live, h;      /* tokens */
} norm;

static norm norm_of(const ns_net *n, const ns_real *w, ns_real *g, ns_net_mask *mask, int layer)
{
    const ns_role r = layer < 0 ? NS_W_FINAL_NORM : NS_W_NORM;
    return (norm){ .w = ns_params_cat(n->p, w, layer, r, 0),
                   .dw = g ? ns_params_at(n->p, g, layer, r, 0) : NULL,
                   .mask = mask,
                   .m = mask ? mask->hidden.m : NULL,
                   .eps = (ns_real)n->p->arch->norm_eps * (mask ? mask->norm.eps_factor : 1),
                   .scale = mask ? mask->norm.scale : 1,
                   .n = n->seqs->n_tokens,
                   .live = ns_net_live(n, mask),
                   .h = n->p->arch->hidden_size };
}

/* x = norm(m stream); root [n] for backward */
static void read_stream(const ns_net *n, const norm *k, const ns_real *stream, ns_real *x, ns_real *root)
{
    for (int t = 0; t < k->n; t++, stream += k->h, x += k->h) {
        if (k->m)
            ns_vec_mul(stream, k->m, (size_t)k->live, n->row[0]);
        root[t] = ns_vec_rmsnorm(k->m ? n->row[0] : stream, k->w, k->live, k->h, k->eps, k->scale, x);
    }
}

/* dstream += the gradient of what was read */
static void read_backward(const ns_net *n, const norm *k, const ns_real *stream, const ns_real *dx, const ns_real *root, ns_real *dstream)
{
    ns_norm_mask *nm = k->mask ? &k->mask->norm : NULL;
    ns_real *dm = k->mask ? k->mask->hidden.dm : NULL, d_eps = 0;
    for (int t = 0; t < k->n; t++, stream += k->h, dx += k->h, dstream += k->h) {
        if (k->m)
            ns_vec_mul(stream, k->m, (size_t)k->live, n->row[0]);
        ns_vec_rmsnorm_backward(k->m ? n->row[0] : stream, k->w, dx, k->live, k->h, k->scale, root[t], n->row[1], k->dw, nm ? &d_eps : NULL,
                                nm ? &nm->d_scale : NULL);
        add_product(k->live, 1, n->row[1], k->m, dstream);
        if (dm)
            add_product(k->live, 1, n->row[1], stream, dm);
    }
    if (nm)
        nm->d_eps_factor += d_eps * (ns_real)n->p->arch->norm_eps;
}

/* out = x + a y m (m NULL: ones); out may be x */
NS_CLONES static void sum_product(int n, const ns_real *x, ns_real a, const ns_real *y, const ns_real *m, ns_real *out)
{
    for (int i = 0; i < n; i++)
        out[i] = x[i] + (m ? a * y[i] * m[i] : a * y[i]);
}

/* next = stream + keep m y */
static void write_stream(const ns_net *n, ns_net_mask *mask, ns_real keep, const ns_real *stream, const ns_real *y, ns_real *next)
{
    const int h = n->p->arch->hidden_size, live = keep == 0 ? 0 : ns_net_live(n, mask);
    for (int t = 0; t < n->seqs->n_tokens; t++, stream += h, y += h, next += h) {
        sum_product(live, stream, keep, y, mask ? mask->hidden.m : NULL, next);
        if (next != stream)
            memcpy(next + live, stream + live, (size_t)(h - live) * sizeof *next);
    }
}

/* n->dy from n->dstream, and the gradients of keep and of the mask */
static void write_backward(ns_net *n, ns_net_mask *mask, ns_layer_mask *lm, const ns_real *y)
{
    const int h = n->p->arch->hidden_size, live = ns_net_live(n, mask);
    const ns_real *m = mask ? mask->hidden.m : NULL, *d = n->dstream, keep = lm ? lm->keep : 1;
    ns_real *dy = n->dy, *dm = mask ? mask->hidden.dm : NULL;
    for (int t = 0; t < n->seqs->n_tokens; t++, y += h, d += h, dy += h) {
        product(live, keep, d, m, dy);
        if (lm && lm->want_keep) {
            product(live, 1, d, m, n->row[0]);
            lm->d_keep += ns_vec_dot(n->row[0], y, (size_t)live);
        }
        if (dm)
            add_product(live, keep, d, y, dm);
    }
}

/* ---- layers ---- */

static ns_block_ctx ctx_of(ns_net *n, const ns_real *w, ns_real *g, ns_net_mask *mask, int layer)
{
    return (ns_block_ctx){ .arch = n->p->arch, .params = n->p, .blas = n->blas, .layer = layer, .seqs = n->seqs, .w = w, .g = g,
                           .mask = mask ? &mask->layer[layer] : NULL, .hidden = ns_net_live(n, mask), .scratch = n->scratch };
}

static void tap_norm(ns_net *n, int layer, const ns_real *x, int live)
{
    ns_tap t = { .kind = NS_TAP_NORM, .layer = layer, .expert = -1, .rows = n->seqs->n_tokens, .cols = live, .x = x,
                 .ld = (size_t)n->p->arch->hidden_size };
    if (n->tap)
        n->tap(n->tap_ctx, &t);
}

/* Does anything need the layer's mixer? */
static bool computed(const ns_net_mask *mask, int layer)
{
    return !mask || mask->layer[layer].keep != 0 || mask->layer[layer].want_keep;
}

/* Norm and mixer. `again`: for backward, unseen by taps and counters. */
static void run_mixer(ns_net *n, const ns_real *w, ns_net_mask *mask, int i, bool again)
{
    const ns_net_layer *l = &n->layer[i];
    const norm k = norm_of(n, w, NULL, mask, i);
    ns_block_ctx c = ctx_of(n, w, NULL, mask, i);
    read_stream(n, &k, l->stream, l->x, l->root);
    if (!again) {
        c.tap = n->tap;
        c.tap_ctx = n->tap_ctx;
        c.expert_load = mask && mask->layer[i].keep == 0 ? NULL : l->load;
        tap_norm(n, i, l->x, k.live);
    }
    ns_mixer_of(c.arch->layers[i].kind)->forward(&c, l->x, l->y, l->saved);
}

static void embed(ns_net *n, const ns_real *w, const ns_seqs *s, ns_real *out)
{
    const size_t h = (size_t)n->p->arch->hidden_size;
    const ns_real *table = ns_params_cat(n->p, w, -1, NS_W_EMBED, 0);
    for (int t = 0; t < s->n_tokens; t++) {
        assert(s->ids[t] >= 0 && s->ids[t] < n->p->arch->vocab_size);
        memcpy(out + (size_t)t * h, table + (size_t)s->ids[t] * h, h * sizeof *out);
    }
}

void ns_net_forward(ns_net *n, const ns_real *w, ns_net_mask *mask, const ns_seqs *s)
{
    const ns_arch *a = n->p->arch;
    assert(s->n_tokens <= n->o.max_tokens && s->n_seqs <= n->o.max_seqs && s->start[0] == 0 && s->start[s->n_seqs] == s->n_tokens);
    assert(!s->from || (!s->leave && s->n_tokens + s->from->start[s->n_seqs] <= n->o.max_tokens));
    n->seqs = s;
    if (s->leave)
        ns_carry_begin(s->leave, a, s);
    embed(n, w, s, n->layer[0].stream);
    for (int i = 0; i < a->n_layers; i++) {
        if (computed(mask, i))
            run_mixer(n, w, mask, i, false);
        write_stream(n, mask, mask ? mask->layer[i].keep : 1, n->layer[i].stream, n->layer[i].y,
                     i + 1 < a->n_layers ? n->layer[i + 1].stream : n->last);
    }
    const norm k = norm_of(n, w, NULL, mask, -1);
    read_stream(n, &k, n->last, n->hidden, n->root);
    for (int t = 0; k.live < k.h && t < k.n; t++)
        memset(n->hidden + (size_t)t * (size_t)k.h + k.live, 0, (size_t)(k.h - k.live) * sizeof *n->hidden);
    tap_norm(n, a->n_layers, n->hidden, k.live);
}

static void layer_backward(ns_net *n, const ns_real *w, ns_net_mask *mask, ns_real *g, int i)
{
    const ns_net_layer *l = &n->layer[i];
    ns_layer_mask *lm = mask ? &mask->layer[i] : NULL;
    const ns_block_ctx c = ctx_of(n, w, g, mask, i);
    const norm k = norm_of(n, w, g, mask, i);
    if (!computed(mask, i))
        return;
    if (n->o.recompute == NS_RECOMPUTE_LAYER)
        run_mixer(n, w, mask, i, true);
    write_backward(n, mask, lm, l->y);
    if (lm && lm->keep == 0)
        return;
    ns_mixer_of(c.arch->layers[i].kind)->backward(&c, l->x, n->dy, l->saved, n->dx);
    read_backward(n, &k, l->stream, n->dx, l->root, n->dstream);
}

static void embed_backward(const ns_net *n, ns_real *g)
{
    const size_t h = (size_t)n->p->arch->hidden_size;
    ns_real *table = ns_params_at(n->p, g, -1, NS_W_EMBED, 0);
    for (int t = 0; t < n->seqs->n_tokens; t++)
        ns_vec_axpy(h, 1, n->dstream + (size_t)t * h, table + (size_t)n->seqs->ids[t] * h);
}

void ns_net_backward(ns_net *n, const ns_real *w, ns_net_mask *mask, ns_real *g, ns_bucket_fn *done, void *ctx)
{
    const ns_arch *a = n->p->arch;
    const norm k = norm_of(n, w, g, mask, -1);
    assert(!n->o.forward_only);
    memset(n->dstream, 0, (size_t)k.n * (size_t)k.h * sizeof *n->dstream);
    read_backward(n, &k, n->last, n->dhidden, n->root, n->dstream);
    if (done)
        done(ctx, a->n_layers + 1);
    for (int i = a->n_layers - 1; i >= 0; i--) {
        layer_backward(n, w, mask, g, i);
        if (done)
            done(ctx, 1 + i);
    }
    if (g)
        embed_backward(n, g);
    if (done)
        done(ctx, 0);
}
