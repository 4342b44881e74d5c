/* nestar slice: a thin face on forge/slice. */
#include <stdlib.h>

#include "cli/cmd.h"
#include "cli/common.h"
#include "forge/slice.h"

typedef struct args {
    const char *path, *nest, *size, *out;
    size_t max_shard;
    bool progress;
} args;

enum { KEY_SIZE = NS_CLI_KEY_COMMAND, KEY_NEST, KEY_MAX_SHARD, KEY_PROGRESS };

static const struct argp_option options[] = {
    { "size", KEY_SIZE, "SIZE", 0, "The size to write: a name, a budget such as 0.58, or axis=width pairs", 0 },
    { "output", 'o', "DIR", 0, "The folder to make; it must not exist", 0 },
    { "max-shard", KEY_MAX_SHARD, "BYTES", 0, "Largest file, as in 2GB (default 5GB)", 0 },
    { "nest", KEY_NEST, "FILE", 0, "Named sizes from FILE instead of CKPT/nest.json", 0 },
    { "progress", KEY_PROGRESS, NULL, 0, "Show progress even when stderr is no terminal", 0 },
    { 0 }
};

static const char doc[] =
    "Writes one size of a nested checkpoint as an ordinary Hugging Face checkpoint of its own. Weights are copied in their stored form, "
    "nothing is decoded or rounded. The folder appears complete or not at all.\v"
    "Examples:\n"
    "  nestar slice nano/ --size 12B -o nano-12B\n"
    "  nestar slice nano/ --size hidden=1920,expert_ffn=960 -o small --max-shard 2GB";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case KEY_SIZE: a->size = arg; return 0;
    case 'o': a->out = arg; return 0;
    case KEY_MAX_SHARD: a->max_shard = ns_cli_bytes(s, "--max-shard", arg); return 0;
    case KEY_NEST: a->nest = arg; return 0;
    case KEY_PROGRESS: a->progress = true; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->path, arg); return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->path, "CKPT");
        ns_cli_required(s, a->size, "--size");
        ns_cli_required(s, a->out, "-o DIR");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static int slice(const args *a, ns_err *e)
{
    ns_cut cut = { 0 };
    char name[64];
    ns_ckpt *c = ns_ckpt_open(a->path, &(ns_ckpt_opts){ .nest_path = a->nest }, e);
    int rc = c ? ns_ckpt_size(c, a->size, &cut, name, sizeof name, e) : -1;
    if (rc == 0) {
        ns_cli_progress p = ns_cli_progress_start("slice", a->progress);
        ns_slice_opts o = ns_slice_defaults();
        if (a->max_shard)
            o.max_shard_bytes = a->max_shard;
        o.name = name;
        o.progress = ns_cli_progress_update;
        o.ctx = &p;
        rc = ns_slice(c, &cut, a->out, &o, e);
        ns_cli_progress_end(&p);
        ns_cut_release(&cut);
    }
    ns_ckpt_close(c);
    return rc;
}

int ns_cmd_slice(int argc, char **argv)
{
    args a = { 0 };
    ns_err e = { 0 };
    ns_cli_parse(&(struct argp){ options, parse, "CKPT", doc, NULL, NULL, NULL }, argc, argv, &a);
    return ns_cli_exit(argv[0], slice(&a, &e), &e);
}
