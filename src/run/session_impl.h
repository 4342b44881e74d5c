/* Inside run/: a session as session.c, resize.c and answer.c see it. */
#ifndef NS_RUN_SESSION_IMPL_H
#define NS_RUN_SESSION_IMPL_H
#include <signal.h>

#include "run/engine.h"
#include "run/follow.h"
#include "run/sampler.h"

enum { NS_SIZE_NAME = 64, NS_ANSWER_TIMES = 64 };

struct ns_session_mark {
    ns_mark *state;
    float *logits; /* [vocab], of the mark's last token; NULL where the session had none */
    int len;
};

struct ns_session {
    ns_engine *en;
    ns_plan *plan;
    ns_state *state; /* state->len <= n: tokens computed */
    ns_scratch *scratch;
    ns_sampler sampler;
    char name[NS_SIZE_NAME];
    int *ids;        /* [context] */
    int n;
    float *logits;   /* [vocab], of token n - 1 when has_logits */
    bool has_logits;
    bool mixed;      /* some of the state may be another size's: handed over, or loaded */
    bool by_steps;   /* others compute its tokens, in common steps: a handover by prefill leaves them uncomputed */
    struct ns_session_mark *marks;
    int n_marks, auto_mark; /* index of sync's own mark, or -1 */
    ns_follower *next;      /* a size that follows this one, for a late handover; NULL */
    ns_stats stats;
    volatile sig_atomic_t cancel;
};

/* Tokens that a session has room for when nobody says. */
int ns_session_default_context(const ns_engine *en);
/* Appends without computing. */
int ns_session_append(ns_session *s, const int *ids, size_t n, ns_err *e);
/* Computes tokens up to `end`; logits of the last one if it is the session's last. */
int ns_session_compute(ns_session *s, int end, ns_err *e);
/* A step failed: the session is empty. A broken weight shows as a hidden state that is not finite; then the scan that opening spares names
 * the tensor, in `e` (NULL: not asked). */
void ns_session_lose(ns_session *s, ns_err *e);
void ns_session_drop_marks(ns_session *s, int keep);

/* Late handover: a second state of `size` reads along (follow.h), at each `advance` what there is. A resize to that size by
 * NS_HANDOVER_LATE takes it over. Rewinding the session ends it. */
int ns_session_follow(ns_session *s, const char *size, ns_err *e);
int ns_session_advance(ns_session *s, ns_err *e);
void ns_session_unfollow(ns_session *s);

/* Times of sizes that were measured before, kept by who makes many answers; zeroed at first. */
typedef struct ns_answer_times {
    int n;
    struct {
        char name[NS_SIZE_NAME];
        double step, read;
    } size[NS_ANSWER_TIMES];
    double least; /* what a decode step takes at the moment, in company: no size is taken to be faster */
} ns_answer_times;

/* The time, told what was computed since the last call: tests bring a clock that runs by tokens. */
typedef struct ns_answer_clock {
    void *ctx;
    double (*now)(void *ctx, const char *size, int tokens); /* NULL: the machine's */
    ns_answer_times *times; /* NULL: every answer measures */
} ns_answer_clock;

/* Seconds of one decode step at `size`, and per token of a prompt, on a state of its own; `read` may be NULL. */
int ns_session_time(ns_session *s, const char *size, const ns_answer_clock *clock, double *step, double *read, ns_err *e);
#endif
