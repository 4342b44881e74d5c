/* The router as data: its description in nest.json, its weights beside it, and the cut that it gives for a budget. */
#include "arch_configs.h"

#include <math.h>
#include <unistd.h>

#include "base/file.h"
#include "ckpt/router_file.h"
#include "forge/folder.h"
#include "nest/variants.h"
#include "store/writer.h"
#include "tiny/tiny.h"

static const char description[] =
    "{\"budgets\":[1.0,0.8,0.5],\"inner\":3,\"target\":\"memory\",\"note\":\"x\",\"axes\":["
    "{\"axis\":\"hidden\",\"choices\":[64,48,32]},"
    "{\"axis\":\"expert_ffn\",\"choices\":[48,32,16],\"per_layer\":true},"
    "{\"axis\":\"mamba_heads\",\"choices\":[8,4]},"
    "{\"axis\":\"depth\",\"choices\":[8,7,5],\"order\":[6,3,1]}]}";

/* MEM*E-ME, as tiny_defaults. */
static ns_arch *tiny_arch(void)
{
    ns_err e = { 0 };
    char *path = tiny_path(tiny_base, "config.json");
    assert_int_equal(tiny_config(path, NULL), 0);
    ns_arch *a = ns_arch_open(path, &e);
    if (!a)
        fail_msg("%s", e.msg);
    free(path);
    return a;
}

static ns_router *router_of(const ns_arch *a, const char *text)
{
    ns_err e = { 0 };
    json_t *j = json_of(text);
    ns_router *r = ns_router_parse(a, j, &e);
    if (!r)
        fail_msg("%s", e.msg);
    json_decref(j);
    return r;
}

static void layout(void **state)
{
    (void)state;
    ns_arch *a = tiny_arch();
    ns_router *r = router_of(a, description);
    assert_int_equal(r->n_budgets, 3);
    assert_int_equal(r->n_axes, 4);
    assert_string_equal(r->target, "memory");
    const ns_router_axis *ffn = &r->axis[1], *depth = &r->axis[3];
    assert_int_equal(ffn->n_slots, 3);
    static const int slots[] = { -1, 0, -1, -1, 1, -1, -1, 2 };
    for (int i = 0; i < 8; i++)
        assert_int_equal(ffn->slot[i], slots[i]);
    assert_int_equal(r->axis[0].slot[3], 0); /* hidden: everywhere */
    assert_int_equal(r->axis[2].slot[1], -1);
    assert_true(depth->depth && depth->n_slots == 1);
    assert_int_equal(r->n_out, 3 + 9 + 2 + 3);
    assert_int_equal(r->count, 4 * 3 * 3 + 3 * (3 + 9 + 2 + 3));
    assert_int_equal(ffn->out, 3);
    assert_true(ns_router_keeps(r, 6, 8) && !ns_router_keeps(r, 6, 7) && ns_router_keeps(r, 3, 7));
    assert_true(!ns_router_keeps(r, 1, 5) && !ns_router_keeps(r, 3, 5) && ns_router_keeps(r, 0, 5));
    ns_router_free(r);
    ns_arch_free(a);
}

static void interpolation(void **state)
{
    static const struct { double budget, x[3]; } cases[] = {
        { 1.0, { 1, 0, 0 } },   { 0.8, { 0, 1, 0 } },      { 0.5, { 0, 0, 1 } },  { 0.9, { 0.5, 0.5, 0 } },
        { 0.6, { 0, 1. / 3, 2. / 3 } }, { 0.3, { 0, 0, 1 } }, { 1.5, { 1, 0, 0 } },
    };
    (void)state;
    ns_arch *a = tiny_arch();
    ns_router *r = router_of(a, description);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double x[3];
        ns_router_input(r, cases[i].budget, x);
        for (int k = 0; k < 3; k++)
            assert_true(fabs(x[k] - cases[i].x[k]) < 1e-12);
    }
    ns_router_free(r);
    ns_arch_free(a);
}

/* Weights with a known answer: hidden unit i is on for budget i alone, and votes for one choice. */
static void arg_max(void **state)
{
    /* hidden, three ffn, heads, depth */
    static const int vote[3][6] = { { 0, 0, 0, 0, 0, 0 }, { 1, 0, 1, 2, 1, 1 }, { 2, 2, 2, 1, 1, 2 } };
    (void)state;
    ns_err e = { 0 };
    ns_arch *a = tiny_arch();
    ns_router *r = router_of(a, description);
    int at = 0;
    for (int k = 0; k < r->n_axes; k++) {
        const ns_router_axis *x = &r->axis[k];
        for (int i = 0; i < 3; i++)
            r->w[x->fc1 + (size_t)(i * 3 + i)] = 1;
        for (int s = 0; s < x->n_slots; s++, at++)
            for (int i = 0; i < 3; i++)
                r->w[x->fc2 + (size_t)((s * x->n_choices + vote[i][at]) * 3 + i)] = 1;
    }
    for (int i = 0; i < 3; i++) {
        ns_cut c;
        assert_int_equal(ns_router_cut(a, r, r->budget[i], &c, &e), 0);
        assert_int_equal(ns_cut_hidden(&c), r->axis[0].choice[vote[i][0]]);
        for (int s = 0; s < 3; s++)
            assert_int_equal(c.layer[s == 0 ? 1 : s == 1 ? 4 : 7].width[NS_AXIS_EXPERT_FFN], r->axis[1].choice[vote[i][1 + s]]);
        assert_int_equal(c.layer[2].width[NS_AXIS_MAMBA_HEADS], r->axis[2].choice[vote[i][4]]);
        assert_true(c.layer[6].keep == (vote[i][5] == 0) && c.layer[1].keep == (vote[i][5] != 2) && c.layer[0].keep);
        assert_int_equal(ns_cut_validate(a, &c, NULL, NULL, &e), 0);
        ns_cut_release(&c);
    }
    ns_cut near, at_08;
    assert_int_equal(ns_router_cut(a, r, 0.75, &near, &e), 0); /* nearer to 0.8 than to 0.5 */
    assert_int_equal(ns_router_cut(a, r, 0.8, &at_08, &e), 0);
    assert_true(ns_cut_equal(&near, &at_08));
    ns_cut_release(&near);
    ns_cut_release(&at_08);
    ns_router_free(r);
    ns_arch_free(a);
}

static void refusals(void **state)
{
#define AXES(x) "{\"budgets\":[1,0.5],\"axes\":[" x "]}"
    static const struct { const char *text, *expect; } cases[] = {
        { "[]", "expected an object" },
        { "{}", "key \"budgets\"" },
        { "{\"budgets\":[1,\"x\"],\"axes\":[]}", "key \"budgets\": entry 1" },
        { "{\"budgets\":[1,1],\"axes\":[{\"axis\":\"hidden\",\"choices\":[64]}]}", "budgets: they must descend" },
        { "{\"budgets\":[1.5],\"axes\":[{\"axis\":\"hidden\",\"choices\":[64]}]}", "budgets: 1.5" },
        { "{\"budgets\":[],\"axes\":[{\"axis\":\"hidden\",\"choices\":[64]}]}", "budgets: 0" },
        { "{\"budgets\":[1]}", "key \"axes\"" },
        { AXES(""), "axes" },
        { "{\"budgets\":[1],\"inner\":0,\"axes\":[]}", "key \"inner\"" },
        { "{\"budgets\":[1],\"weights\":0,\"axes\":[]}", "unknown key \"weights\"" },
        { "{\"budgets\":[1],\"target\":\"speed\",\"axes\":[{\"axis\":\"hidden\",\"choices\":[64]}]}", "target: \"speed\"" },
        { AXES("{\"axis\":\"hiden\",\"choices\":[64]}"), "axes[0]: key \"axis\": unknown axis \"hiden\"" },
        { AXES("{\"axis\":\"hidden\",\"choices\":[64],\"width\":1}"), "axes[0]: unknown key \"width\"" },
        { AXES("{\"axis\":\"hidden\"}"), "axes[0]: key \"choices\"" },
        { AXES("{\"axis\":\"hidden\",\"choices\":[]}"), "axis \"hidden\": 0 choices" },
        { AXES("{\"axis\":\"hidden\",\"choices\":[64,-1]}"), "key \"choices\": entry 1" },
        { AXES("{\"axis\":\"hidden\",\"choices\":[48]}"), "axis \"hidden\": the first choice is 48, but must be the full width, 64" },
        { AXES("{\"axis\":\"hidden\",\"choices\":[64,64]}"), "64 follows 64" },
        { AXES("{\"axis\":\"hidden\",\"choices\":[64,0]}"), "outside 1..64" },
        { AXES("{\"axis\":\"hidden\",\"choices\":[64],\"per_layer\":true}"), "one choice for the whole model" },
        { AXES("{\"axis\":\"hidden\",\"choices\":[64],\"order\":[]}"), "only the axis \"depth\"" },
        { AXES("{\"axis\":\"hidden\",\"choices\":[64]},{\"axis\":\"hidden\",\"choices\":[64]}"), "twice" },
        { AXES("{\"axis\":\"mamba_heads\",\"choices\":[8,3]}"), "axis \"mamba_heads\": layer 0: mamba_heads 3 is not a multiple" },
        { AXES("{\"axis\":\"experts\",\"choices\":[8,1]}"), "the router picks 2" },
        { AXES("{\"axis\":\"depth\",\"choices\":[8,7]}"), "key \"order\"" },
        { AXES("{\"axis\":\"depth\",\"choices\":[8,0],\"order\":[0,1,2,3,4,5,6,7]}"), "0 layers" },
        { AXES("{\"axis\":\"depth\",\"choices\":[8,6],\"order\":[0]}"), "order: it names 1 layers, but depth leaves out up to 2" },
        { AXES("{\"axis\":\"depth\",\"choices\":[8,6],\"order\":[0,0]}"), "layer 0 stands there twice" },
        { AXES("{\"axis\":\"depth\",\"choices\":[8,6],\"order\":[0,8]}"), "order: 8 is not a layer" },
    };
    (void)state;
    ns_arch *a = tiny_arch();
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ns_err e = { 0 };
        json_t *j = json_of(cases[i].text);
        ns_router *r = ns_router_parse(a, j, &e);
        if (r)
            fail_msg("accepted: %s", cases[i].text);
        if (!strstr(e.msg, cases[i].expect) || strncmp(e.msg, "key \"router\": ", 14) != 0)
            fail_msg("\"%s\" does not mention \"%s\"", e.msg, cases[i].expect);
        json_decref(j);
    }
    ns_arch_free(a);
}

/* ---- in a checkpoint ---- */

/* A checkpoint in tiny_base/name with a router of random weights and the variants that go with it. */
static char *with_router(const char *name, uint64_t seed)
{
    ns_err e = { 0 };
    char *dir = tiny_path(tiny_base, name), *weights = tiny_path(dir, "router.safetensors");
    assert_int_equal(tiny_make(dir, NULL), 0);
    ns_arch *a = tiny_arch();
    ns_variants v;
    ns_rng rng;
    assert_int_equal(ns_variants_parse(a, NULL, "none", &v, &e), 0);
    v.router = router_of(a, description);
    ns_rng_init(&rng, seed);
    for (size_t i = 0; i < v.router->count; i++)
        v.router->w[i] = ns_rng_normal(&rng);
    ns_router_round(v.router);
    v.router->has_weights = true;
    json_t *nest = ns_variants_json(a, &v, &e);
    assert_non_null(nest);
    assert_int_equal(ns_folder_json(dir, "nest.json", nest, &e), 0);
    assert_int_equal(ns_router_write(v.router, weights, &e), 0);
    json_decref(nest);
    ns_variants_release(&v);
    ns_arch_free(a);
    free(weights);
    return dir;
}

static void in_a_checkpoint(void **state)
{
    (void)state;
    ns_err e = { 0 };
    char *dir = with_router("ck", 3), name[64];
    ns_ckpt *c = ns_ckpt_open(dir, NULL, &e);
    if (!c)
        fail_msg("%s", e.msg);
    const ns_router *r = c->variants.router;
    assert_true(r && r->has_weights);
    int distinct = 0;
    for (double b = 1.0; b > 0.4; b -= 0.05) {
        char text[16];
        ns_cut by_size, by_router;
        snprintf(text, sizeof text, "%.2f", b);
        assert_int_equal(ns_ckpt_size(c, text, &by_size, name, sizeof name, &e), 0);
        assert_int_equal(ns_router_cut(c->arch, r, strtod(text, NULL), &by_router, &e), 0);
        assert_true(ns_cut_equal(&by_size, &by_router));
        bool whole = ns_cut_equal(&by_size, &c->variants.v[0].cut);
        assert_string_equal(name, whole ? "full" : text);
        distinct += !whole;
        ns_cut_release(&by_size);
        ns_cut_release(&by_router);
    }
    assert_true(distinct > 0);
    ns_cut cut;
    assert_int_equal(ns_ckpt_size(c, "0", &cut, name, sizeof name, &e), -1);
    assert_non_null(strstr(e.msg, "share"));
    ns_ckpt_close(c);

    /* nest.json of elsewhere: the weights are looked for beside it */
    char *nest = tiny_path(dir, "nest.json"), *plain = tiny_path(tiny_base, "plain");
    assert_int_equal(tiny_make(plain, NULL), 0);
    e = (ns_err){ 0 };
    c = ns_ckpt_open(plain, &(ns_ckpt_opts){ .nest_path = nest }, &e);
    if (!c)
        fail_msg("%s", e.msg);
    assert_true(c->variants.router && c->variants.router->has_weights);
    ns_ckpt_close(c);
    free(nest);
    free(plain);
    free(dir);
}

static void expect_refused(const char *dir, const char *expect)
{
    ns_err e = { 0 };
    ns_ckpt *c = ns_ckpt_open(dir, NULL, &e);
    if (c)
        fail_msg("accepted; expected: %s", expect);
    if (!strstr(e.msg, expect) || !strstr(e.msg, "router.safetensors"))
        fail_msg("\"%s\" does not mention \"%s\"", e.msg, expect);
}

/* Writes the router's file again with one of its tensors changed: 0 another shape, 1 NaN, 2 another type, 3 another name. */
static void spoil(const char *dir, int how)
{
    ns_err e = { 0 };
    char *path = tiny_path(dir, "router.safetensors"), *from = tiny_path(dir, "from.safetensors");
    rename(path, from);
    ns_store *st = ns_store_open(from, NS_LOAD_MMAP, &e);
    assert_non_null(st);
    ns_tensor t[8];
    float nan[9] = { NAN };
    for (size_t i = 0; i < 8; i++)
        t[i] = *ns_store_at(st, i);
    assert_string_equal(t[0].name, "hidden.fc1.weight");
    if (how == 0)
        t[1].shape[0] = 1, t[1].shape[1] = 9;
    else if (how == 1)
        t[0].data = (const uint8_t *)nan;
    else if (how == 2)
        t[0].dtype = NS_I32;
    else
        t[0].name = "width.fc1.weight";
    assert_int_equal(ns_st_write_file(path, t, 8, NULL, 0, &e), 0);
    ns_store_close(st);
    unlink(from);
    free(path);
    free(from);
}

static void bad_files(void **state)
{
    static const char *const expect[] = { "tensor hidden.fc2.weight: F32 [1, 9], expected F32 [3, 3]",
                                          "tensor hidden.fc1.weight: element 0 is NaN", "tensor hidden.fc1.weight: I32",
                                          "tensor width.fc1.weight: the router of nest.json has no such part" };
    (void)state;
    for (int how = 0; how < 4; how++) {
        char name[16];
        snprintf(name, sizeof name, "bad%d", how);
        char *dir = with_router(name, 1);
        spoil(dir, how);
        expect_refused(dir, expect[how]);
        free(dir);
    }
    char *dir = with_router("gone", 1), *path = tiny_path(dir, "router.safetensors");
    unlink(path);
    expect_refused(dir, "not there, but nest.json describes a router");
    assert_int_equal(ns_file_write(path, "junk", 4, &(ns_err){ 0 }), 0);
    expect_refused(dir, "router.safetensors");
    free(path);
    free(dir);
}

/* Counts of parameters in nest.json are those of the cut. */
static void counts(void **state)
{
    (void)state;
    ns_arch *a = arch_of(nano_30b);
    ns_err e = { 0 };
    ns_variants v;
    json_t *good = json_of("{\"version\":1,\"variants\":[{\"name\":\"30B\",\"params_total\":31577940288,\"params_active\":3580076352}]}");
    json_t *bad = json_of("{\"version\":1,\"variants\":[{\"name\":\"30B\",\"params_total\":31577940289}]}");
    assert_int_equal(ns_variants_parse(a, good, "N", &v, &e), 0);
    ns_variants_release(&v);
    assert_int_equal(ns_variants_parse(a, bad, "N", &v, &e), -1);
    assert_non_null(strstr(e.msg, "key \"params_total\": 31577940289, but the cut has 31577940288"));
    json_decref(good);
    json_decref(bad);
    ns_arch_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout),   cmocka_unit_test(interpolation),   cmocka_unit_test(arg_max), cmocka_unit_test(refusals),
        cmocka_unit_test(in_a_checkpoint), cmocka_unit_test(bad_files), cmocka_unit_test(counts),
    };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
