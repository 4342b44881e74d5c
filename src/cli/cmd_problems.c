/* nestar problems: a thin face on train/problems. */
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/common.h"
#include "train/problems.h"

typedef struct args {
    const char *out;
    long long count;
    ns_problem_opts o;
    double no_think, cut; /* < 0: the split's default */
} args;

enum { KEY_SEED = NS_CLI_KEY_COMMAND, KEY_KINDS, KEY_LEVEL, KEY_NO_THINK, KEY_CUT, KEY_SPLIT };

static const struct argp_option options[] = {
    { "output", 'o', "FILE", 0, "The JSONL file to write (\"-\": standard output)", 0 },
    { NULL, 'n', "COUNT", 0, "Problems to make", 0 },
    { "seed", KEY_SEED, "N", 0, "Same seed, same problems (default 0)", 0 },
    { "kinds", KEY_KINDS, "LIST", 0, "Of chain, vars, list, expr, sum (default: all)", 0 },
    { "level", KEY_LEVEL, "LO-HI", 0, "Steps that a problem takes (default 2-6)", 0 },
    { "split", KEY_SPLIT, "train|test", 0, "Which questions (default train). No question is in both: one in 16 is a test question, by its hash", 0 },
    { "no-think-share", KEY_NO_THINK, "X", 0, "Share of answers without thinking (default 0.15; test 0)", 0 },
    { "cut-share", KEY_CUT, "X", 0, "Share of answers behind a thought that was cut off somewhere (default 0.1; test 0)", 0 },
    { 0 }
};

static const char doc[] =
    "Makes reasoning problems with worked thoughts and checked answers, as chat messages, one a line: what `nestar train` reads and "
    "`nestar eval` asks.\v"
    "Examples:\n"
    "  nestar problems -n 200000 --seed 1 -o train.jsonl\n"
    "  nestar problems -n 1000 --split test --level 4-6 -o test.jsonl\n"
    "  nestar problems -n 20 --kinds chain,expr -o -";

static unsigned parse_kinds(struct argp_state *s, const char *arg)
{
    unsigned kinds = 0;
    for (const char *p = arg;; p++) {
        char name[16];
        size_t n = strcspn(p, ",");
        snprintf(name, sizeof name, "%.*s", (int)(n < sizeof name ? n : sizeof name), p);
        int k = ns_problem_kind_find(name);
        if (k < 0)
            argp_error(s, "--kinds: \"%.*s\" is none of chain, vars, list, expr, sum", (int)n, p);
        kinds |= 1u << k;
        p += n;
        if (!*p)
            return kinds;
    }
}

static void parse_level(struct argp_state *s, const char *arg, ns_problem_opts *o)
{
    char lo[16];
    size_t n = strcspn(arg, "-");
    snprintf(lo, sizeof lo, "%.*s", (int)(n < sizeof lo ? n : sizeof lo), arg);
    o->level_lo = (int)ns_cli_int(s, "--level", lo, 1, NS_PROBLEM_LEVEL_MAX);
    o->level_hi = arg[n] ? (int)ns_cli_int(s, "--level", arg + n + 1, o->level_lo, NS_PROBLEM_LEVEL_MAX) : o->level_lo;
}

static ns_problem_split parse_split(struct argp_state *s, const char *arg)
{
    if (strcmp(arg, "train") != 0 && strcmp(arg, "test") != 0)
        argp_error(s, "--split: \"%s\" is neither train nor test", arg);
    return strcmp(arg, "test") == 0 ? NS_PROBLEM_TEST : NS_PROBLEM_TRAIN;
}

static void finish(struct argp_state *s, args *a)
{
    ns_problem_opts d = ns_problem_defaults(a->o.split);
    a->o.no_think = a->no_think < 0 ? d.no_think : a->no_think;
    a->o.cut = a->cut < 0 ? d.cut : a->cut;
    if (a->o.no_think + a->o.cut > 1)
        argp_error(s, "--no-think-share and --cut-share are more than all together");
    ns_cli_required(s, a->out, "-o FILE");
    if (!a->count)
        argp_error(s, "-n COUNT is missing");
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case 'o': a->out = arg; return 0;
    case 'n': a->count = ns_cli_int(s, "-n", arg, 1, 1000000000); return 0;
    case KEY_SEED: a->o.seed = ns_cli_u64(s, "--seed", arg); return 0;
    case KEY_KINDS: a->o.kinds = parse_kinds(s, arg); return 0;
    case KEY_LEVEL: parse_level(s, arg, &a->o); return 0;
    case KEY_SPLIT: a->o.split = parse_split(s, arg); return 0;
    case KEY_NO_THINK: a->no_think = ns_cli_real(s, "--no-think-share", arg, 0, 1); return 0;
    case KEY_CUT: a->cut = ns_cli_real(s, "--cut-share", arg, 0, 1); return 0;
    case ARGP_KEY_END: finish(s, a); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static int print(const args *a, ns_err *e)
{
    ns_problem p = { 0 };
    ns_buf line = { 0 };
    int rc = 0;
    for (long long i = 0; rc == 0 && i < a->count; i++) {
        ns_buf_clear(&line);
        rc = ns_problem_line(&a->o, (uint64_t)i, &p, &line, e) == 0 ? ns_cli_write(line.data, line.len, e) : -1;
    }
    ns_problem_release(&p);
    ns_buf_release(&line);
    return rc;
}

int ns_cmd_problems(int argc, char **argv)
{
    args a = { .o = ns_problem_defaults(NS_PROBLEM_TRAIN), .no_think = -1, .cut = -1 };
    ns_err e = { 0 };
    ns_cli_parse(&(struct argp){ options, parse, NULL, doc, NULL, NULL, NULL }, argc, argv, &a);
    int rc = strcmp(a.out, "-") == 0 ? print(&a, &e) : ns_problems_write(&a.o, (uint64_t)a.count, a.out, &e);
    return ns_cli_exit(argv[0], rc, &e);
}
