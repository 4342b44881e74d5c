/* nestar score: perplexity of a text at one or more sizes, by sliding windows. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cmd.h"
#include "cli/common.h"
#include "run/engine.h"

/* Tokens per step where logits are wanted: they take 64 MiB at a vocabulary of 131,072. */
enum { MAX_SIZES = 32, LOGIT_STEP = 128 };

typedef struct args {
    const char *dir, *text, *size[MAX_SIZES];
    int n_sizes, context, stride;
    long limit;
    bool json;
    ns_cli_engine engine;
} args;

enum { KEY_TEXT = NS_CLI_KEY_COMMAND, KEY_SIZE, KEY_CONTEXT, KEY_STRIDE, KEY_LIMIT, KEY_JSON };

static const struct argp_option options[] = {
    { "text", KEY_TEXT, "FILE", 0, "The text (\"-\": standard input)", 1 },
    { "size", KEY_SIZE, "SIZE", 0, "A name, a budget, or axis=width pairs; may be given several times (default: full)", 1 },
    { "context", KEY_CONTEXT, "N", 0, "Tokens per window (default 2048, or the model's maximum if that is less)", 1 },
    { "stride", KEY_STRIDE, "N", 0, "Tokens from one window to the next (default: half the context); each token is scored once, in the first "
      "window that has it", 1 },
    { "limit", KEY_LIMIT, "N", 0, "Only the first N tokens of the text", 1 },
    { "json", KEY_JSON, NULL, 0, "The results as JSON", 1 },
    { 0 }
};

static const char doc[] =
    "Perplexity of a text: the exponential of the mean of -log p(token | those before it in its window). The text is tokenized plainly, "
    "special tokens spelled in it stay text.\v"
    "Examples:\n"
    "  nestar score nano/ --text book.txt --size full --size 23B --size 12B\n"
    "  nestar score nano/ --text - --context 4096 --stride 4096 --limit 100000 --json < book.txt";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case ARGP_KEY_INIT: s->child_inputs[0] = &a->engine; return 0;
    case KEY_TEXT: a->text = arg; return 0;
    case KEY_SIZE:
        if (a->n_sizes == MAX_SIZES)
            argp_error(s, "--size: more than %d", MAX_SIZES);
        a->size[a->n_sizes++] = arg;
        return 0;
    case KEY_CONTEXT: a->context = (int)ns_cli_int(s, "--context", arg, 2, INT32_MAX); return 0;
    case KEY_STRIDE: a->stride = (int)ns_cli_int(s, "--stride", arg, 1, INT32_MAX); return 0;
    case KEY_LIMIT: a->limit = (long)ns_cli_int(s, "--limit", arg, 2, INT32_MAX); return 0;
    case KEY_JSON: a->json = true; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->dir, arg); return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->dir, "CKPT");
        ns_cli_required(s, a->text, "--text");
        if (a->context && a->stride > a->context)
            argp_error(s, "--stride %d is more than --context %d: tokens would be left out", a->stride, a->context);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- one size ---- */

typedef struct result {
    char size[64];
    double nll;     /* nats, all scored tokens together */
    size_t scored, bytes, computed;
    double seconds;
} result;

typedef struct scorer {
    const ns_engine *en;
    const ns_ids *ids;
    int context, stride;
    ns_plan *plan;
    ns_state *state;
    ns_scratch *scratch;
    float *logits; /* [LOGIT_STEP, vocab] */
    result *r;
} scorer;

/* -log p(target) under softmax(logits). */
static double surprise(const float *logits, int vocab, int target)
{
    double max = (double)logits[0], sum = 0.0;
    for (int i = 1; i < vocab; i++)
        max = (double)logits[i] > max ? (double)logits[i] : max;
    for (int i = 0; i < vocab; i++)
        sum += exp((double)logits[i] - max);
    return max + log(sum) - (double)logits[target];
}

/* `rows` rows of logits, the first of them behind token `at`. The row behind the window's last token has no target. */
static void add_rows(scorer *c, int at, int rows, int window_end)
{
    int vocab = c->en->model.arch->vocab_size;
    for (int i = 0; i < rows && at + i + 1 < window_end; i++) {
        int target = c->ids->data[at + i + 1];
        const char *p;
        size_t n = 0;
        c->r->nll += surprise(c->logits + (size_t)i * (size_t)vocab, vocab, target);
        c->r->scored++;
        if (ns_engine_token_bytes(c->en, target, &p, &n) == 0)
            c->r->bytes += n;
    }
}

/* The window [begin, end): scores the tokens from `from` on. */
static int window(scorer *c, int begin, int end, int from, ns_err *e)
{
    int first = from - 1; /* the token whose logits predict it */
    ns_state_reset(c->state);
    for (int at = begin; at < end;) {
        int n = at < first ? first - at : end - at, most = at < first ? NS_STEP_TOKENS : LOGIT_STEP;
        n = n < most ? n : most;
        int rows = at < first ? 0 : n;
        ns_item item = { .state = c->state, .ids = c->ids->data + at, .n = n, .n_logits = rows, .logits = c->logits };
        if (ns_forward(c->plan, &item, 1, c->scratch, NULL, e) != 0)
            return -1;
        add_rows(c, at, rows, end);
        c->r->computed += (size_t)n;
        at += n;
    }
    return 0;
}

static int windows(scorer *c, ns_err *e)
{
    int n = (int)c->ids->len;
    bool tty = isatty(STDERR_FILENO) != 0;
    double start = ns_now();
    for (int begin = 0, done = 0; done < n; begin += c->stride) {
        int end = n - begin > c->context ? begin + c->context : n;
        if (window(c, begin, end, done > begin ? done : begin + 1, e) != 0)
            return -1;
        done = end;
        if (tty)
            fprintf(stderr, "\r%s: %d of %d tokens, perplexity %.3f\033[K%s", c->r->size, done, n,
                    exp(c->r->nll / (double)(c->r->scored ? c->r->scored : 1)), done == n ? "\r\033[K" : "");
    }
    c->r->seconds = ns_now() - start;
    return 0;
}

static int score_size(const args *a, const ns_engine *en, const ns_ids *ids, const char *size, result *r, ns_err *e)
{
    scorer c = { .en = en, .ids = ids, .context = a->context, .stride = a->stride, .r = r };
    ns_cut cut = { 0 };
    size_t bytes = 0;
    int rc = -1;
    if (ns_engine_cut(en, size, c.context, &cut, r->size, sizeof r->size, e) != 0)
        return -1;
    c.logits = ns_mul_size((size_t)en->model.arch->vocab_size, LOGIT_STEP * sizeof(float), &bytes) ? malloc(bytes) : NULL;
    c.scratch = ns_scratch_new();
    if (!c.logits || !c.scratch)
        ns_fail(e, NS_ENOMEM, "score: out of memory");
    else if ((c.plan = ns_plan_new(&en->model, &cut, e)) && (c.state = ns_model_state(&en->model, &cut, c.context, e)))
        rc = windows(&c, e);
    ns_state_free(c.state);
    ns_plan_free(c.plan);
    ns_scratch_free(c.scratch);
    free(c.logits);
    ns_cut_release(&cut);
    return rc;
}

/* ---- all of them ---- */

static int read_text(const args *a, const ns_engine *en, ns_ids *out, ns_err *e)
{
    ns_buf text = { 0 };
    int *ids = NULL;
    size_t n = 0;
    int rc = ns_cli_read(a->text, &text, e);
    if (rc == 0)
        rc = ns_engine_tokenize(en, text.data ? text.data : "", text.len, false, &ids, &n, e);
    if (rc == 0) {
        ns_ids_append(out, ids, a->limit && n > (size_t)a->limit ? (size_t)a->limit : n);
        if (out->failed || out->len > INT32_MAX)
            rc = ns_fail(e, NS_ENOMEM, "%s: %zu tokens are too many", a->text, n);
        else if (out->len < 2)
            rc = ns_fail(e, NS_EINVAL, "%s: %zu tokens; at least two are needed", a->text, out->len);
    }
    free(ids);
    ns_buf_release(&text);
    return rc;
}

static double per_token(const result *r)
{
    return r->nll / (double)r->scored;
}

static double bits_per_byte(const result *r)
{
    return r->bytes ? r->nll / log(2.0) / (double)r->bytes : 0.0;
}

static double speed(const result *r)
{
    return r->seconds > 0 ? (double)r->computed / r->seconds : 0.0;
}

static void print_table(const args *a, const result *r)
{
    printf("%-24s %12s %10s %10s %10s\n", "size", "perplexity", "bits/byte", "tokens", "tok/s");
    for (int i = 0; i < a->n_sizes; i++)
        printf("%-24s %12.4f %10.4f %10zu %10.1f\n", r[i].size, exp(per_token(&r[i])), bits_per_byte(&r[i]), r[i].scored, speed(&r[i]));
}

static int print_json(const args *a, const result *r, ns_err *e)
{
    json_t *list = json_array();
    for (int i = 0; i < a->n_sizes; i++)
        json_array_append_new(list, json_pack("{s:s, s:f, s:f, s:f, s:I, s:I, s:I, s:f, s:f}", "size", r[i].size, "perplexity", exp(per_token(&r[i])),
                                              "nll", per_token(&r[i]), "bits_per_byte", bits_per_byte(&r[i]), "tokens", (json_int_t)r[i].scored,
                                              "bytes", (json_int_t)r[i].bytes, "tokens_computed", (json_int_t)r[i].computed,
                                              "seconds", r[i].seconds, "tokens_per_second", speed(&r[i])));
    json_t *o = json_pack("{s:s, s:i, s:i, s:o}", "text", a->text, "context", a->context, "stride", a->stride, "sizes", list);
    int rc = ns_cli_json(o, true, e);
    json_decref(o);
    return rc;
}

static void fill_defaults(args *a, const ns_engine *en)
{
    int most = ns_engine_max_context(en);
    if (!a->context)
        a->context = most > 1 && most < 2048 ? most : 2048;
    if (!a->stride || a->stride > a->context)
        a->stride = a->context / 2;
    if (!a->n_sizes)
        a->size[a->n_sizes++] = "full";
}

static int score(args *a, ns_err *e)
{
    ns_ids ids = { 0 };
    result r[MAX_SIZES] = { 0 };
    ns_engine *en = ns_cli_engine_open(a->dir, &a->engine, false, e);
    int rc = en ? read_text(a, en, &ids, e) : -1;
    if (rc == 0)
        fill_defaults(a, en);
    for (int i = 0; rc == 0 && i < a->n_sizes; i++)
        rc = score_size(a, en, &ids, a->size[i], &r[i], e);
    if (rc == 0 && a->json)
        rc = print_json(a, r, e);
    else if (rc == 0)
        print_table(a, r);
    ns_ids_release(&ids);
    ns_engine_close(en);
    return rc;
}

int ns_cmd_score(int argc, char **argv)
{
    args a = { 0 };
    ns_err e = { 0 };
    const struct argp_child children[] = { { &ns_cli_engine_argp, 0, "Loading:", 90 }, { 0 } };
    ns_cli_parse(&(struct argp){ options, parse, "CKPT", doc, children, NULL, NULL }, argc, argv, &a);
    return ns_cli_exit(argv[0], score(&a, &e), &e);
}
