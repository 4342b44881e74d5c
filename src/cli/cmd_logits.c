/* nestar logits: what the network computes for given tokens, to a safetensors file; the way in for comparisons. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "cli/cmd.h"
#include "cli/common.h"
#include "run/engine.h"
#include "store/writer.h"

typedef struct args {
    const char *dir, *ids_file, *size, *out;
    int step;
    bool hidden, router, masked;
    ns_cli_engine engine;
} args;

enum { KEY_IDS = NS_CLI_KEY_COMMAND, KEY_SIZE, KEY_HIDDEN, KEY_ROUTER, KEY_MASKED, KEY_STEP };

static const struct argp_option options[] = {
    { "ids-file", KEY_IDS, "FILE", 0, "Token ids, between white space or as a JSON array (\"-\": standard input)", 1 },
    { "output", 'o', "FILE", 0, "The safetensors file to write", 1 },
    { "size", KEY_SIZE, "SIZE", 0, "A name, a budget such as 0.58, or axis=width pairs (default: full)", 1 },
    { "hidden", KEY_HIDDEN, NULL, 0, "Also the residual stream behind every layer", 1 },
    { "router", KEY_ROUTER, NULL, 0, "Also the experts picked, and their weights", 1 },
    { "masked", KEY_MASKED, NULL, 0, "Compute the size as the full model with zeros in place of what it lacks: slow, for checking", 1 },
    { "step", KEY_STEP, "N", 0, "Tokens per step (default 512); 1 is decoding", 1 },
    { 0 }
};

static const char doc[] =
    "Runs token ids through the network and writes\n"
    "  input_ids I32 [n], logits F32 [n, vocab] behind every token;\n"
    "  hidden.I F32 [n, hidden], the residual stream behind layer I (--hidden);\n"
    "  router.I.indices I32 and router.I.weights F32 [n, experts per token], in the order of selection (--router).\n"
    "Layers and experts are counted as in the whole model.\v"
    "Examples:\n"
    "  echo 1 22 333 | nestar logits nano/ --ids-file - -o out.safetensors\n"
    "  nestar logits nano/ --ids-file ids.json --size 12B --hidden --router -o out.safetensors";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case ARGP_KEY_INIT: s->child_inputs[0] = &a->engine; return 0;
    case KEY_IDS: a->ids_file = arg; return 0;
    case 'o': a->out = arg; return 0;
    case KEY_SIZE: a->size = arg; return 0;
    case KEY_HIDDEN: a->hidden = true; return 0;
    case KEY_ROUTER: a->router = true; return 0;
    case KEY_MASKED: a->masked = true; return 0;
    case KEY_STEP: a->step = (int)ns_cli_int(s, "--step", arg, 1, NS_STEP_TOKENS); return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->dir, arg); return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->dir, "CKPT");
        ns_cli_required(s, a->ids_file, "--ids-file");
        ns_cli_required(s, a->out, "-o FILE");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- what is collected ---- */

/* Three possible tensors per layer, made when the layer first reports. */
enum { HIDDEN, INDICES, WEIGHTS, KINDS };
static const char *const kind_names[KINDS] = { "hidden.%d", "router.%d.indices", "router.%d.weights" };

typedef struct row_block {
    uint8_t *data; /* [n, width] of four bytes each */
    int width;
} row_block;

typedef struct collector {
    int n, at;         /* tokens in all; those before this step */
    row_block (*layer)[KINDS];
    bool failed;
} collector;

static void put(collector *c, int layer, int kind, const void *rows, int n, int width)
{
    row_block *b = &c->layer[layer][kind];
    size_t row = (size_t)width * 4, total;
    if (!b->data && ns_mul_size((size_t)c->n, row, &total))
        *b = (row_block){ malloc(total ? total : 1), width };
    if (!b->data)
        c->failed = true;
    else
        memcpy(b->data + (size_t)c->at * row, rows, (size_t)n * row);
}

static void on_hidden(void *ctx, int layer, const float *x, int n, int hidden)
{
    put(ctx, layer, HIDDEN, x, n, hidden);
}

static void on_router(void *ctx, int layer, const int *expert, const float *weight, int n, int topk)
{
    put(ctx, layer, INDICES, expert, n, topk);
    put(ctx, layer, WEIGHTS, weight, n, topk);
}

/* ---- running ---- */

static int run_steps(const ns_engine *en, const ns_plan *plan, const args *a, const ns_ids *ids, collector *c, float *logits, ns_err *e)
{
    const size_t vocab = (size_t)en->model.arch->vocab_size;
    const ns_step_tap tap = { .ctx = c, .hidden = a->hidden ? on_hidden : NULL, .router = a->router ? on_router : NULL };
    ns_scratch *scratch = ns_scratch_new();
    ns_state *state = ns_model_state(&en->model, &plan->cut, c->n, e);
    int rc = !state ? -1 : scratch ? 0 : ns_fail(e, NS_ENOMEM, "logits: out of memory");
    for (c->at = 0; rc == 0 && c->at < c->n;) {
        int n = c->n - c->at < a->step ? c->n - c->at : a->step;
        ns_item item = { .state = state, .ids = ids->data + c->at, .n = n, .n_logits = n, .logits = logits + (size_t)c->at * vocab };
        rc = ns_forward(plan, &item, 1, scratch, &tap, e);
        c->at += n;
    }
    if (rc == 0 && c->failed)
        rc = ns_fail(e, NS_ENOMEM, "logits: out of memory");
    ns_state_free(state);
    ns_scratch_free(scratch);
    return rc;
}

static ns_tensor tensor(const char *name, ns_dtype dtype, int rows, int cols, const void *data)
{
    ns_tensor t = { .name = name, .dtype = dtype, .n_dims = cols ? 2 : 1, .shape = { rows, cols }, .data = data };
    t.bytes = (size_t)rows * (size_t)(cols ? cols : 1) * 4;
    return t;
}

static int write_out(const ns_engine *en, const args *a, const char *size, const ns_ids *ids, const collector *c, const float *logits, ns_err *e)
{
    enum { NAME = 40 };
    const int n_layers = en->model.arch->n_layers;
    const ns_st_meta meta[] = { { "nestar.size", size }, { "nestar.kernels", ns_engine_kernels(en) } };
    ns_tensor *t = calloc((size_t)n_layers * KINDS + 2, sizeof *t);
    char(*names)[NAME] = calloc((size_t)n_layers * KINDS + 2, sizeof *names);
    size_t n = 0;
    int rc = t && names ? 0 : ns_fail(e, NS_ENOMEM, "logits: out of memory");
    if (rc == 0) {
        t[n++] = tensor("input_ids", NS_I32, c->n, 0, ids->data);
        t[n++] = tensor("logits", NS_F32, c->n, en->model.arch->vocab_size, logits);
        for (int i = 0; i < n_layers * KINDS; i++) {
            const row_block *b = &c->layer[i / KINDS][i % KINDS];
            if (!b->data)
                continue;
            snprintf(names[n], NAME, kind_names[i % KINDS], i / KINDS);
            t[n] = tensor(names[n], i % KINDS == INDICES ? NS_I32 : NS_F32, c->n, b->width, b->data);
            n++;
        }
        rc = ns_st_write_file(a->out, t, n, meta, 2, e);
    }
    free(names);
    free(t);
    return rc;
}

static int compute(const ns_engine *en, const args *a, const ns_ids *ids, ns_err *e)
{
    const int n_layers = en->model.arch->n_layers;
    collector c = { .n = (int)ids->len, .layer = calloc((size_t)n_layers, sizeof *c.layer) };
    char name[64];
    ns_cut cut = { 0 };
    ns_plan *plan = NULL;
    size_t bytes = 0;
    bool fits = ns_mul_size(ids->len, (size_t)en->model.arch->vocab_size * sizeof(float), &bytes);
    float *logits = fits ? malloc(bytes) : NULL;
    int rc = logits && c.layer ? 0 : ns_fail(e, NS_ENOMEM, "%zu tokens: out of memory for their logits", ids->len);
    if (rc == 0)
        rc = ns_engine_cut(en, a->size, c.n, &cut, name, sizeof name, e);
    if (rc == 0)
        rc = (plan = a->masked ? ns_plan_new_masked(&en->model, &cut, e) : ns_plan_new(&en->model, &cut, e)) ? 0 : -1;
    if (rc == 0)
        rc = run_steps(en, plan, a, ids, &c, logits, e);
    if (rc == 0)
        rc = write_out(en, a, name, ids, &c, logits, e);
    for (int i = 0; c.layer && i < n_layers * KINDS; i++)
        free(c.layer[i / KINDS][i % KINDS].data);
    ns_plan_free(plan);
    ns_cut_release(&cut);
    free(c.layer);
    free(logits);
    return rc;
}

static int read_ids(const args *a, int vocab, ns_ids *ids, ns_err *e)
{
    ns_buf text = { 0 };
    int rc = ns_cli_read(a->ids_file, &text, e);
    if (rc == 0)
        rc = ns_cli_ids_parse(text.data, text.len, a->ids_file, ids, e);
    for (size_t i = 0; rc == 0 && i < ids->len; i++)
        if (ids->data[i] >= vocab)
            rc = ns_fail(e, NS_EINVAL, "%s: token id %d is outside the vocabulary of %d", a->ids_file, ids->data[i], vocab);
    if (rc == 0 && (ids->len == 0 || ids->len > INT32_MAX))
        rc = ns_fail(e, NS_EINVAL, "%s: %s token ids", a->ids_file, ids->len ? "too many" : "no");
    ns_buf_release(&text);
    return rc;
}

int ns_cmd_logits(int argc, char **argv)
{
    args a = { .step = NS_STEP_TOKENS };
    ns_err e = { 0 };
    ns_ids ids = { 0 };
    const struct argp_child children[] = { { &ns_cli_engine_argp, 0, "Loading:", 90 }, { 0 } };
    ns_cli_parse(&(struct argp){ options, parse, "CKPT", doc, children, NULL, NULL }, argc, argv, &a);
    ns_engine *en = ns_cli_engine_open(a.dir, &a.engine, true, &e);
    int rc = en ? read_ids(&a, ns_engine_vocab_size(en), &ids, &e) : -1;
    if (rc == 0)
        rc = compute(en, &a, &ids, &e);
    ns_ids_release(&ids);
    ns_engine_close(en);
    return ns_cli_exit(argv[0], rc, &e);
}
