/* Pictures by gnuplot: a script is put together in an ns_buf and run through a pipe. Text from outside goes in through ns_gnuplot_quote
 * only, numbers through printf. */
#ifndef NS_BASE_GNUPLOT_H
#define NS_BASE_GNUPLOT_H
#include "base/buf.h"

bool ns_ends_with(const char *s, const char *end); /* something stands before the end, too */
/* In gnuplot's single quotes, where only the quote itself is special; control characters become '?'. */
void ns_gnuplot_quote(ns_buf *script, const char *s);
/* Terminal and output: SVG or PNG by the end of `kind`'s name ("a.svg"), written to `path`. Sizes in pixels; `options` (such as
 * "font ',14'") are the terminal's, both kinds'; may be "". */
void ns_gnuplot_output(ns_buf *script, const char *kind, const char *path, int width, int height, const char *options);
/* Text in the script is UTF-8. */
int ns_gnuplot_run(const ns_buf *script, ns_err *e);
#endif
