/* The thread pool: every task runs exactly once, before the run returns, on a valid thread, whatever the counts. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "kernel/pool.h"

enum { MOST = 20000 };

typedef struct loop {
    unsigned char *ran; /* plain: each task has its own byte, and the run's end orders all */
    int n, threads;
    atomic_int strays, claimed;
    atomic_int *busy; /* [threads] a thread must not be in two tasks at once */
    int work;
} loop;

static void task(void *ctx, int t, int thread)
{
    loop *l = ctx;
    volatile int spin = 0;
    if (t < 0 || t >= l->n || thread < 0 || thread >= l->threads) {
        atomic_fetch_add(&l->strays, 1);
        return;
    }
    if (atomic_fetch_add(&l->busy[thread], 1) != 0)
        atomic_fetch_add(&l->strays, 1);
    for (int i = 0; i < l->work; i++)
        spin = spin + i;
    l->ran[t]++;
    atomic_fetch_add(&l->claimed, 1);
    atomic_fetch_sub(&l->busy[thread], 1);
}

static void check_loop(ns_pool *p, unsigned char *ran, int n, int work)
{
    atomic_int busy[64];
    loop l = { .ran = ran, .n = n, .threads = ns_pool_threads(p), .busy = busy, .work = work };
    for (int i = 0; i < 64; i++)
        atomic_init(&busy[i], 0);
    memset(ran, 0, (size_t)n + 1);
    ns_pool_run(p, n, task, &l);
    for (int i = 0; i < n; i++)
        if (ran[i] != 1)
            fail_msg("%d tasks on %d threads: task %d ran %d times", n, l.threads, i, ran[i]);
    assert_int_equal(atomic_load(&l.claimed), n);
    assert_int_equal(atomic_load(&l.strays), 0);
}

static int loops(void) /* NS_TEST_SEEDS: a longer run by hand */
{
    const char *s = getenv("NS_TEST_SEEDS");
    return s ? atoi(s) : 1;
}

static ns_pool *pool_of(int n)
{
    ns_err e = { 0 };
    ns_pool *p = ns_pool_new(n, &e);
    assert_non_null(p);
    assert_int_equal(ns_pool_threads(p), n);
    return p;
}

/* Loops of a few tiny tasks in quick succession, the count going up and down: a thread that is late out of one loop meets the next. */
static void quick_loops(void **state)
{
    (void)state;
    unsigned char *ran = malloc(MOST + 1);
    for (int n = 1; n <= 8; n++) {
        ns_pool *p = pool_of(n);
        for (int i = 0; i < 20000 * loops(); i++)
            check_loop(p, ran, i * 7 % 13, i % 3 ? 0 : 20);
        ns_pool_free(p);
    }
    free(ran);
}

static void all_sizes(void **state)
{
    (void)state;
    static const int sizes[] = { 0, 1, 2, 3, 7, 8, 9, 64, 1000, MOST };
    unsigned char *ran = malloc(MOST + 1);
    for (int n = 1; n <= 8; n++) {
        ns_pool *p = pool_of(n);
        for (int i = 0; i < 10 * (int)(sizeof sizes / sizeof *sizes); i++)
            check_loop(p, ran, sizes[i * 3 % 10], i % 50);
        ns_pool_free(p);
    }
    free(ran);
}

/* Each thread begins with its own share: nobody gets further before all have begun, so nobody can have taken another's. */
struct begin {
    atomic_int first[8], begun;
    int threads;
};

static void begin_task(void *ctx, int t, int thread)
{
    struct begin *b = ctx;
    int none = -1;
    if (!atomic_compare_exchange_strong(&b->first[thread], &none, t))
        return;
    atomic_fetch_add(&b->begun, 1);
    while (atomic_load(&b->begun) < b->threads)
        sched_yield();
}

static void own_shares(void **state)
{
    (void)state;
    for (int n = 2; n <= 8; n++)
        for (int tasks = n; tasks < 5 * n; tasks += 3) {
            ns_pool *p = pool_of(n);
            struct begin b = { .threads = n };
            for (int i = 0; i < n; i++)
                atomic_init(&b.first[i], -1);
            ns_pool_run(p, tasks, begin_task, &b);
            for (int i = 0; i < n; i++)
                assert_int_equal(atomic_load(&b.first[i]), tasks * i / n);
            ns_pool_free(p);
        }
}

/* Pools come and go, and the caller of a pool changes. */
static void many_pools(void **state)
{
    (void)state;
    unsigned char *ran = malloc(MOST + 1);
    ns_rng r;
    ns_rng_init(&r, 1);
    for (int i = 0; i < 200; i++) {
        ns_pool *p = pool_of(1 + (int)(ns_rng_u64(&r) % 8));
        for (int j = (int)(ns_rng_u64(&r) % 4); j > 0; j--) /* often none: freed while its threads are still starting */
            check_loop(p, ran, (int)(ns_rng_u64(&r) % 50), 10);
        ns_pool_free(p);
    }
    ns_pool_free(NULL);
    free(ran);
}

/* What one loop wrote, the next one reads on whatever thread. */
enum { CELLS = 97 };
struct relay {
    int from[CELLS], to[CELLS];
};

static void relay_task(void *ctx, int t, int thread)
{
    struct relay *r = ctx;
    (void)thread;
    r->to[t] = r->from[(t + 31) % CELLS] + 1;
}

static void loops_are_ordered(void **state)
{
    (void)state;
    for (int n = 1; n <= 5; n++) {
        ns_pool *p = pool_of(n);
        struct relay r = { { 0 }, { 0 } };
        for (int i = 1; i <= 2000; i++) {
            ns_pool_run(p, CELLS, relay_task, &r);
            for (int t = 0; t < CELLS; t++) {
                assert_int_equal(r.to[t], i);
                r.from[t] = r.to[t];
            }
        }
        ns_pool_free(p);
    }
}

static void thread_counts(void **state)
{
    (void)state;
    ns_err e = { 0 };
    setenv("NS_THREADS", "3", 1);
    ns_pool *p = ns_pool_new(0, &e);
    assert_int_equal(ns_pool_threads(p), 3);
    ns_pool_free(p);
    p = ns_pool_new(2, &e); /* what the caller asks for goes first */
    assert_int_equal(ns_pool_threads(p), 2);
    ns_pool_free(p);
    unsetenv("NS_THREADS");
    p = ns_pool_new(0, &e);
    assert_true(ns_pool_threads(p) >= 1);
    ns_pool_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(quick_loops), cmocka_unit_test(own_shares), cmocka_unit_test(all_sizes), cmocka_unit_test(many_pools),
                                        cmocka_unit_test(loops_are_ordered), cmocka_unit_test(thread_counts) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
