/* A job's way in and out: what was asked, copied and checked; its session and answer; its result. */
#include <stdlib.h>

#include "base/log.h"
#include "run/sched_impl.h"

/* ---- what was asked ---- */

static bool is_auto(const char *size)
{
    return strcmp(size, "auto") == 0;
}

int64_t ns_job_bytes(const ns_sched *s, const char *size, int context, char *name, ns_err *e)
{
    ns_size_info info;
    if (ns_engine_resolve(s->en, size, s->o.context, name, NS_SIZE_NAME, &info, e) != 0)
        return -1;
    return info.state_bytes + info.kv_bytes_per_token * context;
}

ns_job_text *ns_job_text_new(const char *text, ns_err *e)
{
    size_t n = strlen(text) + 1;
    ns_job_text *t = malloc(sizeof *t + n);
    if (!t) {
        ns_fail(e, NS_ENOMEM, "request: out of memory");
        return NULL;
    }
    t->next = NULL;
    memcpy(t->text, text, n);
    return t;
}

static int check(const ns_sched *s, const ns_sched_job *a, ns_err *e)
{
    if (a->n_ids == 0)
        return ns_fail(e, NS_EINVAL, "the prompt is empty");
    if (a->n_ids > (size_t)s->o.context)
        return ns_fail(e, NS_EINVAL, "the prompt has %zu tokens, and there is room for %d", a->n_ids, s->o.context);
    for (size_t i = 0; i < a->n_ids; i++)
        if (a->ids[i] < 0 || a->ids[i] >= s->en->model.arch->vocab_size)
            return ns_fail(e, NS_EINVAL, "token id %d is outside the vocabulary of %d", a->ids[i], s->en->model.arch->vocab_size);
    if (a->top_logprobs < -1 || a->top_logprobs > NS_SCHED_TOP)
        return ns_fail(e, NS_EINVAL, "%d likeliest tokens: -1 to %d", a->top_logprobs, NS_SCHED_TOP);
    if (ns_sampling_check(&a->sampling, e) != 0)
        return -1;
    return ns_answer_check(&a->answer, e);
}

static int least(int64_t a, int b)
{
    return a < b ? (int)a : b;
}

/* Room for the prompt and all that it may make. */
static int context_of(const ns_sched *s, const ns_sched_job *a)
{
    const ns_answer_opts *o = &a->answer;
    int64_t most = s->o.context, closing = o->close ? (int64_t)strlen(o->close) : s->close_most;
    if (o->max_tokens)
        most = (int64_t)a->n_ids + o->max_tokens;
    if (o->answer_tokens && o->think_budget != NS_THINK_FREE) {
        int64_t thought = o->think_budget == NS_THINK_NONE ? 0 : (int64_t)o->think_budget + o->grace;
        int64_t all = (int64_t)a->n_ids + thought + closing + o->answer_tokens + 4; /* marks, and an end of turn */
        most = all < most ? all : most;
    }
    return least(most, s->o.context);
}

/* A segment of the plan, and the bytes of its size. */
static int add_size(ns_sched *s, ns_job *j, enum ns_phase phase, int from, const char *size, ns_err *e)
{
    char name[NS_SIZE_NAME];
    int64_t bytes = ns_job_bytes(s, is_auto(size) ? "full" : size, j->context, name, e); /* auto may come to any */
    if (bytes < 0)
        return -1;
    j->bytes = bytes > j->bytes ? bytes : j->bytes;
    const char *text = ns_job_says(size, name);
    return ns_segments_add(&j->plan, phase, from, text, strlen(text), e);
}

/* Do the segments leave no token without a size? */
static bool covers(const ns_answer_opts *o)
{
    bool think = false, answer = false;
    for (int i = 0; i < o->n_segments; i++)
        if (o->segment[i].from == 0) {
            think = think || o->segment[i].phase != NS_PHASE_ANSWER;
            answer = answer || o->segment[i].phase != NS_PHASE_THINK;
        }
    return think && answer;
}

static int copy_plan(ns_sched *s, ns_job *j, ns_err *e)
{
    const ns_answer_opts *o = &j->asked.answer;
    const char *size = j->asked.size ? j->asked.size : "full";
    int rc = covers(o) ? 0 : add_size(s, j, NS_PHASE_ALL, 0, size, e);
    for (int i = 0; rc == 0 && i < o->n_segments; i++)
        rc = add_size(s, j, o->segment[i].phase, o->segment[i].from, o->segment[i].size, e);
    if (rc == 0 && j->bytes > s->o.state_bytes)
        return ns_fail(e, NS_EINVAL, "the states of %d tokens take %.1f MiB, and all requests together may have %.1f MiB", j->context,
                       (double)j->bytes / 1048576.0, (double)s->o.state_bytes / 1048576.0);
    return rc;
}

/* Everything that the caller lent. */
static int copy_rest(ns_job *j, ns_err *e)
{
    ns_sched_job *a = &j->asked;
    int *ids = malloc(a->n_ids * sizeof *ids);
    const char *close = a->answer.close;
    a->size = NULL;
    a->answer.segment = NULL;
    a->answer.n_segments = 0;
    a->answer.close = NULL;
    if (!ids)
        return ns_fail(e, NS_ENOMEM, "request: out of memory");
    memcpy(ids, a->ids, a->n_ids * sizeof *ids);
    a->ids = ids;
    if (!close)
        return 0;
    if (!(j->texts = ns_job_text_new(close, e)))
        return -1;
    a->answer.close = j->texts->text;
    return 0;
}

ns_job *ns_job_new(ns_sched *s, const ns_sched_job *asked, ns_err *e)
{
    if (check(s, asked, e) != 0)
        return NULL;
    ns_job *j = calloc(1, sizeof *j);
    if (!j) {
        ns_fail(e, NS_ENOMEM, "request: out of memory");
        return NULL;
    }
    j->asked = *asked;
    j->context = context_of(s, asked);
    j->chooses = asked->size && is_auto(asked->size) && asked->answer.n_segments == 0 && asked->answer.deadline > 0.0;
    if (j->asked.answer.handover == NS_HANDOVER_LATE) /* reading is done in pieces beside the others anyway */
        j->asked.answer.handover = NS_HANDOVER_PREFILL;
    int rc = copy_plan(s, j, e);
    if (rc != 0)
        j->asked.ids = NULL; /* the caller's still */
    if (rc != 0 || copy_rest(j, e) != 0) {
        ns_job_free(j);
        return NULL;
    }
    j->submitted = ns_now();
    j->deadline = asked->answer.deadline > 0.0 ? j->submitted + asked->answer.deadline : 0.0;
    j->result.prompt_tokens = asked->n_ids;
    return j;
}

void ns_job_free(ns_job *j)
{
    if (!j)
        return;
    ns_answer_free(j->answer);
    ns_session_free(j->session);
    ns_segments_release(&j->plan);
    free(j->order);
    while (j->texts) {
        ns_job_text *t = j->texts;
        j->texts = t->next;
        free(t);
    }
    free((int *)(uintptr_t)j->asked.ids);
    free(j);
}

/* ---- beginning ---- */

static int add(ns_segments *p, enum ns_phase phase, int from, const char *size, ns_err *e)
{
    return ns_segments_add(p, phase, from, size, strlen(size), e);
}

/* "auto" becomes what it means now. */
static int settle_auto(ns_sched *s, ns_job *j, ns_err *e)
{
    const char *think, *answer;
    ns_segments settled = { 0 };
    int rc = 0;
    ns_sched_auto(s, &think, &answer);
    for (int i = 0; rc == 0 && i < j->plan.n; i++) {
        const ns_segment *g = &j->plan.seg[i];
        bool both = is_auto(g->size) && g->phase == NS_PHASE_ALL && g->from == 0 && s->close >= 0 && strcmp(think, answer) != 0;
        const char *one = !is_auto(g->size) ? g->size : g->phase == NS_PHASE_THINK || both ? think : answer;
        rc = add(&settled, g->phase, g->from, one, e);
        if (rc == 0 && both)
            rc = add(&settled, NS_PHASE_ANSWER, 0, answer, e);
    }
    ns_segments_release(&j->plan);
    j->plan = settled;
    return rc;
}

/* A size that was asked for while it waited stands for the whole plan. */
static void settle_order(ns_sched *s, ns_job *j)
{
    pthread_mutex_lock(&s->lock);
    ns_job_text *t = j->order;
    j->order = NULL;
    pthread_mutex_unlock(&s->lock);
    if (!t)
        return;
    t->next = j->texts;
    j->texts = t;
    j->chooses = false;
    ns_segments_release(&j->plan);
    ns_err e = { 0 };
    if (add(&j->plan, NS_PHASE_ALL, 0, t->text, &e) != 0)
        ns_job_end(j, "error", &e);
}

/* The order of things is that of a session alone: its size first, then the prompt. Where a deadline chooses the sizes it wants to know how
 * long the prompt is. */
static int open_answer(ns_sched *s, ns_job *j, ns_err *e)
{
    const ns_sched_job *a = &j->asked;
    const ns_answer_clock clock = { .times = &s->times };
    ns_answer_opts o = a->answer;
    o.segment = j->chooses ? NULL : j->plan.seg;
    o.n_segments = j->chooses ? 0 : j->plan.n;
    if (j->deadline > 0.0)
        o.deadline = j->deadline - ns_now() > 1e-3 ? j->deadline - ns_now() : 1e-3;
    const char *size = j->plan.n && !j->chooses ? j->plan.seg[0].size : NULL;
    j->session = ns_session_new(s->en, &(ns_session_opts){ .size = size, .context = j->context, .sampling = &a->sampling }, e);
    if (!j->session)
        return -1;
    j->session->by_steps = true;
    if (j->chooses && ns_session_append(j->session, a->ids, a->n_ids, e) != 0)
        return -1;
    j->answer = ns_answer_new_at(j->session, &o, &clock, e);
    if (!j->answer || (!j->chooses && ns_session_append(j->session, a->ids, a->n_ids, e) != 0))
        return -1;
    j->session->mixed = false; /* nothing is computed, so nothing was handed over */
    j->session->stats = (ns_stats){ 0 };
    return 0;
}

void ns_job_begin(ns_sched *s, ns_job *j)
{
    ns_err e = { 0 };
    j->began = ns_now();
    settle_order(s, j);
    if (!j->end && (settle_auto(s, j, &e) != 0 || open_answer(s, j, &e) != 0))
        ns_job_end(j, "error", &e);
    if (!j->end)
        ns_job_read(s, j);
}

/* ---- the end ---- */

void ns_job_end(ns_job *j, const char *how, const ns_err *why)
{
    if (j->end)
        return;
    j->end = how;
    if (why)
        j->result.err = *why;
}

void ns_job_finish(ns_sched *s, ns_job *j)
{
    ns_sched_result *r = &j->result;
    double now = ns_now();
    r->end = j->end;
    r->total = now - j->submitted;
    r->queued = (j->began > 0.0 ? j->began : now) - j->submitted;
    r->first_token = j->first > 0.0 ? j->first - j->submitted : 0.0;
    if (j->answer) {
        ns_answer_info i = ns_answer_about(j->answer);
        r->thought_tokens = (size_t)i.thought;
        r->answer_tokens = (size_t)i.answer;
        r->switches = j->session->stats.switches;
        r->switch_seconds += j->session->stats.switch_seconds;
    }
    ns_sched_count_end(s, j);
    if (j->asked.done)
        j->asked.done(j->asked.ctx, r);
    ns_job_free(j);
}
