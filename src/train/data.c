/* The stream: which document comes when, and how they are packed. */
#include "train/data.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/rng.h"
#include "text/template_dir.h"
#include "train/data_impl.h"

/* ---- the order ---- */

static void shuffle(int64_t *x, int64_t n, uint64_t seed, uint64_t stream, uint64_t epoch)
{
    ns_rng g;
    ns_rng_init(&g, seed ^ (stream + 1) * 0x9e3779b97f4a7c15u ^ (epoch + 1) * 0xc2b2ae3d27d4eb4fu);
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t k = (int64_t)(ns_rng_uniform(&g) * (double)(i + 1)), t = x[i];
        x[i] = x[k];
        x[k] = t;
    }
}

static void shuffle_source(const ns_data *d, ns_source *s)
{
    s->epoch = s->handed / s->n_train;
    memcpy(s->order, s->train, (size_t)s->n_train * sizeof *s->order);
    shuffle(s->order, s->n_train, d->seed, (uint64_t)(s - d->src), (uint64_t)s->epoch);
}

/* The source whose next piece leaves it least ahead of its share. By counts alone, so that a position is found again fast. */
static ns_source *next_source(const ns_data *d)
{
    ns_source *best = NULL;
    double least = INFINITY;
    for (int i = 0; i < d->n_src; i++) {
        ns_source *s = &d->src[i];
        const double after = (double)(s->handed + 1) * s->cost;
        if (s->n_train && after < least) {
            best = s;
            least = after;
        }
    }
    return best;
}

/* After the pieces of each source are known: shares, and the stream at its start. */
static void plan_stream(ns_data *d)
{
    for (int i = 0; i < d->n_src; i++) {
        ns_source *s = &d->src[i];
        int64_t tokens = 0;
        for (int64_t k = 0; k < s->n_train; k++)
            tokens += d->pieces[s->train[k]].rows;
        s->cost = s->n_train ? (double)tokens / (double)s->n_train / (s->share > 0 ? s->share : (double)tokens) : 0;
    }
    ns_data_seek(d, 0);
}

void ns_data_seek(ns_data *d, int64_t position)
{
    for (int i = 0; i < d->n_src; i++)
        d->src[i].handed = 0;
    if (d->n_src == 1)
        d->src[0].handed = position;
    for (int64_t k = 0; k < position && d->n_src > 1; k++)
        next_source(d)->handed++;
    for (int i = 0; i < d->n_src; i++)
        if (d->src[i].n_train)
            shuffle_source(d, &d->src[i]);
    d->position = position;
}

int64_t ns_data_position(const ns_data *d)
{
    return d->position;
}

/* ---- packs ---- */

int ns_pack_init(ns_pack *p, int max_tokens, ns_err *e)
{
    const size_t n = (size_t)max_tokens;
    *p = (ns_pack){ .max_tokens = max_tokens };
    p->ids = malloc(n * sizeof *p->ids);
    p->target = malloc(n * sizeof *p->target);
    p->weight = malloc(n * sizeof *p->weight);
    p->start = malloc((n + 1) * sizeof *p->start);
    if (!p->ids || !p->target || !p->weight || !p->start) {
        ns_pack_release(p);
        return ns_fail(e, NS_ENOMEM, "a pack of %d tokens: out of memory", max_tokens);
    }
    return 0;
}

void ns_pack_release(ns_pack *p)
{
    free(p->ids);
    free(p->target);
    free(p->weight);
    free(p->start);
    *p = (ns_pack){ 0 };
}

void ns_pack_clear(ns_pack *p, int64_t first_doc)
{
    p->seqs = (ns_seqs){ .ids = p->ids, .start = p->start };
    p->start[0] = 0;
    p->weight_sum = 0;
    p->first_doc = first_doc;
}

static bool pack_fits(const ns_pack *p, const ns_piece *x)
{
    return p->seqs.n_tokens + x->rows <= p->max_tokens;
}

static void pack_add(const ns_data *d, ns_pack *p, const ns_piece *x)
{
    const int at = p->seqs.n_tokens, n = x->rows;
    memcpy(p->ids + at, d->ids.data + x->at, (size_t)n * sizeof *p->ids);
    memcpy(p->target + at, d->ids.data + x->at + 1, (size_t)n * sizeof *p->target);
    for (int i = 0; i < n; i++) {
        const float w = x->weights == SIZE_MAX ? 1 : d->weights[x->weights + (size_t)i + 1];
        p->weight[at + i] = w;
        p->weight_sum += (double)w;
    }
    p->seqs.n_tokens += n;
    p->start[++p->seqs.n_seqs] = p->seqs.n_tokens;
}

void ns_data_next(ns_data *d, ns_pack *out)
{
    assert(out->max_tokens >= d->max_doc);
    ns_pack_clear(out, d->position);
    for (;;) {
        ns_source *s = next_source(d);
        if (s->handed / s->n_train != s->epoch)
            shuffle_source(d, s);
        const ns_piece *x = &d->pieces[s->order[s->handed % s->n_train]];
        if (!pack_fits(out, x))
            return;
        pack_add(d, out, x);
        s->handed++;
        d->position++;
    }
}

bool ns_data_eval(ns_data *d, int64_t *position, ns_pack *out)
{
    assert(out->max_tokens >= d->max_doc);
    ns_pack_clear(out, *position);
    while (*position < d->n_held && pack_fits(out, &d->pieces[d->held[*position]]))
        pack_add(d, out, &d->pieces[d->held[(*position)++]]);
    return out->seqs.n_seqs > 0;
}

/* ---- held-out documents ---- */

/* Distributes all pieces; held[doc] says which documents are not for training. */
static void distribute(ns_data *d, const bool *held)
{
    d->n_held = 0;
    for (int i = 0; i < d->n_src; i++) {
        ns_source *s = &d->src[i];
        s->n_train = 0;
        for (int64_t k = s->first; k < s->first + s->n; k++) {
            if (held && held[d->pieces[k].doc])
                d->held[d->n_held++] = k;
            else
                s->train[s->n_train++] = k;
        }
    }
    plan_stream(d);
}

int ns_data_hold_out(ns_data *d, int64_t n_docs, ns_err *e)
{
    if (n_docs < 0 || n_docs >= d->n_docs)
        return ns_fail(e, NS_EINVAL, "%lld documents are to be held out of %lld; one at least must stay", (long long)n_docs,
                       (long long)d->n_docs);
    int64_t *order = malloc((size_t)d->n_docs * sizeof *order), *pieces = malloc((size_t)d->n_pieces * sizeof *pieces);
    bool *held = calloc((size_t)d->n_docs, sizeof *held);
    int rc = -1;
    if (!order || !pieces || !held) {
        ns_fail(e, NS_ENOMEM, "holding out documents: out of memory");
        goto out;
    }
    for (int64_t i = 0; i < d->n_docs; i++)
        order[i] = i;
    shuffle(order, d->n_docs, d->seed, UINT64_MAX - 1, 0);
    for (int64_t i = d->n_docs - n_docs; i < d->n_docs; i++)
        held[order[i]] = true;
    free(d->held);
    d->held = pieces;
    pieces = NULL;
    distribute(d, held);
    rc = 0;
out:
    free(order);
    free(pieces);
    free(held);
    return rc;
}

/* ---- opening ---- */

/* "FILE" or "FILE:W"; a file of that very name goes first. */
static int parse_path(const char *text, ns_source *s, ns_err *e)
{
    const char *colon = strrchr(text, ':');
    char *end = NULL;
    double w = colon && !ns_file_exists(text) ? strtod(colon + 1, &end) : 0;
    const bool weighted = end && end != colon + 1 && !*end;
    if (weighted && !(w > 0 && w <= 1e9))
        return ns_fail(e, NS_EINVAL, "%s: the share must be a number over 0, up to 1e9", text);
    s->path = weighted ? strndup(text, (size_t)(colon - text)) : strdup(text);
    s->share = weighted ? w : 0;
    return s->path ? 0 : ns_fail(e, NS_ENOMEM, "%s: out of memory", text);
}

static int parse_paths(ns_data *d, const ns_data_opts *o, ns_err *e)
{
    int shares = 0;
    for (int i = 0; i < o->n_paths; i++) {
        if (parse_path(o->paths[i], &d->src[i], e) != 0)
            return -1;
        shares += d->src[i].share > 0;
    }
    if (shares && shares != o->n_paths)
        return ns_fail(e, NS_EINVAL, "%d of %d data files have a share (FILE:W); give one to all or to none", shares, o->n_paths);
    return 0;
}

static int read_all(ns_data *d, const ns_data_opts *o, const ns_tokenizer *tok, ns_err *e)
{
    ns_chat_reader chat = { .tok = tok };
    int rc = o->template_dir ? ns_template_open_dir(o->template_dir, &chat.t, &chat.special, e) : 0;
    for (int i = 0; i < d->n_src && rc == 0; i++)
        rc = ns_data_read(d, &d->src[i], &chat, e);
    ns_template_free(chat.t);
    json_decref(chat.special);
    for (int i = 0; i < d->n_src && rc == 0; i++) {
        ns_source *s = &d->src[i];
        s->train = malloc((size_t)s->n * sizeof *s->train);
        s->order = malloc((size_t)s->n * sizeof *s->order);
        if (!s->train || !s->order)
            rc = ns_fail(e, NS_ENOMEM, "%s: out of memory", s->path);
    }
    if (rc == 0)
        distribute(d, NULL);
    return rc;
}

ns_data *ns_data_open(const ns_data_opts *o, const ns_tokenizer *tok, ns_err *e)
{
    ns_data *d = calloc(1, sizeof *d);
    if (o->n_paths < 1 || o->max_doc < 1 || o->vocab_size < 1) {
        ns_fail(e, NS_EINVAL, "training data: %s", o->n_paths < 1 ? "no file" : "longest document and vocabulary must be given");
        free(d);
        return NULL;
    }
    if (d && (d->src = calloc((size_t)o->n_paths, sizeof *d->src)))
        d->n_src = o->n_paths;
    if (!d || !d->src) {
        ns_fail(e, NS_ENOMEM, "training data: out of memory");
        ns_data_free(d);
        return NULL;
    }
    d->seed = o->seed;
    d->vocab_size = o->vocab_size;
    d->eos_id = o->eos_id;
    d->max_doc = o->max_doc;
    if (parse_paths(d, o, e) != 0 || read_all(d, o, tok, e) != 0) {
        ns_data_free(d);
        return NULL;
    }
    return d;
}

void ns_data_free(ns_data *d)
{
    if (!d)
        return;
    for (int i = 0; i < d->n_src; i++) {
        free(d->src[i].path);
        free(d->src[i].train);
        free(d->src[i].order);
    }
    free(d->src);
    ns_ids_release(&d->ids);
    free(d->weights);
    free(d->pieces);
    free(d->held);
    free(d);
}

int64_t ns_data_tokens(const ns_data *d)
{
    return (int64_t)d->ids.len;
}

int64_t ns_data_docs(const ns_data *d)
{
    return d->n_docs;
}

int64_t ns_data_bad_lines(const ns_data *d)
{
    int64_t n = 0;
    for (int i = 0; i < d->n_src; i++)
        n += d->src[i].bad;
    return n;
}

static uint64_t fnv(uint64_t h, const void *p, size_t n)
{
    for (const uint8_t *b = p, *end = b + n; b < end; b++)
        h = (h ^ *b) * 0x100000001b3u;
    return h;
}

uint64_t ns_data_hash(const ns_data *d)
{
    uint64_t h = fnv(0xcbf29ce484222325u, &d->seed, sizeof d->seed);
    for (int i = 0; i < d->n_src; i++) {
        h = fnv(h, &d->src[i].share, sizeof d->src[i].share);
        h = fnv(h, &d->src[i].n_train, sizeof d->src[i].n_train);
    }
    for (int64_t i = 0; i < d->n_pieces; i++)
        h = fnv(h, &d->pieces[i].rows, sizeof d->pieces[i].rows);
    h = fnv(h, d->weights, d->n_weights * sizeof *d->weights);
    return fnv(h, d->ids.data, d->ids.len * sizeof *d->ids.data);
}
