/* nestar synth: a thin face on forge/synth. */
#include <stdlib.h>

#include "cli/cmd.h"
#include "cli/common.h"
#include "forge/synth.h"

typedef struct args {
    const char *config, *out;
    ns_synth_opts o;
    bool progress;
} args;

enum { KEY_SEED = NS_CLI_KEY_COMMAND, KEY_DTYPE, KEY_SIZE, KEY_TEXT, KEY_QUANT, KEY_NEST, KEY_MAX_SHARD, KEY_PROGRESS };

static const struct argp_option options[] = {
    { "output", 'o', "DIR", 0, "The folder to make; it must not exist", 0 },
    { "seed", KEY_SEED, "N", 0, "Same seed, same bytes (default 0)", 0 },
    { "dtype", KEY_DTYPE, "D", 0, "config (default: as the config and its quantisation config say), f32, f16, bf16, fp8, nvfp4 (with the "
      "published exclusions), fp8-all, nvfp4-all (every linear layer)", 0 },
    { "size", KEY_SIZE, "SIZE", 0, "Make only this size of the config", 0 },
    { "text-dir", KEY_TEXT, "DIR", 0, "Copy tokenizer and chat template from DIR", 0 },
    { "quant", KEY_QUANT, "FILE", 0, "The quantisation config (default: hf_quant_config.json beside the config)", 0 },
    { "nest", KEY_NEST, "FILE", 0, "What --size may name; without --size it becomes DIR/nest.json", 0 },
    { "max-shard", KEY_MAX_SHARD, "BYTES", 0, "Largest file, as in 2GB (default 5GB)", 0 },
    { "progress", KEY_PROGRESS, NULL, 0, "Show progress even when stderr is no terminal", 0 },
    { 0 }
};

static const char doc[] =
    "Makes a checkpoint of seeded random weights for a config.json, for tests and measurements: it has the shapes, formats and speed of "
    "the real one, and says noise.\v"
    "Examples:\n"
    "  nestar synth nano/config.json -o fake --dtype nvfp4 --text-dir nano/\n"
    "  nestar synth config.json -o tiny --dtype f32 --seed 7 --nest nest.json\n"
    "  nestar synth config.json -o small --size hidden=1920,expert_ffn=960";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case 'o': a->out = arg; return 0;
    case KEY_SEED: a->o.seed = ns_cli_u64(s, "--seed", arg); return 0;
    case KEY_DTYPE: a->o.dtype = arg; return 0;
    case KEY_SIZE: a->o.size = arg; return 0;
    case KEY_TEXT: a->o.text_dir = arg; return 0;
    case KEY_QUANT: a->o.hf_quant_path = arg; return 0;
    case KEY_NEST: a->o.nest_path = arg; return 0;
    case KEY_MAX_SHARD: a->o.max_shard_bytes = ns_cli_bytes(s, "--max-shard", arg); return 0;
    case KEY_PROGRESS: a->progress = true; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->config, arg); return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->config, "CONFIG");
        ns_cli_required(s, a->out, "-o DIR");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

int ns_cmd_synth(int argc, char **argv)
{
    args a = { .o = ns_synth_defaults() };
    ns_err e = { 0 };
    ns_cli_parse(&(struct argp){ options, parse, "CONFIG", doc, NULL, NULL, NULL }, argc, argv, &a);
    ns_cli_progress p = ns_cli_progress_start("synth", a.progress);
    a.o.progress = ns_cli_progress_update;
    a.o.ctx = &p;
    int rc = ns_synth(a.config, &a.o, a.out, &e);
    ns_cli_progress_end(&p);
    return ns_cli_exit(argv[0], rc, &e);
}
