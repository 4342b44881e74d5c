/* An answer by a plan: sampled tokens, the closing of the thought, sizes in turn, and a deadline over all of it.
 * Ids are appended one by one as they are handed out and computed when the next is drawn, at the size that draws it: so what closes a
 * thought is read by the size that answers. */
#include "run/answer.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "run/segments.h"

enum { ANSWER_TOKENS = 256 /* that a deadline keeps time for */, PROMPT_GUESS = 128 /* tokens, where the prompt is not there yet */ };

struct ns_answer {
    ns_session *s;
    ns_answer_opts o;
    ns_segment chosen[2];  /* where a deadline chose */
    ns_thought_rule rule;
    ns_thought thought;
    ns_answer_clock clock;
    ns_pace pace;
    int of_segment[NS_SEGMENTS]; /* index into pace.size */
    const int *put;        /* [n_put] still to be put in */
    size_t n_put;
    int all;               /* tokens handed out */
    int now, next;         /* segments: of the last token, and the one that reads along; -1 */
    bool begun, keeps_cache; /* auto keeps the cache between the sizes of this plan */
    bool looked;           /* `ready` holds for the next token */
    enum ns_answer_step ready;
    ns_answer_info info;
};

/* ---- beginning ---- */

static bool needs_marks(const ns_answer_opts *o)
{
    bool parts = o->think_budget != NS_THINK_FREE && o->think_budget != NS_THINK_NONE;
    for (int i = 0; i < o->n_segments; i++)
        parts = parts || o->segment[i].phase != NS_PHASE_ALL;
    return parts;
}

int ns_answer_check(const ns_answer_opts *o, ns_err *e)
{
    if (o->n_segments < 0 || o->n_segments > NS_SEGMENTS)
        return ns_fail(e, NS_EINVAL, "answer: %d segments: at most %d", o->n_segments, NS_SEGMENTS);
    if (o->think_budget < NS_THINK_NONE || o->grace < 0 || o->max_tokens < 0 || o->answer_tokens < 0 || !(o->deadline >= 0.0))
        return ns_fail(e, NS_EINVAL, "answer: a budget, a grace, a number of tokens or a deadline below 0");
    for (int i = 0; i < o->n_segments; i++) {
        const ns_segment *g = &o->segment[i];
        if (g->from < 0 && (g->phase != NS_PHASE_THINK || o->think_budget == NS_THINK_FREE))
            return ns_fail(e, NS_EINVAL, "size %s for the last %d tokens: only a thought with a budget has last ones", g->size, -g->from);
    }
    return 0;
}

static int budget_of(const ns_answer_opts *o)
{
    return o->think_budget == NS_THINK_FREE ? NS_THOUGHT_FREE : o->think_budget == NS_THINK_NONE ? 0 : o->think_budget;
}

static int read_rule(ns_answer *a, ns_err *e)
{
    const ns_engine *en = a->s->en;
    ns_buf text = { 0 };
    int rc = a->o.close ? 0 : ns_engine_close_text(en, &text, e);
    if (rc == 0)
        rc = ns_thought_rule_init(&a->rule, en->tokenizer, a->o.close ? a->o.close : text.data, a->o.grace, e);
    ns_buf_release(&text);
    if (rc == 0 && a->rule.close < 0 && needs_marks(&a->o))
        rc = ns_fail(e, NS_EINVAL, "%s: no tokenizer with a token </think>: a thought cannot be told from an answer", en->ckpt->dir);
    return rc;
}

/* ---- the deadline ---- */

static double tick(ns_answer *a, const char *size, int tokens)
{
    return a->clock.now(a->clock.ctx, size, tokens);
}

double ns_answer_now(void *ctx, const char *size, int tokens)
{
    (void)ctx;
    (void)size;
    (void)tokens;
    return ns_now();
}

/* Seconds of a size's step and per token that it reads: measured, now or for an answer before this one. */
static int time_size(ns_answer *a, const char *size, double *step, double *read, ns_err *e)
{
    ns_answer_times *t = a->clock.times;
    int i = 0;
    while (t && i < t->n && strcmp(t->size[i].name, size) != 0)
        i++;
    if (!t || i == t->n) {
        if (ns_session_time(a->s, size, &a->clock, step, read, e) != 0)
            return -1;
        if (!t || t->n == NS_ANSWER_TIMES || strlen(size) >= sizeof t->size[i].name)
            return 0;
        strcpy(t->size[i].name, size);
        t->size[i].step = *step;
        t->size[i].read = *read;
        t->n++;
    }
    *step = t->size[i].step > t->least ? t->size[i].step : t->least;
    *read = t->size[i].read;
    return 0;
}

/* Index of the size in the table of times, filled in if it is new. */
static int timed(ns_answer *a, const char *size, ns_err *e)
{
    ns_pace *p = &a->pace;
    int i = 0;
    while (i < p->n && strcmp(p->size[i].name, size) != 0)
        i++;
    if (i < p->n)
        return i;
    if (i == NS_PACE_SIZES)
        return ns_fail(e, NS_EINVAL, "deadline: more than %d sizes", NS_PACE_SIZES);
    if (time_size(a, size, &p->size[i].step, &p->size[i].read, e) != 0)
        return -1;
    p->size[i].name = size;
    return p->n++;
}

/* Nobody named a size: every named one is measured, then two are chosen. */
static int choose_sizes(ns_answer *a, ns_err *e)
{
    const ns_variants *v = &a->s->en->ckpt->variants;
    int think, answer, prompt = a->s->n > 0 ? a->s->n : PROMPT_GUESS;
    for (int i = 0; i < v->n; i++)
        if (timed(a, v->v[i].name, e) < 0)
            return -1;
    bool cache = a->o.handover == NS_HANDOVER_CACHE || (a->o.handover == NS_HANDOVER_AUTO && ns_engine_trusts_caches(a->s->en));
    ns_pace_choose(&a->pace, tick(a, NULL, 0), prompt, cache, &think, &answer);
    a->chosen[0] = (ns_segment){ NS_PHASE_ALL, 0, v->v[think].name };
    a->chosen[1] = (ns_segment){ NS_PHASE_ANSWER, 0, v->v[answer].name };
    a->o.segment = a->chosen;
    a->o.n_segments = a->rule.close >= 0 ? 2 : 1;
    return 0;
}

static int plan_time(ns_answer *a, double start, ns_err *e)
{
    a->pace.end = start + a->o.deadline;
    a->pace.load = 1.0;
    a->pace.answer_tokens = a->o.answer_tokens ? a->o.answer_tokens : ANSWER_TOKENS;
    if (a->o.n_segments == 0 && choose_sizes(a, e) != 0)
        return -1;
    for (int i = 0; i < a->o.n_segments; i++)
        if ((a->of_segment[i] = timed(a, a->o.segment[i].size, e)) < 0)
            return -1;
    return 0;
}

/* ---- places and sizes ---- */

static ns_place place(const ns_answer *a)
{
    const ns_thought *t = &a->thought;
    bool thinks = t->phase == NS_PHASE_THINK || (t->may_open && t->budget != 0);
    return (ns_place){ .phase = thinks ? NS_PHASE_THINK : NS_PHASE_ANSWER, .all = a->all, .thought = t->n, .answer = a->info.answer,
                       .budget = t->budget };
}

static int segment_at(const ns_answer *a, const ns_place *p)
{
    return ns_segments_at(a->o.segment, a->o.n_segments, p);
}

const char *ns_answer_size(const ns_answer *a, enum ns_phase phase)
{
    ns_place p = { .phase = phase, .budget = NS_THOUGHT_FREE };
    int i = segment_at(a, &p);
    return i < 0 ? NULL : a->o.segment[i].size;
}

/* Tokens that the size of segment `to` would have to read if it came next. */
static int unread(const ns_answer *a, int to)
{
    const ns_session *s = a->s;
    enum ns_handover how = a->o.handover;
    if (to < 0 || a->now < 0 || strcmp(a->o.segment[to].size, a->o.segment[a->now].size) == 0)
        return 0;
    if (how == NS_HANDOVER_LATE && s->next)
        return s->n - ns_follower_done(s->next);
    return how == NS_HANDOVER_CACHE || (how == NS_HANDOVER_AUTO && a->keeps_cache) ? 0 : s->n;
}

static int follow(ns_answer *a, const ns_place *at, ns_err *e)
{
    int next = ns_segments_next(a->o.segment, a->o.n_segments, at, a->now);
    if (next >= 0 && next != a->next && ns_session_follow(a->s, a->o.segment[next].size, e) != 0)
        return -1;
    if (next < 0)
        ns_session_unfollow(a->s);
    a->next = next;
    return ns_session_advance(a->s, e);
}

/* The session at the size of the next token. */
static int fit_size(ns_answer *a, ns_err *e)
{
    ns_place at = place(a);
    int want = segment_at(a, &at);
    if (want < 0)
        return 0;
    if (want != a->now) {
        int read = unread(a, want);
        if (ns_session_resize(a->s, a->o.segment[want].size, a->o.handover, e) != 0)
            return -1;
        tick(a, a->o.segment[want].size, read);
        a->now = want;
    }
    return a->begun && a->o.handover == NS_HANDOVER_LATE ? follow(a, &at, e) : 0; /* once the prompt is there */
}

/* ---- making and freeing ---- */

/* With auto: does every pair of the plan's sizes keep the cache? Then a change costs nothing. */
static int ask_handover(ns_answer *a, ns_err *e)
{
    a->keeps_cache = a->o.handover == NS_HANDOVER_AUTO;
    for (int i = 0; i < a->o.n_segments && a->keeps_cache; i++) {
        ns_cut from = { 0 }, to = { 0 };
        enum ns_handover how = NS_HANDOVER_AUTO;
        char name[NS_SIZE_NAME];
        int context = a->s->state->context, rc;
        rc = ns_engine_cut(a->s->en, a->o.segment[0].size, context, &from, name, sizeof name, e) == 0 &&
                     ns_engine_cut(a->s->en, a->o.segment[i].size, context, &to, name, sizeof name, e) == 0
                 ? ns_engine_handover(a->s->en, &from, &to, how, &how, e)
                 : -1;
        ns_cut_release(&from);
        ns_cut_release(&to);
        if (rc != 0)
            return -1;
        a->keeps_cache = how == NS_HANDOVER_CACHE;
    }
    return 0;
}

static int prepare(ns_answer *a, ns_err *e)
{
    double start = tick(a, NULL, 0);
    if (ns_answer_check(&a->o, e) != 0 || read_rule(a, e) != 0)
        return -1;
    if (a->o.deadline > 0.0 && plan_time(a, start, e) != 0)
        return -1;
    if (ask_handover(a, e) != 0)
        return -1;
    a->thought = (ns_thought){ .phase = a->o.think_budget == NS_THINK_NONE ? NS_PHASE_ANSWER : NS_PHASE_THINK, .budget = budget_of(&a->o) };
    return fit_size(a, e);
}

ns_answer *ns_answer_new_at(ns_session *s, const ns_answer_opts *opts, const ns_answer_clock *clock, ns_err *e)
{
    ns_answer *a = calloc(1, sizeof *a);
    if (!a) {
        ns_fail(e, NS_ENOMEM, "answer: out of memory");
        return NULL;
    }
    a->s = s;
    if (opts)
        a->o = *opts;
    if (clock)
        a->clock = *clock;
    a->clock.now = a->clock.now ? a->clock.now : ns_answer_now;
    a->now = a->next = -1;
    if (prepare(a, e) == 0)
        return a;
    ns_answer_free(a);
    return NULL;
}

ns_answer *ns_answer_new(ns_session *s, const ns_answer_opts *opts, ns_err *e)
{
    return ns_answer_new_at(s, opts, NULL, e);
}

void ns_answer_free(ns_answer *a)
{
    if (!a)
        return;
    ns_session_unfollow(a->s);
    ns_thought_rule_release(&a->rule);
    free(a);
}

ns_answer_info ns_answer_about(const ns_answer *a)
{
    ns_answer_info i = a->info;
    i.phase = a->thought.phase;
    i.thought = a->thought.n;
    i.closed = a->thought.closed;
    return i;
}

/* ---- tokens ---- */

static void close_thought(ns_answer *a)
{
    ns_thought_close(&a->thought, &a->rule, &a->put, &a->n_put);
}

static void begin(ns_answer *a)
{
    a->begun = true;
    if (ns_thought_begin(&a->thought, &a->rule, a->s->en->tokenizer, budget_of(&a->o), a->s->ids, (size_t)a->s->n) == NS_THOUGHT_CLOSE)
        close_thought(a);
}

static bool at_end(ns_answer *a)
{
    const ns_answer_opts *o = &a->o;
    if (a->info.end)
        return true;
    if ((o->max_tokens && a->all >= o->max_tokens) || (o->answer_tokens && a->info.answer >= o->answer_tokens))
        a->info.end = "length";
    else if (a->s->n >= a->s->state->context)
        a->info.end = "context";
    return a->info.end != NULL;
}

/* Closes the thought when the answer needs the time that is left; ends the answer when there is none. */
static void hurry(ns_answer *a)
{
    ns_place at = place(a);
    double now = tick(a, NULL, 0);
    int i = segment_at(a, &at);
    if (i < 0 || a->n_put)
        return;
    if (a->thought.phase == NS_PHASE_ANSWER) {
        if (ns_pace_over(&a->pace, now, a->of_segment[i], unread(a, i)))
            a->info.end = "deadline";
        return;
    }
    at.phase = NS_PHASE_ANSWER;
    int answer = segment_at(a, &at) < 0 ? i : segment_at(a, &at);
    if (ns_pace_must_close(&a->pace, now, a->of_segment[i], a->of_segment[answer], unread(a, answer), (int)a->rule.text.len))
        close_thought(a);
}

static int put_one(ns_answer *a, int *id, ns_err *e)
{
    if (ns_session_append(a->s, a->put, 1, e) != 0)
        return -1;
    *id = *a->put++;
    a->n_put--;
    a->all++;
    return 0;
}

static void take(ns_answer *a, int id)
{
    const char *bytes = "";
    size_t n = 0;
    a->all++;
    if (!a->o.ignore_stop && ns_engine_is_stop(a->s->en, id)) {
        a->info.end = "stop";
        return;
    }
    if (a->s->en->tokenizer)
        ns_tokenizer_bytes(a->s->en->tokenizer, id, &bytes, &n);
    bool answering = a->thought.phase == NS_PHASE_ANSWER;
    if (ns_thought_take(&a->thought, &a->rule, id, bytes, n) == NS_THOUGHT_CLOSE)
        close_thought(a);
    else if (answering && a->thought.phase == NS_PHASE_ANSWER)
        a->info.answer++;
}

void ns_answer_computed(ns_answer *a, int tokens, double seconds)
{
    *(a->thought.phase == NS_PHASE_THINK ? &a->info.thought_seconds : &a->info.answer_seconds) += seconds;
    if (a->pace.end > 0.0 && tokens == 1 && a->now >= 0)
        ns_pace_took(&a->pace, a->of_segment[a->now], seconds);
}

static int sample(ns_answer *a, int *id, ns_err *e)
{
    int before = a->s->state->len;
    double start = tick(a, NULL, 0);
    if (ns_session_next(a->s, id, e) != 0)
        return -1;
    int computed = a->s->state->len - before;
    ns_answer_computed(a, computed, tick(a, a->s->name, computed) - start);
    take(a, *id);
    return 0;
}

int ns_answer_ready(ns_answer *a, enum ns_answer_step *step, ns_err *e)
{
    a->looked = false;
    if (!a->begun)
        begin(a);
    if (!at_end(a) && a->pace.end > 0.0)
        hurry(a);
    if (a->info.end)
        a->ready = NS_ANSWER_END;
    else if (a->n_put)
        a->ready = NS_ANSWER_PUT;
    else if (fit_size(a, e) != 0)
        return -1;
    else
        a->ready = a->s->has_logits ? NS_ANSWER_DRAW : NS_ANSWER_COMPUTE;
    a->looked = a->ready != NS_ANSWER_COMPUTE; /* computing takes time, and a deadline may come */
    *step = a->ready;
    return 0;
}

int ns_answer_next(ns_answer *a, int *id, ns_err *e)
{
    enum ns_answer_step step = a->ready;
    *id = -1;
    if (!a->looked && ns_answer_ready(a, &step, e) != 0)
        return -1;
    a->looked = false;
    if (step == NS_ANSWER_END)
        return 0;
    return step == NS_ANSWER_PUT ? put_one(a, id, e) : sample(a, id, e);
}

int ns_answer_use(ns_answer *a, const char *size, ns_err *e)
{
    int i = a->pace.end > 0.0 ? timed(a, size, e) : 0;
    if (i < 0)
        return -1;
    a->chosen[0] = (ns_segment){ NS_PHASE_ALL, 0, size };
    a->o.segment = a->chosen;
    a->o.n_segments = 1;
    a->of_segment[0] = i;
    a->now = a->next = -1; /* whatever size it has, it is brought to this one */
    a->looked = false;
    return 0;
}

int ns_answer_may_open(const ns_answer *a)
{
    return a->thought.phase == NS_PHASE_ANSWER && a->thought.may_open && a->thought.budget != 0 ? a->rule.open : -1;
}
