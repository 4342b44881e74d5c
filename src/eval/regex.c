#include "eval/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

static pcre2_code *compile(const char *pattern, int flags)
{
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_MATCH_INVALID_UTF;
    int code;
    PCRE2_SIZE at;
    pcre2_compile_context *ctx = pcre2_compile_context_create(NULL);
    if (!ctx)
        return NULL;
    pcre2_set_newline(ctx, PCRE2_NEWLINE_LF);
    options |= flags & NS_RE_NOCASE ? PCRE2_CASELESS : 0;
    options |= flags & NS_RE_LINES ? PCRE2_MULTILINE : 0;
    pcre2_code *c = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, options, &code, &at, ctx);
    pcre2_compile_context_free(ctx);
    return c;
}

void ns_re_open(ns_re *r, const char *pattern, int flags, ns_text text)
{
    *r = (ns_re){ .text = { text.p ? text.p : "", text.n } };
    r->code = compile(pattern, flags);
    r->match = r->code ? pcre2_match_data_create_from_pattern(r->code, NULL) : NULL;
}

bool ns_re_next(ns_re *r)
{
    const char *p = r->text.p;
    if (!r->match || r->at > r->text.n)
        return false;
    int n = pcre2_match(r->code, (PCRE2_SPTR)p, r->text.n, r->at, 0, r->match, NULL);
    if (n < 1)
        return false;
    const PCRE2_SIZE *o = pcre2_get_ovector_pointer(r->match);
    r->whole = (ns_text){ p + o[0], o[1] - o[0] };
    for (int i = 0; i < 4; i++) {
        bool took_part = i + 1 < n && o[2 * i + 2] != PCRE2_UNSET;
        r->group[i] = took_part ? (ns_text){ p + o[2 * i + 2], o[2 * i + 3] - o[2 * i + 2] } : (ns_text){ 0 };
    }
    r->at = o[1];
    if (o[1] == o[0]) /* an empty match: on to the next character */
        do
            r->at++;
        while (r->at < r->text.n && ((unsigned char)p[r->at] & 0xC0) == 0x80);
    return true;
}

void ns_re_close(ns_re *r)
{
    pcre2_match_data_free(r->match);
    pcre2_code_free(r->code);
    *r = (ns_re){ 0 };
}

int ns_re_count(const char *pattern, int flags, ns_text text)
{
    ns_re r;
    int n = 0;
    ns_re_open(&r, pattern, flags, text);
    while (ns_re_next(&r))
        n++;
    ns_re_close(&r);
    return n;
}

bool ns_re_find(const char *pattern, int flags, ns_text text)
{
    ns_re r;
    ns_re_open(&r, pattern, flags, text);
    bool found = ns_re_next(&r);
    ns_re_close(&r);
    return found;
}

ns_text ns_re_last(const char *pattern, int flags, ns_text text)
{
    ns_re r;
    ns_text last = { 0 };
    ns_re_open(&r, pattern, flags, text);
    while (ns_re_next(&r))
        last = r.group[0].p ? r.group[0] : r.whole;
    ns_re_close(&r);
    return last;
}

void ns_re_replace(ns_buf *text, const char *pattern, int flags, const char *with)
{
    enum { OPTIONS = PCRE2_SUBSTITUTE_GLOBAL | PCRE2_SUBSTITUTE_OVERFLOW_LENGTH | PCRE2_SUBSTITUTE_UNSET_EMPTY };
    pcre2_code *c = text->len ? compile(pattern, flags) : NULL;
    PCRE2_SIZE n = text->len + 256;
    char *out = c ? malloc(n) : NULL;
    PCRE2_SPTR in = (PCRE2_SPTR)text->data, by = (PCRE2_SPTR)with;
    int rc = out ? pcre2_substitute(c, in, text->len, 0, OPTIONS, NULL, NULL, by, PCRE2_ZERO_TERMINATED, (PCRE2_UCHAR *)out, &n) : 0;
    if (rc == PCRE2_ERROR_NOMEMORY) { /* n is now what it takes */
        char *more = realloc(out, n);
        out = more ? more : out;
        rc = more ? pcre2_substitute(c, in, text->len, 0, OPTIONS, NULL, NULL, by, PCRE2_ZERO_TERMINATED, (PCRE2_UCHAR *)out, &n) : 0;
    }
    if (rc > 0) {
        ns_buf_clear(text);
        ns_buf_add(text, out, n);
    }
    free(out);
    pcre2_code_free(c);
}

void ns_re_quote(ns_buf *out, ns_text s)
{
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0x80 && !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'))
            ns_buf_addc(out, '\\');
        ns_buf_addc(out, (char)c);
    }
}
