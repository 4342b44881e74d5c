#include "base/json.h"

#include <string.h>

#include "base/buf.h"
#include "base/file.h"

enum { JSON_FILE_LIMIT = 512 << 20 };

/* Python's json module writes Infinity, -Infinity and NaN bare; JSON has no such words. Outside strings they become a
 * number that overflows to infinity on use (1e308 * 10 is not JSON either, so the largest double stands in) and null. */
static void python_words(const char *s, size_t n, ns_buf *out)
{
    static const struct { const char *word, *json; } words[] = { { "Infinity", "1.7976931348623157e308" }, { "NaN", "null" } };
    bool in_string = false;
    for (size_t i = 0; i < n;) {
        if (in_string) {
            if (s[i] == '\\' && i + 1 < n)
                ns_buf_addc(out, s[i++]);
            else if (s[i] == '"')
                in_string = false;
            ns_buf_addc(out, s[i++]);
            continue;
        }
        size_t w = 0;
        while (w < 2 && !(n - i >= strlen(words[w].word) && memcmp(s + i, words[w].word, strlen(words[w].word)) == 0))
            w++;
        if (w < 2) {
            ns_buf_adds(out, words[w].json);
            i += strlen(words[w].word);
            continue;
        }
        in_string = s[i] == '"';
        ns_buf_addc(out, s[i++]);
    }
}

json_t *ns_json_parse(const char *text, size_t len, bool python, const char *what, ns_err *e)
{
    json_error_t je;
    json_t *v = NULL;
    ns_buf tmp = { 0 };
    const char *nul = len ? memchr(text, 0, len) : NULL;
    if (nul) { /* never legal in JSON, but jansson 2.14 overlooks one that follows a number */
        ns_fail(e, NS_EFORMAT, "%s: JSON, NUL byte at offset %zu", what, (size_t)(nul - text));
        return NULL;
    }
    if (python) {
        python_words(text, len, &tmp);
        if (tmp.failed) {
            ns_fail(e, NS_ENOMEM, "%s: out of memory", what);
            goto out;
        }
        text = tmp.data ? tmp.data : "";
        len = tmp.len;
    }
    /* JSON_ALLOW_NUL: U+0000 inside strings is legal JSON, and byte-level vocabularies may hold it. */
    v = json_loadb(text ? text : "", len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &je);
    if (!v)
        ns_fail(e, NS_EFORMAT, "%s: JSON, line %d column %d: %s", what, je.line, je.column, je.text);
out:
    ns_buf_release(&tmp);
    return v;
}

json_t *ns_json_open(const char *path, bool python, ns_err *e)
{
    ns_buf b = { 0 };
    json_t *v = NULL;
    if (ns_file_read(path, JSON_FILE_LIMIT, &b, e) == 0)
        v = ns_json_parse(b.data, b.len, python, path, e);
    ns_buf_release(&b);
    return v;
}

static const json_t *lookup(const json_t *obj, const char *key)
{
    const json_t *v = json_object_get(obj, key);
    return v && !json_is_null(v) ? v : NULL;
}

int ns_json_int(const json_t *obj, const char *key, int64_t lo, int64_t hi, int64_t dflt, int64_t *out, ns_err *e)
{
    const json_t *v = lookup(obj, key);
    *out = dflt;
    if (!v)
        return 0;
    if (!json_is_integer(v))
        return ns_fail(e, NS_EFORMAT, "key \"%s\": expected an integer", key);
    int64_t x = json_integer_value(v);
    if (x < lo || x > hi)
        return ns_fail(e, NS_EFORMAT, "key \"%s\": %lld is outside %lld..%lld", key, (long long)x, (long long)lo, (long long)hi);
    *out = x;
    return 0;
}

int ns_json_real(const json_t *obj, const char *key, double dflt, double *out, ns_err *e)
{
    const json_t *v = lookup(obj, key);
    *out = dflt;
    if (!v)
        return 0;
    if (!json_is_number(v))
        return ns_fail(e, NS_EFORMAT, "key \"%s\": expected a number", key);
    *out = json_number_value(v);
    return 0;
}

int ns_json_bool(const json_t *obj, const char *key, bool dflt, bool *out, ns_err *e)
{
    const json_t *v = lookup(obj, key);
    *out = dflt;
    if (!v)
        return 0;
    if (!json_is_boolean(v))
        return ns_fail(e, NS_EFORMAT, "key \"%s\": expected true or false", key);
    *out = json_is_true(v);
    return 0;
}

int ns_json_str(const json_t *obj, const char *key, const char *dflt, const char **out, ns_err *e)
{
    const json_t *v = lookup(obj, key);
    *out = dflt;
    if (!v)
        return 0;
    if (!json_is_string(v))
        return ns_fail(e, NS_EFORMAT, "key \"%s\": expected a string", key);
    *out = json_string_value(v);
    return 0;
}
