/* What the scheduler says about itself, and what "auto" learns from it. */
#include <math.h>
#include <stdio.h>

#include "base/log.h"
#include "run/sched_impl.h"

static const double LATE = 10.0;  /* seconds of computing that count as "of late" */
static const double SHARE = 0.2;  /* of a new value in a moving mean */
enum { WINDOW = 32, WINDOW_LEAST = 8 }; /* tokens that a sequence's rate is measured over */

static void blend(double *mean, double x)
{
    *mean += (*mean > 0.0 ? SHARE : 1.0) * (x - *mean);
}

/* ---- auto ---- */

/* The load counts sizes from the smallest on, the engine from the widest. */
static const char *size_name(const ns_sched *s, int i)
{
    const ns_variants *v = &s->en->ckpt->variants;
    return v->v[v->n - 1 - i].name;
}

void ns_sched_name_auto(ns_sched *s)
{
    snprintf(s->stats.auto_think, sizeof s->stats.auto_think, "%s", size_name(s, s->load.think));
    snprintf(s->stats.auto_answer, sizeof s->stats.auto_answer, "%s", size_name(s, s->load.answer));
}

static void saw(ns_sched *s, double now, double first_token, double token_rate)
{
    s->load_saw = now;
    ns_load_saw(&s->load, now, first_token, token_rate, s->stats.waiting);
    ns_sched_name_auto(s);
}

bool ns_sched_idle(ns_sched *s)
{
    double now = ns_now();
    if (now - s->load_saw >= 1.0)
        saw(s, now, 0.0, 0.0);
    return s->load.think + s->load.answer < 2 * (s->load.n_sizes - 1);
}

void ns_sched_auto(ns_sched *s, const char **think, const char **answer)
{
    *think = size_name(s, s->load.think);
    *answer = size_name(s, s->load.answer);
}

/* ---- counting ---- */

static void count_pace(double *tokens, double *seconds, int n, double took)
{
    double keep = exp(-took / LATE);
    *tokens = *tokens * keep + n;
    *seconds = *seconds * keep + took;
}

void ns_sched_count_step(ns_sched *s, int read, int written, double seconds)
{
    pthread_mutex_lock(&s->lock);
    s->stats.steps++;
    ns_sched_idle(s);
    s->stats.prompt_tokens += (uint64_t)read;
    if (read)
        count_pace(&s->read_pace.tokens, &s->read_pace.seconds, read, seconds);
    if (written)
        count_pace(&s->write_pace.tokens, &s->write_pace.seconds, written, seconds);
    pthread_mutex_unlock(&s->lock);
    if (s->n_run < 2)
        s->times.least = 0.0;
    else if (written)
        blend(&s->times.least, seconds);
}

static void end_window(ns_sched *s, ns_job *j)
{
    double rate = j->in_window / (j->last - j->window);
    j->in_window = 0;
    j->window = j->last;
    if (!isfinite(rate))
        return;
    blend(&s->stats.token_rate, rate);
    saw(s, j->last, 0.0, rate);
}

void ns_sched_count_token(ns_sched *s, ns_job *j)
{
    pthread_mutex_lock(&s->lock);
    s->stats.tokens++;
    if (j->window == 0.0) { /* the first */
        j->window = j->last;
        blend(&s->stats.first_token, j->last - j->submitted);
        saw(s, j->last, j->last - j->submitted, 0.0);
    } else if (++j->in_window == WINDOW) {
        end_window(s, j);
    }
    pthread_mutex_unlock(&s->lock);
}

void ns_sched_count_end(ns_sched *s, ns_job *j)
{
    pthread_mutex_lock(&s->lock);
    if (j->in_window >= WINDOW_LEAST)
        end_window(s, j);
    if (strcmp(j->end, "cancelled") == 0)
        s->stats.cancelled++;
    else if (strcmp(j->end, "error") == 0)
        s->stats.failed++;
    else
        s->stats.finished++;
    s->stats.cached_tokens += j->result.cached_tokens;
    s->stats.prefix_bytes = s->prefix ? ns_prefix_bytes(s->prefix) : 0;
    if (j->began > 0.0)
        blend(&s->mean_run, ns_now() - j->began);
    pthread_mutex_unlock(&s->lock);
}

/* ---- what others may know ---- */

static double rate(double tokens, double seconds)
{
    return seconds > 0.0 ? tokens / seconds : 0.0;
}

/* Every place is free again after as long as a request ran of late; who waits takes turns at them. */
static double wait_of(const ns_sched *s)
{
    const ns_sched_stats *t = &s->stats;
    if (!t->waiting && t->running < s->o.parallel)
        return 0.0;
    return (t->waiting + 1) * (s->mean_run > 0.0 ? s->mean_run : 1.0) / (t->running ? t->running : 1);
}

ns_sched_stats ns_sched_about(ns_sched *s)
{
    pthread_mutex_lock(&s->lock);
    ns_sched_stats t = s->stats;
    t.prefill_rate = rate(s->read_pace.tokens, s->read_pace.seconds);
    t.decode_rate = rate(s->write_pace.tokens, s->write_pace.seconds);
    t.wait = wait_of(s);
    pthread_mutex_unlock(&s->lock);
    return t;
}
