/* HTTP/1.1 over libmicrohttpd: connections, limits, the key, bodies; answers at once, later from any thread, or as a stream. Knows nothing of
 * what is served. Refused here, with their status: bodies over the limit (413), Content-Length with Transfer-Encoding or twice (400), more
 * connections than allowed (503; far beyond, they wait), bodies that come too slowly (408; too slow heads are closed), a missing or wrong key
 * (401; compared in constant time). OPTIONS is answered here; HEAD reaches the caller as GET. */
#ifndef NS_SERVE_HTTP_H
#define NS_SERVE_HTTP_H
#include "base/buf.h"
#include "base/err.h"

typedef struct ns_http ns_http;
typedef struct ns_http_reply ns_http_reply; /* to one request; belongs to the server until finished */

typedef struct ns_http_request {
    const char *method, *path; /* the path without query, not decoded */
    const char *body;          /* NUL behind it */
    size_t n_body;
    const char *type, *host;   /* Content-Type, Host; "" */
    const char *request_id;    /* of the client (X-Request-Id, printable, bounded) or made here; sent back */
} ns_http_request;

/* What the pointers point to must live as long as the server, but for `keys`, `cert` and `cert_key`. */
typedef struct ns_http_opts {
    const char *host;      /* "127.0.0.1" */
    int port;              /* 0: any; ns_http_port says which */
    const char *keys;      /* lines, one key each; NULL: none is asked for */
    const char *cert, *cert_key; /* PEM texts for TLS; NULL */
    const char *const *open; /* paths that need no key, NULL-terminated: "/health", "/ready", .. ; NULL */
    size_t max_body;       /* 0: 8 MiB */
    int max_connections;   /* 0: 1024 */
    int idle_seconds;      /* 0: 60 */
    void *ctx;
    /* On a thread of the server's; must not wait. Answers now or keeps `reply` and answers later. */
    void (*handle)(void *ctx, const ns_http_request *r, ns_http_reply *reply);
    /* An error of the HTTP layer itself as a body for clients, JSON; it formats and calls nothing of this header. NULL: plain text. */
    void (*error)(void *ctx, int status, const char *message, ns_buf *body);
} ns_http_opts;

ns_http *ns_http_start(const ns_http_opts *o, ns_err *e);
int ns_http_port(const ns_http *h);
void ns_http_quiesce(ns_http *h); /* no new connections; those that are open go on */
void ns_http_stop(ns_http *h);    /* closes all, not from a callback; replies still held become void but must still be finished before ns_http_free */
void ns_http_free(ns_http *h);

/* All of these from any thread. `gone` of a reply is called at most once, when the client went before the reply was finished: on a thread
 * of the server's, where it must not wait, or inside ns_http_on_gone where that comes too late. Finishing a reply waits for a `gone` that is running, so that its
 * ctx may be freed afterwards: do not finish with a lock held that `gone` takes. */
void ns_http_on_gone(ns_http_reply *r, void (*gone)(void *ctx), void *ctx);
/* A header for the reply, before it is sent; the texts are copied. */
void ns_http_header(ns_http_reply *r, const char *name, const char *value);
/* The whole reply; finishes it. */
void ns_http_send(ns_http_reply *r, int status, const char *type, const char *body, size_t n);
/* A stream: begun, fed, ended (which finishes it). What a slow client has not read is kept up to 1 MiB; beyond, -1 and it counts as gone.
 * In a "text/event-stream" each write is whole events: in long silence comments are put between them. */
void ns_http_stream(ns_http_reply *r, int status, const char *type);
int ns_http_write(ns_http_reply *r, const char *p, size_t n);
void ns_http_end(ns_http_reply *r);

typedef struct ns_http_stats {
    int connections, answering; /* the latter: with a request whose reply has not gone out */
    uint64_t requests, refused;
} ns_http_stats;
ns_http_stats ns_http_about(ns_http *h);
#endif
