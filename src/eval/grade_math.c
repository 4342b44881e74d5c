/* MATH: the last box, brought into one spelling of LaTeX. Two answers are the same when their spellings are, when they are equal rational
 * numbers, or when they are lists (tuples, intervals, sets, and bare lists in any order) of such. Algebra is not done: 2x+2 is not 2(x+1). */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "eval/grade.h"
#include "eval/regex.h"

/* In order; each works on what the ones before left. */
static const struct {
    const char *pattern, *with;
} steps[] = {
    { "\\\\(?:left|right|displaystyle|bigl?|bigr?|Bigl?|Bigr?|limits|quad|qquad)(?![A-Za-z])", "" },
    { "(?<!\\\\)\\\\(?:[!,;:>()\\[\\]\\s]|$)|~", " " },
    { "\\\\?\\$|\\\\?%|\\\\degrees?|\\^\\s*\\{?\\s*\\\\circ\\s*\\}?|\\x{B0}", "" },
    { "\\s*[.]?\\s*$", "" },
    { "\\\\[dtc]frac", "\\frac" },
    { "\\\\(?:mbox|textbf|textit|textrm|textnormal|mathrm|mathbf|mathit|operatorname)(?![A-Za-z])", "\\text" },
    { "\\\\text\\s*\\{\\s*(?:and|or)\\s*\\}|(?<=[\\w})])\\s+(?:and|or)\\s+(?=[-\\\\\\w({])", "," },
    { "(?<=[0-9})])\\s*\\\\text\\s*\\{[^{}]*\\}(?:\\^\\{?[23]\\}?)?\\s*$", "" },   /* a unit */
    { "(?<=[0-9}])\\s+(?:[A-Za-z]{2,}\\.?\\s*)+(?:\\^\\{?[23]\\}?)?$", "" },         /* a unit in plain letters */
    { "\\\\text\\s*\\{\\s*([^{}]*?)\\s*\\}", "$1" },
    { "\\{,\\}", "," },
    { "\\s+", "" },
    { "(?<=[0-9]),(?=[0-9]{3}(?:,[0-9]{3})*$)(?<=^[0-9],|^-[0-9],|^[0-9]{2},|^-[0-9]{2},|^[0-9]{3},|^-[0-9]{3},|,[0-9]{3},)", "" },
    { "\\\\frac([0-9a-z])([0-9a-z])", "\\frac{$1}{$2}" },
    { "\\\\frac([0-9a-z])\\{", "\\frac{$1}{" },
    { "(\\\\frac\\{[^{}]*\\})([0-9a-z])", "$1{$2}" },
    { "\\\\sqrt([0-9a-z])", "\\sqrt{$1}" },
    { "^([-+]?)([0-9]+)/([0-9]+)$", "$1\\frac{$2}{$3}" },
    { "(?<=[(,\\[])(-?)([0-9]+)/([0-9]+)(?=[,)\\]])", "$1\\frac{$2}{$3}" },
    { "([\\^_])\\{(\\w)\\}", "$1$2" },
    { "^[A-Za-z]{1,2}(?:=|\\\\in(?![a-z]))|^[a-zA-Z]\\([a-z]\\)=", "" },
    { "\\\\times(?![A-Za-z])", "\\cdot" },
    { "\\\\leq?(?![A-Za-z])", "\\le" },
    { "\\\\geq?(?![A-Za-z])", "\\ge" },
    { "\\\\neq?(?![A-Za-z])", "\\ne" },
    { "\\x{2212}", "-" },
    { "\\x{3C0}", "\\pi" },
    { "\\x{221E}", "\\infty" },
    { "\\+(?=\\\\infty)", "" },
    { "(?<![0-9.])\\.(?=[0-9])", "0." },
};

void ns_math_normal(ns_text s, ns_buf *out)
{
    ns_buf_clear(out);
    s = ns_answer_trim(s.p, s.n);
    ns_buf_add(out, s.p, s.n);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        ns_re_replace(out, steps[i].pattern, 0, steps[i].with);
}

/* ---- equal values ---- */

struct rational {
    __int128 num, den;
};

/* Up to 15 digits before and behind the point together: products of two stay within 128 bits. */
static bool decimal(const char *p, size_t n, struct rational *out)
{
    bool point = false;
    int digits = 0;
    *out = (struct rational){ 0, 1 };
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '.' && !point) {
            point = true;
            continue;
        }
        if (!isdigit((unsigned char)p[i]) || ++digits > 15)
            return false;
        out->num = out->num * 10 + (p[i] - '0');
        out->den *= point ? 10 : 1;
    }
    return digits > 0;
}

/* 3, -0.75, \frac{3}{4}, -\frac{-3}{4}, 2\frac{1}{3} */
static bool value(ns_text s, struct rational *out)
{
    static const char frac[] = "\\frac{";
    bool minus = s.n && (*s.p == '-' || *s.p == '+') && *s.p == '-';
    struct rational whole = { 0, 1 }, up, down;
    if (s.n && (*s.p == '-' || *s.p == '+'))
        s = (ns_text){ s.p + 1, s.n - 1 };
    const char *at = memmem(s.p, s.n, frac, sizeof frac - 1), *end = s.p + s.n;
    if (!at) {
        if (!decimal(s.p, s.n, out))
            return false;
    } else {
        if (at > s.p && !decimal(s.p, (size_t)(at - s.p), &whole))
            return false;
        const char *a = at + sizeof frac - 1, *b = memchr(a, '}', (size_t)(end - a));
        if (!b || b + 2 >= end || b[1] != '{' || end[-1] != '}')
            return false;
        bool below = *a == '-';
        a += below;
        if (!decimal(a, (size_t)(b - a), &up) || !decimal(b + 2, (size_t)(end - 1 - (b + 2)), &down) || down.num == 0 || whole.den != 1)
            return false;
        minus ^= below;
        *out = (struct rational){ up.num * down.den, up.den * down.num };
        out->num += whole.num * out->den;
    }
    out->num = minus ? -out->num : out->num;
    return true;
}

static bool same_item(ns_text a, ns_text b)
{
    struct rational x, y;
    if (a.n == b.n && memcmp(a.p, b.p, a.n) == 0)
        return true;
    if (!value(a, &x) || !value(b, &y))
        return false;
    __int128 p, q;
    return !__builtin_mul_overflow(x.num, y.den, &p) && !__builtin_mul_overflow(y.num, x.den, &q) && p == q;
}

enum { MAX_ITEMS = 64 };

/* The parts between top-level commas; 0 where the brackets do not balance (half-open intervals do: "[1,2)"). */
static int split(ns_text s, ns_text *out)
{
    int n = 0, depth = 0;
    size_t from = 0;
    for (size_t i = 0; i <= s.n; i++) {
        char c = i < s.n ? s.p[i] : ',';
        depth += strchr("([{", c) && c ? 1 : strchr(")]}", c) && c ? -1 : 0;
        if (depth < 0)
            return 0;
        if (c == ',' && depth == 0) {
            if (n == MAX_ITEMS)
                return 0;
            out[n++] = (ns_text){ s.p + from, i - from };
            from = i + 1;
        }
    }
    return depth == 0 ? n : 0;
}

/* The opening and closing bracket around all of it ('\0', '\0': none), and what is inside. */
static ns_text inside(ns_text s, char *open, char *close)
{
    size_t skip = s.n > 1 && s.p[0] == '\\' && s.p[1] == '{' ? 2 : s.n && strchr("([", s.p[0]) ? 1 : 0;
    *open = *close = '\0';
    if (!skip || s.n < 2 * skip || !strchr(")]}", s.p[s.n - 1]))
        return s;
    ns_text in = { s.p + skip, s.n - 2 * skip }, part[MAX_ITEMS];
    if (!split(in, part)) /* (1)+(2) */
        return s;
    *open = s.p[skip - 1];
    *close = s.p[s.n - 1];
    return in;
}

bool ns_math_same(const char *a, const char *b)
{
    char open[2], close[2];
    ns_text x[MAX_ITEMS], y[MAX_ITEMS], s = inside((ns_text){ a, strlen(a) }, &open[0], &close[0]), t = inside((ns_text){ b, strlen(b) }, &open[1], &close[1]);
    if (strcmp(a, b) == 0)
        return *a != '\0';
    int n = split(s, x), m = split(t, y);
    if (n != m || n == 0 || open[0] != open[1] || close[0] != close[1])
        return false;
    bool ordered = open[0] == '(' || open[0] == '[';
    for (int i = 0; i < n; i++) {
        int k = ordered ? i : 0;
        while (!ordered && k < n && !(y[k].p && same_item(x[i], y[k])))
            k++;
        if (k == n || !same_item(x[i], y[k]))
            return false;
        if (!ordered)
            y[k].p = NULL; /* taken */
    }
    return true;
}

/* The last box; without one what follows "answer is", or the last line. */
enum ns_grade ns_grade_math(const ns_task_item *item, ns_text said, ns_buf *extracted)
{
    ns_buf got = { 0 }, want = { 0 };
    ns_text found = ns_boxed_last(said);
    if (!found.p)
        found = ns_re_last("(?i:answer\\s+is):?[ \\t]*([^\\n]*)", 0, said);
    if (!found.p)
        found = ns_re_last("([^\\n]*\\S[^\\n]*)", 0, said);
    ns_buf_add(extracted, found.p, found.n);
    ns_math_normal(found, &got);
    ns_math_normal((ns_text){ item->answer, strlen(item->answer) }, &want);
    bool right = got.len && want.len && ns_math_same(got.data, want.data);
    ns_buf_release(&got);
    ns_buf_release(&want);
    return right ? NS_GRADE_RIGHT : NS_GRADE_WRONG;
}
