/* nestar bench: a thin face on bench/. */
#include <stdlib.h>
#include <string.h>

#include "bench/bench.h"
#include "cli/cmd.h"
#include "cli/common.h"

enum { MAX_SIZES = 32 };

typedef struct args {
    const char *path;
    const char *size[MAX_SIZES];
    ns_bench_opts o;
    ns_cli_engine engine;
    bool ops, json;
} args;

enum { KEY_JSON = NS_CLI_KEY_COMMAND, KEY_OPS, KEY_DEPTH, KEY_SEQUENCES, KEY_SWITCH, KEY_MIX };

static const struct argp_option options[] = {
    { "size", 's', "S", 0, "A size to measure (repeat for more; default: every named size)", 0 },
    { "prompt", 'p', "N", 0, "Tokens of prefill, 0 for none (default 512)", 0 },
    { "gen", 'n', "N", 0, "Decode steps, 0 for none (default 32); the median step counts", 0 },
    { "depth", KEY_DEPTH, "N", 0, "Tokens in the cache before decoding (default 32)", 0 },
    { "sequences", KEY_SEQUENCES, "N", 0, "Sequences decoded together (default 1)", 0 },
    { "repeat", 'r', "N", 0, "Runs of prefill; the median counts (default 3)", 0 },
    { "switch", KEY_SWITCH, NULL, 0, "Also time live changes between the first two sizes", 0 },
    { "mix", KEY_MIX, NULL, 0, "Also decode all sizes in one step, beside size by size", 0 },
    { "ops", KEY_OPS, NULL, 0, "The kernels one by one; needs no checkpoint", 0 },
    { "json", KEY_JSON, NULL, 0, "The report as JSON", 0 },
    { 0 }
};

static const char doc[] =
    "Prefill and decode speed at several sizes, beside the machine's limits measured in the same run: reads of expert-sized blocks of "
    "these very weights in random order, and F32 multiply-adds. Bytes per step count the weights read (the experts that were in fact "
    "picked), the recurrent state twice, and the key-value cache.\v"
    "Examples:\n"
    "  nestar bench nano/\n"
    "  nestar bench nano/ -s full -s 12B -p 512 -n 64 --switch\n"
    "  nestar bench nano/ -s full --sequences 8 -p 0 --json\n"
    "  NS_CPU=avx2 nestar bench --ops";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case 's':
        if (a->o.n_sizes == MAX_SIZES)
            argp_error(s, "--size: at most %d", MAX_SIZES);
        a->size[a->o.n_sizes++] = arg;
        return 0;
    case 'p': a->o.prompt = (int)ns_cli_int(s, "--prompt", arg, 0, 1 << 20); return 0;
    case 'n': a->o.gen = (int)ns_cli_int(s, "--gen", arg, 0, 1 << 20); return 0;
    case 'r': a->o.repeats = (int)ns_cli_int(s, "--repeat", arg, 1, 64); return 0;
    case KEY_DEPTH: a->o.depth = (int)ns_cli_int(s, "--depth", arg, 0, 1 << 20); return 0;
    case KEY_SEQUENCES: a->o.sequences = (int)ns_cli_int(s, "--sequences", arg, 1, NS_STEP_TOKENS); return 0;
    case KEY_SWITCH: a->o.switches = true; return 0;
    case KEY_MIX: a->o.mix = true; return 0;
    case KEY_OPS: a->ops = true; return 0;
    case KEY_JSON: a->json = true; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->path, arg); return 0;
    case ARGP_KEY_INIT: s->child_inputs[0] = &a->engine; return 0;
    case ARGP_KEY_END:
        if (!a->ops)
            ns_cli_required(s, a->path, "CKPT");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void show(void *ctx, const char *what)
{
    (void)ctx;
    fprintf(stderr, "measuring %s\n", what);
}

static json_t *measure(args *a, ns_err *e)
{
    const ns_ops *ops;
    json_t *report = NULL;
    if (a->ops) {
        ns_pool *pool = ns_ops_select(a->engine.act_bits, &ops, e) == 0 ? ns_pool_new(a->engine.threads, e) : NULL;
        report = pool ? ns_bench_ops(pool, ops, e) : NULL;
        ns_pool_free(pool);
        return report;
    }
    ns_engine *en = ns_cli_engine_open(a->path, &a->engine, true, e);
    a->o.sizes = a->size;
    if (!a->json)
        a->o.progress = show;
    report = en ? ns_bench_run(en, &a->o, e) : NULL;
    ns_engine_close(en);
    return report;
}

int ns_cmd_bench(int argc, char **argv)
{
    static const struct argp_child children[] = { { &ns_cli_engine_argp, 0, NULL, 0 }, { 0 } };
    args a = { .o = ns_bench_defaults() };
    ns_err e = { 0 };
    ns_cli_parse(&(struct argp){ options, parse, "CKPT", doc, children, NULL, NULL }, argc, argv, &a);
    json_t *report = measure(&a, &e);
    int rc = report ? 0 : -1;
    if (report && a.json)
        rc = ns_cli_json(report, true, &e);
    else if (report)
        ns_bench_print(report, stdout);
    json_decref(report);
    return ns_cli_exit(argv[0], rc, &e);
}
