#include "text/tokenizer_vocab.h"

#include <stdlib.h>
#include <string.h>

#include "text/utf8.h"

/* Bytes that do not stand for themselves, in order, are spelt U+0100 and on: 00..20, 7F..A0, AD. */
static int alphabet_byte(uint32_t cp)
{
    if (cp < 0x100)
        return cp <= 0x20 || (cp >= 0x7f && cp <= 0xa0) || cp == 0xad ? -1 : (int)cp;
    cp -= 0x100;
    if (cp <= 0x20)
        return (int)cp;
    cp -= 0x21;
    if (cp <= 0xa0 - 0x7f)
        return (int)cp + 0x7f;
    return cp == 0xa0 - 0x7f + 1 ? 0xad : -1;
}

ptrdiff_t ns_alphabet_decode(const char *s, size_t n, char *out)
{
    ptrdiff_t len = 0;
    for (size_t i = 0; i < n;) {
        uint32_t cp = 0;
        int k = ns_utf8_decode(s + i, n - i, &cp);
        int byte = k > 0 ? alphabet_byte(cp) : -1;
        if (byte < 0)
            return -1;
        out[len++] = (char)byte;
        i += (size_t)k;
    }
    return len;
}

static uint32_t hash_bytes(const char *p, size_t n)
{
    uint64_t h = 0x9e3779b97f4a7c15u ^ n;
    for (; n > 0;) {
        uint64_t w = 0;
        size_t k = n < sizeof w ? n : sizeof w;
        memcpy(&w, p, k);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
        p += k;
        n -= k;
    }
    return (uint32_t)(h * 0xc4ceb9fe1a85ec53u >> 32);
}

/* The slot that holds the string, or the empty one where it belongs. The table is not full. */
static ns_strslot *probe(const ns_strtab *t, const char *blob, const char *p, size_t n, uint32_t hash)
{
    for (size_t i = hash & (t->cap - 1);; i = (i + 1) & (t->cap - 1)) {
        ns_strslot *s = &t->slots[i];
        if (s->id < 0 || (s->hash == hash && s->len == n && memcmp(blob + s->off, p, n) == 0))
            return s;
    }
}

static int tab_reserve(ns_strtab *t, size_t n)
{
    size_t cap = t->cap ? t->cap : 64;
    while (cap < n * 2)
        cap *= 2;
    if (cap == t->cap)
        return 0;
    ns_strslot *slots = malloc(cap * sizeof *slots);
    if (!slots)
        return -1;
    for (size_t i = 0; i < cap; i++)
        slots[i].id = -1;
    for (size_t i = 0; i < t->cap; i++) {
        if (t->slots[i].id < 0)
            continue;
        size_t j = t->slots[i].hash & (cap - 1);
        while (slots[j].id >= 0)
            j = (j + 1) & (cap - 1);
        slots[j] = t->slots[i];
    }
    free(t->slots);
    t->slots = slots;
    t->cap = cap;
    return 0;
}

static int tab_find(const ns_strtab *t, const ns_buf *blob, const char *p, size_t n)
{
    return t->n && n ? probe(t, blob->data, p, n, hash_bytes(p, n))->id : -1;
}

/* Names the n bytes at blob+off; the first of two equal names stays. */
static int tab_add(ns_strtab *t, const ns_buf *blob, size_t off, size_t n, int id)
{
    if (n == 0)
        return 0;
    if (tab_reserve(t, t->n + 1) != 0)
        return -1;
    uint32_t hash = hash_bytes(blob->data + off, n);
    ns_strslot *s = probe(t, blob->data, blob->data + off, n, hash);
    if (s->id >= 0)
        return 0;
    *s = (ns_strslot){ .off = (uint32_t)off, .len = (uint32_t)n, .hash = hash, .id = id };
    t->n++;
    return 0;
}

/* The token of an id, with room made for it; NULL with e filled. */
static ns_token *token_at(ns_vocab *v, int64_t id, ns_err *e)
{
    if (id < 0 || id > NS_TOKEN_MAX_ID) {
        ns_fail(e, NS_EFORMAT, "id %lld is outside 0..%d", (long long)id, NS_TOKEN_MAX_ID);
        return NULL;
    }
    size_t need = (size_t)id + 1, cap = v->cap ? v->cap : 1024;
    while (cap < need)
        cap *= 2;
    if (cap > v->cap) {
        ns_token *p = realloc(v->tokens, cap * sizeof *p);
        if (!p) {
            ns_fail(e, NS_ENOMEM, "out of memory");
            return NULL;
        }
        memset(p + v->cap, 0, (cap - v->cap) * sizeof *p);
        v->tokens = p;
        v->cap = cap;
    }
    if (v->n < need)
        v->n = need;
    return &v->tokens[id];
}

int ns_vocab_reserve(ns_vocab *v, size_t n, ns_err *e)
{
    if (n > NS_TOKEN_MAX_ID)
        return ns_fail(e, NS_EUNSUPPORTED, "%zu entries are too many", n);
    return tab_reserve(&v->words, n) == 0 ? 0 : ns_fail(e, NS_ENOMEM, "out of memory");
}

/* Appends to the blob and describes what was appended. */
static int store(ns_vocab *v, const char *p, size_t n, ns_token *t, ns_err *e)
{
    if (n > UINT32_MAX - v->blob.len)
        return ns_fail(e, NS_EUNSUPPORTED, "over 4 GiB of strings");
    *t = (ns_token){ .off = (uint32_t)v->blob.len, .len = (uint32_t)n, .flags = t->flags | NS_TOKEN_PRESENT };
    ns_buf_add(&v->blob, p, n);
    return v->blob.failed ? ns_fail(e, NS_ENOMEM, "out of memory") : 0;
}

int ns_vocab_add(ns_vocab *v, const char *name, size_t n, int64_t id, ns_err *e)
{
    ns_token *t = token_at(v, id, e);
    if (!t)
        return -1;
    if (t->flags & NS_TOKEN_PRESENT)
        return ns_fail(e, NS_EFORMAT, "id %lld is used twice", (long long)id);
    if (store(v, name, n, t, e) != 0)
        return -1;
    /* In place: the bytes are never longer than their spelling. On failure nothing was lost but the copy. */
    char *copy = v->blob.data + t->off;
    ptrdiff_t len = ns_alphabet_decode(name, n, copy);
    if (len < 0 && n > 0)
        memcpy(copy, name, n);
    else
        t->len = (uint32_t)len;
    v->blob.len = t->off + t->len;
    if (len > 0 && (size_t)len > v->max_len)
        v->max_len = (size_t)len;
    if (tab_add(len < 0 ? &v->names : &v->words, &v->blob, t->off, t->len, (int)id) != 0)
        return ns_fail(e, NS_ENOMEM, "out of memory");
    return 0;
}

int ns_vocab_add_added(ns_vocab *v, const char *content, size_t n, int64_t id, bool special, bool closable, ns_err *e)
{
    int have = ns_vocab_find_name(v, content, n);
    if (have >= 0 && have != id)
        return ns_fail(e, NS_EFORMAT, "id %lld, but the same token already has id %d", (long long)id, have);
    ns_token *t = token_at(v, id, e);
    if (!t)
        return -1;
    if (have < 0 && (t->flags & NS_TOKEN_PRESENT))
        return ns_fail(e, NS_EFORMAT, "id %lld belongs to another token", (long long)id);
    if (t->flags & NS_TOKEN_ADDED) /* listed twice: the first stays */
        return 0;
    if (store(v, content, n, t, e) != 0)
        return -1;
    t->flags |= NS_TOKEN_ADDED | (special ? NS_TOKEN_SPECIAL : 0);
    /* Single bytes stay open: text must be able to spell every byte. */
    if (closable && n > 1 && ns_vocab_find(v, content, n) == id)
        t->flags |= NS_TOKEN_CLOSED;
    if (tab_add(&v->names, &v->blob, t->off, n, (int)id) != 0)
        return ns_fail(e, NS_ENOMEM, "out of memory");
    return 0;
}

int ns_vocab_find(const ns_vocab *v, const char *p, size_t n)
{
    return n <= v->max_len ? tab_find(&v->words, &v->blob, p, n) : -1;
}

int ns_vocab_find_name(const ns_vocab *v, const char *name, size_t n)
{
    int id = tab_find(&v->names, &v->blob, name, n);
    if (id >= 0 || n > v->max_len * 2) /* the alphabet spells a byte in at most two */
        return id;
    char *bytes = malloc(n ? n : 1);
    ptrdiff_t len = bytes ? ns_alphabet_decode(name, n, bytes) : -1;
    id = len > 0 ? ns_vocab_find(v, bytes, (size_t)len) : -1;
    free(bytes);
    return id;
}

void ns_vocab_release(ns_vocab *v)
{
    ns_buf_release(&v->blob);
    free(v->tokens);
    free(v->words.slots);
    free(v->names.slots);
    *v = (ns_vocab){ 0 };
}
