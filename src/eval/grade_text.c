#include "eval/grade_text.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

void ns_texts_add(ns_texts *t, ns_text s)
{
    if (t->n == t->cap) {
        int cap = t->cap ? 2 * t->cap : 64;
        ns_text *more = t->failed ? NULL : realloc(t->at, (size_t)cap * sizeof *more);
        if (!more) {
            t->failed = true;
            return;
        }
        t->at = more;
        t->cap = cap;
    }
    t->at[t->n++] = s;
}

void ns_texts_release(ns_texts *t)
{
    free(t->at);
    *t = (ns_texts){ 0 };
}

ns_text ns_text_of(const char *s)
{
    return (ns_text){ s, strlen(s) };
}

ns_text ns_buf_text(const ns_buf *b)
{
    return (ns_text){ b->data ? b->data : "", b->len };
}

/* The code point at p, -1 for what is no UTF-8; *len is at least 1. */
static int32_t point(const char *p, size_t n, size_t *len)
{
    utf8proc_int32_t c = -1;
    utf8proc_ssize_t k = n ? utf8proc_iterate((const utf8proc_uint8_t *)p, (utf8proc_ssize_t)n, &c) : -1;
    *len = k > 0 ? (size_t)k : 1;
    return k > 0 ? c : -1;
}

static bool space_at(ns_text s, size_t i, size_t *len)
{
    int32_t c = point(s.p + i, s.n - i, len);
    return c == ' ' || (c >= 9 && c <= 13) || (c > 127 && (utf8proc_category(c) == UTF8PROC_CATEGORY_ZS || c == 0x2028 || c == 0x2029 || c == 0x85));
}

void ns_split_words(ns_text s, ns_texts *out)
{
    size_t from = 0, len;
    bool in = false;
    for (size_t i = 0; i < s.n; i += len) {
        bool gap = space_at(s, i, &len);
        if (gap && in)
            ns_texts_add(out, (ns_text){ s.p + from, i - from });
        if (!gap && !in)
            from = i;
        in = !gap;
    }
    if (in)
        ns_texts_add(out, (ns_text){ s.p + from, s.n - from });
}

void ns_split_at(ns_text s, const char *mark, ns_texts *out)
{
    size_t len = strlen(mark);
    const char *p = s.p, *end = s.p + s.n, *at;
    while ((at = memmem(p, (size_t)(end - p), mark, len))) {
        ns_texts_add(out, (ns_text){ p, (size_t)(at - p) });
        p = at + len;
    }
    ns_texts_add(out, (ns_text){ p, (size_t)(end - p) });
}

bool ns_in_list(ns_text word, const char *list)
{
    const char *p = list;
    while (word.n && (p = memmem(p, strlen(p), word.p, word.n))) {
        if (p > list && p[-1] == ' ' && p[word.n] == ' ')
            return true;
        p++;
    }
    return false;
}

/* ---- sentences ---- */

static bool abbreviation(ns_text s, size_t dot)
{
    static const char list[] = " mr mrs ms dr st jr sr prof vs etc e.g i.e inc ltd co corp vol fig gen rep sen gov capt lt col approx dept est jan feb "
                               "mar apr jun jul aug sep sept oct nov dec u.s u.k u.n a.m p.m ph.d ";
    char word[12];
    size_t from = dot, n;
    while (from && !isspace((unsigned char)s.p[from - 1]) && s.p[from - 1] != '(' && s.p[from - 1] != '"')
        from--;
    n = dot - from;
    if (n == 0 || n >= sizeof word)
        return false;
    for (size_t i = 0; i < n; i++)
        word[i] = (char)tolower((unsigned char)s.p[from + i]);
    if (n == 1 && isupper((unsigned char)s.p[from]) && word[0] != 'i')
        return true; /* an initial */
    bool number = true, line_start = from == 0 || s.p[from - 1] == '\n';
    for (size_t i = 0; i < n; i++)
        number = number && isdigit((unsigned char)word[i]);
    return (number && line_start) || ns_in_list((ns_text){ word, n }, list);
}

void ns_split_sentences(ns_text s, ns_texts *out)
{
    size_t from = 0, len;
    for (size_t i = 0; i < s.n;) {
        size_t mark = i;
        if (!strchr(".?!", s.p[i]) || !s.p[i]) {
            i++;
            continue;
        }
        while (i < s.n && s.p[i] && strchr(".?!", s.p[i]))
            i++;
        bool dot = i == mark + 1 && s.p[mark] == '.';
        for (;;) { /* closing quotes, brackets, emphasis */
            if (i < s.n && s.p[i] && strchr("\"')]*_}", s.p[i]))
                i++;
            else if (i + 2 < s.n && (memcmp(s.p + i, "\xE2\x80\x9D", 3) == 0 || memcmp(s.p + i, "\xE2\x80\x99", 3) == 0))
                i += 3;
            else
                break;
        }
        if (i < s.n && !space_at(s, i, &len))
            continue;
        size_t next = i;
        while (next < s.n && space_at(s, next, &len))
            next += len;
        if (dot && next < s.n && (islower((unsigned char)s.p[next]) || abbreviation(s, mark)))
            continue;
        ns_text part = ns_answer_trim(s.p + from, i - from);
        if (part.n)
            ns_texts_add(out, part);
        from = i = next;
    }
    ns_text rest = ns_answer_trim(s.p + from, s.n - from);
    if (rest.n)
        ns_texts_add(out, rest);
}

/* ---- letters ---- */

ns_text ns_strip_punct(ns_text s)
{
    while (s.n && (ispunct((unsigned char)*s.p) || *s.p == ' ')) {
        s.p++;
        s.n--;
    }
    while (s.n && (ispunct((unsigned char)s.p[s.n - 1]) || s.p[s.n - 1] == ' '))
        s.n--;
    return s;
}

void ns_drop_punct(ns_text s, ns_buf *out)
{
    for (size_t i = 0; i < s.n; i++)
        if ((unsigned char)s.p[i] >= 0x80 || !ispunct((unsigned char)s.p[i]))
            ns_buf_addc(out, s.p[i]);
}

void ns_lower(ns_text s, ns_buf *out)
{
    size_t len;
    for (size_t i = 0; i < s.n; i += len) {
        int32_t c = point(s.p + i, s.n - i, &len);
        utf8proc_uint8_t bytes[4];
        if (c < 0)
            ns_buf_add(out, s.p + i, len);
        else
            ns_buf_add(out, bytes, (size_t)utf8proc_encode_char(utf8proc_tolower(c), bytes));
    }
}

bool ns_same_nocase(ns_text a, ns_text b)
{
    ns_buf x = { 0 }, y = { 0 };
    ns_lower(a, &x);
    ns_lower(b, &y);
    bool same = x.len == y.len && (x.len == 0 || memcmp(x.data, y.data, x.len) == 0);
    ns_buf_release(&x);
    ns_buf_release(&y);
    return same;
}

static bool all_of(ns_text s, utf8proc_category_t want, utf8proc_category_t other)
{
    size_t len, seen = 0;
    for (size_t i = 0; i < s.n; i += len) {
        int32_t c = point(s.p + i, s.n - i, &len);
        utf8proc_category_t k = c < 0 ? UTF8PROC_CATEGORY_CN : utf8proc_category(c);
        if (k == other || k == UTF8PROC_CATEGORY_LT)
            return false;
        seen += k == want;
    }
    return seen > 0;
}

bool ns_is_upper(ns_text s)
{
    return all_of(s, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_LL);
}

bool ns_is_lower(ns_text s)
{
    return all_of(s, UTF8PROC_CATEGORY_LL, UTF8PROC_CATEGORY_LU);
}

int ns_code_points(ns_text s)
{
    size_t len;
    int n = 0;
    for (size_t i = 0; i < s.n; i += len, n++)
        point(s.p + i, s.n - i, &len);
    return n;
}

/* ---- arguments ---- */

int ns_arg_int(const json_t *kwargs, const char *key, int dflt)
{
    const json_t *v = json_object_get(kwargs, key);
    double x = json_number_value(v);
    return json_is_number(v) && x >= -1e9 && x <= 1e9 ? (int)x : dflt;
}

const char *ns_arg_str(const json_t *kwargs, const char *key)
{
    const char *s = json_string_value(json_object_get(kwargs, key));
    return s ? s : "";
}
