/* The JSON files of a checkpoint: {"config": config.json, "hf": hf_quant_config.json, "nest": nest.json, "size": "text of --size"},
 * or a bare config.json. What the parser accepts must hold together: the widest cut is valid, a random cut that validates can be
 * written as a config that reads back as that cut, and named sizes survive being written and read. */
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "nest/variants.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(int ok)
{
    if (!ok)
        abort();
}

/* Walking millions of experts would only make the fuzzer slow. */
static int is_big(const ns_arch *a)
{
    double n = 0;
    for (int i = 0; i < a->n_layers; i++)
        n += 1 + a->layers[i].width[NS_AXIS_EXPERTS] + a->layers[i].width[NS_AXIS_MAMBA_HEADS];
    return n > 5000;
}

static ns_stored stored(void *ctx, int layer, ns_role r, int expert)
{
    (void)layer, (void)expert;
    return (ns_stored){ *(const int *)ctx && ns_weight_get(r)->quantisable ? NS_NVFP4 : NS_BF16, 4 };
}

static void random_widths(const ns_arch *a, ns_cut *c, ns_rng *r, int wild)
{
    for (int i = 0; i < a->n_layers; i++) {
        c->layer[i].keep = ns_rng_u64(r) % 4 != 0;
        for (int x = 1; x < NS_AXIS_COUNT; x++) {
            int full = a->layers[i].width[x], draw = (int)(ns_rng_u64(r) % 64);
            if (wild && draw == 0)
                c->layer[i].width[x] = (int)(uint32_t)ns_rng_u64(r);
            else if (full > 0 && draw < 8)
                c->layer[i].width[x] = 1 + (int)(ns_rng_u64(r) % (uint64_t)full);
            else if (full % 2 == 0 && draw < 24)
                c->layer[i].width[x] = full / 2;
        }
    }
    ns_cut_set(a, c, NS_AXIS_HIDDEN, 1 + (int)(ns_rng_u64(r) % (uint64_t)a->hidden_size));
}

static void use_segments(const ns_arch *a, const ns_cut *c)
{
    for (int i = 0; i < a->n_layers; i++)
        for (int r = 0; r < NS_W_COUNT; r++) {
            const ns_weight_def *w = ns_weight_get((ns_role)r);
            for (int d = 0; c->layer[i].keep && d < w->n_dims && ns_weight_exists(a, i, (ns_role)r); d++) {
                ns_arena arena = { 0 };
                ns_segs s;
                ns_dim full = ns_arch_dim(a, i, w->dim[d]);
                check(ns_cut_segments(a, c, i, w->dim[d], &arena, &s) == 0);
                check(s.total == ns_cut_dim(a, c, i, w->dim[d]) && s.total > 0 && s.total <= ns_dim_size(&full));
                ns_arena_release(&arena);
            }
        }
}

/* The slice's config describes exactly what was kept. */
static void use_cut(const ns_arch *a, const ns_cut *c)
{
    ns_err e = { 0 };
    ns_cost cost, again;
    json_t *cfg = ns_cut_config(a, c, &e);
    check(cfg != NULL && ns_cut_cost(a, c, NULL, NULL, &cost, &e) == 0);
    ns_arch *b = ns_arch_parse(cfg, "slice", &e);
    check(b != NULL);
    ns_cut whole;
    check(ns_cut_full(b, &whole, &e) == 0 && ns_cut_validate(b, &whole, NULL, NULL, &e) == 0);
    check(ns_cut_cost(b, &whole, NULL, NULL, &again, &e) == 0 && memcmp(&cost, &again, sizeof cost) == 0);
    check(cost.params_total > 0 && cost.params_active <= cost.params_total && cost.weight_bytes == 4 * cost.params_total);
    ns_cut_release(&whole);
    ns_arch_free(b);
    json_decref(cfg);
    use_segments(a, c);
}

static void use_quant(const ns_arch *a, const json_t *hf)
{
    ns_err e = { 0 };
    ns_quant *q = ns_quant_parse(hf, a ? a->config : NULL, &e);
    check((q == NULL) == (e.code != NS_OK));
    if (!q)
        return;
    for (int r = 0; r < NS_W_COUNT; r++) {
        char name[128];
        ns_weight_name(r % 7, (ns_role)r, r % 3, name, sizeof name);
        ns_quant_scheme(q, name);
    }
    ns_quant_free(q);
}

/* Whatever the weights, a budget gives a cut whose widths are choices, and the description survives being written and read. */
static void use_router(const ns_arch *a, ns_router *r, ns_rng *rng)
{
    ns_err e = { 0 };
    ns_cut c;
    json_t *out = ns_router_json(r, &e);
    ns_router *again = ns_router_parse(a, out, &e);
    check(again && again->count == r->count && again->n_out == r->n_out);
    for (size_t i = 0; i < r->count; i++)
        r->w[i] = ns_rng_normal(rng);
    r->has_weights = true;
    for (int k = 0; k < 3; k++) {
        check(ns_router_cut(a, r, ns_rng_uniform(rng) * 1.1, &c, &e) == 0);
        if (ns_cut_validate(a, &c, NULL, NULL, &e) == 0)
            use_cut(a, &c);
        ns_cut_release(&c);
    }
    ns_router_free(again);
    json_decref(out);
}

static void use_variants(const ns_arch *a, const json_t *nest, const char *size, ns_rng *r)
{
    ns_err e = { 0 };
    ns_variants v, w;
    ns_cut c;
    char name[16];
    if (ns_variants_parse(a, nest, "nest", &v, &e) != 0) {
        check(e.code != NS_OK && v.n == 0);
        return;
    }
    json_t *out = ns_variants_json(a, &v, &e);
    check(out && ns_variants_find(&v, "full") && ns_variants_parse(a, out, "again", &w, &e) == 0 && w.n == v.n);
    for (int i = 0; i < v.n; i++) {
        const ns_variant *x = ns_variants_find(&w, v.v[i].name);
        check(x && ns_cut_equal(&x->cut, &v.v[i].cut));
    }
    if (v.router && v.router->count < 100000)
        use_router(a, v.router, r);
    if (size && ns_size_parse(a, &v, size, &c, name, sizeof name, &e) == 0) {
        if (ns_cut_validate(a, &c, NULL, NULL, &e) == 0)
            use_cut(a, &c);
        ns_cut_release(&c);
    }
    ns_variants_release(&w);
    ns_variants_release(&v);
    json_decref(out);
}

static void use_arch(const ns_arch *a, ns_rng *r)
{
    ns_err e = { 0 };
    ns_cut c;
    check(ns_cut_full(a, &c, &e) == 0 && ns_cut_validate(a, &c, NULL, NULL, &e) == 0);
    use_cut(a, &c);
    for (int round = 0; round < 4; round++) {
        int nvfp4 = round & 1;
        e = (ns_err){ 0 };
        random_widths(a, &c, r, round & 2);
        if (ns_cut_validate(a, &c, stored, &nvfp4, &e) == 0)
            use_cut(a, &c);
        else
            check(e.code != NS_OK);
    }
    ns_cut_release(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ns_err e = { 0 };
    ns_rng r;
    json_t *root = ns_json_parse((const char *)data, size, true, "fuzz", &e);
    if (!root)
        return 0;
    const json_t *config = json_object_get(root, "config"), *hf = json_object_get(root, "hf");
    ns_arch *a = ns_arch_parse(config ? config : root, "config", &e);
    check((a == NULL) == (e.code != NS_OK));
    use_quant(a, hf);
    ns_rng_init(&r, size ? data[size / 2] * 1000003u + size : 0);
    if (a && !is_big(a)) {
        use_arch(a, &r);
        use_variants(a, json_object_get(root, "nest"), json_string_value(json_object_get(root, "size")), &r);
    }
    ns_arch_free(a);
    json_decref(root);
    return 0;
}
