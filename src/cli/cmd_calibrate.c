/* nestar calibrate: a thin face on eval/calibrate. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/cmd.h"
#include "cli/common.h"
#include "eval/calibrate.h"
#include "train/data.h"

enum { MAX_SIZES = 32 };

typedef struct args {
    const char *dir, *out, *sizes[MAX_SIZES];
    const char **data;
    int n_data, n_sizes, seq;
    int64_t tokens;
    uint64_t seed;
    bool progress;
    ns_cli_engine engine;
} args;

enum { KEY_DATA = NS_CLI_KEY_COMMAND, KEY_SIZE, KEY_TOKENS, KEY_SEQ, KEY_SEED, KEY_PROGRESS };

static const struct argp_option options[] = {
    { "data", KEY_DATA, "FILE", 0, "JSONL or *.txt to run the model on, as for `nestar train`; again for more", 0 },
    { "output", 'o', "FILE", 0, "The statistics file to write (safetensors)", 0 },
    { "size", KEY_SIZE, "SIZE", 0, "A size to run; again for more: the largest of all counts (default full)", 0 },
    { "tokens", KEY_TOKENS, "N", 0, "Tokens to run (default 262144); 0: all of the data, once", 0 },
    { "seq", KEY_SEQ, "N", 0, "Longer documents are cut into pieces of N tokens (default 2048)", 0 },
    { "seed", KEY_SEED, "N", 0, "Order of the documents (default 0)", 0 },
    { "progress", KEY_PROGRESS, NULL, 0, "Show progress even when stderr is no terminal", 0 },
    { 0 }
};

static const char doc[] =
    "Runs a checkpoint on real text and writes the largest magnitude of every matrix's input, and of keys and values, for `nestar quantize "
    "--calib`. The weights are used as they are stored.\v"
    "Examples:\n"
    "  nestar calibrate nano/ --data mix.jsonl -o calib.safetensors\n"
    "  nestar calibrate nested/ --data mix.jsonl --size full --size 12B -o calib.safetensors\n"
    "  nestar quantize nano/ --format fp8 --calib calib.safetensors --kv fp8 -o nano-fp8";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case KEY_DATA: a->data[a->n_data++] = arg; return 0;
    case 'o': a->out = arg; return 0;
    case KEY_SIZE:
        if (a->n_sizes == MAX_SIZES)
            argp_error(s, "--size: more than %d", MAX_SIZES);
        a->sizes[a->n_sizes++] = arg;
        return 0;
    case KEY_TOKENS: a->tokens = ns_cli_int(s, "--tokens", arg, 0, INT64_MAX / 2); return 0;
    case KEY_SEQ: a->seq = (int)ns_cli_int(s, "--seq", arg, 1, 1 << 20); return 0;
    case KEY_SEED: a->seed = ns_cli_u64(s, "--seed", arg); return 0;
    case KEY_PROGRESS: a->progress = true; return 0;
    case ARGP_KEY_INIT: s->child_inputs[0] = &a->engine; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->dir, arg); return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->dir, "CKPT");
        ns_cli_required(s, a->n_data ? "" : NULL, "--data FILE");
        ns_cli_required(s, a->out, "-o FILE");
        if (!a->n_sizes)
            a->sizes[a->n_sizes++] = "full";
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static ns_data *open_data(const args *a, const ns_engine *en, ns_err *e)
{
    const ns_arch *arch = en->model.arch;
    const ns_data_opts o = { .paths = a->data, .n_paths = a->n_data, .seed = a->seed, .vocab_size = arch->vocab_size,
                             .eos_id = arch->n_eos ? arch->eos_ids[0] : -1, .template_dir = a->dir, .max_doc = a->seq };
    return ns_data_open(&o, en->tokenizer, e);
}

/* Documents in the data's order until there are tokens enough. */
static int run(const args *a, ns_calib *k, ns_data *data, ns_err *e)
{
    ns_pack pack = { 0 };
    ns_cli_progress bar = ns_cli_progress_start("calibrate", a->progress);
    const int64_t all = ns_data_tokens(data) - ns_data_docs(data); /* a document's last token takes no room */
    const int64_t target = a->tokens > 0 && a->tokens < all ? a->tokens : all;
    int64_t done = 0;
    int rc = ns_pack_init(&pack, a->seq, e);
    bar.unit = "tokens";
    while (rc == 0 && done < target) {
        ns_data_next(data, &pack);
        const ns_seqs *q = &pack.seqs;
        for (int i = 0; rc == 0 && done < target && i < q->n_seqs; i++) {
            rc = ns_calib_add(k, q->ids + q->start[i], q->start[i + 1] - q->start[i], e);
            done += q->start[i + 1] - q->start[i];
        }
        ns_cli_progress_update(&bar, (size_t)done, (size_t)(target > done ? target : done));
    }
    ns_cli_progress_end(&bar);
    ns_pack_release(&pack);
    return rc;
}

static int write_file(const args *a, const ns_calib *k, ns_calib_report *r, ns_err *e)
{
    ns_buf data = { 0 }, sizes = { 0 };
    for (int i = 0; i < a->n_data; i++)
        ns_buf_addf(&data, "%s%s", i ? " " : "", a->data[i]);
    for (int i = 0; i < a->n_sizes; i++)
        ns_buf_addf(&sizes, "%s%s", i ? " " : "", a->sizes[i]);
    const ns_st_meta meta[] = { { "nestar.source", a->dir }, { "nestar.data", data.data }, { "nestar.sizes", sizes.data } };
    int rc = data.failed || sizes.failed ? ns_fail(e, NS_ENOMEM, "%s: out of memory", a->out)
                                         : ns_calib_write(k, meta, sizeof meta / sizeof *meta, a->out, r, e);
    ns_buf_release(&data);
    ns_buf_release(&sizes);
    return rc;
}

/* Where the result is to go, before the model runs for it. */
static int check_output(const args *a, ns_err *e)
{
    ns_outfile f = { 0 };
    int rc = ns_outfile_open(&f, a->out, e);
    ns_outfile_release(&f);
    return rc;
}

static void print(const args *a, const ns_calib_report *r)
{
    printf("%s: %d matrices and the keys and values of %d attention layers, over %lld tokens\n", a->out, r->modules, r->kv_layers,
           (long long)r->tokens);
    if (r->unreached)
        printf("%d experts saw no token and have the largest of their layer\n", r->unreached);
    if (r->absent)
        printf("%d matrices are in none of the sizes and left out\n", r->absent);
}

static int calibrate(const args *a, ns_err *e)
{
    ns_calib_report r;
    ns_data *data = NULL;
    ns_calib *k = NULL;
    ns_engine *en = ns_cli_engine_open(a->dir, &a->engine, false, e);
    int rc = en ? check_output(a, e) : -1;
    if (rc == 0)
        rc = (data = open_data(a, en, e)) && (k = ns_calib_new(en, a->sizes, a->n_sizes, a->seq, e)) ? 0 : -1;
    if (rc == 0)
        rc = run(a, k, data, e);
    if (rc == 0)
        rc = write_file(a, k, &r, e);
    if (rc == 0)
        print(a, &r);
    ns_calib_free(k);
    ns_data_free(data);
    ns_engine_close(en);
    return rc;
}

int ns_cmd_calibrate(int argc, char **argv)
{
    args a = { .tokens = 262144, .seq = 2048, .data = calloc((size_t)argc, sizeof *a.data) };
    ns_err e = { 0 };
    int rc = a.data ? 0 : ns_fail(&e, NS_ENOMEM, "out of memory");
    if (rc == 0) {
        const struct argp_child children[] = { { &ns_cli_engine_argp, 0, "Loading:", 90 }, { 0 } };
        ns_cli_parse(&(struct argp){ options, parse, "CKPT", doc, children, NULL, NULL }, argc, argv, &a);
        rc = calibrate(&a, &e);
    }
    free(a.data);
    return ns_cli_exit(argv[0], rc, &e);
}
