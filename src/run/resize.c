/* The size of a session: changing it, and the three ways to hand the past over. */
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "run/session_impl.h"

bool ns_engine_trusts_caches(const ns_engine *en)
{
    const ns_variants *v = &en->ckpt->variants;
    return v->handover == NS_HANDOVER_CACHE || v->assumed;
}

static const char *const handovers[] = { [NS_HANDOVER_AUTO] = "auto", [NS_HANDOVER_CACHE] = "cache", [NS_HANDOVER_PREFILL] = "prefill",
                                         [NS_HANDOVER_LATE] = "late" };

const char *ns_handover_name(enum ns_handover how)
{
    return handovers[how];
}

int ns_handover_find(const char *name, size_t len)
{
    for (int i = NS_HANDOVER_AUTO; i <= NS_HANDOVER_LATE; i++)
        if (strlen(handovers[i]) == len && strncmp(handovers[i], name, len) == 0)
            return i;
    return -1;
}

int ns_engine_handover(const ns_engine *en, const ns_cut *from, const ns_cut *to, enum ns_handover how, enum ns_handover *out, ns_err *e)
{
    bool fits = ns_cut_same_state(en->model.arch, from, to);
    if (how == NS_HANDOVER_CACHE && !fits)
        return ns_fail(e, NS_EINVAL, "its cache has another shape; use handover prefill");
    *out = how;
    if (how == NS_HANDOVER_AUTO)
        *out = fits && ns_engine_trusts_caches(en) ? NS_HANDOVER_CACHE : NS_HANDOVER_PREFILL;
    return 0;
}

/* The tokens behind what `state` has of them, at the plan's size; on success both are the session's. Its own go only then. */
static int read_again(ns_session *s, ns_plan *plan, ns_state *state, ns_err *e)
{
    ns_plan *old_plan = s->plan;
    ns_state *old = s->state;
    int n = s->n;
    s->state = state;
    s->plan = plan;
    s->cancel = 0;
    ns_session_drop_marks(s, 0);
    if (ns_session_compute(s, n, e) == 0) {
        s->mixed = false;
        ns_state_free(old);
        ns_plan_free(old_plan);
        return 0;
    }
    s->state = old;
    s->plan = old_plan;
    s->n = n;
    s->has_logits = false;
    return -1;
}

/* An empty state of the new size, and whoever computes the session's tokens has all of them before it again. */
static int leave_unread(ns_session *s, ns_plan *plan, ns_state *state)
{
    ns_session_drop_marks(s, 0);
    ns_state_free(s->state);
    ns_plan_free(s->plan);
    s->state = state;
    s->plan = plan;
    s->mixed = s->has_logits = false;
    return 0;
}

static int prefill_again(ns_session *s, ns_plan *plan, ns_err *e)
{
    ns_state *state = ns_model_state(&s->en->model, &plan->cut, s->state->context, e);
    if (state && s->by_steps)
        return leave_unread(s, plan, state);
    int rc = state ? read_again(s, plan, state, e) : -1;
    if (rc != 0)
        ns_state_free(state);
    return rc;
}

static bool follows(const ns_session *s, const ns_cut *cut)
{
    return s->next && ns_cut_equal(ns_follower_cut(s->next), cut);
}

/* Nothing follows any more; the follower is the caller's to end. While it read, the session's steps had the cores that were left over. */
static ns_follower *detach(ns_session *s)
{
    ns_follower *f = s->next;
    s->next = NULL;
    if (f)
        s->plan->model = &s->en->model;
    return f;
}

/* The state that read along becomes the session's; the rest is little. */
static int take_over(ns_session *s, ns_err *e)
{
    ns_plan *plan = NULL;
    ns_state *state = NULL;
    if (ns_follower_take(detach(s), s->n, &plan, &state, e) != 0)
        return -1;
    int rc = read_again(s, plan, state, e);
    if (rc != 0) {
        ns_plan_free(plan);
        ns_state_free(state);
    }
    return rc;
}

static int keep_cache(ns_session *s, ns_plan *plan, ns_err *e)
{
    if (ns_state_adopt(s->state, &plan->cut, e) != 0)
        return -1;
    ns_plan_free(s->plan);
    s->plan = plan;
    s->mixed = true;
    return 0;
}

static int change(ns_session *s, const ns_cut *cut, enum ns_handover how, ns_err *e)
{
    if (how == NS_HANDOVER_LATE && follows(s, cut))
        return take_over(s, e);
    ns_session_unfollow(s);
    ns_plan *plan = ns_plan_new(&s->en->model, cut, e);
    int rc = !plan ? -1 : how == NS_HANDOVER_CACHE ? keep_cache(s, plan, e) : prefill_again(s, plan, e);
    if (rc != 0)
        ns_plan_free(plan);
    return rc;
}

int ns_session_resize(ns_session *s, const char *size, enum ns_handover how, ns_err *e)
{
    ns_cut cut = { 0 };
    char name[NS_SIZE_NAME];
    enum ns_handover real = how;
    double start = ns_now();
    bool again = s->mixed && (how == NS_HANDOVER_PREFILL || how == NS_HANDOVER_LATE);
    int rc = ns_engine_cut(s->en, size, s->state->context, &cut, name, sizeof name, e);
    if (rc != 0 || (ns_cut_equal(&cut, &s->plan->cut) && !again))
        goto done;
    if (s->n == 0) /* there is nothing to hand over */
        how = NS_HANDOVER_PREFILL;
    if ((rc = ns_engine_handover(s->en, &s->state->cut, &cut, how, &real, e)) != 0)
        ns_err_wrap(e, "from size %s to %s", s->name, name);
    else
        rc = change(s, &cut, real, e);
    if (rc == 0)
        memcpy(s->name, name, sizeof name);
    if (rc == 0 && s->n > 0) {
        s->stats.switches++;
        s->stats.switch_seconds += ns_now() - start;
        s->stats.handover = real;
    }
done:
    ns_cut_release(&cut);
    return rc;
}

/* ---- late ---- */

void ns_session_unfollow(ns_session *s)
{
    ns_follower_free(detach(s));
}

int ns_session_follow(ns_session *s, const char *size, ns_err *e)
{
    ns_cut cut = { 0 };
    char name[NS_SIZE_NAME];
    int rc = ns_engine_cut(s->en, size, s->state->context, &cut, name, sizeof name, e);
    if (rc == 0 && !(s->next && ns_cut_equal(ns_follower_cut(s->next), &cut))) {
        ns_session_unfollow(s);
        s->next = ns_follower_new(s->en, &cut, s->state->context, s->ids, e);
        rc = s->next ? 0 : -1;
    }
    ns_cut_release(&cut);
    return rc;
}

int ns_session_advance(ns_session *s, ns_err *e)
{
    double start = ns_now();
    int rc = s->next ? ns_follower_read(s->next, s->n, e) : 0;
    if (rc != 0)
        ns_session_unfollow(s);
    s->stats.switch_seconds += ns_now() - start;
    return rc;
}

/* ---- measuring ---- */

enum { TIMED_STEPS = 3, TIMED_READ = 32 };

int ns_session_time(ns_session *s, const char *size, const ns_answer_clock *clock, double *step, double *read, ns_err *e)
{
    ns_cut cut = { 0 };
    char name[NS_SIZE_NAME];
    int ids[TIMED_READ], rc = ns_engine_cut(s->en, size, s->state->context, &cut, name, sizeof name, e);
    ns_plan *plan = rc == 0 ? ns_plan_new(&s->en->model, &cut, e) : NULL;
    ns_state *state = plan ? ns_model_state(&s->en->model, &cut, TIMED_STEPS + TIMED_READ, e) : NULL;
    float *logits = malloc((size_t)s->en->model.arch->vocab_size * sizeof *logits);
    rc = state ? logits ? 0 : ns_fail(e, NS_ENOMEM, "timing: out of memory") : -1;
    for (int i = 0; i < TIMED_READ; i++) /* any tokens do; other ones meet other experts */
        ids[i] = (int)((int64_t)i * 7919 % s->en->model.arch->vocab_size);
    for (int i = -1; rc == 0 && i < TIMED_STEPS; i++) { /* the first, of several tokens, warms up and is the prompt's measure */
        int n = i < 0 ? TIMED_READ : 1;
        ns_item item = { .state = state, .ids = ids, .n = n, .n_logits = i >= 0, .logits = logits };
        double start = clock->now(clock->ctx, size, 0);
        rc = ns_forward(plan, &item, 1, s->scratch, NULL, e);
        double took = clock->now(clock->ctx, size, n) - start;
        if (i < 0 && read)
            *read = took / n;
        if (i == 0 || (i > 0 && took < *step))
            *step = took;
    }
    free(logits);
    ns_plan_free(plan);
    ns_state_free(state);
    ns_cut_release(&cut);
    return rc;
}
