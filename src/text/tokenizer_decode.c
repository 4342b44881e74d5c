/* Ids -> bytes, whole and in a stream. */
#include <string.h>

#include "text/tokenizer_impl.h"
#include "text/utf8.h"

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

int ns_tokenizer_vocab_size(const ns_tokenizer *t)
{
    return (int)t->vocab.n;
}

int ns_tokenizer_find(const ns_tokenizer *t, const char *token, size_t n)
{
    return ns_vocab_find_name(&t->vocab, token, n);
}

static const ns_token *find_token(const ns_tokenizer *t, int id)
{
    if (id < 0 || (size_t)id >= t->vocab.n || !(t->vocab.tokens[id].flags & NS_TOKEN_PRESENT))
        return NULL;
    return &t->vocab.tokens[id];
}

bool ns_tokenizer_is_special(const ns_tokenizer *t, int id)
{
    const ns_token *k = find_token(t, id);
    return k && (k->flags & NS_TOKEN_SPECIAL);
}

int ns_tokenizer_bytes(const ns_tokenizer *t, int id, const char **p, size_t *n)
{
    const ns_token *k = find_token(t, id);
    *p = k && k->len ? t->vocab.blob.data + k->off : "";
    *n = k ? k->len : 0;
    return k ? 0 : -1;
}

int ns_tokenizer_decode(const ns_tokenizer *t, const int *ids, size_t n, bool skip_special, ns_buf *out, ns_err *e)
{
    size_t len = out->len;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        const char *p;
        size_t k;
        if (ns_tokenizer_bytes(t, ids[i], &p, &k) != 0)
            rc = ns_fail(e, NS_EINVAL, "token id %d at position %zu is not in the vocabulary", ids[i], i);
        else if (!(skip_special && ns_tokenizer_is_special(t, ids[i])))
            ns_buf_add(out, p, k);
    }
    if (rc == 0 && out->failed)
        rc = ns_fail(e, NS_ENOMEM, "out of memory");
    if (rc != 0 && out->data) {
        out->len = len;
        out->data[len] = '\0';
    }
    return rc;
}

void ns_detok_init(ns_detok *d)
{
    *d = (ns_detok){ 0 };
}

/* One byte more. The tail is always the beginning of a character; if the byte does not continue it, the tail was all there
 * was of that character, and the byte starts anew. */
static void push_byte(ns_detok *d, char c, ns_buf *out)
{
    char u[4];
    uint32_t cp;
    memcpy(u, d->tail, d->len);
    u[d->len] = c;
    int len = ns_utf8_decode(u, d->len + 1, &cp);
    if (len < 0 && d->len > 0) {
        ns_buf_adds(out, replacement);
        u[0] = c;
        d->len = 0;
        len = ns_utf8_decode(u, 1, &cp);
    }
    if (len < 0)
        ns_buf_adds(out, replacement);
    else if (len > 0)
        ns_buf_add(out, u, (size_t)len);
    else
        d->tail[d->len++] = c;
    if (len != 0)
        d->len = 0;
}

void ns_detok_push_bytes(ns_detok *d, const char *p, size_t n, ns_buf *out)
{
    for (size_t i = 0; i < n;) {
        size_t whole = d->len == 0 ? ns_utf8_valid(p + i, n - i) : 0;
        ns_buf_add(out, p + i, whole);
        i += whole;
        if (i < n)
            push_byte(d, p[i++], out);
    }
}

void ns_detok_push(ns_detok *d, const ns_tokenizer *t, int id, ns_buf *out)
{
    const char *p;
    size_t n;
    if (ns_tokenizer_bytes(t, id, &p, &n) == 0)
        ns_detok_push_bytes(d, p, n, out);
}

void ns_detok_finish(ns_detok *d, ns_buf *out)
{
    if (d->len > 0)
        ns_buf_adds(out, replacement);
    ns_detok_init(d);
}
