#include "serve/call_markup.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

enum { OPEN, NAME, BODY, PARAM, VALUE, CLOSE }; /* what comes next */
enum { NAME_BYTES = 256, SCHEMA_PARTS = 64 };

static const char value_end[] = "</parameter>";

static bool is_space(char ch)
{
    return ch == ' ' || ch == '\n' || ch == '\t' || ch == '\r';
}

/* Is the word at pos (then pos goes behind it)? MORE: its beginning is. */
static enum ns_call_read tag(ns_call *c, const char *p, size_t n, const char *word)
{
    size_t len = strlen(word), have = n - c->pos < len ? n - c->pos : len;
    if (memcmp(p + c->pos, word, have) != 0)
        return NS_CALL_NOT;
    if (have < len)
        return NS_CALL_MORE;
    c->pos += len;
    return NS_CALL_WHOLE;
}

/* A name up to ">". */
static enum ns_call_read name(ns_call *c, const char *p, size_t n, ns_call_span *out)
{
    size_t i = c->pos;
    while (i < n && i - c->pos <= NAME_BYTES && !strchr("<>\n", p[i]))
        i++;
    if (i == n)
        return NS_CALL_MORE;
    if (p[i] != '>' || i == c->pos)
        return NS_CALL_NOT;
    *out = (ns_call_span){ c->pos, i - c->pos };
    c->pos = i + 1;
    return NS_CALL_WHOLE;
}

static ns_call_param *add_param(ns_call *c)
{
    if (c->n_params == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 4;
        ns_call_param *p = realloc(c->param, cap * sizeof *p);
        if (!p) {
            c->failed = true;
            return NULL;
        }
        c->param = p;
        c->cap = cap;
    }
    c->param[c->n_params] = (ns_call_param){ 0 };
    return &c->param[c->n_params++];
}

static enum ns_call_read value(ns_call *c, const char *p, size_t n)
{
    size_t len = sizeof value_end - 1, from = c->scan > c->pos ? c->scan : c->pos;
    const char *end = memmem(p + from, n - from, value_end, len);
    if (!end) {
        c->scan = n > c->pos + len ? n - len : c->pos;
        return NS_CALL_MORE;
    }
    ns_call_span v = { c->pos, (size_t)(end - p) - c->pos };
    c->pos += v.n + len;
    if (v.n && p[v.at] == '\n') { /* the template's line breaks around it */
        v.at++;
        v.n--;
    }
    if (v.n && p[v.at + v.n - 1] == '\n')
        v.n--;
    c->param[c->n_params - 1].value = v;
    return NS_CALL_WHOLE;
}

enum ns_call_read ns_call_read(ns_call *c, const char *p, size_t n)
{
    enum ns_call_read r = NS_CALL_WHOLE;
    if (c->pos == 0)
        c->pos = sizeof NS_CALL_OPEN - 1;
    while (r == NS_CALL_WHOLE) {
        if (c->state == OPEN || c->state == BODY || c->state == CLOSE)
            while (c->pos < n && is_space(p[c->pos]))
                c->pos++;
        switch (c->state) {
        case OPEN:
            if ((r = tag(c, p, n, "<function=")) == NS_CALL_WHOLE)
                c->state = NAME;
            break;
        case NAME:
            if ((r = name(c, p, n, &c->name)) == NS_CALL_WHOLE)
                c->state = BODY;
            break;
        case BODY:
            if ((r = tag(c, p, n, "<parameter=")) == NS_CALL_WHOLE) {
                c->state = PARAM;
                if (!add_param(c))
                    return NS_CALL_NOT;
            } else if (r == NS_CALL_NOT && (r = tag(c, p, n, "</function>")) == NS_CALL_WHOLE)
                c->state = CLOSE;
            break;
        case PARAM:
            if ((r = name(c, p, n, &c->param[c->n_params - 1].name)) == NS_CALL_WHOLE)
                c->state = VALUE;
            break;
        case VALUE:
            if ((r = value(c, p, n)) == NS_CALL_WHOLE)
                c->state = BODY;
            break;
        default: return tag(c, p, n, "</tool_call>");
        }
    }
    return r;
}

void ns_call_release(ns_call *c)
{
    free(c->param);
    *c = (ns_call){ 0 };
}

/* ---- arguments ---- */

enum { T_STRING = 1, T_NUMBER = 2, T_BOOLEAN = 4, T_OBJECT = 8, T_ARRAY = 16, T_NULL = 32 };

static unsigned type_of_value(const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT: return T_OBJECT;
    case JSON_ARRAY: return T_ARRAY;
    case JSON_STRING: return T_STRING;
    case JSON_NULL: return T_NULL;
    case JSON_TRUE:
    case JSON_FALSE: return T_BOOLEAN;
    default: return T_NUMBER;
    }
}

static unsigned type_of_word(const json_t *word)
{
    static const struct { const char *word; unsigned type; } types[] = { { "string", T_STRING }, { "integer", T_NUMBER }, { "number", T_NUMBER },
        { "boolean", T_BOOLEAN }, { "object", T_OBJECT }, { "array", T_ARRAY }, { "null", T_NULL } };
    for (size_t i = 0; json_is_string(word) && i < sizeof types / sizeof *types; i++)
        if (strcmp(json_string_value(word), types[i].word) == 0)
            return types[i].type;
    return 0;
}

/* "#/$defs/Name" and "#/definitions/Name", which is where schemas that programs write have their parts. */
static const json_t *follow(const json_t *schema, const json_t *root)
{
    static const char *const places[] = { "$defs", "definitions" };
    const char *ref = json_string_value(json_object_get(schema, "$ref"));
    for (size_t i = 0; ref && i < 2; i++) {
        size_t n = strlen(places[i]);
        if (strncmp(ref, "#/", 2) == 0 && strncmp(ref + 2, places[i], n) == 0 && ref[2 + n] == '/')
            return json_object_get(json_object_get(root, places[i]), ref + 3 + n);
    }
    return NULL;
}

/* The types that a schema allows; 0 where it does not say. Looks into `left` parts of it at most: references may go in circles. */
static unsigned types_of(const json_t *schema, const json_t *root, int *left)
{
    static const char *const unions[] = { "anyOf", "oneOf", "allOf" };
    const json_t *type = json_object_get(schema, "type"), *values = json_object_get(schema, "enum"), *v;
    unsigned types = type_of_word(type);
    size_t i;
    if (!schema || --*left < 0)
        return 0;
    json_array_foreach(type, i, v)
        types |= type_of_word(v);
    if (types)
        return types;
    json_array_foreach(values, i, v)
        types |= type_of_value(v);
    if ((v = json_object_get(schema, "const")))
        types |= type_of_value(v);
    for (size_t u = 0; u < sizeof unions / sizeof *unions; u++)
        json_array_foreach(json_object_get(schema, unions[u]), i, v)
            types |= types_of(v, root, left);
    return types | types_of(follow(schema, root), root, left);
}

static const json_t *parameters_of(const json_t *tools, const char *tool, size_t n)
{
    const json_t *t;
    size_t i;
    json_array_foreach(tools, i, t) {
        const json_t *f = json_object_get(t, "function") ? json_object_get(t, "function") : t, *has = json_object_get(f, "name");
        if (json_is_string(has) && json_string_length(has) == n && memcmp(json_string_value(has), tool, n) == 0)
            return json_object_get(f, "parameters");
    }
    return NULL;
}

static void add_string(ns_buf *out, const char *p, size_t n)
{
    json_t *s = json_stringn(p, n);
    char *text = s ? json_dumps(s, JSON_ENCODE_ANY) : NULL;
    if (text)
        ns_buf_adds(out, text);
    else
        out->failed = true;
    free(text);
    json_decref(s);
}

static const char *python_word(const char *p, size_t n, unsigned types)
{
    static const struct { const char *python, *json; unsigned type; } words[] = { { "True", "true", T_BOOLEAN }, { "False", "false", T_BOOLEAN },
                                                                                  { "None", "null", T_NULL } };
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (types & words[i].type && n == strlen(words[i].python) && memcmp(p, words[i].python, n) == 0)
            return words[i].json;
    return NULL;
}

/* The model's own spelling of numbers is kept: a number need not fit a double. */
static void add_value(ns_buf *out, const char *p, size_t n, unsigned types)
{
    size_t at = 0, len = n;
    while (len > 0 && is_space(p[at + len - 1]))
        len--;
    for (; len > 0 && is_space(p[at]); len--)
        at++;
    const char *word = python_word(p + at, len, types);
    json_t *v = types == T_STRING || word ? NULL : ns_json_parse(p + at, len, false, "", NULL);
    unsigned like = types == 0 ? T_OBJECT | T_ARRAY : types & T_STRING ? types & ~(unsigned)T_STRING : ~0u;
    if (word)
        ns_buf_adds(out, word);
    else if (v && type_of_value(v) & like)
        ns_buf_add(out, p + at, len);
    else
        add_string(out, p, n);
    json_decref(v);
}

static bool said_again(const ns_call *c, const char *p, size_t i)
{
    const ns_call_span *a = &c->param[i].name;
    for (size_t k = i + 1; k < c->n_params; k++)
        if (c->param[k].name.n == a->n && memcmp(p + c->param[k].name.at, p + a->at, a->n) == 0)
            return true;
    return false;
}

void ns_call_arguments(const ns_call *c, const char *p, const json_t *tools, ns_buf *out)
{
    const json_t *root = parameters_of(tools, p + c->name.at, c->name.n);
    const json_t *properties = json_object_get(root, "properties");
    const char *between = "";
    ns_buf_addc(out, '{');
    for (size_t i = 0; i < c->n_params; i++) {
        const ns_call_param *a = &c->param[i];
        const json_t *schema = json_object_getn(properties, p + a->name.at, a->name.n);
        int left = SCHEMA_PARTS;
        if (said_again(c, p, i))
            continue;
        ns_buf_adds(out, between);
        add_string(out, p + a->name.at, a->name.n);
        ns_buf_adds(out, ": ");
        add_value(out, p + a->value.at, a->value.n, types_of(schema, root, &left));
        between = ", ";
    }
    ns_buf_addc(out, '}');
}
