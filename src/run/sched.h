/* Continuous batching: requests of any sizes over one engine, computed together. One thread runs the loop; any thread submits and cancels.
 * A request is a session with an answer (nestar.h) whose tokens are computed in common steps, so its text is the one `nestar run` gives
 * alone at that size, bit for bit, whatever else is in the batch. Prompts are read in pieces beside the sequences that decode. What a
 * request may take is decided when it is admitted: its states are within the budget before it begins. */
#ifndef NS_RUN_SCHED_H
#define NS_RUN_SCHED_H
#include "run/engine.h"

typedef struct ns_sched ns_sched;

enum { NS_SCHED_PARALLEL = 256 }; /* sequences computed at once, at most */

typedef struct ns_sched_opts {
    int context;          /* tokens of one sequence at most, prompt and answer; 0: as ns_session_opts */
    int parallel;         /* sequences computed at once; 0: 8 */
    int queue;            /* requests that may wait behind as many; 0: 64 */
    int chunk;            /* prompt tokens in a step beside sequences that decode; a multiple of 64; 0: 128 */
    int64_t state_bytes;  /* of the states of running sequences; 0: `parallel` full contexts of the largest size */
    int64_t prefix_bytes; /* of prefixes kept between requests (run/prefix.h); 0: none */
    double first_token, token_rate; /* what "auto" holds: seconds to the first token, tokens/s of one sequence; 0: no target */
} ns_sched_opts;

/* Tokens that may come next, for constrained decoding; asked for tokens of the answer only, never of the thought. */
typedef struct ns_sched_allow {
    void *ctx;
    /* bit id of [ceil(vocab / 64)] words, zeroed before the call; false: all are allowed. No bit: nothing may follow, and the answer ends as
     * "stop". End-of-turn tokens are tokens like others here. */
    bool (*mask)(void *ctx, uint64_t *bits);
    void (*took)(void *ctx, int id); /* a token of the answer was drawn; no end of turn; may be NULL */
} ns_sched_allow;

typedef struct ns_sched_top {
    int id;
    float logprob; /* natural logarithm, of the softmax over the raw logits: before penalty, temperature and mask */
} ns_sched_top;

typedef struct ns_sched_token {
    int id;
    enum ns_phase phase; /* THINK or ANSWER: what it belongs to */
    bool mark;           /* "<think>", "</think>", end of turn: no text to show */
    bool put;            /* put in to close a thought, not drawn */
    const char *size;    /* that computed its logits; for one put in, the size at that time */
    float logprob;       /* as in ns_sched_top; 0 without logprobs */
    const ns_sched_top *top; /* [n_top] likeliest first; NULL for tokens put in */
    int n_top;
} ns_sched_token;

enum { NS_SCHED_SIZES = 8 };
typedef struct ns_sched_result {
    const char *end;     /* "stop", "length", "context", "deadline"; "taken" (token said so), "cancelled", "error" (then `err`) */
    ns_err err;
    size_t prompt_tokens, cached_tokens; /* the latter: of the prompt, from a kept prefix */
    size_t thought_tokens, answer_tokens;
    struct { char size[64]; size_t tokens; } used[NS_SCHED_SIZES]; /* tokens that each size computed the logits of, in order of appearance */
    int n_used;
    double queued, first_token, total; /* seconds from submission; first_token 0: there was none */
    int switches;
    double switch_seconds;
} ns_sched_result;

typedef struct ns_sched_job {
    const int *ids;      /* [n_ids] the prompt; copied */
    size_t n_ids;
    const char *size;    /* as --size, or "auto": where the answer's segments name none; NULL: full. "auto" may stand in segments too */
    /* Copied with its segments and texts. A deadline counts from submission; with size "auto" and no segments it chooses the sizes, as in
     * nestar.h. A handover by prefill is read in pieces beside the other sequences, and a late one is the same here. */
    ns_answer_opts answer;
    ns_sampling sampling;
    int top_logprobs;    /* 0..20 alternatives; -1: no logprobs at all */
    ns_sched_allow allow; /* mask NULL: none */
    void *ctx;
    bool (*token)(void *ctx, const ns_sched_token *t);       /* on the loop's thread; false ends the answer here */
    void (*done)(void *ctx, const ns_sched_result *r);       /* exactly once for a submitted job, on the loop's thread; the last use of ctx */
} ns_sched_job;

/* The engine must not be used for other computing meanwhile. */
ns_sched *ns_sched_new(ns_engine *en, const ns_sched_opts *o, ns_err *e);
void ns_sched_free(ns_sched *s); /* when the loop has returned; what was never run ends as "cancelled" here; NULL is fine */

/* Until ns_sched_stop and, unless that said at once, all that was submitted is done. What happens to a request does not stop it. */
void ns_sched_run(ns_sched *s);
void ns_sched_stop(ns_sched *s, bool at_once); /* at once: what runs ends as "cancelled"; either way nothing new is taken */

/* NS_EBUSY: the queue is full, or the scheduler is stopping. NS_EINVAL: the job itself, e.g. a prompt longer than the context, or states
 * that never fit the budget. `ticket` is never 0. */
int ns_sched_submit(ns_sched *s, const ns_sched_job *job, uint64_t *ticket, ns_err *e);
void ns_sched_cancel(ns_sched *s, uint64_t ticket);  /* of a job that is over: nothing */
/* The rest of an answer at another size, instead of what its plan says, from the next token on; of one that waits, all of it. -1, and the
 * plan stays: NS_EINVAL for no such job, no such size, or one that cannot keep the cache where the job's handover wants that; NS_EBUSY where
 * the states of a larger size have no room now. */
int ns_sched_resize(ns_sched *s, uint64_t ticket, const char *size, ns_err *e);

typedef struct ns_sched_stats {
    int running, waiting;
    int64_t state_bytes, state_budget, prefix_bytes, prefix_budget; /* in use, allowed */
    uint64_t requests, finished, cancelled, refused, failed, steps;
    uint64_t prompt_tokens, cached_tokens, tokens; /* read, not read again, made */
    double prefill_rate, decode_rate;   /* tokens/s of late, all sequences together; 0: nothing yet */
    double first_token, token_rate;     /* of late: seconds to the first token; tokens/s of one sequence */
    double wait;                        /* seconds until a new request would begin, estimated: Retry-After */
    char auto_think[64], auto_answer[64]; /* what "auto" means now */
} ns_sched_stats;
ns_sched_stats ns_sched_about(ns_sched *s);
/* What it was made with, the defaults filled in. */
const ns_sched_opts *ns_sched_options(const ns_sched *s);
#endif
