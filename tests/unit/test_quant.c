/* Which linear layer is stored how. */
#include "arch_configs.h"

#include "arch/manifest.h"
#include "base/log.h"

static ns_quant *quant_of(const char *hf, const char *config)
{
    ns_err e = { 0 };
    json_t *h = hf ? json_of(hf) : NULL, *c = config ? json_of(config) : NULL;
    ns_quant *q = ns_quant_parse(h, c, &e);
    if (!q)
        fail_msg("%s", e.msg);
    json_decref(h);
    json_decref(c);
    return q;
}

static void none(void **state)
{
    (void)state;
    ns_quant *q = quant_of(NULL, NULL);
    assert_false(ns_quant_present(q) || ns_quant_strict(q));
    assert_int_equal(ns_quant_scheme(q, "lm_head"), NS_SCHEME_NONE);
    assert_null(ns_quant_kv_algo(q));
    ns_quant_free(q);
    q = quant_of(NULL, "{\"quantization_config\":null}");
    assert_false(ns_quant_present(q));
    ns_quant_free(q);
    ns_quant_free(NULL);
}

static void one_algorithm(void **state)
{
    (void)state;
    ns_quant *q = quant_of("{\"quantization\":{\"quant_algo\":\"FP8\",\"kv_cache_quant_algo\":\"FP8\",\"exclude_modules\":[\"lm_head\","
                           "\"backbone.layers.4\",\"model.layers.5*\",\"*.in_proj\",\"mixer.gate\",\"layers.[67].mixer\"]}}", NULL);
    assert_true(ns_quant_present(q) && ns_quant_strict(q));
    assert_string_equal(ns_quant_kv_algo(q), "FP8");
    static const struct { const char *module; ns_scheme scheme; } cases[] = {
        { "lm_head", NS_SCHEME_NONE },
        { "backbone.layers.4.mixer.up_proj", NS_SCHEME_NONE },      /* a folder of modules */
        { "backbone.layers.40.mixer.up_proj", NS_SCHEME_FP8 },      /* not a substring */
        { "backbone.layers.5.mixer.up_proj", NS_SCHEME_NONE },      /* a pattern, under its other prefix */
        { "backbone.layers.51.mixer.up_proj", NS_SCHEME_NONE },
        { "model.layers.0.mixer.in_proj", NS_SCHEME_NONE },
        { "model.layers.0.mixer.out_proj", NS_SCHEME_FP8 },
        { "backbone.layers.1.mixer.gate", NS_SCHEME_NONE },         /* a run of components */
        { "backbone.layers.1.mixer.gates", NS_SCHEME_FP8 },
        { "backbone.layers.6.mixer", NS_SCHEME_FP8 },               /* a pattern is for the whole name */
        { "language_model.model.layers.4.mixer.up_proj", NS_SCHEME_NONE },
        { "", NS_SCHEME_FP8 },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (ns_quant_scheme(q, cases[i].module) != cases[i].scheme)
            fail_msg("%s", cases[i].module);
    char endless[2000];
    memset(endless, 'x', sizeof endless - 1);
    endless[sizeof endless - 1] = 0;
    assert_int_equal(ns_quant_scheme(q, endless), NS_SCHEME_NONE);
    ns_quant_free(q);
}

/* Super and Ultra name an algorithm and nothing else. */
static void bare_algorithm(void **state)
{
    (void)state;
    ns_quant *q = quant_of("{\"quantization\":{\"quant_algo\":\"NVFP4\",\"kv_cache_quant_algo\":\"FP8\"}}", NULL);
    assert_true(ns_quant_present(q));
    assert_false(ns_quant_strict(q));
    assert_int_equal(ns_quant_scheme(q, "backbone.layers.1.mixer.experts.0.up_proj"), NS_SCHEME_NVFP4);
    ns_quant_free(q);
    q = quant_of("{\"quantization\":{\"quant_algo\":\"NVFP4\",\"exclude_modules\":[]}}", NULL);
    assert_false(ns_quant_strict(q));
    ns_quant_free(q);
}

static void mixed(void **state)
{
    static const char text[] =
        "{\"quant_method\":\"modelopt\",\"quant_algo\":\"MIXED_PRECISION\",\"ignore\":[\"mtp*\"],"
        "\"kv_cache_scheme\":{\"num_bits\":8,\"type\":\"float\",\"dynamic\":false},\"config_groups\":{\"group_0\":{\"weights\":{}}},"
        "\"quantized_layers\":{\"backbone.layers.0.mixer.in_proj\":{\"quant_algo\":\"FP8\"},"
        "\"model.layers.1.mixer.experts\":{\"quant_algo\":\"W4A16_NVFP4\",\"group_size\":16},"
        "\"*.shared_experts.*\":{\"quant_algo\":\"NVFP4\"},\"backbone.layers.2\":{\"quant_algo\":null}}}";
    char nested[1000], outer[1000];
    (void)state;
    snprintf(nested, sizeof nested, "{\"quantization_config\":%s}", text);
    snprintf(outer, sizeof outer, "{\"quantization\":%s}", text);
    for (int form = 0; form < 3; form++) { /* config.json, hf_quant_config.json, and the latter without its outer object */
        ns_quant *q = form == 0 ? quant_of(NULL, nested) : quant_of(form == 1 ? outer : text, NULL);
        assert_true(ns_quant_strict(q));
        assert_string_equal(ns_quant_kv_algo(q), "FP8");
        assert_int_equal(ns_quant_scheme(q, "backbone.layers.0.mixer.in_proj"), NS_SCHEME_FP8);
        assert_int_equal(ns_quant_scheme(q, "backbone.layers.0.mixer.out_proj"), NS_SCHEME_NONE);
        assert_int_equal(ns_quant_scheme(q, "backbone.layers.1.mixer.experts.7.up_proj"), NS_SCHEME_NVFP4);
        assert_int_equal(ns_quant_scheme(q, "backbone.layers.9.mixer.shared_experts.up_proj"), NS_SCHEME_NVFP4);
        assert_int_equal(ns_quant_scheme(q, "backbone.layers.2.mixer.in_proj"), NS_SCHEME_NONE);
        assert_int_equal(ns_quant_scheme(q, "mtp.layers.0.mixer.in_proj"), NS_SCHEME_NONE);
        ns_quant_free(q);
    }
    /* hf_quant_config.json wins */
    ns_quant *q = quant_of("{\"quantization\":{\"quant_algo\":\"FP8\"}}", nested);
    assert_int_equal(ns_quant_scheme(q, "backbone.layers.0.mixer.out_proj"), NS_SCHEME_FP8);
    ns_quant_free(q);
}

static void groups(void **state)
{
    (void)state;
    ns_quant *q = quant_of(NULL, "{\"quantization_config\":{\"quant_method\":\"modelopt\",\"ignore\":[\"lm_head\"],\"config_groups\":{"
                                 "\"group_0\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":4,\"type\":\"float\",\"group_size\":16}},"
                                 "\"group_1\":{\"targets\":[\"backbone.layers.0.mixer.in_proj\",\"*.out_proj\"],"
                                 "\"weights\":{\"num_bits\":8,\"type\":\"float\"}}}}}");
    assert_int_equal(ns_quant_scheme(q, "backbone.layers.0.mixer.in_proj"), NS_SCHEME_FP8);
    assert_int_equal(ns_quant_scheme(q, "backbone.layers.3.mixer.out_proj"), NS_SCHEME_FP8);
    assert_int_equal(ns_quant_scheme(q, "backbone.layers.3.mixer.up_proj"), NS_SCHEME_NVFP4);
    assert_int_equal(ns_quant_scheme(q, "lm_head"), NS_SCHEME_NONE);
    ns_quant_free(q);
}

static void refusals(void **state)
{
    static const struct { const char *body, *expect; } cases[] = {
        { "{\"quant_algo\":\"W4A16_AWQ\"}", "\"W4A16_AWQ\" is not supported" },
        { "{\"quant_algo\":7}", "quant_algo" },
        { "{}", "config_groups" },
        { "[]", "expected an object" },
        { "{\"quant_algo\":\"MIXED_PRECISION\"}", "config_groups" },
        { "{\"quant_algo\":\"NVFP4\",\"group_size\":32}", "group_size" },
        { "{\"quant_algo\":\"NVFP4\",\"quant_method\":\"gptq\"}", "\"gptq\"" },
        { "{\"quant_algo\":\"NVFP4\",\"exclude_modules\":\"lm_head\"}", "exclude_modules" },
        { "{\"quant_algo\":\"NVFP4\",\"ignore\":[1]}", "entry 0" },
        { "{\"quant_algo\":\"NVFP4\",\"ignore\":[\"re:.*\"]}", "regular expression" },
        { "{\"quant_algo\":\"MIXED_PRECISION\",\"quantized_layers\":[]}", "quantized_layers" },
        { "{\"quant_algo\":\"MIXED_PRECISION\",\"quantized_layers\":{\"a\":1}}", "\"a\" is not an object" },
        { "{\"quant_algo\":\"MIXED_PRECISION\",\"quantized_layers\":{\"a.b\":{\"quant_algo\":\"INT4_AWQ\"}}}", "quantized_layers, a.b: " },
        { "{\"config_groups\":{\"g\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":8,\"type\":\"int\"}}}}", "config_groups, g: " },
        { "{\"config_groups\":{\"g\":{\"weights\":{\"num_bits\":8,\"type\":\"float\"}}}}", "targets" },
        { "{\"quant_algo\":\"FP8\",\"kv_cache_quant_algo\":1}", "kv_cache_quant_algo" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int form = 0; form < 2; form++) {
            ns_err e = { 0 };
            char text[600];
            snprintf(text, sizeof text, form ? "{\"quantization_config\":%s}" : "{\"quantization\":%s}", cases[i].body);
            json_t *j = json_of(text);
            ns_quant *q = form ? ns_quant_parse(NULL, j, &e) : ns_quant_parse(j, NULL, &e);
            if (q)
                fail_msg("accepted: %s", text);
            if (!strstr(e.msg, cases[i].expect))
                fail_msg("\"%s\" does not mention \"%s\"", e.msg, cases[i].expect);
            json_decref(j);
        }
}

/* ---- the published files ---- */

typedef struct census {
    const ns_quant *q;
    int n[3];
} census;

static int count_scheme(void *ctx, int layer, ns_role r, int expert)
{
    census *c = ctx;
    char name[128];
    if (!ns_weight_get(r)->quantisable)
        return 0;
    ns_weight_name(layer, r, expert, name, sizeof name);
    name[strlen(name) - strlen(".weight")] = 0;
    c->n[ns_quant_scheme(c->q, name)]++;
    return 0;
}

static void published(void **state)
{
    static const struct { const char *name; int none, fp8, nvfp4; bool strict; } files[] = {
        /* excluded: lm_head, 24 of attention, 12 of Mamba */
        { "NVIDIA-Nemotron-3-Nano-30B-A3B-NVFP4", 37, 0, 5968, true },
        /* 5888 routed + 46 shared + lm_head; 46 of Mamba; attention stays */
        { "NVIDIA-Nemotron-3.5-Lightning-30B-A3B-NVFP4", 24, 46, 5935, true },
        { "NVIDIA-Nemotron-3-Super-120B-A12B-FP8", 0, 41233, 0, false },
        { "NVIDIA-Nemotron-3-Super-120B-A12B-NVFP4", 0, 0, 41233, false },
        { "NVIDIA-Nemotron-3-Ultra-550B-A55B-NVFP4", 0, 0, -1, false },
    };
    const char *data = getenv("NS_TEST_DATA");
    (void)state;
    if (!data || !*data)
        skip();
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        ns_err e = { 0 };
        char path[1024];
        snprintf(path, sizeof path, "%s/nemotron3/configs/nvidia--%s_config.json", data, files[i].name);
        ns_arch *a = ns_arch_open(path, &e);
        snprintf(path, sizeof path, "%s/nemotron3/configs/nvidia--%s_hf_quant_config.json", data, files[i].name);
        json_t *hf = ns_json_open(path, false, &e);
        double start = ns_now();
        ns_quant *q = hf ? ns_quant_parse(hf, NULL, &e) : NULL;
        if (!a || !q)
            fail_msg("%s", e.msg);
        census c = { .q = q };
        assert_int_equal(ns_manifest_each(a, count_scheme, &c), 0);
        assert_true(ns_now() - start < 2); /* thousands of modules: a table, not a list */
        assert_int_equal(c.n[NS_SCHEME_NONE], files[i].none);
        assert_int_equal(c.n[NS_SCHEME_FP8], files[i].fp8);
        if (files[i].nvfp4 >= 0)
            assert_int_equal(c.n[NS_SCHEME_NVFP4], files[i].nvfp4);
        assert_int_equal(ns_quant_strict(q), files[i].strict);
        assert_string_equal(ns_quant_kv_algo(q), "FP8");
        ns_quant_free(q);
        json_decref(hf);
        ns_arch_free(a);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(none),  cmocka_unit_test(one_algorithm), cmocka_unit_test(bare_algorithm), cmocka_unit_test(mixed),
        cmocka_unit_test(groups), cmocka_unit_test(refusals),     cmocka_unit_test(published),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
