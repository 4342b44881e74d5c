/* Telling the service manager how the process stands: the protocol of systemd's sd_notify(3), a datagram of "KEY=value" lines to the socket
 * that $NOTIFY_SOCKET names. */
#ifndef NS_SERVE_NOTIFY_H
#define NS_SERVE_NOTIFY_H
#include "base/err.h"

/* `socket` as the environment has it: a path, or "@name" for an abstract one; NULL or "": nobody asked, and nothing is done.
 * `text`: "READY=1\nSTATUS=serving 3 sizes", "STOPPING=1", .. */
int ns_notify(const char *socket, const char *text, ns_err *e);
#endif
