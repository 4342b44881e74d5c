/* Options of `nestar elastify` to sizes, choices and a router. */
#include "arch_configs.h"

#include <math.h>

#include "store/writer.h"
#include "tiny/tiny.h"
#include "train/elastify_plan.h"

static ns_ckpt *ck;

static int setup(void **state)
{
    tiny_setup(state);
    ck = tiny_open(tiny_base, "ck", NULL);
    return 0;
}

static int teardown(void **state)
{
    ns_ckpt_close(ck);
    return tiny_teardown(state);
}

static ns_elastic_plan plan_of(ns_elastic_opts o)
{
    ns_err e = { 0 };
    ns_elastic_plan p;
    o.round = o.round ? o.round : 16;
    if (ns_elastic_plan_make(ck, &o, &p, &e) != 0)
        fail_msg("%s", e.msg);
    return p;
}

static double share(const ns_elastic_plan *p, const ns_cut *c)
{
    ns_err e = { 0 };
    double v;
    assert_int_equal(ns_budget_of_cut(&p->budget, c, &v, &e), 0);
    return v / p->budget.full;
}

static void usual(void **state)
{
    (void)state;
    ns_elastic_plan p = plan_of((ns_elastic_opts){ .budgets = "0.6,1.0,0.8" });
    assert_int_equal(p.n, 3);
    assert_string_equal(p.size[0].name, "full");
    assert_string_equal(p.size[1].name, "0.8");
    assert_string_equal(p.size[2].name, "0.6");
    assert_true(p.size[1].budget == 0.8 && p.weight[0][0] == 1.0 / 3);
    assert_true(fabs(p.weight[1][0] - 0.5) < 1e-12 && fabs(p.weight[1][1] - 0.3) < 1e-12 && fabs(p.weight[1][2] - 0.2) < 1e-12);
    assert_int_equal(p.router->n_axes, 3);
    /* hidden, expert_ffn, dense_ffn; 48 x .71 and x .52 both round to 32 */
    static const int want[3][3] = { { 64, 48, 32 }, { 48, 32, 0 }, { 96, 64, 48 } };
    for (int k = 0; k < 3; k++)
        for (int c = 0; c < p.router->axis[k].n_choices; c++)
            assert_int_equal(p.router->axis[k].choice[c], want[k][c]);
    assert_int_equal(p.router->axis[1].n_choices, 2);
    ns_elastic_plan_release(&p);
}

static void chosen(void **state)
{
    static const char *const choices[] = { "hidden=1,0.7,40", "experts=1,0.5,0.1", "depth=1,7,0.6", "mamba_heads=1,0.4" };
    (void)state;
    ns_elastic_plan p = plan_of((ns_elastic_opts){ .budgets = "1,0.7", .names = "L,S", .axes = "hidden,experts,depth,mamba_heads",
                                                   .choices = choices, .n_choices = 4, .hetero = "experts,mamba_heads",
                                                   .depth_order = "6,5,3", .round = 4, .inner = 9 });
    static const int want[4][3] = { { 64, 44, 40 }, { 8, 4, 2 }, { 8, 7, 5 }, { 8, 4, 0 } }; /* the router picks 2 experts at least */
    assert_string_equal(p.size[0].name, "L");
    assert_string_equal(p.size[1].name, "S");
    assert_int_equal(p.router->inner, 9);
    for (int k = 0; k < 4; k++)
        for (int c = 0; c < p.router->axis[k].n_choices; c++)
            assert_int_equal(p.router->axis[k].choice[c], want[k][c]);
    assert_int_equal(p.router->axis[1].n_slots, 3);
    assert_true(p.router->axis[2].depth && !ns_router_keeps(p.router, 6, 7) && ns_router_keeps(p.router, 5, 7));
    assert_false(ns_router_keeps(p.router, 3, 5));
    assert_true(fabs(p.weight[1][0] - 5.0 / 7) < 1e-12);
    ns_elastic_plan_release(&p);
}

static void order_from_statistics(void **state)
{
    (void)state;
    ns_err e = { 0 };
    float order[8] = { 6, 3, 1, 0, 2, 4, 5, 7 };
    char *path = tiny_path(tiny_base, "stats.safetensors");
    ns_tensor t = { .name = "depth.order", .dtype = NS_F32, .n_dims = 1, .shape = { 8 }, .data = (const uint8_t *)order,
                    .bytes = sizeof order };
    assert_int_equal(ns_st_write_file(path, &t, 1, NULL, 0, &e), 0);
    ns_elastic_plan p = plan_of((ns_elastic_opts){ .budgets = "1,0.9", .axes = "depth", .depth_order = path });
    assert_true(!ns_router_keeps(p.router, 6, 7) && !ns_router_keeps(p.router, 3, 6) && ns_router_keeps(p.router, 1, 6));
    ns_elastic_plan_release(&p);
    order[2] = 8;
    assert_int_equal(ns_st_write_file(path, &t, 1, NULL, 0, &e), 0);
    assert_int_equal(ns_elastic_plan_make(ck, &(ns_elastic_opts){ .budgets = "1", .axes = "depth", .depth_order = path }, &p, &e), -1);
    assert_non_null(strstr(e.msg, "--depth-order: 8 is not a layer"));
    free(path);
}

static void uniform(void **state)
{
    (void)state;
    ns_err e = { 0 };
    ns_elastic_plan p = plan_of((ns_elastic_opts){ .budgets = "1,0.8,0.6,0.4", .uniform = true, .round = 1,
                                                   .axes = "hidden,expert_ffn,shared_ffn,dense_ffn" });
    assert_null(p.router);
    for (int i = 0; i < p.n; i++) {
        const ns_cut *c = &p.size[i].cut;
        double is = share(&p, c), ratio = ns_cut_hidden(c) / 64.0;
        assert_true(is <= p.size[i].budget && is > p.size[i].budget - 0.03);
        assert_int_equal(ns_cut_validate(ck->arch, c, NULL, NULL, &e), 0);
        assert_true(fabs(c->layer[1].width[NS_AXIS_EXPERT_FFN] / 48.0 - ratio) < 1.0 / 48 + 1.0 / 64);
        assert_true(fabs(c->layer[5].width[NS_AXIS_DENSE_FFN] / 96.0 - ratio) < 1.0 / 96 + 1.0 / 64);
        assert_int_equal(c->layer[0].width[NS_AXIS_MAMBA_HEADS], 8);
    }
    assert_int_equal(ns_cut_hidden(&p.size[0].cut), 64);
    ns_elastic_plan_release(&p);
    p = plan_of((ns_elastic_opts){ .budgets = "0.7", .uniform = true, .axes = "depth", .depth_order = "6,1,3,4" });
    assert_true(!p.size[0].cut.layer[6].keep && p.size[0].cut.layer[0].keep && share(&p, &p.size[0].cut) <= 0.7);
    ns_elastic_plan_release(&p);
}

static void fixed(void **state)
{
    static const char *const sizes[] = { "S=hidden=32,expert_ffn=16", "full", "M=hidden=48" };
    (void)state;
    ns_elastic_plan p = plan_of((ns_elastic_opts){ .fixed = sizes, .n_fixed = 3 });
    assert_string_equal(p.size[0].name, "full");
    assert_string_equal(p.size[1].name, "M");
    assert_string_equal(p.size[2].name, "S");
    assert_true(p.size[0].budget == 1 && p.size[1].budget == share(&p, &p.size[1].cut) && p.size[1].budget < 1);
    assert_int_equal(p.size[2].cut.layer[1].width[NS_AXIS_EXPERT_FFN], 16);
    ns_elastic_plan_release(&p);
    p = plan_of((ns_elastic_opts){ .fixed = sizes, .n_fixed = 3, .only = "s" });
    assert_true(p.weight[0][2] == 1 && p.weight[1][2] == 1 && p.weight[0][0] == 0 && p.weight[1][1] == 0);
    ns_elastic_plan_release(&p);
    p = plan_of((ns_elastic_opts){ .fixed = sizes, .n_fixed = 3, .weights = "1,1,2" });
    assert_true(p.weight[1][2] == 0.5);
    ns_elastic_plan_release(&p);
}

static void refusals(void **state)
{
#define TEXTS(...) (const char *const[]){ __VA_ARGS__ }
#define LIST(...) .choices = TEXTS(__VA_ARGS__), .n_choices = sizeof(TEXTS(__VA_ARGS__)) / sizeof(char *)
#define FIXED(...) .fixed = TEXTS(__VA_ARGS__), .n_fixed = sizeof(TEXTS(__VA_ARGS__)) / sizeof(char *)
    const struct { ns_elastic_opts o; const char *expect; } cases[] = {
        { { .budgets = NULL }, "has no sizes of its own (nest.json): give --budgets or --fixed" },
        { { .uniform = true }, "--uniform needs --budgets" },
        { { .budgets = "1,x" }, "--budgets: \"x\" is not a number" },
        { { .budgets = "1,0" }, "--budgets: 0 is not a share" },
        { { .budgets = "1,1.2" }, "--budgets: 1.2 is not a share" },
        { { .budgets = "0.5,0.5" }, "--budgets: 0.5 stands there twice" },
        { { .budgets = "1,0.1" }, "budget 0.1: the smallest choices together still cost" },
        { { .budgets = "1,0.7", .axes = "hiden" }, "--axes: unknown axis \"hiden\"" },
        { { .budgets = "1,0.7", .axes = "hidden,hidden" }, "--axes: hidden stands there twice" },
        { { .budgets = "1,0.7", .hetero = "experts" }, "--hetero: experts is not among the axes" },
        { { .budgets = "1,0.7", .hetero = "hidden" }, "axis \"hidden\": it is one choice" },
        { { .budgets = "1,0.7", .axes = "depth" }, "the axis depth needs --depth-order" },
        { { .budgets = "1,0.7", .axes = "depth", .depth_order = "8" }, "--depth-order: 8 is not a layer in 0..7" },
        { { .budgets = "1,0.7", .axes = "depth", .depth_order = "1,1" }, "--depth-order: layer 1 stands there twice" },
        { { .budgets = "1,0.7", .axes = "depth", .depth_order = "no/such" }, "--depth-order: no/such" },
        { { .budgets = "1,0.7", LIST("hidden") }, "--choices hidden: \"hidden\" is not AXIS=SHARE" },
        { { .budgets = "1,0.7", LIST("experts=1,0.5") }, "--choices experts=1,0.5: experts is not among the axes" },
        { { .budgets = "1,0.7", LIST("hidden=1,0.99") }, "choices must descend, but 0.99 gives the width 64 behind 64" },
        { { .budgets = "1,0.7", LIST("hidden=1,65") }, "65 is neither a share" },
        { { .budgets = "1,0.7", LIST("hidden=1,1.5") }, "1.5 is neither a share" },
        { { .budgets = "1,0.7", LIST("hidden=0.75,0.5") }, "the first choice is 48, but must be the full width, 64" },
        { { .budgets = "1,0.7", .names = "a" , .axes = "hidden", .weights = "1,2,3" }, "--weights: 3 for 2 sizes" },
        { { .budgets = "1,0.7", .names = "a,b,c" }, "--names: more names than the 2 sizes" },
        { { .budgets = "1,0.7", .names = "a b" }, "--names: \"a b\"" },
        { { .budgets = "1,0.7", .names = "0.7" }, "two sizes are called \"0.7\"" },
        { { .budgets = "1,0.7", .weights = "0,0" }, "--weights: all are 0" },
        { { .budgets = "1,0.7", .weights = "1,-1" }, "--weights: -1 is negative" },
        { { .budgets = "1,0.7", .only = "full" }, "--only: a router has no sizes yet" },
        { { .budgets = "1,0.7", .uniform = true, .only = "S" }, "--only: there is no size \"S\"" },
        { { .budgets = "1,0.05", .uniform = true }, "--uniform: budget 0.05: the smallest widths" },
        { { .budgets = "1", FIXED("full") }, "--fixed gives the sizes" },
        { { FIXED("S=hidden=65") }, "--fixed S=hidden=65" },
        { { FIXED("S") }, "\"S\" is neither NAME=SIZE nor full" },
        { { FIXED("a b=hidden=32") }, "names are letters" },
        { { FIXED("a=hidden=32", "A=hidden=48") }, "two sizes are called" },
        { { FIXED("full"), LIST("hidden=1") }, "--choices and --hetero are the router's" },
        { { .budgets = "1,0.7", .budget = { .profile = "int3" } }, "profile \"int3\"" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ns_err e = { 0 };
        ns_elastic_plan p;
        if (ns_elastic_plan_make(ck, &cases[i].o, &p, &e) == 0)
            fail_msg("case %zu accepted; expected: %s", i, cases[i].expect);
        if (!strstr(e.msg, cases[i].expect))
            fail_msg("case %zu: \"%s\" does not mention \"%s\"", i, e.msg, cases[i].expect);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usual),   cmocka_unit_test(chosen), cmocka_unit_test(order_from_statistics),
        cmocka_unit_test(uniform), cmocka_unit_test(fixed),  cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
