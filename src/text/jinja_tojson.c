/* JSON in (the variables) and out (the tojson filter: Python's json.dumps with Hugging Face's defaults). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_run.h"
#include "text/jinja_text.h"

static int from_array(ns_jrun *r, const json_t *j, bool untrusted, ns_jval *out)
{
    ns_jlist *l = ns_jlist_new(r, json_array_size(j), untrusted);
    if (!l)
        return -1;
    for (size_t i = 0; i < l->n; i++)
        if (ns_jval_from_json(r, json_array_get(j, i), untrusted, &l->v[i]))
            return -1;
    *out = (ns_jval){ .kind = NS_J_LIST, .l = l };
    return 0;
}

static int from_object(ns_jrun *r, const json_t *j, bool untrusted, ns_jval *out)
{
    ns_jdict *d = ns_jdict_new(r, json_object_size(j), untrusted);
    if (!d)
        return -1;
    /* jansson iterates in insertion order and keys are unique, so nothing is looked up. */
    for (void *it = json_object_iter((json_t *)j); it; it = json_object_iter_next((json_t *)j, it)) {
        const char *key = json_object_iter_key(it);
        const ns_jstr *k = ns_jstr_new(r, key, strlen(key), untrusted);
        if (!k || d->n == d->cap || ns_jval_from_json(r, json_object_iter_value(it), untrusted, &d->v[d->n].v))
            return -1;
        d->v[d->n++].k = ns_jv_str(k);
    }
    *out = (ns_jval){ .kind = NS_J_DICT, .d = d };
    return 0;
}

static int from_value(ns_jrun *r, const json_t *j, bool untrusted, ns_jval *out)
{
    const ns_jstr *s;
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        return from_object(r, j, untrusted, out);
    case JSON_ARRAY:
        return from_array(r, j, untrusted, out);
    case JSON_STRING: /* the bytes stay jansson's; the caller keeps `vars` alive */
        s = ns_jstr_new(r, json_string_value(j), json_string_length(j), untrusted);
        *out = ns_jv_str(s);
        return s ? 0 : -1;
    case JSON_INTEGER:
        *out = ns_jv_int(json_integer_value(j));
        return 0;
    case JSON_REAL:
        *out = ns_jv_float(json_real_value(j));
        return 0;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = ns_jv_bool(json_is_true(j));
        return 0;
    default:
        *out = ns_jv_none();
        return 0;
    }
}

int ns_jval_from_json(ns_jrun *r, const json_t *j, bool untrusted, ns_jval *out)
{
    if (ns_jrun_enter(r))
        return -1;
    int rc = from_value(r, j, untrusted, out);
    r->depth--;
    return rc;
}

typedef struct dumper {
    ns_jrun *r;
    ns_jbuf b;
    bool ascii, sort;
    const ns_jstr *indent; /* NULL: on one line */
    const ns_jstr *item_sep, *key_sep;
    int level;
} dumper;

static int dump(dumper *d, ns_jval v);

static void dump_escaped(dumper *d, uint32_t c, bool taint)
{
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    const char *known = c && c < 128 ? strchr(from, (int)c) : NULL;
    char text[16];
    if (known)
        snprintf(text, sizeof text, "\\%c", to[known - from]);
    else if (c < 0x20 || (d->ascii && c >= 0x7f && c < 0x10000))
        snprintf(text, sizeof text, "\\u%04x", c);
    else if (d->ascii && c >= 0x10000)
        snprintf(text, sizeof text, "\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10), 0xdc00 + (c & 0x3ff));
    else {
        ns_jbuf_addc(d->r, &d->b, c, taint);
        return;
    }
    ns_jbuf_addz(d->r, &d->b, text, taint);
}

static const char *plain_run(const char *p, const char *end)
{
    while (p < end && (unsigned char)*p >= 0x20 && *p != '"' && *p != '\\')
        p++;
    return p;
}

static void dump_string(dumper *d, const ns_jstr *s)
{
    bool taint = ns_jstr_any_untrusted(s);
    const char *p = s->p, *end = p + s->n;
    ns_jbuf_addc(d->r, &d->b, '"', taint);
    while (p < end && !d->b.failed) {
        const char *at = p;
        if (!s->t && !d->ascii) /* what needs no escape goes in one piece */
            p = plain_run(p, end);
        if (p > at) {
            ns_jbuf_add(d->r, &d->b, at, (size_t)(p - at), s->untrusted);
            continue;
        }
        uint32_t c = ns_jtext_next(&p, end);
        dump_escaped(d, c, s->t ? s->t[at - s->p] : s->untrusted);
    }
    ns_jbuf_addc(d->r, &d->b, '"', taint);
}

static void newline(dumper *d, bool taint)
{
    if (!d->indent)
        return;
    ns_jbuf_addc(d->r, &d->b, '\n', taint);
    for (int i = 0; i < d->level && !d->b.failed; i++)
        ns_jbuf_add(d->r, &d->b, d->indent->p, d->indent->n, taint);
}

static void separator(dumper *d, size_t index, bool taint)
{
    if (index)
        ns_jbuf_add(d->r, &d->b, d->item_sep->p, d->item_sep->n, taint || ns_jstr_any_untrusted(d->item_sep));
    newline(d, taint);
}

static int dump_list(dumper *d, const ns_jlist *l)
{
    ns_jbuf_addc(d->r, &d->b, '[', l->untrusted);
    d->level++;
    for (size_t i = 0; i < l->n; i++) {
        separator(d, i, l->untrusted);
        if (dump(d, l->v[i]))
            return -1;
    }
    d->level--;
    if (l->n)
        newline(d, l->untrusted);
    ns_jbuf_addc(d->r, &d->b, ']', l->untrusted);
    return 0;
}

static void number_text(ns_jval v, char out[40])
{
    if (v.kind == NS_J_NONE)
        strcpy(out, "null");
    else if (v.kind == NS_J_BOOL)
        strcpy(out, v.i ? "true" : "false");
    else if (v.kind == NS_J_INT)
        snprintf(out, 40, "%lld", (long long)v.i);
    else if (isnan(v.f) || isinf(v.f))
        strcpy(out, isnan(v.f) ? "NaN" : v.f > 0 ? "Infinity" : "-Infinity");
    else
        ns_jprint_float(v.f, out);
}

static int dump_key(dumper *d, ns_jval k, bool taint)
{
    char text[40];
    if (k.kind == NS_J_STR) {
        dump_string(d, k.s);
        return 0;
    }
    if (k.kind != NS_J_NONE && !ns_jv_is_num(k))
        return ns_jrun_fail(d->r, NS_EINVAL, "keys must be str, int, float, bool or None, not %s", ns_jval_type(k));
    number_text(k, text);
    ns_jbuf_addc(d->r, &d->b, '"', taint);
    ns_jbuf_addz(d->r, &d->b, text, taint);
    ns_jbuf_addc(d->r, &d->b, '"', taint);
    return 0;
}

/* The dict itself, or a copy in the order of its keys. */
static const ns_jdict *sorted(dumper *d, const ns_jdict *src)
{
    ns_jlist *at = ns_jlist_new(d->r, src->n, false);
    ns_jval *keys = ns_jrun_array(d->r, src->n, sizeof *keys);
    ns_jdict *out = ns_jdict_new(d->r, src->n, src->untrusted);
    if (!at || !keys || !out)
        return NULL;
    for (size_t i = 0; i < src->n; i++) {
        at->v[i] = ns_jv_int((int64_t)i);
        keys[i] = src->v[i].k;
    }
    if (ns_jlist_sort(d->r, at, keys, false))
        return NULL;
    for (; out->n < src->n; out->n++)
        out->v[out->n] = src->v[at->v[out->n].i];
    return out;
}

static int dump_dict(dumper *d, const ns_jdict *m)
{
    if (d->sort && !(m = sorted(d, m)))
        return -1;
    ns_jbuf_addc(d->r, &d->b, '{', m->untrusted);
    d->level++;
    for (size_t i = 0; i < m->n; i++) {
        separator(d, i, m->untrusted);
        if (dump_key(d, m->v[i].k, m->untrusted))
            return -1;
        ns_jbuf_add(d->r, &d->b, d->key_sep->p, d->key_sep->n, m->untrusted || ns_jstr_any_untrusted(d->key_sep));
        if (dump(d, m->v[i].v))
            return -1;
    }
    d->level--;
    if (m->n)
        newline(d, m->untrusted);
    ns_jbuf_addc(d->r, &d->b, '}', m->untrusted);
    return 0;
}

static int dump_value(dumper *d, ns_jval v)
{
    char text[40];
    if (v.kind == NS_J_STR) {
        dump_string(d, v.s);
        return 0;
    }
    if (v.kind == NS_J_LIST || v.kind == NS_J_TUPLE)
        return dump_list(d, v.l);
    if (v.kind == NS_J_DICT)
        return dump_dict(d, v.d);
    if (v.kind != NS_J_NONE && !ns_jv_is_num(v))
        return ns_jrun_fail(d->r, NS_EINVAL, "object of type %s is not JSON serializable", ns_jval_type(v));
    number_text(v, text);
    ns_jbuf_addz(d->r, &d->b, text, false);
    return 0;
}

static int dump(dumper *d, ns_jval v)
{
    if (ns_jrun_enter(d->r))
        return -1;
    int rc = dump_value(d, v);
    d->r->depth--;
    return rc || d->b.failed ? -1 : 0;
}

/* indent: spaces by number, or the string itself. */
static int read_indent(dumper *d, ns_jval v)
{
    ns_jbuf spaces = { 0 };
    if (v.kind == NS_J_MISSING || v.kind == NS_J_NONE)
        return 0;
    if (v.kind == NS_J_STR) {
        d->indent = v.s;
        return 0;
    }
    if (!ns_jv_is_int(v) || v.i > 1000)
        return ns_jrun_fail(d->r, NS_EINVAL, "tojson: indent must be a small number or a string, not %s", ns_jval_type(v));
    for (int64_t i = 0; i < v.i; i++)
        ns_jbuf_addc(d->r, &spaces, ' ', false);
    d->indent = ns_jbuf_take(d->r, &spaces);
    return d->indent ? 0 : -1;
}

static int read_separators(dumper *d, ns_jval v)
{
    static const ns_jstr comma = { .p = ",", .n = 1 }, comma_space = { .p = ", ", .n = 2 }, colon = { .p = ": ", .n = 2 };
    d->item_sep = d->indent ? &comma : &comma_space;
    d->key_sep = &colon;
    if (v.kind == NS_J_MISSING || v.kind == NS_J_NONE)
        return 0;
    bool pair = (v.kind == NS_J_TUPLE || v.kind == NS_J_LIST) && v.l->n == 2;
    if (!pair || v.l->v[0].kind != NS_J_STR || v.l->v[1].kind != NS_J_STR)
        return ns_jrun_fail(d->r, NS_EINVAL, "tojson: separators must be two strings");
    d->item_sep = v.l->v[0].s;
    d->key_sep = v.l->v[1].s;
    return 0;
}

static int tojson(ns_jrun *r, ns_jval self, const ns_jargs *args, const ns_jval *a, ns_jval *out)
{
    (void)args;
    dumper d = { .r = r, .ascii = ns_jval_truth(a[0]), .sort = ns_jval_truth(a[3]) };
    if (read_indent(&d, a[1]) || read_separators(&d, a[2]) || dump(&d, self))
        return -1;
    const ns_jstr *s = ns_jbuf_take(r, &d.b);
    *out = ns_jv_str(s);
    return s ? 0 : -1;
}

const ns_jbuiltin ns_jfilter_tojson = { "tojson", "?ensure_ascii ?indent ?separators ?sort_keys", tojson };
