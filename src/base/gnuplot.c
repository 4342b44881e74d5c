#include "base/gnuplot.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

bool ns_ends_with(const char *s, const char *end)
{
    const size_t n = strlen(s), k = strlen(end);
    return n > k && strcmp(s + n - k, end) == 0;
}

void ns_gnuplot_quote(ns_buf *b, const char *s)
{
    ns_buf_addc(b, '\'');
    for (; *s; s++) {
        if (*s == '\'')
            ns_buf_addc(b, '\'');
        ns_buf_addc(b, iscntrl((unsigned char)*s) ? '?' : *s);
    }
    ns_buf_addc(b, '\'');
}

void ns_gnuplot_output(ns_buf *b, const char *kind, const char *path, int width, int height, const char *options)
{
    const bool svg = ns_ends_with(kind, ".svg");
    ns_buf_addf(b, "set terminal %s size %d, %d %s%s\nset output ", svg ? "svg" : "pngcairo", width, height, options,
                svg ? " background 'white'" : "");
    ns_gnuplot_quote(b, path);
    ns_buf_addc(b, '\n');
}

int ns_gnuplot_run(const ns_buf *script, ns_err *e)
{
    if (script->failed)
        return ns_fail(e, NS_ENOMEM, "gnuplot: out of memory");
    if (system("command -v gnuplot >/dev/null 2>&1") != 0)
        return ns_fail(e, NS_EUNSUPPORTED, "there is no gnuplot: install the package gnuplot-nox");
    FILE *p = popen("LC_ALL=C.UTF-8 gnuplot", "w");
    if (!p)
        return ns_fail_errno(e, "gnuplot");
    const bool written = fwrite(script->data, 1, script->len, p) == script->len;
    const int status = pclose(p);
    if (!written || status == -1 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return ns_fail(e, NS_EIO, "gnuplot failed");
    return 0;
}
