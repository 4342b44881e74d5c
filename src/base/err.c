#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void set(ns_err *e, enum ns_code code, const char *fmt, va_list ap)
{
    if (!e || e->code != NS_OK)
        return;
    e->code = (int)code;
    vsnprintf(e->msg, sizeof e->msg, fmt, ap);
}

int ns_fail(ns_err *e, enum ns_code code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    set(e, code, fmt, ap);
    va_end(ap);
    return -1;
}

int ns_fail_errno(ns_err *e, const char *fmt, ...)
{
    int saved = errno;
    char head[800];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    return ns_fail(e, NS_EIO, "%s: %s", head, strerror(saved));
}

int ns_err_wrap(ns_err *e, const char *fmt, ...)
{
    if (!e)
        return -1;
    char head[400], tail[sizeof e->msg];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(head, sizeof head, fmt, ap);
    va_end(ap);
    memcpy(tail, e->msg, sizeof tail);
    snprintf(e->msg, sizeof e->msg, "%s: %.590s", head, tail);
    return -1;
}
