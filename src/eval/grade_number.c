/* Numbers as text: GSM8K and AIME. Comparing canonical spellings needs no floating point and has no range. */
#include <string.h>

#include "eval/grade.h"
#include "eval/regex.h"

#define NUMBER "(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\\.[0-9]+)?|\\.[0-9]+"

bool ns_number_canonical(ns_text s, ns_buf *out)
{
    ns_re r;
    ns_buf_clear(out);
    ns_re_open(&r, "^\\s*([-+\xE2\x88\x92]?)\\s*[$\xE2\x82\xAC\xC2\xA3]?\\s*(" NUMBER ")\\.?\\s*%?\\s*$", 0, s);
    bool found = ns_re_next(&r);
    ns_text sign = r.group[0], digits = r.group[1];
    ns_re_close(&r);
    if (!found)
        return false;
    const char *dot = memchr(digits.p, '.', digits.n);
    size_t whole = dot ? (size_t)(dot - digits.p) : digits.n, end = digits.n;
    while (dot && end > whole + 1 && digits.p[end - 1] == '0')
        end--;
    size_t from = 0;
    while (from < whole && (digits.p[from] == '0' || digits.p[from] == ','))
        from++;
    bool fraction = dot && end > whole + 1;
    if (sign.n && sign.p[0] != '+' && (from < whole || fraction))
        ns_buf_addc(out, '-');
    if (from == whole)
        ns_buf_addc(out, '0');
    for (size_t i = from; i < whole; i++)
        if (digits.p[i] != ',')
            ns_buf_addc(out, digits.p[i]);
    if (fraction)
        ns_buf_add(out, digits.p + whole, end - whole);
    return true;
}

bool ns_number_last(ns_text s, ns_buf *out)
{
    /* a sign behind a digit, a letter or a closing bracket is an operator */
    return ns_number_canonical(ns_re_last("((?:(?<![\\w)\\]}.])[-\xE2\x88\x92]\\s?)?[$\xE2\x82\xAC\xC2\xA3]?(?:" NUMBER "))", 0, s), out);
}

static ns_text behind_last(ns_text s, const char *mark)
{
    const char *at = NULL, *p = s.p;
    size_t len = strlen(mark);
    while (s.n && (p = memmem(p, (size_t)(s.p + s.n - p), mark, len)))
        at = p += len;
    return at ? (ns_text){ at, (size_t)(s.p + s.n - at) } : (ns_text){ 0 };
}

ns_text ns_boxed_last(ns_text s)
{
    ns_text box = behind_last(s, "\\boxed"), old = behind_last(s, "\\fbox");
    if (old.p > box.p)
        box = old;
    while (box.n && *box.p == ' ') {
        box.p++;
        box.n--;
    }
    if (!box.n)
        return (ns_text){ 0 };
    if (*box.p != '{') /* \boxed 5 */
        return (ns_text){ box.p, strcspn(box.p, "$ \n") < box.n ? strcspn(box.p, "$ \n") : box.n };
    int depth = 0;
    for (size_t i = 0; i < box.n; i++) {
        bool escaped = i && box.p[i - 1] == '\\';
        depth += escaped ? 0 : box.p[i] == '{' ? 1 : box.p[i] == '}' ? -1 : 0;
        if (depth == 0)
            return (ns_text){ box.p + 1, i - 1 };
    }
    return (ns_text){ 0 };
}

static enum ns_grade same(const ns_buf *found, const char *answer)
{
    ns_buf want = { 0 };
    bool right = ns_number_canonical((ns_text){ answer, strlen(answer) }, &want) && found->len && strcmp(found->data, want.data) == 0;
    ns_buf_release(&want);
    return right ? NS_GRADE_RIGHT : NS_GRADE_WRONG;
}

enum ns_grade ns_grade_number(const ns_task_item *item, ns_text said, ns_buf *extracted)
{
    ns_text tail = behind_last(said, "####"), box = ns_boxed_last(said);
    ns_re r;
    bool found = false;
    if (tail.p) { /* the first number behind the mark */
        ns_re_open(&r, "[-\xE2\x88\x92]?\\s?[$\xE2\x82\xAC\xC2\xA3]?(?:" NUMBER ")", 0, tail);
        found = ns_re_next(&r) && ns_number_canonical(r.whole, extracted);
        ns_re_close(&r);
    } else {
        found = (box.p && ns_number_last(box, extracted)) || ns_number_last(said, extracted);
    }
    return found ? same(extracted, item->answer) : NS_GRADE_WRONG;
}

enum ns_grade ns_grade_aime(const ns_task_item *item, ns_text said, ns_buf *extracted)
{
    ns_text box = ns_boxed_last(said);
    ns_buf text = { 0 };
    if (box.p) { /* a box that holds no number is an answer, and a wrong one */
        ns_math_normal(box, &text);
        ns_re_replace(&text, "^\\((.*)\\)$", 0, "$1");
        ns_buf_addc(&text, ' ');
        if (!ns_number_canonical((ns_text){ text.data, text.len }, extracted))
            ns_buf_add(extracted, box.p, box.n);
    } else {
        ns_number_last(said, extracted);
    }
    ns_buf_release(&text);
    bool in_range = extracted->len >= 1 && extracted->len <= 3 && strspn(extracted->data, "0123456789") == extracted->len;
    return in_range ? same(extracted, item->answer) : NS_GRADE_WRONG;
}

enum ns_grade ns_grade_exact(const ns_task_item *item, ns_text said, ns_buf *extracted)
{
    ns_buf_add(extracted, said.p, said.n);
    return ns_answer_is(said, item->answer) ? NS_GRADE_RIGHT : NS_GRADE_WRONG;
}
