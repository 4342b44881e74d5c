/* The loop: who begins, what goes into a step, who is done. One thread runs it, and computes and calls back without the lock. */
#include <time.h>

#include "base/log.h"
#include "run/sched_impl.h"

/* ---- in and out ---- */

/* A second, or until there is something to do. */
static void wait_a_second(ns_sched *s)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec++;
    pthread_cond_timedwait(&s->work, &s->lock, &t);
}

static bool wait_for_work(ns_sched *s)
{
    pthread_mutex_lock(&s->lock);
    while (!s->n_jobs && !s->stopping) {
        if (ns_sched_idle(s))
            wait_a_second(s);
        else
            pthread_cond_wait(&s->work, &s->lock);
    }
    bool more = s->n_jobs > 0;
    pthread_mutex_unlock(&s->lock);
    return more;
}

/* A waiting job that is over before it began; NULL: none. */
static ns_job *find_given_up(ns_sched *s)
{
    double now = ns_now();
    ns_job *j;
    const char *how = NULL;
    pthread_mutex_lock(&s->lock);
    for (j = s->first; j; j = j->next)
        if (!j->running && (how = ns_job_given_up(s, j, now)))
            break;
    pthread_mutex_unlock(&s->lock);
    if (j)
        ns_job_end(j, how, NULL);
    return j;
}

/* The next in the queue, when there is a place and room for its states; none overtakes it. */
static ns_job *admit(ns_sched *s)
{
    pthread_mutex_lock(&s->lock);
    ns_job *j = s->first;
    while (j && j->running)
        j = j->next;
    if (j && (s->n_run == s->o.parallel || j->bytes > s->o.state_bytes - s->stats.state_bytes))
        j = NULL;
    if (j) {
        j->running = true;
        s->stats.running++;
        s->stats.waiting--;
        s->stats.state_bytes += j->bytes;
    }
    pthread_mutex_unlock(&s->lock);
    return j;
}

static void retire(ns_sched *s)
{
    int kept = 0;
    for (int i = 0; i < s->n_run; i++) {
        ns_job *j = s->run[i];
        if (!j->end) {
            s->run[kept++] = j;
            continue;
        }
        ns_sched_unlink(s, j);
        ns_job_finish(s, j);
    }
    s->n_run = kept;
}

static void give_up(ns_sched *s)
{
    double now = ns_now();
    for (int i = 0; i < s->n_run; i++) {
        pthread_mutex_lock(&s->lock);
        const char *how = ns_job_given_up(s, s->run[i], now);
        pthread_mutex_unlock(&s->lock);
        if (how)
            ns_job_end(s->run[i], how, NULL);
    }
}

static void change_shift(ns_sched *s)
{
    ns_job *j;
    give_up(s);
    retire(s);
    while ((j = find_given_up(s))) {
        ns_sched_unlink(s, j);
        ns_job_finish(s, j);
    }
    while ((j = admit(s))) {
        s->run[s->n_run++] = j;
        ns_job_begin(s, j);
        retire(s); /* where it could not */
    }
}

/* ---- a step ---- */

struct step {
    int n, left;         /* items; tokens that there is room for */
    int read, written;   /* tokens of texts and of answers in it */
};

static void add(ns_sched *s, struct step *st, ns_job *j, int n)
{
    s->item[st->n] = (ns_batch_item){ j->session, n };
    s->of_item[st->n++] = j;
    st->left -= n;
    *(j->reading ? &st->read : &st->written) += n;
}

static void add_decoding(ns_sched *s, struct step *st)
{
    for (int i = 0; i < s->n_run; i++) {
        ns_job *j = s->run[(i + (int)(s->stats.steps % (uint64_t)s->n_run)) % s->n_run];
        int n = j->reading ? 0 : ns_job_piece(s, j, st->left);
        if (n)
            add(s, st, j, n);
    }
}

/* Beside sequences that decode only a chunk is read, so that they go on soon. The texts take turns. */
static void add_reading(ns_sched *s, struct step *st)
{
    int most = st->n && s->o.chunk < st->left ? s->o.chunk : st->left, first = 0;
    while (first < s->n_run && s->run[first]->ticket <= s->turn)
        first++;
    for (int i = 0; i < s->n_run && most > 0; i++) {
        ns_job *j = s->run[(first + i) % s->n_run];
        int n = j->reading ? ns_job_piece(s, j, most) : 0;
        if (n == 0)
            continue;
        add(s, st, j, n);
        most -= n;
        s->turn = j->ticket;
    }
}

static void step(ns_sched *s)
{
    struct step st = { .left = NS_STEP_TOKENS };
    ns_err e = { 0 };
    double start = ns_now();
    add_decoding(s, &st);
    add_reading(s, &st);
    int rc = ns_batch_step(s->item, st.n, s->scratch, &e);
    double seconds = ns_now() - start;
    ns_sched_count_step(s, st.read, st.written, seconds);
    for (int i = 0; i < st.n; i++) {
        if (rc != 0)
            ns_job_end(s->of_item[i], "error", &e);
        else
            ns_job_computed(s, s->of_item[i], s->item[i].n, seconds);
    }
    retire(s);
}

void ns_sched_run(ns_sched *s)
{
    while (wait_for_work(s)) {
        change_shift(s);
        if (s->n_run)
            step(s);
    }
}
