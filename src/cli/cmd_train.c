/* nestar train: a face on train/. DIR appears when the training is complete; the run lives in DIR.train. */
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cmd.h"
#include "cli/common.h"
#include "train/folder_io.h"
#include "train/trainer.h"

enum { MAX_FILES = 256 };

typedef struct args {
    const char *model, *out, *tokenizer, *data[MAX_FILES];
    int n_data;
    int64_t tokens;
    bool steps_given, lr_given, lr_min_given, warmup_given, resume, json;
    uint64_t seed;
    ns_dtype dtype;
    ns_train_opts o;
} args;

enum { KEY_DATA = NS_CLI_KEY_COMMAND, KEY_TOKENIZER, KEY_STEPS, KEY_TOKENS, KEY_SEQ, KEY_BATCH, KEY_ACCUM, KEY_LR, KEY_LR_MIN, KEY_WARMUP,
       KEY_DECAY, KEY_BETA2, KEY_CLIP, KEY_OPTIMIZER, KEY_BALANCE, KEY_RECOMPUTE, KEY_SEED, KEY_WORKERS, KEY_EVAL_DOCS, KEY_EVAL_EVERY,
       KEY_SAVE_EVERY, KEY_SPIKE, KEY_DTYPE, KEY_RESUME, KEY_JSON };

static const struct argp_option options[] = {
    { "output", 'o', "DIR", 0, "The checkpoint to make; it must not exist. The run itself (log.jsonl, its state) is in DIR.train", 1 },
    { "data", KEY_DATA, "FILE[:W]", 0, "JSONL with \"text\", \"prompt\" and \"completion\", \"messages\" or \"ids\"; or .txt. May be given "
      "several times; W: the share of tokens drawn from it", 1 },
    { "tokenizer", KEY_TOKENIZER, "DIR", 0, "Tokenizer and chat template (default: those beside CONFIG or in CKPT)", 1 },
    { "steps", KEY_STEPS, "N", 0, "Steps (default: once through the data)", 2 },
    { "tokens", KEY_TOKENS, "N", 0, "As many steps as N tokens take", 2 },
    { "seq", KEY_SEQ, "N", 0, "Tokens of a pack, and of the longest document (default 2048)", 2 },
    { "batch", KEY_BATCH, "N", 0, "Packs of a micro-batch on each rank (default 8)", 2 },
    { "accum", KEY_ACCUM, "N", 0, "Micro-batches of a step (default 1)", 2 },
    { "lr", KEY_LR, "X", 0, "Learning rate (default 1e-3 from CONFIG, 1e-4 from CKPT)", 3 },
    { "lr-min", KEY_LR_MIN, "X", 0, "Where its cosine ends (default: a tenth of --lr)", 3 },
    { "warmup", KEY_WARMUP, "N", 0, "Steps of its rise (default: 2 % of the steps)", 3 },
    { "weight-decay", KEY_DECAY, "X", 0, "Of matrices (default 0)", 3 },
    { "beta2", KEY_BETA2, "X", 0, "AdamW's second decay (default 0.98)", 3 },
    { "clip", KEY_CLIP, "X", 0, "Largest norm of the gradients (default 1; 0: none)", 3 },
    { "optimizer", KEY_OPTIMIZER, "NAME", 0, "adamw (default), or muon for the layers' matrices", 3 },
    { "balance", KEY_BALANCE, "X", 0, "Step of the experts' correction biases towards even loads (default 0: off)", 3 },
    { "recompute", KEY_RECOMPUTE, "none|layer", 0, "Keep all activations (default), or only the layers' inputs", 4 },
    { "workers", KEY_WORKERS, "N", 0, "Threads (default: NS_THREADS, else all cores this process may use)", 4 },
    { "seed", KEY_SEED, "N", 0, "Of the parameters and of the data's order (default 0)", 4 },
    { "eval-docs", KEY_EVAL_DOCS, "N", 0, "Documents held out of training, to evaluate on (default 0)", 5 },
    { "eval-every", KEY_EVAL_EVERY, "N", 0, "Steps from one evaluation to the next (default 100)", 5 },
    { "save-every", KEY_SAVE_EVERY, "N", 0, "Steps from one saved state to the next (default 500; 0: only at the end and when interrupted)", 5 },
    { "spike", KEY_SPIKE, "X", 0, "Stop when the loss is over X times its running mean (default 0: only when it is not finite)", 5 },
    { "dtype", KEY_DTYPE, "f32|bf16", 0, "Of the checkpoint (default f32)", 5 },
    { "resume", KEY_RESUME, NULL, 0, "Go on with the run in DIR.train, or begin one", 5 },
    { "json", KEY_JSON, NULL, 0, "The log's lines on standard output as well", 5 },
    { 0 }
};

static const char doc[] =
    "Trains a model: from scratch when a config.json is given, on from its weights when a checkpoint folder is. Under mpirun or srun, "
    "all processes train together. Ctrl-C ends the run after the step at hand; --resume goes on.\v"
    "Examples:\n"
    "  nestar train small/config.json --data stories.jsonl -o stories --steps 2000 --eval-docs 200\n"
    "  nestar train nano/ --data chats.jsonl:3 --data code.jsonl:1 -o tuned --lr 2e-5 --dtype bf16\n"
    "  mpirun -n 4 nestar train small/config.json --data stories.jsonl -o stories --batch 2 --resume";

static error_t parse_schedule(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case KEY_STEPS: a->o.steps = ns_cli_int(s, "--steps", arg, 1, INT64_MAX / 2); a->steps_given = true; return 0;
    case KEY_TOKENS: a->tokens = ns_cli_int(s, "--tokens", arg, 1, INT64_MAX / 2); return 0;
    case KEY_LR: a->o.schedule.lr = ns_cli_real(s, "--lr", arg, 0, INFINITY); a->lr_given = true; return 0;
    case KEY_LR_MIN: a->o.schedule.lr_min = ns_cli_real(s, "--lr-min", arg, 0, INFINITY); a->lr_min_given = true; return 0;
    case KEY_WARMUP: a->o.schedule.warmup = ns_cli_int(s, "--warmup", arg, 0, INT64_MAX / 2); a->warmup_given = true; return 0;
    case KEY_DECAY: a->o.adamw.weight_decay = ns_cli_real(s, "--weight-decay", arg, 0, INFINITY); return 0;
    case KEY_BETA2: a->o.adamw.beta2 = ns_cli_real(s, "--beta2", arg, 0, 0.999999); return 0;
    case KEY_CLIP: a->o.clip = ns_cli_real(s, "--clip", arg, 0, INFINITY); return 0;
    case KEY_OPTIMIZER:
        if (strcmp(arg, "adamw") != 0 && strcmp(arg, "muon") != 0)
            argp_error(s, "--optimizer: \"%s\" is neither adamw nor muon", arg);
        a->o.optimizer = arg;
        return 0;
    case KEY_BALANCE: a->o.balance_rate = ns_cli_real(s, "--balance", arg, 0, INFINITY); return 0;
    case KEY_SPIKE: a->o.spike = ns_cli_real(s, "--spike", arg, 0, INFINITY); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case 'o': a->out = arg; return 0;
    case KEY_DATA:
        if (a->n_data == MAX_FILES)
            argp_error(s, "--data: more than %d", MAX_FILES);
        a->data[a->n_data++] = arg;
        return 0;
    case KEY_TOKENIZER: a->tokenizer = arg; return 0;
    case KEY_SEQ: a->o.seq_tokens = (int)ns_cli_int(s, "--seq", arg, 2, 1 << 24); return 0;
    case KEY_BATCH: a->o.packs = (int)ns_cli_int(s, "--batch", arg, 1, 1 << 16); return 0;
    case KEY_ACCUM: a->o.micro_batches = (int)ns_cli_int(s, "--accum", arg, 1, 1 << 14); return 0;
    case KEY_RECOMPUTE:
        if (strcmp(arg, "none") != 0 && strcmp(arg, "layer") != 0)
            argp_error(s, "--recompute: \"%s\" is neither none nor layer", arg);
        a->o.recompute = strcmp(arg, "layer") == 0 ? NS_RECOMPUTE_LAYER : NS_RECOMPUTE_NONE;
        return 0;
    case KEY_WORKERS: a->o.workers = (int)ns_cli_int(s, "--workers", arg, 1, 1024); return 0;
    case KEY_SEED: a->seed = ns_cli_u64(s, "--seed", arg); return 0;
    case KEY_EVAL_DOCS: a->o.eval_docs = ns_cli_int(s, "--eval-docs", arg, 0, INT64_MAX / 2); return 0;
    case KEY_EVAL_EVERY: a->o.eval_every = ns_cli_int(s, "--eval-every", arg, 1, INT64_MAX / 2); return 0;
    case KEY_SAVE_EVERY: a->o.save_every = ns_cli_int(s, "--save-every", arg, 0, INT64_MAX / 2); return 0;
    case KEY_DTYPE:
        if (strcmp(arg, "f32") != 0 && strcmp(arg, "bf16") != 0)
            argp_error(s, "--dtype: \"%s\" is neither f32 nor bf16", arg);
        a->dtype = strcmp(arg, "bf16") == 0 ? NS_BF16 : NS_F32;
        return 0;
    case KEY_RESUME: a->resume = true; return 0;
    case KEY_JSON: a->json = true; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->model, arg); return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->model, "CONFIG or CKPT");
        ns_cli_required(s, a->out, "-o DIR");
        ns_cli_required(s, a->data[0], "--data FILE");
        if (a->steps_given && a->tokens)
            argp_error(s, "--steps and --tokens exclude each other");
        return 0;
    default: return parse_schedule(key, arg, s);
    }
}

/* ---- signals ---- */

static volatile int interrupted;

/* A second signal of the kind ends the process at once. */
static void on_signal(int sig)
{
    (void)sig;
    interrupted = 1;
}

static void catch_signals(void)
{
    static const int caught[] = { SIGINT, SIGTERM, SIGUSR1 }; /* the last: Slurm's --signal before a time limit */
    for (size_t i = 0; i < sizeof caught / sizeof *caught; i++)
        sigaction(caught[i], &(struct sigaction){ .sa_handler = on_signal, .sa_flags = SA_RESTART | (int)SA_RESETHAND }, NULL);
}

/* ---- the model and its data ---- */

typedef struct run {
    args *a;
    ns_comm *comm;
    ns_ckpt *ckpt;      /* NULL from scratch */
    ns_arch *own_arch;  /* from scratch */
    const ns_arch *arch;
    char *text_dir;     /* NULL: no tokenizer */
    ns_tokenizer *tok;
    ns_params params;
    ns_real *w;
    ns_data *data;
    ns_buf dir;         /* DIR.train */
    double last_shown;
    bool tty, quiet;    /* quiet: another rank tells why it failed */
} run;

/* Where the text files are: as said, in CKPT, or beside CONFIG; NULL where there is no tokenizer.json. */
static int find_text(run *r, ns_err *e)
{
    const args *a = r->a;
    const char *slash = strrchr(a->model, '/');
    ns_buf path = { 0 };
    if (a->tokenizer)
        r->text_dir = strdup(a->tokenizer);
    else if (r->ckpt)
        r->text_dir = strdup(a->model);
    else
        r->text_dir = slash ? strndup(a->model, (size_t)(slash - a->model)) : strdup(".");
    ns_path_join(&path, r->text_dir ? r->text_dir : "", "tokenizer.json");
    int rc = r->text_dir && !path.failed ? 0 : ns_fail(e, NS_ENOMEM, "%s: out of memory", a->model);
    if (rc == 0 && (a->tokenizer || ns_file_exists(path.data))) {
        rc = (r->tok = ns_tokenizer_open(path.data, e)) ? 0 : -1;
    } else {
        free(r->text_dir);
        r->text_dir = NULL;
    }
    ns_buf_release(&path);
    return rc;
}

static int open_model(run *r, ns_err *e)
{
    const args *a = r->a;
    if (ns_dir_exists(a->model))
        r->arch = (r->ckpt = ns_ckpt_open(a->model, NULL, e)) ? r->ckpt->arch : NULL;
    else
        r->arch = r->own_arch = ns_arch_open(a->model, e);
    if (!r->arch || find_text(r, e) != 0 || ns_params_plan(r->arch, &r->params, e) != 0)
        return -1;
    r->w = ns_alloc_aligned(r->params.count * sizeof *r->w);
    if (!r->w)
        return ns_fail(e, NS_ENOMEM, "%zu parameters: out of memory", r->params.count);
    return r->ckpt ? ns_params_load(&r->params, r->ckpt, r->w, e) : ns_params_init(&r->params, a->seed, r->w, e);
}

static int open_data(run *r, ns_err *e)
{
    const args *a = r->a;
    const ns_data_opts o = { .paths = a->data, .n_paths = a->n_data, .seed = a->seed, .vocab_size = r->arch->vocab_size,
                             .eos_id = r->arch->n_eos ? r->arch->eos_ids[0] : -1, .template_dir = r->text_dir, .max_doc = a->o.seq_tokens };
    if (ns_comm_rank(r->comm) != 0)
        ns_log_sink(NULL, NULL); /* the same bad lines on every rank: said once */
    r->data = ns_data_open(&o, r->tok, e);
    if (!r->data)
        return -1;
    return a->o.eval_docs ? ns_data_hold_out(r->data, a->o.eval_docs, e) : 0;
}

/* What depends on the data and the number of ranks. */
static void settle(run *r)
{
    args *a = r->a;
    const double step = (double)a->o.seq_tokens * a->o.packs * a->o.micro_batches * ns_comm_size(r->comm);
    if (!a->steps_given)
        a->o.steps = (int64_t)ceil((double)(a->tokens ? a->tokens : ns_data_tokens(r->data)) / step);
    if (!a->lr_given)
        a->o.schedule.lr = r->ckpt ? 1e-4 : 1e-3;
    if (!a->lr_min_given)
        a->o.schedule.lr_min = a->o.schedule.lr / 10;
    if (!a->warmup_given)
        a->o.schedule.warmup = (a->o.steps + 49) / 50;
    if (!a->o.eval_docs)
        a->o.eval_every = 0;
    a->o.eval_docs = 0; /* all that are held out */
}

/* ---- progress ---- */

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

static void on_step(void *ctx, const json_t *line)
{
    run *r = ctx;
    char left[40];
    const double now = ns_now();
    const bool last = (int64_t)number(line, "step") == r->a->o.steps, eval = json_object_get(line, "eval_loss") != NULL;
    ns_err e = { 0 };
    if (r->a->json)
        ns_cli_json(line, false, &e); /* whoever closed the pipe does not end the training */
    if (!last && !eval && !interrupted && now - r->last_shown < (r->tty ? 0.2 : 10))
        return;
    r->last_shown = now;
    fprintf(stderr, "%sstep %.0f/%lld  loss %.4f  %.0f tokens/s", r->tty ? "\r" : "", number(line, "step"), (long long)r->a->o.steps,
            number(line, "loss"), number(line, "tokens_per_s"));
    if (eval)
        fprintf(stderr, "  held out %.4f", number(line, "eval_loss"));
    fprintf(stderr, "  %s left%s", span(number(line, "eta_s"), left, sizeof left), r->tty ? "\033[K" : "\n");
    if (r->tty && (last || eval || interrupted))
        fprintf(stderr, "\n");
}

static void announce(const run *r)
{
    const args *a = r->a;
    const ns_net_opts no = { .max_tokens = a->o.seq_tokens, .max_seqs = NS_PACK_SEQS(a->o.seq_tokens), .recompute = a->o.recompute };
    const double count = (double)r->params.count, step = (double)a->o.seq_tokens * a->o.packs * a->o.micro_batches * ns_comm_size(r->comm);
    if (ns_comm_rank(r->comm) != 0)
        return;
    fprintf(stderr, "%.2f M parameters; %lld documents, %.2f M tokens; %lld steps of up to %.0f tokens", count / 1e6,
            (long long)ns_data_docs(r->data), (double)ns_data_tokens(r->data) / 1e6, (long long)a->o.steps, step);
    if (ns_comm_size(r->comm) > 1)
        fprintf(stderr, " on %d ranks", ns_comm_size(r->comm));
    fprintf(stderr, "; memory %.0f MB and %.0f MB for each worker\n", count * (4 + 8.0 / ns_comm_size(r->comm)) / 1e6,
            (double)ns_net_bytes(&r->params, &no) / 1e6 + count * 4 / 1e6);
}

/* ---- the end ---- */

/* The sizes that a checkpoint names stay named. */
static int copy_nest(void *ctx, const char *dir, ns_err *e)
{
    const run *r = ctx;
    ns_buf from = { 0 }, to = { 0 };
    int rc = 0;
    ns_path_join(&from, r->a->model, "nest.json");
    ns_path_join(&to, dir, "nest.json");
    if (r->ckpt && ns_file_exists(from.data))
        rc = ns_file_copy(from.data, to.data, e);
    ns_buf_release(&from);
    ns_buf_release(&to);
    return rc;
}

static int save(run *r, ns_err *e)
{
    if (ns_comm_rank(r->comm) != 0)
        return 0;
    json_t *config = ns_params_config(r->arch->config, r->a->dtype, e);
    int rc = config ? ns_params_save(&r->params, r->w, config, r->a->dtype, r->text_dir, copy_nest, r, r->a->out, e) : -1;
    json_decref(config);
    return rc;
}

static int prepare(run *r, ns_err *e)
{
    const args *a = r->a;
    ns_buf_addf(&r->dir, "%s.train", a->out);
    if (r->dir.failed)
        return ns_fail(e, NS_ENOMEM, "%s: out of memory", a->out);
    if (ns_dir_exists(a->out) || ns_file_exists(a->out))
        return ns_fail(e, NS_EINVAL, "%s: it is there already", a->out);
    return open_model(r, e) == 0 ? open_data(r, e) : -1;
}

/* No rank may go on to wait for one that has failed. What fails everywhere alike is said by rank 0. */
static int prepare_all(run *r, ns_err *e)
{
    int rc = prepare(r, e);
    ns_err ours = { 0 };
    bool any = rc != 0, first = any && ns_comm_rank(r->comm) == 0;
    if (ns_comm_any(r->comm, &any, &ours) != 0 || ns_comm_any(r->comm, &first, &ours) != 0)
        return ns_fail(e, ours.code, "%s", ours.msg);
    r->quiet = first;
    return any && rc == 0 ? ns_fail(e, NS_ECANCELLED, "another rank failed") : rc;
}

static int train(run *r, ns_err *e)
{
    args *a = r->a;
    if (prepare_all(r, e) != 0)
        return -1;
    settle(r);
    announce(r);
    catch_signals();
    a->o.interrupted = &interrupted;
    a->o.on_step = on_step;
    a->o.on_step_ctx = r;
    int rc = ns_train(&r->params, r->w, r->data, NULL, &a->o, r->dir.data, a->resume, r->comm, e);
    if (rc != 0 && e->code == NS_ECANCELLED && interrupted && ns_comm_rank(r->comm) == 0)
        fprintf(stderr, "the same command with --resume goes on\n");
    return rc == 0 ? save(r, e) : rc;
}

int ns_cmd_train(int argc, char **argv)
{
    args a = { .o = ns_train_defaults(), .dtype = NS_F32 };
    run r = { .a = &a, .tty = isatty(STDERR_FILENO) != 0 };
    ns_err e = { 0 };
    a.o.eval_every = 100;
    a.o.save_every = 500;
    ns_cli_parse(&(struct argp){ options, parse, "CONFIG|CKPT", doc, NULL, NULL, NULL }, argc, argv, &a);
    int rc = (r.comm = ns_comm_open(&e)) ? train(&r, &e) : -1;
    r.quiet = r.comm && ns_comm_rank(r.comm) != 0 && (r.quiet || e.code == NS_ECANCELLED);
    ns_data_free(r.data);
    ns_params_release(&r.params);
    free(r.w);
    ns_tokenizer_free(r.tok);
    free(r.text_dir);
    ns_ckpt_close(r.ckpt);
    ns_arch_free(r.own_arch);
    ns_buf_release(&r.dir);
    ns_comm_close(r.comm);
    const int status = rc != 0 && r.quiet ? 1 : ns_cli_exit(argv[0], rc, &e);
    return rc != 0 && e.code == NS_ECANCELLED && interrupted ? 130 : status;
}
