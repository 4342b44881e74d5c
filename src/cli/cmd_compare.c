/* nestar compare: a thin face on eval/drift. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli/cmd.h"
#include "cli/common.h"
#include "eval/drift.h"

enum { MAX_SIZES = 32 };

typedef struct args {
    const char *a, *b, *data, *size_a, *sizes[MAX_SIZES];
    int n_sizes, context, limit;
    bool json, layers, has_kv_a;
    enum ns_kv kv_a;
    ns_cli_engine engine;
} args;

enum { KEY_DATA = NS_CLI_KEY_COMMAND, KEY_SIZE_A, KEY_KV_A, KEY_SIZE, KEY_CONTEXT, KEY_LIMIT, KEY_JSON, KEY_LAYERS };

static const struct argp_option options[] = {
    { "data", KEY_DATA, "FILE", 0, "What both read: text, or JSONL with \"messages\", \"text\", or \"prompt\" and \"completion\"", 0 },
    { "size-a", KEY_SIZE_A, "SIZE", 0, "The size of A that the others are compared with (default full)", 0 },
    { "size", KEY_SIZE, "SIZE", 0, "A size of B, or of A where there is no B; repeat for more (default: every named size)", 0 },
    { "kv-a", KEY_KV_A, "f32|fp8", 0, "How A keeps keys and values (default: as --kv says of both)", 0 },
    { "context", KEY_CONTEXT, "N", 0, "Longer documents are cut into pieces of N tokens (default 512)", 0 },
    { "limit", KEY_LIMIT, "N", 0, "Only the first N tokens", 0 },
    { "layers", KEY_LAYERS, NULL, 0, "Also how far the residual stream is off after each layer", 0 },
    { "json", KEY_JSON, NULL, 0, "JSON, layers included", 0 },
    { 0 }
};

static const char doc[] =
    "How far one model is from another on the same text: KL(A || B) and its worst token, how often both find the same token likeliest, and "
    "both perplexities. A and B may be two checkpoints, two formats, or, without B, the sizes of one checkpoint or its two kinds of cache.\v"
    "Examples:\n"
    "  nestar compare nano/ --data book.txt\n"
    "  nestar compare nano/ nano-nvfp4/ --data chats.jsonl --size full --size 12B\n"
    "  nestar compare nano/ nano-fp8/ --data book.txt --size-a 12B --size 12B --layers\n"
    "  nestar compare nano-fp8/ --data book.txt --kv-a f32 --kv fp8 --size full";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case KEY_DATA: a->data = arg; return 0;
    case KEY_SIZE_A: a->size_a = arg; return 0;
    case KEY_KV_A:
        a->kv_a = ns_cli_kv(s, "--kv-a", arg);
        a->has_kv_a = true;
        return 0;
    case KEY_SIZE:
        if (a->n_sizes == MAX_SIZES)
            argp_error(s, "--size: more than %d", MAX_SIZES);
        a->sizes[a->n_sizes++] = arg;
        return 0;
    case KEY_CONTEXT: a->context = (int)ns_cli_int(s, "--context", arg, 2, 1 << 24); return 0;
    case KEY_LIMIT: a->limit = (int)ns_cli_int(s, "--limit", arg, 2, 1 << 30); return 0;
    case KEY_LAYERS: a->layers = true; return 0;
    case KEY_JSON: a->json = true; return 0;
    case ARGP_KEY_INIT: s->child_inputs[0] = &a->engine; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, a->a ? &a->b : &a->a, arg); return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->a, "A");
        ns_cli_required(s, a->data, "--data");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- the documents, as A's tokenizer reads them ---- */

typedef struct documents {
    ns_ids ids;
    size_t *start; /* [n + 1] */
    size_t n, cap;
} documents;

/* Takes over ids. */
static int add_document(documents *d, int *ids, size_t n, ns_err *e)
{
    if (d->n + 2 > d->cap) {
        size_t cap = d->cap ? 2 * d->cap : 256, *p = realloc(d->start, cap * sizeof *p);
        if (!p) {
            free(ids);
            return ns_fail(e, NS_ENOMEM, "compare: out of memory");
        }
        d->start = p;
        d->cap = cap;
    }
    d->start[d->n++] = d->ids.len;
    ns_ids_append(&d->ids, ids, n);
    d->start[d->n] = d->ids.len;
    free(ids);
    return d->ids.failed ? ns_fail(e, NS_ENOMEM, "compare: out of memory") : 0;
}

static int line_ids(const ns_engine *en, const json_t *line, int **ids, size_t *n, ns_err *e)
{
    const char *text = json_string_value(json_object_get(line, "text")), *prompt = json_string_value(json_object_get(line, "prompt"));
    const char *completion = json_string_value(json_object_get(line, "completion"));
    ns_buf b = { 0 };
    int rc;
    if (json_object_get(line, "messages")) {
        char *request = json_dumps(line, JSON_COMPACT);
        rc = request ? ns_engine_chat(en, request, ids, n, e) : ns_fail(e, NS_ENOMEM, "out of memory");
        free(request);
        return rc;
    }
    if (!text && !(prompt && completion))
        return ns_fail(e, NS_EFORMAT, "neither \"messages\" nor \"text\" nor \"prompt\" with \"completion\"");
    ns_buf_adds(&b, text ? text : prompt);
    ns_buf_adds(&b, text ? "" : completion);
    rc = ns_engine_tokenize(en, b.data ? b.data : "", b.len, !text, ids, n, e);
    ns_buf_release(&b);
    return rc;
}

static int read_lines(const args *a, const ns_engine *en, char *text, documents *d, ns_err *e)
{
    int number = 0;
    for (char *line; (line = strsep(&text, "\n"));) {
        int *ids = NULL;
        size_t n = 0;
        number++;
        if (!*line)
            continue;
        json_t *v = ns_json_parse(line, strlen(line), false, a->data, e);
        int rc = v ? line_ids(en, v, &ids, &n, e) : -1;
        json_decref(v);
        if (rc != 0 || add_document(d, ids, n, e) != 0)
            return ns_err_wrap(e, "line %d", number);
        if (a->limit && d->ids.len >= (size_t)a->limit)
            break;
    }
    return 0;
}

static int read_documents(const args *a, const ns_engine *en, documents *d, ns_err *e)
{
    ns_buf text = { 0 };
    const size_t n = strlen(a->data);
    int rc = ns_cli_read(a->data, &text, e);
    if (rc == 0 && n > 6 && strcmp(a->data + n - 6, ".jsonl") == 0) {
        rc = text.data ? read_lines(a, en, text.data, d, e) : 0;
    } else if (rc == 0) {
        int *ids = NULL;
        size_t count = 0;
        rc = ns_engine_tokenize(en, text.data ? text.data : "", text.len, false, &ids, &count, e);
        rc = rc ? rc : add_document(d, ids, count, e);
    }
    ns_buf_release(&text);
    if (rc == 0 && d->ids.len < 2)
        rc = ns_fail(e, NS_EINVAL, "%zu tokens; at least two are needed", d->ids.len);
    return rc ? ns_err_wrap(e, "%s", a->data) : 0;
}

/* ---- comparing ---- */

static int run_documents(const args *a, const documents *d, ns_drift_pair *p, ns_err *e)
{
    const size_t limit = a->limit ? (size_t)a->limit : d->ids.len;
    for (size_t i = 0; i < d->n && d->start[i] < limit; i++) {
        const size_t end = d->start[i + 1] < limit ? d->start[i + 1] : limit;
        for (size_t at = d->start[i]; at + 1 < end; at += (size_t)a->context) {
            const size_t n = end - at < (size_t)a->context ? end - at : (size_t)a->context;
            if (n >= 2 && ns_drift_add(p, d->ids.data + at, (int)n, e) != 0)
                return -1;
        }
    }
    return 0;
}

static double per(double sum, size_t n)
{
    return n ? sum / (double)n : 0;
}

static json_t *row(const char *size, const ns_drift *d)
{
    json_t *layers = json_array();
    for (int i = 0; i < d->n_layers; i++)
        json_array_append_new(layers, json_real(d->size[i] > 0 ? sqrt(d->diff[i] / d->size[i]) : 0));
    return json_pack("{s:s, s:I, s:f, s:f, s:f, s:f, s:f, s:o}", "size", size, "tokens", (json_int_t)d->tokens, "kl", per(d->kl, d->tokens),
                     "worst_kl", d->worst_kl, "agree", per((double)d->agree, d->tokens), "perplexity_a", exp(per(d->nll_a, d->tokens)),
                     "perplexity_b", exp(per(d->nll_b, d->tokens)), "layers", layers);
}

static int compare_size(const args *a, const ns_engine *ea, const ns_engine *eb, const documents *d, const char *size, json_t *rows, ns_err *e)
{
    ns_cut ca = { 0 }, cb = { 0 };
    char name_a[64], name_b[64];
    ns_drift_pair *p = NULL;
    int rc = ns_engine_cut(ea, a->size_a ? a->size_a : "full", a->context, &ca, name_a, sizeof name_a, e);
    if (rc == 0)
        rc = ns_engine_cut(eb, size, a->context, &cb, name_b, sizeof name_b, e);
    if (rc == 0)
        rc = (p = ns_drift_new(ea, &ca, eb, &cb, a->context, e)) ? 0 : -1;
    if (rc == 0)
        rc = run_documents(a, d, p, e);
    if (rc == 0)
        rc = json_array_append_new(rows, row(name_b, ns_drift_get(p)));
    ns_drift_free(p);
    ns_cut_release(&ca);
    ns_cut_release(&cb);
    return rc;
}

static void print_rows(const args *a, const json_t *rows)
{
    size_t i, k;
    const json_t *r, *v;
    printf("%-20s %10s %10s %8s %14s %14s %8s\n", "size of B", "KL(A||B)", "worst", "agree", "perplexity A", "perplexity B", "tokens");
    json_array_foreach(rows, i, r)
        printf("%-20s %10.6f %10.4f %6.2f %% %14.4f %14.4f %8lld\n", json_string_value(json_object_get(r, "size")),
               json_real_value(json_object_get(r, "kl")), json_real_value(json_object_get(r, "worst_kl")),
               100 * json_real_value(json_object_get(r, "agree")), json_real_value(json_object_get(r, "perplexity_a")),
               json_real_value(json_object_get(r, "perplexity_b")), (long long)json_integer_value(json_object_get(r, "tokens")));
    json_array_foreach(rows, i, r) {
        if (!a->layers)
            break;
        printf("\n%s: residual stream off by, after each layer\n ", json_string_value(json_object_get(r, "size")));
        json_array_foreach(json_object_get(r, "layers"), k, v)
            printf(" %zu: %.4f%s", k, json_real_value(v), k % 8 == 7 ? "\n " : "");
        putchar('\n');
    }
}

static int compare_all(args *a, const ns_engine *ea, const ns_engine *eb, const documents *d, ns_err *e)
{
    json_t *rows = json_array();
    int rc = rows ? 0 : ns_fail(e, NS_ENOMEM, "compare: out of memory");
    for (int i = 0; a->n_sizes == 0 && rc == 0 && i < ns_engine_n_sizes(eb); i++) {
        ns_size_info info;
        rc = ns_engine_size(eb, i, &info, e);
        rc = rc ? rc : compare_size(a, ea, eb, d, info.name, rows, e);
    }
    for (int i = 0; rc == 0 && i < a->n_sizes; i++)
        rc = compare_size(a, ea, eb, d, a->sizes[i], rows, e);
    if (rc == 0 && a->json)
        rc = ns_cli_json(rows, true, e);
    else if (rc == 0)
        print_rows(a, rows);
    json_decref(rows);
    return rc;
}

static int compare(args *a, ns_err *e)
{
    documents d = { 0 };
    ns_cli_engine of_a = a->engine;
    of_a.kv = a->has_kv_a ? a->kv_a : a->engine.kv;
    ns_engine *ea = ns_cli_engine_open(a->a, &of_a, false, e);
    ns_engine *eb = ea && (a->b || of_a.kv != a->engine.kv) ? ns_cli_engine_open(a->b ? a->b : a->a, &a->engine, true, e) : ea;
    if (!a->context)
        a->context = ea && ns_engine_max_context(ea) < 512 ? ns_engine_max_context(ea) : 512;
    int rc = ea && eb ? read_documents(a, ea, &d, e) : -1;
    if (rc == 0)
        rc = compare_all(a, ea, eb, &d, e);
    ns_ids_release(&d.ids);
    free(d.start);
    if (eb != ea)
        ns_engine_close(eb);
    ns_engine_close(ea);
    return rc;
}

int ns_cmd_compare(int argc, char **argv)
{
    args a = { 0 };
    ns_err e = { 0 };
    const struct argp_child children[] = { { &ns_cli_engine_argp, 0, "Loading:", 90 }, { 0 } };
    ns_cli_parse(&(struct argp){ options, parse, "A [B]", doc, children, NULL, NULL }, argc, argv, &a);
    return ns_cli_exit(argv[0], compare(&a, &e), &e);
}
