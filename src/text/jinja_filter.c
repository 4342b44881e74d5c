/* Filters over single values. Those over sequences are in jinja_filter_seq.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_run.h"

#define FILTER(name) static int name(ns_jrun *r, ns_jval self, const ns_jargs *args, const ns_jval *a, ns_jval *out)
#define UNUSED (void)args, (void)a

static int give(const ns_jstr *s, ns_jval *out)
{
    *out = ns_jv_str(s);
    return s ? 0 : -1;
}

static int change_case(ns_jrun *r, ns_jval self, char op, ns_jval *out)
{
    const ns_jstr *s = ns_jval_str(r, self);
    return s ? give(ns_jstr_case(r, s, op), out) : -1;
}

FILTER(f_upper)
{
    UNUSED;
    return change_case(r, self, 'u', out);
}

FILTER(f_lower)
{
    UNUSED;
    return change_case(r, self, 'l', out);
}

FILTER(f_title)
{
    UNUSED;
    return change_case(r, self, 'T', out);
}

FILTER(f_capitalize)
{
    UNUSED;
    return change_case(r, self, 'c', out);
}

FILTER(f_trim)
{
    UNUSED;
    const ns_jstr *s = ns_jval_str(r, self), *chars = NULL;
    if (!s || (a[0].kind != NS_J_MISSING && a[0].kind != NS_J_NONE && ns_jarg_str(r, a[0], &chars)))
        return -1;
    return give(ns_jstr_strip(r, s, chars, true, true), out);
}

FILTER(f_string)
{
    UNUSED;
    return give(ns_jval_str(r, self), out);
}

static const ns_jstr *marked(ns_jrun *r, const ns_jstr *s, bool markup)
{
    ns_jstr *m = s ? (ns_jstr *)ns_jstr_sub(r, s, 0, s->n) : NULL;
    if (m)
        m->markup = markup;
    return m;
}

FILTER(f_safe)
{
    UNUSED;
    return give(marked(r, ns_jval_str(r, self), true), out);
}

FILTER(f_escape)
{
    UNUSED;
    const ns_jstr *s = ns_jval_str(r, self);
    return s ? give(ns_jstr_escape(r, s), out) : -1;
}

FILTER(f_forceescape)
{
    UNUSED;
    const ns_jstr *s = marked(r, ns_jval_str(r, self), false);
    return s ? give(ns_jstr_escape(r, s), out) : -1;
}

FILTER(f_replace)
{
    UNUSED;
    const ns_jstr *s = ns_jval_str(r, self), *old = ns_jval_str(r, a[0]), *by = ns_jval_str(r, a[1]);
    int64_t count = -1;
    if (!s || !old || !by || (a[2].kind != NS_J_NONE && ns_jarg_int(r, a[2], -1, &count)))
        return -1;
    return give(marked(r, ns_jstr_replace(r, s, old, by, count), false), out);
}

FILTER(f_default)
{
    UNUSED;
    static const ns_jstr empty = { .p = "" };
    bool use = self.kind == NS_J_UNDEF || (ns_jval_truth(a[1]) && !ns_jval_truth(self));
    *out = !use ? self : a[0].kind == NS_J_MISSING ? ns_jv_str(&empty) : a[0];
    (void)r;
    return 0;
}

FILTER(f_attr)
{
    UNUSED;
    const ns_jstr *name;
    if (ns_jarg_str(r, a[0], &name))
        return -1;
    if (self.kind == NS_J_DICT) { /* |attr does not fall back to the key */
        bool mutates;
        const char *z = ns_jstr_cstr(r, name);
        if (!z)
            return -1;
        if (!ns_jmethod_find_box(self.kind, z, &mutates) && !mutates) {
            *out = ns_jv_undef(z, self.kind);
            return 0;
        }
    }
    const char *z = ns_jstr_cstr(r, name);
    return z ? ns_jrun_getattr(r, self, z, out) : -1;
}

static int float_to_int(ns_jrun *r, double f, ns_jval *out)
{
    if (isinf(f) || isnan(f) || fabs(f) >= 9223372036854775807.0)
        return ns_jrun_fail(r, NS_EINVAL, "cannot convert this float to a 64-bit integer");
    *out = ns_jv_int((int64_t)f);
    return 0;
}

FILTER(f_int)
{
    UNUSED;
    int64_t base, v;
    double f;
    *out = a[0].kind == NS_J_MISSING ? ns_jv_int(0) : a[0];
    if (ns_jarg_int(r, a[1], 10, &base))
        return -1;
    if (self.kind == NS_J_UNDEF)
        return ns_jrun_undefined(r, self);
    if (ns_jv_is_int(self)) {
        *out = ns_jv_int(self.i);
        return 0;
    }
    if (self.kind == NS_J_FLOAT)
        return isnan(self.f) ? 0 : float_to_int(r, self.f, out);
    if (self.kind != NS_J_STR)
        return 0;
    if (base != 2 && base != 8 && base != 10 && base != 16)
        return ns_jrun_fail(r, NS_EUNSUPPORTED, "filter int: base %lld is not supported", (long long)base);
    int ok = ns_jstr_to_int(r, self.s, (int)base, &v);
    if (ok > 0)
        *out = ns_jv_int(v);
    else if (ok == 0 && ns_jstr_to_float(r, self.s, &f) && isfinite(f))
        return float_to_int(r, f, out);
    return ok < 0 ? -1 : 0;
}

FILTER(f_float)
{
    UNUSED;
    double f;
    *out = a[0].kind == NS_J_MISSING ? ns_jv_float(0) : a[0];
    if (self.kind == NS_J_UNDEF)
        return ns_jrun_undefined(r, self);
    if (ns_jv_is_num(self))
        *out = ns_jv_float(ns_jv_num(self));
    else if (self.kind == NS_J_STR && ns_jstr_to_float(r, self.s, &f))
        *out = ns_jv_float(f);
    return 0;
}

FILTER(f_abs)
{
    UNUSED;
    if (!ns_jv_is_num(self))
        return ns_jrun_fail(r, NS_EINVAL, "bad operand type for abs(): '%s'", ns_jval_type(self));
    if (self.kind == NS_J_FLOAT)
        *out = ns_jv_float(fabs(self.f));
    else if (self.i < 0)
        return ns_jrun_negate(r, self, out);
    else
        *out = ns_jv_int(self.i);
    return 0;
}

FILTER(f_round)
{
    UNUSED;
    int64_t places;
    const ns_jstr *method = NULL;
    char text[400];
    if (ns_jarg_int(r, a[0], 0, &places) || (a[1].kind != NS_J_MISSING && ns_jarg_str(r, a[1], &method)))
        return -1;
    bool up = method && ns_jstr_is(method, "ceil"), down = method && ns_jstr_is(method, "floor");
    if (method && !up && !down && !ns_jstr_is(method, "common"))
        return ns_jrun_fail(r, NS_EINVAL, "round: method must be common, ceil or floor");
    if (!ns_jv_is_num(self))
        return ns_jrun_fail(r, NS_EINVAL, "cannot round a '%s'", ns_jval_type(self));
    if (places < 0 || places > 20)
        return ns_jrun_fail(r, NS_EUNSUPPORTED, "round: precision %lld is not supported", (long long)places);
    if (up || down) {
        double scale = pow(10, (double)places), v = ns_jv_num(self) * scale;
        *out = ns_jv_float((up ? ceil(v) : floor(v)) / scale);
    } else if (ns_jv_is_int(self))
        *out = ns_jv_int(self.i);
    else {
        snprintf(text, sizeof text, "%.*f", (int)places, self.f); /* the C library rounds the exact value, as Python does */
        *out = ns_jv_float(strtod(text, NULL));
    }
    return 0;
}

FILTER(f_format)
{
    (void)a;
    const ns_jstr *s = ns_jval_str(r, self);
    ns_jval values;
    if (!s)
        return -1;
    if (args->n && args->nkw)
        return ns_jrun_fail(r, NS_EINVAL, "format: positional and named arguments mixed");
    if (args->nkw) {
        ns_jdict *d = ns_jdict_new(r, (size_t)args->nkw, false);
        for (int i = 0; d && i < args->nkw; i++) {
            const ns_jstr *k = ns_jstr_new(r, args->kw[i], strlen(args->kw[i]), false);
            if (!k || ns_jdict_put(r, d, ns_jv_str(k), args->kwv[i]))
                return -1;
        }
        values = (ns_jval){ .kind = NS_J_DICT, .d = d };
    } else {
        ns_jlist *l = ns_jlist_new(r, (size_t)args->n, false);
        if (l && args->n)
            memcpy(l->v, args->v, (size_t)args->n * sizeof *l->v);
        values = (ns_jval){ .kind = NS_J_TUPLE, .l = l };
    }
    return values.l ? ns_jstr_percent(r, s, values, out) : -1;
}

/* Lines as splitlines cuts them, put together again with \n and the indent in front of those that are not empty. */
FILTER(f_indent)
{
    UNUSED;
    static const ns_jstr newline = { .p = "\n", .n = 1 };
    const ns_jstr *s, *by = NULL;
    ns_jbuf pad = { 0 }, b = { 0 };
    ns_jlist *lines;
    int64_t width;
    bool first = ns_jval_truth(a[1]), blank = ns_jval_truth(a[2]);
    if (ns_jarg_str(r, self, &s))
        return -1;
    if (a[0].kind == NS_J_STR)
        by = a[0].s;
    else if (ns_jarg_int(r, a[0], 4, &width))
        return -1;
    for (int64_t i = 0; !by && i < width && !pad.failed; i++)
        ns_jbuf_addc(r, &pad, ' ', false);
    if (!by && !(by = ns_jbuf_take(r, &pad)))
        return -1;
    const ns_jstr *text = ns_jstr_cat(r, s, &newline);
    if (!text || ns_jstr_splitlines(r, text, false, &lines))
        return -1;
    for (size_t i = 0; i < lines->n; i++) {
        if (i)
            ns_jbuf_adds(r, &b, &newline);
        if (i ? blank || lines->v[i].s->n : first)
            ns_jbuf_adds(r, &b, by);
        ns_jbuf_adds(r, &b, lines->v[i].s);
    }
    return give(ns_jbuf_take(r, &b), out);
}

const ns_jbuiltin *ns_jfilter_find(const char *name)
{
    static const ns_jbuiltin table[] = {
        { "abs", "", f_abs },
        { "attr", "name", f_attr },
        { "capitalize", "", f_capitalize },
        { "center", NULL, NULL },
        { "d", "?default_value ?boolean", f_default },
        { "default", "?default_value ?boolean", f_default },
        { "e", "", f_escape },
        { "escape", "", f_escape },
        { "filesizeformat", NULL, NULL },
        { "float", "?default", f_float },
        { "forceescape", "", f_forceescape },
        { "format", NULL, f_format },
        { "indent", "?width ?first ?blank", f_indent },
        { "int", "?default ?base", f_int },
        { "lower", "", f_lower },
        { "pprint", NULL, NULL },
        { "random", NULL, NULL },
        { "replace", "old new ?count", f_replace },
        { "round", "?precision ?method", f_round },
        { "safe", "", f_safe },
        { "string", "", f_string },
        { "striptags", NULL, NULL },
        { "title", "", f_title },
        { "trim", "?chars", f_trim },
        { "truncate", NULL, NULL },
        { "upper", "", f_upper },
        { "urlencode", NULL, NULL },
        { "urlize", NULL, NULL },
        { "wordcount", NULL, NULL },
        { "wordwrap", NULL, NULL },
        { "xmlattr", NULL, NULL },
    };
    if (strcmp(name, "tojson") == 0)
        return &ns_jfilter_tojson;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(name, table[i].name) == 0)
            return &table[i];
    return ns_jfilter_find_seq(name);
}
