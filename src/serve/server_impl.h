/* Inside serve/: what server.c, call_job.c, call.c and status.c share. */
#ifndef NS_SERVE_SERVER_IMPL_H
#define NS_SERVE_SERVER_IMPL_H
#include <pthread.h>
#include <stdatomic.h>

#include "serve/api.h"
#include "serve/server.h"
#include "text/grammar.h"

struct ns_server {
    ns_engine *en;
    ns_server_opts o;
    ns_sched *sched;
    ns_http *http;
    pthread_t loop;
    bool looping;
    atomic_bool draining;
    ns_grammar_vocab *vocab;       /* NULL without a tokenizer */
    double *decode_rate;           /* [named sizes] tokens/s of one sequence; 0: not measured */
    long started;                  /* seconds since 1970 */
    atomic_ulong next_id;
    uint64_t id_base;              /* random, so that ids of two runs differ */
    pthread_mutex_t log_lock, calls_lock;
    struct ns_call *calls;         /* those being answered */
};

/* ---- call_job.c: what a request asks of the scheduler ---- */

typedef struct ns_call_job {
    ns_ids prompt;
    ns_segment segment[2];
    char size[64], think[64], answer[64]; /* as the scheduler takes them */
    ns_grammar *grammar; /* NULL: none */
    ns_sched_job job;    /* points into this struct */
} ns_call_job;

int ns_call_job_init(ns_call_job *j, const ns_server *s, const ns_api_request *r, ns_api_error *e);
void ns_call_job_release(ns_call_job *j);

/* ---- call.c: a request being answered ---- */

/* Answers now or later; takes the request over. */
void ns_call_start(ns_server *s, ns_api_request *r, const char *request_id, ns_http_reply *reply);
/* The rest of a running answer at another size: the body is {"id": .., "size": ..}. */
int ns_call_resize(ns_server *s, const char *body, size_t n, ns_api_error *e);

/* ---- status.c ---- */

void ns_status_models(const ns_server *s, ns_buf *out);
int ns_status_model(const ns_server *s, const char *name, ns_buf *out, ns_api_error *e);
void ns_status_metrics(ns_server *s, ns_buf *out);
void ns_status_page(ns_server *s, ns_buf *out); /* what the page polls */
int ns_status_tokenize(const ns_server *s, const char *body, size_t n, ns_buf *out, ns_api_error *e);

/* ---- server.c ---- */

void ns_server_refuse(ns_http_reply *reply, const ns_api_error *e);
/* The prompt of a conversation that a stranger wrote: marks in what is said to be the assistant's stay text too. */
int ns_server_render(const ns_server *s, const json_t *chat, ns_prompt *out, ns_err *e);
/* Logs and releases a JSON object. */
void ns_server_log(ns_server *s, json_t *line);
/* Index of a named size; -1. */
int ns_server_named(const ns_server *s, const char *name);
#endif
