/* nestar elastify: a thin face on train/elastify. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/cmd.h"
#include "cli/train_args.h"
#include "train/elastify.h"

enum { MAX_LIST = 64 };

typedef struct args {
    const char *path, *out, *teacher;
    const char *fixed[MAX_LIST], *choices[MAX_LIST], *keep[MAX_LIST];
    ns_cli_train train;
    ns_elastify_opts o;
} args;

enum {
    KEY_BUDGETS = NS_CLI_KEY_COMMAND, KEY_NAMES, KEY_AXES, KEY_CHOICES, KEY_HETERO, KEY_DEPTH_ORDER, KEY_FIXED, KEY_UNIFORM, KEY_ONLY,
    KEY_WEIGHTS, KEY_ROUND, KEY_INNER, KEY_TARGET, KEY_PROFILE, KEY_CONTEXT, KEY_SEQUENCES, KEY_CHUNK, KEY_PUBLISHED, KEY_STAGE2_STEPS,
    KEY_STAGE2_SEQ, KEY_STAGE2_LR, KEY_TEMPERATURE, KEY_CE, KEY_ALPHA, KEY_ROUTER_LR, KEY_TAU_DECAY, KEY_HARD, KEY_FREEZE, KEY_RUN,
    KEY_SWITCH, KEY_TEACHER, KEY_SAME, KEY_QAD, KEY_ALL, KEY_SEARCH, KEY_KEEP
};

static const struct argp_option options[] = {
    { "output", 'o', "DIR", 0, "The folder to make; it must not exist. Logs and state go to DIR.train", 1 },
    { "run-dir", KEY_RUN, "DIR", 0, "Logs and state go to DIR instead", 1 },
    { 0, 0, NULL, 0, "Sizes (default: those of the checkpoint's nest.json):", 10 },
    { "budgets", KEY_BUDGETS, "B,..", 0, "Shares of the parent's cost, as in 1.0,0.78,0.58", 10 },
    { "names", KEY_NAMES, "NAME,..", 0, "What the sizes are called, largest first (default: full, 0.78, ..)", 10 },
    { "axes", KEY_AXES, "AXIS,..", 0, "What may be narrowed (default: hidden and the FFN width); depth leaves out layers", 10 },
    { "choices", KEY_CHOICES, "AXIS=X,..", 0, "Widths to choose from: shares up to 1, above it widths; again for other axes", 10 },
    { "hetero", KEY_HETERO, "AXIS,..", 0, "Axes on which each layer chooses for itself", 10 },
    { "depth-order", KEY_DEPTH_ORDER, "L,..|FILE", 0, "Layers, least important first; or what nestar importance wrote", 10 },
    { "fixed", KEY_FIXED, "NAME=SIZE", 0, "A given size (or just full), no router; again for more", 10 },
    { "uniform", KEY_UNIFORM, NULL, 0, "For each budget the widest common share of the axes that fits, no router", 10 },
    { "only", KEY_ONLY, "NAME", 0, "Train this one of the fixed or uniform sizes alone", 10 },
    { "weights", KEY_WEIGHTS, "W,..", 0, "How often stage two draws each size, largest first (default .5,.3,.2)", 10 },
    { "round", KEY_ROUND, "N", 0, "Widths from shares are multiples of N where the full width is (default 16)", 10 },
    { 0, 0, NULL, 0, "Cost:", 20 },
    { "target", KEY_TARGET, "active|total|memory", 0, "What budgets are shares of: active parameters (default), all, or bytes", 20 },
    { "profile", KEY_PROFILE, "P", 0, "Bytes of memory: bf16 (default), f32, bf16-fp8kv, fp8, nvfp4", 20 },
    { "context", KEY_CONTEXT, "N", 0, "Memory: tokens in the cache (default 131072)", 20 },
    { "sequences", KEY_SEQUENCES, "N", 0, "Memory: sequences (default 1)", 20 },
    { "chunk", KEY_CHUNK, "N", 0, "Memory: tokens of the largest step (default 16384)", 20 },
    { "published-count", KEY_PUBLISHED, NULL, 0, "Count as the published training code does, where it differs", 20 },
    { 0, 0, NULL, 0, "Training:", 30 },
    { "stage2-steps", KEY_STAGE2_STEPS, "N", 0, "Steps of a second stage that draws large sizes more often (default 0)", 30 },
    { "stage2-seq", KEY_STAGE2_SEQ, "N", 0, "Its tokens of a pack (default: --seq)", 30 },
    { "stage2-lr", KEY_STAGE2_LR, "X", 0, "Its learning rate (default: 0.7 of --lr)", 30 },
    { "freeze-router", KEY_FREEZE, NULL, 0, "The second stage leaves the router as it is and trains the sizes that it chose", 30 },
    { "switch", KEY_SWITCH, "P", 0, "Probability that another size begins the documents of a micro-batch and hands its cache over (default 0)", 30 },
    { "temperature", KEY_TEMPERATURE, "X", 0, "Of the distillation (default 1)", 30 },
    { "teacher", KEY_TEACHER, "DIR", 0, "Another checkpoint of the same dims to distil from (default: PARENT)", 30 },
    { "same-size", KEY_SAME, NULL, 0, "Each size is taught by the teacher's same size (default: by the whole teacher)", 30 },
    { "ce", KEY_CE, "X", 0, "Share of cross-entropy beside it (default 0)", 30 },
    { "alpha", KEY_ALPHA, "X", 0, "Weight of the budget loss (default 1)", 30 },
    { "router-lr", KEY_ROUTER_LR, "X", 0, "The router's learning rate (default 1e-2)", 30 },
    { "router-inner", KEY_INNER, "N", 0, "Its hidden units (default 256)", 30 },
    { "tau-decay", KEY_TAU_DECAY, "X", 0, "Of the Gumbel temperature per step (default: such that 0.05 is reached at the end)", 30 },
    { "hard", KEY_HARD, "P", 0, "Probability of a hard sample (default 0.004)", 30 },
    { 0, 0, NULL, 0, "Quantised:", 35 },
    { "qad", KEY_QAD, "FORMAT", 0, "Train the weights as fp8 or nvfp4 will round them, and write them so", 35 },
    { "keep", KEY_KEEP, "PATTERN", 0, "As in nestar quantize: leave modules as they are; again for more", 35 },
    { "all", KEY_ALL, NULL, 0, "As in nestar quantize: every linear layer", 35 },
    { "search", KEY_SEARCH, NULL, 0, "As in nestar quantize: per block, the scale with the least squared error", 35 },
    { 0 }
};

static const char doc[] =
    "Trains all sizes of a nested checkpoint together, against the frozen parent: a router learns for each budget how wide each axis "
    "should be. The parent's channels should stand in order of importance (nestar permute). Two copies of the parameters, gradients and "
    "moments are held in memory in F32.\v"
    "Examples:\n"
    "  nestar elastify ranked/ --budgets 1.0,0.78,0.58 --data mix.jsonl -o nested\n"
    "  nestar elastify ranked/ --budgets 1,0.7,0.5 --axes hidden,expert_ffn,experts --hetero expert_ffn --data mix.jsonl "
    "--steps 4000 --seq 2048 --stage2-steps 1000 --stage2-seq 8192 -o nested\n"
    "  nestar elastify ranked/ --fixed full --fixed S=hidden=128,expert_ffn=96 --data mix.jsonl -o nested\n"
    "  nestar elastify nested/ --qad nvfp4 --data mix.jsonl --lr 1e-5 --steps 500 -o nested-nvfp4";

static void add(struct argp_state *s, const char *option, const char *const **list, int *n, const char **slots, const char *arg)
{
    if (*n == MAX_LIST)
        argp_error(s, "%s: more than %d", option, MAX_LIST);
    slots[(*n)++] = arg;
    *list = slots;
}

static error_t parse_sizes(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    ns_elastic_opts *z = &a->o.sizes;
    int target;
    switch (key) {
    case KEY_BUDGETS: z->budgets = arg; return 0;
    case KEY_NAMES: z->names = arg; return 0;
    case KEY_AXES: z->axes = arg; return 0;
    case KEY_CHOICES: add(s, "--choices", &z->choices, &z->n_choices, a->choices, arg); return 0;
    case KEY_HETERO: z->hetero = arg; return 0;
    case KEY_DEPTH_ORDER: z->depth_order = arg; return 0;
    case KEY_FIXED: add(s, "--fixed", &z->fixed, &z->n_fixed, a->fixed, arg); return 0;
    case KEY_UNIFORM: z->uniform = true; return 0;
    case KEY_ONLY: z->only = arg; return 0;
    case KEY_WEIGHTS: z->weights = arg; return 0;
    case KEY_ROUND: z->round = (int)ns_cli_int(s, "--round", arg, 1, 4096); return 0;
    case KEY_INNER: z->inner = (int)ns_cli_int(s, "--router-inner", arg, 1, NS_ROUTER_MAX_INNER); return 0;
    case KEY_TARGET:
        if ((target = ns_budget_target_find(arg)) < 0)
            argp_error(s, "--target: \"%s\" is none of active, total and memory", arg);
        z->budget.target = (ns_budget_target)target;
        return 0;
    case KEY_PROFILE: z->budget.profile = arg; return 0;
    case KEY_CONTEXT: z->budget.context = ns_cli_int(s, "--context", arg, 0, INT_MAX); return 0;
    case KEY_SEQUENCES: z->budget.batch = ns_cli_int(s, "--sequences", arg, 1, 1 << 20); return 0;
    case KEY_CHUNK: z->budget.chunk = ns_cli_int(s, "--chunk", arg, 0, INT_MAX); return 0;
    case KEY_PUBLISHED: z->budget.published = true; return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static error_t parse_quantised(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    ns_quantize_opts *q = &a->o.qad;
    switch (key) {
    case KEY_QAD:
        if (strcmp(arg, "fp8") != 0 && strcmp(arg, "nvfp4") != 0)
            argp_error(s, "--qad: \"%s\" is neither fp8 nor nvfp4", arg);
        q->format = arg;
        return 0;
    case KEY_KEEP: add(s, "--keep", &q->keep, &q->n_keep, a->keep, arg); return 0;
    case KEY_ALL: q->all = true; return 0;
    case KEY_SEARCH: q->search = true; return 0;
    default: return parse_sizes(key, arg, s);
    }
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    ns_elastify_opts *o = &a->o;
    switch (key) {
    case 'o': a->out = arg; return 0;
    case KEY_RUN: o->run_dir = arg; return 0;
    case KEY_STAGE2_STEPS: o->stage2_steps = ns_cli_int(s, "--stage2-steps", arg, 0, INT_MAX); return 0;
    case KEY_STAGE2_SEQ: o->stage2_seq = (int)ns_cli_int(s, "--stage2-seq", arg, 2, 1 << 20); return 0;
    case KEY_STAGE2_LR: o->stage2_lr = ns_cli_real(s, "--stage2-lr", arg, 0, INFINITY); return 0;
    case KEY_FREEZE: o->freeze_router = true; return 0;
    case KEY_SWITCH: o->change = ns_cli_real(s, "--switch", arg, 0, 1); return 0;
    case KEY_TEMPERATURE: o->temperature = ns_cli_real(s, "--temperature", arg, 1e-3, 1e3); return 0;
    case KEY_TEACHER: a->teacher = arg; return 0;
    case KEY_SAME: o->same_size = true; return 0;
    case KEY_CE: o->ce = ns_cli_real(s, "--ce", arg, 0, INFINITY); return 0;
    case KEY_ALPHA: o->alpha = ns_cli_real(s, "--alpha", arg, 0, INFINITY); return 0;
    case KEY_ROUTER_LR: o->router_lr = ns_cli_real(s, "--router-lr", arg, 0, INFINITY); return 0;
    case KEY_TAU_DECAY: o->tau_decay = ns_cli_real(s, "--tau-decay", arg, 1e-6, 1); return 0;
    case KEY_HARD: o->hard = ns_cli_real(s, "--hard", arg, 0, 1); return 0;
    case ARGP_KEY_INIT: s->child_inputs[0] = &a->train; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->path, arg); return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->path, "PARENT");
        ns_cli_required(s, a->out, "-o DIR");
        if (!o->qad.format && (o->qad.all || o->qad.search || o->qad.n_keep))
            argp_error(s, "--all, --search and --keep say what --qad quantises");
        return 0;
    default: return parse_quantised(key, arg, s);
    }
}

static void print_switches(const json_t *list)
{
    const json_t *z;
    size_t i;
    printf("\n%-12s %-12s %10s %8s %8s   half of each document by one size, the rest by another\n", "begun by", "finished by", "kl", "top1",
           "agree");
    json_array_foreach(list, i, z) {
        const json_t *h = json_object_get(z, "held_out");
        printf("%-12s %-12s %10.5f %8.4f %8.4f\n", json_string_value(json_object_get(z, "from")), json_string_value(json_object_get(z, "to")),
               json_number_value(json_object_get(h, "kl")), json_number_value(json_object_get(h, "top1")),
               json_number_value(json_object_get(h, "agree")));
    }
}

static void print_report(const json_t *report)
{
    const json_t *list = json_object_get(report, "sizes"), *z, *h;
    size_t i;
    printf("%-12s %8s %8s %12s %12s %10s %8s %8s\n", "size", "budget", "share", "total", "active", "kl", "top1", "agree");
    json_array_foreach(list, i, z) {
        printf("%-12s %8.3f %8.3f %12lld %12lld", json_string_value(json_object_get(z, "name")),
               json_number_value(json_object_get(z, "budget")), json_number_value(json_object_get(z, "share")),
               (long long)json_integer_value(json_object_get(z, "params_total")),
               (long long)json_integer_value(json_object_get(z, "params_active")));
        if ((h = json_object_get(z, "held_out")))
            printf(" %10.5f %8.4f %8.4f", json_number_value(json_object_get(h, "kl")), json_number_value(json_object_get(h, "top1")),
                   json_number_value(json_object_get(h, "agree")));
        printf("\n");
    }
    if (json_object_get(report, "switches"))
        print_switches(json_object_get(report, "switches"));
}

static int elastify(args *a, ns_comm *comm, ns_err *e)
{
    ns_elastify_opts *o = &a->o;
    ns_cli_steps steps = ns_cli_steps_start(a->train.json, 0);
    ns_tokenizer *tok = NULL;
    ns_ckpt *teacher = NULL;
    json_t *report = NULL;
    o->train = a->train.o;
    o->train.on_step = ns_cli_steps_show;
    o->train.on_step_ctx = &steps;
    o->train.interrupted = ns_cli_train_interrupts();
    o->data = a->train.data;
    o->n_data = a->train.n_data;
    o->hold_out = a->train.eval_docs;
    o->seed = a->train.seed;
    o->resume = a->train.resume;
    o->dtype = a->train.dtype;
    if (ns_comm_rank(comm) != 0)
        ns_log_sink(NULL, NULL); /* the same notes on every rank: said once */
    ns_ckpt *c = ns_ckpt_open(a->path, NULL, e);
    int rc = c ? ns_cli_train_tokenizer(a->path, &tok, e) : -1;
    if (rc == 0 && a->teacher)
        rc = (o->teacher = teacher = ns_ckpt_open(a->teacher, NULL, e)) ? 0 : -1;
    bool failed = rc != 0;
    if (ns_comm_any(comm, &failed, e) != 0 || failed)
        rc = rc != 0 ? rc : ns_fail(e, NS_ECANCELLED, "another rank failed");
    if (rc == 0)
        rc = ns_elastify(c, tok, o, a->out, comm, &report, e);
    if (rc == 0 && report) {
        if (a->train.json)
            rc = ns_cli_json(report, false, e);
        else
            print_report(report);
    }
    json_decref(report);
    ns_tokenizer_free(tok);
    ns_ckpt_close(teacher);
    ns_ckpt_close(c);
    return rc;
}

int ns_cmd_elastify(int argc, char **argv)
{
    static const struct argp_child children[] = { { &ns_cli_train_argp, 0, "Data and optimisation:", 40 }, { 0 } };
    static args a;
    ns_err e = { 0 };
    a = (args){ .o = ns_elastify_defaults() };
    a.train = ns_cli_train_defaults(&a.o.train);
    ns_cli_parse(&(struct argp){ options, parse, "PARENT", doc, children, NULL, NULL }, argc, argv, &a);
    ns_comm *comm = ns_comm_open(&e);
    return ns_cli_train_exit(argv[0], comm ? elastify(&a, comm, &e) : -1, &e, comm);
}
