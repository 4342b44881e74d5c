/* A pool of threads for data-parallel loops. Each thread begins with a run of neighbouring tasks of its own; what is left of the others'
 * it takes when that is done. All are claimed one by one, so a thread that the system took off its core delays only the task in its hands;
 * waiting threads spin briefly and then sleep. */
#ifndef NS_KERNEL_POOL_H
#define NS_KERNEL_POOL_H
#include "base/err.h"

typedef struct ns_pool ns_pool;
typedef void ns_task_fn(void *ctx, int task, int thread); /* 0 <= thread < ns_pool_threads */

/* n_threads counts the caller, which works too; 0: the cores this process may use, or NS_THREADS. NULL on error. */
ns_pool *ns_pool_new(int n_threads, ns_err *e);
void ns_pool_free(ns_pool *p);
int ns_pool_threads(const ns_pool *p);
/* Runs fn for every task in 0..n_tasks-1 and returns when all are done. One run at a time; not re-entrant. */
void ns_pool_run(ns_pool *p, int n_tasks, ns_task_fn *fn, void *ctx);
#endif
