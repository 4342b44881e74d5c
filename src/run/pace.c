#include "run/pace.h"

/* Of the reserve: measured times scatter. */
#define MARGIN 1.05

double ns_pace_reserve(const ns_pace *p, int answer, int unread, int put)
{
    return MARGIN * p->load * (unread * p->size[answer].read + (put + p->answer_tokens) * p->size[answer].step);
}

bool ns_pace_must_close(const ns_pace *p, double now, int think, int answer, int unread, int put)
{
    return now + p->load * p->size[think].step + ns_pace_reserve(p, answer, unread, put) >= p->end;
}

bool ns_pace_over(const ns_pace *p, double now, int answer)
{
    return now + p->load * p->size[answer].step > p->end;
}

void ns_pace_took(ns_pace *p, int i, double seconds)
{
    if (p->size[i].step > 0.0)
        p->load += 0.1 * (seconds / p->size[i].step - p->load);
}

void ns_pace_choose(const ns_pace *p, double now, int prompt, bool cache, int *think, int *answer)
{
    double left = p->end - now;
    int a = 0, t = 0;
    while (a + 1 < p->n && ns_pace_reserve(p, a, 0, 0) > left / 2)
        a++;
    for (; t + 1 < p->n; t++) {
        int thought = p->answer_tokens, unread = t == a || cache ? 0 : prompt + thought;
        double need = p->load * (prompt * p->size[t].read + thought * p->size[t].step) + ns_pace_reserve(p, a, unread, 0);
        if (need <= left)
            break;
    }
    *think = t;
    *answer = a;
}
