#include "serve/notify.h"

#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int ns_notify(const char *socket_name, const char *text, ns_err *e)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    size_t n = socket_name ? strlen(socket_name) : 0;
    int rc = 0;
    if (n == 0)
        return 0;
    if (socket_name[0] != '/' && socket_name[0] != '@')
        return ns_fail(e, NS_EUNSUPPORTED, "NOTIFY_SOCKET %s: a path or @name is expected", socket_name);
    if (n >= sizeof a.sun_path)
        return ns_fail(e, NS_EINVAL, "NOTIFY_SOCKET %s: longer than a socket's name can be", socket_name);
    memcpy(a.sun_path, socket_name, n);
    if (a.sun_path[0] == '@')
        a.sun_path[0] = '\0';
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return ns_fail_errno(e, "NOTIFY_SOCKET %s", socket_name);
    if (sendto(fd, text, strlen(text), MSG_NOSIGNAL, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)) < 0)
        rc = ns_fail_errno(e, "NOTIFY_SOCKET %s", socket_name);
    close(fd);
    return rc;
}
