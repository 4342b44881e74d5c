#include "cli/answer.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/log.h"

/* ---- Ctrl-C ---- */

/* A signal handler has no other way to reach the session. */
static ns_session *volatile working;
static volatile sig_atomic_t interrupted;

static void on_interrupt(int sig)
{
    (void)sig;
    interrupted = 1;
    if (working)
        ns_session_cancel(working);
}

void ns_cli_interrupt_begin(ns_session *s)
{
    struct sigaction sa = { .sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND };
    sigemptyset(&sa.sa_mask);
    interrupted = 0;
    working = s;
    sigaction(SIGINT, &sa, NULL);
}

bool ns_cli_interrupted(void)
{
    return interrupted;
}

void ns_cli_interrupt_end(void)
{
    signal(SIGINT, SIG_DFL);
    working = NULL;
}

/* ---- the session ---- */

static ns_sampling sampling(const ns_engine *en, const ns_cli_answer_args *a)
{
    ns_sampling s = ns_engine_sampling(en);
    s.temperature = isnan(a->temperature) ? s.temperature : a->temperature;
    s.top_p = isnan(a->top_p) ? s.top_p : a->top_p;
    s.min_p = isnan(a->min_p) ? s.min_p : a->min_p;
    s.repetition_penalty = isnan(a->penalty) ? s.repetition_penalty : a->penalty;
    s.top_k = a->top_k < 0 ? s.top_k : a->top_k;
    uint32_t drawn = 0;
    if (!a->has_seed && getrandom(&drawn, sizeof drawn, 0) != (ssize_t)sizeof drawn)
        drawn = (uint32_t)(ns_now() * 1e6);
    s.seed = a->has_seed ? a->seed : drawn; /* 32 bits: short enough to be typed again */
    return s;
}

ns_session *ns_cli_session_new(ns_engine *en, const ns_cli_answer_args *a, uint64_t *seed, ns_err *e)
{
    ns_sampling sa = sampling(en, a);
    *seed = sa.seed;
    return ns_session_new(en, &(ns_session_opts){ .size = a->phase[0].size, .context = a->context, .sampling = &sa }, e);
}

/* ---- text on its way out ---- */

typedef struct output {
    const ns_engine *en;
    const ns_cli_answer_args *a;
    ns_cli_answer *out;
    ns_detok detok;
    size_t shown; /* bytes of out->text that are on standard output */
    bool stream, terminal; /* goes to standard output; which is a terminal */
} output;

/* How many of the last bytes of the text could begin a stop string. */
static size_t held_back(const output *o)
{
    const ns_buf *t = &o->out->text;
    size_t most = 0;
    for (int i = 0; i < o->a->n_stops; i++) {
        size_t n = strlen(o->a->stop[i]), k = n - 1 < t->len ? n - 1 : t->len;
        while (k > most && memcmp(t->data + t->len - k, o->a->stop[i], k) != 0)
            k--;
        most = k > most ? k : most;
    }
    return most;
}

/* Cuts the text at the first stop string in it; true when there is one. */
static bool cut_at_stop(output *o)
{
    ns_buf *t = &o->out->text;
    size_t at = t->len;
    for (int i = 0; i < o->a->n_stops && t->data; i++) {
        const char *hit = memmem(t->data + o->shown, t->len - o->shown, o->a->stop[i], strlen(o->a->stop[i]));
        if (hit && (size_t)(hit - t->data) < at)
            at = (size_t)(hit - t->data);
    }
    if (at == t->len)
        return false;
    t->data[at] = '\0';
    t->len = at;
    return true;
}

/* For a terminal: control characters, which could move the cursor or worse, as pictures of themselves. Text is valid UTF-8. */
static void add_harmless(ns_buf *out, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f)
            ns_buf_add(out, (const char[]){ (char)0xe2, (char)0x90, (char)(c == 0x7f ? 0xa1 : 0x80 + c) }, 3); /* U+2400 .. */
        else if (c == 0xc2 && i + 1 < n && (unsigned char)p[i + 1] < 0xa0) {
            ns_buf_adds(out, "\xef\xbf\xbd"); /* U+0080 .. U+009F */
            i++;
        } else {
            ns_buf_addc(out, p[i]);
        }
    }
}

static int show(output *o, size_t end, ns_err *e)
{
    const char *text = o->out->text.data;
    size_t from = o->shown;
    ns_buf safe = { 0 };
    o->shown = end > from ? end : from;
    if (o->out->text.failed || o->out->ids.failed)
        return ns_fail(e, NS_ENOMEM, "answer: out of memory");
    if (!o->stream || end <= from)
        return 0;
    if (!o->terminal)
        return ns_cli_write(text + from, end - from, e);
    add_harmless(&safe, text + from, end - from);
    int rc = safe.failed ? ns_fail(e, NS_ENOMEM, "answer: out of memory") : ns_cli_write(safe.data, safe.len, e);
    ns_buf_release(&safe);
    return rc;
}

/* The text of one token; its number where there is no tokenizer. */
static void add_text(output *o, int id)
{
    if (o->en->tokenizer)
        ns_detok_push(&o->detok, o->en->tokenizer, id, &o->out->text);
    else
        ns_buf_addf(&o->out->text, o->out->text.len ? " %d" : "%d", id);
}

/* 1 when the answer ends here. */
static int take(output *o, int id, ns_err *e)
{
    ns_cli_answer *out = o->out;
    ns_ids_add(&out->ids, id);
    if (!o->a->ignore_eos && ns_engine_is_stop(o->en, id)) {
        out->reason = "stop";
        return 1;
    }
    add_text(o, id);
    bool stop = cut_at_stop(o);
    if (show(o, out->text.len - (stop ? 0 : held_back(o)), e) != 0)
        return -1;
    if (stop)
        out->reason = "stop_string";
    return stop;
}

static int finish(output *o, ns_err *e)
{
    if (strcmp(o->out->reason, "stop_string") != 0)
        ns_detok_finish(&o->detok, &o->out->text);
    return show(o, o->out->text.len, e);
}

/* ---- the loop ---- */

static void count_used(ns_session *s, ns_cli_answer *out)
{
    ns_cli_used *u = out->n_used ? &out->used[out->n_used - 1] : NULL;
    if (!u || (strcmp(u->size, ns_session_size(s)) != 0 && out->n_used < NS_CLI_PHASES)) {
        u = &out->used[out->n_used++];
        snprintf(u->size, sizeof u->size, "%s", ns_session_size(s));
    }
    u->tokens++;
}

/* The phase of token `n` of the answer. */
static int phase_of(const ns_cli_answer_args *a, long n)
{
    int i = 0;
    for (long end = a->phase[0].tokens; i + 1 < a->n_phases && end >= 0 && n >= end; i++)
        end += a->phase[i + 1].tokens;
    return i;
}

/* Sets the reason when there is to be no further token. */
static bool at_end(ns_session *s, const ns_cli_answer_args *a, ns_cli_answer *out)
{
    size_t n;
    ns_session_tokens(s, &n);
    if (ns_cli_interrupted())
        out->reason = "cancelled";
    else if (a->max_tokens >= 0 && out->ids.len >= (size_t)a->max_tokens)
        out->reason = "length";
    else if (n >= (size_t)ns_session_context(s))
        out->reason = "context";
    return out->reason != NULL;
}

static int next_token(ns_session *s, const ns_cli_answer_args *a, output *o, int *phase, ns_err *e)
{
    int id, want = phase_of(a, (long)o->out->ids.len);
    if (want != *phase && ns_session_resize(s, a->phase[want].size, a->handover, e) != 0)
        return -1;
    *phase = want;
    if (ns_session_next(s, &id, e) != 0)
        return -1;
    count_used(s, o->out);
    return take(o, id, e);
}

int ns_cli_answer_make(ns_engine *en, ns_session *s, const ns_cli_answer_args *a, bool stream, ns_cli_answer *out, ns_err *e)
{
    output o = { .en = en, .a = a, .out = out, .stream = stream, .terminal = isatty(STDOUT_FILENO) };
    int rc = 0, phase = 0;
    *out = (ns_cli_answer){ 0 };
    ns_detok_init(&o.detok);
    while (rc == 0 && !at_end(s, a, out))
        rc = next_token(s, a, &o, &phase, e);
    if (rc < 0 && e->code == NS_ECANCELLED) {
        *e = (ns_err){ 0 };
        out->reason = "cancelled";
        rc = 0;
    }
    return rc < 0 ? -1 : finish(&o, e);
}

void ns_cli_answer_release(ns_cli_answer *a)
{
    ns_ids_release(&a->ids);
    ns_buf_release(&a->text);
}

static double rate(size_t n, double seconds)
{
    return seconds > 0 ? (double)n / seconds : 0.0;
}

void ns_cli_answer_stats(const ns_session *s, const ns_cli_answer *a, const ns_stats *before, FILE *out)
{
    ns_stats t = ns_session_stats(s);
    size_t prefill = t.prefill_tokens - before->prefill_tokens, decode = t.decode_tokens - before->decode_tokens;
    int switches = t.switches - before->switches;
    fprintf(out, "prefill %zu tokens at %.1f tok/s, decode %zu at %.1f tok/s, ", prefill, rate(prefill, t.prefill_seconds - before->prefill_seconds),
            decode, rate(decode, t.decode_seconds - before->decode_seconds));
    if (a->n_used == 0)
        fprintf(out, "size %s", ns_session_size(s));
    for (int i = 0; i < a->n_used; i++)
        fprintf(out, a->n_used > 1 ? "%s%s %zu" : "%ssize %s", i ? " + " : a->n_used > 1 ? "sizes " : "", a->used[i].size, a->used[i].tokens);
    if (switches)
        fprintf(out, ", %d switch%s in %.1f ms", switches, switches > 1 ? "es" : "", 1e3 * (t.switch_seconds - before->switch_seconds));
    fprintf(out, "\n");
}
