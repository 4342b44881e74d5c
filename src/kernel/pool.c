#include "kernel/pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"

/* About 20 us of spinning: longer than the gap between two loops of one decode step, shorter than a scheduler's time slice. */
enum { SPIN = 4000, MAX_THREADS = 256 };

/* A counter that threads wait on. The waker skips the system call while nobody sleeps. */
struct signal {
    _Alignas(64) atomic_uint value;
    atomic_int sleepers;
};

/* A thread's own share of the tasks: a run of them, so that what it asks for ahead of time is what it will read. */
struct share {
    _Alignas(64) atomic_ullong next; /* epoch << 32 | next unclaimed task */
};

struct ns_pool {
    int n_threads;
    struct share *share; /* [n_threads] */
    pthread_t *thread; /* [n_threads - 1] */
    atomic_bool quit;
    /* The loop at hand. A claim succeeds only in its own epoch, so a late thread never meets the next loop's fields, and the
     * caller waits for tasks, not for threads: one that the system has not scheduled yet holds nobody up. */
    _Atomic(ns_task_fn *) fn;
    _Atomic(void *) ctx;
    atomic_uint n_tasks;
    struct signal epoch; /* one more for every loop */
    struct signal done;  /* tasks finished in this epoch */
};

struct worker {
    ns_pool *pool;
    int id;
};

static void relax(void)
{
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
}

/* Returns the value once it differs from `old`. */
static unsigned wait_change(struct signal *s, unsigned old)
{
    unsigned now;
    for (int i = 0; i < SPIN; i++) {
        if ((now = atomic_load_explicit(&s->value, memory_order_acquire)) != old)
            return now;
        relax();
    }
    atomic_fetch_add(&s->sleepers, 1);
    while ((now = atomic_load(&s->value)) == old)
        syscall(SYS_futex, &s->value, FUTEX_WAIT_PRIVATE, old, NULL, NULL, 0);
    atomic_fetch_sub(&s->sleepers, 1);
    return now;
}

static void wake(struct signal *s)
{
    if (atomic_load(&s->sleepers) > 0)
        syscall(SYS_futex, &s->value, FUTEX_WAKE_PRIVATE, MAX_THREADS, NULL, NULL, 0);
}

/* Where the share of a thread begins; that of the thread behind the last is n. */
static unsigned first_task(const ns_pool *p, unsigned n, int id)
{
    return (unsigned)((unsigned long long)n * (unsigned)id / (unsigned)p->n_threads);
}

/* What is left of one share. */
static void work_off(ns_pool *p, unsigned epoch, int owner, int id)
{
    atomic_ullong *next = &p->share[owner].next;
    for (;;) {
        unsigned long long cur = atomic_load_explicit(next, memory_order_acquire);
        unsigned n = atomic_load_explicit(&p->n_tasks, memory_order_acquire), task = (unsigned)cur;
        if ((unsigned)(cur >> 32) != epoch || task >= first_task(p, n, owner + 1))
            return;
        if (!atomic_compare_exchange_weak(next, &cur, cur + 1))
            continue;
        ns_task_fn *fn = atomic_load_explicit(&p->fn, memory_order_relaxed);
        fn(atomic_load_explicit(&p->ctx, memory_order_relaxed), (int)task, id);
        if (atomic_fetch_add(&p->done.value, 1) + 1 == n)
            wake(&p->done);
    }
}

/* A thread's own share, then what others have not got to. */
static void work(ns_pool *p, unsigned epoch, int id)
{
    for (int i = 0; i < p->n_threads; i++)
        work_off(p, epoch, (id + i) % p->n_threads, id);
}

static void *worker_main(void *arg)
{
    struct worker w = *(struct worker *)arg;
    free(arg);
    for (unsigned epoch = 0;;) {
        epoch = wait_change(&w.pool->epoch, epoch);
        if (w.pool->quit)
            return NULL;
        work(w.pool, epoch, w.id);
    }
}

static int default_threads(void)
{
    const char *s = getenv("NS_THREADS");
    cpu_set_t set;
    int n = s ? atoi(s) : 0;
    if (n <= 0 && sched_getaffinity(0, sizeof set, &set) == 0)
        n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}

static void stop(ns_pool *p, int started)
{
    p->quit = true;
    atomic_fetch_add(&p->epoch.value, 1);
    wake(&p->epoch);
    for (int i = 0; i < started; i++)
        pthread_join(p->thread[i], NULL);
    free(p->thread);
    free(p->share);
    free(p);
}

ns_pool *ns_pool_new(int n_threads, ns_err *e)
{
    if (n_threads <= 0)
        n_threads = default_threads();
    if (n_threads > MAX_THREADS)
        n_threads = MAX_THREADS;
    ns_pool *p = aligned_alloc(64, sizeof *p);
    if (!p) {
        ns_fail(e, NS_ENOMEM, "thread pool: out of memory");
        return NULL;
    }
    memset(p, 0, sizeof *p);
    p->n_threads = n_threads;
    p->thread = calloc((size_t)n_threads, sizeof *p->thread);
    p->share = ns_alloc_aligned((size_t)n_threads * sizeof *p->share);
    for (int i = 0; p->share && i < n_threads; i++)
        atomic_init(&p->share[i].next, 0);
    if (!p->thread || !p->share) {
        ns_fail(e, NS_ENOMEM, "thread pool: out of memory");
        stop(p, 0);
        return NULL;
    }
    for (int i = 1; i < n_threads; i++) {
        struct worker *w = malloc(sizeof *w);
        if (w)
            *w = (struct worker){ p, i };
        if (!w || pthread_create(&p->thread[i - 1], NULL, worker_main, w) != 0) {
            free(w);
            ns_fail(e, NS_ENOMEM, "thread pool: cannot start thread %d of %d", i + 1, n_threads);
            stop(p, i - 1);
            return NULL;
        }
    }
    return p;
}

void ns_pool_free(ns_pool *p)
{
    if (p)
        stop(p, p->n_threads - 1);
}

int ns_pool_threads(const ns_pool *p)
{
    return p->n_threads;
}

void ns_pool_run(ns_pool *p, int n_tasks, ns_task_fn *fn, void *ctx)
{
    if (p->n_threads == 1 || n_tasks <= 1) {
        for (int t = 0; t < n_tasks; t++)
            fn(ctx, t, 0);
        return;
    }
    unsigned epoch = atomic_load(&p->epoch.value) + 1, n = (unsigned)n_tasks;
    /* Closed first: a thread still leaving the last loop would otherwise hold that loop's counter against this loop's n_tasks. */
    for (int i = 0; i < p->n_threads; i++)
        atomic_store(&p->share[i].next, (unsigned long long)epoch << 32 | UINT32_MAX);
    atomic_store_explicit(&p->fn, fn, memory_order_relaxed);
    atomic_store_explicit(&p->ctx, ctx, memory_order_relaxed);
    atomic_store_explicit(&p->n_tasks, n, memory_order_release); /* who sees it sees `next` closed, and cannot claim */
    atomic_store(&p->done.value, 0);
    for (int i = 0; i < p->n_threads; i++)
        atomic_store(&p->share[i].next, (unsigned long long)epoch << 32 | first_task(p, n, i));
    atomic_store(&p->epoch.value, epoch);
    wake(&p->epoch);
    work(p, epoch, 0);
    for (unsigned done; (done = atomic_load_explicit(&p->done.value, memory_order_acquire)) != n;)
        wait_change(&p->done, done);
}
