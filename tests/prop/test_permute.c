/* A reordered checkpoint computes what the original computes: logits, residual stream and router picks agree once the orders are undone,
 * for random orders of each axis alone and of all together. Reordering and reordering back gives the same bytes, and a size of a reordered
 * checkpoint holds exactly the entries that the orders put first. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "forge/permute.h"
#include "forge/slice.h"
#include "prop/prop.h"
#include "store/writer.h"
#include "tensor/format.h"

enum { TOKENS = 9, MAX_PICKS = 8 };

static ns_ckpt *reopen(const char *dir)
{
    ns_err e = { 0 };
    ns_ckpt *c = ns_ckpt_open(dir, NULL, &e);
    if (!c)
        fail_msg("%s: %s", dir, e.msg);
    return c;
}

static void *need(void *p)
{
    if (!p)
        abort();
    return p;
}

static void random_orders(ns_orders *o, const ns_arch *a, unsigned axes, uint64_t seed)
{
    ns_err e = { 0 };
    if (ns_orders_init(o, a, &e) != 0 || ns_orders_random(o, axes, seed, &e) != 0)
        fail_msg("%s", e.msg);
}

static void permute(const ns_ckpt *c, const ns_orders *o, const char *dir, const char *what)
{
    ns_err e = { 0 };
    if (ns_permute(c, o, dir, NULL, &e) != 0)
        fail_msg("%s: %s", what, e.msg);
}

static void assert_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("\"%s\" does not say \"%s\"", text, part);
}

/* ---- the variants, with more shapes than the views need ---- */

enum { EXTRA = 4, VARIANTS = PROP_VARIANTS + EXTRA };

static void variants(prop_variant v[VARIANTS])
{
    prop_variants(v);
    for (int i = PROP_VARIANTS; i < VARIANTS; i++)
        v[i] = (prop_variant){ "", tiny_defaults() };
    prop_variant *x = v + PROP_VARIANTS;
    x[0].name = "every-bias-latent-tied-groups";
    x[0].o.biases = x[0].o.tied = true;
    x[0].o.latent = 24;
    x[0].o.n_group = 4;
    x[0].o.topk_group = 2;
    x[1].name = "one-of-each";
    x[1].o.hidden = 40;
    x[1].o.mamba_groups = 1;
    x[1].o.mamba_heads = 5;
    x[1].o.mamba_head_dim = 6;
    x[1].o.state = 7;
    x[1].o.kv_heads = 1;
    x[1].o.heads = 3;
    x[1].o.head_dim = 10;
    x[1].o.expert_ffn = 21;
    x[2].name = "many-groups";
    x[2].o.dtype = "bf16";
    x[2].o.mamba_groups = 4;
    x[2].o.mamba_heads = 12;
    x[2].o.heads = 12;
    x[2].o.kv_heads = 4;
    x[2].o.experts = 12;
    x[2].o.n_group = 3;
    x[2].o.topk_group = 2;
    x[3].name = "wide-heads";
    x[3].o.dtype = "nvfp4-all";
    x[3].o.mamba_head_dim = 32;
    x[3].o.biases = true;
}

/* Axes that are inputs of some NVFP4 matrix with more than one block per entry of the outer factors. */
static bool lossy(const prop_variant *v, ns_axis x)
{
    if (!prop_quantised(&v->o))
        return false;
    if (x == NS_AXIS_MAMBA_HEAD_DIM)
        return v->o.mamba_head_dim > 16;
    return x == NS_AXIS_HIDDEN || x == NS_AXIS_EXPERT_FFN || x == NS_AXIS_SHARED_FFN || x == NS_AXIS_DENSE_FFN;
}

typedef void variant_fn(const prop_variant *v, const char *dir, ns_ckpt *c);

static void each_variant(variant_fn *fn)
{
    prop_variant v[VARIANTS];
    variants(v);
    for (int i = 0; i < VARIANTS; i++) {
        char *dir = tiny_path(tiny_base, v[i].name);
        if (tiny_make(dir, &v[i].o) != 0)
            abort();
        ns_ckpt *c = reopen(dir);
        fn(&v[i], dir, c);
        ns_ckpt_close(c);
        tiny_remove(dir);
        free(dir);
    }
}

/* ---- what a model computes ---- */

typedef struct run {
    const ns_arch *arch;
    float *logits, *x; /* [TOKENS, vocab]; [layer][TOKENS, hidden] */
    int *picks;        /* [layer][TOKENS, MAX_PICKS] */
    float *weights;
} run;

static void on_hidden(void *ctx, int layer, const float *x, int n, int hidden)
{
    run *r = ctx;
    assert_int_equal(n, TOKENS);
    memcpy(r->x + (size_t)layer * TOKENS * (size_t)hidden, x, (size_t)(n * hidden) * sizeof *x);
}

static void on_router(void *ctx, int layer, const int *expert, const float *weight, int n, int topk)
{
    run *r = ctx;
    assert_true(topk <= MAX_PICKS);
    for (int t = 0; t < n; t++)
        for (int k = 0; k < topk; k++) {
            r->picks[(layer * TOKENS + t) * MAX_PICKS + k] = expert[t * topk + k];
            r->weights[(layer * TOKENS + t) * MAX_PICKS + k] = weight[t * topk + k];
        }
}

static run run_model(const prop_model *m, const int *ids)
{
    const ns_arch *a = m->ck->arch;
    const size_t layers = (size_t)a->n_layers;
    ns_err e = { 0 };
    ns_cut full;
    run r = { .arch = a };
    r.logits = need(malloc(TOKENS * (size_t)a->vocab_size * sizeof *r.logits));
    r.x = need(malloc(layers * TOKENS * (size_t)a->hidden_size * sizeof *r.x));
    r.picks = need(calloc(layers * TOKENS * MAX_PICKS, sizeof *r.picks));
    r.weights = need(calloc(layers * TOKENS * MAX_PICKS, sizeof *r.weights));
    assert_int_equal(ns_cut_full(a, &full, &e), 0);
    ns_plan *p = prop_plan(m, &full);
    ns_state *s = need(ns_state_new(a, &full, NS_F32, TOKENS, &e));
    ns_scratch *scratch = need(ns_scratch_new());
    ns_item item = { .state = s, .ids = ids, .n = TOKENS, .n_logits = TOKENS, .logits = r.logits };
    const ns_step_tap tap = { .ctx = &r, .hidden = on_hidden, .router = on_router };
    assert_int_equal(ns_forward(p, &item, 1, scratch, &tap, &e), 0);
    ns_scratch_free(scratch);
    ns_state_free(s);
    ns_plan_free(p);
    ns_cut_release(&full);
    return r;
}

static void release_run(run *r)
{
    free(r->logits);
    free(r->x);
    free(r->picks);
    free(r->weights);
}

static int old_index(const ns_orders *o, int layer, ns_axis x, int i)
{
    const int *order = ns_orders_find(o, layer, x);
    return order ? order[i] : i;
}

/* Undoes the orders in what the reordered model `b` showed. */
static void undo(run *b, const ns_orders *o)
{
    const int hidden = b->arch->hidden_size, rows = b->arch->n_layers * TOKENS;
    float *row = need(malloc((size_t)hidden * sizeof *row));
    for (int r = 0; r < rows; r++) {
        float *x = b->x + (size_t)r * (size_t)hidden;
        for (int i = 0; i < hidden; i++)
            row[old_index(o, 0, NS_AXIS_HIDDEN, i)] = x[i];
        memcpy(x, row, (size_t)hidden * sizeof *row);
        int layer = r / TOKENS;
        for (int k = 0; b->arch->layers[layer].kind == NS_LAYER_MOE && k < b->arch->layers[layer].topk; k++)
            b->picks[r * MAX_PICKS + k] = old_index(o, layer, NS_AXIS_EXPERTS, b->picks[r * MAX_PICKS + k]);
    }
    free(row);
}

static double worst;

static void compare(const char *dir, const char *permuted, const ns_orders *o, enum ns_rung rung, double tol, const char *what)
{
    const ns_ops *ops = ns_ops_find(rung);
    if (!ops)
        return;
    ns_rng r;
    ns_rng_init(&r, 11);
    prop_model a = prop_open(reopen(dir), ops, 1), b = prop_open(reopen(permuted), ops, 1);
    const ns_arch *arch = a.ck->arch;
    int *ids = prop_ids(&a, TOKENS, &r);
    run x = run_model(&a, ids), y = run_model(&b, ids);
    undo(&y, o);
    const size_t n_picks = (size_t)arch->n_layers * TOKENS * MAX_PICKS;
    double d = fmax(prop_diff(y.logits, x.logits, TOKENS * (size_t)arch->vocab_size),
                    prop_diff(y.x, x.x, (size_t)arch->n_layers * TOKENS * (size_t)arch->hidden_size));
    if (memcmp(x.picks, y.picks, n_picks * sizeof *x.picks) != 0)
        fail_msg("%s: other experts are picked", what);
    d = fmax(d, prop_diff(y.weights, x.weights, n_picks));
    if (!(d <= tol))
        fail_msg("%s: differs by %.2e (allowed %.0e)", what, d, tol);
    worst = fmax(worst, d);
    release_run(&x);
    release_run(&y);
    free(ids);
    prop_close(&a);
    prop_close(&b);
}

/* ---- bytes ---- */

static void same_file(const char *dir_a, const char *dir_b, const char *name)
{
    ns_err e = { 0 };
    ns_buf a = { 0 }, b = { 0 };
    char *pa = tiny_path(dir_a, name), *pb = tiny_path(dir_b, name);
    assert_int_equal(ns_file_exists(pa), ns_file_exists(pb));
    if (ns_file_exists(pa)) {
        assert_int_equal(ns_file_read(pa, SIZE_MAX, &a, &e), 0);
        assert_int_equal(ns_file_read(pb, SIZE_MAX, &b, &e), 0);
        if (a.len != b.len || memcmp(a.data, b.data, a.len) != 0)
            fail_msg("%s and %s differ", pa, pb);
    }
    ns_buf_release(&a);
    ns_buf_release(&b);
    free(pa);
    free(pb);
}

static bool same_store(const ns_store *a, const ns_store *b)
{
    bool same = true;
    assert_int_equal(ns_store_count(a), ns_store_count(b));
    for (size_t i = 0; i < ns_store_count(a); i++) {
        const ns_tensor *x = ns_store_at(a, i), *y = ns_store_find(b, x->name);
        assert_non_null(y);
        assert_int_equal(x->dtype, y->dtype);
        assert_int_equal(x->bytes, y->bytes);
        assert_memory_equal(x->shape, y->shape, sizeof x->shape[0] * (size_t)x->n_dims);
        same = same && memcmp(x->data, y->data, x->bytes) == 0;
    }
    return same;
}

/* Reordered back, everything is as it was. */
static void check_inverse(const char *dir, const char *permuted, const ns_orders *o)
{
    ns_err e = { 0 };
    char *back = tiny_path(tiny_base, "back");
    ns_ckpt *a = reopen(dir), *c = reopen(permuted);
    ns_orders inverse = { 0 };
    assert_int_equal(ns_orders_inverse(o, &inverse, &e), 0);
    permute(c, &inverse, back, "back");
    same_file(dir, back, "model.safetensors");
    same_file(dir, back, "config.json");
    same_file(dir, back, "hf_quant_config.json");
    if (!ns_orders_identity(o))
        assert_false(same_store(a->store, c->store));
    ns_orders_release(&inverse);
    ns_ckpt_close(a);
    ns_ckpt_close(c);
    tiny_remove(back);
    free(back);
}

/* ---- the properties ---- */

static void try_orders(const prop_variant *v, const char *dir, ns_ckpt *c, unsigned axes, uint64_t seed, const char *what)
{
    char *out = tiny_path(tiny_base, "permuted"), label[200];
    ns_orders o;
    random_orders(&o, c->arch, axes, seed);
    snprintf(label, sizeof label, "%s, %s", v->name, what);
    permute(c, &o, out, label);
    compare(dir, out, &o, NS_RUNG_REF, 1e-5, label);
    compare(dir, out, &o, NS_RUNG_AVX512, prop_quantised(&v->o) ? 3e-4 : 1e-5, label);
    check_inverse(dir, out, &o);
    ns_orders_release(&o);
    tiny_remove(out);
    free(out);
}

static void refuse_orders(const prop_variant *v, ns_ckpt *c, ns_axis x)
{
    ns_err e = { 0 };
    char *out = tiny_path(tiny_base, "refused");
    ns_orders o;
    random_orders(&o, c->arch, 1u << x, 5);
    if (ns_permute(c, &o, out, NULL, &e) == 0)
        fail_msg("%s: %s was moved across blocks", v->name, ns_axis_name(x));
    assert_int_equal(e.code, NS_EUNSUPPORTED);
    assert_contains(e.msg, "tensor backbone.layers.");
    assert_contains(e.msg, ns_axis_name(x));
    assert_contains(e.msg, "permute before quantising");
    assert_false(ns_dir_exists(out));
    ns_orders_release(&o);
    free(out);
}

static void each_axis_of(const prop_variant *v, const char *dir, ns_ckpt *c)
{
    unsigned all = 0;
    for (int x = 0; x < NS_AXIS_COUNT; x++) {
        if (lossy(v, (ns_axis)x)) {
            refuse_orders(v, c, (ns_axis)x);
            continue;
        }
        all |= 1u << x;
        try_orders(v, dir, c, 1u << x, (uint64_t)x, ns_axis_name((ns_axis)x));
    }
    for (uint64_t seed = 100; seed < 103; seed++)
        try_orders(v, dir, c, all, seed, "all axes");
}

static void each_axis(void **state)
{
    (void)state;
    each_variant(each_axis_of);
    printf("# reordered and original differ by at most %.1e\n", worst);
}

/* Fused experts, other names, shards, and plain matrices of mixed types among quantised ones. */
static void other_spellings(void **state)
{
    (void)state;
    static const char *const dtypes[] = { "f32", "bf16", "fp8-all", "nvfp4-all" };
    for (int i = 0; i < 4; i++) {
        tiny_opts t = tiny_defaults();
        ns_err e = { 0 };
        ns_orders o, inverse = { 0 };
        char *dir = tiny_path(tiny_base, "fused"), *out = tiny_path(tiny_base, "fused-out"), *back = tiny_path(tiny_base, "fused-back");
        unsigned axes = NS_ORDERS_ALL;
        if (i == 3)
            axes = 1u << NS_AXIS_EXPERTS | 1u << NS_AXIS_MAMBA_HEADS | 1u << NS_AXIS_MAMBA_HEAD_DIM | 1u << NS_AXIS_ATTN_HEADS |
                   1u << NS_AXIS_SSM_STATE;
        t.dtype = dtypes[i];
        t.n_group = 2;
        ns_ckpt_close(tiny_open(tiny_base, "fused", &t));
        tiny_file f;
        tiny_load(&f, dir);
        tiny_fuse(&f, i % 2 ? "." : "_", false);
        tiny_rename_prefix(&f, "backbone.", "model.");
        if (i == 1) {
            tiny_cast(&f, "model.layers.0.mixer.in_proj.weight", NS_F32);
            tiny_cast(&f, "model.layers.0.mixer.out_proj.weight", NS_F16);
        }
        tiny_save(&f, dir);
        tiny_release(&f);
        ns_ckpt *c = reopen(dir);
        random_orders(&o, c->arch, axes, 3);
        assert_int_equal(ns_permute(c, &o, out, &(ns_permute_opts){ .max_shard_bytes = 30000 }, &e), 0);
        compare(dir, out, &o, NS_RUNG_REF, 1e-5, dtypes[i]);
        ns_ckpt *p = reopen(out);
        assert_true(ns_store_n_shards(p->store) > 1);
        assert_int_equal(ns_orders_inverse(&o, &inverse, &e), 0);
        permute(p, &inverse, back, dtypes[i]);
        ns_ckpt *b = reopen(back);
        assert_false(same_store(c->store, p->store));
        assert_true(same_store(c->store, b->store));
        ns_ckpt_close(b);
        ns_ckpt_close(p);
        ns_ckpt_close(c);
        ns_orders_release(&o);
        ns_orders_release(&inverse);
        tiny_remove(dir);
        tiny_remove(out);
        tiny_remove(back);
        free(dir);
        free(out);
        free(back);
    }
}

/* ---- sizes ---- */

/* The old indices that a cut of the reordered checkpoint keeps of a dimension, written out dimension by dimension. */
typedef struct kept {
    int n, old[4096];
} kept;

static void keep(kept *k, int old)
{
    assert_true(k->n < 4096);
    k->old[k->n++] = old;
}

/* Groups of an axis, the first of each group, times `inner` entries; inner_axis says in which order those are (FIXED: their own). */
static void keep_groups(kept *k, const ns_orders *o, int layer, int base, int groups, ns_axis x, int live, int full, ns_axis inner_axis,
                        int inner_live, int inner_full)
{
    for (int g = 0; g < groups; g++)
        for (int i = 0; i < live / groups; i++)
            for (int j = 0; j < inner_live; j++) {
                int at = old_index(o, layer, x, g * (full / groups) + i);
                keep(k, base + at * inner_full + (inner_axis == NS_AXIS_FIXED ? j : old_index(o, layer, inner_axis, j)));
            }
}

static void keep_state(kept *k, const ns_orders *o, int layer, int base, int groups, int live, int full)
{
    for (int g = 0; g < groups; g++)
        for (int i = 0; i < live; i++)
            keep(k, base + g * full + old_index(o, layer, NS_AXIS_SSM_STATE, i));
}

static void keep_prefix(kept *k, const ns_orders *o, int layer, ns_axis x, int live)
{
    for (int i = 0; i < live; i++)
        keep(k, x == NS_AXIS_FIXED ? i : old_index(o, layer, x, i));
}

static void keep_dim(kept *k, const ns_arch *a, const ns_orders *o, const ns_cut *cut, int layer, ns_dim_id id)
{
    const int *w = layer < 0 ? NULL : cut->layer[layer].width, *full = layer < 0 ? NULL : a->layers[layer].width, g = a->n_groups;
    const int heads = w ? full[NS_AXIS_MAMBA_HEADS] : 0, dim = w ? full[NS_AXIS_MAMBA_HEAD_DIM] : 0, ssm = w ? full[NS_AXIS_SSM_STATE] : 0;
    const int inner = heads * dim;
    k->n = 0;
    switch (id) {
    case NS_DIM_ONE: keep(k, 0); return;
    case NS_DIM_VOCAB: keep_prefix(k, o, layer, NS_AXIS_FIXED, a->vocab_size); return;
    case NS_DIM_CONV_KERNEL: keep_prefix(k, o, layer, NS_AXIS_FIXED, a->conv_kernel); return;
    case NS_DIM_LATENT: keep_prefix(k, o, layer, NS_AXIS_FIXED, a->latent_size); return;
    case NS_DIM_KV: keep_prefix(k, o, layer, NS_AXIS_FIXED, a->n_kv_heads * a->head_dim); return;
    case NS_DIM_HIDDEN: keep_prefix(k, o, layer, NS_AXIS_HIDDEN, ns_cut_hidden(cut)); return;
    case NS_DIM_EXPERT_IO: keep_dim(k, a, o, cut, layer, a->latent_size ? NS_DIM_LATENT : NS_DIM_HIDDEN); return;
    case NS_DIM_EXPERT_FFN: keep_prefix(k, o, layer, NS_AXIS_EXPERT_FFN, w[NS_AXIS_EXPERT_FFN]); return;
    case NS_DIM_SHARED_FFN: keep_prefix(k, o, layer, NS_AXIS_SHARED_FFN, w[NS_AXIS_SHARED_FFN]); return;
    case NS_DIM_DENSE_FFN: keep_prefix(k, o, layer, NS_AXIS_DENSE_FFN, w[NS_AXIS_DENSE_FFN]); return;
    case NS_DIM_EXPERTS:
        keep_groups(k, o, layer, 0, a->n_group, NS_AXIS_EXPERTS, w[NS_AXIS_EXPERTS], full[NS_AXIS_EXPERTS], NS_AXIS_FIXED, 1, 1);
        return;
    case NS_DIM_Q:
        keep_groups(k, o, layer, 0, a->n_kv_heads, NS_AXIS_ATTN_HEADS, w[NS_AXIS_ATTN_HEADS], full[NS_AXIS_ATTN_HEADS], NS_AXIS_FIXED,
                    a->head_dim, a->head_dim);
        return;
    case NS_DIM_MAMBA_HEADS:
        keep_groups(k, o, layer, 0, g, NS_AXIS_MAMBA_HEADS, w[NS_AXIS_MAMBA_HEADS], heads, NS_AXIS_FIXED, 1, 1);
        return;
    case NS_DIM_INNER:
    case NS_DIM_CONV:
    case NS_DIM_IN_PROJ:
        for (int part = 0; part < (id == NS_DIM_IN_PROJ ? 2 : 1); part++) /* z, x */
            keep_groups(k, o, layer, part * inner, g, NS_AXIS_MAMBA_HEADS, w[NS_AXIS_MAMBA_HEADS], heads, NS_AXIS_MAMBA_HEAD_DIM,
                        w[NS_AXIS_MAMBA_HEAD_DIM], dim);
        for (int part = 0, base = id == NS_DIM_IN_PROJ ? 2 * inner : inner; id != NS_DIM_INNER && part < 2; part++) /* B, C */
            keep_state(k, o, layer, base + part * g * ssm, g, w[NS_AXIS_SSM_STATE], ssm);
        if (id == NS_DIM_IN_PROJ) /* dt */
            keep_groups(k, o, layer, 2 * inner + 2 * g * ssm, g, NS_AXIS_MAMBA_HEADS, w[NS_AXIS_MAMBA_HEADS], heads, NS_AXIS_FIXED, 1, 1);
        return;
    }
}

typedef struct sizes {
    const ns_ckpt *parent, *slice;
    const ns_orders *o;
    const ns_cut *cut;
    const char *what;
} sizes;

static void check_weight(const sizes *s, int layer, int to_layer, ns_role r, int expert, int to_expert)
{
    const ns_bound *p = ns_ckpt_weight(s->parent, layer, r, expert), *q = ns_ckpt_weight(s->slice, to_layer, r, to_expert);
    const ns_weight_def *def = ns_weight_get(r);
    static kept rows, cols;
    float *x = need(malloc((size_t)p->mat.cols * sizeof *x)), *y = need(malloc((size_t)q->mat.cols * sizeof *y));
    rows.n = 0;
    keep_dim(&cols, s->parent->arch, s->o, s->cut, layer, def->dim[def->n_dims - 1]);
    if (def->n_dims > 1)
        keep_dim(&rows, s->parent->arch, s->o, s->cut, layer, def->dim[0]);
    else
        keep(&rows, 0);
    assert_int_equal(q->mat.rows, rows.n);
    assert_int_equal(q->mat.cols, cols.n);
    for (int i = 0; i < rows.n; i++) {
        ns_row_decode(&p->mat, rows.old[i], 0, p->mat.cols, x);
        ns_row_decode(&q->mat, i, 0, q->mat.cols, y);
        for (int j = 0; j < cols.n; j++)
            if (memcmp(&y[j], &x[cols.old[j]], sizeof *y) != 0)
                fail_msg("%s: %s of layer %d, expert %d: entry %d, %d is not %d, %d of the original", s->what, def->id, layer, expert, i, j,
                         rows.old[i], cols.old[j]);
    }
    free(x);
    free(y);
}

static void check_layer(const sizes *s, int layer, int to_layer)
{
    static kept experts;
    experts.n = 0;
    if (layer >= 0 && s->parent->arch->layers[layer].kind == NS_LAYER_MOE)
        keep_dim(&experts, s->parent->arch, s->o, s->cut, layer, NS_DIM_EXPERTS);
    for (int r = 0; r < NS_W_COUNT; r++) {
        if (!ns_weight_exists(s->parent->arch, layer, (ns_role)r))
            continue;
        if (!ns_weight_get((ns_role)r)->per_expert)
            check_weight(s, layer, to_layer, (ns_role)r, 0, 0);
        else
            for (int x = 0; x < experts.n; x++)
                check_weight(s, layer, to_layer, (ns_role)r, experts.old[x], x);
    }
}

/* A slice of the reordered checkpoint against the original's entries. */
static void sizes_of(const prop_variant *v, const char *dir, ns_ckpt *c)
{
    char *permuted = tiny_path(tiny_base, "ranked"), *out = tiny_path(tiny_base, "ranked-slice"), label[100];
    unsigned axes = 0;
    ns_orders o;
    (void)dir;
    for (int x = 0; x < NS_AXIS_COUNT; x++)
        axes |= lossy(v, (ns_axis)x) ? 0 : 1u << x;
    random_orders(&o, c->arch, axes, 17);
    permute(c, &o, permuted, v->name);
    ns_ckpt *p = reopen(permuted);
    for (uint64_t seed = 0; seed < 5; seed++) {
        ns_err e = { 0 };
        ns_cut cut;
        if (tiny_random_cut(p, seed, &cut) != 0 || ns_slice(p, &cut, out, NULL, &e) != 0)
            fail_msg("%s: %s", v->name, e.msg);
        ns_ckpt *s = reopen(out);
        snprintf(label, sizeof label, "%s, cut %d", v->name, (int)seed);
        const sizes all = { c, s, &o, &cut, label };
        check_layer(&all, -1, -1);
        for (int i = 0, to = 0; i < cut.n_layers; i++)
            if (cut.layer[i].keep)
                check_layer(&all, i, to++);
        ns_ckpt_close(s);
        ns_cut_release(&cut);
        tiny_remove(out);
    }
    ns_ckpt_close(p);
    ns_orders_release(&o);
    tiny_remove(permuted);
    free(permuted);
    free(out);
}

static void sizes_hold_what_ranks_first(void **state)
{
    (void)state;
    each_variant(sizes_of);
}

/* ---- orders from scores ---- */

static ns_tensor scores(const char *name, int n, const float *x)
{
    const size_t bytes = (size_t)n * sizeof *x;
    return (ns_tensor){ .name = name, .dtype = NS_F32, .n_dims = 1, .shape = { n }, .data = (const uint8_t *)x, .bytes = bytes };
}

static ns_store *write_scores(const ns_tensor *t, size_t n)
{
    ns_err e = { 0 };
    char *path = tiny_path(tiny_base, "scores.safetensors");
    assert_int_equal(ns_st_write_file(path, t, n, NULL, 0, &e), 0);
    ns_store *s = need(ns_store_open(path, NS_LOAD_MMAP, &e));
    free(path);
    return s;
}

static void assert_order(const ns_orders *o, int layer, ns_axis x, const int *want, int n)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(old_index(o, layer, x, i), want[i]);
}

static void ranking(void **state)
{
    (void)state;
    ns_err e = { 0 };
    tiny_opts t = tiny_defaults();
    t.pattern = "ME*";
    t.n_group = 2;
    ns_ckpt *c = tiny_open(tiny_base, "ranking", &t);
    const float heads[8] = { 1, 5, 2, 5, 100, 0, 101, 100 }, reap[8] = { 0, 1, 2, 3, 4, 4, 4, 5 }, often[8] = { 3, 2, 1, 0, 9, 9, 9, 9 };
    float up[48], active[48];
    for (int i = 0; i < 48; i++) {
        up[i] = (float)(i * 7 % 48);
        active[i] = (float)i;
    }
    const ns_tensor all[] = { scores("layers.0.mamba_heads", 8, heads), scores("layers.1.experts.reap", 8, reap),
                              scores("layers.1.experts.frequency", 8, often), scores("layers.1.expert_ffn", 48, up),
                              scores("layers.1.expert_ffn.active", 48, active), scores("layers.2.attn_heads", 8, heads) };
    ns_store *s = write_scores(all, sizeof all / sizeof *all);
    const unsigned axes = 1u << NS_AXIS_MAMBA_HEADS | 1u << NS_AXIS_EXPERTS | 1u << NS_AXIS_EXPERT_FFN | 1u << NS_AXIS_ATTN_HEADS;
    ns_orders o;
    assert_int_equal(ns_orders_init(&o, c->arch, &e), 0);
    assert_true(ns_orders_identity(&o));
    if (ns_orders_rank(&o, axes, s, &(ns_orders_metric){ 0 }, &e) != 0)
        fail_msg("%s", e.msg);
    assert_order(&o, 0, NS_AXIS_MAMBA_HEADS, (const int[]){ 1, 3, 2, 0, 6, 4, 7, 5 }, 8); /* inside groups of four, ties as they stand */
    assert_order(&o, 2, NS_AXIS_ATTN_HEADS, (const int[]){ 1, 3, 2, 0, 6, 4, 7, 5 }, 8);
    assert_order(&o, 1, NS_AXIS_EXPERTS, (const int[]){ 3, 2, 1, 0, 7, 4, 5, 6 }, 8);
    for (int i = 0; i + 1 < 48; i++)
        assert_true(up[old_index(&o, 1, NS_AXIS_EXPERT_FFN, i)] > up[old_index(&o, 1, NS_AXIS_EXPERT_FFN, i + 1)]);
    assert_null(ns_orders_find(&o, 0, NS_AXIS_HIDDEN));
    assert_null(ns_orders_find(&o, 0, NS_AXIS_SSM_STATE));
    assert_int_equal(ns_orders_rank(&o, axes, s, &(ns_orders_metric){ true, true }, &e), 0);
    assert_null(ns_orders_find(&o, 1, NS_AXIS_EXPERTS)); /* they stand in order already */
    assert_int_equal(old_index(&o, 1, NS_AXIS_EXPERT_FFN, 0), 47);
    assert_int_equal(ns_orders_rank(&o, 1u << NS_AXIS_HIDDEN, s, &(ns_orders_metric){ 0 }, &e), -1);
    assert_contains(e.msg, "hidden");
    ns_orders_release(&o);
    ns_store_close(s);
    ns_ckpt_close(c);
}

static void refuse_scores(const ns_ckpt *c, const ns_tensor *t, const char *why)
{
    ns_err e = { 0 };
    ns_orders o;
    ns_store *s = write_scores(t, 1);
    assert_int_equal(ns_orders_init(&o, c->arch, &e), 0);
    assert_int_equal(ns_orders_rank(&o, 1u << NS_AXIS_HIDDEN, s, &(ns_orders_metric){ 0 }, &e), -1);
    assert_int_equal(e.code, NS_EFORMAT);
    assert_contains(e.msg, "scores.safetensors: tensor hidden");
    assert_contains(e.msg, why);
    ns_orders_release(&o);
    ns_store_close(s);
}

static void bad_scores_and_orders(void **state)
{
    (void)state;
    ns_err e = { 0 };
    ns_ckpt *c = tiny_open(tiny_base, "bad", NULL);
    float x[64] = { 0 };
    int order[64];
    ns_tensor t = scores("hidden", 63, x);
    refuse_scores(c, &t, "[63]");
    t = scores("hidden", 64, x);
    t.dtype = NS_I32;
    refuse_scores(c, &t, "I32");
    t.dtype = NS_F32;
    x[5] = NAN;
    refuse_scores(c, &t, "entry 5");
    ns_orders o;
    assert_int_equal(ns_orders_init(&o, c->arch, &e), 0);
    for (int i = 0; i < 64; i++)
        order[i] = i;
    order[3] = 4;
    assert_int_equal(ns_orders_set(&o, 0, NS_AXIS_HIDDEN, order, &e), -1);
    assert_contains(e.msg, "no permutation of 64");
    e = (ns_err){ 0 };
    order[3] = 64;
    assert_int_equal(ns_orders_set(&o, 0, NS_AXIS_HIDDEN, order, &e), -1);
    e = (ns_err){ 0 };
    assert_int_equal(ns_orders_set(&o, 0, NS_AXIS_MAMBA_HEADS, (const int[]){ 0, 1, 2, 4, 3, 5, 6, 7 }, &e), -1);
    assert_contains(e.msg, "out of its group");
    assert_true(ns_orders_identity(&o));
    ns_orders_release(&o);
    ns_ckpt_close(c);
}

/* ---- the folder ---- */

static const char nest[] = "{\"version\": 1, \"variants\": [{\"name\": \"small\", \"cut\": {\"hidden\": 32}}]}";

static void nest_json_goes_with_its_order(void **state)
{
    (void)state;
    tiny_opts t = tiny_defaults();
    t.nest = nest;
    ns_ckpt *c = tiny_open(tiny_base, "nested", &t);
    char *same = tiny_path(tiny_base, "nested-same"), *moved = tiny_path(tiny_base, "nested-moved");
    ns_err e = { 0 };
    ns_orders o;
    assert_int_equal(ns_orders_init(&o, c->arch, &e), 0);
    permute(c, &o, same, "nothing");
    same_file(c->dir, same, "nest.json");
    same_file(c->dir, same, "model.safetensors");
    assert_int_equal(ns_orders_random(&o, 1u << NS_AXIS_EXPERTS, 1, &e), 0);
    permute(c, &o, moved, "experts");
    ns_ckpt *m = reopen(moved);
    assert_int_equal(m->variants.n, 1);
    assert_int_equal(ns_permute(c, &o, moved, NULL, &e), -1);
    assert_contains(e.msg, "exists already");
    ns_orders_release(&o);
    ns_ckpt_close(m);
    ns_ckpt_close(c);
    free(same);
    free(moved);
}

/* An expert that is stored unlike the others cannot change places with them. */
static void unlike_experts(void **state)
{
    (void)state;
    tiny_opts t = tiny_defaults();
    ns_err e = { 0 };
    ns_orders o;
    t.dtype = "bf16";
    ns_ckpt_close(tiny_open(tiny_base, "unlike", &t));
    char *dir = tiny_path(tiny_base, "unlike"), *out = tiny_path(tiny_base, "unlike-out");
    tiny_file f;
    tiny_load(&f, dir);
    tiny_cast(&f, "backbone.layers.1.mixer.experts.2.up_proj.weight", NS_F32);
    tiny_save(&f, dir);
    tiny_release(&f);
    ns_ckpt *c = reopen(dir);
    assert_int_equal(ns_orders_init(&o, c->arch, &e), 0);
    assert_int_equal(ns_orders_set(&o, 1, NS_AXIS_EXPERTS, (const int[]){ 1, 0, 2, 3, 4, 5, 7, 6 }, &e), 0);
    permute(c, &o, out, "experts that are alike");
    compare(dir, out, &o, NS_RUNG_REF, 1e-5, "experts that are alike");
    tiny_remove(out);
    assert_int_equal(ns_orders_set(&o, 1, NS_AXIS_EXPERTS, (const int[]){ 0, 1, 3, 2, 4, 5, 6, 7 }, &e), 0);
    assert_int_equal(ns_permute(c, &o, out, NULL, &e), -1);
    assert_int_equal(e.code, NS_EUNSUPPORTED);
    assert_contains(e.msg, "layers.1.mixer.experts.2.up_proj.weight");
    assert_contains(e.msg, "not stored alike");
    assert_false(ns_dir_exists(out));
    ns_orders_release(&o);
    random_orders(&o, c->arch, NS_ORDERS_ALL & ~(1u << NS_AXIS_EXPERTS), 1);
    permute(c, &o, out, "all but the experts");
    compare(dir, out, &o, NS_RUNG_REF, 1e-5, "all but the experts");
    ns_orders_release(&o);
    ns_ckpt_close(c);
    free(dir);
    free(out);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(each_axis), cmocka_unit_test(other_spellings),
                                        cmocka_unit_test(sizes_hold_what_ranks_first), cmocka_unit_test(ranking),
                                        cmocka_unit_test(bad_scores_and_orders), cmocka_unit_test(nest_json_goes_with_its_order),
                                        cmocka_unit_test(unlike_experts) };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
