/* nestar import: a thin face on forge/import_gguf. */
#include <stdlib.h>

#include "cli/cmd.h"
#include "cli/common.h"
#include "forge/import_gguf.h"

typedef struct args {
    const char *path, *out;
    ns_import_opts o;
    bool progress;
} args;

enum { KEY_MAX_SHARD = NS_CLI_KEY_COMMAND, KEY_PROGRESS };

static const struct argp_option options[] = {
    { "output", 'o', "DIR", 0, "The folder to make; it must not exist", 0 },
    { "max-shard", KEY_MAX_SHARD, "BYTES", 0, "Largest file, as in 2GB (default 5GB)", 0 },
    { "progress", KEY_PROGRESS, NULL, 0, "Show progress even when stderr is no terminal", 0 },
    { 0 }
};

static const char doc[] =
    "Makes a Hugging Face folder of a GGUF file of the architectures nemotron_h and nemotron_h_moe (F32, F16, BF16, Q8_0, NVFP4). NVFP4 "
    "matrices keep their bits; Q8_0 becomes BF16. The folder appears complete or not at all.\v"
    "Examples:\n"
    "  nestar import nano-12B.gguf -o nano-12B";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case 'o': a->out = arg; return 0;
    case KEY_MAX_SHARD: a->o.max_shard_bytes = ns_cli_bytes(s, "--max-shard", arg); return 0;
    case KEY_PROGRESS: a->progress = true; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->path, arg); return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->path, "FILE.gguf");
        ns_cli_required(s, a->out, "-o DIR");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

int ns_cmd_import(int argc, char **argv)
{
    args a = { 0 };
    ns_err e = { 0 };
    ns_cli_parse(&(struct argp){ options, parse, "FILE.gguf", doc, NULL, NULL, NULL }, argc, argv, &a);
    ns_cli_progress p = ns_cli_progress_start("import", a.progress);
    a.o.progress = ns_cli_progress_update;
    a.o.ctx = &p;
    int rc = ns_import_gguf(a.path, &a.o, a.out, &e);
    ns_cli_progress_end(&p);
    return ns_cli_exit(argv[0], rc, &e);
}
