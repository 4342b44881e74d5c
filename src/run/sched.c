/* The side of the scheduler that others see: made and freed, jobs in, words to running ones. */
#include "run/sched_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { PARALLEL = 8, QUEUE = 64, CHUNK = 128 };

/* ---- making and freeing ---- */

static int check(const ns_sched_opts *o, ns_err *e)
{
    if (o->context < 0 || o->parallel < 0 || o->queue < 0 || o->state_bytes < 0 || o->prefix_bytes < 0)
        return ns_fail(e, NS_EINVAL, "scheduler: a context, a number of requests or of bytes below 0");
    if (o->parallel > NS_SCHED_PARALLEL)
        return ns_fail(e, NS_EINVAL, "scheduler: %d sequences at once: at most %d", o->parallel, NS_SCHED_PARALLEL);
    if (o->chunk < 0 || o->chunk > NS_STEP_TOKENS || o->chunk % NS_SCAN_CHUNK != 0)
        return ns_fail(e, NS_EINVAL, "scheduler: a chunk of %d tokens: a multiple of %d up to %d", o->chunk, NS_SCAN_CHUNK, NS_STEP_TOKENS);
    if (!(o->first_token >= 0.0) || !(o->token_rate >= 0.0))
        return ns_fail(e, NS_EINVAL, "scheduler: a target below 0");
    return 0;
}

static int take_opts(ns_sched *s, const ns_sched_opts *o, ns_err *e)
{
    const ns_sched_opts none = { 0 };
    s->o = o ? *o : none;
    if (check(&s->o, e) != 0)
        return -1;
    s->o.context = s->o.context ? s->o.context : ns_session_default_context(s->en);
    s->o.parallel = s->o.parallel ? s->o.parallel : PARALLEL;
    s->o.queue = s->o.queue ? s->o.queue : QUEUE;
    s->o.chunk = s->o.chunk ? s->o.chunk : CHUNK;
    if (s->o.state_bytes)
        return 0;
    char name[NS_SIZE_NAME];
    int64_t full = ns_job_bytes(s, "full", s->o.context, name, e);
    s->o.state_bytes = full * s->o.parallel;
    return full < 0 ? -1 : 0;
}

const ns_sched_opts *ns_sched_options(const ns_sched *s)
{
    return &s->o;
}

static int find_marks(ns_sched *s, ns_err *e)
{
    const ns_tokenizer *t = s->en->tokenizer;
    ns_buf text = { 0 };
    int rc = ns_engine_close_text(s->en, &text, e);
    s->close_most = (int)text.len; /* a token has a byte at least */
    ns_buf_release(&text);
    s->open = t ? ns_tokenizer_find(t, "<think>", 7) : -1;
    s->close = t ? ns_tokenizer_find(t, "</think>", 8) : -1;
    return rc;
}

static int make_arrays(ns_sched *s, ns_err *e)
{
    size_t n = (size_t)s->o.parallel;
    s->run = calloc(n, sizeof *s->run);
    s->item = calloc(n, sizeof *s->item);
    s->of_item = calloc(n, sizeof *s->of_item);
    s->bits = calloc(((size_t)s->en->model.arch->vocab_size + 63) / 64, sizeof *s->bits);
    s->scratch = ns_scratch_new();
    if (!s->run || !s->item || !s->of_item || !s->bits || !s->scratch)
        return ns_fail(e, NS_ENOMEM, "scheduler: out of memory");
    if (s->o.prefix_bytes && !(s->prefix = ns_prefix_new(s->o.prefix_bytes, e)))
        return -1;
    return 0;
}

ns_sched *ns_sched_new(ns_engine *en, const ns_sched_opts *o, ns_err *e)
{
    ns_sched *s = calloc(1, sizeof *s);
    if (!s) {
        ns_fail(e, NS_ENOMEM, "scheduler: out of memory");
        return NULL;
    }
    s->en = en;
    s->last = &s->first;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_t clock;
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&s->work, &clock);
    pthread_condattr_destroy(&clock);
    if (take_opts(s, o, e) != 0 || find_marks(s, e) != 0 || make_arrays(s, e) != 0) {
        ns_sched_free(s);
        return NULL;
    }
    s->stats.state_budget = s->o.state_bytes;
    s->stats.prefix_budget = s->o.prefix_bytes;
    ns_load_init(&s->load, en->ckpt->variants.n, s->o.first_token, s->o.token_rate);
    ns_sched_name_auto(s);
    return s;
}

void ns_sched_free(ns_sched *s)
{
    if (!s)
        return;
    while (s->first) { /* the loop never ran, or failed */
        ns_job *j = s->first;
        ns_job_end(j, "cancelled", NULL);
        ns_sched_unlink(s, j);
        ns_job_finish(s, j);
    }
    ns_prefix_free(s->prefix);
    ns_scratch_free(s->scratch);
    free(s->bits);
    free(s->of_item);
    free(s->item);
    free(s->run);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* ---- the list ---- */

static ns_job *find(const ns_sched *s, uint64_t ticket)
{
    ns_job *j = s->first;
    while (j && j->ticket != ticket)
        j = j->next;
    return j;
}

void ns_sched_unlink(ns_sched *s, ns_job *j)
{
    pthread_mutex_lock(&s->lock);
    ns_job **at = &s->first;
    while (*at != j)
        at = &(*at)->next;
    *at = j->next;
    if (!j->next)
        s->last = at;
    s->n_jobs--;
    if (j->running) {
        s->stats.running--;
        s->stats.state_bytes -= j->bytes;
    } else {
        s->stats.waiting--;
    }
    pthread_mutex_unlock(&s->lock);
}

/* ---- from any thread ---- */

int ns_sched_submit(ns_sched *s, const ns_sched_job *job, uint64_t *ticket, ns_err *e)
{
    ns_job *j = ns_job_new(s, job, e);
    int rc = j ? 0 : -1;
    pthread_mutex_lock(&s->lock);
    if (rc == 0 && s->stopping)
        rc = ns_fail(e, NS_EBUSY, "the server is stopping: no new requests");
    else if (rc == 0 && s->n_jobs >= s->o.parallel + s->o.queue)
        rc = ns_fail(e, NS_EBUSY, "the queue is full: %d requests run, %d wait", s->stats.running, s->stats.waiting);
    if (rc == 0) {
        *ticket = j->ticket = ++s->tickets;
        *s->last = j;
        s->last = &j->next;
        s->n_jobs++;
        s->stats.waiting++;
        s->stats.requests++;
        pthread_cond_signal(&s->work);
    } else {
        s->stats.refused++;
    }
    pthread_mutex_unlock(&s->lock);
    if (rc != 0)
        ns_job_free(j);
    return rc;
}

void ns_sched_cancel(ns_sched *s, uint64_t ticket)
{
    pthread_mutex_lock(&s->lock);
    ns_job *j = find(s, ticket);
    if (j)
        j->cancel = true;
    pthread_mutex_unlock(&s->lock);
}

void ns_sched_stop(ns_sched *s, bool at_once)
{
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    s->at_once = s->at_once || at_once;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
}

/* A job that must keep its cache can only go where the cache fits. */
static int check_handover(const ns_sched *s, const ns_job *j, const char *size, ns_err *e)
{
    ns_cut from = { 0 }, to = { 0 };
    char name[NS_SIZE_NAME];
    enum ns_handover how = j->asked.answer.handover;
    int rc = 0;
    if (how == NS_HANDOVER_CACHE && j->size[0])
        rc = ns_engine_cut(s->en, j->size, s->o.context, &from, name, sizeof name, e) == 0 &&
                     ns_engine_cut(s->en, size, s->o.context, &to, name, sizeof name, e) == 0
                 ? ns_engine_handover(s->en, &from, &to, how, &how, e)
                 : -1;
    ns_cut_release(&from);
    ns_cut_release(&to);
    return rc;
}

/* The order is in; what it may take more is set aside at once. */
static int order(ns_sched *s, ns_job *j, ns_job_text *size, int64_t bytes, ns_err *e)
{
    int64_t more = bytes > j->bytes ? bytes - j->bytes : 0, in_use = j->running ? s->stats.state_bytes : j->bytes;
    if (check_handover(s, j, size->text, e) != 0)
        return -1;
    if (more > s->o.state_bytes - in_use)
        return ns_fail(e, NS_EBUSY, "size %s: its state is larger, and there is no room for it now", size->text);
    j->bytes += more;
    if (j->running)
        s->stats.state_bytes += more;
    free(j->order);
    j->order = size;
    return 0;
}

int ns_sched_resize(ns_sched *s, uint64_t ticket, const char *size, ns_err *e)
{
    char name[NS_SIZE_NAME];
    pthread_mutex_lock(&s->lock);
    ns_job *j = find(s, ticket);
    int context = j ? j->context : 0;
    pthread_mutex_unlock(&s->lock);
    if (!j)
        return ns_fail(e, NS_EINVAL, "no such answer, or it is over");
    int64_t bytes = ns_job_bytes(s, size, context, name, e); /* takes a while: not under the lock */
    ns_job_text *text = bytes < 0 ? NULL : ns_job_text_new(ns_job_says(size, name), e);
    if (!text)
        return -1;
    pthread_mutex_lock(&s->lock);
    j = find(s, ticket);
    int rc = j ? order(s, j, text, bytes, e) : ns_fail(e, NS_EINVAL, "no such answer, or it is over");
    pthread_mutex_unlock(&s->lock);
    if (rc != 0)
        free(text);
    return rc;
}
