/* The FP8 cache against plain attention over keys and values that were rounded and widened by tensor/encode.h: on `ref` in every bit, on
 * the vector rungs up to the order of sums. What goes in (queries' input, keys, values) and comes out (the output projection's input)
 * is seen through the step's tap; the attention in between is written out here. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "prop/prop.h"
#include "tensor/encode.h"

enum { TOKENS = 150, TILE = 64, LAYER = 0 };

/* What one attention layer was given and what it made of it. */
typedef struct seen {
    const ns_arch *arch;
    float *x, *k, *v, *out; /* [TOKENS, hidden], [TOKENS, kv width] twice, [TOKENS, q width] */
    int n, n_kv, n_out;
} seen;

static void copy_rows(float *to, const ns_step_input *in)
{
    for (int i = 0; i < in->n; i++)
        memcpy(to + (size_t)i * (size_t)in->cols, in->x + (size_t)i * in->ld, (size_t)in->cols * sizeof *to);
}

static void on_input(void *ctx, const ns_step_input *in)
{
    seen *s = ctx;
    if (in->layer != LAYER)
        return;
    if (in->role == NS_W_Q) {
        copy_rows(s->x + (size_t)s->n * (size_t)in->cols, in);
        s->n += in->n;
    } else if (in->role == NS_W_O) {
        copy_rows(s->out + (size_t)s->n_out * (size_t)in->cols, in);
        s->n_out += in->n;
    }
}

static void on_kv(void *ctx, int layer, const float *k, const float *v, int n, int width)
{
    seen *s = ctx;
    if (layer != LAYER)
        return;
    const size_t at = (size_t)s->n_kv * (size_t)width, bytes = (size_t)n * (size_t)width * sizeof *k;
    memcpy(s->k + at, k, bytes);
    memcpy(s->v + at, v, bytes);
    s->n_kv += n;
}

static seen watch(const prop_model *m, const int *ids, const prop_feed *f)
{
    const ns_arch *a = m->ck->arch;
    const size_t q = (size_t)(a->layers[LAYER].width[NS_AXIS_ATTN_HEADS] * a->head_dim), kv = (size_t)(a->n_kv_heads * a->head_dim);
    seen s = { .arch = a };
    s.x = malloc(TOKENS * (size_t)a->hidden_size * sizeof *s.x);
    s.k = malloc(TOKENS * kv * sizeof *s.k);
    s.v = malloc(TOKENS * kv * sizeof *s.v);
    s.out = malloc(TOKENS * q * sizeof *s.out);
    ns_err e = { 0 };
    ns_cut full = { 0 };
    ns_cut_full(a, &full, &e);
    ns_plan *p = prop_plan(m, &full);
    ns_state *state = ns_model_state(&m->m, &full, TOKENS, &e);
    ns_scratch *scratch = ns_scratch_new();
    const ns_step_tap tap = { .ctx = &s, .input = on_input, .kv = on_kv };
    for (int i = 0; i < f->n; ids += f->step[i++]) {
        ns_item item = { .state = state, .ids = ids, .n = f->step[i] };
        if (ns_forward(p, &item, 1, scratch, &tap, &e) != 0)
            fail_msg("%s", e.msg);
    }
    ns_scratch_free(scratch);
    ns_state_free(state);
    ns_plan_free(p);
    ns_cut_release(&full);
    assert_int_equal(s.n, TOKENS);
    assert_int_equal(s.n_kv, TOKENS);
    assert_int_equal(s.n_out, TOKENS);
    return s;
}

static void seen_release(seen *s)
{
    free(s->x);
    free(s->k);
    free(s->v);
    free(s->out);
}

/* x = e4m3(x / scale) * scale */
static void fake_quantise(float *x, int n, float scale)
{
    uint8_t *q = malloc((size_t)n);
    double squares = 0, error = 0;
    ns_row_encode_fp8(x, n, scale, q, &squares, &error);
    for (int i = 0; i < n; i++)
        x[i] = ns_e4m3_to_f32(q[i]) * scale;
    assert_true(error > 0); /* there was something to round */
    free(q);
}

/* q = W_q x, a plain sum in order, as `ref` does it. */
static void query(const ns_mat *w, const float *x, int row, int n, float *q)
{
    float *row_of = malloc((size_t)w->cols * sizeof *row_of);
    for (int r = 0; r < n; r++) {
        float sum = 0;
        ns_row_decode(w, row + r, 0, w->cols, row_of);
        for (int k = 0; k < w->cols; k++)
            sum += row_of[k] * x[k];
        q[r] = sum;
    }
    free(row_of);
}

/* One query over keys 0 .. last, k and v [token, kv width] from this head on: tiles of 64 with a running maximum. */
static void attend(const float *q, const float *k, const float *v, size_t ld, int last, int hd, float *out)
{
    float max = -INFINITY, sum = 0, p[TILE];
    memset(out, 0, (size_t)hd * sizeof *out);
    for (int at = 0; at <= last; at += TILE) {
        const int n = last + 1 - at < TILE ? last + 1 - at : TILE;
        float most = max, part = 0;
        for (int j = 0; j < n; j++) {
            p[j] = 0;
            for (int d = 0; d < hd; d++)
                p[j] += q[d] * k[(size_t)(at + j) * ld + (size_t)d];
            most = p[j] > most ? p[j] : most;
        }
        const float scale = most == max ? 1.0f : expf(max - most);
        for (int j = 0; j < n; j++) {
            p[j] = expf(p[j] - most);
            part += p[j];
        }
        sum = sum * scale + part;
        for (int d = 0; d < hd; d++) {
            float o = scale != 1.0f ? out[d] * scale : out[d];
            for (int j = 0; j < n; j++)
                o += p[j] * v[(size_t)(at + j) * ld + (size_t)d];
            out[d] = o;
        }
        max = most;
    }
    for (int d = 0; d < hd; d++)
        out[d] /= sum;
}

/* The layer's outputs as this file computes them, in place of s->out. */
static float *by_hand(const prop_model *m, const seen *s)
{
    const ns_arch *a = s->arch;
    const int heads = a->layers[LAYER].width[NS_AXIS_ATTN_HEADS], hd = a->head_dim, per = heads / a->n_kv_heads;
    const size_t width = (size_t)(heads * hd), ld = (size_t)(a->n_kv_heads * hd);
    const float scale = 1.0f / sqrtf((float)hd);
    const ns_mat *w = &ns_ckpt_weight(m->ck, LAYER, NS_W_Q, 0)->mat;
    float *out = malloc(TOKENS * width * sizeof *out), *q = malloc((size_t)hd * sizeof *q);
    for (int t = 0; t < TOKENS; t++)
        for (int h = 0; h < heads; h++) {
            const size_t head = (size_t)(h / per * hd);
            query(w, s->x + (size_t)t * (size_t)a->hidden_size, h * hd, hd, q);
            for (int d = 0; d < hd; d++)
                q[d] *= scale;
            attend(q, s->k + head, s->v + head, ld, t, hd, out + (size_t)t * width + (size_t)(h * hd));
        }
    free(q);
    return out;
}

static void check_cache(const char *dtype, enum ns_rung rung, float k_scale, float v_scale)
{
    char what[100];
    tiny_opts o = tiny_defaults();
    o.pattern = "*E*";
    o.dtype = dtype;
    o.head_dim = 24;
    ns_rng r;
    ns_rng_init(&r, 77);
    prop_model m = prop_open(tiny_open(tiny_base, dtype, &o), ns_ops_find(rung), 2);
    const ns_vectors *vec = &m.m.vec[LAYER];
    snprintf(what, sizeof what, "%s on %s", dtype, m.m.ops->name);
    assert_true(vec->k_scale == k_scale && vec->v_scale == v_scale);
    int *ids = prop_ids(&m, TOKENS, &r);
    for (int fp8 = 0; fp8 < 2; fp8++) {
        prop_feed f = { .n = 5, .step = { 1, 70, 1, 77, 1 } };
        m.m.kv = fp8 ? NS_F8_E4M3 : NS_F32;
        seen s = watch(&m, ids, &f);
        const int n = TOKENS * o.kv_heads * o.head_dim;
        if (fp8) {
            fake_quantise(s.k, n, k_scale);
            fake_quantise(s.v, n, v_scale);
        }
        float *want = by_hand(&m, &s);
        const size_t n_out = (size_t)(TOKENS * o.heads * o.head_dim);
        if (rung == NS_RUNG_REF)
            prop_same(s.out, want, n_out, what);
        else if (!(prop_diff(s.out, want, n_out) <= 2e-5))
            fail_msg("%s: off by %.2e", what, prop_diff(s.out, want, n_out));
        free(want);
        seen_release(&s);
    }
    free(ids);
    char *dir = tiny_path(tiny_base, dtype);
    prop_close(&m);
    tiny_remove(dir);
    free(dir);
}

static void cache_is_fake_quantised_attention(void **state)
{
    (void)state;
    for (int r = 0; r < NS_RUNG_COUNT; r++) {
        if (!ns_ops_find((enum ns_rung)r))
            continue;
        check_cache("f32", (enum ns_rung)r, 1, 1);             /* no scales in the file */
        check_cache("fp8", (enum ns_rung)r, 6.0f / 448, 6.0f / 448); /* as ModelOpt's */
    }
}

/* Values past 448 scales saturate; a scale that is no number, or not positive, is refused by name. */
static void scales_are_applied_and_checked(void **state)
{
    (void)state;
    static const float bad[] = { 0.0f, -1.0f, INFINITY, NAN };
    ns_err e = { 0 };
    tiny_opts o = tiny_defaults();
    o.pattern = "*";
    o.dtype = "fp8";
    char *dir = tiny_path(tiny_base, "scales");
    tiny_make(dir, &o);
    tiny_file f;
    tiny_load(&f, dir);
    tiny_tensor *k = tiny_find(&f, "backbone.layers.0.mixer.k_proj.k_scale");
    memcpy(k->data, &(float){ 1e-4f }, 4); /* so small that every key saturates */
    tiny_save(&f, dir);
    prop_model m = prop_open(ns_ckpt_open(dir, NULL, &e), ns_ops_find(NS_RUNG_REF), 1);
    m.m.kv = NS_F8_E4M3;
    ns_cut full;
    ns_cut_full(m.ck->arch, &full, &e);
    ns_plan *p = prop_plan(&m, &full);
    prop_feed feed = prop_whole(4);
    prop_trace t = prop_run(p, (int[]){ 1, 2, 3, 4 }, &feed, 0);
    int saturated = 0;
    for (int i = 0; i < 4 * o.head_dim; i++)
        saturated += (t.state->layer[0].k[i] & 0x7f) == 0x7e;
    assert_true(saturated > 2 * o.head_dim);
    for (size_t i = 0; i < t.n_logits; i++)
        assert_true(isfinite(t.logits[i]));
    prop_trace_release(&t);
    ns_plan_free(p);
    ns_cut_release(&full);
    prop_close(&m);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        memcpy(k->data, &bad[i], 4);
        tiny_save(&f, dir);
        e = (ns_err){ 0 };
        assert_null(ns_ckpt_open(dir, NULL, &e));
        assert_non_null(strstr(e.msg, "k_proj.k_scale"));
    }
    tiny_release(&f);
    free(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(cache_is_fake_quantised_attention),
                                        cmocka_unit_test(scales_are_applied_and_checked) };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
