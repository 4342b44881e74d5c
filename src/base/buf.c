#include "base/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(ns_buf *b, size_t extra)
{
    if (b->failed || extra > SIZE_MAX / 4 - b->len)
        b->failed = true;
    if (b->failed)
        return false;
    size_t need = b->len + extra + 1;
    if (need <= b->cap)
        return true;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < need)
        cap *= 2;
    char *p = realloc(b->data, cap);
    if (!p) {
        b->failed = true;
        return false;
    }
    b->data = p;
    b->cap = cap;
    return true;
}

void ns_buf_add(ns_buf *b, const void *p, size_t n)
{
    if (!reserve(b, n))
        return;
    if (n)
        memcpy(b->data + b->len, p, n);
    b->len += n;
    b->data[b->len] = '\0';
}

void ns_buf_adds(ns_buf *b, const char *s)
{
    ns_buf_add(b, s, strlen(s));
}

void ns_buf_addc(ns_buf *b, char c)
{
    ns_buf_add(b, &c, 1);
}

void ns_buf_addf(ns_buf *b, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0)
        b->failed = true;
    else if (reserve(b, (size_t)n)) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
}

void ns_buf_clear(ns_buf *b)
{
    b->len = 0;
    if (b->data)
        b->data[0] = '\0';
}

void ns_buf_release(ns_buf *b)
{
    free(b->data);
    *b = (ns_buf){ 0 };
}
