/* The watcher: while there are connections, it looks at them every `tick_ms`. libmicrohttpd does not read from a connection that waits for
 * its answer, so a client that leaves then is seen here; so is one whose request comes too slowly, though it never stops coming.
 *
 * A client that has closed its sending side may be gone, or may only have nothing more to say; the system tells the two apart when
 * something is sent to it. Until an answer begins that is "100 Continue", which HTTP/1.1 allows at any time before it; in a stream of events it
 * is a comment. A client that is gone resets the connection then. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/sockios.h>

#include "base/log.h"
#include "serve/http_impl.h"

enum { LINGER_MS = 20, PROBES = 4, SILENCE = 15, SLOWEST = 1024, LINGER_BYTES = 64 << 20 };
static const double linger_seconds = 2, crowded_seconds = 5;

void ns_http_send_raw(ns_http_reply *r, int status, const char *reason, const char *message)
{
    ns_http *h = r->h;
    ns_buf body = { 0 }, out = { 0 };
    h->refused++;
    if (h->tls || !r->conn)
        return;
    if (h->o.error)
        h->o.error(h->o.ctx, status, message, &body);
    else
        ns_buf_addf(&body, "%s\n", message);
    ns_buf_addf(&out, "HTTP/1.1 %d %s\r\nConnection: close\r\nContent-Type: %s\r\nX-Request-Id: %s\r\nContent-Length: %zu\r\n\r\n", status,
                reason, h->o.error ? "application/json" : "text/plain; charset=utf-8", r->id, body.len);
    ns_buf_add(&out, body.data, body.len);
    if (!out.failed && !body.failed)
        (void)!send(r->conn->fd, out.data, out.len, MSG_DONTWAIT | MSG_NOSIGNAL); /* what does not fit, does not matter: it closes */
    ns_buf_release(&body);
    ns_buf_release(&out);
}

/* ---- the rest of refused bodies: a socket closed with bytes unread resets the connection, and the refusal is lost with it ---- */

void ns_http_linger(ns_http *h, int fd)
{
    int copy = h->n_linger < NS_HTTP_LINGER && !h->stopping ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
    if (copy < 0)
        return;
    h->linger[h->n_linger].fd = copy;
    h->linger[h->n_linger].bytes = 0;
    h->linger[h->n_linger++].until = ns_now() + linger_seconds;
    pthread_cond_broadcast(&h->changed);
}

/* false: it is over */
static bool drain(ns_http *h, int i, double now)
{
    char buf[16 << 10];
    ssize_t n = 0;
    for (int k = 0; k < 64 && (n = recv(h->linger[i].fd, buf, sizeof buf, MSG_DONTWAIT)) > 0; k++)
        h->linger[i].bytes += (size_t)n;
    bool more = n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
    return more && now < h->linger[i].until && h->linger[i].bytes < LINGER_BYTES;
}

static void drain_all(ns_http *h, double now)
{
    for (int i = 0; i < h->n_linger;) {
        if (!h->stopping && drain(h, i, now)) {
            i++;
            continue;
        }
        close(h->linger[i].fd);
        h->linger[i] = h->linger[--h->n_linger];
    }
}

/* ---- requests that come too slowly ---- */

/* A head has the idle time twice: once for the pause before it, which libmicrohttpd ends by itself. Where few connections are left, who says
 * nothing makes room. A body has it once, and a second more
 * for each SLOWEST bytes that came. */
static void check_pace(ns_http *h, ns_http_conn *c, double now)
{
    ns_http_reply *r = c->reply;
    double idle = h->o.idle_seconds, silence = 2 * idle;
    if (h->n_conns > h->o.max_connections / 4 * 3 && silence > crowded_seconds)
        silence = crowded_seconds;
    if (!r && now - c->since > silence) {
        h->refused++;
        shutdown(c->fd, SHUT_RDWR);
        c->since = now; /* not again, should it take a while */
    } else if (r && r->state == NS_HTTP_RECEIVING && !r->dead && now - r->began > idle + (double)r->n_in / SLOWEST) {
        ns_http_send_raw(r, 408, "Request Timeout", "the request came too slowly");
        r->unread = true;
        ns_http_kill(r);
    }
}

/* ---- clients that leave ---- */

static bool is_events(const ns_http_reply *r)
{
    return r->state == NS_HTTP_STREAM && strncmp(r->type, "text/event-stream", 17) == 0;
}

/* Nothing of a stream is waiting to be taken, so a comment would reach the client now. */
static void comment(ns_http_reply *r)
{
    if (r->body.len == r->at)
        ns_http_put(r, ":\n\n", 3);
}

static void probe(ns_http_reply *r, double now)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    int unsent = 0;
    if (r->probes == PROBES || now < r->probe_at)
        return;
    if (is_events(r))
        comment(r);
    else if (r->state == NS_HTTP_WAITING && r->suspended && ioctl(r->conn->fd, SIOCOUTQ, &unsent) == 0 && unsent == 0)
        (void)!send(r->conn->fd, go_on, sizeof go_on - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    else
        return;
    r->probe_at = now + (1 << r->probes++);
}

/* The caller has not finished: is there still somebody to answer to? */
static void check_peer(ns_http_reply *r, double now)
{
    struct pollfd p = { .fd = r->conn->fd, .events = POLLRDHUP };
    short seen = poll(&p, 1, 0) > 0 ? p.revents : 0;
    if (seen & (POLLERR | POLLHUP | POLLNVAL))
        ns_http_kill(r);
    else if (seen & POLLRDHUP && r->state == NS_HTTP_WAITING && (r->old || r->h->tls)) /* no probe for these: taken as gone */
        ns_http_kill(r);
    else if (seen & POLLRDHUP)
        probe(r, now);
    else if (is_events(r) && now - r->touched > SILENCE) /* proxies end what is silent for a minute */
        comment(r);
}

void ns_http_see_end(int fd)
{
    struct pollfd p = { .fd = fd, .events = POLLRDHUP };
    if (poll(&p, 1, 0) > 0 && p.revents & POLLRDHUP)
        shutdown(fd, SHUT_RD);
}

static void look(ns_http *h, double now)
{
    for (ns_http_conn *c = h->conns; c; c = c->next) {
        ns_http_reply *r = c->reply;
        if (r && r->held && !r->dead) {
            check_peer(r, now);
            continue;
        }
        check_pace(h, c, now);
        if (!r || r->state == NS_HTTP_RECEIVING)
            ns_http_see_end(c->fd);
    }
    drain_all(h, now);
}

void *ns_http_watch(void *ctx)
{
    ns_http *h = ctx;
    double last = 0; /* look */
    pthread_mutex_lock(&h->lock);
    while (!h->stopping) {
        if (!h->conns && h->n_linger == 0) {
            pthread_cond_wait(&h->changed, &h->lock);
            continue;
        }
        double now = ns_now(), next = last + 0.001 * (h->n_linger && h->tick_ms > LINGER_MS ? LINGER_MS : h->tick_ms);
        if (now >= next) {
            look(h, now);
            last = ns_now();
            continue;
        }
        struct timespec t = { .tv_sec = (time_t)next, .tv_nsec = (long)((next - (double)(time_t)next) * 1e9) };
        pthread_cond_timedwait(&h->changed, &h->lock, &t);
    }
    drain_all(h, 0);
    pthread_mutex_unlock(&h->lock);
    return NULL;
}
