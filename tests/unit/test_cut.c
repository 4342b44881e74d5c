/* Cuts: segments, validation, cost, and the config of a slice. */
#include "arch_configs.h"

#include <math.h>

#include "nest/cut.h"

enum { ROUNDS = 400 };

static ns_cut full_cut(const ns_arch *a)
{
    ns_err e = { 0 };
    ns_cut c;
    assert_int_equal(ns_cut_full(a, &c, &e), 0);
    return c;
}

/* A valid random cut: every layer draws its own widths, or (even) all alike; some layers are dropped. */
static ns_cut random_cut(const ns_arch *a, ns_rng *r)
{
    ns_cut c = full_cut(a);
    bool alike = pick(r, 0, 1), drop = pick(r, 0, 1);
    int kept = 0;
    for (int x = 0; x < NS_AXIS_COUNT; x++) {
        int drawn = 0;
        for (int i = 0; i < a->n_layers; i++) {
            int full = a->layers[i].width[x], step = 1, least = 1;
            if (x == NS_AXIS_MAMBA_HEADS)
                step = a->n_groups;
            if (x == NS_AXIS_ATTN_HEADS)
                step = a->n_kv_heads;
            if (x == NS_AXIS_EXPERTS && full) {
                step = a->n_group;
                least = (a->layers[i].topk + a->topk_group - 1) / a->topk_group;
                least = a->n_group > 1 && least < 2 ? 2 : least;
            }
            if (full == 0)
                continue;
            if (!drawn || (!alike && x != NS_AXIS_HIDDEN))
                drawn = step * pick(r, least, full / step);
            c.layer[i].width[x] = drawn < full ? drawn : full;
        }
    }
    for (int i = 0; i < a->n_layers; i++)
        kept += c.layer[i].keep = !drop || pick(r, 0, 2);
    if (!kept)
        c.layer[pick(r, 0, a->n_layers - 1)].keep = true;
    return c;
}

/* ---- segments ---- */

/* By the definition: index i of the dimension stays when each of its factors' digits is under the live count. */
static bool stays(const ns_dim *d, const ns_cut *c, int layer, int i)
{
    for (int p = 0; p < d->n_parts; p++) {
        int size = 1;
        bool ok = true;
        for (int f = 0; f < d->part[p].n_factors; f++)
            size *= d->part[p].factor[f].size;
        if (i >= size) {
            i -= size;
            continue;
        }
        for (int f = d->part[p].n_factors - 1; f >= 0; f--) {
            const ns_factor *k = &d->part[p].factor[f];
            int live = k->axis == NS_AXIS_FIXED ? k->size : c->layer[layer < 0 ? 0 : layer].width[k->axis] / k->divide;
            ok &= i % k->size < live;
            i /= k->size;
        }
        return ok;
    }
    return false;
}

static void check_segments(const ns_arch *a, const ns_cut *c, int layer, ns_dim_id id)
{
    ns_arena arena = { 0 };
    ns_segs s;
    ns_dim d = ns_arch_dim(a, layer, id);
    int full = ns_dim_size(&d), at = 0, total = 0;
    assert_int_equal(ns_cut_segments(a, c, layer, id, &arena, &s), 0);
    for (int k = 0; k < s.n; k++) {
        assert_true(s.seg[k].len > 0 && s.seg[k].off >= at);
        assert_true(k == 0 || s.seg[k].off > at); /* neighbours are merged */
        for (; at < s.seg[k].off; at++)
            assert_false(stays(&d, c, layer, at));
        for (; at < s.seg[k].off + s.seg[k].len; at++)
            assert_true(stays(&d, c, layer, at));
        total += s.seg[k].len;
    }
    for (; at < full; at++)
        assert_false(stays(&d, c, layer, at));
    assert_int_equal(total, s.total);
    assert_int_equal(total, ns_cut_dim(a, c, layer, id));
    ns_arena_release(&arena);
}

static void segments(void **state)
{
    ns_rng r;
    (void)state;
    ns_rng_init(&r, 1);
    for (int round = 0; round < ROUNDS; round++) {
        json_t *cfg = random_config(&r, pick(&r, 1, 5));
        ns_arch *a = arch_of_json(cfg);
        ns_cut c = random_cut(a, &r);
        for (int i = -1; i < a->n_layers; i++)
            for (int w = 0; w < NS_W_COUNT; w++) {
                const ns_weight_def *def = ns_weight_get((ns_role)w);
                for (int d = 0; d < def->n_dims && ns_weight_exists(a, i, (ns_role)w); d++)
                    check_segments(a, &c, i, def->dim[d]);
            }
        for (int i = 0; i < a->n_layers; i++)
            if (a->layers[i].kind == NS_LAYER_MOE) {
                ns_dim d = ns_arch_dim(a, i, NS_DIM_EXPERTS);
                for (int x = 0; x < a->layers[i].width[NS_AXIS_EXPERTS]; x++)
                    assert_int_equal(ns_cut_has_expert(a, &c, i, x), stays(&d, &c, i, x));
            }
        ns_cut_release(&c);
        ns_arch_free(a);
        json_decref(cfg);
    }
}

static void nano_segments(void **state)
{
    (void)state;
    ns_arch *a = arch_of(nano_30b);
    ns_cut c = full_cut(a);
    ns_arena arena = { 0 };
    ns_segs s;
    assert_int_equal(ns_cut_segments(a, &c, 0, NS_DIM_IN_PROJ, &arena, &s), 0);
    assert_int_equal(s.n, 1);
    assert_int_equal(s.total, 10304);
    /* 32 heads: the first four of each of the eight groups */
    assert_true(ns_cut_set(a, &c, NS_AXIS_MAMBA_HEADS, 32));
    assert_int_equal(ns_cut_segments(a, &c, 0, NS_DIM_INNER, &arena, &s), 0);
    assert_int_equal(s.n, 8);
    assert_int_equal(s.seg[1].off, 512);
    assert_int_equal(s.seg[1].len, 256);
    assert_int_equal(ns_cut_segments(a, &c, 0, NS_DIM_CONV, &arena, &s), 0);
    assert_int_equal(s.n, 9); /* B and C are neighbours */
    assert_int_equal(s.seg[8].off, 4096);
    assert_int_equal(s.seg[8].len, 2048);
    assert_int_equal(s.total, 2048 + 2048);
    assert_false(ns_cut_set(a, &c, NS_AXIS_DENSE_FFN, 1));
    ns_arena_release(&arena);
    ns_cut_release(&c);
    ns_arch_free(a);
}

/* ---- validation ---- */

static ns_stored all_nvfp4(void *ctx, int layer, ns_role r, int expert)
{
    (void)ctx, (void)layer, (void)expert;
    return (ns_stored){ ns_weight_get(r)->quantisable && r != NS_W_LM_HEAD ? NS_NVFP4 : NS_BF16, 8 };
}

static void invalid(const ns_arch *a, const ns_cut *c, ns_dtype_of_fn *fn, const char *expect)
{
    ns_err e = { 0 };
    if (ns_cut_validate(a, c, fn, NULL, &e) == 0)
        fail_msg("accepted; expected: %s", expect);
    if (!strstr(e.msg, expect))
        fail_msg("\"%s\" does not mention \"%s\"", e.msg, expect);
}

static void validation(void **state)
{
    static const struct { ns_axis axis; int width; bool nvfp4; const char *expect; } bad[] = {
        { NS_AXIS_HIDDEN, 0, false, "hidden 0 is outside 1..2688" },
        { NS_AXIS_HIDDEN, 2689, false, "hidden 2689" },
        { NS_AXIS_MAMBA_HEADS, 60, false, "mamba_heads 60 is not a multiple of n_groups = 8; try 56" },
        { NS_AXIS_MAMBA_HEADS, 4, false, "try 8" },
        { NS_AXIS_ATTN_HEADS, 31, false, "num_key_value_heads" },
        { NS_AXIS_EXPERTS, 5, false, "experts 5: the router picks 6" },
        { NS_AXIS_HIDDEN, 2000 + 3, true, "hidden 2003 splits a block of 16 stored values of mixer.in_proj.weight; nearest are 2000 and 2016" },
        { NS_AXIS_EXPERT_FFN, 961, true, "layer 1: expert_ffn 961 splits a block of 16 stored values of mixer.experts.%d.down_proj.weight; "
                                         "nearest are 960 and 976" },
        { NS_AXIS_EXPERT_FFN, 7, true, "nearest is 16" },
        { NS_AXIS_MAMBA_HEAD_DIM, 24, true, "mamba_head_dim 24 splits a block of 16 stored values of mixer.out_proj.weight; nearest are 16 and 32" },
    };
    (void)state;
    ns_arch *a = arch_of(nano_30b);
    ns_err e = { 0 };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ns_cut c = full_cut(a);
        ns_cut_set(a, &c, bad[i].axis, bad[i].width);
        invalid(a, &c, bad[i].nvfp4 ? all_nvfp4 : NULL, bad[i].expect);
        ns_cut_release(&c);
    }
    ns_cut c = full_cut(a);
    ns_cut_set(a, &c, NS_AXIS_HIDDEN, 1920);
    ns_cut_set(a, &c, NS_AXIS_EXPERT_FFN, 960);
    ns_cut_set(a, &c, NS_AXIS_MAMBA_HEADS, 32);
    ns_cut_set(a, &c, NS_AXIS_SSM_STATE, 63); /* no matrix has it as its input */
    assert_int_equal(ns_cut_validate(a, &c, all_nvfp4, NULL, &e), 0);
    c.layer[3].width[NS_AXIS_HIDDEN] = 1904;
    invalid(a, &c, NULL, "one width");
    c.layer[3].width[NS_AXIS_HIDDEN] = 1920;
    c.layer[0].width[NS_AXIS_EXPERTS] = 4;
    invalid(a, &c, NULL, "layer 0 has no experts");
    c.layer[0].keep = false; /* a dropped layer's widths do not count */
    assert_int_equal(ns_cut_validate(a, &c, all_nvfp4, NULL, &e), 0);
    for (int i = 0; i < c.n_layers; i++)
        c.layer[i].keep = false;
    invalid(a, &c, NULL, "keeps no layer");
    c.n_layers = 51;
    invalid(a, &c, NULL, "51 layers");
    ns_cut_release(&c);
    ns_arch_free(a);
}

static void check_blocks(const ns_arch *a, const ns_cut *c)
{
    for (int i = 0; i < a->n_layers; i++)
        for (int w = 0; w < NS_W_COUNT && c->layer[i].keep; w++) {
            const ns_weight_def *def = ns_weight_get((ns_role)w);
            ns_arena arena = { 0 };
            ns_segs s;
            if (!def->quantisable || !ns_weight_exists(a, i, (ns_role)w))
                continue;
            assert_int_equal(ns_cut_segments(a, c, i, def->dim[1], &arena, &s), 0);
            for (int k = 0; k < s.n; k++)
                assert_true(s.seg[k].off % 16 == 0 && s.seg[k].len % 16 == 0);
            ns_arena_release(&arena);
        }
}

/* Does what the message proposes: "layer 3: expert_ffn 7 splits ..; nearest is 16" (no layer for the head). */
static void mend(const ns_arch *a, ns_cut *c, const char *msg)
{
    int layer = 0, near = 0;
    char axis[32] = "";
    const char *at = strstr(msg, "nearest ");
    if (sscanf(msg, "layer %d: %31s", &layer, axis) != 2)
        sscanf(msg, "%31s", axis);
    if (!at || (sscanf(at, "nearest is %d", &near) != 1 && sscanf(at, "nearest are %d", &near) != 1))
        fail_msg("proposes nothing: %s", msg);
    int x = ns_axis_find(axis);
    assert_true(x >= 0 && near > 0);
    if (x == NS_AXIS_HIDDEN)
        ns_cut_set(a, c, NS_AXIS_HIDDEN, near);
    else
        c->layer[layer].width[x] = near;
}

/* Whatever validate accepts keeps whole blocks, and following its proposals leads to a cut that it accepts. */
static void blocks(void **state)
{
    ns_rng r;
    int refused = 0;
    (void)state;
    ns_rng_init(&r, 7);
    for (int round = 0; round < ROUNDS; round++) {
        json_t *cfg = random_config(&r, 16);
        ns_arch *a = arch_of_json(cfg);
        ns_cut c = random_cut(a, &r);
        ns_err e = { 0 };
        int steps = 0;
        for (; ns_cut_validate(a, &c, all_nvfp4, NULL, &e) < 0; e = (ns_err){ 0 }) {
            assert_true(++steps < 100);
            mend(a, &c, e.msg);
        }
        refused += steps > 0;
        check_blocks(a, &c);
        ns_cut_release(&c);
        ns_arch_free(a);
        json_decref(cfg);
    }
    assert_true(refused > ROUNDS / 2);
}

/* ---- cost ---- */

/* Counts what a sliced file would hold, weight by weight and segment by segment. */
typedef struct tally {
    const ns_arch *a;
    const ns_cut *c;
    ns_dtype_of_fn *fn;
    int64_t params, bytes;
} tally;

static int tally_weight(void *ctx, int layer, ns_role r, int expert)
{
    tally *t = ctx;
    const ns_weight_def *w = ns_weight_get(r);
    ns_stored s = t->fn(NULL, layer, r, expert);
    int64_t size = 1, last = 1;
    if (layer >= 0 && (!t->c->layer[layer].keep || (w->per_expert && !ns_cut_has_expert(t->a, t->c, layer, expert))))
        return 0;
    for (int d = 0; d < w->n_dims; d++) {
        ns_arena arena = { 0 };
        ns_segs segs;
        assert_int_equal(ns_cut_segments(t->a, t->c, layer, w->dim[d], &arena, &segs), 0);
        last = segs.total;
        size *= last;
        ns_arena_release(&arena);
    }
    t->params += size;
    t->bytes += s.scalar_bytes + (s.dtype == NS_NVFP4 ? size / last * (last / 2 + last / 16) : size * ns_dtype_bits(s.dtype) / 8);
    return 0;
}

/* A mixture: every third expert FP8, mamba F16. */
static ns_stored mixture(void *ctx, int layer, ns_role r, int expert)
{
    (void)ctx, (void)layer;
    if (r == NS_W_EXPERT_UP || r == NS_W_EXPERT_DOWN)
        return expert % 3 ? (ns_stored){ NS_NVFP4, 4 } : (ns_stored){ NS_F8_E4M3, 8 };
    if (r == NS_W_GATE_CORRECTION)
        return (ns_stored){ NS_F32, 0 };
    return (ns_stored){ NS_F16, r == NS_W_K ? 4 : 0 };
}

static void cost_counts_the_file(void **state)
{
    ns_rng r;
    ns_err e = { 0 };
    (void)state;
    ns_rng_init(&r, 3);
    for (int round = 0; round < ROUNDS; round++) {
        json_t *cfg = random_config(&r, 16);
        ns_arch *a = arch_of_json(cfg);
        ns_cut c = random_cut(a, &r);
        ns_cost got;
        for (int i = 0; i < a->n_layers; i++) {
            int *ffn = &c.layer[i].width[NS_AXIS_EXPERT_FFN];
            *ffn = (*ffn + 15) / 16 * 16;
        }
        ns_cut_set(a, &c, NS_AXIS_HIDDEN, (ns_cut_hidden(&c) + 15) / 16 * 16);
        assert_int_equal(ns_cut_validate(a, &c, mixture, NULL, &e), 0);
        tally t = { .a = a, .c = &c, .fn = mixture };
        assert_int_equal(ns_manifest_each(a, tally_weight, &t), 0);
        assert_int_equal(ns_cut_cost(a, &c, mixture, NULL, &got, &e), 0);
        assert_true(got.params_total == t.params);
        assert_true(got.weight_bytes == t.bytes);
        int64_t sum = 0;
        for (int d = 0; d < NS_DTYPE_COUNT; d++)
            sum += got.weight_bytes_by_dtype[d];
        assert_true(sum == got.weight_bytes);
        assert_true(got.params_active <= got.params_total);
        ns_cut_release(&c);
        ns_arch_free(a);
        json_decref(cfg);
    }
}

static ns_stored as_bf16(void *ctx, int layer, ns_role r, int expert)
{
    (void)ctx, (void)layer, (void)expert;
    return (ns_stored){ r == NS_W_GATE_CORRECTION ? NS_F32 : NS_BF16, 0 };
}

static ns_cost nano_cost(int hidden, int expert_ffn, ns_dtype_of_fn *fn)
{
    ns_err e = { 0 };
    ns_arch *a = arch_of(nano_30b);
    ns_cut c = full_cut(a);
    ns_cost out;
    ns_cut_set(a, &c, NS_AXIS_HIDDEN, hidden);
    ns_cut_set(a, &c, NS_AXIS_EXPERT_FFN, expert_ffn);
    assert_int_equal(ns_cut_cost(a, &c, fn, NULL, &out, &e), 0);
    ns_cut_release(&c);
    ns_arch_free(a);
    return out;
}

static void published_counts(void **state)
{
    (void)state;
    ns_cost full = nano_cost(2688, 1856, as_bf16), mid = nano_cost(2016, 1856, NULL), small = nano_cost(1920, 960, NULL);
    assert_true(full.params_total == 31577940288);
    assert_true(full.params_active == 3580076352);
    assert_true(full.weight_bytes == 63155886464);
    assert_true(full.kv_bytes_per_token == 6 * 2 * 2 * 128 * 4);
    ns_cost eighth = full;
    ns_cost_set_kv(&eighth, NS_F8_E4M3);
    assert_true(eighth.kv_bytes_per_token == 6 * 2 * 2 * 128 && eighth.state_bytes == full.state_bytes);
    assert_true(full.state_bytes == 48234496 + 847872 * 2); /* SSM F32; conv F32 where the reference has BF16 */
    /* one embedding row, and everything else that is active, in BF16 (the 23 corrections in F32) */
    assert_true(full.active_bytes == (3580076352 - 352321536 + 2688) * 2 + 23 * 128 * 2);
    assert_true(fabs(full.flops_per_token / 2 - (3.2273e9 + 3 * 23 * 64 * 64 * 128)) < 2e6);
    assert_true(llround((double)mid.params_total / 1e6) == 23684 && llround((double)mid.params_active / 1e6) == 2685);
    assert_true(llround((double)small.params_total / 1e6) == 12427 && llround((double)small.params_active / 1e6) == 2083);
    assert_true(small.state_bytes == full.state_bytes && small.kv_bytes_per_token == full.kv_bytes_per_token);
    assert_true(small.weight_bytes == small.params_total * 4);
}

/* ---- state, copies ---- */

static void state_compatibility(void **state)
{
    (void)state;
    ns_err e = { 0 };
    ns_arch *a = arch_of(nano_30b);
    ns_cut full = full_cut(a), c;
    assert_int_equal(ns_cut_copy(&full, &c, &e), 0);
    assert_true(ns_cut_equal(&full, &c) && ns_cut_same_state(a, &full, &c));
    ns_cut_set(a, &c, NS_AXIS_HIDDEN, 1920);
    ns_cut_set(a, &c, NS_AXIS_EXPERTS, 64);
    ns_cut_set(a, &c, NS_AXIS_ATTN_HEADS, 16);
    assert_int_equal(ns_cut_hidden(&c), 1920);
    assert_false(ns_cut_equal(&full, &c));
    assert_true(ns_cut_same_state(a, &full, &c) && ns_cut_same_state(a, &c, &full));
    c.layer[0].keep = false;
    assert_true(ns_cut_same_state(a, &full, &c));
    assert_false(ns_cut_same_state(a, &c, &full));
    c.layer[0].keep = true;
    c.layer[1].keep = false; /* an MoE layer has no state */
    assert_true(ns_cut_same_state(a, &c, &full));
    c.layer[2].width[NS_AXIS_SSM_STATE] = 64;
    assert_false(ns_cut_same_state(a, &full, &c));
    ns_cut_release(&c);
    ns_cut_release(&c);
    ns_cut_release(&full);
    ns_arch_free(a);
}

/* ---- the slice's config ---- */

static void check_slice(const ns_arch *a, const ns_cut *c)
{
    ns_err e = { 0 };
    json_t *cfg = ns_cut_config(a, c, &e);
    if (!cfg)
        fail_msg("%s", e.msg);
    ns_arch *b = arch_of_json(cfg);
    int at = 0;
    for (int i = 0; i < a->n_layers; i++) {
        if (!c->layer[i].keep)
            continue;
        assert_true(at < b->n_layers);
        assert_int_equal(b->layers[at].kind, a->layers[i].kind);
        assert_int_equal(b->layers[at].topk, a->layers[i].topk);
        assert_memory_equal(b->layers[at].width, c->layer[i].width, sizeof c->layer[i].width);
        at++;
    }
    assert_int_equal(at, b->n_layers);
    assert_int_equal(b->hidden_size, ns_cut_hidden(c));
    ns_cut whole = full_cut(b);
    ns_cost x, y;
    assert_int_equal(ns_cut_cost(a, c, NULL, NULL, &x, &e), 0);
    assert_int_equal(ns_cut_cost(b, &whole, NULL, NULL, &y, &e), 0);
    assert_memory_equal(&x, &y, sizeof x);
    ns_cut_release(&whole);
    ns_arch_free(b);
    json_decref(cfg);
}

static void slice_configs(void **state)
{
    ns_rng r;
    (void)state;
    ns_rng_init(&r, 5);
    for (int round = 0; round < ROUNDS; round++) {
        json_t *cfg = random_config(&r, pick(&r, 1, 4));
        if (pick(&r, 0, 2) == 0) { /* the list form */
            const char *p = json_string_value(json_object_get(cfg, "hybrid_override_pattern"));
            json_t *list = json_array();
            for (; *p; p++)
                json_array_append_new(list, json_string(*p == 'M' ? "linear_attention" : *p == 'E' ? "moe" : *p == '*' ? "attention" : "mlp"));
            json_object_set_new(cfg, "layers_block_type", list);
            if (pick(&r, 0, 1)) {
                json_object_del(cfg, "hybrid_override_pattern");
                json_object_del(cfg, "num_hidden_layers");
            }
        }
        if (pick(&r, 0, 3) == 0) {
            json_t *nest = json_pack("{s:s, s:o}", "model_type", "omni", "text_config", cfg);
            cfg = nest;
        }
        ns_arch *a = arch_of_json(cfg);
        ns_cut c = random_cut(a, &r);
        check_slice(a, &c);
        if (pick(&r, 0, 1)) { /* a slice of the slice, which may be of different layers already */
            ns_err e = { 0 };
            json_t *again = ns_cut_config(a, &c, &e);
            ns_arch *b = arch_of_json(again);
            ns_cut d = random_cut(b, &r);
            check_slice(b, &d);
            ns_cut_release(&d);
            ns_arch_free(b);
            json_decref(again);
        }
        ns_cut_release(&c);
        ns_arch_free(a);
        json_decref(cfg);
    }
}

static void slice_config_keys(void **state)
{
    (void)state;
    ns_err e = { 0 };
    ns_arch *a = arch_of(nano_30b);
    ns_cut c = full_cut(a);
    json_t *cfg = ns_cut_config(a, &c, &e);
    assert_true(json_equal(cfg, a->config)); /* the widest cut changes nothing */
    json_decref(cfg);
    ns_cut_set(a, &c, NS_AXIS_HIDDEN, 1920);
    ns_cut_set(a, &c, NS_AXIS_EXPERT_FFN, 960);
    c.layer[0].keep = c.layer[51].keep = false;
    cfg = ns_cut_config(a, &c, &e);
    assert_int_equal(json_integer_value(json_object_get(cfg, "hidden_size")), 1920);
    assert_int_equal(json_integer_value(json_object_get(cfg, "moe_intermediate_size")), 960);
    assert_int_equal(json_integer_value(json_object_get(cfg, "num_hidden_layers")), 50);
    assert_string_equal(json_string_value(json_object_get(cfg, "hybrid_override_pattern")),
                        "EMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEM");
    assert_string_equal(json_string_value(json_object_get(cfg, "model_type")), "nemotron_h");
    assert_null(json_object_get(cfg, "block_configs"));
    json_decref(cfg);
    c.layer[3].width[NS_AXIS_EXPERT_FFN] = 480;
    cfg = ns_cut_config(a, &c, &e);
    assert_string_equal(json_string_value(json_object_get(cfg, "model_type")), "nemotron_h_puzzle");
    const json_t *b = json_array_get(json_object_get(cfg, "block_configs"), 2);
    assert_string_equal(json_string_value(json_object_get(b, "block_type")), "moe");
    assert_int_equal(json_integer_value(json_object_get(b, "moe_intermediate_size")), 480);
    json_decref(cfg);
    c.layer[3].width[NS_AXIS_EXPERT_FFN] = 0;
    assert_null(ns_cut_config(a, &c, &e));
    ns_cut_release(&c);
    ns_arch_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segments),         cmocka_unit_test(nano_segments),       cmocka_unit_test(validation),
        cmocka_unit_test(blocks),           cmocka_unit_test(cost_counts_the_file), cmocka_unit_test(published_counts),
        cmocka_unit_test(state_compatibility), cmocka_unit_test(slice_configs),    cmocka_unit_test(slice_config_keys),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
