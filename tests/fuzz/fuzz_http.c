/* The input is what a client sends, up to the end of its sending side. The server has to let go of the connection within seconds; what it
 * says begins as HTTP does; and what reaches the handler is what the layer promises. */
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "serve/http_impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_BODY = 4096, PATIENCE = 20 };

static void handle(void *ctx, const ns_http_request *q, ns_http_reply *reply)
{
    (void)ctx;
    for (const char *p = q->path; *p; p++)
        if ((unsigned char)*p <= ' ' || *p == 127)
            __builtin_trap();
    if (!*q->path || q->n_body > MAX_BODY || q->body[q->n_body] || !*q->request_id || strlen(q->request_id) > 128)
        __builtin_trap();
    if (q->path[1] == 's') {
        ns_http_stream(reply, 200, "text/event-stream");
        ns_http_write(reply, "data: 1\n\n", 9);
        ns_http_write(reply, "data: 2\n\n", 9);
        ns_http_end(reply);
    } else {
        ns_http_header(reply, "X", q->request_id);
        ns_http_send(reply, 200, "text/plain", q->body, q->n_body);
    }
}

static void error(void *ctx, int status, const char *message, ns_buf *body)
{
    (void)ctx;
    ns_buf_addf(body, "{\"%d\": \"%s\"}", status, message);
}

static ns_http *server;

static void stop(void)
{
    ns_http_free(server);
}

static void start(void)
{
    static const char *const open[] = { "/open", NULL };
    ns_err e = { 0 };
    server = ns_http_start(&(ns_http_opts){ .handle = handle, .error = error, .keys = "key\n", .open = open, .max_body = MAX_BODY }, &e);
    if (!server || atexit(stop) != 0)
        abort();
    server->tick_ms = 2; /* there is no connection yet, so the watcher has not read it */
}

/* Reads to the end; false when it does not come. */
static int read_all(int fd, char *head, size_t n_head)
{
    double end = ns_now() + PATIENCE;
    size_t len = 0;
    for (;;) {
        char part[4096];
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int left = (int)((end - ns_now()) * 1000);
        if (left <= 0)
            return 0;
        if (poll(&p, 1, left) <= 0) /* the fuzzer's own alarm, or the end of patience */
            continue;
        ssize_t n = recv(fd, part, sizeof part, 0);
        if (n <= 0)
            return 1;
        for (ssize_t i = 0; i < n && len + 1 < n_head; i++)
            head[len++] = part[i];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    char head[16] = "";
    int fd[2];
    if (!server)
        start();
    if (size > 1 << 16 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) != 0)
        return 0;
    if (size && send(fd[0], data, size, MSG_NOSIGNAL) != (ssize_t)size)
        abort();
    shutdown(fd[0], SHUT_WR);
    if (MHD_add_connection(server->daemon, fd[1], (struct sockaddr *)&a, sizeof a) != MHD_YES)
        abort();
    if (!read_all(fd[0], head, sizeof head))
        __builtin_trap();
    if (*head && strncmp(head, "HTTP/1.1 ", 9) != 0 && strncmp(head, "HTTP/1.0 ", 9) != 0)
        __builtin_trap();
    close(fd[0]);
    return 0;
}
