#include "text/pretok_regex.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

/* Class bodies. White_Space and its complement; \w as Oniguruma has it (Alphabetic, M, Nd, Pc). */
static const char space_set[] = "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"
                                "\\x{205f}\\x{3000}";
static const char not_space_set[] = "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}"
                                    "\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}"
                                    "\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}";
static const char word_set[] = "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24b6}-\\x{24e9}\\x{1f130}-\\x{1f149}\\x{1f150}-\\x{1f169}"
                               "\\x{1f170}-\\x{1f189}";
/* Outside a class Oniguruma takes \w below U+0100 from another table, in which superscripts and fractions are words too. */
static const char latin1_word_set[] = "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";

typedef struct translator {
    const char *p, *end;
    ns_buf *out;
    ns_err *e;
} translator;

static int refuse(translator *t, const char *what)
{
    return ns_fail(t->e, NS_EUNSUPPORTED, "regular expression: %s is not supported", what);
}

static bool is_alnum(char c) /* ASCII, whatever the locale */
{
    return (unsigned char)c < 0x80 && isalnum((unsigned char)c);
}

static bool looking_at(const translator *t, const char *s)
{
    size_t n = strlen(s);
    return (size_t)(t->end - t->p) >= n && memcmp(t->p, s, n) == 0;
}

static void copy(translator *t, size_t n)
{
    ns_buf_add(t->out, t->p, n);
    t->p += n;
}

static void put_class(translator *t, bool negated, const char *set, const char *more)
{
    ns_buf_addf(t->out, "[%s%s%s]", negated ? "^" : "", set, more);
}

/* \p{Name}, \P{Name}, \p{^Name}; p stands after the letter. One and two letters name a general category, longer a script. */
static int translate_property(translator *t, char letter)
{
    const char *close = looking_at(t, "{") ? memchr(t->p, '}', (size_t)(t->end - t->p)) : NULL;
    if (!close)
        return refuse(t, "\\p without {name}");
    const char *name = t->p + 1;
    bool negated = letter == 'P';
    if (name < close && *name == '^') {
        negated = !negated;
        name++;
    }
    for (const char *c = name; c < close; c++)
        if (!is_alnum(*c) && *c != '_')
            return refuse(t, "this \\p{name}");
    ns_buf_addf(t->out, "\\%c{%s%.*s}", negated ? 'P' : 'p', close - name > 2 ? "sc:" : "", (int)(close - name), name);
    t->p = close + 1;
    return 0;
}

/* \xHH (ASCII only: above, Oniguruma means a byte), \x{H..}, \uHHHH; p stands after the letter. */
static int translate_hex(translator *t, char letter)
{
    bool braces = letter == 'x' && looking_at(t, "{");
    size_t start = braces ? 1 : 0, most = braces ? 8 : letter == 'u' ? 4 : 2, n = 0;
    while (n < most && t->end - t->p > (ptrdiff_t)(start + n) && isxdigit((unsigned char)t->p[start + n]))
        n++;
    const char *digits = t->p + start;
    if (n == 0 || (letter == 'u' && n != 4) || (braces && (t->end - digits <= (ptrdiff_t)n || digits[n] != '}')))
        return refuse(t, "this \\x or \\u escape");
    if (letter == 'x' && !braces && n == 2 && digits[0] > '7')
        return refuse(t, "a \\xHH above 7F");
    ns_buf_addf(t->out, "\\x{%.*s}", (int)n, digits);
    t->p = digits + n + (braces ? 1 : 0);
    return 0;
}

static int translate_escape(translator *t, bool in_class)
{
    if (t->end - t->p < 2)
        return refuse(t, "a backslash at the end");
    char c = t->p[1], name[] = { '\\', c, 0 };
    if (!is_alnum(c)) { /* an escaped sign, or the first byte of an escaped character */
        copy(t, 2);
        return 0;
    }
    t->p += 2;
    switch (c) {
    case 's':
    case 'S':
        if (in_class)
            ns_buf_adds(t->out, c == 's' ? space_set : not_space_set);
        else
            put_class(t, c == 'S', space_set, "");
        return 0;
    case 'w':
    case 'W':
        if (in_class && c == 'W')
            return refuse(t, "\\W in a class");
        if (in_class)
            ns_buf_adds(t->out, word_set);
        else
            put_class(t, c == 'W', word_set, latin1_word_set);
        return 0;
    case 'p':
    case 'P': return translate_property(t, c);
    case 'x':
    case 'u': return translate_hex(t, c);
    case 'd':
    case 'D':
    case 'r':
    case 'n':
    case 't':
    case 'f':
    case 'e':
    case 'a': ns_buf_adds(t->out, name); return 0;
    default: return refuse(t, name);
    }
}

static bool at_set_escape(const translator *t)
{
    return t->end - t->p >= 2 && t->p[0] == '\\' && t->p[1] && strchr("sSwWdDpP", t->p[1]);
}

static int translate_class(translator *t)
{
    bool after_set = false;
    copy(t, 1);
    if (looking_at(t, "^"))
        copy(t, 1);
    if (looking_at(t, "]"))
        return refuse(t, "] first in a class");
    while (t->p < t->end && *t->p != ']') {
        if (*t->p == '[')
            return refuse(t, "a class inside a class");
        if (looking_at(t, "&&"))
            return refuse(t, "&& in a class");
        if (*t->p == '-') { /* beside a set it is itself; as our sets are spelt out, it would make a range */
            t->p++;
            ns_buf_adds(t->out, after_set || at_set_escape(t) ? "\\-" : "-");
            after_set = false;
            continue;
        }
        after_set = at_set_escape(t);
        if (*t->p != '\\')
            copy(t, 1);
        else if (translate_escape(t, true) != 0)
            return -1;
    }
    if (t->p == t->end)
        return refuse(t, "a class without end");
    copy(t, 1);
    return 0;
}

static int translate_group(translator *t)
{
    static const char *const heads[] = { "(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?-i:" };
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        if (looking_at(t, heads[i])) {
            copy(t, strlen(heads[i]));
            return 0;
        }
    }
    if (looking_at(t, "(?") || looking_at(t, "(*"))
        return refuse(t, "a group (? other than : = ! > <= <! i: -i:");
    copy(t, 1);
    return 0;
}

/* {n}, {n,}, {n,m}; anything else in braces stands for itself in both engines, except {,n}. */
static int translate_interval(translator *t)
{
    const char *p = t->p + 1;
    while (p < t->end && isdigit((unsigned char)*p))
        p++;
    bool fixed = p < t->end && *p == '}', counted = p > t->p + 1;
    if (p < t->end && *p == ',')
        for (p++; p < t->end && isdigit((unsigned char)*p);)
            p++;
    if (p == t->end || *p != '}' || p == t->p + 1) {
        copy(t, 1);
        return 0;
    }
    if (!counted)
        return refuse(t, "{,n}");
    p++;
    if (p < t->end && (*p == '+' || (*p == '?' && fixed)))
        return refuse(t, *p == '+' ? "{n,m}+" : "{n}?");
    copy(t, (size_t)(p - t->p));
    return 0;
}

static int translate_next(translator *t)
{
    switch (*t->p) {
    case '\\': return translate_escape(t, false);
    case '[': return translate_class(t);
    case '(': return translate_group(t);
    case '{': return translate_interval(t);
    case '^':
        t->p++;
        ns_buf_adds(t->out, "(?:\\A|(?<=\\n)(?!\\z))");
        return 0;
    case '$':
        t->p++;
        ns_buf_adds(t->out, "(?=\\n|\\z)");
        return 0;
    default: copy(t, 1); return 0;
    }
}

int ns_regex_translate(const char *pattern, size_t n, ns_buf *out, ns_err *e)
{
    translator t = { .p = pattern, .end = pattern + n, .out = out, .e = e };
    while (t.p < t.end)
        if (translate_next(&t) != 0)
            return -1;
    return out->failed ? ns_fail(e, NS_ENOMEM, "out of memory") : 0;
}
