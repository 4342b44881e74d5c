#include "serve/http.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "serve/http_impl.h"

/* Connections beyond the limit that are taken to be told so; the next wait in the system's queue. */
enum { SPARE = 32, BACKLOG = 511, TICK_MS = 500, HEAD_MEMORY = 32 << 10 };

static int open_listener(ns_http *h, ns_err *e)
{
    char port[16];
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV }, *list = NULL;
    const char *host = h->o.host;
    int on = 1, rc, why = 0;
    if (h->o.port < 0 || h->o.port > 65535)
        return ns_fail(e, NS_EINVAL, "port %d: 0 .. 65535 is expected", h->o.port);
    snprintf(port, sizeof port, "%d", h->o.port);
    if ((rc = getaddrinfo(host, port, &hints, &list)) != 0)
        return ns_fail(e, NS_EINVAL, "%s: %s", host, gai_strerror(rc));
    for (struct addrinfo *a = list; a && h->listener < 0; a = a->ai_next) {
        int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0 && bind(fd, a->ai_addr, a->ai_addrlen) == 0 &&
            listen(fd, BACKLOG) == 0) {
            h->listener = fd;
            break;
        }
        why = errno;
        if (fd >= 0)
            close(fd);
    }
    freeaddrinfo(list);
    errno = why;
    return h->listener >= 0 ? 0 : ns_fail_errno(e, "%s, port %d", host, h->o.port);
}

static int read_port(ns_http *h, ns_err *e)
{
    struct sockaddr_storage a;
    socklen_t n = sizeof a;
    char port[16];
    if (getsockname(h->listener, (struct sockaddr *)&a, &n) != 0)
        return ns_fail_errno(e, "the listening socket");
    if (getnameinfo((struct sockaddr *)&a, n, NULL, 0, port, sizeof port, NI_NUMERICSERV) != 0)
        return ns_fail(e, NS_EIO, "the listening socket has no port");
    h->port = atoi(port);
    return 0;
}

/* What libmicrohttpd logs matters while it starts; later it is about single clients, which the server's own log has. */
static void said(void *ctx, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void said(void *ctx, const char *fmt, va_list ap)
{
    ns_http *h = ctx;
    if (h->daemon)
        return;
    vsnprintf(h->said, sizeof h->said, fmt, ap);
    h->said[strcspn(h->said, "\r\n")] = '\0';
}

/* Paths go to the caller as they came. */
static size_t keep_escapes(void *ctx, struct MHD_Connection *con, char *s)
{
    (void)ctx, (void)con;
    return strlen(s);
}

static int start_daemon(ns_http *h, ns_err *e)
{
    const ns_http_opts *o = &h->o;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
    struct MHD_OptionItem tls[] = { { MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)o->cert_key },
                                    { MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)o->cert },
                                    { MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)"SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2" },
                                    { MHD_OPTION_END, 0, NULL } };
    if (!o->cert != !o->cert_key)
        return ns_fail(e, NS_EINVAL, "TLS needs both a certificate and its key");
    if (o->cert && MHD_is_feature_supported(MHD_FEATURE_TLS) != MHD_YES)
        return ns_fail(e, NS_EUNSUPPORTED, "this libmicrohttpd was built without TLS; put a proxy in front (docs/DEPLOY.md)");
    if (o->cert)
        flags |= MHD_USE_TLS;
    else
        tls[0].option = MHD_OPTION_END;
    /* libmicrohttpd closes the socket it is given or gives it back, by how it fails or stops; so it gets its own */
    int fd = fcntl(h->listener, F_DUPFD_CLOEXEC, 3);
    if (fd < 0)
        return ns_fail_errno(e, "the listening socket");
    struct MHD_Daemon *d = MHD_start_daemon(
        flags, 0, NULL, NULL, ns_http_on_request, h, MHD_OPTION_EXTERNAL_LOGGER, said, h, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)(o->max_connections + SPARE), MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)o->idle_seconds,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEAD_MEMORY, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_UNESCAPE_CALLBACK,
        keep_escapes, NULL, MHD_OPTION_NOTIFY_COMPLETED, ns_http_completed, h, MHD_OPTION_NOTIFY_CONNECTION, ns_http_connection, h,
        MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
    if (!d)
        return ns_fail(e, o->cert ? NS_EINVAL : NS_EIO, "the HTTP server does not start: %s", h->said[0] ? h->said : "no reason given");
    h->daemon = d;
    return 0;
}

ns_http *ns_http_start(const ns_http_opts *o, ns_err *e)
{
    ns_http *h = calloc(1, sizeof *h);
    if (!h) {
        ns_fail(e, NS_ENOMEM, "out of memory");
        return NULL;
    }
    h->o = *o;
    h->listener = h->given = -1;
    h->tick_ms = TICK_MS;
    h->tls = o->cert != NULL;
    h->o.host = o->host ? o->host : "127.0.0.1";
    h->o.max_body = o->max_body ? o->max_body : (size_t)8 << 20;
    h->o.max_connections = o->max_connections > 0 ? o->max_connections : 1024;
    h->o.idle_seconds = o->idle_seconds > 0 ? o->idle_seconds : 60;
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&h->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if ((o->keys && ns_http_keys_parse(o->keys, &h->keys, e) != 0) || open_listener(h, e) != 0 || read_port(h, e) != 0)
        goto out;
    if (pthread_create(&h->watcher, NULL, ns_http_watch, h) != 0) {
        ns_fail(e, NS_ENOMEM, "no thread for the HTTP server");
        goto out;
    }
    h->watching = true;
    if (start_daemon(h, e) == 0)
        return h;
out:
    ns_http_free(h);
    return NULL;
}

int ns_http_port(const ns_http *h)
{
    return h->port;
}

/* The socket that libmicrohttpd had stays open until its thread is gone; shut down, it refuses connections at once. */
void ns_http_quiesce(ns_http *h)
{
    pthread_mutex_lock(&h->lock);
    bool first = !h->quiet;
    h->quiet = true;
    pthread_mutex_unlock(&h->lock);
    if (!first)
        return;
    h->given = h->daemon ? MHD_quiesce_daemon(h->daemon) : -1;
    shutdown(h->listener, SHUT_RDWR);
}

void ns_http_stop(ns_http *h)
{
    if (!h || h->stopped)
        return;
    ns_http_quiesce(h);
    pthread_mutex_lock(&h->lock);
    h->stopping = true; /* from here on nothing is suspended */
    for (ns_http_conn *c = h->conns; c; c = c->next)
        if (c->reply)
            ns_http_kill(c->reply);
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
    if (h->watching)
        pthread_join(h->watcher, NULL);
    if (h->daemon)
        MHD_stop_daemon(h->daemon);
    if (h->given >= 0)
        close(h->given);
    h->stopped = true;
}

void ns_http_free(ns_http *h)
{
    if (!h)
        return;
    ns_http_stop(h);
    assert(h->n_held == 0 && !h->conns);
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->changed);
    ns_buf_release(&h->keys);
    if (h->listener >= 0)
        close(h->listener);
    free(h);
}

ns_http_stats ns_http_about(ns_http *h)
{
    pthread_mutex_lock(&h->lock);
    ns_http_stats s = { .connections = h->n_conns, .requests = h->requests, .refused = h->refused };
    for (const ns_http_conn *c = h->conns; c; c = c->next)
        s.answering += c->reply != NULL;
    pthread_mutex_unlock(&h->lock);
    return s;
}
