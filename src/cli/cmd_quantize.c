/* nestar quantize: a thin face on forge/quantize. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/common.h"
#include "forge/quantize.h"

enum { MAX_KEEP = 256 };

typedef struct args {
    const char *path, *nest, *out;
    const char *keep[MAX_KEEP];
    ns_quantize_opts o;
    bool progress, json;
} args;

enum { KEY_FORMAT = NS_CLI_KEY_COMMAND, KEY_CALIB, KEY_KEEP, KEY_KV, KEY_ALL, KEY_SEARCH, KEY_THREADS, KEY_MAX_SHARD, KEY_NEST, KEY_PROGRESS,
       KEY_JSON };

static const struct argp_option options[] = {
    { "format", KEY_FORMAT, "FORMAT", 0, "fp8 (8 bits, one scale per matrix) or nvfp4 (4 bits, one scale per 16 weights)", 0 },
    { "output", 'o', "DIR", 0, "The folder to make; it must not exist", 0 },
    { "keep", KEY_KEEP, "PATTERN", 0, "Leave modules whose name matches as they are, as in 'backbone.layers.3.*'; may be repeated", 0 },
    { "all", KEY_ALL, NULL, 0, "Quantise every linear layer, also those that published checkpoints leave out: the head, attention's "
      "projections, the Mamba layer before each attention layer", 0 },
    { "search", KEY_SEARCH, NULL, 0, "nvfp4: per block, the scale with the least squared error", 0 },
    { "calib", KEY_CALIB, "FILE", 0, "Statistics of activations (`nestar calibrate`), for input_scale; without them only weights are quantised", 0 },
    { "kv", KEY_KV, "FORMAT", 0, "fp8: also the scales of an FP8 key and value cache; needs --calib", 0 },
    { "max-shard", KEY_MAX_SHARD, "BYTES", 0, "Largest file, as in 2GB (default 5GB)", 0 },
    { "nest", KEY_NEST, "FILE", 0, "Named sizes from FILE instead of CKPT/nest.json", 0 },
    { "threads", KEY_THREADS, "N", 0, "Threads (default: the cores)", 0 },
    { "progress", KEY_PROGRESS, NULL, 0, "Show progress even when stderr is no terminal", 0 },
    { "json", KEY_JSON, NULL, 0, "Print the report as JSON", 0 },
    { 0 }
};

static const char doc[] =
    "Quantises a checkpoint of plain floats, in the layout that ModelOpt writes and vLLM reads. Every size inside a nested checkpoint stays "
    "valid: slicing the result copies bytes. The folder appears complete or not at all.\v"
    "Examples:\n"
    "  nestar quantize nano/ --format nvfp4 -o nano-nvfp4\n"
    "  nestar quantize nano/ --format nvfp4 --search --keep 'backbone.layers.0.*' -o nano-nvfp4\n"
    "  nestar quantize nano/ --format fp8 --calib calib.safetensors --kv fp8 -o nano-fp8";

static void keep(struct argp_state *s, args *a, const char *pattern)
{
    if (a->o.n_keep == MAX_KEEP)
        argp_error(s, "more than %d patterns to keep", MAX_KEEP);
    a->keep[a->o.n_keep++] = pattern;
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case KEY_FORMAT: a->o.format = arg; return 0;
    case 'o': a->out = arg; return 0;
    case KEY_KEEP: keep(s, a, arg); return 0;
    case KEY_ALL: a->o.all = true; return 0;
    case KEY_SEARCH: a->o.search = true; return 0;
    case KEY_CALIB: a->o.calib = arg; return 0;
    case KEY_KV:
        if (strcmp(arg, "fp8") != 0)
            argp_error(s, "--kv: \"%s\" is not fp8", arg);
        a->o.kv_fp8 = true;
        return 0;
    case KEY_MAX_SHARD: a->o.max_shard_bytes = ns_cli_bytes(s, "--max-shard", arg); return 0;
    case KEY_NEST: a->nest = arg; return 0;
    case KEY_THREADS: a->o.threads = (int)ns_cli_int(s, "--threads", arg, 1, 4096); return 0;
    case KEY_PROGRESS: a->progress = true; return 0;
    case KEY_JSON: a->json = true; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->path, arg); return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->path, "CKPT");
        ns_cli_required(s, a->o.format, "--format");
        ns_cli_required(s, a->out, "-o DIR");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static int report(const args *a, const ns_quantize_report *r, ns_err *e)
{
    const double error = r->sum_squares > 0 ? sqrt(r->sum_error / r->sum_squares) : 0;
    if (a->json) {
        json_t *o = json_pack("{s:s, s:I, s:I, s:f, s:I, s:I}", "format", a->o.format, "tensors", (json_int_t)r->n_tensors, "weights",
                              (json_int_t)r->n_weights, "relative_error", error, "bytes_in", (json_int_t)r->bytes_in, "bytes_out",
                              (json_int_t)r->bytes_out);
        int rc = ns_cli_json(o, true, e);
        json_decref(o);
        return rc;
    }
    printf("%s: %lld matrices, %lld weights, relative error %.4f (root of squared error over squared weights)\n"
           "%.3f GB of %.3f GB\n", a->out, (long long)r->n_tensors, (long long)r->n_weights, error, (double)r->bytes_out / 1e9,
           (double)r->bytes_in / 1e9);
    return 0;
}

static int quantize(args *a, ns_err *e)
{
    ns_quantize_report r;
    ns_ckpt *c = ns_ckpt_open(a->path, &(ns_ckpt_opts){ .nest_path = a->nest }, e);
    int rc = c ? 0 : -1;
    if (rc == 0) {
        ns_cli_progress p = ns_cli_progress_start("quantize", a->progress);
        a->o.keep = a->keep;
        a->o.progress = ns_cli_progress_update;
        a->o.ctx = &p;
        rc = ns_quantize(c, &a->o, a->out, &r, e);
        ns_cli_progress_end(&p);
    }
    ns_ckpt_close(c);
    return rc ? rc : report(a, &r, e);
}

int ns_cmd_quantize(int argc, char **argv)
{
    args a = { 0 };
    ns_err e = { 0 };
    ns_cli_parse(&(struct argp){ options, parse, "CKPT", doc, NULL, NULL, NULL }, argc, argv, &a);
    return ns_cli_exit(argv[0], quantize(&a, &e), &e);
}
