/* A template interpreter: the part of Jinja2 that published chat templates use, with the settings Hugging Face transformers
 * gives it (trim_blocks, lstrip_blocks, loop controls, immutable sandbox, tojson without HTML escapes).
 *
 * Python's printing rules are kept: floats as repr, True/False/None, lists and dicts as repr, strings indexed by code point.
 * Integers are 64-bit; overflow is an error. What lies outside the subset is refused by name and line, when the template is
 * parsed if it shows there, else while rendering. A parsed template is immutable: threads may share it.
 *
 * Provenance: every byte of the result is either trusted (written by the template: its text and string literals, or a value
 * the caller declared trusted) or untrusted (copied or derived from a caller's string). Numbers and booleans print trusted.
 *
 * Known differences from Jinja2: 64-bit integers; {% block %} and {% autoescape %} are refused; a name that the template sets
 * without having read it before is, inside blocks that run earlier, still the caller's variable (Jinja has it undefined). */
#ifndef NS_TEXT_JINJA_H
#define NS_TEXT_JINJA_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

typedef struct ns_jinja ns_jinja;

/* Asked for every variable (index < 0) and for every element of an array variable; true makes the whole value trusted. */
typedef bool ns_jinja_trust_fn(void *ctx, const char *name, const json_t *value, int index);

typedef struct ns_jinja_opts {
    ns_jinja_trust_fn *trust; /* NULL: nothing is trusted */
    void *trust_ctx;
    int64_t now;       /* seconds since 1970 for strftime_now; 0: the clock */
    size_t max_output; /* bytes of result */
    size_t max_memory; /* bytes of intermediate values */
    int64_t max_steps; /* nodes evaluated, iterations, and one per 32 bytes of string work */
} ns_jinja_opts;

ns_jinja_opts ns_jinja_defaults(void);

/* `what` names the template in messages ("chat_template.jinja:12: ..."). NULL on error. */
ns_jinja *ns_jinja_parse(const char *src, size_t n, const char *what, ns_err *e);
void ns_jinja_free(ns_jinja *t);

/* Appends the result to `text`, and to `taint` one byte per byte of text: 1 untrusted, 0 trusted. `vars` is an object. */
int ns_jinja_render(const ns_jinja *t, const json_t *vars, const ns_jinja_opts *opts, ns_buf *text, ns_buf *taint, ns_err *e);
#endif
