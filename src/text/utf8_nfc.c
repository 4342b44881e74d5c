/* NFC over utf8proc's character tables. utf8proc_map would do, but it puts combining marks in order by exchanging
 * neighbours, which is quadratic in the length of a run of marks, and text comes from strangers. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/utf8.h"

enum { MAX_DECOMPOSITION = 8, N_CLASSES = 256, SMALL_RUN = 16 };

typedef struct codes {
    utf8proc_int32_t *data;
    size_t len;
} codes;

bool ns_utf8_plain_nfc(const char *p, size_t n)
{
    /* Below U+0300 (CC 80) nothing combines and nothing decomposes under NFC. */
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)p[i] >= 0xcc)
            return false;
    return true;
}

static unsigned combining_class(utf8proc_int32_t c)
{
    return (unsigned)utf8proc_get_property(c)->combining_class % N_CLASSES;
}

static void sort_insertion(utf8proc_int32_t *c, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        utf8proc_int32_t x = c[i];
        size_t j = i;
        for (; j > 0 && combining_class(c[j - 1]) > combining_class(x); j--)
            c[j] = c[j - 1];
        c[j] = x;
    }
}

/* Stable counting sort by combining class; tmp holds n codes. */
static void sort_counting(utf8proc_int32_t *c, size_t n, utf8proc_int32_t *tmp)
{
    size_t at[N_CLASSES + 1] = { 0 };
    for (size_t i = 0; i < n; i++)
        at[combining_class(c[i]) + 1]++;
    for (size_t k = 1; k <= N_CLASSES; k++)
        at[k] += at[k - 1];
    for (size_t i = 0; i < n; i++)
        tmp[at[combining_class(c[i])]++] = c[i];
    memcpy(c, tmp, n * sizeof *c);
}

/* Canonical ordering: every run of characters of non-zero class, sorted. */
static int order_marks(codes *c)
{
    utf8proc_int32_t *tmp = NULL;
    for (size_t i = 0; i < c->len;) {
        size_t end = i;
        while (end < c->len && combining_class(c->data[end]) != 0)
            end++;
        size_t n = end - i;
        if (n > SMALL_RUN && !tmp && !(tmp = malloc(c->len * sizeof *tmp)))
            return -1;
        if (n > SMALL_RUN)
            sort_counting(c->data + i, n, tmp);
        else if (n > 1)
            sort_insertion(c->data + i, n);
        i = end + 1;
    }
    free(tmp);
    return 0;
}

static int decompose(const char *p, size_t n, codes *out)
{
    size_t cap = n + MAX_DECOMPOSITION;
    int boundary = 0;
    out->len = 0;
    out->data = malloc(cap * sizeof *out->data);
    for (size_t i = 0; out->data && i < n;) {
        uint32_t cp = 0;
        int len = ns_utf8_decode(p + i, n - i, &cp);
        if (len <= 0)
            return -1;
        i += (size_t)len;
        if (cap - out->len < MAX_DECOMPOSITION) {
            utf8proc_int32_t *grown = realloc(out->data, (cap *= 2) * sizeof *grown);
            if (!grown)
                return -1;
            out->data = grown;
        }
        utf8proc_ssize_t k = utf8proc_decompose_char((utf8proc_int32_t)cp, out->data + out->len, MAX_DECOMPOSITION,
                                                     UTF8PROC_DECOMPOSE, &boundary);
        if (k < 0 || k > MAX_DECOMPOSITION)
            return -1;
        out->len += (size_t)k;
    }
    return out->data ? 0 : -1;
}

int ns_utf8_nfc(const char *p, size_t n, ns_buf *out)
{
    codes c = { 0 };
    int rc = -1;
    if (decompose(p, n, &c) != 0 || order_marks(&c) != 0)
        goto out;
    utf8proc_ssize_t len = utf8proc_normalize_utf32(c.data, (utf8proc_ssize_t)c.len, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    for (utf8proc_ssize_t i = 0; i < len; i++) {
        char u[4];
        ns_buf_add(out, u, ns_utf8_encode((uint32_t)c.data[i], u));
    }
    rc = len < 0 || out->failed ? -1 : 0;
out:
    free(c.data);
    return rc;
}
