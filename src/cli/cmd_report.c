/* nestar report: a thin face on eval/report. */
#include <stdlib.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/common.h"
#include "eval/report.h"
#include "eval/report_out.h"

enum { MAX_FILES = 256 };

typedef struct args {
    const char *file[MAX_FILES], *drift[MAX_FILES], *out, *checkpoint;
    int n_files, n_drifts;
    double deadline;
    ns_report_opts o;
} args;

enum { KEY_DRIFT = NS_CLI_KEY_COMMAND, KEY_DEADLINE, KEY_CHECKPOINT, KEY_DRAWS, KEY_SEED };

static const struct argp_option options[] = {
    { "output", 'o', "DIR", 0, "The folder: index.html, MODEL_CARD.md and the figures as SVG and PNG", 0 },
    { "drift", KEY_DRIFT, "FILE", 0, "What `nestar compare --json` printed (repeat for more)", 0 },
    { "checkpoint", KEY_CHECKPOINT, "CKPT", 0, "Also say how many parameters and bytes the sizes have in all", 0 },
    { "deadline", KEY_DEADLINE, "TIME", 0, "Also name the best plan within TIME: 2s, 500ms", 0 },
    { "draws", KEY_DRAWS, "N", 0, "Of the bootstrap (default 2000)", 0 },
    { "seed", KEY_SEED, "N", 0, "Of the bootstrap (default 1)", 0 },
    { 0 }
};

static const char doc[] =
    "What the results of `nestar eval` say, as one page that needs nothing else, and a model card: accuracy against latency, tokens and bytes "
    "read, the Pareto front, the best plan for a deadline, whether it pays that one size thinks and another answers, and what each size "
    "loses. Needs gnuplot.\v"
    "Examples:\n"
    "  nestar report results.db -o report\n"
    "  nestar report seed1.db seed2.db --deadline 500ms -o report\n"
    "  nestar compare demo/ --data text.jsonl --json >drift.json\n"
    "  nestar report results.db --drift drift.json --checkpoint demo/ -o report";

static double parse_time(struct argp_state *s, const char *arg)
{
    char *end;
    double t = strtod(arg, &end);
    if (strcmp(end, "ms") == 0)
        t /= 1000;
    else if (end == arg || (*end && strcmp(end, "s") != 0))
        argp_error(s, "--deadline: \"%s\" is no time; 2s or 500ms", arg);
    if (!(t > 0) || t > 1e9)
        argp_error(s, "--deadline: \"%s\" is not above zero, or too long", arg);
    return t;
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    args *a = s->input;
    switch (key) {
    case 'o': a->out = arg; return 0;
    case KEY_DRIFT:
        if (a->n_drifts == MAX_FILES)
            argp_error(s, "--drift: more than %d files", MAX_FILES);
        a->drift[a->n_drifts++] = arg;
        return 0;
    case KEY_CHECKPOINT: a->checkpoint = arg; return 0;
    case KEY_DEADLINE: a->deadline = parse_time(s, arg); return 0;
    case KEY_DRAWS: a->o.draws = (int)ns_cli_int(s, "--draws", arg, 100, 100000); return 0;
    case KEY_SEED: a->o.seed = ns_cli_u64(s, "--seed", arg); return 0;
    case ARGP_KEY_ARG:
        if (a->n_files == MAX_FILES)
            argp_error(s, "more than %d files", MAX_FILES);
        a->file[a->n_files++] = arg;
        return 0;
    case ARGP_KEY_END:
        ns_cli_required(s, a->file[0], "RESULTS.db");
        ns_cli_required(s, a->out, "-o");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* Totals by the checkpoint's word; its active parameters must be those of the results, or it is another one. */
static int add_totals(ns_report *r, const char *dir, ns_err *e)
{
    ns_engine *en = ns_cli_engine_open(dir, &(ns_cli_engine){ 0 }, true, e);
    int rc = en ? 0 : -1;
    for (int g = 0; rc == 0 && g < r->n_groups; g++)
        for (int i = 0; rc == 0 && i < r->group[g]->n_sizes; i++) {
            ns_report_size *s = &r->group[g]->size[i];
            ns_size_info info;
            char name[64];
            rc = ns_engine_resolve(en, s->name, ns_engine_max_context(en), name, sizeof name, &info, e);
            if (rc == 0 && info.params_active != s->active)
                rc = ns_fail(e, NS_EINVAL, "%s: size %s has %lld active parameters, the results say %lld: another checkpoint", dir, s->name,
                             (long long)info.params_active, (long long)s->active);
            if (rc == 0) {
                s->total = info.params_total;
                s->weight_bytes = info.weight_bytes;
            }
        }
    ns_engine_close(en);
    return rc;
}

static void print_summary(const args *a, const ns_report *r)
{
    for (int i = 0; i < r->n_groups; i++) {
        const ns_report_group *g = r->group[i];
        const int best = a->deadline > 0 ? ns_report_best(g, a->deadline) : -1;
        printf("%s on %s: %d plans\n", g->run[0]->checkpoint, g->task, g->n_plans);
        if (a->deadline > 0 && best < 0)
            printf("  within %s: no plan is that quick\n", ns_report_seconds(a->deadline).text);
        else if (best >= 0)
            printf("  within %s: %s, %s (%s) in %s\n", ns_report_seconds(a->deadline).text, ns_report_plan_name(g->plan[best]).text,
                   ns_report_percent(g->plan[best]->accuracy).text, ns_report_interval(g->plan[best]->lo, g->plan[best]->hi).text,
                   ns_report_seconds(g->plan[best]->seconds).text);
    }
    printf("%s/index.html\n", a->out);
}

static int report(const args *a, ns_err *e)
{
    ns_report r = { .deadline = a->deadline };
    int rc = ns_report_read(&r, a->file, a->n_files, e);
    for (int i = 0; i < a->n_drifts && rc == 0; i++)
        rc = ns_report_read_drift(&r, a->drift[i], e);
    if (rc == 0)
        rc = ns_report_compute(&r, &a->o, e);
    if (rc == 0 && a->checkpoint)
        rc = add_totals(&r, a->checkpoint, e);
    if (rc == 0)
        rc = ns_report_write(&r, a->out, e);
    if (rc == 0)
        print_summary(a, &r);
    ns_report_release(&r);
    return rc;
}

int ns_cmd_report(int argc, char **argv)
{
    args a = { .o = ns_report_defaults() };
    ns_err e = { 0 };
    ns_cli_parse(&(struct argp){ options, parse, "RESULTS.db..", doc, NULL, NULL, NULL }, argc, argv, &a);
    int rc = report(&a, &e);
    return ns_cli_exit(argv[0], rc, &e);
}
