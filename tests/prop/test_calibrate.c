/* Calibration against plain loops: the residual stream after each layer, normed here, is the next layer's input; the router's picks say
 * which expert saw it; the cache holds the keys and values. On `ref`, where a plain sum in order has the same bits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "eval/calibrate.h"
#include "prop/prop.h"
#include "store/safetensors.h"
#include "tensor/format.h"

enum { TOKENS = 40, MAX_LAYERS = 16, MAX_PICKS = 8 };

typedef struct trace {
    float *x[MAX_LAYERS];       /* [TOKENS, hidden] after each layer */
    int pick[MAX_LAYERS][TOKENS * MAX_PICKS], topk;
} trace;

static void on_hidden(void *ctx, int layer, const float *x, int n, int hidden)
{
    trace *t = ctx;
    t->x[layer] = malloc((size_t)(n * hidden) * sizeof *x);
    memcpy(t->x[layer], x, (size_t)(n * hidden) * sizeof *x);
}

static void on_router(void *ctx, int layer, const int *expert, const float *weight, int n, int topk)
{
    trace *t = ctx;
    (void)weight;
    t->topk = topk;
    memcpy(t->pick[layer], expert, (size_t)(n * topk) * sizeof *expert);
}

static void norm(const ns_arch *a, const float *x, const float *w, float *y)
{
    float sum = 0;
    for (int i = 0; i < a->hidden_size; i++)
        sum += x[i] * x[i];
    const float r = 1.0f / sqrtf(sum / (float)a->hidden_size + (float)a->norm_eps);
    for (int i = 0; i < a->hidden_size; i++)
        y[i] = w[i] * (x[i] * r);
}

static float largest(const float *x, int n, float m)
{
    for (int i = 0; i < n; i++)
        m = fabsf(x[i]) > m ? fabsf(x[i]) : m;
    return m;
}

/* The largest of relu(up x)^2, what the down projection sees. */
static float after_up(const ns_mat *w, const float *x, float m)
{
    float *row = malloc((size_t)w->cols * sizeof *row);
    for (int r = 0; r < w->rows; r++) {
        float sum = 0;
        ns_row_decode(w, r, 0, w->cols, row);
        for (int k = 0; k < w->cols; k++)
            sum += row[k] * x[k];
        sum = sum < 0 ? 0 : sum;
        m = sum * sum > m ? sum * sum : m;
    }
    free(row);
    return m;
}

static float stat(const ns_store *s, const char *fmt, int layer, int expert)
{
    char name[200];
    ns_err e = { 0 };
    snprintf(name, sizeof name, fmt, layer, expert);
    const ns_tensor *t = ns_store_get(s, name, &e);
    if (!t)
        fail_msg("%s", e.msg);
    assert_int_equal(t->bytes, 4);
    float x;
    memcpy(&x, t->data, 4);
    return x;
}

static void same(float got, float want, const char *what, int layer)
{
    if (got != want)
        fail_msg("layer %d %s: %.9g, by plain loops %.9g", layer, what, (double)got, (double)want);
}

static void check_experts(const ns_ckpt *c, const ns_store *s, const trace *t, const float *in, int layer)
{
    const ns_arch *a = c->arch;
    const int n = a->layers[layer].width[NS_AXIS_EXPERTS];
    float up[64] = { 0 }, down[64] = { 0 }, most_up = 0, most_down = 0;
    for (int i = 0; i < TOKENS * t->topk; i++) {
        const int x = t->pick[layer][i];
        const float *row = in + (size_t)(i / t->topk) * (size_t)a->hidden_size;
        up[x] = largest(row, a->hidden_size, up[x]);
        down[x] = after_up(&ns_ckpt_weight(c, layer, NS_W_EXPERT_UP, x)->mat, row, down[x]);
        most_up = up[x] > most_up ? up[x] : most_up;
        most_down = down[x] > most_down ? down[x] : most_down;
    }
    for (int x = 0; x < n; x++) { /* one that was not reached has the largest of the layer */
        same(stat(s, "backbone.layers.%d.mixer.experts.%d.up_proj.input_amax", layer, x), up[x] > 0 ? up[x] : most_up, "expert up", layer);
        same(stat(s, "backbone.layers.%d.mixer.experts.%d.down_proj.input_amax", layer, x), down[x] > 0 ? down[x] : most_down, "expert down", layer);
    }
}

static void check_layer(const ns_ckpt *c, const ns_model *m, const ns_store *s, const trace *t, const ns_state *state, int layer, float *in)
{
    const ns_arch *a = c->arch;
    const size_t h = (size_t)a->hidden_size;
    float most = 0, down = 0;
    for (int i = 0; i < TOKENS; i++)
        norm(a, t->x[layer - 1] + (size_t)i * h, m->vec[layer].norm, in + (size_t)i * h);
    most = largest(in, TOKENS * a->hidden_size, 0);
    switch (a->layers[layer].kind) {
    case NS_LAYER_MAMBA:
        same(stat(s, "backbone.layers.%d.mixer.in_proj.input_amax", layer, 0), most, "in_proj", layer);
        assert_true(stat(s, "backbone.layers.%d.mixer.out_proj.input_amax", layer, 0) > 0);
        break;
    case NS_LAYER_ATTENTION:
        same(stat(s, "backbone.layers.%d.mixer.q_proj.input_amax", layer, 0), most, "q_proj", layer);
        same(stat(s, "backbone.layers.%d.mixer.v_proj.input_amax", layer, 0), most, "v_proj", layer);
        same(stat(s, "backbone.layers.%d.mixer.k_proj.output_amax", layer, 0),
             largest((const float *)state->layer[layer].k, a->n_kv_heads * TOKENS * a->head_dim, 0), "keys", layer);
        same(stat(s, "backbone.layers.%d.mixer.v_proj.output_amax", layer, 0),
             largest((const float *)state->layer[layer].v, a->n_kv_heads * TOKENS * a->head_dim, 0), "values", layer);
        assert_true(stat(s, "backbone.layers.%d.mixer.o_proj.input_amax", layer, 0) > 0);
        break;
    case NS_LAYER_MOE:
        same(stat(s, "backbone.layers.%d.mixer.shared_experts.up_proj.input_amax", layer, 0), most, "shared up", layer);
        check_experts(c, s, t, in, layer);
        break;
    default:
        same(stat(s, "backbone.layers.%d.mixer.up_proj.input_amax", layer, 0), most, "up", layer);
        for (int i = 0; i < TOKENS; i++)
            down = after_up(&ns_ckpt_weight(c, layer, NS_W_UP, 0)->mat, in + (size_t)i * h, down);
        same(stat(s, "backbone.layers.%d.mixer.down_proj.input_amax", layer, 0), down, "down", layer);
    }
}

static void statistics_are_those_of_plain_loops(void **state)
{
    (void)state;
    ns_err e = { 0 };
    ns_rng r;
    ns_rng_init(&r, 12);
    setenv("NS_CPU", "ref", 1);
    for (int fp8 = 0; fp8 < 2; fp8++) {
        tiny_opts o = tiny_defaults();
        o.experts = 24; /* some will see nothing */
        o.dtype = fp8 ? "fp8" : "bf16";
        char *dir = tiny_path(tiny_base, o.dtype), *path = tiny_path(tiny_base, "calib.safetensors");
        assert_int_equal(tiny_make(dir, &o), 0);
        ns_engine *en = ns_engine_open(dir, &(ns_engine_opts){ .no_text = true, .n_threads = 2 }, &e);
        if (!en)
            fail_msg("%s", e.msg);
        const ns_arch *a = en->model.arch;
        const char *sizes[] = { "full" };
        int ids[TOKENS];
        for (int i = 0; i < TOKENS; i++)
            ids[i] = prop_pick(&r, a->vocab_size);
        ns_calib *k = ns_calib_new(en, sizes, 1, TOKENS, &e);
        ns_calib_report report;
        assert_non_null(k);
        assert_int_equal(ns_calib_add(k, ids, TOKENS, &e), 0);
        assert_int_equal(ns_calib_write(k, NULL, 0, path, &report, &e), 0);
        assert_int_equal(report.tokens, TOKENS);
        assert_int_equal(report.absent, 0);

        trace t = { 0 };
        const ns_step_tap tap = { .ctx = &t, .hidden = on_hidden, .router = on_router };
        ns_cut full = { 0 };
        ns_cut_full(a, &full, &e);
        ns_plan *p = ns_plan_new(&en->model, &full, &e);
        ns_state *st = ns_model_state(&en->model, &full, TOKENS, &e);
        ns_scratch *scratch = ns_scratch_new();
        assert_int_equal(ns_forward(p, &(ns_item){ .state = st, .ids = ids, .n = TOKENS }, 1, scratch, &tap, &e), 0);
        ns_store *s = ns_store_open(path, NS_LOAD_MMAP, &e);
        assert_non_null(s);
        float *in = malloc(TOKENS * (size_t)a->hidden_size * sizeof *in);
        int unreached = 0;
        for (int l = 0; l < a->n_layers; l++) {
            bool picked[64] = { false };
            for (int i = 0; a->layers[l].kind == NS_LAYER_MOE && i < TOKENS * t.topk; i++)
                picked[t.pick[l][i]] = true;
            for (int x = 0; x < a->layers[l].width[NS_AXIS_EXPERTS]; x++)
                unreached += !picked[x];
            if (l > 0)
                check_layer(en->ckpt, &en->model, s, &t, st, l, in);
        }
        assert_true(unreached > 0);
        assert_int_equal(report.unreached, unreached);
        for (int l = 0; l < a->n_layers; l++)
            free(t.x[l]);
        free(in);
        ns_store_close(s);
        ns_scratch_free(scratch);
        ns_state_free(st);
        ns_plan_free(p);
        ns_cut_release(&full);
        ns_calib_free(k);
        ns_engine_close(en);
        free(path);
        free(dir);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(statistics_are_those_of_plain_loops) };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
