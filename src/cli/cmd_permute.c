/* nestar permute: a thin face on forge/permute. */
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/common.h"
#include "forge/permute.h"

typedef struct args {
    const char *path, *stats, *out;
    bool random, progress;
    uint64_t seed;
    unsigned axes;
    ns_orders_metric metric;
    size_t max_shard;
} args;

enum { KEY_STATS = NS_CLI_KEY_COMMAND, KEY_RANDOM, KEY_AXES, KEY_EXPERT, KEY_FFN, KEY_MAX_SHARD, KEY_PROGRESS };

static const struct argp_option options[] = {
    { "stats", KEY_STATS, "FILE", 0, "What `nestar importance` measured", 0 },
    { "random", KEY_RANDOM, "SEED", 0, "Random orders instead, for comparison", 0 },
    { "output", 'o', "DIR", 0, "The folder to make; it must not exist", 0 },
    { "axes", KEY_AXES, "AXIS,..", 0, "Reorder these axes only (default: all)", 0 },
    { "expert-metric", KEY_EXPERT, "reap|frequency", 0, "Rank experts by REAP (default), or by how often they are picked", 0 },
    { "ffn-metric", KEY_FFN, "input|active", 0, "Rank FFN neurons by what enters ReLU^2 (default), or by what leaves it", 0 },
    { "max-shard", KEY_MAX_SHARD, "BYTES", 0, "Largest file, as in 2GB (default 5GB)", 0 },
    { "progress", KEY_PROGRESS, NULL, 0, "Show progress even when stderr is no terminal", 0 },
    { 0 }
};

static const char doc[] =
    "Makes rank order storage order: the most important entries of every axis come first, so that smaller models are prefixes. The result "
    "computes what the original computes. Weights are moved in their stored form; the folder appears complete or not at all. The axes are "
    "hidden, expert_ffn, experts, shared_ffn, dense_ffn, mamba_heads, mamba_head_dim, ssm_state and attn_heads.\v"
    "Examples:\n"
    "  nestar permute nano/ --stats stats.safetensors -o nano-ranked\n"
    "  nestar permute nano/ --stats stats.safetensors --axes hidden,expert_ffn -o nano-ranked\n"
    "  nestar permute nano/ --random 1 -o nano-shuffled";

static unsigned parse_axes(struct argp_state *s, const char *text)
{
    unsigned axes = 0;
    char name[40];
    for (const char *p = text;; p++) {
        size_t n = strcspn(p, ",");
        snprintf(name, sizeof name, "%.*s", n < sizeof name ? (int)n : 0, p);
        int x = ns_axis_find(name);
        if (x < 0)
            argp_error(s, "--axes: there is no axis \"%.*s\"", (int)(n < 100 ? n : 100), p);
        axes |= 1u << x;
        p += n;
        if (!*p)
            return axes;
    }
}

/* The second of two words? Anything else is a usage error. */
static bool either(struct argp_state *s, const char *option, const char *arg, const char *first, const char *second)
{
    if (strcmp(arg, first) != 0 && strcmp(arg, second) != 0)
        argp_error(s, "%s: \"%s\" is neither %s nor %s", option, arg, first, second);
    return strcmp(arg, second) == 0;
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case KEY_STATS: a->stats = arg; return 0;
    case KEY_RANDOM:
        a->random = true;
        a->seed = ns_cli_u64(s, "--random", arg);
        return 0;
    case 'o': a->out = arg; return 0;
    case KEY_AXES: a->axes = parse_axes(s, arg); return 0;
    case KEY_EXPERT: a->metric.expert_frequency = either(s, "--expert-metric", arg, "reap", "frequency"); return 0;
    case KEY_FFN: a->metric.ffn_active = either(s, "--ffn-metric", arg, "input", "active"); return 0;
    case KEY_MAX_SHARD: a->max_shard = ns_cli_bytes(s, "--max-shard", arg); return 0;
    case KEY_PROGRESS: a->progress = true; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->path, arg); return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->path, "CKPT");
        ns_cli_required(s, a->out, "-o DIR");
        if (!a->stats == !a->random)
            argp_error(s, "one of --stats FILE and --random SEED is needed");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* An axis that was asked for by name must be there; "all" means those that are. */
static int check_axes(const args *a, const ns_arch *arch, ns_err *e)
{
    for (int x = 0; a->axes != NS_ORDERS_ALL && x < NS_AXIS_COUNT; x++) {
        bool found = false;
        for (int i = 0; i < arch->n_layers; i++)
            found = found || arch->layers[i].width[x] > 0;
        if ((a->axes >> x & 1) && !found)
            return ns_fail(e, NS_EINVAL, "%s: no layer has %s", a->path, ns_axis_name((ns_axis)x));
    }
    return 0;
}

static int find_orders(const args *a, ns_orders *o, ns_err *e)
{
    if (a->random)
        return ns_orders_random(o, a->axes, a->seed, e);
    ns_store *stats = ns_store_open(a->stats, NS_LOAD_MMAP, e);
    int rc = stats ? ns_orders_rank(o, a->axes, stats, &a->metric, e) : -1;
    ns_store_close(stats);
    return rc;
}

static int permute(const args *a, ns_err *e)
{
    ns_orders orders = { 0 };
    ns_ckpt *c = ns_ckpt_open(a->path, NULL, e);
    int rc = c ? check_axes(a, c->arch, e) : -1;
    if (rc == 0)
        rc = ns_orders_init(&orders, c->arch, e);
    if (rc == 0)
        rc = find_orders(a, &orders, e);
    if (rc == 0) {
        ns_cli_progress p = ns_cli_progress_start("permute", a->progress);
        rc = ns_permute(c, &orders, a->out, &(ns_permute_opts){ a->max_shard, ns_cli_progress_update, &p }, e);
        ns_cli_progress_end(&p);
    }
    ns_orders_release(&orders);
    ns_ckpt_close(c);
    return rc;
}

int ns_cmd_permute(int argc, char **argv)
{
    args a = { .axes = NS_ORDERS_ALL };
    ns_err e = { 0 };
    ns_cli_parse(&(struct argp){ options, parse, "CKPT", doc, NULL, NULL, NULL }, argc, argv, &a);
    return ns_cli_exit(argv[0], permute(&a, &e), &e);
}
