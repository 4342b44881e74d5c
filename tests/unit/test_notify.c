/* What the service manager's socket receives, at a path and at an abstract name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "serve/notify.h"

static int manager(const char *name)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    memcpy(a.sun_path, name, strlen(name));
    if (name[0] == '@')
        a.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(name))), 0);
    return fd;
}

static void check(const char *name)
{
    ns_err e = { 0 };
    char got[200];
    int fd = manager(name);
    static const char *const texts[] = { "READY=1\nSTATUS=serving 3 sizes", "STOPPING=1" };
    for (int i = 0; i < 2; i++)
        assert_int_equal(ns_notify(name, texts[i], &e), 0);
    for (int i = 0; i < 2; i++) { /* one datagram each */
        ssize_t n = recv(fd, got, sizeof got, MSG_DONTWAIT);
        assert_int_equal(n, strlen(texts[i]));
        assert_memory_equal(got, texts[i], (size_t)n);
    }
    assert_int_equal(recv(fd, got, sizeof got, MSG_DONTWAIT), -1);
    close(fd);
}

static void test_sockets(void **state)
{
    char dir[] = "/tmp/notify.XXXXXX", name[100];
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(name, sizeof name, "%s/socket", dir);
    check(name);
    unlink(name);
    rmdir(dir);
    snprintf(name, sizeof name, "@nestar-test-%d", (int)getpid());
    check(name);
}

static void test_nobody_and_refusals(void **state)
{
    ns_err e = { 0 };
    char longest[300];
    (void)state;
    assert_int_equal(ns_notify(NULL, "READY=1", &e), 0);
    assert_int_equal(ns_notify("", "READY=1", &e), 0);
    assert_int_equal(ns_notify("/nowhere/at/all", "READY=1", &e), -1);
    assert_non_null(strstr(e.msg, "/nowhere/at/all"));
    e = (ns_err){ 0 };
    assert_int_equal(ns_notify("vsock:2:1234", "READY=1", &e), -1);
    assert_int_equal(e.code, NS_EUNSUPPORTED);
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    longest[0] = '/';
    e = (ns_err){ 0 };
    assert_int_equal(ns_notify(longest, "READY=1", &e), -1);
    assert_int_equal(e.code, NS_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_sockets), cmocka_unit_test(test_nobody_and_refusals) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
