/* JSON through jansson, with the project's errors: the file and the key at fault are always named.
 * Values are jansson's (json_t *, reference counted, json_decref by the owner). */
#ifndef NS_BASE_JSON_H
#define NS_BASE_JSON_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Strict JSON (RFC 8259): UTF-8, no duplicate keys, no trailing bytes, nesting bounded. `what` names the text in errors.
 * `python` also accepts the bare words Infinity, -Infinity and NaN that Python's json module writes (NaN is read as null). */
json_t *ns_json_parse(const char *text, size_t len, bool python, const char *what, ns_err *e);
json_t *ns_json_open(const char *path, bool python, ns_err *e);

/* Typed look-ups in an object. A missing or null key gives the default; a value of the wrong type or range is an error
 * that names the key. */
int ns_json_int(const json_t *obj, const char *key, int64_t lo, int64_t hi, int64_t dflt, int64_t *out, ns_err *e);
int ns_json_real(const json_t *obj, const char *key, double dflt, double *out, ns_err *e);
int ns_json_bool(const json_t *obj, const char *key, bool dflt, bool *out, ns_err *e);
/* Borrowed from obj, or dflt. */
int ns_json_str(const json_t *obj, const char *key, const char *dflt, const char **out, ns_err *e);
#endif
