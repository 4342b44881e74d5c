/* What callers do with a reply, from any thread, and the reader through which libmicrohttpd takes a stream's bytes. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/log.h"
#include "serve/http_impl.h"

/* Only here is a connection resumed, and only where it is known to be suspended: libmicrohttpd cannot have freed it then. */
void ns_http_wake(ns_http_reply *r)
{
    if (!r->suspended)
        return;
    r->suspended = false;
    MHD_resume_connection(r->mhd);
}

void ns_http_kill(ns_http_reply *r)
{
    r->dead = true;
    if (r->conn)
        shutdown(r->conn->fd, SHUT_RDWR);
    ns_http_wake(r);
}

void ns_http_reply_free(ns_http_reply *r)
{
    ns_buf_release(&r->in);
    ns_buf_release(&r->headers);
    ns_buf_release(&r->body);
    free(r);
}

/* The caller is done with the reply, once a `gone` that is running on another thread is: its context is the caller's to free then.
 * Unlocks. */
static void let_go(ns_http_reply *r)
{
    ns_http *h = r->h;
    while (r->calling && !pthread_equal(r->caller, pthread_self()))
        pthread_cond_wait(&h->changed, &h->lock);
    assert(r->held);
    r->held = false;
    h->n_held--;
    bool last = !r->attached;
    pthread_mutex_unlock(&h->lock);
    if (last)
        ns_http_reply_free(r);
}

void ns_http_on_gone(ns_http_reply *r, void (*gone)(void *ctx), void *ctx)
{
    pthread_mutex_lock(&r->h->lock);
    bool late = !r->conn;
    if (!late) {
        r->gone = gone;
        r->gone_ctx = ctx;
    }
    pthread_mutex_unlock(&r->h->lock);
    if (late)
        gone(ctx);
}

void ns_http_header(ns_http_reply *r, const char *name, const char *value)
{
    pthread_mutex_lock(&r->h->lock);
    assert(r->state == NS_HTTP_WAITING);
    ns_buf_add(&r->headers, name, strlen(name) + 1);
    ns_buf_add(&r->headers, value, strlen(value) + 1);
    pthread_mutex_unlock(&r->h->lock);
}

static void answer(ns_http_reply *r, enum ns_http_state state, int status, const char *type)
{
    assert(r->state == NS_HTTP_WAITING && strlen(type) < sizeof r->type);
    r->state = state;
    r->status = status;
    strcpy(r->type, type);
    r->touched = ns_now();
    r->probes = 0;
    r->probe_at = 0;
}

void ns_http_send(ns_http_reply *r, int status, const char *type, const char *body, size_t n)
{
    pthread_mutex_lock(&r->h->lock);
    answer(r, NS_HTTP_WHOLE, status, type);
    if (r->conn)
        ns_buf_add(&r->body, body, n);
    ns_http_wake(r);
    let_go(r);
}

void ns_http_stream(ns_http_reply *r, int status, const char *type)
{
    pthread_mutex_lock(&r->h->lock);
    answer(r, NS_HTTP_STREAM, status, type);
    ns_http_wake(r);
    pthread_mutex_unlock(&r->h->lock);
}

int ns_http_put(ns_http_reply *r, const char *p, size_t n)
{
    if (!r->conn || r->dead)
        return -1;
    if (r->body.len - r->at + n > NS_HTTP_QUEUE) {
        ns_http_kill(r);
        return -1;
    }
    if (r->at > r->body.len / 2) { /* what was taken makes room; each byte moves once at most */
        memmove(r->body.data, r->body.data + r->at, r->body.len - r->at);
        r->body.len -= r->at;
        r->at = 0;
    }
    ns_buf_add(&r->body, p, n);
    if (r->body.failed) {
        ns_http_kill(r);
        return -1;
    }
    r->touched = ns_now();
    ns_http_wake(r);
    return 0;
}

int ns_http_write(ns_http_reply *r, const char *p, size_t n)
{
    pthread_mutex_lock(&r->h->lock);
    assert(r->held && r->state == NS_HTTP_STREAM);
    int rc = ns_http_put(r, p, n);
    pthread_mutex_unlock(&r->h->lock);
    return rc;
}

void ns_http_end(ns_http_reply *r)
{
    pthread_mutex_lock(&r->h->lock);
    assert(r->state == NS_HTTP_STREAM);
    r->ended = true;
    ns_http_wake(r);
    let_go(r);
}

/* Returns 0 with the connection suspended while there is nothing to send. */
ssize_t ns_http_read(void *reply, uint64_t pos, char *buf, size_t max)
{
    ns_http_reply *r = reply;
    ssize_t rc = 0;
    (void)pos;
    pthread_mutex_lock(&r->h->lock);
    size_t n = r->body.len - r->at;
    if (r->dead || r->h->stopping) {
        rc = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (n > 0) {
        n = n < max ? n : max;
        memcpy(buf, r->body.data + r->at, n);
        r->at += n;
        rc = (ssize_t)n;
    } else if (r->ended) {
        rc = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        r->suspended = true;
        MHD_suspend_connection(r->mhd);
    }
    pthread_mutex_unlock(&r->h->lock);
    return rc;
}
