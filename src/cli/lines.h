/* Lines from a person or a pipe: edited with libedit where standard input and output are a terminal, read plainly otherwise. */
#ifndef NS_CLI_LINES_H
#define NS_CLI_LINES_H
#include "base/buf.h"

typedef struct ns_cli_lines ns_cli_lines;

ns_cli_lines *ns_cli_lines_new(const char *prompt); /* borrowed; NULL when memory is out */
/* A line without its newline into `out` (cleared first); 0 at the end of input, and on Ctrl-C at an empty prompt. */
int ns_cli_lines_get(ns_cli_lines *l, ns_buf *out);
void ns_cli_lines_free(ns_cli_lines *l);
#endif
