/* Importance: every score against plain loops over what the inference engine leaves in the residual stream; planted cases, in which what
 * does nothing must come last; layers by removal against logits computed in full; the file, its orders, and the reordered model. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "block/net.h"
#include "forge/permute.h"
#include "prop/residual.h"
#include "tiny/tiny.h"
#include "train/folder_io.h"
#include "train/importance.h"

enum { PACK = 40, TOKENS = 150 };

static void *need(void *p)
{
    if (!p)
        abort();
    return p;
}

static void must(int rc, const ns_err *e)
{
    if (rc != 0)
        fail_msg("%s", e->msg);
}

/* ---- a model with its data ---- */

typedef struct subject {
    ns_ckpt *c;
    ns_params p;
    ns_real *w;
    ns_data *data;
} subject;

static int pick(ns_rng *r, int n)
{
    return (int)(ns_rng_u64(r) % (uint64_t)n);
}

/* Documents of 3 to 60 tokens; longer ones than a pack holds are cut. */
static void write_data(const char *path, int vocab)
{
    ns_err e = { 0 };
    ns_rng r;
    ns_buf text = { 0 };
    ns_rng_init(&r, 99);
    for (int i = 0; i < 12; i++) {
        const int n = 3 + pick(&r, 58);
        ns_buf_adds(&text, "{\"ids\": [");
        for (int t = 0; t < n; t++)
            ns_buf_addf(&text, "%s%d", t ? ", " : "", pick(&r, vocab));
        ns_buf_adds(&text, "]}\n");
    }
    must(ns_file_write(path, text.data, text.len, &e), &e);
    ns_buf_release(&text);
}

static ns_data *open_data(const ns_arch *a)
{
    ns_err e = { 0 };
    char *path = tiny_path(tiny_base, "data.jsonl");
    write_data(path, a->vocab_size);
    const ns_data_opts o = { .paths = (const char *const[]){ path }, .n_paths = 1, .seed = 5, .vocab_size = a->vocab_size, .eos_id = -1,
                             .max_doc = PACK };
    ns_data *d = ns_data_open(&o, NULL, &e);
    must(d ? 0 : -1, &e);
    free(path);
    return d;
}

static subject open_subject(const char *dir)
{
    ns_err e = { 0 };
    subject s = { .c = ns_ckpt_open(dir, NULL, &e) };
    must(s.c ? 0 : -1, &e);
    must(ns_params_plan(s.c->arch, &s.p, &e), &e);
    s.w = need(malloc(s.p.count * sizeof *s.w));
    must(ns_params_load(&s.p, s.c, s.w, &e), &e);
    s.data = open_data(s.c->arch);
    return s;
}

static void close_subject(subject *s)
{
    ns_data_free(s->data);
    free(s->w);
    ns_params_release(&s->p);
    ns_ckpt_close(s->c);
}

static ns_importance_opts options(void)
{
    ns_importance_opts o = ns_importance_defaults();
    o.tokens = TOKENS;
    o.pack_tokens = PACK;
    o.depth_tokens = PACK + 1;
    o.threads = 2;
    return o;
}

static ns_scores measure(const subject *s, const ns_importance_opts *o)
{
    ns_err e = { 0 };
    ns_scores out;
    must(ns_importance(&s->p, s->w, s->data, o, &out, &e), &e);
    return out;
}

static const float *score(const ns_scores *s, int n, const char *fmt, ...) NS_PRINTF(3, 4);
static const float *score(const ns_scores *s, int n, const char *fmt, ...)
{
    char name[80];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    const ns_score *x = ns_scores_find(s, name);
    if (!x)
        fail_msg("there is no score %s", name);
    assert_int_equal(x->n, n);
    return x->x;
}

/* ---- the scores by plain loops ---- */

typedef struct matrix {
    const ns_real *w, *bias; /* bias NULL: none */
    int rows, cols;
} matrix;

typedef struct oracle {
    const subject *s;
    const ns_arch *a;
    int n;              /* tokens of the document in hand */
    float *stream;      /* [n_layers][n, H] behind each layer */
    int *picks;         /* as prop_residual leaves them */
    float *gates;
    double *norm;       /* [(n_layers + 1) * H] sums over the pack, as all of these */
    double *place[5];   /* [n_layers][WIDE]: up, active, shared up, shared active; x or attention */
    double *bc;         /* [n_layers][WIDE] */
    double *acc_norm, *acc[5], *acc_bc; /* sums over packs of squared means */
    double *routed, *picked;            /* [n_layers][WIDE] over everything */
    int64_t *expert_rows;               /* [n_layers] of the pack */
    int64_t rows, tokens;
} oracle;

enum { WIDE = 512 };
enum { UP, ACTIVE, SHARED_UP, SHARED_ACTIVE, CHANNELS };

/* The inference engine over one document. */
static void run_document(oracle *o, const int *ids, int n)
{
    const size_t layers = (size_t)o->a->n_layers, tokens = (size_t)n;
    o->n = n;
    o->stream = need(realloc(o->stream, layers * tokens * (size_t)o->a->hidden_size * sizeof *o->stream));
    o->picks = need(realloc(o->picks, layers * tokens * PROP_MAX_TOPK * sizeof *o->picks));
    o->gates = need(realloc(o->gates, layers * tokens * PROP_MAX_TOPK * sizeof *o->gates));
    prop_residual(o->s->c->dir, ids, n, o->stream, o->picks, o->gates);
}

static const ns_real *weight(const oracle *o, int layer, ns_role r, int expert)
{
    return ns_params_cat(&o->s->p, o->s->w, layer, r, expert);
}

static matrix matrix_of(const oracle *o, int layer, ns_role r, int expert, int bias)
{
    const ns_param *p = ns_params_find(&o->s->p, layer, r);
    return (matrix){ weight(o, layer, r, expert), bias < 0 ? NULL : weight(o, layer, (ns_role)bias, 0), p->rows, p->cols };
}

static void apply(const matrix *m, const double *x, double *y)
{
    for (int i = 0; i < m->rows; i++) {
        y[i] = m->bias ? (double)m->bias[i] : 0;
        for (int j = 0; j < m->cols; j++)
            y[i] += (double)m->w[i * m->cols + j] * x[j];
    }
}

static void rms_norm(const oracle *o, const float *h, const ns_real *w, double *x)
{
    double squares = 0;
    for (int j = 0; j < o->a->hidden_size; j++)
        squares += (double)h[j] * (double)h[j];
    for (int j = 0; j < o->a->hidden_size; j++)
        x[j] = (double)w[j] * (double)h[j] / sqrt(squares / o->a->hidden_size + o->a->norm_eps);
}

static double relu2(double x)
{
    return x > 0 ? x * x : 0;
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

static void add_up(double *up, double *active, const double *u, int n)
{
    for (int i = 0; i < n; i++) {
        up[i] += fabs(u[i]);
        active[i] += relu2(u[i]);
    }
}

static void watch_ffn(oracle *o, int layer, const double *x, ns_role role, int bias, int up, int active)
{
    double u[WIDE];
    const matrix m = matrix_of(o, layer, role, 0, bias);
    apply(&m, x, u);
    add_up(o->place[up] + layer * WIDE, o->place[active] + layer * WIDE, u, m.rows);
}

static void watch_moe(oracle *o, int layer, int t, const double *x)
{
    const ns_layer *l = &o->a->layers[layer];
    const bool latent = o->a->latent_size > 0;
    double io[WIDE], u[WIDE], y[WIDE];
    memcpy(io, x, (size_t)o->a->hidden_size * sizeof *x);
    if (latent) {
        const matrix in = matrix_of(o, layer, NS_W_LATENT_IN, 0, NS_W_LATENT_IN_BIAS);
        apply(&in, x, io);
    }
    for (int k = 0; k < l->topk; k++) {
        const int at = layer * o->n * PROP_MAX_TOPK + t * l->topk + k, e = o->picks[at];
        const matrix up = matrix_of(o, layer, NS_W_EXPERT_UP, e, -1), down = matrix_of(o, layer, NS_W_EXPERT_DOWN, e, -1);
        apply(&up, io, u);
        add_up(o->place[UP] + layer * WIDE, o->place[ACTIVE] + layer * WIDE, u, up.rows);
        for (int i = 0; i < up.rows; i++)
            u[i] = relu2(u[i]);
        apply(&down, u, y);
        double squares = 0;
        for (int i = 0; i < down.rows; i++)
            squares += y[i] * y[i];
        o->routed[layer * WIDE + e] += (double)o->gates[at] * sqrt(squares);
        o->picked[layer * WIDE + e] += 1;
        o->expert_rows[layer]++;
    }
    watch_ffn(o, layer, x, NS_W_SHARED_UP, NS_W_SHARED_UP_BIAS, SHARED_UP, SHARED_ACTIVE);
}

/* x part of in_proj, then B and C after convolution and SiLU. xs [n][H] */
static void watch_mamba(oracle *o, int layer, const double *xs)
{
    const ns_layer *l = &o->a->layers[layer];
    const int inner = l->width[NS_AXIS_MAMBA_HEADS] * l->width[NS_AXIS_MAMBA_HEAD_DIM];
    const int bc = 2 * o->a->n_groups * l->width[NS_AXIS_SSM_STATE];
    const int taps = o->a->conv_kernel;
    const matrix in = matrix_of(o, layer, NS_W_IN_PROJ, 0, NS_W_IN_PROJ_BIAS);
    const ns_real *cw = weight(o, layer, NS_W_CONV, 0), *cb = weight(o, layer, NS_W_CONV_BIAS, 0);
    double *proj = need(malloc((size_t)o->n * (size_t)in.rows * sizeof *proj));
    for (int t = 0; t < o->n; t++)
        apply(&in, xs + t * o->a->hidden_size, proj + t * in.rows);
    for (int t = 0; t < o->n; t++) {
        for (int i = 0; i < inner; i++)
            o->place[CHANNELS][layer * WIDE + i] += fabs(proj[t * in.rows + inner + i]);
        for (int i = 0; i < bc; i++) {
            const int c = inner + i; /* in the convolution's channels x|B|C */
            double u = cb ? (double)cb[c] : 0;
            for (int k = 0; k < taps; k++)
                if (t - taps + 1 + k >= 0)
                    u += (double)cw[c * taps + k] * proj[(t - taps + 1 + k) * in.rows + inner + c];
            o->bc[layer * WIDE + i] += fabs(silu(u));
        }
    }
    free(proj);
}

static void watch_head(oracle *o, const double *q, const double *k, const double *v, int t, int kv_dim, double *sum)
{
    const int hd = o->a->head_dim;
    double p[256], max = -INFINITY, total = 0;
    for (int s = 0; s <= t; s++) {
        p[s] = 0;
        for (int d = 0; d < hd; d++)
            p[s] += q[d] * k[s * kv_dim + d];
        p[s] /= sqrt(hd);
        max = fmax(max, p[s]);
    }
    for (int s = 0; s <= t; s++)
        total += p[s] = exp(p[s] - max);
    for (int d = 0; d < hd; d++) {
        double y = 0;
        for (int s = 0; s <= t; s++)
            y += p[s] / total * v[s * kv_dim + d];
        sum[d] += fabs(y);
    }
}

static void watch_attention(oracle *o, int layer, const double *xs)
{
    const int heads = o->a->layers[layer].width[NS_AXIS_ATTN_HEADS], hd = o->a->head_dim, per_kv = heads / o->a->n_kv_heads;
    const int h = o->a->hidden_size;
    const matrix wq = matrix_of(o, layer, NS_W_Q, 0, NS_W_Q_BIAS), wk = matrix_of(o, layer, NS_W_K, 0, NS_W_K_BIAS),
                 wv = matrix_of(o, layer, NS_W_V, 0, NS_W_V_BIAS);
    const size_t n = (size_t)o->n, kv = (size_t)wk.rows;
    double *k = need(malloc(n * kv * sizeof *k)), *v = need(malloc(n * kv * sizeof *v)), q[WIDE];
    for (int t = 0; t < o->n; t++) {
        apply(&wk, xs + t * h, k + t * wk.rows);
        apply(&wv, xs + t * h, v + t * wv.rows);
    }
    for (int t = 0; t < o->n; t++) {
        apply(&wq, xs + t * h, q);
        for (int i = 0; i < heads; i++)
            watch_head(o, q + i * hd, k + i / per_kv * hd, v + i / per_kv * hd, t, wk.rows, o->place[CHANNELS] + layer * WIDE + i * hd);
    }
    free(k);
    free(v);
}

static void watch_document(oracle *o, const int *ids, int n)
{
    const int h = o->a->hidden_size, layers = o->a->n_layers;
    const ns_real *embed = weight(o, -1, NS_W_EMBED, 0);
    double *xs = need(malloc((size_t)n * (size_t)h * sizeof *xs));
    float row[WIDE];
    run_document(o, ids, n);
    for (int layer = 0; layer <= layers; layer++) {
        const ns_real *w = layer < layers ? weight(o, layer, NS_W_NORM, 0) : weight(o, -1, NS_W_FINAL_NORM, 0);
        for (int t = 0; t < n; t++) {
            for (int j = 0; j < h; j++)
                row[j] = layer ? o->stream[((layer - 1) * n + t) * h + j] : embed[ids[t] * h + j];
            rms_norm(o, row, w, xs + t * h);
            for (int j = 0; j < h; j++)
                o->norm[layer * h + j] += fabs(xs[t * h + j]);
        }
        const char kind = layer < layers ? o->a->layers[layer].kind : 0;
        for (int t = 0; t < n; t++) {
            if (kind == NS_LAYER_MLP)
                watch_ffn(o, layer, xs + t * h, NS_W_UP, NS_W_UP_BIAS, UP, ACTIVE);
            if (kind == NS_LAYER_MOE)
                watch_moe(o, layer, t, xs + t * h);
        }
        if (kind == NS_LAYER_MAMBA)
            watch_mamba(o, layer, xs);
        if (kind == NS_LAYER_ATTENTION)
            watch_attention(o, layer, xs);
    }
    o->rows += n;
    free(xs);
}

/* acc += (sum / rows)^2; the sums start anew. */
static void settle(double *acc, double *sum, int n, double rows)
{
    for (int i = 0; i < n; i++) {
        acc[i] += (sum[i] / rows) * (sum[i] / rows);
        sum[i] = 0;
    }
}

static void watch_pack(oracle *o, const ns_pack *p)
{
    const int layers = o->a->n_layers;
    o->rows = 0;
    for (int i = 0; i < layers; i++)
        o->expert_rows[i] = 0;
    for (int i = 0; i < p->seqs.n_seqs; i++)
        watch_document(o, p->ids + p->start[i], p->start[i + 1] - p->start[i]);
    settle(o->acc_norm, o->norm, (layers + 1) * o->a->hidden_size, (double)o->rows);
    settle(o->acc_bc, o->bc, layers * WIDE, (double)o->rows);
    for (int layer = 0; layer < layers; layer++)
        for (int k = 0; k < 5; k++) {
            const bool experts = o->a->layers[layer].kind == NS_LAYER_MOE && k <= ACTIVE;
            settle(o->acc[k] + layer * WIDE, o->place[k] + layer * WIDE, WIDE, (double)(experts ? o->expert_rows[layer] : o->rows));
        }
    o->tokens += o->rows;
}

static double *doubles(size_t n)
{
    return need(calloc(n, sizeof(double)));
}

static void oracle_open(oracle *o, const subject *s)
{
    const ns_arch *a = s->c->arch;
    const size_t wide = (size_t)a->n_layers * WIDE, hidden = (size_t)(a->n_layers + 1) * (size_t)a->hidden_size;
    *o = (oracle){ .s = s, .a = a };
    o->norm = doubles(hidden);
    o->acc_norm = doubles(hidden);
    for (int k = 0; k < 5; k++) {
        o->place[k] = doubles(wide);
        o->acc[k] = doubles(wide);
    }
    o->bc = doubles(wide);
    o->acc_bc = doubles(wide);
    o->routed = doubles(wide);
    o->picked = doubles(wide);
    o->expert_rows = need(calloc((size_t)a->n_layers, sizeof *o->expert_rows));
}

static void oracle_close(oracle *o)
{
    for (int k = 0; k < 5; k++) {
        free(o->place[k]);
        free(o->acc[k]);
    }
    free(o->norm);
    free(o->acc_norm);
    free(o->bc);
    free(o->acc_bc);
    free(o->routed);
    free(o->picked);
    free(o->expert_rows);
    free(o->stream);
    free(o->picks);
    free(o->gates);
}

static void near(const float *got, int i, double want, const char *what, int layer)
{
    if (!(fabs((double)got[i] - want) <= 2e-5 * (1e-3 + fabs(want))))
        fail_msg("%s of layer %d, entry %d: %.9g, expected %.9g", what, layer, i, (double)got[i], want);
}

static void check_roots(const ns_scores *s, int layer, const char *name, const double *acc, int n)
{
    const float *x = score(s, n, "layers.%d.%s", layer, name);
    for (int i = 0; i < n; i++)
        near(x, i, sqrt(acc[i]), name, layer);
}

static void check_mamba(const oracle *o, const ns_scores *s, int layer)
{
    const int *w = o->a->layers[layer].width, heads = w[NS_AXIS_MAMBA_HEADS], dim = w[NS_AXIS_MAMBA_HEAD_DIM], n = w[NS_AXIS_SSM_STATE];
    const int g = o->a->n_groups;
    const double *x = o->acc[CHANNELS] + layer * WIDE, *bc = o->acc_bc + layer * WIDE;
    const float *by_head = score(s, heads, "layers.%d.mamba_heads", layer), *by_dim = score(s, dim, "layers.%d.mamba_head_dim", layer);
    const float *by_state = score(s, n, "layers.%d.ssm_state", layer);
    for (int i = 0; i < heads; i++) {
        double sum = 0;
        for (int d = 0; d < dim; d++)
            sum += x[i * dim + d];
        near(by_head, i, sqrt(sum), "mamba_heads", layer);
    }
    for (int d = 0; d < dim; d++) {
        double sum = 0;
        for (int i = 0; i < heads; i++)
            sum += x[i * dim + d];
        near(by_dim, d, sqrt(sum), "mamba_head_dim", layer);
    }
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int k = 0; k < g; k++)
            sum += bc[k * n + i] * bc[(g + k) * n + i];
        near(by_state, i, sqrt(sum), "ssm_state", layer);
    }
}

static void check_layer(const oracle *o, const ns_scores *s, int layer)
{
    const ns_layer *l = &o->a->layers[layer];
    const int at = layer * WIDE, heads = l->width[NS_AXIS_ATTN_HEADS], experts = l->width[NS_AXIS_EXPERTS];
    if (l->kind == NS_LAYER_MAMBA)
        check_mamba(o, s, layer);
    if (l->kind == NS_LAYER_MLP) {
        check_roots(s, layer, "dense_ffn", o->acc[UP] + at, l->width[NS_AXIS_DENSE_FFN]);
        check_roots(s, layer, "dense_ffn.active", o->acc[ACTIVE] + at, l->width[NS_AXIS_DENSE_FFN]);
    }
    const float *by_head = heads ? score(s, heads, "layers.%d.attn_heads", layer) : NULL;
    for (int i = 0; i < heads; i++) {
        double sum = 0;
        for (int d = 0; d < o->a->head_dim; d++)
            sum += o->acc[CHANNELS][at + i * o->a->head_dim + d];
        near(by_head, i, sqrt(sum), "attn_heads", layer);
    }
    if (l->kind != NS_LAYER_MOE)
        return;
    check_roots(s, layer, "expert_ffn", o->acc[UP] + at, l->width[NS_AXIS_EXPERT_FFN]);
    check_roots(s, layer, "expert_ffn.active", o->acc[ACTIVE] + at, l->width[NS_AXIS_EXPERT_FFN]);
    check_roots(s, layer, "shared_ffn", o->acc[SHARED_UP] + at, l->width[NS_AXIS_SHARED_FFN]);
    check_roots(s, layer, "shared_ffn.active", o->acc[SHARED_ACTIVE] + at, l->width[NS_AXIS_SHARED_FFN]);
    const float *reap = score(s, experts, "layers.%d.experts.reap", layer);
    const float *often = score(s, experts, "layers.%d.experts.frequency", layer);
    for (int i = 0; i < experts; i++) {
        near(reap, i, o->picked[at + i] > 0 ? o->routed[at + i] / o->picked[at + i] : 0, "experts.reap", layer);
        near(often, i, o->picked[at + i] / (double)o->tokens, "experts.frequency", layer);
    }
}

static void compare_with_oracle(const tiny_opts *t, const char *name)
{
    ns_err e = { 0 };
    char *dir = tiny_path(tiny_base, name);
    if (tiny_make(dir, t) != 0)
        abort();
    subject s = open_subject(dir);
    const ns_importance_opts opts = options();
    ns_scores got = measure(&s, &opts);
    oracle o;
    ns_pack pack;
    oracle_open(&o, &s);
    must(ns_pack_init(&pack, PACK, &e), &e);
    ns_data_seek(s.data, 0);
    while (o.tokens < TOKENS) {
        ns_data_next(s.data, &pack);
        watch_pack(&o, &pack);
    }
    assert_int_equal(got.tokens, o.tokens);
    assert_true(o.tokens >= TOKENS && o.tokens < TOKENS + PACK);
    const float *hidden = score(&got, o.a->hidden_size, "hidden");
    for (int j = 0; j < o.a->hidden_size; j++) {
        double sum = 0;
        for (int i = 0; i <= o.a->n_layers; i++)
            sum += sqrt(o.acc_norm[i * o.a->hidden_size + j]);
        near(hidden, j, sum, "hidden", -1);
    }
    for (int i = 0; i < o.a->n_layers; i++)
        check_layer(&o, &got, i);
    ns_pack_release(&pack);
    oracle_close(&o);
    ns_scores_release(&got);
    close_subject(&s);
    free(dir);
}

static void scores_by_plain_loops(void **state)
{
    (void)state;
    tiny_opts t = tiny_defaults();
    compare_with_oracle(&t, "plain");
    t.biases = t.tied = true;
    t.latent = 24;
    t.n_group = 2;
    t.topk_group = 1;
    t.mamba_groups = 4;
    t.pattern = "*EM-ME";
    t.dtype = "bf16";
    compare_with_oracle(&t, "more");
}

/* ---- planted cases ---- */

typedef struct planting {
    tiny_file f;
    tiny_opts t;
} planting;

/* Rows from..from+n of a tensor of rows of `cols` F32 numbers, multiplied. */
static void scale_rows(tiny_file *f, const char *name, int from, int n, float by)
{
    tiny_tensor *t = tiny_find(f, name);
    const size_t cols = t->n_dims > 1 ? (size_t)t->shape[t->n_dims - 1] : 1;
    for (size_t i = (size_t)from * cols; i < (size_t)(from + n) * cols; i++) {
        float x;
        memcpy(&x, t->data + 4 * i, 4);
        x *= by;
        memcpy(t->data + 4 * i, &x, 4);
    }
}

static void zero_tensor(tiny_file *f, const char *name)
{
    tiny_tensor *t = tiny_find(f, name);
    memset(t->data, 0, t->bytes);
}

static const char *lay(int layer, const char *rest)
{
    static char name[2][128];
    static int turn;
    turn = !turn;
    snprintf(name[turn], sizeof name[turn], "backbone.layers.%d.mixer.%s", layer, rest);
    return name[turn];
}

static void assert_last(const ns_scores *s, const char *name, int n, int from, int group, int entry)
{
    const float *x = score(s, n, "%s", name);
    for (int i = from; i < from + group; i++)
        if (i != entry && x[i] <= x[entry])
            fail_msg("%s: entry %d with %g does not come before %d with %g", name, i, (double)x[i], entry, (double)x[entry]);
}

/* What is planted: see each line. Pattern MEM*E-ME, 8 Mamba heads of 16 in 2 groups, state 16, 8 query heads on 2 kv heads. */
static void plant(tiny_file *f, const tiny_opts *t)
{
    const int inner = t->mamba_heads * t->mamba_head_dim;
    char name[64];
    scale_rows(f, "backbone.norm_f.weight", 7, 1, 0); /* hidden channel 7, through every norm */
    for (int i = 0; t->pattern[i]; i++) {
        snprintf(name, sizeof name, "backbone.layers.%d.norm.weight", i);
        scale_rows(f, name, 7, 1, 0);
    }
    scale_rows(f, lay(0, "in_proj.weight"), inner + 5 * t->mamba_head_dim, t->mamba_head_dim, 0); /* Mamba head 5 of layer 0 */
    for (int h = 0; h < t->mamba_heads; h++) /* channel 3 of every head of layer 2 */
        scale_rows(f, lay(2, "in_proj.weight"), inner + h * t->mamba_head_dim + 3, 1, 0);
    for (int g = 0; g < t->mamba_groups; g++) { /* state 9 of layer 6: B is silu(0) */
        scale_rows(f, lay(6, "conv1d.weight"), inner + g * t->state + 9, 1, 0);
        scale_rows(f, lay(6, "conv1d.bias"), inner + g * t->state + 9, 1, 0);
    }
    for (int e = 0; e < t->experts; e++) { /* neuron 11 of every expert of layer 1 */
        snprintf(name, sizeof name, "experts.%d.up_proj.weight", e);
        scale_rows(f, lay(1, name), 11, 1, 0);
    }
    zero_tensor(f, lay(4, "experts.6.down_proj.weight"));     /* expert 6 of layer 4 */
    scale_rows(f, lay(4, "shared_experts.up_proj.weight"), 20, 1, 0);
    scale_rows(f, lay(5, "up_proj.weight"), 33, 1, 0);
    /* Query heads of layer 3 look at few tokens each, but head 2 at all of them: the mean of many values is small. */
    scale_rows(f, lay(3, "q_proj.weight"), 0, t->heads * t->head_dim, 30);
    scale_rows(f, lay(3, "q_proj.weight"), 2 * t->head_dim, t->head_dim, 0);
}

static void what_does_nothing_ranks_last(void **state)
{
    (void)state;
    const tiny_opts t = tiny_defaults();
    char *dir = tiny_path(tiny_base, "planted");
    tiny_file f;
    ns_ckpt_close(tiny_open(tiny_base, "planted", &t));
    tiny_load(&f, dir);
    plant(&f, &t);
    tiny_save(&f, dir);
    tiny_release(&f);
    subject s = open_subject(dir);
    const ns_importance_opts o = options();
    ns_scores x = measure(&s, &o);
    assert_last(&x, "hidden", t.hidden, 0, t.hidden, 7);
    assert_true(score(&x, t.hidden, "hidden")[7] == 0);
    assert_last(&x, "layers.0.mamba_heads", 8, 4, 4, 5); /* in its group */
    assert_last(&x, "layers.2.mamba_head_dim", 16, 0, 16, 3);
    assert_last(&x, "layers.6.ssm_state", 16, 0, 16, 9);
    assert_last(&x, "layers.1.expert_ffn", 48, 0, 48, 11);
    assert_last(&x, "layers.4.experts.reap", 8, 0, 8, 6);
    assert_true(score(&x, 8, "layers.4.experts.frequency")[6] > 0); /* it is asked all the same */
    assert_last(&x, "layers.4.shared_ffn", 80, 0, 80, 20);
    assert_last(&x, "layers.5.dense_ffn", 96, 0, 96, 33);
    assert_last(&x, "layers.3.attn_heads", 8, 0, 4, 2);
    ns_scores_release(&x);
    close_subject(&s);
    free(dir);
}

/* ---- depth ---- */

/* || logits without the layers - logits ||^2 / || logits ||^2 over the first packs, with all logits in memory. */
static double removal_error(const subject *s, const ns_pack *packs, int n_packs, const bool *removed)
{
    ns_err e = { 0 };
    const int vocab = s->c->arch->vocab_size, n_layers = s->c->arch->n_layers;
    const ns_net_opts o = { .max_tokens = PACK, .max_seqs = PACK, .forward_only = true };
    ns_blas *blas = ns_blas_open(&e);
    ns_net *net = blas ? ns_net_new(&s->p, blas, &o, &e) : NULL;
    ns_net_mask mask;
    must(net ? ns_mask_init(s->c->arch, &mask, &e) : -1, &e);
    float *logits = need(malloc(2 * PACK * (size_t)vocab * sizeof *logits)), *without = logits + PACK * vocab;
    double error = 0, norm = 0;
    for (int k = 0; k < n_packs; k++) {
        const int n = packs[k].seqs.n_tokens;
        ns_net_forward(net, s->w, NULL, &packs[k].seqs);
        ns_net_logits(net, s->w, NULL, 0, n, logits);
        for (int i = 0; i < n_layers; i++)
            mask.layer[i].keep = removed[i] ? 0 : 1;
        ns_net_forward(net, s->w, &mask, &packs[k].seqs);
        ns_net_logits(net, s->w, &mask, 0, n, without);
        for (int i = 0; i < n * vocab; i++) {
            error += pow((double)without[i] - (double)logits[i], 2);
            norm += pow((double)logits[i], 2);
        }
    }
    free(logits);
    ns_mask_release(&mask);
    ns_net_free(net);
    ns_blas_close(blas);
    return error / norm;
}

enum { DEPTH_PACKS = 2 };

static void check_depth(const subject *s, const ns_scores *x, int keep)
{
    ns_err e = { 0 };
    const int n = s->c->arch->n_layers;
    const float *order = score(x, n, "depth.order"), *value = score(x, n, "depth.score");
    ns_pack packs[DEPTH_PACKS];
    bool removed[64] = { false }, seen[64] = { false };
    double error[64] = { 0 };
    ns_data_seek(s->data, 0);
    for (int i = 0; i < DEPTH_PACKS; i++) {
        must(ns_pack_init(&packs[i], PACK, &e), &e);
        ns_data_next(s->data, &packs[i]);
    }
    assert_int_equal(x->depth_tokens, packs[0].seqs.n_tokens + packs[1].seqs.n_tokens);
    for (int k = 0; k < n; k++) {
        const int layer = (int)order[k];
        assert_true(layer >= 0 && layer < n && !seen[layer]);
        for (int i = 0; k <= n - keep && i < n; i++)
            if (!removed[i]) {
                removed[i] = true;
                error[i] = removal_error(s, packs, DEPTH_PACKS, removed);
                removed[i] = false;
            }
        near(value, k, error[layer], "depth.score", layer);
        for (int i = 0; i < n; i++)
            if (!seen[i] && error[i] < error[layer] * (1 - 1e-4))
                fail_msg("layer %d is removed before %d, whose error is less: %g and %g", layer, i, error[layer], error[i]);
        seen[layer] = true;
        removed[layer] = k < n - keep;
    }
    for (int i = 0; i < DEPTH_PACKS; i++)
        ns_pack_release(&packs[i]);
}

static void layers_by_removal(void **state)
{
    (void)state;
    tiny_opts t = tiny_defaults();
    t.pattern = "ME*-ME";
    for (int tied = 0; tied < 2; tied++) {
        char name[16];
        snprintf(name, sizeof name, "depth%d", tied);
        t.tied = tied;
        char *dir = tiny_path(tiny_base, name);
        if (tiny_make(dir, &t) != 0)
            abort();
        subject s = open_subject(dir);
        ns_importance_opts o = options();
        for (o.depth_keep = 1; o.depth_keep <= 6; o.depth_keep += tied ? 5 : 2) {
            ns_scores x = measure(&s, &o);
            check_depth(&s, &x, o.depth_keep);
            ns_scores_release(&x);
        }
        close_subject(&s);
        free(dir);
    }
}

static void layers_that_write_nothing_go_first(void **state)
{
    (void)state;
    const tiny_opts t = tiny_defaults();
    char *dir = tiny_path(tiny_base, "silent");
    tiny_file f;
    ns_ckpt_close(tiny_open(tiny_base, "silent", &t));
    tiny_load(&f, dir);
    zero_tensor(&f, lay(3, "o_proj.weight"));
    zero_tensor(&f, lay(6, "out_proj.weight"));
    tiny_save(&f, dir);
    tiny_release(&f);
    subject s = open_subject(dir);
    ns_importance_opts o = options();
    o.depth_keep = 2;
    ns_scores x = measure(&s, &o);
    const float *order = score(&x, 8, "depth.order"), *value = score(&x, 8, "depth.score");
    assert_true(order[0] == 3 && order[1] == 6);
    assert_true(value[0] == 0 && value[1] == 0 && value[2] > 0);
    ns_scores_release(&x);
    close_subject(&s);
    free(dir);
}

/* ---- the file, orders, threads ---- */

static void assert_same_scores(const ns_scores *a, const ns_scores *b)
{
    assert_int_equal(a->n, b->n);
    for (int i = 0; i < a->n; i++) {
        assert_string_equal(a->s[i].name, b->s[i].name);
        assert_memory_equal(a->s[i].x, b->s[i].x, (size_t)a->s[i].n * sizeof(float));
    }
}

static void threads_do_not_matter(void **state)
{
    (void)state;
    char *dir = tiny_path(tiny_base, "threads");
    if (tiny_make(dir, NULL) != 0)
        abort();
    subject s = open_subject(dir);
    ns_importance_opts o = options();
    o.depth_keep = 5;
    ns_scores one, three;
    o.threads = 1;
    one = measure(&s, &o);
    o.threads = 3;
    three = measure(&s, &o);
    assert_same_scores(&one, &three);
    ns_scores_release(&three);
    o.tokens = 0; /* all of it: the sums differ, the layers are ranked on the same sample */
    three = measure(&s, &o);
    assert_true(three.tokens >= ns_data_tokens(s.data) - ns_data_docs(s.data));
    assert_true(three.tokens > one.tokens);
    assert_memory_equal(score(&one, 8, "depth.score"), score(&three, 8, "depth.score"), 8 * sizeof(float));
    ns_scores_release(&one);
    ns_scores_release(&three);
    close_subject(&s);
    free(dir);
}

static void on_progress(void *ctx, size_t done, size_t total)
{
    int *stop = ctx;
    assert_true(done <= total && done > 0);
    (*stop)++;
}

static void interrupted(void **state)
{
    (void)state;
    char *dir = tiny_path(tiny_base, "threads");
    subject s = open_subject(dir);
    ns_err e = { 0 };
    ns_scores out;
    int stop = 0;
    ns_importance_opts o = options();
    o.progress = on_progress;
    o.ctx = &stop;
    o.interrupted = &stop;
    assert_int_equal(ns_importance(&s.p, s.w, s.data, &o, &out, &e), -1);
    assert_int_equal(e.code, NS_ECANCELLED);
    assert_int_equal(stop, 1); /* heard at the next opportunity */
    assert_int_equal(out.n, 0);
    e = (ns_err){ 0 };
    stop = 0;
    o.progress = NULL;
    o.depth_progress = on_progress;
    o.depth_keep = 1;
    assert_int_equal(ns_importance(&s.p, s.w, s.data, &o, &out, &e), -1);
    assert_int_equal(e.code, NS_ECANCELLED);
    close_subject(&s);
    free(dir);
}

static void not_finite(void **state)
{
    (void)state;
    char *dir = tiny_path(tiny_base, "threads");
    subject s = open_subject(dir);
    ns_err e = { 0 };
    ns_scores out;
    const ns_importance_opts o = options();
    ns_params_at(&s.p, s.w, 4, NS_W_SHARED_UP, 0)[3] = NAN;
    assert_int_equal(ns_importance(&s.p, s.w, s.data, &o, &out, &e), -1);
    assert_non_null(strstr(e.msg, "not finite"));
    close_subject(&s);
    free(dir);
}

static void assert_descending(const ns_scores *x, const char *name, int n, int group)
{
    const float *v = score(x, n, "%s", name);
    for (int i = 1; i < n; i++)
        if (i % group && v[i] > v[i - 1] * (1 + 1e-5f))
            fail_msg("%s: entry %d with %g stands behind %g", name, i, (double)v[i], (double)v[i - 1]);
}

/* Measured, written, read, reordered, measured again: every score descends. */
static void reordered_by_its_scores(void **state)
{
    (void)state;
    tiny_opts t = tiny_defaults();
    t.n_group = 2;
    ns_err e = { 0 };
    char *dir = tiny_path(tiny_base, "ranked"), *out = tiny_path(tiny_base, "ranked-out");
    char *file = tiny_path(tiny_base, "ranked.safetensors");
    if (tiny_make(dir, &t) != 0)
        abort();
    subject s = open_subject(dir);
    ns_importance_opts o = options();
    o.depth_keep = 8;
    ns_scores x = measure(&s, &o), y;
    must(ns_scores_write(&x, &(ns_st_meta){ "nestar.source", "ranked" }, 1, file, &e), &e);
    ns_store *stats = ns_store_open(file, NS_LOAD_MMAP, &e);
    must(stats ? 0 : -1, &e);
    assert_string_equal(ns_store_meta(stats, "nestar.source"), "ranked");
    ns_orders orders;
    must(ns_orders_init(&orders, s.c->arch, &e), &e);
    must(ns_orders_rank(&orders, NS_ORDERS_ALL, stats, &(ns_orders_metric){ 0 }, &e), &e);
    must(ns_permute(s.c, &orders, out, NULL, &e), &e);
    subject r = open_subject(out);
    y = measure(&r, &o);
    assert_descending(&y, "hidden", 64, 64);
    assert_descending(&y, "layers.0.mamba_heads", 8, 4);
    assert_descending(&y, "layers.2.mamba_head_dim", 16, 16);
    assert_descending(&y, "layers.6.ssm_state", 16, 16);
    assert_descending(&y, "layers.1.expert_ffn", 48, 48);
    assert_descending(&y, "layers.4.experts.reap", 8, 4);
    assert_descending(&y, "layers.7.shared_ffn", 80, 80);
    assert_descending(&y, "layers.5.dense_ffn", 96, 96);
    assert_descending(&y, "layers.3.attn_heads", 8, 4);
    assert_memory_equal(score(&x, 8, "depth.order"), score(&y, 8, "depth.order"), 8 * sizeof(float));
    must(ns_orders_rank(&orders, NS_ORDERS_ALL, stats, &(ns_orders_metric){ .expert_frequency = true, .ffn_active = true }, &e), &e);
    ns_orders_release(&orders);
    ns_store_close(stats);
    ns_scores_release(&x);
    ns_scores_release(&y);
    close_subject(&s);
    close_subject(&r);
    free(dir);
    free(out);
    free(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(scores_by_plain_loops),
                                        cmocka_unit_test(what_does_nothing_ranks_last),
                                        cmocka_unit_test(layers_by_removal),
                                        cmocka_unit_test(layers_that_write_nothing_go_first),
                                        cmocka_unit_test(threads_do_not_matter),
                                        cmocka_unit_test(interrupted),
                                        cmocka_unit_test(not_finite),
                                        cmocka_unit_test(reordered_by_its_scores) };
    return cmocka_run_group_tests(tests, tiny_setup, tiny_teardown);
}
