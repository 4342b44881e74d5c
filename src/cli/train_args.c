#include "cli/train_args.h"

#include <limits.h>
#include <math.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"

enum {
    KEY_DATA = NS_CLI_KEY_TRAIN, KEY_STEPS, KEY_SEQ, KEY_BATCH, KEY_ACCUM, KEY_LR, KEY_LR_MIN, KEY_WARMUP, KEY_DECAY, KEY_BETA2, KEY_CLIP,
    KEY_OPTIMIZER, KEY_BALANCE, KEY_RECOMPUTE, KEY_WORKERS, KEY_SEED, KEY_EVAL_DOCS, KEY_EVAL_EVERY, KEY_SAVE_EVERY, KEY_SPIKE, KEY_DTYPE,
    KEY_RESUME, KEY_JSON
};

static const struct argp_option options[] = {
    { "data", KEY_DATA, "FILE[:W]", 0, "JSONL with \"text\", \"prompt\" and \"completion\", \"messages\" or \"ids\"; or .txt. May be given "
      "several times; W: the share of tokens drawn from it", 50 },
    { "steps", KEY_STEPS, "N", 0, "Steps (default: once through the data)", 51 },
    { "seq", KEY_SEQ, "N", 0, "Tokens of a pack, and of the longest document (default 2048)", 51 },
    { "batch", KEY_BATCH, "N", 0, "Packs of a micro-batch on each rank (default 8)", 51 },
    { "accum", KEY_ACCUM, "N", 0, "Micro-batches of a step (default 1)", 51 },
    { "lr", KEY_LR, "X", 0, "Learning rate (default 1e-4; from scratch 1e-3)", 52 },
    { "lr-min", KEY_LR_MIN, "X", 0, "Where its cosine ends (default: a tenth of --lr)", 52 },
    { "warmup", KEY_WARMUP, "N", 0, "Steps of its rise (default: 2 % of the steps)", 52 },
    { "weight-decay", KEY_DECAY, "X", 0, "Of matrices (default 0)", 52 },
    { "beta2", KEY_BETA2, "X", 0, "AdamW's second decay (default 0.98)", 52 },
    { "clip", KEY_CLIP, "X", 0, "Largest norm of the gradients (default 1; 0: none)", 52 },
    { "optimizer", KEY_OPTIMIZER, "NAME", 0, "adamw (default), or muon for the layers' matrices", 52 },
    { "balance", KEY_BALANCE, "X", 0, "Step of the experts' correction biases towards even loads (default 0: off)", 52 },
    { "recompute", KEY_RECOMPUTE, "none|layer", 0, "Keep all activations (default), or only the layers' inputs", 53 },
    { "workers", KEY_WORKERS, "N", 0, "Threads (default: NS_THREADS, else all cores this process may use)", 53 },
    { "seed", KEY_SEED, "N", 0, "Of everything that is random (default 0)", 53 },
    { "eval-docs", KEY_EVAL_DOCS, "N", 0, "Documents held out of training, to evaluate on (default 0)", 54 },
    { "eval-every", KEY_EVAL_EVERY, "N", 0, "Steps from one evaluation of the whole model to the next (default 100)", 54 },
    { "save-every", KEY_SAVE_EVERY, "N", 0, "Steps from one saved state to the next (default 500; 0: only at the end and on "
      "interruption)", 54 },
    { "spike", KEY_SPIKE, "X", 0, "Stop when the loss is over X times its running mean (default 0: only when it is not finite)", 54 },
    { "dtype", KEY_DTYPE, "f32|bf16", 0, "Of the checkpoint (default f32)", 54 },
    { "resume", KEY_RESUME, NULL, 0, "Go on with the run, or begin one", 54 },
    { "json", KEY_JSON, NULL, 0, "The log's lines on standard output as well", 54 },
    { 0 }
};

ns_cli_train ns_cli_train_defaults(const ns_train_opts *o)
{
    ns_cli_train a = { .dtype = NS_F32, .o = *o };
    a.o.eval_every = 100;
    a.o.save_every = 500;
    return a;
}

/* Which of two words? */
static bool is_second(struct argp_state *s, const char *option, const char *arg, const char *first, const char *second)
{
    if (strcmp(arg, first) != 0 && strcmp(arg, second) != 0)
        argp_error(s, "%s: \"%s\" is neither %s nor %s", option, arg, first, second);
    return strcmp(arg, second) == 0;
}

static error_t parse_optimisation(int key, char *arg, struct argp_state *s)
{
    ns_cli_train *a = s->input;
    ns_train_opts *o = &a->o;
    switch (key) {
    case KEY_LR: o->schedule.lr = ns_cli_real(s, "--lr", arg, 0, INFINITY); return 0;
    case KEY_LR_MIN: o->schedule.lr_min = ns_cli_real(s, "--lr-min", arg, 0, INFINITY); return 0;
    case KEY_WARMUP: o->schedule.warmup = ns_cli_int(s, "--warmup", arg, 0, INT64_MAX / 2); return 0;
    case KEY_DECAY: o->adamw.weight_decay = ns_cli_real(s, "--weight-decay", arg, 0, INFINITY); return 0;
    case KEY_BETA2: o->adamw.beta2 = ns_cli_real(s, "--beta2", arg, 0, 0.999999); return 0;
    case KEY_CLIP: o->clip = ns_cli_real(s, "--clip", arg, 0, INFINITY); return 0;
    case KEY_OPTIMIZER: o->optimizer = is_second(s, "--optimizer", arg, "adamw", "muon") ? "muon" : "adamw"; return 0;
    case KEY_BALANCE: o->balance_rate = ns_cli_real(s, "--balance", arg, 0, INFINITY); return 0;
    case KEY_SPIKE: o->spike = ns_cli_real(s, "--spike", arg, 0, INFINITY); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    ns_cli_train *a = s->input;
    ns_train_opts *o = &a->o;
    switch (key) {
    case KEY_DATA:
        if (a->n_data == NS_CLI_MAX_DATA)
            argp_error(s, "--data: more than %d", NS_CLI_MAX_DATA);
        a->data[a->n_data++] = arg;
        return 0;
    case KEY_STEPS: o->steps = ns_cli_int(s, "--steps", arg, 1, INT64_MAX / 2); return 0;
    case KEY_SEQ: o->seq_tokens = (int)ns_cli_int(s, "--seq", arg, 2, 1 << 24); return 0;
    case KEY_BATCH: o->packs = (int)ns_cli_int(s, "--batch", arg, 1, 1 << 16); return 0;
    case KEY_ACCUM: o->micro_batches = (int)ns_cli_int(s, "--accum", arg, 1, 1 << 14); return 0;
    case KEY_RECOMPUTE: o->recompute = is_second(s, "--recompute", arg, "none", "layer") ? NS_RECOMPUTE_LAYER : NS_RECOMPUTE_NONE; return 0;
    case KEY_WORKERS: o->workers = (int)ns_cli_int(s, "--workers", arg, 1, 1024); return 0;
    case KEY_SEED: a->seed = ns_cli_u64(s, "--seed", arg); return 0;
    case KEY_EVAL_DOCS: a->eval_docs = ns_cli_int(s, "--eval-docs", arg, 0, INT64_MAX / 2); return 0;
    case KEY_EVAL_EVERY: o->eval_every = ns_cli_int(s, "--eval-every", arg, 1, INT64_MAX / 2); return 0;
    case KEY_SAVE_EVERY: o->save_every = ns_cli_int(s, "--save-every", arg, 0, INT64_MAX / 2); return 0;
    case KEY_DTYPE: a->dtype = is_second(s, "--dtype", arg, "f32", "bf16") ? NS_BF16 : NS_F32; return 0;
    case KEY_RESUME: a->resume = true; return 0;
    case KEY_JSON: a->json = true; return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->data[0], "--data FILE");
        if (a->eval_docs == 0)
            o->eval_every = 0;
        return 0;
    default: return parse_optimisation(key, arg, s);
    }
}
const struct argp ns_cli_train_argp = { .options = options, .parser = parse };

int ns_cli_train_tokenizer(const char *dir, ns_tokenizer **out, ns_err *e)
{
    ns_buf path = { 0 };
    int rc = 0;
    *out = NULL;
    ns_path_join(&path, dir, "tokenizer.json");
    if (path.failed)
        rc = ns_fail(e, NS_ENOMEM, "%s: out of memory", dir);
    else if (ns_file_exists(path.data))
        rc = (*out = ns_tokenizer_open(path.data, e)) ? 0 : -1;
    ns_buf_release(&path);
    return rc;
}

/* ---- signals ---- */

static volatile int interrupted; /* a signal handler has no other way */

static void on_signal(int sig)
{
    (void)sig;
    interrupted = 1;
}

const volatile int *ns_cli_train_interrupts(void)
{
    static const int caught[] = { SIGINT, SIGTERM, SIGUSR1 };
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++)
        sigaction(caught[i], &(struct sigaction){ .sa_handler = on_signal, .sa_flags = SA_RESTART | (int)SA_RESETHAND }, NULL);
    return &interrupted;
}

int ns_cli_train_exit(const char *argv0, int rc, const ns_err *e, ns_comm *comm)
{
    const bool rank0 = !comm || ns_comm_rank(comm) == 0, stopped = rc != 0 && e->code == NS_ECANCELLED && interrupted;
    bool said = rank0 && rc != 0; /* by rank 0 */
    ns_err other = { 0 };
    if (comm)
        ns_comm_any(comm, &said, &other);
    if (stopped && rank0)
        fprintf(stderr, "the same command with --resume goes on\n");
    ns_comm_close(comm);
    const bool quiet = !rank0 && (said || e->code == NS_ECANCELLED);
    const int status = rc != 0 && quiet ? 1 : ns_cli_exit(argv0, rc, e);
    return stopped ? 130 : status;
}

/* ---- progress ---- */

ns_cli_steps ns_cli_steps_start(bool json, int64_t steps)
{
    return (ns_cli_steps){ .tty = isatty(STDERR_FILENO) != 0, .json = json, .steps = steps };
}

static const char *span(double seconds, char *out, size_t cap)
{
    const long s = (long)(seconds + 0.5);
    if (s < 100)
        snprintf(out, cap, "%ld s", s);
    else if (s < 6000)
        snprintf(out, cap, "%ld min", (s + 30) / 60);
    else
        snprintf(out, cap, "%ld h %02ld min", s / 3600, s % 3600 / 60);
    return out;
}

static double number(const json_t *line, const char *key)
{
    return json_number_value(json_object_get(line, key));
}

void ns_cli_steps_show(void *ctx, const json_t *line)
{
    ns_cli_steps *s = ctx;
    char left[40], of[24] = "";
    const double now = ns_now();
    const bool last = number(line, "eta_s") <= 0, eval = json_object_get(line, "eval_loss") != NULL;
    const json_t *shares = json_object_get(line, "shares"), *v;
    const char *name;
    ns_err e = { 0 };
    if (s->json)
        ns_cli_json(line, false, &e); /* whoever closed the pipe does not end the training */
    if (!last && !eval && !interrupted && now - s->last < (s->tty ? 0.2 : 10))
        return;
    s->last = now;
    if (s->steps)
        snprintf(of, sizeof of, "/%lld", (long long)s->steps);
    fprintf(stderr, "%sstep %.0f%s  loss %.4f  %.0f tokens/s", s->tty ? "\r" : "", number(line, "step"), of, number(line, "loss"),
            number(line, "tokens_per_s"));
    if (eval)
        fprintf(stderr, "  held out %.4f", number(line, "eval_loss"));
    json_object_foreach((json_t *)(uintptr_t)shares, name, v) /* a router: what its sizes cost */
        fprintf(stderr, "  %s: %.3f", name, json_number_value(v));
    fprintf(stderr, "  %s left%s", span(number(line, "eta_s"), left, sizeof left), s->tty ? "\033[K" : "\n");
    if (s->tty && (last || eval || interrupted))
        fprintf(stderr, "\n");
}
