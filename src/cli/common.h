/* What the commands share: option parsing on top of argp, output, progress, small inputs.
 * Usage errors end the process with status 2 inside argp, before anything was opened; everything else goes up as an ns_err. */
#ifndef NS_CLI_COMMON_H
#define NS_CLI_COMMON_H
#include <argp.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/err.h"
#include "text/tokenizer_ids.h"

/* ---- options ---- */

/* Keys of long options without a letter; every argp below has its own range. */
enum { NS_CLI_KEY_ENGINE = 0x100, NS_CLI_KEY_ANSWER = 0x200, NS_CLI_KEY_COMMAND = 0x300 };

void ns_cli_parse(const struct argp *argp, int argc, char **argv, void *input);
/* For ARGP_KEY_ARG and ARGP_KEY_END: the one positional argument, and its absence. */
void ns_cli_positional(struct argp_state *s, const char **slot, const char *arg);
void ns_cli_required(struct argp_state *s, const char *value, const char *name);
/* Numbers; anything else, and anything outside, is a usage error that names the option. */
long long ns_cli_int(struct argp_state *s, const char *option, const char *arg, long long lo, long long hi);
double ns_cli_real(struct argp_state *s, const char *option, const char *arg, double lo, double hi);
uint64_t ns_cli_u64(struct argp_state *s, const char *option, const char *arg);
size_t ns_cli_bytes(struct argp_state *s, const char *option, const char *arg); /* "5GB" */
enum ns_kv ns_cli_kv(struct argp_state *s, const char *option, const char *arg); /* "f32", "fp8" */

/* --nest, --threads, --load, --kv, --activations: a child argp whose input is an ns_cli_engine. */
typedef struct ns_cli_engine {
    const char *nest;
    int threads, act_bits;
    bool huge;
    enum ns_kv kv;
} ns_cli_engine;
extern const struct argp ns_cli_engine_argp;
ns_engine *ns_cli_engine_open(const char *dir, const ns_cli_engine *a, bool no_text, ns_err *e);

/* ---- input ---- */

/* A file, or standard input for NULL and "-". */
int ns_cli_read(const char *path, ns_buf *out, ns_err *e);
/* Numbers between white space, or a JSON array of them. */
int ns_cli_ids_parse(const char *text, size_t n, const char *what, ns_ids *out, ns_err *e);
/* Calls `line` for every line of standard input that is not blank and prints the JSON object that it returns, as one line.
 * A line that is no JSON object, and one for which `line` returns NULL and fills its error, is answered with {"error": ..}. */
typedef json_t *ns_cli_line(void *ctx, const json_t *object, ns_err *e);
int ns_cli_jsonl(ns_cli_line *line, void *ctx, ns_err *e);

/* ---- output ---- */

/* To standard output, at once. */
int ns_cli_write(const void *p, size_t n, ns_err *e);
/* One value and a newline; indented, or on one line. */
int ns_cli_json(const json_t *v, bool indent, ns_err *e);
/* Ends a command: flushes standard output, prints the error ("nestar run: ..") and returns the exit status. A reader who closed
 * the pipe is no error. */
int ns_cli_exit(const char *argv0, int rc, const ns_err *e);

/* A line on stderr that is rewritten while something runs; nothing when stderr is no terminal, unless `always`. */
typedef struct ns_cli_progress {
    const char *what, *unit; /* what is counted; NULL: bytes */
    bool on, tty;
    double start, last;
} ns_cli_progress;
ns_cli_progress ns_cli_progress_start(const char *what, bool always);
void ns_cli_progress_update(void *progress, size_t done, size_t total);
void ns_cli_progress_end(ns_cli_progress *p);
#endif
