/* nestar importance: a thin face on train/importance. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "ckpt/ckpt.h"
#include "cli/cmd.h"
#include "cli/common.h"
#include "train/folder_io.h"
#include "train/importance.h"

typedef struct args {
    const char *path, *out;
    const char **data;
    int n_data;
    uint64_t seed;
    bool progress;
    ns_importance_opts o;
} args;

enum { KEY_DATA = NS_CLI_KEY_COMMAND, KEY_TOKENS, KEY_SEQ, KEY_SEED, KEY_DEPTH, KEY_DEPTH_TOKENS, KEY_THREADS, KEY_PROGRESS };

static const struct argp_option options[] = {
    { "data", KEY_DATA, "FILE", 0, "JSONL or *.txt to run the model on; again for more", 0 },
    { "output", 'o', "FILE", 0, "The statistics file to write (safetensors)", 0 },
    { "tokens", KEY_TOKENS, "N", 0, "Tokens to run (default 2097152); 0: all of the data, once", 0 },
    { "seq", KEY_SEQ, "N", 0, "Tokens of a batch, over which means are taken; longer documents are cut (default 2048)", 0 },
    { "seed", KEY_SEED, "N", 0, "Order of the documents (default 0)", 0 },
    { "depth", KEY_DEPTH, "N", 0, "Also rank the layers, by removing them one by one until N are left", 0 },
    { "depth-tokens", KEY_DEPTH_TOKENS, "N", 0, "Tokens on which layers are ranked (default 8192)", 0 },
    { "threads", KEY_THREADS, "N", 0, "Threads (default: NS_THREADS, else all cores this process may use)", 0 },
    { "progress", KEY_PROGRESS, NULL, 0, "Show progress even when stderr is no terminal", 0 },
    { 0 }
};

static const char doc[] =
    "Measures on real text how much each channel, neuron, head, state, expert and layer does, for `nestar permute`. The weights are held "
    "in memory in F32. Same data, options and weights, same file.\v"
    "Examples:\n"
    "  nestar importance nano/ --data mix.jsonl -o stats.safetensors\n"
    "  nestar importance nano/ --data a.jsonl:0.7 --data b.jsonl:0.3 --tokens 8000000 --seq 8192 -o stats.safetensors\n"
    "  nestar importance nano/ --data mix.jsonl --depth 40 -o stats.safetensors";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case KEY_DATA: a->data[a->n_data++] = arg; return 0;
    case 'o': a->out = arg; return 0;
    case KEY_TOKENS: a->o.tokens = ns_cli_int(s, "--tokens", arg, 0, INT64_MAX / 2); return 0;
    case KEY_SEQ: a->o.pack_tokens = (int)ns_cli_int(s, "--seq", arg, 1, 1 << 20); return 0;
    case KEY_SEED: a->seed = ns_cli_u64(s, "--seed", arg); return 0;
    case KEY_DEPTH: a->o.depth_keep = (int)ns_cli_int(s, "--depth", arg, 1, 1 << 20); return 0;
    case KEY_DEPTH_TOKENS: a->o.depth_tokens = ns_cli_int(s, "--depth-tokens", arg, 1, INT64_MAX / 2); return 0;
    case KEY_THREADS: a->o.threads = (int)ns_cli_int(s, "--threads", arg, 1, 1024); return 0;
    case KEY_PROGRESS: a->progress = true; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->path, arg); return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->path, "CKPT");
        ns_cli_required(s, a->n_data ? "" : NULL, "--data FILE");
        ns_cli_required(s, a->out, "-o FILE");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- Ctrl-C ---- */

static volatile int interrupted; /* a signal handler has no other way */

static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

static void catch_interrupts(void)
{
    struct sigaction sa = { .sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND };
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
}

/* ---- progress ---- */

typedef struct bars {
    ns_cli_progress pass, depth;
} bars;

static void on_pass(void *ctx, size_t done, size_t total)
{
    ns_cli_progress_update(&((bars *)ctx)->pass, done, total);
}

static void on_depth(void *ctx, size_t done, size_t total)
{
    bars *b = ctx;
    ns_cli_progress_end(&b->pass);
    ns_cli_progress_update(&b->depth, done, total);
}

/* ---- the work ---- */

static ns_data *open_data(const args *a, const ns_arch *arch, ns_err *e)
{
    ns_buf path = { 0 };
    ns_tokenizer *tok = NULL;
    ns_data *d = NULL;
    const ns_data_opts o = { .paths = a->data, .n_paths = a->n_data, .seed = a->seed, .vocab_size = arch->vocab_size,
                             .eos_id = arch->n_eos ? arch->eos_ids[0] : -1, .template_dir = a->path, .max_doc = a->o.pack_tokens };
    ns_path_join(&path, a->path, "tokenizer.json");
    if (path.failed)
        ns_fail(e, NS_ENOMEM, "%s: out of memory", a->path);
    else if (!ns_file_exists(path.data) || (tok = ns_tokenizer_open(path.data, e)))
        d = ns_data_open(&o, tok, e);
    ns_tokenizer_free(tok);
    ns_buf_release(&path);
    return d;
}

static int write_scores(const args *a, const ns_scores *s, ns_err *e)
{
    char tokens[24], seq[24], seed[24], depth[24];
    ns_buf data = { 0 };
    for (int i = 0; i < a->n_data; i++)
        ns_buf_addf(&data, "%s%s", i ? " " : "", a->data[i]);
    snprintf(tokens, sizeof tokens, "%lld", (long long)s->tokens);
    snprintf(seq, sizeof seq, "%d", a->o.pack_tokens);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)a->seed);
    snprintf(depth, sizeof depth, "%lld", (long long)s->depth_tokens);
    const ns_st_meta meta[] = { { "nestar.source", a->path }, { "nestar.data", data.failed ? "" : data.data }, { "nestar.tokens", tokens },
                                { "nestar.seq", seq }, { "nestar.seed", seed }, { "nestar.depth_tokens", depth } };
    int rc = data.failed ? ns_fail(e, NS_ENOMEM, "%s: out of memory", a->out)
                         : ns_scores_write(s, meta, sizeof meta / sizeof *meta, a->out, e);
    ns_buf_release(&data);
    return rc;
}

/* Where the result is to go, before hours are spent on it. */
static int check_output(const args *a, ns_err *e)
{
    ns_outfile f = { 0 };
    int rc = ns_outfile_open(&f, a->out, e);
    ns_outfile_release(&f);
    return rc;
}

static int measure(args *a, const ns_ckpt *c, ns_data *data, ns_err *e)
{
    ns_params p = { 0 };
    ns_scores s = { 0 };
    bars b = { ns_cli_progress_start("importance", a->progress), ns_cli_progress_start("depth", a->progress) };
    b.pass.unit = b.depth.unit = "tokens";
    a->o.progress = on_pass;
    a->o.depth_progress = on_depth;
    a->o.ctx = &b;
    a->o.interrupted = &interrupted;
    int rc = ns_params_plan(c->arch, &p, e);
    ns_real *w = rc == 0 ? ns_alloc_aligned(p.count * sizeof *w) : NULL;
    if (rc == 0 && !w)
        rc = ns_fail(e, NS_ENOMEM, "%s: %zu MB for the weights in F32: out of memory", a->path, p.count * sizeof *w >> 20);
    if (rc == 0)
        rc = ns_params_load(&p, c, w, e);
    if (rc == 0)
        rc = ns_importance(&p, w, data, &a->o, &s, e);
    ns_cli_progress_end(&b.pass);
    ns_cli_progress_end(&b.depth);
    if (rc == 0)
        rc = write_scores(a, &s, e);
    ns_scores_release(&s);
    ns_params_release(&p);
    free(w);
    return rc;
}

static int importance(args *a, ns_err *e)
{
    ns_data *data = NULL;
    ns_ckpt *c = ns_ckpt_open(a->path, NULL, e);
    int rc = c ? check_output(a, e) : -1;
    if (rc == 0 && a->o.depth_keep > c->arch->n_layers)
        rc = ns_fail(e, NS_EINVAL, "--depth: %s has %d layers, %d cannot be left", a->path, c->arch->n_layers, a->o.depth_keep);
    if (rc == 0)
        rc = (data = open_data(a, c->arch, e)) ? measure(a, c, data, e) : -1;
    ns_data_free(data);
    ns_ckpt_close(c);
    return rc;
}

int ns_cmd_importance(int argc, char **argv)
{
    args a = { .o = ns_importance_defaults(), .data = calloc((size_t)argc, sizeof *a.data) };
    ns_err e = { 0 };
    int rc = a.data ? 0 : ns_fail(&e, NS_ENOMEM, "out of memory");
    if (rc == 0) {
        ns_cli_parse(&(struct argp){ options, parse, "CKPT", doc, NULL, NULL, NULL }, argc, argv, &a);
        catch_interrupts();
        rc = importance(&a, &e);
    }
    free(a.data);
    int status = ns_cli_exit(argv[0], rc, &e);
    return e.code == NS_ECANCELLED ? 130 : status;
}
