#include "run/load.h"

/* Seconds. A change shows in the figures only when requests that came after it are served: until then nothing is concluded from them. */
static const double settle = 1.0, calm_least = 20.0, calm_most = 640.0;
static const double recent = 0.3; /* weight of the newest figure */
enum {
    GROWTH = 4, /* of the calm, by a step up that did not last, or down again by one at the full sizes */
    SOON = 4,   /* it did not last: so many times the calm that came before it */
    SPARE = 8,  /* while targets are met twice over, a second counts as so many */
};

void ns_load_init(ns_load *l, int n_sizes, double first_token, double token_rate)
{
    *l = (ns_load){ .first_token = first_token, .token_rate = token_rate, .n_sizes = n_sizes, .long_queue = 8, .think = n_sizes - 1,
                    .answer = n_sizes - 1, .calm = calm_least };
}

static void smooth(double *mean, double x)
{
    if (x > 0)
        *mean = *mean > 0 ? *mean + recent * (x - *mean) : x;
}

/* Are targets missed, were they `tight` times as hard? What was not measured just now misses nothing: the smoothed figure may be old. */
static bool missed(const ns_load *l, double tight, bool first_token, bool token_rate, int waiting)
{
    return (l->first_token > 0 && (waiting * tight >= l->long_queue || (first_token && tight * l->first_token_now > l->first_token))) ||
           (l->token_rate > 0 && token_rate && l->token_rate_now < tight * l->token_rate);
}

static void changed(ns_load *l, double now, bool up)
{
    l->changed = l->calm_since = l->spare_since = now;
    l->went_up = up;
    l->first_token_now = l->token_rate_now = 0; /* those were the other sizes' */
}

static double within(double x)
{
    return x < calm_least ? calm_least : x > calm_most ? calm_most : x;
}

static void down(ns_load *l, double now)
{
    int *size = l->think > 0 ? &l->think : &l->answer;
    if (*size == 0)
        return;
    if (l->went_up && now - l->changed < SOON * l->calm)
        l->calm = within(GROWTH * l->calm);
    --*size;
    changed(l, now, false);
}

static void up(ns_load *l, double now)
{
    int *size = l->answer < l->n_sizes - 1 ? &l->answer : &l->think;
    if (now - l->calm_since < l->calm && now - l->spare_since < within(l->calm / SPARE))
        return;
    if (*size == l->n_sizes - 1) { /* all is full, and has been for long: forgiven */
        l->calm = within(l->calm / GROWTH);
        l->calm_since = l->spare_since = now;
        return;
    }
    ++*size;
    changed(l, now, true);
}

void ns_load_saw(ns_load *l, double now, double first_token, double token_rate, int waiting)
{
    if (now - l->changed < settle + l->first_token)
        return;
    smooth(&l->first_token_now, first_token);
    smooth(&l->token_rate_now, token_rate);
    if (missed(l, 2, first_token > 0, token_rate > 0, waiting))
        l->spare_since = now;
    if (missed(l, 1, first_token > 0, token_rate > 0, waiting)) {
        l->calm_since = now;
        down(l, now);
    } else if (waiting == 0) {
        up(l, now);
    }
}
