/* Methods of str; those that search are in jinja_method_find.c. */
#include <string.h>

#include "text/jinja_run.h"
#include "text/jinja_text.h"

#define METHOD(name) static int name(ns_jrun *r, ns_jval self, const ns_jargs *args, const ns_jval *a, ns_jval *out)
#define UNUSED (void)args, (void)a

static int give(const ns_jstr *s, ns_jval *out)
{
    *out = ns_jv_str(s);
    return s ? 0 : -1;
}

METHOD(m_upper)
{
    UNUSED;
    return give(ns_jstr_case(r, self.s, 'u'), out);
}

METHOD(m_lower)
{
    UNUSED;
    return give(ns_jstr_case(r, self.s, 'l'), out);
}

METHOD(m_title)
{
    UNUSED;
    return give(ns_jstr_case(r, self.s, 't'), out);
}

METHOD(m_capitalize)
{
    UNUSED;
    return give(ns_jstr_case(r, self.s, 'c'), out);
}

METHOD(m_swapcase)
{
    UNUSED;
    return give(ns_jstr_case(r, self.s, 's'), out);
}

static int strip(ns_jrun *r, ns_jval self, ns_jval chars, bool left, bool right, ns_jval *out)
{
    const ns_jstr *set = NULL;
    if (chars.kind != NS_J_MISSING && chars.kind != NS_J_NONE && ns_jarg_str(r, chars, &set))
        return -1;
    return give(ns_jstr_strip(r, self.s, set, left, right), out);
}

METHOD(m_strip)
{
    UNUSED;
    return strip(r, self, a[0], true, true, out);
}

METHOD(m_lstrip)
{
    UNUSED;
    return strip(r, self, a[0], true, false, out);
}

METHOD(m_rstrip)
{
    UNUSED;
    return strip(r, self, a[0], false, true, out);
}

METHOD(m_replace)
{
    UNUSED;
    const ns_jstr *old, *by;
    int64_t count;
    if (ns_jarg_str(r, a[0], &old) || ns_jarg_str(r, a[1], &by) || ns_jarg_int(r, a[2], -1, &count))
        return -1;
    if (self.s->markup && (!(old = ns_jstr_escape(r, old)) || !(by = ns_jstr_escape(r, by))))
        return -1;
    const ns_jstr *s = ns_jstr_replace(r, self.s, old, by, count);
    if (s && s->markup != self.s->markup) {
        ns_jstr *m = (ns_jstr *)ns_jstr_sub(r, s, 0, s->n);
        if (m)
            m->markup = self.s->markup;
        s = m;
    }
    return give(s, out);
}

METHOD(m_join)
{
    UNUSED;
    const ns_jstr *s;
    if (self.s->markup)
        return ns_jrun_fail(r, NS_EUNSUPPORTED, "join() of a string marked safe is not supported");
    if (a[0].kind == NS_J_UNDEF) {
        *out = ns_jv_str(ns_jstr_new(r, "", 0, false));
        return out->s ? 0 : -1;
    }
    return ns_jstr_join(r, self.s, a[0], true, &s) ? -1 : give(s, out);
}

METHOD(m_format)
{
    (void)a;
    if (self.s->markup)
        return ns_jrun_fail(r, NS_EUNSUPPORTED, "format() of a string marked safe is not supported");
    return ns_jstr_format(r, self.s, args, out);
}

METHOD(m_splitlines)
{
    UNUSED;
    ns_jlist *l;
    if (ns_jstr_splitlines(r, self.s, ns_jval_truth(a[0]), &l))
        return -1;
    *out = (ns_jval){ .kind = NS_J_LIST, .l = l };
    return 0;
}

static int pad(ns_jrun *r, ns_jval self, const ns_jval *a, char where, ns_jval *out)
{
    const ns_jstr space = { .p = " ", .n = 1 }, *fill = &space;
    int64_t width, len;
    ns_jbuf b = { 0 };
    if (ns_jarg_int(r, a[0], 0, &width) || (a[1].kind != NS_J_MISSING && ns_jarg_str(r, a[1], &fill)) ||
        ns_jval_len(r, self, &len))
        return -1;
    if (ns_jtext_count(fill->p, fill->n) != 1)
        return ns_jrun_fail(r, NS_EINVAL, "the fill character must be exactly one character long");
    int64_t n = width > len ? width - len : 0;
    int64_t left = where == 'l' ? 0 : where == 'r' ? n : n / 2 + (n & width & 1); /* CPython's odd one */
    for (int64_t i = 0; i < left && !b.failed; i++)
        ns_jbuf_adds(r, &b, fill);
    ns_jbuf_adds(r, &b, self.s);
    for (int64_t i = left; i < n && !b.failed; i++)
        ns_jbuf_adds(r, &b, fill);
    return give(ns_jbuf_take(r, &b), out);
}

METHOD(m_ljust)
{
    UNUSED;
    return pad(r, self, a, 'l', out);
}

METHOD(m_rjust)
{
    UNUSED;
    return pad(r, self, a, 'r', out);
}

METHOD(m_center)
{
    UNUSED;
    return pad(r, self, a, 'c', out);
}

METHOD(m_zfill)
{
    UNUSED;
    int64_t width, len;
    ns_jbuf b = { 0 };
    if (ns_jarg_int(r, a[0], 0, &width) || ns_jval_len(r, self, &len))
        return -1;
    size_t sign = self.s->n && (self.s->p[0] == '-' || self.s->p[0] == '+');
    const ns_jstr *head = ns_jstr_sub(r, self.s, 0, sign), *rest = ns_jstr_sub(r, self.s, sign, self.s->n - sign);
    if (!head || !rest)
        return -1;
    ns_jbuf_adds(r, &b, head);
    for (int64_t i = len; i < width && !b.failed; i++)
        ns_jbuf_addc(r, &b, '0', false);
    ns_jbuf_adds(r, &b, rest);
    return give(ns_jbuf_take(r, &b), out);
}

/* A property every code point must have; an empty string has none. */
static int every(ns_jval self, bool (*has)(uint32_t), ns_jval *out)
{
    const char *p = self.s->p, *end = p + self.s->n;
    bool yes = p < end;
    while (yes && p < end)
        yes = has(ns_jtext_next(&p, end));
    *out = ns_jv_bool(yes);
    return 0;
}

static bool alnum(uint32_t c)
{
    return ns_jtext_alpha(c) || ns_jtext_digit(c);
}

static bool ascii(uint32_t c)
{
    return c < 128;
}

METHOD(m_isspace)
{
    UNUSED, (void)r;
    return every(self, ns_jtext_space, out);
}

METHOD(m_isalpha)
{
    UNUSED, (void)r;
    return every(self, ns_jtext_alpha, out);
}

METHOD(m_isdigit)
{
    UNUSED, (void)r;
    return every(self, ns_jtext_digit, out);
}

METHOD(m_isalnum)
{
    UNUSED, (void)r;
    return every(self, alnum, out);
}

METHOD(m_isascii)
{
    UNUSED, (void)r;
    every(self, ascii, out);
    *out = ns_jv_bool(self.s->n == 0 || ns_jval_truth(*out));
    return 0;
}

/* islower, isupper: some letter has case, and none has the other one. */
static int one_case(ns_jval self, bool upper, ns_jval *out)
{
    const char *p = self.s->p, *end = p + self.s->n;
    bool some = false, other = false;
    while (p < end) {
        uint32_t c = ns_jtext_next(&p, end);
        bool mine = upper ? ns_jtext_upper(c) : ns_jtext_lower(c);
        some |= mine;
        other |= !mine && ns_jtext_cased(c);
    }
    *out = ns_jv_bool(some && !other);
    return 0;
}

METHOD(m_islower)
{
    UNUSED, (void)r;
    return one_case(self, false, out);
}

METHOD(m_isupper)
{
    UNUSED, (void)r;
    return one_case(self, true, out);
}

const ns_jbuiltin *ns_jmethod_find_str(const char *name)
{
    static const ns_jbuiltin table[] = {
        { "capitalize", "", m_capitalize },
        { "casefold", NULL, NULL },
        { "center", "/width ?fill", m_center },
        { "count", "/sub ?start ?end", ns_jmethod_count },
        { "encode", NULL, NULL },
        { "endswith", "/suffix ?start ?end", ns_jmethod_endswith },
        { "expandtabs", NULL, NULL },
        { "find", "/sub ?start ?end", ns_jmethod_find },
        { "format", NULL, m_format },
        { "format_map", NULL, NULL },
        { "index", "/sub ?start ?end", ns_jmethod_index },
        { "isalnum", "", m_isalnum },
        { "isalpha", "", m_isalpha },
        { "isascii", "", m_isascii },
        { "isdecimal", "", m_isdigit },
        { "isdigit", "", m_isdigit },
        { "isidentifier", NULL, NULL },
        { "islower", "", m_islower },
        { "isnumeric", "", m_isdigit },
        { "isprintable", NULL, NULL },
        { "isspace", "", m_isspace },
        { "istitle", NULL, NULL },
        { "isupper", "", m_isupper },
        { "join", "/items", m_join },
        { "ljust", "/width ?fill", m_ljust },
        { "lower", "", m_lower },
        { "lstrip", "/?chars", m_lstrip },
        { "maketrans", NULL, NULL },
        { "partition", "/sep", ns_jmethod_partition },
        { "removeprefix", "/prefix", ns_jmethod_removeprefix },
        { "removesuffix", "/suffix", ns_jmethod_removesuffix },
        { "replace", "/old new ?count", m_replace },
        { "rfind", "/sub ?start ?end", ns_jmethod_rfind },
        { "rindex", "/sub ?start ?end", ns_jmethod_rindex },
        { "rjust", "/width ?fill", m_rjust },
        { "rpartition", "/sep", ns_jmethod_rpartition },
        { "rsplit", "?sep ?maxsplit", ns_jmethod_rsplit },
        { "rstrip", "/?chars", m_rstrip },
        { "split", "?sep ?maxsplit", ns_jmethod_split },
        { "splitlines", "?keepends", m_splitlines },
        { "startswith", "/prefix ?start ?end", ns_jmethod_startswith },
        { "strip", "/?chars", m_strip },
        { "swapcase", "", m_swapcase },
        { "title", "", m_title },
        { "translate", NULL, NULL },
        { "upper", "", m_upper },
        { "zfill", "/width", m_zfill },
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(name, table[i].name) == 0)
            return &table[i];
    return NULL;
}
