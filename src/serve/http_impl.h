/* Inside the HTTP server. Three kinds of threads meet here: libmicrohttpd's own, which calls on_request and the rest of http_request.c;
 * callers', which finish replies (http_reply.c); and the watcher (http_watch.c). One lock guards everything below; none of
 * libmicrohttpd's calls that take a response's lock (queue, destroy) is made with it held, and neither is any callback of the caller's but `error`,
 * which only formats.
 *
 * A reply has two owners, the connection it answers (`attached`) and the caller that holds it (`held`); the last one frees it. A
 * connection is closed in one way only: its socket is shut down and libmicrohttpd, seeing that, says so in ns_http_completed, on its own
 * thread; that is where a reply that is still held learns that its client is gone. */
#ifndef NS_SERVE_HTTP_IMPL_H
#define NS_SERVE_HTTP_IMPL_H
#include <microhttpd.h>
#include <pthread.h>

#include "serve/http.h"

enum { NS_HTTP_QUEUE = 1 << 20, NS_HTTP_LINGER = 32 };

/* Where a request stands. */
enum ns_http_state {
    NS_HTTP_RECEIVING, /* its body comes */
    NS_HTTP_WAITING,   /* the caller was told, and has not answered */
    NS_HTTP_WHOLE,     /* the answer is in `body` */
    NS_HTTP_STREAM     /* the answer passes through `body` */
};

typedef struct ns_http_conn {
    struct ns_http_conn *next, *prev;
    int fd;
    bool over;            /* one more than allowed: its request is refused */
    double since;         /* when it was made, or its last reply done */
    ns_http_reply *reply; /* of the request at hand; NULL between requests */
} ns_http_conn;

struct ns_http_reply {
    ns_http *h;
    ns_http_conn *conn; /* NULL: the client is gone, or has all of the answer */
    struct MHD_Connection *mhd;
    enum ns_http_state state;
    bool attached, held;
    bool suspended; /* libmicrohttpd leaves the connection alone until it is resumed */
    bool dead;      /* the connection is being closed under it */
    bool offered;   /* libmicrohttpd has had one turn without an answer, see ns_http_on_request */
    bool old;       /* HTTP/1.0 */
    bool closing;   /* the answer says that the connection ends with it */
    bool unread;    /* refused before its body was read */
    bool ended;     /* a stream, to its end */
    bool calling;   /* `gone` runs, on thread `caller` */
    pthread_t caller;
    void (*gone)(void *ctx);
    void *gone_ctx;
    /* the request */
    char id[129];
    bool keep; /* its method has a body that is of use */
    ns_buf in;
    size_t n_in;  /* bytes of body that came, kept or not */
    double began;
    int refusal; /* status; 0: none */
    const char *why;
    /* the answer */
    int status;
    char type[128];
    ns_buf headers; /* name NUL value NUL .. */
    ns_buf body;
    size_t at;      /* of a stream: bytes of `body` that libmicrohttpd took */
    double touched; /* last byte put into the stream */
    int probes;     /* sent to see whether a half-closed client still reads */
    double probe_at;
};

struct ns_http {
    ns_http_opts o;
    ns_buf keys; /* key NUL key NUL ..; empty: none is asked for */
    struct MHD_Daemon *daemon;
    int listener, given, port; /* our listening socket; libmicrohttpd's, back from it */
    char said[400]; /* by libmicrohttpd while it started */
    pthread_t watcher;
    bool watching;
    pthread_mutex_t lock;
    pthread_cond_t changed; /* the first connection, the stop, the end of a `gone` */
    bool tls, stopping, quiet, stopped;
    ns_http_conn *conns;
    int n_conns, n_held;
    uint64_t requests, refused;
    int tick_ms; /* between two looks of the watcher */
    struct { int fd; double until; size_t bytes; } linger[NS_HTTP_LINGER];
    int n_linger;
};

/* http_request.c: libmicrohttpd's callbacks */
enum MHD_Result ns_http_on_request(void *h, struct MHD_Connection *con, const char *path, const char *method, const char *version,
                                   const char *data, size_t *n, void **ctx);
void ns_http_completed(void *h, struct MHD_Connection *con, void **ctx, enum MHD_RequestTerminationCode why);
void ns_http_connection(void *h, struct MHD_Connection *con, void **ctx, enum MHD_ConnectionNotificationCode what);

/* http_check.c: what of a request's head is refused; the status, 0 for none, and why in `why` */
int ns_http_check(ns_http_reply *r, const char *path, const char *method, size_t *length, const char **why);
int ns_http_keys_parse(const char *text, ns_buf *keys, ns_err *e);
bool ns_http_key_is(const ns_buf *keys, const char *given);

/* http_reply.c; with the lock held */
void ns_http_wake(ns_http_reply *r);  /* resumes its connection, if suspended */
void ns_http_kill(ns_http_reply *r);  /* closes it */
int ns_http_put(ns_http_reply *r, const char *p, size_t n);
ssize_t ns_http_read(void *reply, uint64_t pos, char *buf, size_t max); /* libmicrohttpd's content reader; without the lock */
void ns_http_reply_free(ns_http_reply *r);

/* http_watch.c */
void *ns_http_watch(void *h); /* the watcher thread */
/* libmicrohttpd 0.9.75 does not see an end that came together with the bytes before it; this makes it look again. What is unread stays to be
 * read. */
void ns_http_see_end(int fd);
void ns_http_linger(ns_http *h, int fd); /* with the lock held: the rest of what the client sends is read and dropped for a while */
/* An answer past libmicrohttpd, which cannot give one in the middle of a body. Plain connections only; over TLS nothing is sent. With the
 * lock held. */
void ns_http_send_raw(ns_http_reply *r, int status, const char *reason, const char *message);
#endif
