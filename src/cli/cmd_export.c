/* nestar export: a thin face on forge/export_gguf and, for Hugging Face folders, forge/slice. */
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/common.h"
#include "forge/export_gguf.h"
#include "forge/slice.h"

typedef struct args {
    const char *path, *nest, *size, *out, *to;
    ns_gguf_opts o;
    ns_slice_opts hf;
    bool progress;
} args;

enum { KEY_SIZE = NS_CLI_KEY_COMMAND, KEY_TO, KEY_DTYPE, KEY_MAX_SHARD, KEY_TYPE, KEY_NAME, KEY_PRE, KEY_NEST, KEY_PROGRESS };

static const struct argp_option options[] = {
    { "to", KEY_TO, "FORMAT", 0, "gguf: one file for llama.cpp; hf: a folder for transformers and vLLM", 0 },
    { "size", KEY_SIZE, "SIZE", 0, "The size to write (default full): a name, a budget such as 0.58, or axis=width pairs", 0 },
    { "output", 'o', "PATH", 0, "The file or folder to make", 0 },
    { "dtype", KEY_DTYPE, "TYPE", 0, "hf: all weights as f32, bf16 or f16, FP8 and NVFP4 decoded (default: as stored)", 0 },
    { "max-shard", KEY_MAX_SHARD, "BYTES", 0, "hf: largest file, as in 2GB (default 5GB)", 0 },
    { "type", KEY_TYPE, "TYPE", 0, "gguf: of the matrices: auto (as stored; NVFP4 without loss, FP8 as BF16), f32, f16, bf16, q8_0", 0 },
    { "name", KEY_NAME, "NAME", 0, "gguf: general.name (default: the folder's)", 0 },
    { "pre", KEY_PRE, "NAME", 0, "gguf: llama.cpp's name for the way text is split into words, where it cannot be found out", 0 },
    { "nest", KEY_NEST, "FILE", 0, "Named sizes from FILE instead of CKPT/nest.json", 0 },
    { "progress", KEY_PROGRESS, NULL, 0, "Show progress even when stderr is no terminal", 0 },
    { 0 }
};

static const char doc[] =
    "Writes one size of a checkpoint for another engine: a GGUF file with tokenizer and chat template inside, or a Hugging Face folder. It "
    "appears when it is complete. Without --dtype the folder has the bytes of `nestar slice`; of the whole model it keeps nest.json.\v"
    "Examples:\n"
    "  nestar export nano/ --size 12B --to hf --dtype bf16 -o nano-12B\n"
    "  nestar export nano/ --to gguf -o nano.gguf\n"
    "  nestar export nano/ --size 12B --to gguf --type q8_0 -o nano-12B-q8.gguf";

static bool to_hf(const args *a)
{
    return strcmp(a->to, "hf") == 0;
}

static void check(const args *a, struct argp_state *s)
{
    ns_cli_required(s, a->path, "CKPT");
    ns_cli_required(s, a->to, "--to");
    ns_cli_required(s, a->out, "-o PATH");
    if (to_hf(a) && (a->o.type || a->o.name || a->o.pre))
        argp_error(s, "%s is for --to gguf", a->o.type ? "--type" : a->o.name ? "--name" : "--pre");
    if (!to_hf(a) && (a->hf.dtype || a->hf.max_shard_bytes))
        argp_error(s, "%s is for --to hf", a->hf.dtype ? "--dtype" : "--max-shard");
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case KEY_TO:
        if (strcmp(arg, "gguf") != 0 && strcmp(arg, "hf") != 0)
            argp_error(s, "--to: \"%s\" is neither gguf nor hf", arg);
        a->to = arg;
        return 0;
    case KEY_DTYPE: a->hf.dtype = arg; return 0;
    case KEY_MAX_SHARD: a->hf.max_shard_bytes = ns_cli_bytes(s, "--max-shard", arg); return 0;
    case KEY_SIZE: a->size = arg; return 0;
    case 'o': a->out = arg; return 0;
    case KEY_TYPE: a->o.type = arg; return 0;
    case KEY_NAME: a->o.name = arg; return 0;
    case KEY_PRE: a->o.pre = arg; return 0;
    case KEY_NEST: a->nest = arg; return 0;
    case KEY_PROGRESS: a->progress = true; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->path, arg); return 0;
    case ARGP_KEY_END: check(a, s); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static int write_size(args *a, const ns_ckpt *c, const ns_cut *cut, const char *name, ns_err *e)
{
    ns_cli_progress p = ns_cli_progress_start("export", a->progress);
    a->o.progress = a->hf.progress = ns_cli_progress_update;
    a->o.ctx = a->hf.ctx = &p;
    a->hf.name = name;
    a->hf.keep_nest = true;
    int rc = to_hf(a) ? ns_slice(c, cut, a->out, &a->hf, e) : ns_export_gguf(c, cut, &a->o, a->out, e);
    ns_cli_progress_end(&p);
    return rc;
}

static int export(args *a, ns_err *e)
{
    ns_cut cut = { 0 };
    char name[64];
    ns_ckpt *c = ns_ckpt_open(a->path, &(ns_ckpt_opts){ .nest_path = a->nest }, e);
    int rc = c ? ns_ckpt_size(c, a->size ? a->size : "full", &cut, name, sizeof name, e) : -1;
    if (rc == 0) {
        rc = write_size(a, c, &cut, name, e);
        ns_cut_release(&cut);
    }
    ns_ckpt_close(c);
    return rc;
}

int ns_cmd_export(int argc, char **argv)
{
    args a = { 0 };
    ns_err e = { 0 };
    ns_cli_parse(&(struct argp){ options, parse, "CKPT", doc, NULL, NULL, NULL }, argc, argv, &a);
    return ns_cli_exit(argv[0], export(&a, &e), &e);
}
