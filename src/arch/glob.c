#include "arch/glob.h"

#include <string.h>

bool ns_glob_has_magic(const char *pattern)
{
    return strpbrk(pattern, "*?[") != NULL;
}

/* The end of the bracket expression at `p` (past "]"), or NULL when it is not closed and '[' stands for itself. */
static const char *bracket_end(const char *p)
{
    const char *q = p + 1;
    if (*q == '!')
        q++;
    if (*q == ']')
        q++;
    q = strchr(q, ']');
    return q ? q + 1 : NULL;
}

static bool in_bracket(const char *p, const char *end, char ch)
{
    unsigned char c = (unsigned char)ch;
    bool negate = p[1] == '!', hit = false;
    for (p += negate ? 2 : 1; p < end - 1; p++) {
        if (p + 2 < end - 1 && p[1] == '-') {
            hit |= (unsigned char)p[0] <= c && c <= (unsigned char)p[2];
            p += 2;
        } else {
            hit |= (unsigned char)*p == c;
        }
    }
    return hit != negate;
}

/* Does one pattern element match one byte? `next` is set past the element. */
static bool match_one(const char *p, char c, const char **next)
{
    const char *end = *p == '[' ? bracket_end(p) : NULL;
    *next = end ? end : p + 1;
    if (end)
        return in_bracket(p, end, c);
    return *p == '?' || *p == c;
}

/* On a mismatch the last `*` takes one byte more; earlier ones need no second thought. */
bool ns_glob_match(const char *pattern, const char *text)
{
    const char *p = pattern, *star = NULL, *resume = text, *next;
    while (*text) {
        if (*p == '*') {
            star = ++p;
            resume = text;
        } else if (*p && match_one(p, *text, &next)) {
            p = next;
            text++;
        } else if (star) {
            p = star;
            text = ++resume;
        } else {
            return false;
        }
    }
    while (*p == '*')
        p++;
    return !*p;
}
