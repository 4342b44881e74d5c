/* nestar eval: a thin face on eval/. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cmd.h"
#include "cli/common.h"
#include "eval/eval.h"
#include "run/engine.h"

enum { MAX_SIZES = 32, MAX_PAIRS = 64, MAX_BUDGETS = 32, MAX_HANDOVERS = 3 };

typedef struct args {
    const char *dir, *task;
    char *sizes[MAX_SIZES], *think[MAX_SIZES], *answer[MAX_SIZES]; /* owned */
    int n_think, n_answer;
    ns_eval_pair pairs[MAX_PAIRS];
    char *pair_text[2 * MAX_PAIRS]; /* what pairs point to; owned */
    int n_text;
    enum ns_handover handovers[MAX_HANDOVERS];
    int budgets[MAX_BUDGETS], limit;
    bool json;
    double temperature, top_p; /* negative: not given */
    uint64_t seed;
    ns_eval_opts o;
    ns_cli_engine engine;
} args;

enum {
    KEY_TASK = NS_CLI_KEY_COMMAND, KEY_SIZE, KEY_SIZES, KEY_THINK, KEY_ANSWERS, KEY_PAIRS, KEY_HANDOVER, KEY_BUDGETS, KEY_BATCH, KEY_MAX_THOUGHT,
    KEY_MAX_ANSWER, KEY_GRACE, KEY_SAMPLES, KEY_TEMPERATURE, KEY_TOP_P, KEY_SEED, KEY_RESULTS, KEY_JSON
};

static const struct argp_option options[] = {
    { "task", KEY_TASK, "TASK", 0, "The problems: FILE.jsonl with {\"messages\": [..], \"answer\": \"..\"} or {\"question\": .., \"answer\": ..}, or "
      "NAME:PATH with a file or folder of gsm8k, aime, math, mmlu, mmlu-pro, bbh, ifeval or ifbench (docs/EVAL.md)", 1 },
    { NULL, 'n', "N", 0, "Only the first N problems", 1 },
    { NULL, 0, NULL, 0, "How they are answered:", 2 },
    { "size", KEY_SIZE, "SIZE", 0, "A size to measure (repeat for more; default: full)", 2 },
    { "sizes", KEY_SIZES, "A,B,..", 0, "Several sizes; axis=width pairs that follow one another are one size", 2 },
    { "think", KEY_THINK, "A,B,..", 0, "Sizes that think, each with each size of --answers", 2 },
    { "answers", KEY_ANSWERS, "A,B,..", 0, "Sizes that answer", 2 },
    { "pairs", KEY_PAIRS, "A:B,C:D,..", 0, "Pairs of a size that thinks and one that answers", 2 },
    { "handover", KEY_HANDOVER, "HOW,..", 0, "From the one to the other: cache, prefill, late; each is measured. Default: auto, what the checkpoint allows", 2 },
    { "think-budgets", KEY_BUDGETS, "N,N,..", 0, "Tokens of thought after which it is closed: numbers, inf (up to --max-thought), 0 (thinking is "
      "off). Default: inf", 2 },
    { "max-thought", KEY_MAX_THOUGHT, "N", 0, "Tokens of thought that inf stands for (default 512)", 2 },
    { "max-answer", KEY_MAX_ANSWER, "N", 0, "Tokens of an answer (default 64)", 2 },
    { "grace", KEY_GRACE, "N", 0, "Tokens beyond a budget in which a thought may come to the end of its line (default 0)", 2 },
    { "batch", KEY_BATCH, "N", 0, "Sequences at a time (default 32)", 2 },
    { "samples", KEY_SAMPLES, "K", 0, "Answers to each problem (default 1); with more, pass@k is reported", 2 },
    { "temperature", KEY_TEMPERATURE, "T", 0, "Draw from the model's distribution at this temperature (default: greedy)", 2 },
    { "top-p", KEY_TOP_P, "P", 0, "Draw from the likeliest tokens that have P together", 2 },
    { "seed", KEY_SEED, "N", 0, "Of the draws (default 0)", 2 },
    { NULL, 0, NULL, 0, "Results:", 3 },
    { "results", KEY_RESULTS, "FILE.db", 0, "Keep every answer in this SQLite file as it comes; the same command again goes on where it was", 3 },
    { "output", 'o', "FILE", 0, "Every answer, as JSONL", 3 },
    { "json", KEY_JSON, NULL, 0, "The report as JSON, with figures per kind and level", 3 },
    { 0 }
};

static const char doc[] =
    "Accuracy on problems whose answers can be checked, at several sizes and budgets of thought, with 95 % intervals. Answers are extracted and "
    "compared by the rule of each task; own problems are compared exactly but for white space at the ends. Nothing is downloaded and no code that "
    "a model writes is run. Ctrl-C ends it with what is done.\v"
    "Examples:\n"
    "  nestar problems -n 500 --split test -o test.jsonl\n"
    "  nestar eval demo/ --task test.jsonl --sizes full,medium,small --think-budgets 0,16,32,64,inf --results demo.db\n"
    "  nestar eval demo/ --task test.jsonl --pairs small:full,full:small --handover cache,prefill --think-budgets 16,32,inf\n"
    "  nestar eval nano/ --task math:math500.jsonl --size 12B -n 100 --max-thought 8192 --max-answer 1024 --json -o answers.jsonl\n"
    "  nestar eval nano/ --task aime:aime24.jsonl --samples 8 --temperature 1 --top-p 0.95 --max-thought 16384 --max-answer 1024 --results aime.db";

static void add_size(struct argp_state *s, char **list, int *n_list, const char *p, size_t n)
{
    if (*n_list == MAX_SIZES)
        argp_error(s, "--size: more than %d", MAX_SIZES);
    if (n == 0)
        argp_error(s, "--sizes: an empty name");
    if (!(list[(*n_list)++] = strndup(p, n)))
        argp_error(s, "out of memory");
}

/* "full,hidden=96,expert_ffn=32,0.58": a pair behind a pair belongs to it. */
static size_t one_size(const char *p)
{
    size_t n = strcspn(p, ",");
    for (bool pair = memchr(p, '=', n); pair && p[n];) {
        size_t more = strcspn(p + n + 1, ",");
        pair = memchr(p + n + 1, '=', more);
        n += pair ? more + 1 : 0;
    }
    return n;
}

static void add_sizes(struct argp_state *s, char **list, int *n_list, const char *p)
{
    for (;;) {
        size_t n = one_size(p);
        add_size(s, list, n_list, p, n);
        if (!p[n])
            return;
        p += n + 1;
    }
}

static void add_pair(struct argp_state *s, args *a, const char *think, size_t n_think, const char *answer, size_t n_answer)
{
    if (a->o.n_pairs == MAX_PAIRS)
        argp_error(s, "--pairs: more than %d", MAX_PAIRS);
    char *t = strndup(think, n_think), *b = strndup(answer, n_answer);
    if (!t || !b)
        argp_error(s, "out of memory");
    a->pair_text[a->n_text++] = t;
    a->pair_text[a->n_text++] = b;
    a->pairs[a->o.n_pairs++] = (ns_eval_pair){ t, b };
}

static void add_pairs(struct argp_state *s, args *a, const char *p)
{
    for (;;) {
        size_t n = one_size(p);
        const char *colon = memchr(p, ':', n);
        if (!colon || colon == p || colon + 1 == p + n)
            argp_error(s, "--pairs: \"%.*s\" is no pair of sizes THINK:ANSWER", (int)n, p);
        add_pair(s, a, p, (size_t)(colon - p), colon + 1, (size_t)(p + n - colon - 1));
        if (!p[n])
            return;
        p += n + 1;
    }
}

static void add_handovers(struct argp_state *s, args *a, const char *p)
{
    a->o.n_handovers = 0;
    for (;; p++) {
        size_t n = strcspn(p, ",");
        int how = ns_handover_find(p, n);
        if (how < 0)
            argp_error(s, "--handover: \"%.*s\" is none of auto, cache, prefill, late", (int)n, p);
        for (int i = 0; i < a->o.n_handovers; i++)
            if ((int)a->handovers[i] == how)
                argp_error(s, "--handover: %.*s is given twice", (int)n, p);
        if (a->o.n_handovers && (how == NS_HANDOVER_AUTO || a->handovers[0] == NS_HANDOVER_AUTO))
            argp_error(s, "--handover: auto is one of the others, and stands alone");
        a->handovers[a->o.n_handovers++] = (enum ns_handover)how;
        p += n;
        if (!*p)
            return;
    }
}

static void add_budgets(struct argp_state *s, args *a, const char *p)
{
    a->o.n_budgets = 0;
    for (;; p++) {
        char text[16];
        size_t n = strcspn(p, ",");
        if (a->o.n_budgets == MAX_BUDGETS)
            argp_error(s, "--think-budgets: more than %d", MAX_BUDGETS);
        snprintf(text, sizeof text, "%.*s", (int)(n < sizeof text ? n : sizeof text), p);
        int b = strcmp(text, "inf") == 0 ? NS_EVAL_INF : (int)ns_cli_int(s, "--think-budgets", text, 0, INT_MAX - 1);
        a->budgets[a->o.n_budgets++] = b;
        p += n;
        if (!*p)
            return;
    }
}

static void finish_args(struct argp_state *s, args *a)
{
    ns_cli_required(s, a->dir, "CKPT");
    ns_cli_required(s, a->task, "--task");
    if (!a->n_think != !a->n_answer)
        argp_error(s, "--think and --answers go together");
    for (int i = 0; i < a->n_think; i++)
        for (int k = 0; k < a->n_answer; k++)
            add_pair(s, a, a->think[i], strlen(a->think[i]), a->answer[k], strlen(a->answer[k]));
    if (!a->o.n_sizes && !a->o.n_pairs)
        add_size(s, a->sizes, &a->o.n_sizes, "full", 4);
    if (a->temperature < 0.0 && a->top_p >= 0.0)
        argp_error(s, "--top-p needs --temperature");
    if (a->o.samples > 1 && a->temperature <= 0.0)
        argp_error(s, "--samples %d needs --temperature: greedy answers would all be the same", a->o.samples);
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case ARGP_KEY_INIT: s->child_inputs[0] = &a->engine; return 0;
    case KEY_TASK: a->task = arg; return 0;
    case KEY_SIZE: add_size(s, a->sizes, &a->o.n_sizes, arg, strlen(arg)); return 0;
    case KEY_SIZES: add_sizes(s, a->sizes, &a->o.n_sizes, arg); return 0;
    case KEY_THINK: add_sizes(s, a->think, &a->n_think, arg); return 0;
    case KEY_ANSWERS: add_sizes(s, a->answer, &a->n_answer, arg); return 0;
    case KEY_PAIRS: add_pairs(s, a, arg); return 0;
    case KEY_HANDOVER: add_handovers(s, a, arg); return 0;
    case KEY_BUDGETS: add_budgets(s, a, arg); return 0;
    case 'n': a->limit = (int)ns_cli_int(s, "-n", arg, 1, INT_MAX); return 0;
    case KEY_BATCH: a->o.batch = (int)ns_cli_int(s, "--batch", arg, 1, NS_STEP_TOKENS); return 0;
    case KEY_MAX_THOUGHT: a->o.max_thought = (int)ns_cli_int(s, "--max-thought", arg, 1, INT_MAX - 1); return 0;
    case KEY_MAX_ANSWER: a->o.max_answer = (int)ns_cli_int(s, "--max-answer", arg, 1, INT_MAX - 1); return 0;
    case KEY_GRACE: a->o.grace = (int)ns_cli_int(s, "--grace", arg, 0, 1 << 20); return 0;
    case KEY_SAMPLES: a->o.samples = (int)ns_cli_int(s, "--samples", arg, 1, 1 << 20); return 0;
    case KEY_TEMPERATURE: a->temperature = ns_cli_real(s, "--temperature", arg, 0, 100); return 0;
    case KEY_TOP_P: a->top_p = ns_cli_real(s, "--top-p", arg, 0, 1); return 0;
    case KEY_SEED: a->seed = ns_cli_u64(s, "--seed", arg); return 0;
    case KEY_RESULTS: a->o.results = arg; return 0;
    case 'o': a->o.answers = arg; return 0;
    case KEY_JSON: a->json = true; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->dir, arg); return 0;
    case ARGP_KEY_END: finish_args(s, a); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- while it runs ---- */

static volatile sig_atomic_t interrupted; /* a signal handler has no other way */

static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
}

static void show(void *ctx, const ns_eval_progress *p)
{
    double *last = ctx, now = ns_now();
    if (p->done < p->total && now - *last < 0.1)
        return;
    *last = now;
    if (p->done == p->total) {
        fputs("\r\033[K", stderr);
        return;
    }
    fprintf(stderr, "\r%s: %ld of %ld answers, %.0f tokens/s", p->plan, p->done, p->total, p->tokens_per_second);
    long left = p->seconds_left < 1e7 ? (long)p->seconds_left : -1;
    if (left >= 0)
        fprintf(stderr, left >= 3600 ? ", %ld h %02ld min left" : ", %ld:%02ld left", left >= 3600 ? left / 3600 : left / 60,
                left >= 3600 ? left / 60 % 60 : left % 60);
    fputs("\033[K", stderr);
}

/* ---- the report ---- */

static double real(const json_t *row, const char *key)
{
    return json_number_value(json_object_get(row, key));
}

static void print_pass_at(const json_t *row)
{
    const char *k;
    json_t *v, *at = json_object_get(row, "pass_at");
    if (!at)
        return;
    printf("%-24s %6s", "", "");
    json_object_foreach(at, k, v)
        printf("  pass@%s %.1f %%", k, 100.0 * json_real_value(v));
    putchar('\n');
}

static void print_row(const json_t *row)
{
    const json_t *b = json_object_get(row, "budget");
    const char *handover = json_string_value(json_object_get(row, "handover"));
    char budget[24], name[160];
    snprintf(budget, sizeof budget, "%s", json_is_string(b) ? json_string_value(b) : "");
    if (json_is_integer(b))
        snprintf(budget, sizeof budget, "%lld", (long long)json_integer_value(b));
    snprintf(name, sizeof name, "%s%s%s", json_string_value(json_object_get(row, "size")), handover ? " " : "", handover ? handover : "");
    printf("%-24s %6s %7.0f %7.1f %%  %5.1f - %5.1f %% %9.1f %9.0f %9.1f\n", name, budget, real(row, "correct"), 100.0 * real(row, "accuracy"),
           100.0 * real(row, "low"), 100.0 * real(row, "high"), real(row, "thinking_tokens"), real(row, "closed"), real(row, "tokens_per_second"));
    print_pass_at(row);
    if (real(row, "unfinished") > 0)
        printf("%-24s %6s %7.0f answers did not end\n", "", "", real(row, "unfinished"));
    if (real(row, "ungraded") > 0)
        printf("%-24s %6s %7.0f answers could not be graded and count for nothing\n", "", "", real(row, "ungraded"));
}

static void print_table(const json_t *report)
{
    size_t i;
    json_t *row;
    long long samples = (long long)json_integer_value(json_object_get(report, "samples"));
    printf("%-24s %6s %7s %9s  %-15s %9s %9s %9s\n", "size", "think", "right", "accuracy", "95 % interval", "thought", "closed", "tok/s");
    json_array_foreach(json_object_get(report, "rows"), i, row)
        print_row(row);
    printf("%lld problems", (long long)json_integer_value(json_object_get(report, "problems")));
    if (samples > 1)
        printf(", %lld answers to each", samples);
    puts(json_is_true(json_object_get(report, "interrupted")) ? "; interrupted: rows have the answers until then" : "");
}

static int eval(args *a, ns_err *e)
{
    double last = 0;
    ns_task task = { 0 };
    ns_engine *en = NULL;
    json_t *report = NULL;
    ns_sampling sampling = { .temperature = a->temperature, .top_p = a->top_p >= 0.0 ? a->top_p : 1.0, .repetition_penalty = 1.0, .seed = a->seed };
    a->o.sizes = (const char *const *)a->sizes;
    a->o.sampling = a->temperature > 0.0 ? &sampling : NULL;
    a->o.checkpoint = a->dir;
    a->o.nest_path = a->engine.nest;
    a->o.task = a->task;
    if (isatty(STDERR_FILENO)) {
        a->o.progress = show;
        a->o.progress_ctx = &last;
    }
    a->o.interrupted = &interrupted;
    if (ns_task_open(a->task, a->limit, &task, e) == 0 && (en = ns_cli_engine_open(a->dir, &a->engine, false, e))) {
        struct sigaction sa = { .sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND };
        sigemptyset(&sa.sa_mask);
        sigaction(SIGINT, &sa, NULL);
        report = ns_eval_run(en, &task, &a->o, e);
        signal(SIGINT, SIG_DFL);
    }
    int rc = report ? 0 : -1;
    if (report && a->json)
        rc = ns_cli_json(report, true, e);
    else if (report)
        print_table(report);
    json_decref(report);
    ns_engine_close(en);
    ns_task_release(&task);
    return rc;
}

static void free_all(char **list, int n)
{
    for (int i = 0; i < n; i++)
        free(list[i]);
}

int ns_cmd_eval(int argc, char **argv)
{
    args a = { .o = ns_eval_defaults(), .temperature = -1.0, .top_p = -1.0, .handovers = { NS_HANDOVER_AUTO } };
    ns_err e = { 0 };
    a.budgets[0] = NS_EVAL_INF;
    a.o.budgets = a.budgets;
    a.o.n_sizes = 0;
    a.o.pairs = a.pairs;
    a.o.handovers = a.handovers;
    const struct argp_child children[] = { { &ns_cli_engine_argp, 0, "Loading:", 90 }, { 0 } };
    ns_cli_parse(&(struct argp){ options, parse, "CKPT", doc, children, NULL, NULL }, argc, argv, &a);
    int rc = eval(&a, &e);
    free_all(a.sizes, a.o.n_sizes);
    free_all(a.think, a.n_think);
    free_all(a.answer, a.n_answer);
    free_all(a.pair_text, a.n_text);
    int status = ns_cli_exit(argv[0], rc, &e);
    return rc == 0 && interrupted ? 130 : status;
}
