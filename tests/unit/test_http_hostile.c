/* The HTTP layer with clients that do not behave, and with clients that leave. */
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/resource.h>

#include "http_client.h"

static void expect_status(site *s, const char *request, size_t n, int status)
{
    int before = atomic_load(&s->handled);
    const char *a = ask(s->port, request, n);
    if (status_of(a) != status)
        fail_msg("%.200s: %d expected, got %.300s", request, status, a);
    assert_int_equal(atomic_load(&s->handled), before + (status == 200));
}

#define EXPECT(s, text, status) expect_status(s, text, sizeof(text) - 1, status)
#define HOST "Host: a\r\nConnection: close\r\n"

static void test_heads(void **state)
{
    site *s = site_new((ns_http_opts){ .max_body = 1000 });
    (void)state;
    EXPECT(s, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi", 400);
    EXPECT(s, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi", 400);
    EXPECT(s, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 400);
    EXPECT(s, "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 12\r\n\r\n2\r\nhi\r\n0\r\n\r\n", 400);
    EXPECT(s, "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    EXPECT(s, "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400);
    EXPECT(s, "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: identity\r\n\r\n", 400);
    EXPECT(s, "POST /echo HTTP/1.1\r\n" HOST "Content-Length : 2\r\n\r\nhi", 400);
    EXPECT(s, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 0x2\r\n\r\nhi", 400);
    EXPECT(s, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: -2\r\n\r\nhi", 400);
    EXPECT(s, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 2, 2\r\n\r\nhi", 400);
    EXPECT(s, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999999\r\n\r\nhi", 413);
    EXPECT(s, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551615\r\n\r\nhi", 413);
    EXPECT(s, "GET /echo HTTP/1.1\r\nConnection: close\r\n\r\n", 400);
    EXPECT(s, "GET /echo HTTP/1.1\r\nHost: b\r\n" HOST "\r\n", 400);
    EXPECT(s, "GET /echo HTTP/1.1\r\n" HOST "X: a\1b\r\n\r\n", 400);
    EXPECT(s, "GET /echo HTTP/1.1\r\n" HOST "X\1Y: a\r\n\r\n", 400);
    EXPECT(s, "GET /echo HTTP/1.1\r\n" HOST "X Y: a\r\n\r\n", 400);
    EXPECT(s, "GET /ec\1ho HTTP/1.1\r\n" HOST "\r\n", 400);
    EXPECT(s, "GET /ec\x7fho HTTP/1.1\r\n" HOST "\r\n", 400);
    EXPECT(s, "GET /echo HTTP/1.1\r\n" HOST "X: \xff\xfe\r\n\r\n", 200); /* opaque bytes, as HTTP has it */
    EXPECT(s, "GET /echo HTTP/1.1\r\n" HOST "\r\n", 200);
    assert_true(ns_http_about(s->h).refused >= 2); /* the rest is refused by libmicrohttpd, more of it in 1.0 than in 0.9.75 */
    site_free(s);
}

/* Whatever is made of these, the server neither takes them for requests of ours nor minds. */
static void test_garbage(void **state)
{
    site *s = site_new((ns_http_opts){ 0 });
    static const char *const lines[] = {
        "\r\n\r\n\r\n", "GET\r\n\r\n", "GET /echo\r\n\r\n", " GET /echo HTTP/1.1\r\n\r\n", "GET  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /echo HTTP/9.9\r\nHost: a\r\n\r\n", "GET /echo HTCPCP/1.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS greeting", "GET /echo HTTP/1.1\r\nHost a\r\n\r\n",
        "GET /echo HTTP/1.1\r\n: a\r\nHost: a\r\n\r\n", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhixx0\r\n\r\n",
    };
    ns_buf b = { 0 };
    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        int fd = dial(s->port);
        put(fd, lines[i]);
        shutdown(fd, SHUT_WR);
        ns_buf_clear(&b);
        ns_buf_adds(&b, "");
        get_until(fd, &b, NULL);
        if (b.len && (status_of(b.data) < 400 || status_of(b.data) > 505))
            fail_msg("line %zu: %s", i, b.data);
        close(fd);
    }
    /* NUL anywhere in the head: refused, or it ends what it stands in; the handler never sees more than was sent */
    static const char good[] = "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Y: z\r\n\r\n";
    int fds[sizeof good - 1];
    for (size_t i = 0; i < sizeof good - 1; i++) {
        char bad[sizeof good];
        memcpy(bad, good, sizeof good);
        bad[i] = '\0';
        fds[i] = dial(s->port);
        put_bytes(fds[i], bad, sizeof good - 1);
        shutdown(fds[i], SHUT_WR);
    }
    for (size_t i = 0; i < sizeof good - 1; i++) {
        ns_buf_clear(&b);
        ns_buf_adds(&b, "");
        assert_true(get_until(fds[i], &b, NULL) || b.len == 0);
        const char *seen = strstr(b.data, "\r\n\r\n");
        if (status_of(b.data) == 200 || status_of(b.data) == 404) { /* the server's caller was asked */
            char method[100] = "", path[100] = "";
            assert_int_equal(sscanf(seen, "%99s %99s [] 0 0:", method, path), 2);
            assert_int_equal(strncmp("GET", method, strlen(method)), 0);
            assert_int_equal(strncmp("/echo", path, strlen(path)), 0);
        }
        close(fds[i]);
    }
    atomic_store(&s->handled, 0);
    /* too many headers, too long a header, too long a path */
    ns_buf q = { 0 };
    ns_buf_adds(&q, "GET /echo HTTP/1.1\r\nHost: a\r\n");
    for (int i = 0; i < 3000; i++)
        ns_buf_addf(&q, "X-%d: some value\r\n", i);
    ns_buf_adds(&q, "\r\n");
    assert_int_equal(status_of(ask(s->port, q.data, q.len)), 431);
    ns_buf_clear(&q);
    ns_buf_adds(&q, "GET /echo HTTP/1.1\r\nHost: a\r\nX: ");
    for (int i = 0; i < 100000; i++)
        ns_buf_addc(&q, 'x');
    assert_int_equal(status_of(ask(s->port, q.data, q.len)), 431);
    ns_buf_clear(&q);
    ns_buf_adds(&q, "GET /");
    for (int i = 0; i < 100000; i++)
        ns_buf_addc(&q, 'x');
    assert_int_equal(status_of(ask(s->port, q.data, q.len)), 414);
    assert_int_equal(atomic_load(&s->handled), 0);
    ns_buf_release(&q);
    ns_buf_release(&b);
    site_free(s);
}

static void test_huge_bodies(void **state)
{
    site *s = site_new((ns_http_opts){ .max_body = 1 << 20 });
    static char block[64 << 10];
    ns_buf b = { 0 };
    char line[100];
    (void)state;
    memset(block, 'x', sizeof block);
    /* as large as allowed, both ways */
    for (int chunked = 0; chunked < 2; chunked++) {
        int fd = dial(s->port);
        put(fd, chunked ? "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n" : "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 1048576\r\n\r\n");
        for (int i = 0; i < 16; i++) {
            put(fd, chunked ? "10000\r\n" : "");
            assert_int_equal(put_bytes(fd, block, sizeof block), sizeof block);
            put(fd, chunked ? "\r\n" : "");
        }
        put(fd, chunked ? "0\r\n\r\n" : "");
        ns_buf_clear(&b);
        assert_true(get_until(fd, &b, NULL));
        assert_int_equal(status_of(b.data), 200);
        assert_true(b.len > 1 << 20);
        close(fd);
    }
    assert_int_equal(atomic_load(&s->handled), 2);
    /* a byte more: refused by its length alone, before the body comes .. */
    int fd = dial(s->port);
    put(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n");
    ns_buf_clear(&b);
    assert_true(get_until(fd, &b, NULL));
    assert_int_equal(status_of(b.data), 413);
    close(fd);
    /* .. in chunks when it passes the limit; and a client that sends all before it reads still reads why */
    for (int chunked = 0; chunked < 2; chunked++) {
        fd = dial(s->port);
        snprintf(line, sizeof line, "POST /echo HTTP/1.1\r\nHost: a\r\n%s\r\n\r\n", chunked ? "Transfer-Encoding: chunked" : "Content-Length: 4194304");
        put(fd, line);
        size_t sent = 0;
        for (int i = 0; i < 64; i++) {
            put(fd, chunked ? "10000\r\n" : "");
            sent += put_bytes(fd, block, sizeof block);
            put(fd, chunked ? "\r\n" : "");
        }
        assert_int_equal(sent, 4 << 20);
        ns_buf_clear(&b);
        assert_true(get_until(fd, &b, NULL));
        assert_int_equal(status_of(b.data), 413);
        assert_int_equal(count_of(b.data, "{\"status\": 413, "), 1);
        close(fd);
    }
    assert_int_equal(atomic_load(&s->handled), 2);
    ns_buf_release(&b);
    site_free(s);
}

/* A byte now and then is no way to hold a connection. */
static void test_slow(void **state)
{
    site *s = site_new((ns_http_opts){ .idle_seconds = 1 });
    ns_buf b = { 0 };
    (void)state;
    int head = dial(s->port), body = dial(s->port), chunks = dial(s->port), silent = dial(s->port), stuck = dial(s->port);
    put(body, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n");
    put(chunks, "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    put(stuck, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\n123");
    double begun = ns_now();
    bool open = true;
    while (open && ns_now() - begun < 10) {
        char c;
        put(head, "G");
        put(body, "x");
        put(chunks, "1\r\nx\r\n");
        wait_ms(100);
        open = recv(head, &c, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
    }
    assert_false(open);
    assert_true(get_until(body, &b, NULL));
    assert_int_equal(status_of(b.data), 408);
    assert_int_equal(count_of(b.data, "{\"status\": 408, "), 1);
    ns_buf_clear(&b);
    assert_true(get_until(chunks, &b, NULL));
    assert_int_equal(status_of(b.data), 408);
    ns_buf_clear(&b);
    assert_true(get_until(stuck, &b, NULL));
    assert_int_equal(status_of(b.data), 408);
    ns_buf_clear(&b);
    assert_true(get_until(silent, &b, NULL)); /* closed, no more */
    assert_int_equal(b.len, 0);
    assert_true(ns_now() - begun < 6);
    assert_int_equal(atomic_load(&s->handled), 0);
    /* but an answer may take longer than that */
    int fd = dial(s->port);
    put(fd, "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
    ns_http_reply *r = site_kept(s, 0);
    wait_ms(2500);
    ns_http_send(r, 200, "text/plain", "slow", 4);
    ns_buf_clear(&b);
    assert_true(get_until(fd, &b, "slow"));
    assert_int_equal(atomic_load(&s->gone), 0);
    int all[] = { head, body, chunks, silent, stuck, fd };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        close(all[i]);
    ns_buf_release(&b);
    site_free(s);
}

static void test_too_many_connections(void **state)
{
    enum { N = 20, MORE = 10 };
    site *s = site_new((ns_http_opts){ .max_connections = N });
    ns_buf b = { 0 };
    int fd[N + MORE];
    (void)state;
    for (int i = 0; i < N; i++) {
        fd[i] = dial(s->port);
        put(fd[i], "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
        ns_buf_clear(&b);
        assert_true(get_until(fd[i], &b, " 0 0:"));
    }
    for (int i = N; i < N + MORE; i++) {
        fd[i] = dial(s->port);
        put(fd[i], "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
        ns_buf_clear(&b);
        assert_true(get_until(fd[i], &b, NULL));
        assert_int_equal(status_of(b.data), 503);
        assert_int_equal(count_of(b.data, "\r\nRetry-After: 1\r\n"), 1);
    }
    for (int i = 0; i < N + MORE; i++)
        close(fd[i]);
    /* more than are taken at once, none of which says a word: before long they make room for who does */
    int crowd[N + MORE];
    for (int i = 0; i < N + MORE; i++)
        crowd[i] = dial(s->port);
    int status = 0;
    for (double end = ns_now() + 30; status != 200 && ns_now() < end; wait_ms(100))
        status = status_of(ASK(s->port, "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    for (int i = 0; i < N + MORE; i++)
        close(crowd[i]);
    assert_int_equal(status, 200);
    ns_buf_release(&b);
    site_free(s);
}

/* ---- clients that leave, or only say no more ---- */

static void test_half_closed(void **state)
{
    site *s = site_new((ns_http_opts){ 0 });
    static const char *const paths[] = { "echo", "later", "keep", "keep" };
    ns_buf b = { 0 };
    char q[200];
    int others[2];
    (void)state;
    for (int i = 0; i < 2; i++) { /* the only connection is treated otherwise by libmicrohttpd than one of several */
        others[i] = dial(s->port);
        put(others[i], "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
        ns_buf_clear(&b);
        assert_true(get_until(others[i], &b, " 0 0:"));
    }
    for (int i = 0; i < 4; i++) {
        int fd = dial(s->port);
        snprintf(q, sizeof q, "POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", paths[i]);
        put(fd, q);
        if (i == 3)
            site_kept(s, 1); /* closed before and after the request is taken */
        shutdown(fd, SHUT_WR);
        if (i == 2) { /* waits, long enough to be asked whether it is still there */
            ns_http_reply *r = site_kept(s, 0);
            wait_ms(1800);
            ns_http_send(r, 200, "text/plain", "kept", 4);
        } else if (i == 3) { /* a stream with a pause in it */
            ns_http_reply *r = site_kept(s, 1);
            ns_http_stream(r, 200, "text/event-stream");
            for (int k = 0; k < 3; k++) {
                assert_int_equal(ns_http_write(r, "data: x\n\n", 9), 0);
                wait_ms(800);
            }
            ns_http_end(r);
        }
        ns_buf_clear(&b);
        assert_true(get_until(fd, &b, NULL));
        const char *last = b.data; /* behind "100 Continue", of which there may be some */
        for (const char *p = b.data; (p = strstr(p, "HTTP/1.1 ")); p++)
            last = p;
        assert_int_equal(status_of(last), 200);
        static const char *const ends[] = { "2 2:hi", "later", "kept", "\r\n0\r\n\r\n" };
        assert_true(ends_with(b.data, ends[i]));
        assert_int_equal(count_of(last, "data: x\n\n"), i == 3 ? 3 : 0);
        close(fd);
    }
    assert_int_equal(atomic_load(&s->gone), 0);
    close(others[0]);
    close(others[1]);
    ns_buf_release(&b);
    site_free(s);
}

/* Closed while the request waits, in the pauses of a stream, and in the midst of one; by a reset and by an ordinary end. */
static void test_gone(void **state)
{
    site *s = site_new((ns_http_opts){ 0 });
    (void)state;
    for (int i = 0; i < 8; i++) {
        bool stream = i & 1, reset = i & 2, old = i & 4;
        int fd = dial(s->port);
        put(fd, old ? "GET /keep HTTP/1.0\r\n\r\n" : "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
        ns_http_reply *r = site_kept(s, i);
        if (stream) {
            ns_http_stream(r, 200, "text/event-stream");
            assert_int_equal(ns_http_write(r, "data: x\n\n", 9), 0);
            wait_ms(50); /* taken, and the connection suspended */
        }
        assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ reset, 0 }, sizeof(struct linger)), 0);
        close(fd);
        if (!site_saw_gone(s, i + 1, 2.5))
            fail_msg("stream %d reset %d old %d: %d gone", stream, reset, old, atomic_load(&s->gone));
        if (stream) {
            assert_int_equal(ns_http_write(r, "data: x\n\n", 9), -1);
            assert_int_equal(ns_http_write(r, "data: x\n\n", 9), -1);
            ns_http_end(r);
        } else {
            ns_http_send(r, 200, "text/plain", "x", 1);
        }
    }
    /* HTTP/1.0 has no "100 Continue" to be asked with: only half closed counts as gone, and nothing is sent */
    ns_buf b = { 0 };
    int fd = dial(s->port);
    put(fd, "GET /keep HTTP/1.0\r\n\r\n");
    ns_http_reply *r = site_kept(s, 8);
    shutdown(fd, SHUT_WR);
    assert_true(get_until(fd, &b, NULL));
    assert_int_equal(b.len, 0);
    assert_true(site_saw_gone(s, 9, 2.5));
    ns_http_send(r, 200, "text/plain", "x", 1);
    close(fd);
    /* left before anybody asked */
    fd = dial(s->port);
    put(fd, "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
    r = site_kept(s, 9);
    close(fd);
    assert_true(site_saw_gone(s, 10, 2.5));
    ns_http_on_gone(r, site_gone, s);
    assert_int_equal(atomic_load(&s->gone), 11);
    ns_http_send(r, 200, "text/plain", "x", 1);
    for (double end = ns_now() + 5; ns_http_about(s->h).connections && ns_now() < end;)
        wait_ms(5);
    assert_int_equal(ns_http_about(s->h).connections, 0);
    ns_buf_release(&b);
    site_free(s);
}

/* Whoever finishes a reply may free what `gone` works on: a `gone` that is running is waited for. */
struct slow_gone {
    atomic_bool begun, ended;
};

static void slow_gone(void *ctx)
{
    struct slow_gone *g = ctx;
    atomic_store(&g->begun, true);
    wait_ms(100);
    atomic_store(&g->ended, true);
}

static ns_http_reply *ending;

static void end_in_gone(void *ctx)
{
    ns_http_end(ending);
    atomic_store((atomic_bool *)ctx, true);
}

static void test_gone_and_finish(void **state)
{
    site *s = site_new((ns_http_opts){ 0 });
    struct slow_gone g = { 0 };
    (void)state;
    int fd = dial(s->port);
    put(fd, "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
    ns_http_reply *r = site_kept(s, 0);
    ns_http_on_gone(r, slow_gone, &g);
    close(fd);
    while (!atomic_load(&g.begun))
        wait_ms(1);
    assert_false(atomic_load(&g.ended));
    ns_http_send(r, 200, "text/plain", "x", 1);
    assert_true(atomic_load(&g.ended));
    /* and `gone` itself may finish */
    atomic_bool done = false;
    fd = dial(s->port);
    put(fd, "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
    ending = site_kept(s, 1);
    ns_http_stream(ending, 200, "text/event-stream");
    ns_http_on_gone(ending, end_in_gone, &done);
    close(fd);
    for (double end = ns_now() + 5; !atomic_load(&done) && ns_now() < end;)
        wait_ms(5);
    assert_true(atomic_load(&done));
    site_free(s);
}

/* A reader that stops reading: the queue is bounded, the writer is told, and so is `gone`. */
static void test_stalled_reader(void **state)
{
    site *s = site_new((ns_http_opts){ 0 });
    static char event[10000];
    (void)state;
    memset(event, 'x', sizeof event);
    int fd = dial_from(s->port, 4096);
    put(fd, "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
    ns_http_reply *r = site_kept(s, 0);
    ns_http_stream(r, 200, "text/event-stream");
    size_t taken = 0;
    while (taken < (size_t)100 << 20 && ns_http_write(r, event, sizeof event) == 0) {
        taken += sizeof event;
        if (taken % 500000 == 0)
            wait_ms(1);
    }
    assert_true(taken >= 1000000);
    assert_true(taken < (size_t)16 << 20); /* 1 MiB and what the system's own buffers hold */
    assert_int_equal(ns_http_write(r, event, 1), -1);
    assert_true(site_saw_gone(s, 1, 5));
    ns_http_end(r);
    close(fd);
    site_free(s);
}

/* And one that stops for longer than the idle time is closed, however little waits for it. */
static void test_stalled_reader_times_out(void **state)
{
    site *s = site_new((ns_http_opts){ .idle_seconds = 1 });
    static char event[10000];
    (void)state;
    int fd = dial_from(s->port, 4096);
    put(fd, "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
    ns_http_reply *r = site_kept(s, 0);
    ns_http_stream(r, 200, "application/octet-stream");
    size_t taken = 0, before = 1;
    while (before != taken) { /* until the system's buffers are full and some is left */
        before = taken;
        for (int i = 0; i < 50 && taken < (size_t)15 << 20; i++)
            if (ns_http_write(r, event, sizeof event) == 0)
                taken += sizeof event;
        wait_ms(20);
        if (atomic_load(&s->gone))
            break;
        if (taken > (size_t)6 << 20)
            break;
    }
    assert_true(site_saw_gone(s, 1, 6));
    ns_http_end(r);
    close(fd);
    site_free(s);
}

/* Clients that come and go at any moment while replies are finished by others: nothing is lost, called twice or used after its end. */
static void *storm(void *ctx)
{
    site *s = ctx;
    static const char *const q[] = { "GET /later HTTP/1.1\r\nHost: a\r\n\r\n", "POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab",
                                     "GET /echo HTTP/1.1\r\nHost: a\r\n\r\nGET /later HTTP/1.1\r\nHost: a\r\n\r\n",
                                     "GET /ticks HTTP/1.1\r\nHost: a\r\n\r\nGET /ticks HTTP/1.1\r\nHost: a\r\n\r\n" };
    for (int i = 0; i < 100; i++) {
        int fd = dial_from(s->port, 0);
        if (fd < 0)
            continue;
        put(fd, q[i % 4]);
        if (i % 5 == 0)
            shutdown(fd, SHUT_WR);
        if (i % 7)
            wait_ms(i % 9);
        if (i % 3 == 0)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ 1, 0 }, sizeof(struct linger));
        close(fd);
    }
    return NULL;
}

static void test_storm(void **state)
{
    site *s = site_new((ns_http_opts){ 0 });
    pthread_t t[4];
    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, storm, s), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(status_of(ASK(s->port, "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")), 200);
    for (double end = ns_now() + 10; ns_http_about(s->h).connections && ns_now() < end;)
        wait_ms(20);
    assert_int_equal(ns_http_about(s->h).connections, 0);
    site_free(s);
}

/* Idle, with and without connections: no time is spent. */
static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static void test_idle_costs_nothing(void **state)
{
    site *s = site_new((ns_http_opts){ 0 });
    int fd[40];
    ns_http_reply *r[20];
    (void)state;
    for (int i = 0; i < 40; i++) {
        fd[i] = dial(s->port);
        if (i < 20) {
            put(fd[i], "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
            r[i] = site_kept(s, i);
        }
        if (i < 10)
            shutdown(fd[i], SHUT_WR);
        if (i >= 10 && i < 20)
            ns_http_stream(r[i], 200, "text/event-stream");
    }
    wait_ms(200);
    double before = cpu_seconds();
    wait_ms(1500);
    double used = cpu_seconds() - before;
    if (used > 0.1)
        fail_msg("%.3f s of processor time in 1.5 s of waiting", used);
    for (int i = 0; i < 20; i++)
        i < 10 ? ns_http_send(r[i], 200, "text/plain", "x", 1) : ns_http_end(r[i]);
    for (int i = 0; i < 40; i++)
        close(fd[i]);
    site_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heads),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_huge_bodies),
        cmocka_unit_test(test_slow),
        cmocka_unit_test(test_too_many_connections),
        cmocka_unit_test(test_half_closed),
        cmocka_unit_test(test_gone),
        cmocka_unit_test(test_gone_and_finish),
        cmocka_unit_test(test_stalled_reader),
        cmocka_unit_test(test_stalled_reader_times_out),
        cmocka_unit_test(test_storm),
        cmocka_unit_test(test_idle_costs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
