/* nest.json, the built-in sizes, and the text of --size. */
#include "arch_configs.h"

#include "nest/variants.h"

static ns_variants parsed(const ns_arch *a, const char *nest)
{
    ns_err e = { 0 };
    ns_variants v;
    json_t *j = nest ? json_of(nest) : NULL;
    if (ns_variants_parse(a, j, "N", &v, &e) < 0)
        fail_msg("%s", e.msg);
    json_decref(j);
    return v;
}

static void built_in(void **state)
{
    (void)state;
    ns_arch *a = arch_of(nano_30b);
    ns_variants v = parsed(a, NULL);
    assert_true(v.assumed);
    assert_string_equal(v.source, "built in");
    assert_int_equal(v.n, 3);
    assert_string_equal(v.v[0].name, "full");
    assert_string_equal(v.v[0].alias, "30B");
    assert_string_equal(v.v[1].name, "23B");
    assert_string_equal(v.v[2].name, "12B");
    assert_null(v.v[1].alias);
    assert_int_equal(ns_cut_hidden(&v.v[1].cut), 2016);
    assert_int_equal(v.v[2].cut.layer[1].width[NS_AXIS_EXPERT_FFN], 960);
    assert_ptr_equal(ns_variants_find(&v, "30b"), &v.v[0]);
    assert_ptr_equal(ns_variants_find(&v, "FULL"), &v.v[0]);
    assert_null(ns_variants_find(&v, "13B"));
    ns_variants_release(&v);
    ns_arch_free(a);
}

/* The same dims with multi-token prediction, and other dims, are not the released family. */
static void not_released(void **state)
{
    static const char *const edits[] = { "num_nextn_predict_layers", "n_group" };
    (void)state;
    for (int i = 0; i < 2; i++) {
        json_t *cfg = json_of(nano_30b);
        json_object_set_new(cfg, edits[i], json_integer(i == 0 ? 1 : 2));
        if (i == 1)
            json_object_set_new(cfg, "topk_group", json_integer(2));
        ns_arch *a = arch_of_json(cfg);
        ns_variants v = parsed(a, NULL);
        assert_false(v.assumed);
        assert_string_equal(v.source, "none");
        assert_int_equal(v.n, 1);
        assert_string_equal(v.v[0].name, "full");
        ns_variants_release(&v);
        ns_arch_free(a);
        json_decref(cfg);
    }
}

static const char tiny[] =
    "{\"model_type\":\"nemotron_h\",\"hybrid_override_pattern\":\"MEM*EME\",\"hidden_size\":48,\"vocab_size\":131,\"num_attention_heads\":6,"
    "\"num_key_value_heads\":2,\"head_dim\":16,\"mamba_num_heads\":8,\"mamba_head_dim\":8,\"ssm_state_size\":16,\"n_groups\":2,"
    "\"n_routed_experts\":8,\"num_experts_per_tok\":3,\"moe_intermediate_size\":24,\"moe_shared_expert_intermediate_size\":40}";

static void nest_file(void **state)
{
    (void)state;
    ns_arch *a = arch_of(tiny);
    ns_variants v = parsed(a, "{\"version\":1,\"note\":\"x\",\"variants\":["
                              "{\"name\":\"small\",\"budget\":0.5,\"cut\":{\"hidden\":32,\"expert_ffn\":[16,8,24],\"layers\":[0,1,3,4]}},"
                              "{\"name\":\"big\",\"note\":\"whole\"},"
                              "{\"name\":\"mid\",\"cut\":{\"hidden\":40,\"mamba_heads\":4}}]}");
    assert_false(v.assumed);
    assert_string_equal(v.source, "nest.json");
    assert_int_equal(v.n, 3);
    assert_int_equal(v.handover, NS_HANDOVER_AUTO);
    assert_string_equal(v.v[0].name, "full");
    assert_string_equal(v.v[0].alias, "big");
    assert_string_equal(v.v[1].name, "mid");
    assert_true(v.v[1].budget == 0);
    assert_int_equal(v.v[1].cut.layer[2].width[NS_AXIS_MAMBA_HEADS], 4);
    assert_int_equal(v.v[1].cut.layer[1].width[NS_AXIS_EXPERT_FFN], 24);
    const ns_cut *c = &v.v[2].cut;
    assert_true(v.v[2].budget == 0.5);
    assert_int_equal(c->layer[1].width[NS_AXIS_EXPERT_FFN], 16);
    assert_int_equal(c->layer[4].width[NS_AXIS_EXPERT_FFN], 8);
    assert_int_equal(c->layer[6].width[NS_AXIS_EXPERT_FFN], 24);
    assert_true(c->layer[3].keep && c->layer[4].keep && !c->layer[2].keep && !c->layer[6].keep);
    ns_variants_release(&v);
    ns_variants_release(&v);
    ns_arch_free(a);
}

static void nest_refusals(void **state)
{
    static const struct { const char *variants, *expect; } cases[] = {
        { "[{\"name\":\"a\",\"cut\":{\"hiden\":32}}]", "variant \"a\": key \"cut\": unknown axis \"hiden\"" },
        { "[{\"name\":\"a\",\"cuts\":{}}]", "variants[0]: unknown key \"cuts\"" },
        { "[{\"name\":\"a\",\"cut\":[]}]", "expected an object" },
        { "[{\"cut\":{}}]", "\"name\"" },
        { "[{\"name\":\"a b\"}]", "\"name\"" },
        { "[{\"name\":\"a\",\"cut\":{\"hidden\":32}},{\"name\":\"A\"}]", "variants[1]: variant \"A\": the name stands there twice" },
        { "[{\"name\":\"a\"},{\"name\":\"b\"}]", "\"a\" and \"b\" are both the whole model" },
        { "[{\"name\":\"Full\",\"cut\":{\"hidden\":32}}]", "reserved" },
        { "[{\"name\":\"a\",\"budget\":1.5}]", "budget" },
        { "[{\"name\":\"a\",\"budget\":\"x\"}]", "budget" },
        { "[{\"name\":\"a\",\"cut\":{\"hidden\":49}}]", "1..48" },
        { "[{\"name\":\"a\",\"cut\":{\"hidden\":[48,48,48,48,48,48,48]}}]", "hidden" },
        { "[{\"name\":\"a\",\"cut\":{\"expert_ffn\":[1,2]}}]", "2 widths for the 3 layers" },
        { "[{\"name\":\"a\",\"cut\":{\"expert_ffn\":[1,2,25]}}]", "layer 6: expected a width in 1..24" },
        { "[{\"name\":\"a\",\"cut\":{\"dense_ffn\":4}}]", "no layer of this model" },
        { "[{\"name\":\"a\",\"cut\":{\"mamba_heads\":5}}]", "n_groups" },
        { "[{\"name\":\"a\",\"cut\":{\"experts\":2}}]", "picks 3" },
        { "[{\"name\":\"a\",\"cut\":{\"layers\":[0,7]}}]", "0..6" },
        { "[{\"name\":\"a\",\"cut\":{\"layers\":[1,1]}}]", "twice" },
        { "[{\"name\":\"a\",\"cut\":{\"layers\":[]}}]", "keeps no layer" },
        { "{}", "variants" },
    };
    (void)state;
    ns_arch *a = arch_of(tiny);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ns_err e = { 0 };
        ns_variants v;
        char text[600];
        snprintf(text, sizeof text, "{\"version\":1,\"variants\":%s}", cases[i].variants);
        json_t *j = json_of(text);
        if (ns_variants_parse(a, j, "N", &v, &e) == 0)
            fail_msg("accepted: %s", text);
        if (!strstr(e.msg, cases[i].expect) || strncmp(e.msg, "N: ", 3) != 0)
            fail_msg("\"%s\" does not mention \"%s\"", e.msg, cases[i].expect);
        assert_int_equal(v.n, 0);
        json_decref(j);
    }
    static const char *const roots[] = { "{\"version\":1,\"variants\":[],\"handover\":\"late\"}",
                                         "{\"version\":1,\"variants\":[],\"handover\":1}", "[]", "{\"version\":2,\"variants\":[]}", "{\"variants\":[]}",
                                         "{\"version\":1,\"variants\":[],\"sizes\":1}", "{\"version\":1}" };
    for (size_t i = 0; i < sizeof roots / sizeof *roots; i++) {
        ns_err e = { 0 };
        ns_variants v;
        json_t *j = json_of(roots[i]);
        assert_int_equal(ns_variants_parse(a, j, "N", &v, &e), -1);
        json_decref(j);
    }
    ns_arch_free(a);
}

/* Written and read again: the same names, budgets and cuts. */
static void written_and_read(void **state)
{
    ns_rng r;
    (void)state;
    ns_rng_init(&r, 11);
    for (int round = 0; round < 200; round++) {
        json_t *cfg = random_config(&r, 2);
        ns_arch *a = arch_of_json(cfg);
        ns_err e = { 0 };
        ns_variants v = parsed(a, NULL), w;
        ns_variant *grown = realloc(v.v, 3 * sizeof *grown);
        v.v = grown;
        for (int k = 1; k < 3; k++) {
            v.v[k] = (ns_variant){ .name = strdup(k == 1 ? "a" : "b"), .budget = k * 0.25 };
            assert_int_equal(ns_cut_full(a, &v.v[k].cut, &e), 0);
            ns_cut_set(a, &v.v[k].cut, NS_AXIS_HIDDEN, 1);
            for (int i = 0; i < a->n_layers; i++) {
                ns_cut_layer *l = &v.v[k].cut.layer[i];
                for (int x = 0; x < NS_AXIS_COUNT; x++)
                    if (l->width[x] > 1 && (x == NS_AXIS_EXPERT_FFN || x == NS_AXIS_DENSE_FFN || x == NS_AXIS_MAMBA_HEAD_DIM))
                        l->width[x] = k == 1 ? 1 : pick(&r, 1, l->width[x]);
                l->keep = i == 0 || pick(&r, 0, 3);
            }
        }
        v.n = 3;
        json_t *out = ns_variants_json(a, &v, &e);
        assert_non_null(out);
        if (ns_variants_parse(a, out, "N", &w, &e) < 0)
            fail_msg("%s", e.msg);
        assert_int_equal(w.n, 3);
        for (int k = 0; k < 3; k++) {
            const ns_variant *x = ns_variants_find(&w, v.v[k].name);
            assert_non_null(x);
            assert_true(x->budget == v.v[k].budget && ns_cut_equal(&x->cut, &v.v[k].cut));
        }
        json_t *again = ns_variants_json(a, &w, &e);
        assert_int_equal(json_array_size(json_object_get(again, "variants")), 3);
        json_decref(again);
        json_decref(out);
        ns_variants_release(&v);
        ns_variants_release(&w);
        ns_arch_free(a);
        json_decref(cfg);
    }
}

/* ---- --size ---- */

static void sizes(void **state)
{
    static const struct { const char *text, *name; int hidden, ffn; } named[] = {
        { "full", "full", 2688, 1856 }, { "FULL", "full", 2688, 1856 }, { "30b", "30B", 2688, 1856 }, { "23B", "23B", 2016, 1856 },
        { "12b", "12B", 1920, 960 },    { "1", "full", 2688, 1856 },    { "1.0", "full", 2688, 1856 }, { "0.99", "23B", 2016, 1856 },
        { "0.75", "23B", 2016, 1856 },  { "0.58", "12B", 1920, 960 },   { "0.74", "12B", 1920, 960 },
        { "hidden=1920,expert_ffn=960", "hidden=1920,expert_ffn=960", 1920, 960 },
        { "expert_ffn=480", "expert_ffn=480", 2688, 480 },
    };
    (void)state;
    ns_arch *a = arch_of(nano_30b);
    ns_variants v = parsed(a, NULL);
    for (size_t i = 0; i < sizeof named / sizeof *named; i++) {
        ns_err e = { 0 };
        ns_cut c;
        char name[64];
        if (ns_size_parse(a, &v, named[i].text, &c, name, sizeof name, &e) < 0)
            fail_msg("%s", e.msg);
        assert_string_equal(name, named[i].name);
        assert_int_equal(ns_cut_hidden(&c), named[i].hidden);
        assert_int_equal(c.layer[1].width[NS_AXIS_EXPERT_FFN], named[i].ffn);
        ns_cut_release(&c);
    }
    ns_err e = { 0 };
    ns_cut c;
    char name[12];
    assert_int_equal(ns_size_parse(a, &v, "expert_ffn@3=480,layers=0-9+12-51,expert_ffn=960,hidden=1920", &c, name, sizeof name, &e), 0);
    assert_string_equal(name, "expert_ffn@");
    assert_int_equal(c.layer[1].width[NS_AXIS_EXPERT_FFN], 960);
    assert_int_equal(c.layer[3].width[NS_AXIS_EXPERT_FFN], 480);
    assert_true(c.layer[9].keep && !c.layer[10].keep && !c.layer[11].keep && c.layer[12].keep && c.layer[51].keep);
    ns_cut_release(&c);
    ns_variants_release(&v);
    ns_arch_free(a);
}

static void size_refusals(void **state)
{
    static const struct { const char *text, *expect; } cases[] = {
        { "13B", "--size 13B: no such variant; this checkpoint has full (30B), 23B, 12B" },
        { "", "no such variant" },
        { "0", "share" },
        { "1.5", "share" },
        { "nan", "share" },
        { "-0.5", "share" },
        { "0.5", "the smallest has 0.582" },
        { "hiden=3", "unknown axis \"hiden\"" },
        { "hidden=", "not a width" },
        { "hidden=0", "not a width" },
        { "hidden=-5", "not a width" },
        { "hidden=99999999999999999999", "not a width" },
        { "hidden=1920x", "not a width" },
        { "hidden=1920,", "not axis=width" },
        { "hidden=1920,hidden=2016", "twice" },
        { "=3", "not axis=width" },
        { "dense_ffn=3", "no layer of this model has dense_ffn" },
        { "hidden@3=1920", "whole model" },
        { "expert_ffn@0=480", "layer 0 has no expert_ffn" },
        { "expert_ffn@52=480", "0..51" },
        { "expert_ffn@=480", "0..51" },
        { "layers=", "0..51" },
        { "layers=5-3", "0..51" },
        { "layers=0-52", "0..51" },
        { "layers=0,1", "not axis=width" },
        { "layers=0+", "0..51" },
    };
    (void)state;
    ns_arch *a = arch_of(nano_30b);
    ns_variants v = parsed(a, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ns_err e = { 0 };
        ns_cut c;
        char name[64];
        if (ns_size_parse(a, &v, cases[i].text, &c, name, sizeof name, &e) == 0)
            fail_msg("accepted: %s", cases[i].text);
        if (!strstr(e.msg, cases[i].expect) || strncmp(e.msg, "--size ", 7) != 0)
            fail_msg("\"%s\" does not mention \"%s\"", e.msg, cases[i].expect);
        assert_null(c.layer);
    }
    ns_variants_release(&v);
    ns_arch_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(built_in),         cmocka_unit_test(not_released), cmocka_unit_test(nest_file), cmocka_unit_test(nest_refusals),
        cmocka_unit_test(written_and_read), cmocka_unit_test(sizes),        cmocka_unit_test(size_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
