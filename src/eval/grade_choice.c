/* Multiple choice, and BIG-Bench Hard's short answers. */
#include <ctype.h>
#include <string.h>

#include "eval/grade.h"
#include "eval/regex.h"

/* The letter behind the last "answer is", else behind "answer:", else in a box, else the last capital letter that stands alone. */
static enum ns_grade letter(const ns_task_item *item, ns_text said, char last, ns_buf *extracted)
{
    static const char *const rules[] = {
        "(?i:answer\\s+is)(?i:\\s+option)?:?\\s*[*_$]*\\(?(?:\\\\boxed\\{)?(?:\\\\text\\{)?\\(?([A-%c])\\b",
        "(?i:answer)[*_]*\\s*:[*_]*\\s*\\(?(?:\\\\boxed\\{)?\\(?([A-%c])\\b",
        "\\\\boxed\\{\\s*(?:\\\\(?:text|mathrm|textbf)\\{)?\\s*\\(?([A-%c])\\)?\\b",
        "(?<![\\w'])([A-%c])(?![\\w'])",
    };
    char pattern[120];
    ns_text found = { 0 };
    for (size_t i = 0; i < sizeof rules / sizeof *rules && !found.p; i++) {
        snprintf(pattern, sizeof pattern, rules[i], last);
        found = ns_re_last(pattern, 0, said);
    }
    ns_buf_add(extracted, found.p, found.n);
    return found.p && ns_answer_is(found, item->answer) ? NS_GRADE_RIGHT : NS_GRADE_WRONG;
}

enum ns_grade ns_grade_letter4(const ns_task_item *item, ns_text said, ns_buf *extracted)
{
    return letter(item, said, 'D', extracted);
}

enum ns_grade ns_grade_letter10(const ns_task_item *item, ns_text said, ns_buf *extracted)
{
    return letter(item, said, 'J', extracted);
}

/* Lower case; runs of white space, commas and semicolons are one space; no marks of emphasis, no full stop at the end. */
static void plain(ns_text s, ns_buf *out)
{
    bool gap = false;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (isspace(c) || c == ',' || c == ';') {
            gap = true;
            continue;
        }
        if (c == '*' || c == '`' || c == '"' || c == '$')
            continue;
        if (gap && out->len)
            ns_buf_addc(out, ' ');
        gap = false;
        ns_buf_addc(out, (char)tolower(c));
    }
    while (out->len && out->data[out->len - 1] == '.')
        out->data[--out->len] = '\0';
}

/* Brackets without what stands between them. */
static void squeeze(ns_buf *b)
{
    size_t n = 0;
    for (size_t i = 0; i < b->len; i++)
        if (b->data[i] != ' ')
            b->data[n++] = b->data[i];
    b->len = n;
    if (b->data)
        b->data[n] = '\0';
}

/* Said and wanted in plain form: the same in the form that the target has? */
static bool same_form(ns_buf *said, ns_buf *want)
{
    size_t w = want->len;
    bool same = false;
    if (!said->len || !w)
        return false;
    if (w == 3 && want->data[0] == '(' && want->data[2] == ')') { /* (a), a), a, "(a) red" */
        const char *p = said->data + (said->data[0] == '(');
        same = *p == want->data[1] && !isalnum((unsigned char)p[1]) && (p[1] != ' ' || p > said->data);
    } else if (strspn(want->data, "()[]{}<> ") == w) {
        squeeze(said);
        squeeze(want);
        same = strcmp(said->data, want->data) == 0;
    } else {
        same = strcmp(said->data, want->data) == 0;
    }
    return same;
}

enum ns_grade ns_grade_bbh(const ns_task_item *item, ns_text said, ns_buf *extracted)
{
    ns_buf got = { 0 }, want = { 0 };
    ns_text found = ns_re_last("(?i:answer\\s+is):?[ \\t]*([^\\n]*)", 0, said);
    if (!found.p)
        found = ns_boxed_last(said);
    if (!found.p)
        found = ns_re_last("([^\\n]*\\S[^\\n]*)", 0, said);
    found = ns_answer_trim(found.p, found.n);
    while (found.n && strchr("*`\"$", *found.p) && *found.p) { /* emphasis */
        found.p++;
        found.n--;
    }
    while (found.n > 1 && found.p[found.n - 1] && strchr("*`\"$", found.p[found.n - 1]))
        found.n--;
    ns_buf_add(extracted, found.p, found.n);
    ns_text target = { item->answer, strlen(item->answer) };
    bool right;
    if (ns_number_canonical(target, &want)) {
        right = ns_number_canonical(found, &got) && strcmp(got.data, want.data) == 0;
    } else {
        ns_buf_clear(&want);
        plain(found, &got);
        plain(target, &want);
        right = same_form(&got, &want);
    }
    ns_buf_release(&got);
    ns_buf_release(&want);
    return right ? NS_GRADE_RIGHT : NS_GRADE_WRONG;
}
