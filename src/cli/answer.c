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

const char *ns_cli_first_size(const ns_cli_answer_args *a)
{
    const ns_place at = { .phase = a->think_budget == NS_THINK_NONE ? NS_PHASE_ANSWER : NS_PHASE_THINK, .budget = NS_THOUGHT_FREE };
    int i = ns_segments_at(a->plan.seg, a->plan.n, &at);
    return i < 0 ? "full" : a->plan.seg[i].size;
}

ns_session *ns_cli_session_new(ns_engine *en, const ns_cli_answer_args *a, uint64_t *seed, ns_err *e)
{
    ns_sampling sa = sampling(en, a);
    *seed = sa.seed;
    return ns_session_new(en, &(ns_session_opts){ .size = ns_cli_first_size(a), .context = a->context, .sampling = &sa }, e);
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
    if (!o->a->ignore_eos && ns_engine_is_stop(o->en, id))
        return 0; /* the plan says so next */
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
    if (!u || (strcmp(u->size, ns_session_size(s)) != 0 && out->n_used < NS_SEGMENTS)) {
        u = &out->used[out->n_used++];
        snprintf(u->size, sizeof u->size, "%s", ns_session_size(s));
    }
    u->tokens++;
}

ns_answer *ns_cli_answer_begin(ns_session *s, const ns_cli_answer_args *a, double start, ns_err *e)
{
    double left = a->deadline > 0 && start > 0 ? a->deadline - (ns_now() - start) : a->deadline;
    return ns_answer_new(s, &(ns_answer_opts){ .segment = a->plan.seg,
                                               .n_segments = a->plan.n,
                                               .handover = a->handover,
                                               .think_budget = a->think_budget,
                                               .grace = a->grace,
                                               .close = a->close,
                                               .max_tokens = a->max_tokens > 0 ? (int)a->max_tokens : 0,
                                               .answer_tokens = a->answer_tokens,
                                               .deadline = a->deadline > 0 && left <= 0 ? 1e-3 : left, /* too late, but not without one */
                                               .ignore_stop = a->ignore_eos },
                         e);
}

/* Sets the reason when there is to be no further token; 1 then. */
static int next_token(ns_session *s, ns_answer *plan, const ns_cli_answer_args *a, output *o, ns_err *e)
{
    int id = -1;
    if (ns_cli_interrupted())
        o->out->reason = "cancelled";
    else if (a->max_tokens == 0)
        o->out->reason = "length";
    else if (ns_answer_next(plan, &id, e) != 0)
        return -1;
    else if (id < 0)
        o->out->reason = ns_answer_about(plan).end;
    if (o->out->reason)
        return 1;
    count_used(s, o->out);
    return take(o, id, e);
}

int ns_cli_answer_make(ns_engine *en, ns_session *s, ns_answer *plan, const ns_cli_answer_args *a, bool stream, ns_cli_answer *out, ns_err *e)
{
    output o = { .en = en, .a = a, .out = out, .stream = stream, .terminal = isatty(STDOUT_FILENO) };
    int rc = 0;
    *out = (ns_cli_answer){ 0 };
    ns_detok_init(&o.detok);
    while (rc == 0)
        rc = next_token(s, plan, a, &o, e);
    if (rc < 0 && e->code == NS_ECANCELLED) {
        *e = (ns_err){ 0 };
        out->reason = "cancelled";
        rc = 0;
    }
    out->info = ns_answer_about(plan);
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
        fprintf(out, ", %d switch%s in %.1f ms by %s", switches, switches > 1 ? "es" : "", 1e3 * (t.switch_seconds - before->switch_seconds),
                ns_handover_name(t.handover));
    fprintf(out, "\n");
    const ns_answer_info *i = &a->info;
    if (i->thought || i->closed)
        fprintf(out, "thought %d tokens at %.1f tok/s%s, answer %d tokens at %.1f tok/s\n", i->thought,
                rate((size_t)i->thought, i->thought_seconds), i->closed ? " (closed)" : "", i->answer, rate((size_t)i->answer, i->answer_seconds));
    if (a->reason && strcmp(a->reason, "deadline") == 0)
        fprintf(out, "cut at the deadline\n");
}
