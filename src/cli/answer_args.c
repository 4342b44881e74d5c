/* The options of an answer. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/answer.h"

enum {
    KEY_SIZES = NS_CLI_KEY_ANSWER, KEY_SIZE, KEY_FIT, KEY_HANDOVER, KEY_TEMP, KEY_TOP_P, KEY_TOP_K, KEY_MIN_P, KEY_PENALTY, KEY_SEED,
    KEY_STOP, KEY_CONTEXT, KEY_SYSTEM, KEY_NO_THINK, KEY_IGNORE_EOS, KEY_THINK, KEY_ANSWER, KEY_PLAN, KEY_BUDGET, KEY_GRACE, KEY_CLOSE,
    KEY_ANSWER_TOKENS, KEY_DEADLINE
};

static const struct argp_option options[] = {
    { NULL, 0, NULL, 0, "Size:", 10 },
    { "size", KEY_SIZE, "SIZE", 0, "A name, a budget such as 0.58, or axis=width pairs (default: full)", 10 },
    { "sizes", KEY_SIZES, "A:N,..,B", 0, "N tokens of the answer at size A, and so on, the rest at B; the prompt is read at A", 10 },
    { "fit", KEY_FIT, "BYTES", 0, "The largest named size that fits in BYTES, as in 16GiB, with the context full", 10 },
    { "think", KEY_THINK, "SIZE", 0, "Think at SIZE (and read the prompt at it)", 10 },
    { "answer", KEY_ANSWER, "SIZE", 0, "Answer at SIZE, once the thought is over", 10 },
    { "plan", KEY_PLAN, "P", 0, "Sizes by parts: think:12B,last-think:256:full,answer:full (docs/BUDGET.md)", 10 },
    { "handover", KEY_HANDOVER, "HOW", 0, "When the size changes: cache (keep the cache as it is), prefill (read everything again at the new size), late "
      "(prefill, done in pieces beforehand), auto (default: cache where the checkpoint was made for it, else prefill)", 10 },
    { NULL, 0, NULL, 0, "Thought and time:", 15 },
    { "think-budget", KEY_BUDGET, "N", 0, "Close the thought after N tokens; 0 turns thinking off, inf (default) lets it go on", 15 },
    { "grace", KEY_GRACE, "N", 0, "Let a thought go on for up to N tokens beyond its budget, to the end of a line (default 0)", 15 },
    { "close", KEY_CLOSE, "TEXT", 0, "What is put in to close a thought, with </think>; \\n is a line break (default: the chat template's own)", 15 },
    { "answer-tokens", KEY_ANSWER_TOKENS, "N", 0, "At most N tokens behind the thought", 15 },
    { "deadline", KEY_DEADLINE, "TIME", 0, "Have the answer there in TIME (20s, 1.5m), prompt included: the thought is closed while --answer-tokens "
      "(default 256) still have time. Sizes that are not named are chosen", 15 },
    { NULL, 0, NULL, 0, "Sampling (defaults: the checkpoint's generation_config.json, else temperature 1 and everything else off):", 20 },
    { "temp", KEY_TEMP, "T", 0, "Temperature; 0 always takes the likeliest token", 20 },
    { "top-p", KEY_TOP_P, "P", 0, "Keep the likeliest tokens that make up P together", 20 },
    { "top-k", KEY_TOP_K, "K", 0, "Keep the K likeliest; 0 keeps all", 20 },
    { "min-p", KEY_MIN_P, "P", 0, "Keep tokens at least P times as likely as the likeliest", 20 },
    { "repeat-penalty", KEY_PENALTY, "R", 0, "Make tokens seen before less likely; 1 is off", 20 },
    { "seed", KEY_SEED, "N", 0, "Same seed, same answer (default: a new one each time)", 20 },
    { NULL, 0, NULL, 0, "Answer:", 30 },
    { "tokens", 'n', "N", 0, "At most N tokens (default: until the model ends its turn or the context is full)", 30 },
    { "stop", KEY_STOP, "TEXT", 0, "End before TEXT; may be given several times", 30 },
    { "ignore-eos", KEY_IGNORE_EOS, NULL, 0, "Go on after end-of-turn tokens", 30 },
    { "context", KEY_CONTEXT, "N", 0, "Room for N tokens (default: 4096, or the model's maximum if that is less)", 30 },
    { "system", KEY_SYSTEM, "TEXT", 0, "System message", 30 },
    { "no-think", KEY_NO_THINK, NULL, 0, "Tell the chat template enable_thinking=false", 30 },
    { 0 }
};

void ns_cli_answer_args_release(ns_cli_answer_args *a)
{
    ns_segments_release(&a->plan);
    free((char *)(uintptr_t)a->close);
}

/* Whole answers, as --size, --sizes and --fit name them, come before parts: --size 12B --answer full. */
static void set_whole(struct argp_state *s, ns_cli_answer_args *a, const char *prefix, const char *text, bool list)
{
    ns_err e = { 0 };
    ns_buf b = { 0 };
    ns_segments parts = a->plan;
    if (parts.n && parts.seg[0].phase == NS_PHASE_ALL)
        argp_error(s, "give only one of --size, --sizes, --fit");
    a->plan.n = 0;
    ns_buf_addf(&b, "%s%s", prefix, text);
    if (b.failed || (list ? ns_segments_parse_sizes(&a->plan, b.data, &e) : ns_segments_add(&a->plan, NS_PHASE_ALL, 0, b.data, b.len, &e)) != 0)
        argp_error(s, "%s", e.code ? e.msg : "out of memory");
    for (int i = 0; i < parts.n; i++) {
        if (a->plan.n == NS_SEGMENTS)
            argp_error(s, "sizes: more than %d", NS_SEGMENTS);
        a->plan.seg[a->plan.n++] = parts.seg[i];
    }
    ns_buf_release(&b);
}

static void add_part(struct argp_state *s, ns_cli_answer_args *a, enum ns_phase phase, const char *size)
{
    ns_err e = { 0 };
    if (ns_segments_add(&a->plan, phase, 0, size, strlen(size), &e) != 0)
        argp_error(s, "%s", e.msg);
}

static void add_plan(struct argp_state *s, ns_cli_answer_args *a, const char *text)
{
    ns_err e = { 0 };
    if (ns_segments_parse(&a->plan, text, &e) != 0)
        argp_error(s, "--plan: %s", e.msg);
}

/* A token count, "inf" or 0. */
static int budget(struct argp_state *s, const char *arg)
{
    long long n = strcmp(arg, "inf") == 0 ? -1 : ns_cli_int(s, "--think-budget", arg, 0, INT_MAX - 1);
    return n < 0 ? NS_THINK_FREE : n == 0 ? NS_THINK_NONE : (int)n;
}

/* "20s", "1.5m", "500ms", "20" */
static double duration(struct argp_state *s, const char *arg)
{
    static const struct {
        const char *unit;
        double seconds;
    } units[] = { { "", 1 }, { "s", 1 }, { "ms", 1e-3 }, { "m", 60 }, { "min", 60 }, { "h", 3600 } };
    char *end;
    double v = strtod(arg, &end);
    for (size_t i = 0; end != arg && i < sizeof units / sizeof *units; i++)
        if (strcmp(end, units[i].unit) == 0 && v > 0 && v < 1e9)
            return v * units[i].seconds;
    argp_error(s, "--deadline: \"%s\" is no time, such as 20s or 1.5m", arg);
    return 0;
}

/* The text with \n, \t and \\ made what they stand for; the arguments' own copy. */
static char *unescape(struct argp_state *s, const char *arg)
{
    char *text = strdup(arg), *to = text;
    if (!text)
        argp_error(s, "out of memory");
    for (const char *p = arg; text && *p; p++) {
        const char *hit = *p == '\\' && p[1] ? strchr("nt\\", p[1]) : NULL;
        *to++ = hit ? "\n\t\\"[hit - strchr("nt\\", 'n')] : *p;
        p += hit != NULL;
    }
    if (to)
        *to = '\0';
    return text;
}

static void init(ns_cli_answer_args *a)
{
    *a = (ns_cli_answer_args){ .max_tokens = -1, .temperature = NAN, .top_p = NAN, .min_p = NAN, .penalty = NAN, .top_k = -1 };
}

static enum ns_handover handover(struct argp_state *s, const char *arg)
{
    int how = ns_handover_find(arg, strlen(arg));
    if (how < 0)
        argp_error(s, "--handover: \"%s\" is none of auto, cache, prefill, late", arg);
    return (enum ns_handover)how;
}

static void add_stop(struct argp_state *s, ns_cli_answer_args *a, const char *arg)
{
    if (!*arg)
        argp_error(s, "--stop: the text is empty");
    if (a->n_stops == NS_CLI_STOPS)
        argp_error(s, "--stop: more than %d", NS_CLI_STOPS);
    a->stop[a->n_stops++] = arg;
}

/* A budget of 0 and --no-think are one: the template leaves the thought out, and where it opens one all the same it is closed at once. */
static void complete(struct argp_state *s, ns_cli_answer_args *a)
{
    a->no_think = a->no_think || a->think_budget == NS_THINK_NONE;
    if (a->no_think)
        a->think_budget = NS_THINK_NONE;
    bool whole = a->plan.n && a->plan.seg[0].phase == NS_PHASE_ALL;
    if (!whole && !(a->deadline > 0 && a->plan.n == 0))
        set_whole(s, a, "", "full", false);
    for (int i = 0; i < a->plan.n; i++)
        if (a->plan.seg[i].from < 0 && a->think_budget == NS_THINK_FREE)
            argp_error(s, "--plan: last-think counts from the end of --think-budget, which is missing");
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    ns_cli_answer_args *a = s->input;
    switch (key) {
    case ARGP_KEY_INIT:
        init(a);
        s->child_inputs[0] = &a->engine;
        return 0;
    case KEY_SIZE: set_whole(s, a, "", arg, false); return 0;
    case KEY_SIZES: set_whole(s, a, "", arg, true); return 0;
    case KEY_FIT: ns_cli_bytes(s, "--fit", arg); set_whole(s, a, "fit:", arg, false); return 0;
    case KEY_THINK: add_part(s, a, NS_PHASE_THINK, arg); return 0;
    case KEY_ANSWER: add_part(s, a, NS_PHASE_ANSWER, arg); return 0;
    case KEY_PLAN: add_plan(s, a, arg); return 0;
    case KEY_BUDGET: a->think_budget = budget(s, arg); return 0;
    case KEY_GRACE: a->grace = (int)ns_cli_int(s, "--grace", arg, 0, INT_MAX); return 0;
    case KEY_CLOSE: free((char *)(uintptr_t)a->close); a->close = unescape(s, arg); return 0;
    case KEY_ANSWER_TOKENS: a->answer_tokens = (int)ns_cli_int(s, "--answer-tokens", arg, 1, INT_MAX); return 0;
    case KEY_DEADLINE: a->deadline = duration(s, arg); return 0;
    case KEY_HANDOVER: a->handover = handover(s, arg); return 0;
    case KEY_TEMP: a->temperature = ns_cli_real(s, "--temp", arg, 0, 1e6); return 0;
    case KEY_TOP_P: a->top_p = ns_cli_real(s, "--top-p", arg, 1e-9, 1); return 0;
    case KEY_MIN_P: a->min_p = ns_cli_real(s, "--min-p", arg, 0, 1); return 0;
    case KEY_PENALTY: a->penalty = ns_cli_real(s, "--repeat-penalty", arg, 1e-6, 1e6); return 0;
    case KEY_TOP_K: a->top_k = (int)ns_cli_int(s, "--top-k", arg, 0, INT_MAX); return 0;
    case KEY_SEED: a->seed = ns_cli_u64(s, "--seed", arg); a->has_seed = true; return 0;
    case 'n': a->max_tokens = (long)ns_cli_int(s, "-n", arg, 0, INT_MAX); return 0;
    case KEY_STOP: add_stop(s, a, arg); return 0;
    case KEY_IGNORE_EOS: a->ignore_eos = true; return 0;
    case KEY_CONTEXT: a->context = (int)ns_cli_int(s, "--context", arg, 1, INT_MAX); return 0;
    case KEY_SYSTEM: a->system = arg; return 0;
    case KEY_NO_THINK: a->no_think = true; return 0;
    case ARGP_KEY_END: complete(s, a); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = { { &ns_cli_engine_argp, 0, "Loading:", 90 }, { 0 } };
const struct argp ns_cli_answer_argp = { .options = options, .parser = parse, .children = children };
