/* A client of plain sockets, and a server to be tried, for the tests of the HTTP layer. */
#ifndef TESTS_HTTP_CLIENT_H
#define TESTS_HTTP_CLIENT_H
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/log.h"
#include "serve/http.h"

enum { PATIENCE_MS = 10000 }; /* a machine under load */

static inline int dial_from(int port, int rcvbuf)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = { htonl(INADDR_LOOPBACK) } };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (rcvbuf)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &rcvbuf, sizeof rcvbuf);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static inline int dial(int port)
{
    int fd = dial_from(port, 0);
    assert_true(fd >= 0);
    return fd;
}

/* As much as the server takes; the rest is its to refuse. */
static inline size_t put_bytes(int fd, const char *p, size_t n)
{
    size_t at = 0;
    while (at < n) {
        ssize_t k = send(fd, p + at, n - at, MSG_NOSIGNAL);
        if (k <= 0)
            break;
        at += (size_t)k;
    }
    return at;
}

static inline void put(int fd, const char *s)
{
    put_bytes(fd, s, strlen(s));
}

static inline void wait_ms(int ms)
{
    poll(NULL, 0, ms);
}

/* Reads on until the text stands in `b`, or to the end where `text` is NULL; false: it ended or took too long before. */
static inline bool get_until(int fd, ns_buf *b, const char *text)
{
    double end = ns_now() + PATIENCE_MS / 1000.0;
    for (;;) {
        char part[4096];
        struct pollfd p = { .fd = fd, .events = POLLIN };
        if (text && b->data && strstr(b->data, text))
            return true;
        int left = (int)((end - ns_now()) * 1000);
        if (left <= 0 || poll(&p, 1, left) <= 0)
            return false;
        ssize_t n = recv(fd, part, sizeof part, 0);
        if (n <= 0)
            return !text && n == 0;
        ns_buf_add(b, part, (size_t)n);
    }
}

/* One exchange on a connection of its own; the server is asked to close, or does. */
static inline char *ask(int port, const char *request, size_t n)
{
    static ns_buf b; /* the last answer, for the test to look at */
    int fd = dial(port);
    ns_buf_clear(&b);
    ns_buf_adds(&b, "");
    put_bytes(fd, request, n);
    get_until(fd, &b, NULL);
    close(fd);
    return b.data;
}

#define ASK(port, text) ask(port, text, strlen(text))

static inline int status_of(const char *answer)
{
    int status = 0;
    return sscanf(answer, "HTTP/1.1 %d ", &status) == 1 ? status : 0;
}

static inline int count_of(const char *s, const char *what)
{
    int n = 0;
    for (; (s = strstr(s, what)); s += strlen(what))
        n++;
    return n;
}

static inline bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

/* ---- the server to be tried ---- */

/* /echo answers at once with what it was asked, /later from another thread, /ticks as a stream from one, /keep leaves the reply to the test. */
typedef struct site {
    ns_http *h;
    int port;
    atomic_int handled, gone;
    pthread_mutex_t lock;
    pthread_cond_t came;
    ns_http_reply *kept[64]; /* in order of arrival */
    int n_kept;
    pthread_t thread[2000];
    atomic_int n_threads;
} site;

static inline void site_error(void *ctx, int status, const char *message, ns_buf *body)
{
    (void)ctx;
    ns_buf_addf(body, "{\"status\": %d, \"message\": \"%s\"}", status, message);
}

static inline void site_gone(void *ctx)
{
    atomic_fetch_add(&((site *)ctx)->gone, 1);
}

static inline void *site_later(void *reply)
{
    wait_ms(5);
    ns_http_send(reply, 200, "text/plain", "later", 5);
    return NULL;
}

/* A stream of three events; what `gone` works on is freed as soon as the reply is finished. */
typedef struct ticks {
    ns_http_reply *reply;
    atomic_bool gone;
} ticks;

static inline void ticks_gone(void *ctx)
{
    ticks *t = ctx;
    atomic_store(&t->gone, true);
    wait_ms(1);
    if (!atomic_load(&t->gone))
        abort();
}

static inline void *ticks_run(void *ctx)
{
    ticks *t = ctx;
    ns_http_on_gone(t->reply, ticks_gone, t);
    ns_http_stream(t->reply, 200, "text/event-stream");
    for (int i = 0; i < 3 && !atomic_load(&t->gone) && ns_http_write(t->reply, "data: x\n\n", 9) == 0; i++)
        wait_ms(2);
    ns_http_end(t->reply);
    atomic_store(&t->gone, false);
    free(t);
    return NULL;
}

static inline void site_handle(void *ctx, const ns_http_request *q, ns_http_reply *reply)
{
    site *s = ctx;
    ns_buf b = { 0 };
    atomic_fetch_add(&s->handled, 1);
    if (strcmp(q->path, "/later") == 0 || strcmp(q->path, "/ticks") == 0) {
        int i = atomic_fetch_add(&s->n_threads, 1);
        ticks *t = q->path[1] == 't' ? calloc(1, sizeof *t) : NULL;
        if (t)
            t->reply = reply;
        if (i >= (int)(sizeof s->thread / sizeof *s->thread) || pthread_create(&s->thread[i], NULL, t ? ticks_run : site_later, t ? (void *)t : reply) != 0)
            abort();
        return;
    }
    if (strcmp(q->path, "/keep") == 0) {
        ns_http_on_gone(reply, site_gone, s);
        pthread_mutex_lock(&s->lock);
        if (s->n_kept == (int)(sizeof s->kept / sizeof *s->kept))
            abort();
        s->kept[s->n_kept++] = reply;
        pthread_cond_broadcast(&s->came);
        pthread_mutex_unlock(&s->lock);
        return;
    }
    ns_buf_addf(&b, "%s %s [%s] %zu %zu:", q->method, q->path, q->type, q->n_body, strlen(q->body));
    ns_buf_add(&b, q->body, q->n_body);
    ns_http_header(reply, "X-Id", q->request_id);
    ns_http_send(reply, strcmp(q->path, "/echo") == 0 ? 200 : 404, "text/plain", b.data, b.len);
    ns_buf_release(&b);
}

static inline site *site_new(ns_http_opts o)
{
    ns_err e = { 0 };
    site *s = calloc(1, sizeof *s);
    assert_non_null(s);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->came, NULL);
    o.ctx = s;
    o.handle = site_handle;
    o.error = site_error;
    s->h = ns_http_start(&o, &e);
    if (!s->h)
        fail_msg("%s", e.msg);
    s->port = ns_http_port(s->h);
    return s;
}

/* Reply number i of /keep, once it is there. */
static inline ns_http_reply *site_kept(site *s, int i)
{
    pthread_mutex_lock(&s->lock);
    while (s->n_kept <= i)
        pthread_cond_wait(&s->came, &s->lock);
    ns_http_reply *r = s->kept[i];
    pthread_mutex_unlock(&s->lock);
    return r;
}

/* Whether `gone` has been called n times, soon. */
static inline bool site_saw_gone(site *s, int n, double seconds)
{
    double end = ns_now() + seconds;
    while (atomic_load(&s->gone) < n && ns_now() < end)
        wait_ms(5);
    return atomic_load(&s->gone) == n;
}

static inline void site_free(site *s)
{
    for (int i = 0; i < atomic_load(&s->n_threads); i++)
        pthread_join(s->thread[i], NULL);
    ns_http_stop(s->h);
    ns_http_free(s->h);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->came);
    free(s);
}
#endif
