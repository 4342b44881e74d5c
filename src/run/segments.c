#include "run/segments.h"

#include <stdlib.h>
#include <string.h>

void ns_segments_release(ns_segments *p)
{
    for (int i = 0; i < p->n; i++)
        free((char *)(uintptr_t)p->seg[i].size);
    p->n = 0;
}

int ns_segments_add(ns_segments *p, enum ns_phase phase, int from, const char *size, size_t n, ns_err *e)
{
    if (n == 0)
        return ns_fail(e, NS_EINVAL, "sizes: an empty name");
    if (p->n == NS_SEGMENTS)
        return ns_fail(e, NS_EINVAL, "sizes: more than %d", NS_SEGMENTS);
    char *copy = strndup(size, n);
    if (!copy)
        return ns_fail(e, NS_ENOMEM, "sizes: out of memory");
    p->seg[p->n++] = (ns_segment){ phase, from, copy };
    return 0;
}

/* ---- text ---- */

/* A whole number in front of end; -1 when p[0..end) is none. */
static int number(const char *p, const char *end)
{
    long v = 0;
    if (p == end)
        return -1;
    for (; p < end; p++) {
        if (*p < '0' || *p > '9')
            return -1;
        v = v > INT_MAX / 16 ? v : 10 * v + (*p - '0');
    }
    return (int)v;
}

/* The count behind the last colon of p[0..n), and the length in front of it; -1 when there is no count. "fit:16GiB" has none. */
static int take_count(const char *p, size_t *n)
{
    size_t i = *n;
    while (i > 0 && p[i - 1] >= '0' && p[i - 1] <= '9')
        i--;
    if (i == *n || i < 2 || p[i - 1] != ':')
        return -1;
    int count = number(p + i, p + *n);
    *n = i - 1;
    return count;
}

/* Only the last size may go without a count, so a comma behind one that has none belongs to it: "hidden=32,expert_ffn=8:20,full". */
int ns_segments_parse_sizes(ns_segments *p, const char *text, ns_err *e)
{
    int64_t at = 0;
    for (const char *from = text, *q = text;; q++) {
        if (*q != ',' && *q != '\0')
            continue;
        size_t n = (size_t)(q - from);
        int count = take_count(from, &n);
        if (count < 0 && *q)
            continue;
        if (ns_segments_add(p, NS_PHASE_ALL, (int)(at < INT_MAX ? at : INT_MAX), from, n, e) != 0)
            return -1;
        if (!*q)
            return 0;
        at += count;
        from = q + 1;
    }
}

static const struct {
    const char *word;
    enum ns_phase phase;
    int sign; /* of the count behind the word; 0: none */
} words[] = { { "all:", NS_PHASE_ALL, 0 },           { "think:", NS_PHASE_THINK, 0 },      { "answer:", NS_PHASE_ANSWER, 0 },
              { "from-think:", NS_PHASE_THINK, 1 },  { "last-think:", NS_PHASE_THINK, -1 } };
enum { WORDS = sizeof words / sizeof *words };

static int word_at(const char *p)
{
    for (int i = 0; i < WORDS; i++)
        if (strncmp(p, words[i].word, strlen(words[i].word)) == 0)
            return i;
    return -1;
}

bool ns_segments_is_plan(const char *text)
{
    return word_at(text) >= 0;
}

/* The end of an item: the comma before the next word; other commas belong to a size. */
static const char *item_end(const char *p)
{
    while (*p && !(*p == ',' && (word_at(p + 1) >= 0 || p[1] == '\0')))
        p++;
    return p;
}

int ns_segments_parse(ns_segments *p, const char *text, ns_err *e)
{
    for (const char *at = text;;) {
        int w = word_at(at), from = 0;
        const char *end = item_end(at);
        if (w < 0)
            return ns_fail(e, NS_EINVAL, "plan: \"%.40s\": expected think:SIZE, answer:SIZE, all:SIZE, last-think:N:SIZE or from-think:N:SIZE", at);
        const char *size = at + strlen(words[w].word);
        if (words[w].sign) {
            const char *colon = memchr(size, ':', (size_t)(end - size));
            if (!colon || (from = number(size, colon)) < 1)
                return ns_fail(e, NS_EINVAL, "plan: \"%.*s\": expected %sN:SIZE with a number of tokens from 1 on", (int)(end - at), at, words[w].word);
            from *= words[w].sign;
            size = colon + 1;
        }
        if (size == end)
            return ns_fail(e, NS_EINVAL, "plan: \"%.*s\": the size is missing", (int)(end - at), at);
        if (ns_segments_add(p, words[w].phase, from, size, (size_t)(end - size), e) != 0)
            return -1;
        if (!*end)
            return 0;
        at = end + 1;
    }
}

/* ---- places ---- */

static bool applies(const ns_segment *s, const ns_place *at)
{
    switch (s->phase) {
    case NS_PHASE_ALL: return at->all >= s->from;
    case NS_PHASE_ANSWER: return at->phase == NS_PHASE_ANSWER && at->answer >= s->from;
    default: break;
    }
    if (at->phase != NS_PHASE_THINK)
        return false;
    return s->from >= 0 ? at->thought >= s->from : at->budget != NS_THOUGHT_FREE && at->thought >= at->budget + s->from;
}

int ns_segments_at(const ns_segment *seg, int n, const ns_place *at)
{
    while (n > 0 && !applies(&seg[n - 1], at))
        n--;
    return n - 1;
}

/* Tokens until a segment that does not apply yet does, when the part stays; 0 when it never will. */
static int distance(const ns_segment *s, const ns_place *at)
{
    int d = 0;
    if (s->phase == NS_PHASE_ALL)
        d = s->from - at->all;
    else if (s->phase == at->phase && s->phase == NS_PHASE_ANSWER)
        d = s->from - at->answer;
    else if (s->phase == at->phase && s->from >= 0)
        d = s->from - at->thought;
    else if (s->phase == at->phase && at->budget != NS_THOUGHT_FREE)
        d = at->budget + s->from - at->thought;
    return d > 0 ? d : 0;
}

int ns_segments_next(const ns_segment *seg, int n, const ns_place *at, int now)
{
    int best = -1, nearest = at->phase == NS_PHASE_THINK && at->budget != NS_THOUGHT_FREE ? at->budget - at->thought : INT_MAX;
    for (int i = 0; i < n; i++) {
        int d = distance(&seg[i], at);
        if (d == 0 || d >= nearest)
            continue;
        ns_place then = *at;
        then.all += d;
        then.thought += at->phase == NS_PHASE_THINK ? d : 0;
        then.answer += at->phase == NS_PHASE_ANSWER ? d : 0;
        if (ns_segments_at(seg, n, &then) == i && strcmp(seg[i].size, seg[now].size) != 0) {
            best = i;
            nearest = d;
        }
    }
    if (best >= 0 || at->phase != NS_PHASE_THINK)
        return best;
    ns_place answer = *at;
    answer.phase = NS_PHASE_ANSWER;
    best = ns_segments_at(seg, n, &answer);
    return best >= 0 && strcmp(seg[best].size, seg[now].size) != 0 ? best : -1;
}
