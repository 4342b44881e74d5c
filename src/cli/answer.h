/* An answer on the command line: its options, its text, its figures. Shared by run and chat; the tokens come from ns_answer.
 * Text goes out as whole characters; what could be the beginning of a stop string waits until it is not. */
#ifndef NS_CLI_ANSWER_H
#define NS_CLI_ANSWER_H
#include "cli/common.h"
#include "run/engine.h"
#include "run/segments.h"

enum { NS_CLI_STOPS = 16 };

typedef struct ns_cli_answer_args {
    ns_cli_engine engine;
    ns_segments plan;                /* empty: a deadline chooses */
    int think_budget, grace, answer_tokens; /* as in ns_answer_opts */
    const char *close;               /* NULL: the checkpoint's own */
    double deadline;                 /* seconds; 0: none */
    const char *stop[NS_CLI_STOPS];
    int n_stops;
    long max_tokens;                 /* -1: to the end of the context */
    int context;                     /* 0: the session's default */
    enum ns_handover handover;
    double temperature, top_p, min_p, penalty; /* NAN: the checkpoint's */
    int top_k;                       /* -1: the checkpoint's */
    bool has_seed, ignore_eos, no_think;
    uint64_t seed;
    const char *system;              /* NULL: no system message */
} ns_cli_answer_args;

/* Input: an ns_cli_answer_args, which the parser initialises. */
extern const struct argp ns_cli_answer_argp;
void ns_cli_answer_args_release(ns_cli_answer_args *a);

/* The size that the plan begins with. */
const char *ns_cli_first_size(const ns_cli_answer_args *a);
/* A session at that size. `seed` gets the one in use: without --seed it is drawn from the system. */
ns_session *ns_cli_session_new(ns_engine *en, const ns_cli_answer_args *a, uint64_t *seed, ns_err *e);

typedef struct ns_cli_used {
    char size[64];
    size_t tokens;
} ns_cli_used;

typedef struct ns_cli_answer {
    ns_ids ids;         /* with the token that ended it, and with what closed the thought */
    ns_buf text;        /* without; valid UTF-8 */
    const char *reason; /* "stop" (end-of-turn token), "stop_string", "length", "context", "deadline", "cancelled" */
    ns_cli_used used[NS_SEGMENTS];
    int n_used;
    ns_answer_info info;
} ns_cli_answer;

/* The answer's plan for a session, before its prompt is fed. A deadline counts from `start` (ns_now), 0: from here. */
ns_answer *ns_cli_answer_begin(ns_session *s, const ns_cli_answer_args *a, double start, ns_err *e);
/* Continues what the session holds. With `stream` the text also goes to standard output. Cancelling is no error. */
int ns_cli_answer_make(ns_engine *en, ns_session *s, ns_answer *plan, const ns_cli_answer_args *a, bool stream, ns_cli_answer *out, ns_err *e);
void ns_cli_answer_release(ns_cli_answer *a);
/* The lines behind an answer: speeds, sizes, switches; thought and answer. `before` are the session's figures before its prompt. */
void ns_cli_answer_stats(const ns_session *s, const ns_cli_answer *a, const ns_stats *before, FILE *out);

/* Ctrl-C between begin and end cancels the session's work; a second one ends the process. */
void ns_cli_interrupt_begin(ns_session *s);
bool ns_cli_interrupted(void);
void ns_cli_interrupt_end(void);
#endif
