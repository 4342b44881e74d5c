/* What of a request's head is refused, and the keys. libmicrohttpd has parsed it; what it lets through and a proxy in front might read
 * otherwise (two lengths, a length beside chunks, blanks in names) is refused here. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "serve/http_impl.h"

struct head {
    int lengths, encodings, hosts;
    bool bad;
    const char *length, *encoding, *id, *bearer, *key;
};

static bool is_name(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && !strchr("!#$%&'*+-.^_`|~", s[i])) /* strchr finds the NUL too: see n */
            return false;
    return n > 0 && strlen(s) == n;
}

static bool is_text(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (((unsigned char)s[i] < ' ' && s[i] != '\t') || s[i] == 127)
            return false;
    return true;
}

static enum MHD_Result see_header(void *ctx, enum MHD_ValueKind kind, const char *name, size_t n_name, const char *value, size_t n_value)
{
    struct head *hd = ctx;
    (void)kind;
    if (!is_name(name, n_name) || !value || !is_text(value, n_value)) {
        hd->bad = true;
        return MHD_NO;
    }
    if (strcasecmp(name, "content-length") == 0) {
        hd->lengths++;
        hd->length = value;
    } else if (strcasecmp(name, "transfer-encoding") == 0) {
        hd->encodings++;
        hd->encoding = value;
    } else if (strcasecmp(name, "host") == 0) {
        hd->hosts++;
    } else if (strcasecmp(name, "x-request-id") == 0) {
        hd->id = value;
    } else if (strcasecmp(name, "authorization") == 0) {
        hd->bearer = value;
    } else if (strcasecmp(name, "x-api-key") == 0) {
        hd->key = value;
    }
    return MHD_YES;
}

static void take_id(ns_http_reply *r, const char *given)
{
    size_t n = given ? strlen(given) : 0;
    if (n == 0 || n >= sizeof r->id)
        return;
    for (size_t i = 0; i < n; i++)
        if (given[i] <= ' ' || given[i] > '~')
            return;
    memcpy(r->id, given, n + 1);
}

static bool is_open(const ns_http *h, const char *path)
{
    for (const char *const *p = h->o.open; p && *p; p++)
        if (strcmp(*p, path) == 0)
            return true;
    return false;
}

static bool may_enter(const ns_http *h, const struct head *hd, const char *path)
{
    const char *b = hd->bearer;
    if (h->keys.len == 0 || is_open(h, path))
        return true;
    if (b && strncasecmp(b, "bearer ", 7) == 0) {
        b += 7;
        return ns_http_key_is(&h->keys, b + strspn(b, " "));
    }
    return hd->key && ns_http_key_is(&h->keys, hd->key);
}

int ns_http_check(ns_http_reply *r, const char *path, const char *method, size_t *length, const char **why)
{
    const ns_http *h = r->h;
    struct head hd = { 0 };
    unsigned long long n;
    MHD_get_connection_values_n(r->mhd, MHD_HEADER_KIND, see_header, &hd);
    take_id(r, hd.id);
    *length = 0;
    *why = "the request is malformed";
    if (hd.bad || !is_name(method, strlen(method)) || !*path || !is_text(path, strlen(path)) || strpbrk(path, " \t"))
        return 400;
    *why = "Content-Length and Transfer-Encoding: at most one of them, once";
    if (hd.lengths + hd.encodings > 1)
        return 400;
    *why = "Host is given twice";
    if (hd.hosts > 1)
        return 400;
    *why = "Transfer-Encoding: only chunked is known";
    if (hd.encoding && strcasecmp(hd.encoding, "chunked") != 0)
        return 400;
    *why = "the body is larger than this server takes";
    errno = 0;
    n = hd.length ? strtoull(hd.length, NULL, 10) : 0; /* libmicrohttpd saw that it is digits */
    if (n > h->o.max_body || errno)
        return 413;
    *length = (size_t)n;
    *why = "too many connections";
    if (r->conn->over)
        return 503;
    *why = "an API key is needed: Authorization: Bearer KEY";
    if (strcmp(method, "OPTIONS") != 0 && !may_enter(h, &hd, path))
        return 401;
    *why = NULL;
    return 0;
}

/* ---- keys ---- */

int ns_http_keys_parse(const char *text, ns_buf *keys, ns_err *e)
{
    for (const char *s = text; *s;) {
        size_t line = strcspn(s, "\n"), from = strspn(s, " \t"), to = line;
        while (to > from && isspace((unsigned char)s[to - 1]))
            to--;
        for (size_t i = from; i < to; i++)
            if (s[i] <= ' ' || s[i] > '~')
                return ns_fail(e, NS_EINVAL, "API keys: one key a line, of printable characters without blanks");
        if (to > from) {
            ns_buf_add(keys, s + from, to - from);
            ns_buf_addc(keys, '\0');
        }
        s += line + (s[line] == '\n');
    }
    if (keys->failed)
        return ns_fail(e, NS_ENOMEM, "out of memory");
    return keys->len ? 0 : ns_fail(e, NS_EINVAL, "API keys: there is none in the text");
}

/* Every byte given is compared with every key, so the time says how long the guess was and nothing of the keys. */
bool ns_http_key_is(const ns_buf *keys, const char *given)
{
    size_t n = strlen(given), n_key;
    unsigned found = 0;
    for (const char *k = keys->data; k < keys->data + keys->len; k += n_key + 1) {
        n_key = strlen(k);
        size_t differs = n ^ n_key;
        for (size_t i = 0, j = 0; i < n; i++, j = j + 1 < n_key ? j + 1 : 0)
            differs |= (size_t)(unsigned char)(given[i] ^ k[j]);
        found |= differs == 0;
    }
    return found;
}
