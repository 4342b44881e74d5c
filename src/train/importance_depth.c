/* Layers by what the logits lose without them: the least important is removed, the rest measured again without it, and so on.
 * The error of logits W h' against W h is (h' - h)^T G (h' - h) with G = W^T W, so the vocabulary is gone through once, for G. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "block/vec.h"
#include "train/importance_impl.h"

typedef struct depth {
    const ns_crew *crew;
    int n_layers, n_packs, h;
    ns_pack *pack;        /* [n_packs] */
    ns_real **ref;        /* [n_packs] hidden states of the whole model, as the head reads them */
    ns_real *gram;        /* [h, h] */
    ns_layer_mask *layer; /* [threads][n_layers] without arrays: whole widths */
    ns_real **work;       /* [threads] two times [pack_tokens, h] */
    bool *removed;        /* [n_layers] */
    int *candidate;       /* [n_candidates] */
    int n_candidates;
    double *error;        /* [n_candidates, n_packs] */
    int first;            /* task of the batch in hand */
    double norm;          /* of the whole model's logits, squared */
    int64_t tokens;       /* of the sample */
    size_t done, total;   /* tokens over all removals */
} depth;

/* The squared norm of W d over the rows of d [n, h]; work [n, h]. */
static double logits_norm(const depth *k, const ns_real *d, int n, ns_real *work)
{
    const size_t h = (size_t)k->h;
    double sum = 0;
    ns_gemm(k->crew->blas, false, false, n, k->h, k->h, d, k->h, k->gram, k->h, false, work, k->h);
    for (int t = 0; t < n; t++)
        sum += (double)ns_vec_dot(d + (size_t)t * h, work + (size_t)t * h, h);
    return sum < 0 ? 0 : sum; /* rounding, where W hardly sees d */
}

/* The network without what `removed` names, and without layer `also` (-1: none). */
static const ns_real *run(const depth *k, int pack, int thread, int also)
{
    ns_net *net = k->crew->net[thread];
    ns_net_mask mask = { .n_layers = k->n_layers, .norm = { .eps_factor = 1, .scale = 1 },
                         .layer = k->layer + (size_t)thread * (size_t)k->n_layers };
    for (int i = 0; i < k->n_layers; i++)
        mask.layer[i] = (ns_layer_mask){ .keep = k->removed[i] || i == also ? 0 : 1, .gated = { .eps_factor = 1, .scale = 1 } };
    ns_net_forward(net, k->crew->w, &mask, &k->pack[pack].seqs);
    return ns_net_hidden(net);
}

static void run_whole(void *ctx, int pack, int thread)
{
    depth *k = ctx;
    const int n = k->pack[pack].seqs.n_tokens;
    memcpy(k->ref[pack], run(k, pack, thread, -1), (size_t)n * (size_t)k->h * sizeof(ns_real));
    k->error[pack] = logits_norm(k, k->ref[pack], n, k->work[thread]);
}

static void run_without(void *ctx, int i, int thread)
{
    depth *k = ctx;
    const int task = k->first + i, pack = task % k->n_packs, n = k->pack[pack].seqs.n_tokens;
    const size_t count = (size_t)n * (size_t)k->h;
    const ns_real *hidden = run(k, pack, thread, k->candidate[task / k->n_packs]), *ref = k->ref[pack];
    ns_real *d = k->work[thread];
    for (size_t j = 0; j < count; j++)
        d[j] = hidden[j] - ref[j];
    k->error[task] = logits_norm(k, d, n, d + (size_t)k->crew->o->pack_tokens * (size_t)k->h);
}

/* Fills error, a few tasks at a time so that an interrupt is heard. */
static int run_candidates(depth *k, ns_err *e)
{
    const ns_importance_opts *o = k->crew->o;
    const int tasks = k->n_candidates * k->n_packs, batch = 4 * k->crew->n;
    for (k->first = 0; k->first < tasks; k->first += batch) {
        const int n = tasks - k->first < batch ? tasks - k->first : batch;
        ns_pool_run(k->crew->pool, n, run_without, k);
        for (int i = k->first; i < k->first + n; i++)
            k->done += (size_t)k->pack[i % k->n_packs].seqs.n_tokens;
        if (ns_crew_interrupted(k->crew, e))
            return -1;
        if (o->depth_progress)
            o->depth_progress(o->ctx, k->done, k->total);
    }
    return 0;
}

/* score[i]: the error of each layer that is left, were it removed as well. */
static int measure(depth *k, double *score, ns_err *e)
{
    k->n_candidates = 0;
    for (int i = 0; i < k->n_layers; i++)
        if (!k->removed[i])
            k->candidate[k->n_candidates++] = i;
    if (run_candidates(k, e) != 0)
        return -1;
    for (int i = 0; i < k->n_candidates; i++) {
        const int layer = k->candidate[i];
        double sum = 0;
        for (int pack = 0; pack < k->n_packs; pack++)
            sum += k->error[i * k->n_packs + pack];
        score[layer] = sum / k->norm;
        if (!isfinite(score[layer]))
            return ns_fail(e, NS_EFORMAT, "without layer %d the logits are not finite", layer);
    }
    return 0;
}

/* The candidate with the least score; of equal ones the first. */
static int least(const depth *k, const double *score)
{
    int best = -1;
    for (int i = 0; i < k->n_layers; i++)
        if (!k->removed[i] && (best < 0 || score[i] < score[best]))
            best = i;
    return best;
}

/* Removes until `keep` layers are left; those follow by what was last measured of them. */
static int rank(depth *k, int keep, double *score, float *order, float *order_score, ns_err *e)
{
    for (int n = 0; n < k->n_layers; n++) {
        if (n <= k->n_layers - keep && measure(k, score, e) != 0)
            return -1;
        const int layer = least(k, score);
        k->removed[layer] = true;
        order[n] = (float)layer;
        order_score[n] = (float)score[layer];
    }
    return 0;
}

/* ---- preparation ---- */

static int no_memory(ns_err *e)
{
    return ns_fail(e, NS_ENOMEM, "ranking layers: out of memory");
}

static int take_packs(depth *k, ns_data *data, ns_err *e)
{
    const ns_importance_opts *o = k->crew->o;
    ns_data_seek(data, 0);
    while (k->tokens < o->depth_tokens || k->n_packs == 0) {
        ns_pack *p = realloc(k->pack, ((size_t)k->n_packs + 1) * sizeof *p);
        if (!p)
            return no_memory(e);
        k->pack = p;
        if (ns_pack_init(&p[k->n_packs], o->pack_tokens, e) != 0)
            return -1;
        ns_data_next(data, &p[k->n_packs]);
        k->tokens += p[k->n_packs++].seqs.n_tokens;
    }
    return 0;
}

static int make_room(depth *k, ns_err *e)
{
    const size_t h = (size_t)k->h, threads = (size_t)k->crew->n, packs = (size_t)k->n_packs, layers = (size_t)k->n_layers;
    k->gram = malloc(h * h * sizeof *k->gram);
    k->layer = calloc(threads * layers, sizeof *k->layer);
    k->removed = calloc(layers, sizeof *k->removed);
    k->candidate = calloc(layers, sizeof *k->candidate);
    k->error = calloc(layers * packs, sizeof *k->error);
    k->ref = calloc(packs, sizeof *k->ref);
    k->work = calloc(threads, sizeof *k->work);
    if (!k->gram || !k->layer || !k->removed || !k->candidate || !k->error || !k->ref || !k->work)
        return no_memory(e);
    for (size_t i = 0; i < packs; i++)
        if (!(k->ref[i] = malloc((size_t)k->pack[i].seqs.n_tokens * h * sizeof **k->ref)))
            return no_memory(e);
    for (size_t i = 0; i < threads; i++)
        if (!(k->work[i] = malloc(2 * (size_t)k->crew->o->pack_tokens * h * sizeof **k->work)))
            return no_memory(e);
    return 0;
}

static int measure_whole(depth *k, ns_err *e)
{
    const ns_param *head = ns_params_find(k->crew->p, -1, NS_W_LM_HEAD);
    const ns_real *w = k->crew->w + head->off;
    ns_gemm(k->crew->blas, true, false, k->h, k->h, head->rows, w, k->h, w, k->h, false, k->gram, k->h);
    ns_pool_run(k->crew->pool, k->n_packs, run_whole, k);
    for (int i = 0; i < k->n_packs; i++)
        k->norm += k->error[i];
    if (isfinite(k->norm) && k->norm > 0)
        return 0;
    return ns_fail(e, NS_EFORMAT, "the squared norm of this model's logits is %g: layers cannot be ranked by it", k->norm);
}

static void release(depth *k)
{
    for (int i = 0; i < k->n_packs; i++) {
        ns_pack_release(&k->pack[i]);
        if (k->ref)
            free(k->ref[i]);
    }
    for (int i = 0; k->work && i < k->crew->n; i++)
        free(k->work[i]);
    free(k->pack);
    free(k->ref);
    free(k->gram);
    free(k->layer);
    free(k->work);
    free(k->removed);
    free(k->candidate);
    free(k->error);
}

int ns_importance_depth(const ns_crew *c, ns_data *data, ns_scores *out, ns_err *e)
{
    const ns_arch *a = c->p->arch;
    const int n = a->n_layers, keep = c->o->depth_keep < n ? c->o->depth_keep : n;
    depth k = { .crew = c, .n_layers = n, .h = a->hidden_size };
    double *score = calloc((size_t)n, sizeof *score);
    float *order = ns_scores_add(out, n, e, "depth.order"), *order_score = order ? ns_scores_add(out, n, e, "depth.score") : NULL;
    int rc = !order_score ? -1 : score ? take_packs(&k, data, e) : no_memory(e);
    if (rc == 0)
        rc = make_room(&k, e);
    if (rc == 0)
        rc = measure_whole(&k, e);
    for (int left = keep; left <= n; left++)
        k.total += (size_t)left * (size_t)k.tokens;
    if (rc == 0)
        rc = rank(&k, keep, score, order, order_score, e);
    out->depth_tokens = k.tokens;
    release(&k);
    free(score);
    return rc;
}
