/* libmicrohttpd's callbacks, all on its one thread: a request comes in pieces, is refused or given to the caller, and its answer is
 * queued here. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "serve/http_impl.h"

enum { BLOCK = 16 << 10 };

/* ---- connections ---- */

/* A peer that vanishes without a word is noticed after about a minute of silence. */
static void watch_peer(int fd)
{
    int on = 1, idle = 30, every = 10, times = 3;
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &every, sizeof every);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &times, sizeof times);
}

static void *connection_new(ns_http *h, struct MHD_Connection *con)
{
    ns_http_conn *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->fd = MHD_get_connection_info(con, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    c->since = ns_now();
    watch_peer(c->fd);
    pthread_mutex_lock(&h->lock);
    c->over = h->n_conns >= h->o.max_connections;
    c->next = h->conns;
    if (c->next)
        c->next->prev = c;
    h->conns = c;
    if (h->n_conns++ == 0)
        pthread_cond_broadcast(&h->changed); /* the watcher sleeps while there are none */
    pthread_mutex_unlock(&h->lock);
    return c;
}

static void connection_free(ns_http *h, ns_http_conn *c)
{
    pthread_mutex_lock(&h->lock);
    if (c->prev)
        c->prev->next = c->next;
    else
        h->conns = c->next;
    if (c->next)
        c->next->prev = c->prev;
    h->n_conns--;
    pthread_mutex_unlock(&h->lock);
    free(c);
}

void ns_http_connection(void *h, struct MHD_Connection *con, void **ctx, enum MHD_ConnectionNotificationCode what)
{
    if (what == MHD_CONNECTION_NOTIFY_STARTED)
        *ctx = connection_new(h, con);
    else if (*ctx)
        connection_free(h, *ctx);
}

/* ---- answers ---- */

static void make_id(ns_http_reply *r)
{
    unsigned char bytes[12] = { 0 };
    if (r->id[0])
        return;
    if (getrandom(bytes, sizeof bytes, GRND_NONBLOCK) < 0)
        snprintf((char *)bytes, sizeof bytes, "%p", (void *)r); /* unlike others of this moment, which is what it is for */
    char *p = stpcpy(r->id, "req_");
    for (size_t i = 0; i < sizeof bytes; i++, p += 2)
        snprintf(p, 3, "%02x", bytes[i]);
}

static bool add_headers(struct MHD_Response *m, ns_http_reply *r)
{
    bool ok = MHD_add_response_header(m, "Server", "nestar") && MHD_add_response_header(m, "X-Request-Id", r->id) &&
              (!r->type[0] || MHD_add_response_header(m, "Content-Type", r->type));
    for (size_t i = 0; ok && i < r->headers.len;) {
        const char *name = r->headers.data + i, *value = name + strlen(name) + 1;
        ok = MHD_add_response_header(m, name, value);
        i += (size_t)(value + strlen(value) + 1 - name);
    }
    if (ok && r->closing) /* so that clients turn to a server that stays */
        ok = MHD_add_response_header(m, "Connection", "close");
    return ok;
}

/* The answer goes to libmicrohttpd. Only its thread touches the fields read here by now, but for the stream's queue. */
static enum MHD_Result queue(ns_http_reply *r)
{
    struct MHD_Response *m;
    enum MHD_Result rc = MHD_NO;
    if (r->headers.failed)
        return MHD_NO;
    if (r->state == NS_HTTP_STREAM) {
        m = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, ns_http_read, r, NULL);
    } else if (r->body.failed) {
        return MHD_NO;
    } else {
        m = MHD_create_response_from_buffer(r->body.len, r->body.data, r->body.data ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
        if (m)
            r->body = (ns_buf){ 0 };
    }
    if (m && add_headers(m, r))
        rc = MHD_queue_response(r->mhd, (unsigned)r->status, m);
    if (m)
        MHD_destroy_response(m);
    return rc;
}

/* Fills the reply with a refusal. */
static void refuse(ns_http_reply *r, int status, const char *why)
{
    ns_http *h = r->h;
    r->status = status;
    if (h->o.error)
        h->o.error(h->o.ctx, status, why, &r->body);
    else
        ns_buf_addf(&r->body, "%s\n", why);
    strcpy(r->type, h->o.error ? "application/json" : "text/plain; charset=utf-8");
    static const char bearer[] = "WWW-Authenticate\0" "Bearer", later[] = "Retry-After\0" "1\0Connection\0close";
    if (status == 401)
        ns_buf_add(&r->headers, bearer, sizeof bearer);
    if (status == 503)
        ns_buf_add(&r->headers, later, sizeof later);
    pthread_mutex_lock(&h->lock);
    r->state = NS_HTTP_WHOLE;
    r->closing = h->quiet;
    h->refused++;
    pthread_mutex_unlock(&h->lock);
}

/* ---- a request ---- */

/* Its head is there. What cannot be answered without reading on, or should not, is answered now, and libmicrohttpd closes behind it;
 * other refusals wait for the end of the body, which is dropped, so that the client reads them and the connection stays. */
static enum MHD_Result begin(ns_http *h, struct MHD_Connection *con, const char *path, const char *method, const char *version, void **ctx)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(con, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    ns_http_conn *c = info ? info->socket_context : NULL;
    size_t length;
    if (!c)
        return MHD_NO;
    ns_http_reply *r = calloc(1, sizeof *r);
    if (!r)
        return MHD_NO;
    r->h = h;
    r->mhd = con;
    r->attached = true;
    r->old = strcmp(version, MHD_HTTP_VERSION_1_0) == 0;
    r->keep = strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0 || strcmp(method, "PATCH") == 0;
    r->began = ns_now();
    r->conn = c;
    *ctx = r;
    pthread_mutex_lock(&h->lock);
    c->reply = r;
    h->requests++;
    pthread_mutex_unlock(&h->lock);
    ns_http_see_end(c->fd);
    r->refusal = ns_http_check(r, path, method, &length, &r->why);
    make_id(r);
    bool expects = MHD_lookup_connection_value(con, MHD_HEADER_KIND, "Expect") != NULL;
    if (r->refusal == 0 || (!expects && (r->refusal == 401 || r->refusal == 503))) {
        MHD_set_connection_option(con, MHD_CONNECTION_OPTION_TIMEOUT, 0u); /* the watcher times bodies */
        return MHD_YES;
    }
    pthread_mutex_lock(&h->lock);
    r->unread = true;
    pthread_mutex_unlock(&h->lock);
    refuse(r, r->refusal, r->why);
    return queue(r);
}

static enum MHD_Result take_body(ns_http_reply *r, const char *data, size_t *n)
{
    pthread_mutex_lock(&r->h->lock);
    r->n_in += *n;
    bool much = r->n_in > r->h->o.max_body; /* in chunks: a length would have said so */
    if (much && !r->dead) {
        ns_http_send_raw(r, 413, "Content Too Large", "the body is larger than this server takes");
        r->unread = true;
    }
    pthread_mutex_unlock(&r->h->lock);
    if (much)
        return MHD_NO;
    if (r->keep && r->refusal == 0)
        ns_buf_add(&r->in, data, *n);
    *n = 0;
    return r->in.failed ? MHD_NO : MHD_YES;
}

static void options(ns_http_reply *r)
{
    static const char allow[] = "Allow\0" "GET, HEAD, POST, OPTIONS";
    ns_buf_add(&r->headers, allow, sizeof allow);
    r->status = 204;
    pthread_mutex_lock(&r->h->lock);
    r->state = NS_HTTP_WHOLE;
    pthread_mutex_unlock(&r->h->lock);
}

/* The request is complete: refused here, or given to the caller. */
static void hand_over(ns_http_reply *r, const char *path, const char *method)
{
    ns_http *h = r->h;
    const char *type = MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, "Content-Type");
    const char *host = MHD_lookup_connection_value(r->mhd, MHD_HEADER_KIND, "Host");
    MHD_set_connection_option(r->mhd, MHD_CONNECTION_OPTION_TIMEOUT, (unsigned)h->o.idle_seconds);
    if (r->refusal) {
        refuse(r, r->refusal, r->why);
        return;
    }
    if (strcmp(method, "OPTIONS") == 0) {
        options(r);
        return;
    }
    pthread_mutex_lock(&h->lock);
    r->state = NS_HTTP_WAITING;
    r->held = true;
    h->n_held++;
    pthread_mutex_unlock(&h->lock);
    ns_http_request q = { .method = strcmp(method, "HEAD") == 0 ? "GET" : method, /* libmicrohttpd leaves the body out */
                          .path = path,
                          .body = r->in.data ? r->in.data : "",
                          .n_body = r->in.len,
                          .type = type ? type : "",
                          .host = host ? host : "",
                          .request_id = r->id };
    h->o.handle(h->o.ctx, &q, r);
    ns_buf_release(&r->in);
}

/* Called when the head of a request is there, for pieces of its body, and then until there is an answer. The first time that there is
 * none, libmicrohttpd gets the connection back as it is and at once asks again; only then is it suspended. Suspended at once, it would
 * still be noted as waiting to read, would read on when it is resumed, and take the end of a half-closed client's sending for its end. */
enum MHD_Result ns_http_on_request(void *ctx, struct MHD_Connection *con, const char *path, const char *method, const char *version,
                                   const char *data, size_t *n, void **reply)
{
    ns_http *h = ctx;
    ns_http_reply *r = *reply;
    if (!r)
        return begin(h, con, path, method, version, reply);
    if (*n)
        return take_body(r, data, n);
    if (r->state == NS_HTTP_RECEIVING)
        hand_over(r, path, method);
    pthread_mutex_lock(&h->lock);
    bool dead = r->dead || h->stopping, ready = r->state > NS_HTTP_WAITING;
    if (!dead && !ready && r->offered) {
        r->suspended = true;
        MHD_suspend_connection(con);
    }
    r->offered = true;
    r->closing = h->quiet;
    pthread_mutex_unlock(&h->lock);
    if (dead)
        return MHD_NO;
    return ready ? queue(r) : MHD_YES;
}

/* The answer is sent, or never will be. */
void ns_http_completed(void *ctx, struct MHD_Connection *con, void **reply, enum MHD_RequestTerminationCode why)
{
    ns_http *h = ctx;
    ns_http_reply *r = *reply;
    (void)con, (void)why;
    if (!r)
        return;
    *reply = NULL;
    pthread_mutex_lock(&h->lock);
    if (r->unread)
        ns_http_linger(h, r->conn->fd);
    else
        ns_http_see_end(r->conn->fd);
    r->conn->since = ns_now();
    r->conn->reply = NULL;
    r->conn = NULL;
    r->dead = true;
    if (r->held && r->gone) {
        r->calling = true;
        r->caller = pthread_self();
        pthread_mutex_unlock(&h->lock);
        r->gone(r->gone_ctx);
        pthread_mutex_lock(&h->lock);
        r->calling = false;
        pthread_cond_broadcast(&h->changed);
    }
    r->attached = false;
    bool last = !r->held;
    pthread_mutex_unlock(&h->lock);
    if (last)
        ns_http_reply_free(r);
}
