/* The HTTP layer with clients that behave: answers at once, later and as streams, keep-alive, keys, limits, leaving and stopping. */
#include "http_client.h"

static void test_echo(void **state)
{
    site *s = site_new((ns_http_opts){ 0 });
    (void)state;
    const char *a = ASK(s->port, "GET /echo?x=1&y=%20 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_int_equal(status_of(a), 200);
    assert_true(ends_with(a, "\r\n\r\nGET /echo [] 0 0:"));
    assert_int_equal(count_of(a, "\r\nDate: "), 1);
    assert_int_equal(count_of(a, "\r\nServer: nestar\r\n"), 1);
    assert_int_equal(count_of(a, "\r\nX-Request-Id: req_"), 1);
    assert_int_equal(count_of(a, "\r\nX-Id: req_"), 1);
    a = ASK(s->port, "POST /a%2Fb HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Type: application/json\r\nX-Request-Id: mine-7\r\n"
                     "Content-Length: 5\r\n\r\nhello");
    assert_int_equal(status_of(a), 404);
    assert_true(ends_with(a, "\r\n\r\nPOST /a%2Fb [application/json] 5 5:hello"));
    assert_int_equal(count_of(a, "\r\nX-Request-Id: mine-7\r\n"), 1);
    /* in chunks; NUL inside; an id that is no id */
    static const char chunks[] = "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nX-Request-Id: a b\r\n\r\n"
                                 "3\r\na\0b\r\nA\r\n0123456789\r\n0\r\n\r\n";
    int fd = dial(s->port);
    ns_buf b = { 0 };
    put_bytes(fd, chunks, sizeof chunks - 1);
    assert_true(get_until(fd, &b, NULL));
    close(fd);
    static const char tail[] = "POST /echo [] 13 1:a\0b0123456789";
    assert_true(b.len > sizeof tail && memcmp(b.data + b.len - (sizeof tail - 1), tail, sizeof tail - 1) == 0);
    assert_int_equal(count_of(b.data, "\r\nX-Request-Id: req_"), 1);
    ns_buf_release(&b);
    assert_int_equal(atomic_load(&s->handled), 3);
    ns_http_stats st = ns_http_about(s->h);
    assert_int_equal(st.requests, 3);
    assert_int_equal(st.refused, 0);
    site_free(s);
}

static void test_methods(void **state)
{
    site *s = site_new((ns_http_opts){ 0 });
    (void)state;
    const char *a = ASK(s->port, "HEAD /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_int_equal(status_of(a), 200);
    assert_int_equal(count_of(a, "\r\nContent-Length: 17\r\n"), 1); /* of what GET says */
    assert_true(ends_with(a, "\r\n\r\n"));
    a = ASK(s->port, "OPTIONS /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_int_equal(status_of(a), 204);
    assert_int_equal(count_of(a, "\r\nAllow: GET, HEAD, POST, OPTIONS\r\n"), 1);
    assert_int_equal(count_of(a, "Access-Control"), 0);
    a = ASK(s->port, "DELETE /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc"); /* the caller routes methods */
    assert_true(ends_with(a, "\r\n\r\nDELETE /echo [] 0 0:")); /* and its body is of no use */
    a = ASK(s->port, "GET /echo HTTP/1.0\r\n\r\n");
    assert_true(ends_with(a, "\r\n\r\nGET /echo [] 0 0:"));
    site_free(s);
}

static void test_keep_alive(void **state)
{
    site *s = site_new((ns_http_opts){ 0 });
    ns_buf b = { 0 };
    (void)state;
    int fd = dial(s->port);
    for (int i = 0; i < 20; i++) {
        ns_buf_clear(&b);
        put(fd, i % 2 ? "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n" : "POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_true(get_until(fd, &b, i % 2 ? " 0 0:" : "later"));
        assert_int_equal(status_of(b.data), 200);
    }
    assert_int_equal(ns_http_about(s->h).connections, 1);
    /* pipelined: answered in order, from whatever thread the answers come */
    ns_buf_clear(&b);
    put(fd, "POST /later HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /echo HTTP/1.1\r\nHost: a\r\n\r\n"
            "GET /later HTTP/1.1\r\nHost: a\r\n\r\nGET /echo2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_true(get_until(fd, &b, NULL));
    assert_int_equal(count_of(b.data, "HTTP/1.1 200 OK\r\n"), 3);
    assert_int_equal(count_of(b.data, "HTTP/1.1 404 "), 1);
    assert_int_equal(count_of(b.data, "later"), 2);
    assert_true(strstr(b.data, "later") < strstr(b.data, "GET /echo [") && strstr(b.data, "GET /echo [") < strstr(b.data, "GET /echo2 ["));
    close(fd);
    ns_buf_release(&b);
    site_free(s);
}

static void test_continue(void **state)
{
    site *s = site_new((ns_http_opts){ .max_body = 100, .keys = "k\n" });
    ns_buf b = { 0 };
    (void)state;
    int fd = dial(s->port);
    put(fd, "POST /echo HTTP/1.1\r\nHost: a\r\nX-Api-Key: k\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_true(get_until(fd, &b, "HTTP/1.1 100 Continue\r\n\r\n"));
    put(fd, "hello");
    assert_true(get_until(fd, &b, NULL));
    assert_true(ends_with(b.data, "POST /echo [] 5 5:hello"));
    close(fd);
    /* refused without being asked to go on */
    const char *a = ASK(s->port, "POST /echo HTTP/1.1\r\nHost: a\r\nX-Api-Key: k\r\nExpect: 100-continue\r\nContent-Length: 101\r\n\r\n");
    assert_int_equal(status_of(a), 413);
    a = ASK(s->port, "POST /echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_int_equal(status_of(a), 401);
    ns_buf_release(&b);
    site_free(s);
}

static void test_keys(void **state)
{
    static const char *const open[] = { "/health", "/echo", NULL };
    site *s = site_new((ns_http_opts){ .keys = "first-key\r\n\n  second  \nx", .open = open });
    static const struct { const char *header; int status; } cases[] = {
        { "", 401 },
        { "Authorization: Bearer first-key\r\n", 404 },
        { "Authorization: bearer   second\r\n", 404 },
        { "authorization: Bearer x\r\n", 404 },
        { "X-Api-Key: second\r\n", 404 },
        { "Authorization: Bearer first-ke\r\n", 401 },
        { "Authorization: Bearer first-keyy\r\n", 401 },
        { "Authorization: Bearer first-keyfirst-key\r\n", 401 },
        { "Authorization: Bearer xx\r\n", 401 },
        { "Authorization: Bearer \r\n", 401 },
        { "Authorization: Bearer\r\n", 401 },
        { "Authorization: Basic first-key\r\n", 401 },
        { "X-Api-Key: \r\n", 401 },
        { "X-Api-Key: Bearer second\r\n", 401 },
        { "Authorization: Bearer wrong\r\nX-Api-Key: second\r\n", 401 }, /* who says Bearer means it */
    };
    char q[500];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(q, sizeof q, "POST /private HTTP/1.1\r\nHost: a\r\nConnection: close\r\n%sContent-Length: 2\r\n\r\nhi", cases[i].header);
        const char *a = ASK(s->port, q);
        if (status_of(a) != cases[i].status)
            fail_msg("%s: %s", cases[i].header, a);
        if (cases[i].status == 401) {
            assert_int_equal(count_of(a, "\r\nWWW-Authenticate: Bearer\r\n"), 1);
            assert_int_equal(count_of(a, "\r\nContent-Type: application/json\r\n"), 1);
            assert_int_equal(count_of(a, "{\"status\": 401, \"message\": \"an API key"), 1);
        }
    }
    assert_int_equal(status_of(ASK(s->port, "GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")), 200);
    assert_int_equal(status_of(ASK(s->port, "GET /echo/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")), 401);
    /* a refusal leaves the connection usable */
    ns_buf b = { 0 };
    int fd = dial(s->port);
    put(fd, "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert_true(get_until(fd, &b, NULL));
    assert_int_equal(count_of(b.data, "HTTP/1.1 401 "), 1);
    assert_int_equal(count_of(b.data, "HTTP/1.1 200 "), 1);
    close(fd);
    ns_buf_release(&b);
    site_free(s);
}

static void test_refused_starts(void **state)
{
    ns_err e = { 0 };
    site *s = site_new((ns_http_opts){ 0 });
    (void)state;
    assert_null(ns_http_start(&(ns_http_opts){ .port = s->port, .handle = site_handle }, &e));
    assert_non_null(strstr(e.msg, "Address already in use"));
    e = (ns_err){ 0 };
    assert_null(ns_http_start(&(ns_http_opts){ .port = 70000, .handle = site_handle }, &e));
    assert_non_null(strstr(e.msg, "port 70000"));
    e = (ns_err){ 0 };
    assert_null(ns_http_start(&(ns_http_opts){ .host = "no such host", .handle = site_handle }, &e));
    assert_non_null(strstr(e.msg, "no such host"));
    e = (ns_err){ 0 };
    assert_null(ns_http_start(&(ns_http_opts){ .keys = "\n \n", .handle = site_handle }, &e));
    assert_non_null(strstr(e.msg, "there is none"));
    e = (ns_err){ 0 };
    assert_null(ns_http_start(&(ns_http_opts){ .keys = "two words\n", .handle = site_handle }, &e));
    assert_non_null(strstr(e.msg, "one key a line"));
    e = (ns_err){ 0 };
    assert_null(ns_http_start(&(ns_http_opts){ .cert = "x", .handle = site_handle }, &e));
    assert_non_null(strstr(e.msg, "both"));
    e = (ns_err){ 0 };
    assert_null(ns_http_start(&(ns_http_opts){ .cert = "x", .cert_key = "y", .handle = site_handle }, &e));
    assert_true(e.msg[0] != '\0');
    site_free(s);
}

/* ---- streams ---- */

static void test_stream(void **state)
{
    site *s = site_new((ns_http_opts){ 0 });
    ns_buf b = { 0 };
    char line[40];
    (void)state;
    int fd = dial(s->port);
    put(fd, "POST /keep HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}");
    ns_http_reply *r = site_kept(s, 0);
    ns_http_stream(r, 200, "text/event-stream");
    for (int i = 0; i < 50; i++) {
        snprintf(line, sizeof line, "data: %d\n\n", i);
        assert_int_equal(ns_http_write(r, line, strlen(line)), 0);
        if (i % 10 == 0)
            assert_true(get_until(fd, &b, line)); /* it arrives when it is written, not later */
    }
    ns_http_end(r);
    assert_true(get_until(fd, &b, "\r\n0\r\n\r\n"));
    assert_int_equal(count_of(b.data, "data: "), 50);
    assert_int_equal(count_of(b.data, "\r\nTransfer-Encoding: chunked\r\n"), 1);
    assert_int_equal(count_of(b.data, "\r\nContent-Type: text/event-stream\r\n"), 1);
    /* the connection goes on */
    ns_buf_clear(&b);
    put(fd, "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(get_until(fd, &b, " 0 0:"));
    /* to a client of HTTP/1.0: without chunks */
    int old = dial(s->port);
    put(old, "GET /keep HTTP/1.0\r\n\r\n");
    r = site_kept(s, 1);
    ns_http_stream(r, 200, "text/plain");
    assert_int_equal(ns_http_write(r, "abc", 3), 0);
    ns_http_end(r);
    ns_buf_clear(&b);
    assert_true(get_until(old, &b, NULL));
    assert_true(ends_with(b.data, "\r\n\r\nabc"));
    close(old);
    /* HEAD: nobody reads it, and the caller is told to stop */
    ns_buf_clear(&b);
    put(fd, "HEAD /keep HTTP/1.1\r\nHost: a\r\n\r\n");
    r = site_kept(s, 2);
    ns_http_stream(r, 200, "text/plain");
    assert_true(get_until(fd, &b, "\r\n\r\n"));
    assert_true(site_saw_gone(s, 1, 5));
    assert_int_equal(ns_http_write(r, "abc", 3), -1);
    ns_http_end(r);
    close(fd);
    ns_buf_release(&b);
    site_free(s);
}

/* Long streams to a client that reads all the time arrive whole, however pieces fall. */
static void test_long_stream(void **state)
{
    site *s = site_new((ns_http_opts){ 0 });
    ns_buf b = { 0 }, sent = { 0 };
    (void)state;
    int fd = dial(s->port);
    put(fd, "GET /keep HTTP/1.0\r\n\r\n");
    ns_http_reply *r = site_kept(s, 0);
    ns_http_stream(r, 200, "application/octet-stream");
    for (int i = 0; i < 300; i++) {
        char piece[40000];
        size_t n = (size_t)(i * 7919 % (int)sizeof piece);
        memset(piece, 'a' + i % 26, n);
        if (n > 10)
            snprintf(piece, 10, "<%d>", i);
        ns_buf_add(&sent, piece, n);
        assert_int_equal(ns_http_write(r, piece, n), 0);
        if (i % 10 == 9) { /* keeps up, so the bounded queue does not fill */
            size_t seen = b.len;
            while (b.len < seen + 150000 && b.len < sent.len) {
                char part[65536];
                ssize_t k = recv(fd, part, sizeof part, 0);
                assert_true(k > 0);
                ns_buf_add(&b, part, (size_t)k);
            }
        }
    }
    ns_http_end(r);
    assert_true(get_until(fd, &b, NULL));
    assert_true(b.len > sent.len);
    assert_memory_equal(b.data + b.len - sent.len, sent.data, sent.len);
    close(fd);
    ns_buf_release(&b);
    ns_buf_release(&sent);
    site_free(s);
}

/* ---- TLS: that it is asked for; what it does is GnuTLS's ---- */

/* Of nobody, for nothing but this test. */
static const char cert[] =
    "-----BEGIN CERTIFICATE-----\n"
    "MIIBfzCCASWgAwIBAgIUEcmc44SX++hh0XyM6fSqFyjpn6AwCgYIKoZIzj0EAwIw\n"
    "FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEzMDIwMDYwMloYDzIxMjYxMTA2\n"
    "MjAwNjAyWjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO\n"
    "PQMBBwNCAARo921goRCN0PrvZouYStIHKd4MBqFJEdBTSWVJ0UvFnzvfxWpCwqCJ\n"
    "gTV2HBfLmmI5+baiI+XvZAz0v1noHkhto1MwUTAdBgNVHQ4EFgQUqQti2VBfBCEo\n"
    "v2w7WRQdcwhyq+AwHwYDVR0jBBgwFoAUqQti2VBfBCEov2w7WRQdcwhyq+AwDwYD\n"
    "VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiBctoyNQ/AfDKpVr20xIDWu\n"
    "SdOXe3jMqP9BwxgnhPtIhgIhAIUk6E5b4mzYPkWjEGhlirhPsfzF0I7b55PffPPB\n"
    "z1Ss\n"
    "-----END CERTIFICATE-----\n";
static const char cert_key[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg+UMODSkvNZSVbM5l\n"
    "HcAGfaSNEi003O4V3el1bayERYChRANCAARo921goRCN0PrvZouYStIHKd4MBqFJ\n"
    "EdBTSWVJ0UvFnzvfxWpCwqCJgTV2HBfLmmI5+baiI+XvZAz0v1noHkht\n"
    "-----END PRIVATE KEY-----\n";

static void test_tls(void **state)
{
    site *s = site_new((ns_http_opts){ .cert = cert, .cert_key = cert_key });
    ns_buf b = { 0 };
    (void)state;
    int fd = dial(s->port); /* who does not know is told nothing, in a record of TLS at most */
    put(fd, "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(get_until(fd, &b, NULL) || b.len == 0 || b.data[0] == 21);
    assert_true(b.len < 10 && atomic_load(&s->handled) == 0);
    close(fd);
    ns_buf_release(&b);
    site_free(s);
}

/* ---- ends ---- */

static void test_quiesce(void **state)
{
    site *s = site_new((ns_http_opts){ 0 });
    ns_buf b = { 0 };
    (void)state;
    int fd = dial(s->port), idle = dial(s->port);
    put(idle, "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_true(get_until(idle, &b, " 0 0:"));
    assert_int_equal(count_of(b.data, "Connection: close"), 0);
    put(fd, "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
    ns_http_reply *r = site_kept(s, 0);
    ns_http_quiesce(s->h);
    ns_http_quiesce(s->h);
    assert_int_equal(dial_from(s->port, 0), -1);
    ns_http_send(r, 200, "text/plain", "done", 4);
    ns_buf_clear(&b);
    assert_true(get_until(fd, &b, NULL));
    assert_true(ends_with(b.data, "\r\n\r\ndone"));
    assert_int_equal(count_of(b.data, "\r\nConnection: close\r\n"), 1);
    ns_buf_clear(&b);
    put(idle, "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n"); /* was open: is answered once more */
    assert_true(get_until(idle, &b, NULL));
    assert_true(ends_with(b.data, " 0 0:"));
    close(fd);
    close(idle);
    ns_buf_release(&b);
    site_free(s);
}

static void test_stop(void **state)
{
    site *s = site_new((ns_http_opts){ 0 });
    int fd[6];
    ns_http_reply *r[6];
    (void)state;
    for (int i = 0; i < 6; i++) {
        fd[i] = dial(s->port);
        put(fd[i], "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
        r[i] = site_kept(s, i);
        if (i % 2)
            ns_http_stream(r[i], 200, "text/event-stream");
        if (i == 5)
            assert_int_equal(ns_http_write(r[i], "data: 1\n\n", 9), 0);
    }
    int body = dial(s->port), head = dial(s->port), silent = dial(s->port);
    put(body, "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    put(head, "POST /echo HTTP/1.1\r\nHo");
    ns_http_stop(s->h);
    assert_int_equal(atomic_load(&s->gone), 6);
    for (int i = 0; i < 6; i++) {
        char c;
        while (recv(fd[i], &c, 1, 0) > 0)
            ;
        close(fd[i]);
        if (i % 2) {
            assert_int_equal(ns_http_write(r[i], "x", 1), -1);
            ns_http_end(r[i]);
        } else {
            ns_http_send(r[i], 200, "text/plain", "x", 1);
        }
    }
    close(body);
    close(head);
    close(silent);
    site_free(s);
}

/* Replies finished by other threads while the server stops, streams among them. */
static atomic_bool going;

static void *writer(void *reply)
{
    ns_http_stream(reply, 200, "text/event-stream");
    while (atomic_load(&going) && ns_http_write(reply, "data: x\n\n", 9) == 0)
        wait_ms(1);
    ns_http_end(reply);
    return NULL;
}

static void test_stop_while_streaming(void **state)
{
    (void)state;
    for (int round = 0; round < 5; round++) {
        enum { N = 8 };
        site *s = site_new((ns_http_opts){ 0 });
        pthread_t t[N];
        int fd[N];
        atomic_store(&going, true);
        for (int i = 0; i < N; i++) {
            fd[i] = dial(s->port);
            put(fd[i], "GET /keep HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_int_equal(pthread_create(&t[i], NULL, writer, site_kept(s, i)), 0);
        }
        wait_ms(20);
        if (round % 2)
            atomic_store(&going, false);
        ns_http_stop(s->h);
        for (int i = 0; i < N; i++) {
            pthread_join(t[i], NULL);
            close(fd[i]);
        }
        assert_true(atomic_load(&s->gone) <= N); /* a writer may hear it from ns_http_write first, and finish */
        site_free(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_echo),    cmocka_unit_test(test_methods),        cmocka_unit_test(test_keep_alive),
        cmocka_unit_test(test_continue), cmocka_unit_test(test_keys),          cmocka_unit_test(test_refused_starts),
        cmocka_unit_test(test_stream),  cmocka_unit_test(test_long_stream),    cmocka_unit_test(test_quiesce),
        cmocka_unit_test(test_tls),             cmocka_unit_test(test_stop),    cmocka_unit_test(test_stop_while_streaming),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
