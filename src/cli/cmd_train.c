/* nestar train: a face on train/. DIR appears when the training is complete; the run lives in DIR.train. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cmd.h"
#include "cli/train_args.h"
#include "forge/folder.h"
#include "train/folder_io.h"

typedef struct args {
    const char *model, *out, *tokenizer;
    int64_t tokens;
    ns_cli_train train; /* below 0 in its schedule: not given; so are 0 steps */
} args;

enum { KEY_TOKENIZER = NS_CLI_KEY_COMMAND, KEY_TOKENS };

static const struct argp_option options[] = {
    { "output", 'o', "DIR", 0, "The checkpoint to make; it must not exist. The run itself (log.jsonl, its state) is in DIR.train", 1 },
    { "tokenizer", KEY_TOKENIZER, "DIR", 0, "Tokenizer and chat template (default: those beside CONFIG or in CKPT)", 1 },
    { "tokens", KEY_TOKENS, "N", 0, "As many steps as N tokens take", 2 },
    { 0 }
};

static const char doc[] =
    "Trains a model: from scratch when a config.json is given, on from its weights when a checkpoint folder is. Under mpirun or srun, "
    "all processes train together. Ctrl-C ends the run after the step at hand; --resume goes on.\v"
    "Examples:\n"
    "  nestar train small/config.json --data stories.jsonl -o stories --steps 2000 --eval-docs 200\n"
    "  nestar train nano/ --data chats.jsonl:3 --data code.jsonl:1 -o tuned --lr 2e-5 --dtype bf16\n"
    "  mpirun -n 4 nestar train small/config.json --data stories.jsonl -o stories --batch 2 --resume";

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case 'o': a->out = arg; return 0;
    case KEY_TOKENIZER: a->tokenizer = arg; return 0;
    case KEY_TOKENS: a->tokens = ns_cli_int(s, "--tokens", arg, 1, INT64_MAX / 2); return 0;
    case ARGP_KEY_INIT: s->child_inputs[0] = &a->train; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->model, arg); return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->model, "CONFIG or CKPT");
        ns_cli_required(s, a->out, "-o DIR");
        if (a->train.o.steps && a->tokens)
            argp_error(s, "--steps and --tokens exclude each other");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
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
    return r->ckpt ? ns_params_load(&r->params, r->ckpt, r->w, e) : ns_params_init(&r->params, a->train.seed, r->w, e);
}

static int open_data(run *r, ns_err *e)
{
    const ns_cli_train *t = &r->a->train;
    const ns_data_opts o = { .paths = t->data, .n_paths = t->n_data, .seed = t->seed, .vocab_size = r->arch->vocab_size,
                             .eos_id = r->arch->n_eos ? r->arch->eos_ids[0] : -1, .template_dir = r->text_dir, .max_doc = t->o.seq_tokens };
    if (ns_comm_rank(r->comm) != 0)
        ns_log_sink(NULL, NULL); /* the same bad lines on every rank: said once */
    r->data = ns_data_open(&o, r->tok, e);
    if (!r->data)
        return -1;
    return t->eval_docs ? ns_data_hold_out(r->data, t->eval_docs, e) : 0;
}

/* What depends on the data and the number of ranks. */
static void settle(run *r)
{
    ns_train_opts *o = &r->a->train.o;
    const double step = (double)o->seq_tokens * o->packs * o->micro_batches * ns_comm_size(r->comm);
    if (o->steps == 0)
        o->steps = (int64_t)ceil((double)(r->a->tokens ? r->a->tokens : ns_data_tokens(r->data)) / step);
    if (o->schedule.lr < 0)
        o->schedule.lr = r->ckpt ? 1e-4 : 1e-3;
    if (o->schedule.lr_min < 0)
        o->schedule.lr_min = o->schedule.lr / 10;
    if (o->schedule.warmup < 0)
        o->schedule.warmup = (o->steps + 49) / 50;
}

static void announce(const run *r)
{
    const ns_train_opts *o = &r->a->train.o;
    const ns_net_opts no = { .max_tokens = o->seq_tokens, .max_seqs = NS_PACK_SEQS(o->seq_tokens), .recompute = o->recompute };
    const double count = (double)r->params.count, step = (double)o->seq_tokens * o->packs * o->micro_batches * ns_comm_size(r->comm);
    if (ns_comm_rank(r->comm) != 0)
        return;
    fprintf(stderr, "%.2f M parameters; %lld documents, %.2f M tokens; %lld steps of up to %.0f tokens", count / 1e6,
            (long long)ns_data_docs(r->data), (double)ns_data_tokens(r->data) / 1e6, (long long)o->steps, step);
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
    return r->ckpt ? ns_folder_copy_nest(r->a->model, dir, e) : 0;
}

static int save(run *r, ns_err *e)
{
    if (ns_comm_rank(r->comm) != 0)
        return 0;
    json_t *config = ns_params_config(r->arch->config, r->a->train.dtype, e);
    int rc = config ? ns_params_save(&r->params, r->w, config, r->a->train.dtype, r->text_dir, copy_nest, r, r->a->out, e) : -1;
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

/* No rank may go on to wait for one that has failed. */
static int prepare_all(run *r, ns_err *e)
{
    int rc = prepare(r, e);
    ns_err ours = { 0 };
    bool any = rc != 0;
    if (ns_comm_any(r->comm, &any, &ours) != 0)
        return rc != 0 ? rc : ns_fail(e, ours.code, "%s", ours.msg);
    return any && rc == 0 ? ns_fail(e, NS_ECANCELLED, "another rank failed") : rc;
}

static int train(run *r, ns_err *e)
{
    args *a = r->a;
    if (prepare_all(r, e) != 0)
        return -1;
    settle(r);
    announce(r);
    ns_cli_steps steps = ns_cli_steps_start(a->train.json, a->train.o.steps);
    a->train.o.interrupted = ns_cli_train_interrupts();
    a->train.o.on_step = ns_cli_steps_show;
    a->train.o.on_step_ctx = &steps;
    int rc = ns_train(&r->params, r->w, r->data, NULL, &a->train.o, r->dir.data, a->train.resume, r->comm, e);
    return rc == 0 ? save(r, e) : rc;
}

int ns_cmd_train(int argc, char **argv)
{
    static const struct argp_child children[] = { { &ns_cli_train_argp, 0, "Data and optimisation:", 40 }, { 0 } };
    static args a;
    run r = { .a = &a };
    ns_err e = { 0 };
    ns_train_opts o = ns_train_defaults();
    o.steps = 0;
    o.schedule = (ns_schedule){ .lr = -1, .lr_min = -1, .warmup = -1 };
    a.train = ns_cli_train_defaults(&o);
    ns_cli_parse(&(struct argp){ options, parse, "CONFIG|CKPT", doc, children, NULL, NULL }, argc, argv, &a);
    int rc = (r.comm = ns_comm_open(&e)) ? train(&r, &e) : -1;
    ns_data_free(r.data);
    ns_params_release(&r.params);
    free(r.w);
    ns_tokenizer_free(r.tok);
    free(r.text_dir);
    ns_ckpt_close(r.ckpt);
    ns_arch_free(r.own_arch);
    ns_buf_release(&r.dir);
    return ns_cli_train_exit(argv[0], rc, &e, r.comm);
}
