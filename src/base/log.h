/* Log sink and clock. The library writes no output of its own: messages go to the sink, which starts as "discard". */
#ifndef NS_BASE_LOG_H
#define NS_BASE_LOG_H
#include "base/err.h"

typedef void ns_log_fn(void *ctx, const char *line); /* one line, no newline */

void ns_log_sink(ns_log_fn *fn, void *ctx);
void ns_log(const char *fmt, ...) NS_PRINTF(1, 2);
double ns_now(void); /* seconds, monotonic */
#endif
