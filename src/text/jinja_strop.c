/* String operations that methods and filters share. Each keeps the provenance of every byte. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_run.h"
#include "text/jinja_text.h"

static bool taint_at(const ns_jstr *s, const char *p)
{
    return s->t ? s->t[p - s->p] : s->untrusted;
}

/* A code point in front of which Jinja's title filter begins a word: -, (, {, [, < and space. */
static bool title_break(uint32_t c)
{
    return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || ns_jtext_space(c);
}

/* Which mapping the code point gets: 'u', 'l' or 't'. *prev: whether the one before continues a word. */
static char case_of(char op, uint32_t c, bool first, bool *in_word)
{
    char to = op;
    if (op == 'c')
        to = first ? 't' : 'l';
    else if (op == 's')
        to = ns_jtext_upper(c) ? 'l' : 'u';
    else if (op == 't') {
        to = *in_word ? 'l' : 't';
        *in_word = ns_jtext_cased(c);
    } else if (op == 'T') {
        to = *in_word ? 'l' : 'u';
        *in_word = !title_break(c);
    }
    return to;
}

const ns_jstr *ns_jstr_case(ns_jrun *r, const ns_jstr *s, char op)
{
    ns_jbuf b = { 0 };
    bool in_word = false;
    const char *p = s->p, *end = p + s->n;
    while (p < end && !b.failed) {
        const char *at = p;
        uint32_t c = ns_jtext_next(&p, end), out[NS_JTEXT_CASE];
        char to = case_of(op, c, at == s->p, &in_word);
        int n = to == 'u'   ? ns_jtext_to_upper(c, out)
                : to == 't' ? ns_jtext_to_title(c, out)
                            : ns_jtext_to_lower(c, s->p, at, end, out);
        for (int i = 0; i < n; i++)
            ns_jbuf_addc(r, &b, out[i], taint_at(s, at));
    }
    ns_jstr *v = (ns_jstr *)ns_jbuf_take(r, &b);
    if (v)
        v->markup = s->markup && op != 'T';
    return v;
}

static bool strips(uint32_t c, const ns_jstr *chars)
{
    if (!chars)
        return ns_jtext_space(c);
    const char *p = chars->p, *end = p + chars->n;
    while (p < end)
        if (ns_jtext_next(&p, end) == c)
            return true;
    return false;
}

const ns_jstr *ns_jstr_strip(ns_jrun *r, const ns_jstr *s, const ns_jstr *chars, bool left, bool right)
{
    const char *p = s->p, *end = p + s->n;
    while (left && p < end) {
        const char *q = p;
        if (!strips(ns_jtext_next(&q, end), chars))
            break;
        p = q;
    }
    while (right && p < end) {
        const char *q = end;
        if (!strips(ns_jtext_prev(&q, p), chars))
            break;
        end = q;
    }
    size_t gone = s->n - (size_t)(end - p);
    if (ns_jrun_step(r, gone * (chars ? 1 + chars->n : 1)))
        return NULL;
    return ns_jstr_sub(r, s, (size_t)(p - s->p), (size_t)(end - p));
}

int ns_jlist_push_sub(ns_jrun *r, ns_jlist *l, const ns_jstr *s, size_t from, size_t to)
{
    const ns_jstr *part = ns_jstr_sub(r, s, from, to - from);
    return part ? ns_jlist_push(r, l, ns_jv_str(part)) : -1;
}

int ns_jstr_splitlines(ns_jrun *r, const ns_jstr *s, bool keep, ns_jlist **out)
{
    ns_jlist *l = ns_jlist_new(r, 0, ns_jstr_any_untrusted(s));
    size_t from = 0;
    const char *p = s->p, *end = p + s->n;
    if (!l || ns_jrun_step(r, s->n))
        return -1;
    while (p < end) {
        const char *at = p;
        uint32_t c = ns_jtext_next(&p, end);
        if (!ns_jtext_newline(c))
            continue;
        if (c == '\r' && p < end && *p == '\n')
            p++;
        if (ns_jlist_push_sub(r, l, s, from, (size_t)((keep ? p : at) - s->p)))
            return -1;
        from = (size_t)(p - s->p);
    }
    if (from < s->n && ns_jlist_push_sub(r, l, s, from, s->n))
        return -1;
    *out = l;
    return 0;
}

/* An empty `old` matches in front of every code point and at the end. */
static const ns_jstr *replace_empty(ns_jrun *r, const ns_jstr *s, const ns_jstr *by, int64_t count)
{
    ns_jbuf b = { 0 };
    const char *p = s->p, *end = p + s->n;
    while (p < end && !b.failed) {
        const char *at = p;
        if (count-- != 0)
            ns_jbuf_adds(r, &b, by);
        else
            count = 0;
        ns_jtext_next(&p, end);
        for (; at < p; at++)
            ns_jbuf_add(r, &b, at, 1, taint_at(s, at));
    }
    if (count != 0)
        ns_jbuf_adds(r, &b, by);
    return ns_jbuf_take(r, &b);
}

static void add_part(ns_jrun *r, ns_jbuf *b, const ns_jstr *s, size_t from, size_t n)
{
    ns_jstr part = { .p = s->p + from, .t = s->t ? s->t + from : NULL, .n = n, .untrusted = s->untrusted };
    ns_jbuf_adds(r, b, &part);
}

const ns_jstr *ns_jstr_replace(ns_jrun *r, const ns_jstr *s, const ns_jstr *old, const ns_jstr *by, int64_t count)
{
    ns_jbuf b = { 0 };
    size_t from = 0;
    if (ns_jrun_step(r, s->n))
        return NULL;
    if (old->n == 0)
        return replace_empty(r, s, by, count);
    while (count-- != 0 && !b.failed) {
        const char *hit = memmem(s->p + from, s->n - from, old->p, old->n);
        if (!hit)
            break;
        size_t at = (size_t)(hit - s->p);
        add_part(r, &b, s, from, at - from);
        ns_jbuf_adds(r, &b, by);
        from = at + old->n;
    }
    if (from == 0 && !b.failed)
        return ns_jstr_sub(r, s, 0, s->n);
    add_part(r, &b, s, from, s->n - from);
    return ns_jbuf_take(r, &b);
}

int ns_jstr_join(ns_jrun *r, const ns_jstr *sep, ns_jval items, bool strict, const ns_jstr **out)
{
    ns_jiter it;
    ns_jval v;
    ns_jbuf b = { 0 };
    int rc = 0;
    bool first = true;
    if (ns_jiter_init(r, &it, items))
        return -1;
    while (!b.failed && (rc = ns_jiter_next(r, &it, &v)) > 0) {
        if (strict && v.kind != NS_J_STR)
            return ns_jrun_fail(r, NS_EINVAL, "join: expected str, %s found", ns_jval_type(v));
        if (!first)
            ns_jbuf_adds(r, &b, sep);
        first = false;
        ns_jprint_str(r, v, &b);
    }
    *out = rc < 0 ? NULL : ns_jbuf_take(r, &b);
    return *out ? 0 : -1;
}

/* The text without blanks around it and without single underscores between digits; NULL when it cannot be a number. */
static char *number_text(ns_jrun *r, const ns_jstr *s)
{
    s = ns_jstr_strip(r, s, NULL, true, true);
    char *text = s && s->n <= 4096 ? ns_jrun_alloc(r, s->n + 1) : NULL;
    size_t n = 0;
    for (size_t i = 0; text && i < s->n; i++) {
        char c = s->p[i];
        bool between = c == '_' && i > 0 && i + 1 < s->n && s->p[i - 1] != '_' && s->p[i + 1] != '_';
        if (c == '\0' || (c == '_' && !between))
            return NULL;
        if (c != '_')
            text[n++] = c;
    }
    if (text)
        text[n] = '\0';
    return n ? text : NULL;
}

int ns_jstr_to_int(ns_jrun *r, const ns_jstr *s, int base, int64_t *out)
{
    char *text = number_text(r, s), *end;
    if (!text || text[strspn(text, "+-0123456789abcdefABCDEFxXoO")])
        return 0;
    char *digits = text + (*text == '+' || *text == '-');
    if (*digits == '+' || *digits == '-')
        return 0;
    bool prefix = digits[0] == '0' && ((base == 8 && (digits[1] | 32) == 'o') || (base == 2 && (digits[1] | 32) == 'b'));
    if (prefix) { /* C knows only 0x */
        digits[1] = *text == '-' ? '-' : '+';
        text = digits + 1;
    }
    errno = 0;
    *out = strtoll(text, &end, base);
    if (*end || end == text)
        return 0;
    return errno ? ns_jrun_fail(r, NS_EINVAL, "integer does not fit 64 bits") : 1;
}

bool ns_jstr_to_float(ns_jrun *r, const ns_jstr *s, double *out)
{
    char *text = number_text(r, s), *end;
    if (!text || strpbrk(text, "xX(pP")) /* C's hexadecimal floats are not Python's */
        return false;
    *out = strtod(text, &end);
    return *end == '\0' && end != text;
}

int ns_jarg_int(ns_jrun *r, ns_jval v, int64_t dflt, int64_t *out)
{
    *out = dflt;
    if (v.kind == NS_J_MISSING)
        return 0;
    if (!ns_jv_is_int(v))
        return ns_jrun_fail(r, NS_EINVAL, "expected an integer, got '%s'", ns_jval_type(v));
    *out = v.i;
    return 0;
}

int ns_jarg_str(ns_jrun *r, ns_jval v, const ns_jstr **out)
{
    if (v.kind == NS_J_UNDEF)
        return ns_jrun_undefined(r, v);
    if (v.kind != NS_J_STR)
        return ns_jrun_fail(r, NS_EINVAL, "expected a string, got '%s'", ns_jval_type(v));
    *out = v.s;
    return 0;
}
