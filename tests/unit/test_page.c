/* The page inside the binary: every file as it stands in the sources, with its type; nothing else; nothing asked from elsewhere. */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "serve/page.h"

static const struct {
    const char *path, *file, *type;
} files[] = {
    { "/", "index.html", "text/html; charset=utf-8" },
    { "/page.css", "page.css", "text/css; charset=utf-8" },
    { "/page.js", "page.js", "text/javascript; charset=utf-8" },
    { "/machine.js", "machine.js", "text/javascript; charset=utf-8" },
    { "/icon.svg", "icon.svg", "image/svg+xml" },
};
enum { FILES = sizeof files / sizeof *files };

typedef struct text {
    const char *type, *p;
    size_t n;
} text;

static text get(const char *path)
{
    text t = { 0 };
    const unsigned char *data = NULL;
    assert_true(ns_page_find(path, &t.type, &data, &t.n));
    t.p = (const char *)data;
    return t;
}

static const char *find(const text *t, const char *word)
{
    return memmem(t->p, t->n, word, strlen(word));
}

static void test_found(void **state)
{
    (void)state;
    const char *src = getenv("NS_TEST_SRC");
    for (int i = 0; i < FILES; i++) {
        text t = get(files[i].path);
        assert_string_equal(t.type, files[i].type);
        assert_true(t.n > 0);
        assert_int_equal(t.p[t.n - 1], '\n');
        if (!src)
            continue;
        char path[4096];
        ns_buf b = { 0 };
        ns_err e = { 0 };
        snprintf(path, sizeof path, "%s/src/serve/page/%s", src, files[i].file);
        assert_int_equal(ns_file_read(path, 1 << 20, &b, &e), 0);
        assert_int_equal(t.n, b.len);
        assert_memory_equal(t.p, b.data, b.len);
        ns_buf_release(&b);
    }
}

static void test_not_found(void **state)
{
    (void)state;
    static const char *const paths[] = { "",         "page.css",     "/page.cs",  "/page.css/",         "/index.html/..", "//",
                                         "/PAGE.JS", "/../page.css", "/page.css%00", "/page/index.html", "/v1/models" };
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        const char *type = NULL;
        const unsigned char *data = NULL;
        size_t n = 0;
        assert_false(ns_page_find(paths[i], &type, &data, &n));
        assert_null(data);
    }
}

/* No address with a host: the one name that looks like one is SVG's namespace. */
static void test_nothing_from_elsewhere(void **state)
{
    (void)state;
    static const char svg[] = "http://www.w3.org/2000/svg";
    for (int i = 0; i < FILES; i++) {
        text t = get(files[i].path);
        for (size_t at = 0; at + 2 < t.n; at++) {
            if (t.p[at] != '/' || t.p[at + 1] != '/' || isspace((unsigned char)t.p[at + 2])) /* "// " begins a comment */
                continue;
            size_t before = strlen("http:");
            assert_true(at >= before && t.n - at + before >= strlen(svg));
            assert_memory_equal(t.p + at - before, svg, strlen(svg));
        }
        assert_null(find(&t, "@import"));
        assert_null(find(&t, "data:,"));
    }
}

/* What default-src 'self' forbids, and what would make markup of a model's text. */
static void test_policy(void **state)
{
    (void)state;
    text html = get("/");
    for (size_t at = 0; at + 7 < html.n; at++)
        if (memcmp(html.p + at, "<script", 7) == 0)
            assert_memory_equal(html.p + at, "<script src=\"", strlen("<script src=\""));
    static const char *const inlined[] = { "<style", " style=", " onclick=", " onload=", "javascript:" };
    for (size_t i = 0; i < sizeof inlined / sizeof *inlined; i++)
        assert_null(find(&html, inlined[i]));
    static const char *const unsafe[] = { "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "localStorage", "sessionStorage", "cookie" };
    for (size_t i = 0; i < sizeof unsafe / sizeof *unsafe; i++)
        for (int f = 0; f < FILES; f++) {
            text t = get(files[f].path);
            assert_null(find(&t, unsafe[i]));
        }
}

/* Every file that the page names is one that is found, and together they are small. */
static void test_whole(void **state)
{
    (void)state;
    text html = get("/");
    size_t all = 0;
    for (int i = 0; i < FILES; i++) {
        all += get(files[i].path).n;
        if (i > 0)
            assert_non_null(find(&html, files[i].file));
    }
    assert_true(all < 25000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_found),  cmocka_unit_test(test_not_found), cmocka_unit_test(test_nothing_from_elsewhere),
        cmocka_unit_test(test_policy), cmocka_unit_test(test_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
