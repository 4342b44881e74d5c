/* A job between two steps: its next stretch, the tokens that it hands out. */
#include <stdio.h>

#include "base/log.h"
#include "run/sched_impl.h"

/* ---- stretches ---- */

static int computed_of(const ns_job *j)
{
    return j->session->state->len - j->from;
}

/* Where, in the prompt that is being read, a prefix is to be kept next: every NS_STEP_TOKENS, where it parts from what is kept, and as near
 * its end as may be; 0: nowhere. */
static int next_keep(const ns_sched *s, const ns_job *j, int at)
{
    int last = ns_stretch_last_cut((int)j->asked.n_ids), next = (at / NS_STEP_TOKENS + 1) * NS_STEP_TOKENS;
    if (!s->prefix || !j->reading || at >= last)
        return 0;
    next = j->branch > at && j->branch < next ? j->branch : next;
    return next < last ? next : last;
}

int ns_job_piece(const ns_sched *s, const ns_job *j, int most)
{
    int at = computed_of(j), n = ns_stretch_piece(at, j->n, most), keep = next_keep(s, j, at);
    return keep && n > keep - at ? keep - at : n;
}

static void begin_stretch(ns_sched *s, ns_job *j)
{
    ns_session *x = j->session;
    j->from = x->state->len;
    j->n = ns_session_pending(x);
    j->reading = j->from == 0;
    j->stretch_began = ns_now();
    int limit = ns_stretch_last_cut(j->n);
    if (!j->reading || !s->prefix || limit == 0)
        return;
    j->branch = ns_prefix_branch(s->prefix, x->state, x->ids, limit);
    int kept = ns_prefix_get(s->prefix, x->state, x->ids, limit);
    if (!j->read)
        j->result.cached_tokens = (size_t)kept;
}

static void keep_prefix(ns_sched *s, ns_job *j, int before)
{
    ns_err e = { 0 };
    if (next_keep(s, j, before) != j->session->state->len)
        return;
    if (ns_prefix_put(s->prefix, j->session->state, j->session->ids, &e) != 0)
        ns_log("a prefix was not kept: %s", e.msg); /* a cache may forget */
}

/* The prompt, or all of the past at a new size, is there. */
static void end_reading(ns_job *j)
{
    if (j->read)
        j->result.switch_seconds += ns_now() - j->stretch_began;
    j->read = true;
}

void ns_job_read(ns_sched *s, ns_job *j)
{
    pthread_mutex_lock(&s->lock);
    memcpy(j->size, j->session->name, sizeof j->size);
    pthread_mutex_unlock(&s->lock);
    begin_stretch(s, j);
}

void ns_job_computed(ns_sched *s, ns_job *j, int n, double seconds)
{
    keep_prefix(s, j, computed_of(j) - n);
    if (!j->reading)
        ns_answer_computed(j->answer, n, seconds);
    if (computed_of(j) < j->n)
        return;
    if (j->reading)
        end_reading(j);
    j->n = 0;
    ns_job_advance(s, j);
}

/* ---- tokens ---- */

static void count_used(ns_sched_result *r, const char *size)
{
    int i = 0;
    while (i < r->n_used && strcmp(r->used[i].size, size) != 0)
        i++;
    if (i == NS_SCHED_SIZES) { /* a slider that went everywhere */
        i--;
        size = "other";
    }
    snprintf(r->used[i].size, sizeof r->used[i].size, "%s", size);
    r->n_used = i == r->n_used ? i + 1 : r->n_used;
    r->used[i].tokens++;
}

/* What a token is: `was` from before it was drawn. */
static void name_drawn(const ns_sched *s, const ns_job *j, const ns_answer_info *was, ns_sched_token *t)
{
    ns_answer_info is = ns_answer_about(j->answer);
    bool opens = was->phase == NS_PHASE_ANSWER && t->id == s->open && (is.phase == NS_PHASE_THINK || is.closed != was->closed);
    bool closes = was->phase == NS_PHASE_THINK && t->id == s->close;
    t->phase = opens ? NS_PHASE_THINK : was->phase;
    t->mark = opens || closes || is.end;
}

static void name_put(const ns_sched *s, ns_job *j, ns_sched_token *t)
{
    t->put = true;
    t->phase = j->behind_mark ? NS_PHASE_ANSWER : NS_PHASE_THINK;
    t->mark = !j->behind_mark && t->id == s->close;
    j->behind_mark = j->behind_mark || t->mark;
}

static void deliver(ns_sched *s, ns_job *j, const ns_sched_token *t)
{
    j->last = ns_now();
    if (j->first == 0.0)
        j->first = j->last;
    ns_sched_count_token(s, j);
    if (j->asked.token && !j->asked.token(j->asked.ctx, t))
        ns_job_end(j, "taken", NULL);
}

static void put(ns_sched *s, ns_job *j)
{
    ns_err e = { 0 };
    ns_sched_token t = { .size = j->session->name };
    if (ns_answer_next(j->answer, &t.id, &e) != 0) {
        ns_job_end(j, "error", &e);
        return;
    }
    name_put(s, j, &t);
    deliver(s, j, &t);
}

static void draw(ns_sched *s, ns_job *j)
{
    ns_err e = { 0 };
    ns_answer_info was = ns_answer_about(j->answer);
    ns_sched_top top[NS_SCHED_TOP];
    ns_sched_token t = { .size = j->session->name };
    const float *logits = j->session->logits;
    double sum = 0.0;
    if (j->asked.top_logprobs >= 0) {
        t.n_top = j->asked.top_logprobs;
        t.top = top;
        sum = ns_sched_likeliest(logits, s->en->model.arch->vocab_size, t.n_top, top);
    }
    bool masks = was.phase == NS_PHASE_ANSWER && j->asked.allow.mask;
    if (masks && ns_sched_constrain(s, j) == NS_CHOICE_NONE) {
        ns_job_end(j, "stop", NULL);
        return;
    }
    if (ns_answer_next(j->answer, &t.id, &e) != 0) {
        ns_job_end(j, "error", &e);
        return;
    }
    j->behind_mark = false;
    name_drawn(s, j, &was, &t);
    if (t.top)
        t.logprob = (float)((double)logits[t.id] - sum);
    count_used(&j->result, j->session->name);
    if (masks && !t.mark && j->asked.allow.took)
        j->asked.allow.took(j->asked.allow.ctx, t.id);
    deliver(s, j, &t);
}

/* ---- between tokens ---- */

const char *ns_job_given_up(const ns_sched *s, const ns_job *j, double now)
{
    if (j->cancel || s->at_once)
        return "cancelled";
    return !j->read && j->deadline > 0.0 && now > j->deadline ? "deadline" : NULL; /* afterwards the answer looks itself */
}

/* What others want of it. */
static int obey(ns_sched *s, ns_job *j, ns_err *e)
{
    pthread_mutex_lock(&s->lock);
    const char *over = ns_job_given_up(s, j, ns_now());
    ns_job_text *size = over ? NULL : j->order;
    if (size)
        j->order = NULL;
    pthread_mutex_unlock(&s->lock);
    if (over)
        ns_job_end(j, over, NULL);
    if (!size)
        return 0;
    size->next = j->texts;
    j->texts = size;
    return ns_answer_use(j->answer, size->text, e);
}

static void note_size(ns_sched *s, ns_job *j)
{
    if (strcmp(j->size, j->session->name) == 0)
        return;
    pthread_mutex_lock(&s->lock);
    memcpy(j->size, j->session->name, sizeof j->size);
    pthread_mutex_unlock(&s->lock);
}

void ns_job_advance(ns_sched *s, ns_job *j)
{
    while (!j->end && !j->n) {
        enum ns_answer_step step;
        ns_err e = { 0 };
        if (obey(s, j, &e) != 0 || (!j->end && ns_answer_ready(j->answer, &step, &e) != 0))
            ns_job_end(j, "error", &e);
        if (j->end)
            return;
        note_size(s, j);
        switch (step) {
        case NS_ANSWER_COMPUTE: begin_stretch(s, j); break;
        case NS_ANSWER_DRAW: draw(s, j); break;
        case NS_ANSWER_PUT: put(s, j); break;
        case NS_ANSWER_END: ns_job_end(j, ns_answer_about(j->answer).end, NULL); break;
        }
    }
}
