#include "serve/page.h"

#include <string.h>

/* The assembler reads the files; CMakeLists.txt names their folder, and them as what this object depends on. */
#define FILE_AS(name, file)                                                                                                     \
    __asm__(".pushsection .rodata\n" #name ": .incbin \"" NS_PAGE_DIR "/" file "\"\n" #name "_end: .byte 0\n.popsection\n"); \
    extern const unsigned char name[], name##_end[]

FILE_AS(ns_page_html, "index.html");
FILE_AS(ns_page_css, "page.css");
FILE_AS(ns_page_js, "page.js");
FILE_AS(ns_page_machine, "machine.js");
FILE_AS(ns_page_icon, "icon.svg");

static const struct {
    const char *path, *type;
    const unsigned char *data, *end;
} files[] = {
    { "/", "text/html; charset=utf-8", ns_page_html, ns_page_html_end },
    { "/page.css", "text/css; charset=utf-8", ns_page_css, ns_page_css_end },
    { "/page.js", "text/javascript; charset=utf-8", ns_page_js, ns_page_js_end },
    { "/machine.js", "text/javascript; charset=utf-8", ns_page_machine, ns_page_machine_end },
    { "/icon.svg", "image/svg+xml", ns_page_icon, ns_page_icon_end },
};

bool ns_page_find(const char *path, const char **type, const unsigned char **data, size_t *n)
{
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (strcmp(path, files[i].path) == 0) {
            *type = files[i].type;
            *data = files[i].data;
            *n = (size_t)(files[i].end - files[i].data);
            return true;
        }
    }
    return false;
}
