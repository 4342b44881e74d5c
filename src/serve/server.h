/* The server: HTTP requests become jobs of the scheduler, its tokens become replies. One process, one copy of the weights, every size a
 * model name. Paths: README and docs/SERVE.md. */
#ifndef NS_SERVE_SERVER_H
#define NS_SERVE_SERVER_H
#include "run/sched.h"
#include "serve/http.h"

typedef struct ns_server ns_server;

typedef struct ns_server_opts {
    ns_http_opts http;     /* its ctx, handle and error are the server's own */
    ns_sched_opts sched;
    const char *model;     /* the name of the whole, beside those of the sizes: usually the folder's */
    const char *size;      /* what that name and a missing one stand for; NULL: "auto" */
    bool local;            /* only under the names of this machine itself (localhost, 127.x, [::1]): else a page of another site, whose
                            * name was made to point here, could read answers through a browser */
    bool measure;          /* time every named size before it says that it is ready */
    bool log_prompts;      /* texts of prompts and answers too */
    void *log_ctx;
    void (*log)(void *ctx, const char *line); /* one JSON object a request; from several threads, one at a time; NULL: none */
} ns_server_opts;

/* Listens when it returns. The engine is the caller's, and the server's alone until ns_server_free. */
ns_server *ns_server_start(ns_engine *en, const ns_server_opts *o, ns_err *e);
int ns_server_port(const ns_server *s);
/* No new connections, /ready says 503, what runs goes on. */
void ns_server_drain(ns_server *s);
/* Requests that wait or run. */
int ns_server_busy(ns_server *s);
/* What still runs ends as cancelled. NULL is fine. */
void ns_server_free(ns_server *s);
#endif
