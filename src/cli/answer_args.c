/* The options of an answer. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/answer.h"

enum {
    KEY_SIZES = NS_CLI_KEY_ANSWER, KEY_SIZE, KEY_FIT, KEY_HANDOVER, KEY_TEMP, KEY_TOP_P, KEY_TOP_K, KEY_MIN_P, KEY_PENALTY, KEY_SEED,
    KEY_STOP, KEY_CONTEXT, KEY_SYSTEM, KEY_NO_THINK, KEY_IGNORE_EOS
};

static const struct argp_option options[] = {
    { NULL, 0, NULL, 0, "Size:", 10 },
    { "size", KEY_SIZE, "SIZE", 0, "A name, a budget such as 0.58, or axis=width pairs (default: full)", 10 },
    { "sizes", KEY_SIZES, "A:N,..,B", 0, "N tokens of the answer at size A, and so on, the rest at B; the prompt is read at A", 10 },
    { "fit", KEY_FIT, "BYTES", 0, "The largest named size that fits in BYTES, as in 16GiB, with the context full", 10 },
    { "handover", KEY_HANDOVER, "HOW", 0, "When the size changes: cache (keep the cache as it is), prefill (read everything again at the new size), auto "
      "(default: cache where the shapes allow it)", 10 },
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

static void drop_phases(ns_cli_answer_args *a)
{
    for (int i = 0; i < a->n_phases; i++)
        free(a->phase[i].size);
    a->n_phases = 0;
}

void ns_cli_answer_args_release(ns_cli_answer_args *a)
{
    drop_phases(a);
}

static int add_phase(ns_cli_answer_args *a, const char *size, size_t n, long tokens, ns_err *e)
{
    if (n == 0)
        return ns_fail(e, NS_EINVAL, "sizes: an empty name");
    if (a->n_phases == NS_CLI_PHASES)
        return ns_fail(e, NS_EINVAL, "sizes: more than %d", NS_CLI_PHASES);
    char *copy = strndup(size, n);
    if (!copy)
        return ns_fail(e, NS_ENOMEM, "sizes: out of memory");
    a->phase[a->n_phases++] = (ns_cli_phase){ copy, tokens };
    return 0;
}

/* The count behind the last colon of p[0..n), and the length in front of it; -1 when there is no count. "fit:16GiB" has none. */
static long take_count(const char *p, size_t *n)
{
    size_t i = *n;
    while (i > 0 && p[i - 1] >= '0' && p[i - 1] <= '9')
        i--;
    if (i == *n || i < 2 || p[i - 1] != ':')
        return -1;
    long count = strtol(p + i, NULL, 10);
    *n = i - 1;
    return count < INT_MAX ? count : INT_MAX;
}

/* Only the last size may go without a count, so a comma behind one that has none belongs to it: "hidden=32,expert_ffn=8:20,full". */
int ns_cli_phases_parse(ns_cli_answer_args *a, const char *text, ns_err *e)
{
    drop_phases(a);
    for (const char *from = text, *p = text;; p++) {
        if (*p != ',' && *p != '\0')
            continue;
        size_t n = (size_t)(p - from);
        long count = take_count(from, &n);
        if (count < 0 && *p)
            continue;
        if (add_phase(a, from, n, count, e) != 0)
            return -1;
        if (!*p)
            return 0;
        from = p + 1;
    }
}

static void set_phases(struct argp_state *s, ns_cli_answer_args *a, const char *prefix, const char *text, bool list)
{
    ns_err e = { 0 };
    ns_buf b = { 0 };
    if (a->n_phases)
        argp_error(s, "give only one of --size, --sizes, --fit");
    ns_buf_addf(&b, "%s%s", prefix, text);
    if (b.failed || (list ? ns_cli_phases_parse(a, b.data, &e) : add_phase(a, b.data, b.len, -1, &e)) != 0)
        argp_error(s, "%s", e.code ? e.msg : "out of memory");
    ns_buf_release(&b);
}

static void init(ns_cli_answer_args *a)
{
    *a = (ns_cli_answer_args){ .max_tokens = -1, .temperature = NAN, .top_p = NAN, .min_p = NAN, .penalty = NAN, .top_k = -1 };
}

static enum ns_handover handover(struct argp_state *s, const char *arg)
{
    static const char *const names[] = { [NS_HANDOVER_AUTO] = "auto", [NS_HANDOVER_CACHE] = "cache", [NS_HANDOVER_PREFILL] = "prefill" };
    for (int i = 0; i < 3; i++)
        if (strcmp(arg, names[i]) == 0)
            return (enum ns_handover)i;
    argp_error(s, "--handover: \"%s\" is none of auto, cache, prefill", arg);
    return NS_HANDOVER_AUTO;
}

static void add_stop(struct argp_state *s, ns_cli_answer_args *a, const char *arg)
{
    if (!*arg)
        argp_error(s, "--stop: the text is empty");
    if (a->n_stops == NS_CLI_STOPS)
        argp_error(s, "--stop: more than %d", NS_CLI_STOPS);
    a->stop[a->n_stops++] = arg;
}

static error_t parse(int key, char *arg, struct argp_state *s)
{
    ns_cli_answer_args *a = s->input;
    switch (key) {
    case ARGP_KEY_INIT:
        init(a);
        s->child_inputs[0] = &a->engine;
        return 0;
    case KEY_SIZE: set_phases(s, a, "", arg, false); return 0;
    case KEY_SIZES: set_phases(s, a, "", arg, true); return 0;
    case KEY_FIT: ns_cli_bytes(s, "--fit", arg); set_phases(s, a, "fit:", arg, false); return 0;
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
    case ARGP_KEY_END:
        if (!a->n_phases)
            set_phases(s, a, "", "full", false);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = { { &ns_cli_engine_argp, 0, "Loading:", 90 }, { 0 } };
const struct argp ns_cli_answer_argp = { .options = options, .parser = parse, .children = children };
