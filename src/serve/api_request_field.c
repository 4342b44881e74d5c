/* Members of an object by a table, and where they stand. */
#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "serve/api_request.h"

/* ---- errors ---- */

int ns_take_fail(ns_take *t, const char *code, const char *fmt, ...)
{
    char line[400];
    va_list args;
    va_start(args, fmt);
    vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    return ns_api_fail(t->err, 400, code, t->path, "%s%s%s", t->path, t->path[0] ? ": " : "", line);
}

int ns_take_no_memory(ns_take *t)
{
    return ns_api_fail(t->err, 500, NULL, NULL, "out of memory");
}

int ns_take_missing(ns_take *t, const char *member)
{
    size_t was = ns_take_enter(t, member);
    ns_take_fail(t, "missing_required_parameter", "is required");
    ns_take_leave(t, was);
    return -1;
}

int ns_take_expected(ns_take *t, const char *what, const json_t *v)
{
    static const char *const found[] = { [JSON_OBJECT] = "an object", [JSON_ARRAY] = "an array", [JSON_STRING] = "a string",
                                         [JSON_INTEGER] = "a number", [JSON_REAL] = "a number", [JSON_TRUE] = "true",
                                         [JSON_FALSE] = "false",      [JSON_NULL] = "null" };
    return ns_take_fail(t, "invalid_type", "expected %s, found %s", what, found[json_typeof(v)]);
}

const char *ns_take_kind(ns_take *t, const json_t *v, const char *member)
{
    const json_t *kind = json_object_get(v, member);
    if (!json_is_object(v))
        ns_take_expected(t, "an object", v);
    else if (!kind || json_is_null(kind))
        ns_take_missing(t, member);
    else if (!json_is_string(kind)) {
        ns_take_enter(t, member);
        ns_take_expected(t, "a string", kind);
    }
    return json_string_value(kind);
}

/* ---- the path; names that are too long for it are cut off, for they are the client's ---- */

static size_t enter(ns_take *t, const char *fmt, ...) NS_PRINTF(2, 3);
static size_t enter(ns_take *t, const char *fmt, ...)
{
    size_t was = t->at, room = sizeof t->path - t->at;
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(t->path + t->at, room, fmt, args);
    va_end(args);
    t->at += n > 0 && (size_t)n < room ? (size_t)n : room - 1;
    return was;
}

size_t ns_take_enter(ns_take *t, const char *member)
{
    return enter(t, "%s%s", t->at ? "." : "", member);
}

size_t ns_take_enter_at(ns_take *t, size_t index)
{
    return enter(t, "[%zu]", index);
}

void ns_take_leave(ns_take *t, size_t where)
{
    t->at = where;
    t->path[where] = 0;
}

/* ---- walking ---- */

int ns_take_members(ns_take *t, json_t *v, const ns_field *fields)
{
    const char *key;
    json_t *item;
    if (!json_is_object(v))
        return ns_take_expected(t, "an object", v);
    json_object_foreach(v, key, item) {
        const ns_field *f = fields;
        int rc = 0;
        size_t was = ns_take_enter(t, key);
        while (f->name && !(strcmp(f->name, key) == 0 && f->apis & 1u << t->r.api))
            f++;
        if (!f->name)
            rc = ns_take_fail(t, "unknown_parameter", "unknown parameter");
        else if (!json_is_null(item))
            rc = f->take(t, f, item);
        ns_take_leave(t, was);
        if (rc != 0)
            return -1;
    }
    return 0;
}

int ns_take_each(ns_take *t, json_t *array, int (*take)(ns_take *t, json_t *v))
{
    size_t i;
    json_t *item;
    json_array_foreach(array, i, item) {
        size_t was = ns_take_enter_at(t, i);
        int rc = take(t, item);
        ns_take_leave(t, was);
        if (rc != 0)
            return -1;
    }
    return 0;
}

int ns_take_scan(ns_take *t, const char *text, size_t n)
{
    bool in_string = false;
    int depth = 0;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (c == '"')
            in_string = !in_string;
        else if (in_string)
            i += c == '\\';
        else if (c == '[' || c == '{')
            t->weight += 8, depth++;
        else if (c == ']' || c == '}')
            depth--;
        else if (c == ',' || c == ':')
            t->weight += c == ',' ? 1 : 4;
        if (depth > NS_API_DEPTH)
            return ns_take_fail(t, NULL, "JSON nested deeper than %d", NS_API_DEPTH);
        if (t->weight > NS_API_WEIGHT)
            return ns_take_fail(t, NULL, "JSON of too many values");
    }
    return 0;
}

/* ---- values ---- */

static void *target(ns_take *t, const ns_field *f)
{
    return (char *)t + f->to;
}

static void keep(ns_take *t, const ns_field *f, json_t *v)
{
    if (f->to)
        memcpy(target(t, f), &v, sizeof v);
}

int ns_take_skip(ns_take *t, const ns_field *f, json_t *v)
{
    (void)t, (void)f, (void)v;
    return 0;
}

static int unsupported(ns_take *t, const char *held)
{
    return ns_take_fail(t, "unsupported_parameter", "not supported by this server%s", held);
}

int ns_take_refuse(ns_take *t, const ns_field *f, json_t *v)
{
    (void)f, (void)v;
    return unsupported(t, "");
}

int ns_take_zero(ns_take *t, const ns_field *f, json_t *v)
{
    (void)f;
    if (!json_is_number(v))
        return ns_take_expected(t, "a number", v);
    return fpclassify(json_number_value(v)) == FP_ZERO ? 0 : unsupported(t, " other than 0");
}

int ns_take_empty(ns_take *t, const ns_field *f, json_t *v)
{
    (void)f;
    bool holder = json_is_string(v) || json_is_array(v) || json_is_object(v); /* of other types all sizes are 0 */
    size_t n = json_string_length(v) + json_array_size(v) + json_object_size(v);
    return holder && n == 0 ? 0 : unsupported(t, " unless empty");
}

int ns_take_false(ns_take *t, const ns_field *f, json_t *v)
{
    (void)f;
    if (!json_is_boolean(v))
        return ns_take_expected(t, "true or false", v);
    return json_is_false(v) ? 0 : unsupported(t, " other than false");
}

int ns_take_bool(ns_take *t, const ns_field *f, json_t *v)
{
    bool yes = json_is_true(v);
    if (!json_is_boolean(v))
        return ns_take_expected(t, "true or false", v);
    if (f->to)
        memcpy(target(t, f), &yes, sizeof yes);
    return 0;
}

/* 16.0 is an integer to JSON Schema too. Written so that NaN would be refused. */
int ns_take_int(ns_take *t, const ns_field *f, json_t *v)
{
    double x = json_number_value(v);
    if (!json_is_number(v) || !(floor(x) >= x))
        return ns_take_expected(t, "an integer", v);
    if (!(x >= f->lo && x <= f->hi))
        return ns_take_fail(t, "invalid_value", "%.17g is outside %.17g .. %.17g", x, f->lo, f->hi);
    int i = (int)x;
    if (f->to)
        memcpy(target(t, f), &i, sizeof i);
    return 0;
}

int ns_take_real(ns_take *t, const ns_field *f, json_t *v)
{
    double x = json_number_value(v);
    if (!json_is_number(v))
        return ns_take_expected(t, "a number", v);
    if (!(x >= f->lo && x <= f->hi))
        return ns_take_fail(t, "invalid_value", "%.6g is outside %.6g .. %.6g", x, f->lo, f->hi);
    if (f->to)
        memcpy(target(t, f), &x, sizeof x);
    return 0;
}

/* "expected "a", "b" or "c"" into the error. */
static int not_of(ns_take *t, const char *const *words, const char *s)
{
    char list[200] = "";
    size_t at = 0;
    for (size_t i = 0; words[i] && at < sizeof list; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s\"%s\"", i == 0 ? "" : words[i + 1] ? ", " : " or ", words[i]);
    return ns_take_fail(t, "invalid_value", "\"%.60s\" is not supported; expected %s", s, list);
}

int ns_take_word(ns_take *t, const ns_field *f, json_t *v)
{
    const char *s = json_string_value(v);
    if (!s)
        return ns_take_expected(t, "a string", v);
    if (!*s || strlen(s) != json_string_length(v))
        return ns_take_fail(t, "invalid_value", *s ? "must not contain a NUL character" : "must not be empty");
    for (size_t i = 0; f->words; i++) {
        if (!f->words[i])
            return not_of(t, f->words, s);
        if (strcmp(f->words[i], s) == 0)
            break;
    }
    if (f->to)
        memcpy(target(t, f), &s, sizeof s);
    return 0;
}

int ns_take_copy(ns_take *t, const ns_field *f, json_t *v)
{
    ns_field plain = *f;
    plain.to = 0;
    size_t n = json_string_length(v);
    if (ns_take_word(t, &plain, v) != 0)
        return -1;
    if (n >= (size_t)f->hi)
        return ns_take_fail(t, "invalid_value", "%zu bytes, at most %zu are allowed", n, (size_t)f->hi - 1);
    memcpy(target(t, f), json_string_value(v), n + 1);
    return 0;
}

int ns_take_string(ns_take *t, const ns_field *f, json_t *v)
{
    if (!json_is_string(v))
        return ns_take_expected(t, "a string", v);
    keep(t, f, v);
    return 0;
}

int ns_take_object(ns_take *t, const ns_field *f, json_t *v)
{
    if (!json_is_object(v))
        return ns_take_expected(t, "an object", v);
    keep(t, f, v);
    return 0;
}

int ns_take_array(ns_take *t, const ns_field *f, json_t *v)
{
    if (!json_is_array(v))
        return ns_take_expected(t, "an array", v);
    keep(t, f, v);
    return 0;
}

int ns_take_any(ns_take *t, const ns_field *f, json_t *v)
{
    keep(t, f, v);
    return 0;
}

int ns_take_sub(ns_take *t, const ns_field *f, json_t *v)
{
    keep(t, f, v);
    return ns_take_members(t, v, f->sub);
}
