#include "base/log.h"

#include <stdio.h>
#include <time.h>

static ns_log_fn *sink_fn;
static void *sink_ctx;

void ns_log_sink(ns_log_fn *fn, void *ctx)
{
    sink_fn = fn;
    sink_ctx = ctx;
}

void ns_log(const char *fmt, ...)
{
    if (!sink_fn)
        return;
    char line[1000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    sink_fn(sink_ctx, line);
}

double ns_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
