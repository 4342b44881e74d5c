/* The page that the server gives at "/": the files of src/serve/page, inside the binary. They ask for nothing from elsewhere and hold no
 * inline script or style, so that they work under Content-Security-Policy: default-src 'self'. */
#ifndef NS_SERVE_PAGE_H
#define NS_SERVE_PAGE_H
#include <stdbool.h>
#include <stddef.h>

/* `path` as in the request, without a query: "/", "/page.css", "/page.js", "/machine.js", "/icon.svg". What is found lives as long as the program. */
bool ns_page_find(const char *path, const char **type, const unsigned char **data, size_t *n);
#endif
