#include "bench/bench.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/rng.h"

ns_bench_opts ns_bench_defaults(void)
{
    return (ns_bench_opts){ .prompt = 512, .gen = 32, .depth = 32, .sequences = 1, .repeats = 3 };
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double ns_bench_median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, compare);
    return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

/* Peak resident set in bytes: the private memory and the touched pages of the mapped files. */
static int64_t peak_rss(void)
{
    struct rusage u;
    return getrusage(RUSAGE_SELF, &u) == 0 ? (int64_t)u.ru_maxrss * 1024 : 0;
}

/* One size being measured. */
struct subject {
    ns_engine *en;
    const ns_bench_opts *o;
    ns_plan *plan;
    ns_cut cut;
    ns_cost cost;
    char name[64];
    ns_scratch *scratch;
    ns_state **state;   /* [sequences] */
    int *ids;           /* [sequences * max(prompt, depth, 1)], random */
    float *logits;      /* [sequences, vocab] */
    int64_t picked;     /* distinct experts over all layers of the steps that were tapped */
};

static void count_experts(void *ctx, int layer, const int *expert, const float *weight, int n_tokens, int topk)
{
    (void)weight;
    struct subject *s = ctx;
    int n = s->en->model.arch->layers[layer].width[NS_AXIS_EXPERTS];
    bool *seen = calloc((size_t)n, sizeof *seen);
    for (int i = 0; seen && i < n_tokens * topk; i++) {
        s->picked += !seen[expert[i]];
        seen[expert[i]] = true;
    }
    free(seen);
}

/* Stored bytes of one routed expert at this size. */
static int64_t expert_bytes(const struct subject *s, int layer)
{
    ns_mat up = ns_ckpt_weight(s->en->ckpt, layer, NS_W_EXPERT_UP, 0)->mat;
    int ffn = s->cut.layer[layer].width[NS_AXIS_EXPERT_FFN], io = up.cols < s->plan->hidden ? up.cols : s->plan->hidden;
    ns_mat down = ns_ckpt_weight(s->en->ckpt, layer, NS_W_EXPERT_DOWN, 0)->mat;
    up.rows = down.cols = ffn;
    up.cols = down.rows = io;
    return (int64_t)(ns_mat_bytes(&up) + ns_mat_bytes(&down));
}

/* Weight bytes a decode step reads when the experts picked in it are `picked` in all: the active bytes count topk a layer. */
static double step_bytes(const struct subject *s, double picked)
{
    const ns_arch *a = s->en->model.arch;
    double bytes = (double)s->cost.active_bytes, topk = 0.0, each = 0.0;
    for (int l = 0; l < a->n_layers; l++)
        if (s->cut.layer[l].keep && a->layers[l].kind == NS_LAYER_MOE) {
            topk += a->layers[l].topk;
            each = (double)expert_bytes(s, l); /* as good as equal in all layers: exact where widths are homogeneous */
        }
    bytes += (picked - topk) * each;
    /* the recurrent state is read and written, the KV cache read */
    return bytes + s->o->sequences * (2.0 * (double)s->cost.state_bytes + (double)s->cost.kv_bytes_per_token * s->o->depth);
}

static int forward(struct subject *s, int n_seq, int n, int n_logits, const ns_step_tap *tap, ns_err *e)
{
    ns_item *items = calloc((size_t)n_seq, sizeof *items);
    int vocab = s->en->model.arch->vocab_size, rc = -1;
    if (!items)
        return ns_fail(e, NS_ENOMEM, "bench: out of memory");
    for (int i = 0; i < n_seq; i++)
        items[i] = (ns_item){ .state = s->state[i], .ids = s->ids + (size_t)i * (size_t)n, .n = n, .n_logits = n_logits,
                              .logits = s->logits + (size_t)i * (size_t)vocab };
    rc = ns_forward(s->plan, items, n_seq, s->scratch, tap, e);
    free(items);
    return rc;
}

/* Fills the caches to the depth, in steps of at most NS_STEP_TOKENS. */
static int fill(struct subject *s, int depth, ns_err *e)
{
    for (int i = 0; i < s->o->sequences; i++)
        ns_state_reset(s->state[i]);
    for (int done = 0, n; done < depth; done += n) {
        n = depth - done < NS_STEP_TOKENS / s->o->sequences ? depth - done : NS_STEP_TOKENS / s->o->sequences;
        if (forward(s, s->o->sequences, n, 0, NULL, e) != 0)
            return -1;
    }
    return 0;
}

static int prefill(struct subject *s, json_t *out, double flops, ns_err *e)
{
    double t[64], per_token = s->cost.flops_per_token;
    int n = s->o->repeats < 64 ? s->o->repeats : 64;
    for (int k = 0; k < n; k++) {
        ns_state_reset(s->state[0]);
        double start = ns_now();
        for (int done = 0, m; done < s->o->prompt; done += m) {
            m = s->o->prompt - done < NS_STEP_TOKENS ? s->o->prompt - done : NS_STEP_TOKENS;
            if (forward(s, 1, m, done + m == s->o->prompt, NULL, e) != 0)
                return -1;
        }
        t[k] = ns_now() - start;
    }
    double rate = s->o->prompt / ns_bench_median(t, n);
    /* the head runs for the last token only */
    double head = 2.0 * s->plan->hidden * s->en->model.arch->vocab_size;
    json_object_set_new(out, "prefill_tokens", json_integer(s->o->prompt));
    json_object_set_new(out, "prefill_tokens_per_second", json_real(rate));
    json_object_set_new(out, "prefill_gflops", json_real(rate * (per_token - head) / 1e9));
    json_object_set_new(out, "prefill_share_of_f32_gemm", json_real(rate * (per_token - head) / 1e9 / flops));
    return 0;
}

static int decode(struct subject *s, json_t *out, double bandwidth, ns_err *e)
{
    double *t = malloc((size_t)s->o->gen * sizeof *t);
    int rc = t ? fill(s, s->o->depth, e) : ns_fail(e, NS_ENOMEM, "bench: out of memory");
    ns_step_tap tap = { .ctx = s, .router = count_experts };
    ns_rng rng;
    ns_rng_init(&rng, 7);
    s->picked = 0;
    for (int k = 0; rc == 0 && k < s->o->gen; k++) {
        for (int i = 0; i < s->o->sequences; i++)
            s->ids[i] = (int)(ns_rng_u64(&rng) % (uint64_t)s->en->model.arch->vocab_size);
        double start = ns_now();
        rc = forward(s, s->o->sequences, 1, 1, &tap, e);
        t[k] = ns_now() - start;
    }
    if (rc == 0) {
        double step = ns_bench_median(t, s->o->gen), bytes = step_bytes(s, (double)s->picked / s->o->gen);
        json_object_set_new(out, "decode_sequences", json_integer(s->o->sequences));
        json_object_set_new(out, "decode_depth", json_integer(s->o->depth));
        json_object_set_new(out, "decode_tokens_per_second", json_real(s->o->sequences / step));
        json_object_set_new(out, "decode_step_ms", json_real(step * 1e3));
        json_object_set_new(out, "decode_step_ms_worst", json_real(t[s->o->gen - 1] * 1e3)); /* sorted by median() */
        json_object_set_new(out, "decode_step_bytes", json_real(bytes));
        json_object_set_new(out, "decode_gb_per_second", json_real(bytes / step / 1e9));
        json_object_set_new(out, "decode_share_of_bandwidth", json_real(bytes / step / 1e9 / bandwidth));
    }
    free(t);
    return rc;
}

static void release(struct subject *s)
{
    for (int i = 0; s->state && i < s->o->sequences; i++)
        ns_state_free(s->state[i]);
    free(s->state);
    free(s->ids);
    free(s->logits);
    ns_scratch_free(s->scratch);
    ns_plan_free(s->plan);
    ns_cut_release(&s->cut);
}

static int prepare(struct subject *s, const char *size, ns_err *e)
{
    const ns_bench_opts *o = s->o;
    int context = (o->prompt > o->depth + o->gen ? o->prompt : o->depth + o->gen) + 1;
    size_t vocab = (size_t)s->en->model.arch->vocab_size, n_ids = (size_t)o->sequences * (size_t)(NS_STEP_TOKENS + 1);
    if (ns_engine_cut(s->en, size, context, &s->cut, s->name, sizeof s->name, e) != 0 ||
        ns_cut_cost(s->en->model.arch, &s->cut, ns_ckpt_dtype_of, s->en->ckpt, &s->cost, e) != 0)
        return -1;
    ns_cost_set_kv(&s->cost, s->en->model.kv);
    s->plan = ns_plan_new(&s->en->model, &s->cut, e);
    s->scratch = ns_scratch_new();
    s->state = calloc((size_t)o->sequences, sizeof *s->state);
    s->ids = malloc(n_ids * sizeof *s->ids);
    s->logits = malloc((size_t)o->sequences * vocab * sizeof *s->logits);
    if (!s->plan || !s->scratch || !s->state || !s->ids || !s->logits)
        return ns_fail(e, NS_ENOMEM, "bench: out of memory");
    for (int i = 0; i < o->sequences; i++)
        if (!(s->state[i] = ns_model_state(&s->en->model, &s->cut, context, e)))
            return -1;
    ns_rng rng;
    ns_rng_init(&rng, 3);
    for (size_t i = 0; i < n_ids; i++)
        s->ids[i] = (int)(ns_rng_u64(&rng) % vocab);
    return 0;
}

static json_t *bench_size(ns_engine *en, const ns_bench_opts *o, const char *size, double bandwidth, double flops, ns_err *e)
{
    struct subject s = { .en = en, .o = o };
    json_t *out = json_object();
    int rc = prepare(&s, size, e);
    if (rc == 0) {
        if (o->progress)
            o->progress(o->ctx, s.name);
        json_object_set_new(out, "size", json_string(s.name));
        json_object_set_new(out, "kv", json_string(ns_dtype_name(en->model.kv)));
        json_object_set_new(out, "kv_bytes_per_token", json_integer(s.cost.kv_bytes_per_token));
        json_object_set_new(out, "params_active", json_integer(s.cost.params_active));
        json_object_set_new(out, "active_bytes", json_integer(s.cost.active_bytes));
        json_object_set_new(out, "weight_bytes", json_integer(s.cost.weight_bytes));
        if (o->gen > 0) /* first: it warms the pages of the weights that prefill reads, too */
            rc = decode(&s, out, bandwidth, e);
        if (rc == 0 && o->prompt > 0)
            rc = prefill(&s, out, flops, e);
        json_object_set_new(out, "peak_rss_bytes", json_integer(peak_rss()));
    }
    release(&s);
    if (rc != 0) {
        json_decref(out);
        out = NULL;
    }
    return out;
}

/* The live change between two sizes, with a full cache behind it. */
static json_t *bench_switch(ns_engine *en, const ns_bench_opts *o, const char *a, const char *b, ns_err *e)
{
    ns_sampling greedy = ns_engine_sampling(en);
    greedy.temperature = 0.0;
    ns_session *s = ns_session_new(en, &(ns_session_opts){ .size = a, .context = o->depth + 64, .sampling = &greedy }, e);
    json_t *out = NULL;
    double t[20];
    int id, n = 0;
    int *ids = calloc((size_t)o->depth + 1, sizeof *ids);
    if (s && ids && ns_session_feed(s, ids, (size_t)o->depth + 1, e) == 0)
        for (; n < 20; n++) {
            double start = ns_now();
            if (ns_session_resize(s, n % 2 ? a : b, NS_HANDOVER_CACHE, e) != 0)
                break;
            t[n] = ns_now() - start;
            if (ns_session_next(s, &id, e) != 0)
                break;
        }
    if (n == 20) {
        double worst = 0.0;
        for (int i = 0; i < n; i++)
            worst = t[i] > worst ? t[i] : worst;
        out = json_pack("{s:s, s:s, s:i, s:f, s:f}", "from", a, "to", b, "depth", o->depth, "median_ms", ns_bench_median(t, n) * 1e3, "worst_ms",
                        worst * 1e3);
    }
    free(ids);
    ns_session_free(s);
    return out;
}

json_t *ns_bench_run(ns_engine *en, const ns_bench_opts *o, ns_err *e)
{
    if (o->prompt < 0 || o->gen < 0 || o->depth < 0 || o->sequences < 1 || o->sequences > NS_STEP_TOKENS || o->repeats < 1) {
        ns_fail(e, NS_EINVAL, "bench: prompt, gen and depth are 0 or more, sequences 1 to %d, repeats 1 or more", NS_STEP_TOKENS);
        return NULL;
    }
    if (o->progress)
        o->progress(o->ctx, "roofs");
    double bandwidth = ns_bench_bandwidth(en, e), flops = ns_bench_flops(en->pool, en->model.ops);
    if (bandwidth < 0.0)
        return NULL;
    int n = o->n_sizes ? o->n_sizes : ns_engine_n_sizes(en);
    json_t *sizes = json_array(), *report = NULL;
    const char *first[2] = { NULL, NULL };
    for (int i = 0; i < n; i++) {
        const char *size = o->n_sizes ? o->sizes[i] : en->ckpt->variants.v[i].name;
        json_t *row = bench_size(en, o, size, bandwidth, flops, e);
        if (!row) {
            json_decref(sizes);
            return NULL;
        }
        json_array_append_new(sizes, row);
        if (i < 2)
            first[i] = size;
    }
    report = json_pack("{s:{s:s, s:i}, s:{s:f, s:f}, s:o}", "machine", "kernels", en->model.ops->name, "threads", ns_pool_threads(en->pool),
                       "roofs", "read_gb_per_second", bandwidth, "f32_gemm_gflops", flops, "sizes", sizes);
    if (report && o->switches && first[1]) {
        json_t *sw = bench_switch(en, o, first[0], first[1], e);
        if (!sw) {
            json_decref(report);
            return NULL;
        }
        json_object_set_new(report, "switch", sw);
    }
    if (report && o->mix) {
        json_t *mix = ns_bench_mix(en, o, e);
        if (!mix) {
            json_decref(report);
            return NULL;
        }
        json_object_set_new(report, "mix", mix);
    }
    return report;
}
