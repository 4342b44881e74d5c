/* A growing byte string. `data` is always NUL-terminated once anything was added; `len` does not count the NUL.
 * Out of memory is sticky: `failed` is set, later appends do nothing, and the owner checks once at the end. */
#ifndef NS_BASE_BUF_H
#define NS_BASE_BUF_H
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

typedef struct ns_buf {
    char *data; /* owned; NULL while empty */
    size_t len, cap;
    bool failed;
} ns_buf;

void ns_buf_add(ns_buf *b, const void *p, size_t n);
void ns_buf_adds(ns_buf *b, const char *s);
void ns_buf_addc(ns_buf *b, char c);
void ns_buf_addf(ns_buf *b, const char *fmt, ...) NS_PRINTF(2, 3);
void ns_buf_clear(ns_buf *b);    /* keeps the memory */
void ns_buf_release(ns_buf *b);  /* frees it */
#endif
