#include "run/follow.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "run/stretch.h"

struct ns_follower {
    const ns_engine *en;
    const int *ids;
    ns_plan *plan;
    ns_state *state;
    ns_scratch *scratch;
    /* where it has cores of its own; NULL: it reads when it is told to */
    ns_pool *own, *rest;
    ns_model reading, beside;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t turn;
    /* changed under the lock; the thread computes without it, and nobody else touches plan and state while it is busy */
    atomic_int until, done; /* tokens asked for; tokens read */
    atomic_bool busy;
    bool quit;
    int rc;
    ns_err err;
};

/* One step, at most to `until`. */
static int step(ns_follower *f, int until, ns_err *e)
{
    int at = f->state->len;
    ns_item item = { .state = f->state, .ids = f->ids + at, .n = until - at < NS_STEP_TOKENS ? until - at : NS_STEP_TOKENS };
    return ns_forward(f->plan, &item, 1, f->scratch, NULL, e);
}

static void *thread_main(void *arg)
{
    ns_follower *f = arg;
    pthread_mutex_lock(&f->lock);
    for (;;) {
        while (!f->busy && !f->quit)
            pthread_cond_wait(&f->turn, &f->lock);
        if (!f->busy)
            break;
        while (f->rc == 0 && !f->quit && f->done < f->until) {
            int until = f->until;
            ns_err e = { 0 };
            pthread_mutex_unlock(&f->lock);
            int rc = step(f, until, &e);
            pthread_mutex_lock(&f->lock);
            f->rc = rc;
            f->err = e;
            f->done = f->state->len;
        }
        f->busy = false;
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* The thread has left; plan and state are the caller's. */
static void stop(ns_follower *f)
{
    if (!f->started)
        return;
    pthread_mutex_lock(&f->lock);
    f->quit = true;
    pthread_cond_signal(&f->turn);
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->thread, NULL);
    f->started = false;
}

/* Half of the cores: a decode step waits for memory, for which half of them are nearly as good as all. */
static int start(ns_follower *f, ns_err *e)
{
    int n = ns_pool_threads(f->en->pool);
    if (n < 2)
        return 0;
    f->own = ns_pool_new(n / 2, e);
    f->rest = f->own ? ns_pool_new(n - n / 2, e) : NULL;
    if (!f->rest)
        return -1;
    f->reading = f->beside = f->en->model;
    f->reading.pool = f->own;
    f->beside.pool = f->rest;
    f->plan->model = &f->reading;
    if (pthread_create(&f->thread, NULL, thread_main, f) != 0)
        return ns_fail(e, NS_ENOMEM, "a late handover: cannot start a thread");
    f->started = true;
    return 0;
}

ns_follower *ns_follower_new(const ns_engine *en, const ns_cut *cut, int context, const int *ids, ns_err *e)
{
    ns_follower *f = calloc(1, sizeof *f);
    if (!f) {
        ns_fail(e, NS_ENOMEM, "a late handover: out of memory");
        return NULL;
    }
    *f = (ns_follower){ .en = en, .ids = ids };
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->turn, NULL);
    f->plan = ns_plan_new(&en->model, cut, e);
    f->state = f->plan ? ns_model_state(&en->model, cut, context, e) : NULL;
    f->scratch = ns_scratch_new();
    if (f->state && f->scratch && start(f, e) == 0)
        return f;
    if (f->state && !f->scratch)
        ns_fail(e, NS_ENOMEM, "a late handover: out of memory");
    ns_follower_free(f);
    return NULL;
}

void ns_follower_free(ns_follower *f)
{
    if (!f)
        return;
    stop(f);
    ns_pool_free(f->own);
    ns_pool_free(f->rest);
    ns_plan_free(f->plan);
    ns_state_free(f->state);
    ns_scratch_free(f->scratch);
    pthread_cond_destroy(&f->turn);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

const ns_cut *ns_follower_cut(const ns_follower *f)
{
    return &f->plan->cut;
}

static int read_here(ns_follower *f, ns_err *e)
{
    while (f->done < f->until) {
        if (step(f, f->until, e) != 0)
            return -1;
        f->done = f->state->len;
    }
    return 0;
}

int ns_follower_read(ns_follower *f, int n, ns_err *e)
{
    pthread_mutex_lock(&f->lock);
    int until = ns_stretch_last_cut(n), rc = f->rc;
    if (rc != 0 && e)
        *e = f->err;
    if (rc == 0 && until > f->until) {
        f->until = until;
        f->busy = f->started;
        pthread_cond_signal(&f->turn);
    }
    pthread_mutex_unlock(&f->lock);
    return rc == 0 && !f->started ? read_here(f, e) : rc;
}

int ns_follower_asked(ns_follower *f)
{
    return f->until;
}

int ns_follower_done(ns_follower *f)
{
    return f->done;
}

const ns_model *ns_follower_beside(ns_follower *f)
{
    return f->busy ? &f->beside : &f->en->model;
}

int ns_follower_take(ns_follower *f, int n, ns_plan **plan, ns_state **state, ns_err *e)
{
    stop(f);
    f->plan->model = &f->en->model;
    f->until = ns_stretch_last_cut(n);
    int rc = f->rc;
    if (rc != 0 && e)
        *e = f->err;
    if (rc == 0)
        rc = read_here(f, e);
    if (rc == 0) {
        *plan = f->plan;
        *state = f->state;
        f->plan = NULL;
        f->state = NULL;
    }
    ns_follower_free(f);
    return rc;
}
