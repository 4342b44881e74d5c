/* nestar eval: a thin face on eval/. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "cli/cmd.h"
#include "cli/common.h"
#include "eval/eval.h"

enum { MAX_SIZES = 32, MAX_BUDGETS = 32 };

typedef struct args {
    const char *dir, *task;
    char *sizes[MAX_SIZES]; /* owned */
    int budgets[MAX_BUDGETS], limit;
    bool json;
    ns_eval_opts o;
    ns_cli_engine engine;
} args;

enum { KEY_TASK = NS_CLI_KEY_COMMAND, KEY_SIZE, KEY_SIZES, KEY_BUDGETS, KEY_BATCH, KEY_MAX_THOUGHT, KEY_MAX_ANSWER, KEY_JSON };

static const struct argp_option options[] = {
    { "task", KEY_TASK, "FILE", 0, "The problems, JSONL: {\"messages\": [..], \"answer\": \"..\"} or {\"question\": .., \"answer\": ..}", 1 },
    { "size", KEY_SIZE, "SIZE", 0, "A size to measure (repeat for more; default: full)", 1 },
    { "sizes", KEY_SIZES, "A,B,..", 0, "Several sizes; axis=width pairs that follow one another are one size", 1 },
    { "think-budgets", KEY_BUDGETS, "N,N,..", 0, "Tokens of thought after which it is closed: numbers, inf (up to --max-thought), 0 (thinking is "
      "off). Default: inf", 1 },
    { NULL, 'n', "N", 0, "Only the first N problems", 1 },
    { "batch", KEY_BATCH, "N", 0, "Sequences at a time (default 32)", 1 },
    { "max-thought", KEY_MAX_THOUGHT, "N", 0, "Tokens of thought that inf stands for (default 512)", 1 },
    { "max-answer", KEY_MAX_ANSWER, "N", 0, "Tokens of an answer (default 64)", 1 },
    { "output", 'o', "FILE", 0, "Every answer, as JSONL", 1 },
    { "json", KEY_JSON, NULL, 0, "The report as JSON, with figures per kind and level", 1 },
    { 0 }
};

static const char doc[] =
    "Accuracy on problems with one right answer, at several sizes and budgets of thought: greedy answers, compared exactly but for white "
    "space at the ends, with Wilson's 95 % interval. Ctrl-C ends it with what is done.\v"
    "Examples:\n"
    "  nestar problems -n 500 --split test -o test.jsonl\n"
    "  nestar eval demo/ --task test.jsonl --sizes full,medium,small --think-budgets 0,16,32,64,inf\n"
    "  nestar eval nano/ --task math.jsonl --size 12B -n 100 --max-thought 8192 --json -o answers.jsonl";

static void add_size(struct argp_state *s, args *a, const char *p, size_t n)
{
    if (a->o.n_sizes == MAX_SIZES)
        argp_error(s, "--size: more than %d", MAX_SIZES);
    if (n == 0)
        argp_error(s, "--sizes: an empty name");
    if (!(a->sizes[a->o.n_sizes++] = strndup(p, n)))
        argp_error(s, "out of memory");
}

/* "full,hidden=96,expert_ffn=32,0.58": a pair behind a pair belongs to it. */
static void add_sizes(struct argp_state *s, args *a, const char *p)
{
    for (;;) {
        size_t n = strcspn(p, ",");
        for (bool pair = memchr(p, '=', n); pair && p[n];) {
            size_t more = strcspn(p + n + 1, ",");
            pair = memchr(p + n + 1, '=', more);
            n += pair ? more + 1 : 0;
        }
        add_size(s, a, p, n);
        if (!p[n])
            return;
        p += n + 1;
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

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case ARGP_KEY_INIT: s->child_inputs[0] = &a->engine; return 0;
    case KEY_TASK: a->task = arg; return 0;
    case KEY_SIZE: add_size(s, a, arg, strlen(arg)); return 0;
    case KEY_SIZES: add_sizes(s, a, arg); return 0;
    case KEY_BUDGETS: add_budgets(s, a, arg); return 0;
    case 'n': a->limit = (int)ns_cli_int(s, "-n", arg, 1, INT_MAX); return 0;
    case KEY_BATCH: a->o.batch = (int)ns_cli_int(s, "--batch", arg, 1, NS_STEP_TOKENS); return 0;
    case KEY_MAX_THOUGHT: a->o.max_thought = (int)ns_cli_int(s, "--max-thought", arg, 1, INT_MAX - 1); return 0;
    case KEY_MAX_ANSWER: a->o.max_answer = (int)ns_cli_int(s, "--max-answer", arg, 1, INT_MAX - 1); return 0;
    case 'o': a->o.results = arg; return 0;
    case KEY_JSON: a->json = true; return 0;
    case ARGP_KEY_ARG: ns_cli_positional(s, &a->dir, arg); return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->dir, "CKPT");
        ns_cli_required(s, a->task, "--task");
        if (!a->o.n_sizes)
            add_size(s, a, "full", 4);
        return 0;
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

static void show(void *ctx, const char *size, int done, int total)
{
    double *last = ctx, now = ns_now();
    if (done < total && now - *last < 0.1)
        return;
    *last = now;
    fprintf(stderr, done < total ? "\r%s: %d of %d answers\033[K" : "\r\033[K", size, done, total);
}

/* ---- the report ---- */

static double real(const json_t *row, const char *key)
{
    return json_number_value(json_object_get(row, key));
}

static void print_table(const json_t *report)
{
    size_t i;
    json_t *row;
    printf("%-24s %6s %7s %9s  %-15s %9s %9s %9s\n", "size", "think", "right", "accuracy", "95 % interval", "thought", "closed", "tok/s");
    json_array_foreach(json_object_get(report, "rows"), i, row) {
        const json_t *b = json_object_get(row, "budget");
        char budget[16];
        snprintf(budget, sizeof budget, "%s", json_is_string(b) ? json_string_value(b) : "");
        if (json_is_integer(b))
            snprintf(budget, sizeof budget, "%lld", (long long)json_integer_value(b));
        printf("%-24s %6s %7.0f %7.1f %%  %5.1f - %5.1f %% %9.1f %9.0f %9.1f\n", json_string_value(json_object_get(row, "size")), budget,
               real(row, "correct"), 100.0 * real(row, "accuracy"), 100.0 * real(row, "low"), 100.0 * real(row, "high"),
               real(row, "thinking_tokens"), real(row, "closed"), real(row, "tokens_per_second"));
        if (real(row, "unfinished") > 0)
            printf("%-24s %6s %7.0f answers did not end\n", "", "", real(row, "unfinished"));
    }
    printf("%lld problems%s\n", (long long)json_integer_value(json_object_get(report, "problems")),
           json_is_true(json_object_get(report, "interrupted")) ? "; interrupted: rows have the answers until then" : "");
}

static int eval(args *a, ns_err *e)
{
    double last = 0;
    ns_task task = { 0 };
    ns_engine *en = NULL;
    json_t *report = NULL;
    a->o.sizes = (const char *const *)a->sizes;
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

int ns_cmd_eval(int argc, char **argv)
{
    args a = { .o = ns_eval_defaults() };
    ns_err e = { 0 };
    a.budgets[0] = NS_EVAL_INF;
    a.o.budgets = a.budgets;
    a.o.n_sizes = 0;
    const struct argp_child children[] = { { &ns_cli_engine_argp, 0, "Loading:", 90 }, { 0 } };
    ns_cli_parse(&(struct argp){ options, parse, "CKPT", doc, children, NULL, NULL }, argc, argv, &a);
    int rc = eval(&a, &e);
    for (int i = 0; i < a.o.n_sizes; i++)
        free(a.sizes[i]);
    int status = ns_cli_exit(argv[0], rc, &e);
    return rc == 0 && interrupted ? 130 : status;
}
