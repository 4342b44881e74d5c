/* Requests to a scheduler, and what a session alone makes of them: what its tests share. */
#ifndef PROP_REQUESTS_H
#define PROP_REQUESTS_H
#include "prop/prop.h"
#include "run/sched_impl.h"

enum { VOCAB = 384, CONTEXT = 1400, MOST = 1500, CLOSING = 90 };

/* A tiny checkpoint with the demo's text, in tiny_base/name; NULL: the best kernels. Sizes: "small" shares the cache's shape with "full" (or
 * "whole"), "tight" does not, "short" leaves layers out. */
ns_engine *req_engine_make(const char *name, const char *dtype, const char *rung, int threads);

/* Of the group: an req_engine, and the ids of the marks of a thought. */
extern ns_engine *req_engine;
extern int req_open, req_close;
int req_setup(void **state);
int req_teardown(void **state);

extern const ns_sampling req_greedy;

typedef struct request {
    int ids[MOST], n;
    const char *size;
    ns_segment seg[4];
    ns_answer_opts o;
    ns_sampling sampling;
    char close[8 * CLOSING];
    int stop_after; /* tokens, by the callback; 0: never */
    bool cancel;
    int top;
    /* what a session alone makes of it */
    int want[MOST], n_want, drawn;
    uint64_t want_bits[MOST], got_bits[MOST]; /* of the likeliest tokens' logprobs: what rounding leaves in them */
    ns_answer_info info;
    /* what came */
    uint64_t ticket;
    int got[MOST], n_got, put, thought, answer;
    int done;
    ns_sched_result result;
} request;

/* n tokens, req_greedy, by cache, with `tokens` more to make. */
request req_plain(int n, const char *size, int tokens);
bool req_take(void *ctx, const ns_sched_token *t);
ns_sched_job req_job(request *r);
/* The oracle: a session and an answer, nothing else. Fills in `want`. */
void req_alone(ns_engine *en, request *r);
/* Fails the test where what came is not what was wanted: tokens, logits, counts, and how it ended. */
void req_check(const request *r);

/* These fail the test when they cannot. */
ns_sched *req_sched(const ns_sched_opts *o);
void req_submit(ns_sched *s, request *r);
void req_refuse(ns_sched *s, const ns_sched_job *job, enum ns_code code, const char *why);
void req_run(ns_sched *s);

/* What callbacks do in the middle of an answer. */
typedef struct within {
    request r; /* first: it is the context */
    ns_sched *s;
    int at;
    const char *size;
    bool cancel, stop;
    int resized; /* what ns_sched_resize said */
    ns_err e;
    request *other;
} within;

void req_submit_within(ns_sched *s, within *w);
#endif
