/* str() and repr() as Python prints them. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_run.h"
#include "text/jinja_text.h"

/* The shortest digits that read back as f; positional between 1e-4 and 1e16, else with an exponent. */
void ns_jprint_float(double f, char out[40])
{
    char e[40];
    if (isnan(f) || isinf(f)) {
        strcpy(out, isnan(f) ? "nan" : f > 0 ? "inf" : "-inf");
        return;
    }
    int digits = 1;
    do
        snprintf(e, sizeof e, "%.*e", digits - 1, f);
    while (strtod(e, NULL) != f && ++digits <= 17);
    int exp = atoi(strchr(e, 'e') + 1);
    if (exp < -4 || exp >= 16) {
        strcpy(out, e);
        return;
    }
    int places = digits - 1 - exp;
    snprintf(out, 40, "%.*f", places > 0 ? places : 1, f);
}

static void repr_char(ns_jrun *r, ns_jbuf *b, uint32_t c, uint32_t quote, bool taint)
{
    static const char from[] = "\\\n\r\t", to[] = "\\nrt";
    const char *known = c && c < 128 ? strchr(from, (int)c) : NULL;
    char text[16];
    if (c == quote)
        snprintf(text, sizeof text, "\\%c", (int)c);
    else if (known)
        snprintf(text, sizeof text, "\\%c", to[known - from]);
    else if (ns_jtext_printable(c)) {
        ns_jbuf_addc(r, b, c, taint);
        return;
    } else
        snprintf(text, sizeof text, c < 256 ? "\\x%02x" : c < 65536 ? "\\u%04x" : "\\U%08x", c);
    ns_jbuf_addz(r, b, text, taint);
}

static void repr_string(ns_jrun *r, const ns_jstr *s, ns_jbuf *b)
{
    bool taint = ns_jstr_any_untrusted(s);
    uint32_t quote = s->n && memchr(s->p, '\'', s->n) && !memchr(s->p, '"', s->n) ? '"' : '\'';
    const char *p = s->p, *end = p + s->n;
    ns_jbuf_addc(r, b, quote, taint);
    while (p < end && !b->failed) {
        const char *at = p;
        uint32_t c = ns_jtext_next(&p, end);
        repr_char(r, b, c, quote, s->t ? s->t[at - s->p] : s->untrusted);
    }
    ns_jbuf_addc(r, b, quote, taint);
}

static void repr_items(ns_jrun *r, const ns_jlist *l, ns_jbuf *b)
{
    for (size_t i = 0; i < l->n && !b->failed; i++) {
        if (i)
            ns_jbuf_addz(r, b, ", ", l->untrusted);
        ns_jprint_repr(r, l->v[i], b);
    }
}

static void repr_list(ns_jrun *r, ns_jval v, ns_jbuf *b)
{
    bool tuple = v.kind == NS_J_TUPLE;
    ns_jbuf_addc(r, b, tuple ? '(' : '[', v.l->untrusted);
    repr_items(r, v.l, b);
    if (tuple && v.l->n == 1)
        ns_jbuf_addc(r, b, ',', v.l->untrusted);
    ns_jbuf_addc(r, b, tuple ? ')' : ']', v.l->untrusted);
}

static void repr_dict(ns_jrun *r, const ns_jdict *d, ns_jbuf *b)
{
    ns_jbuf_addc(r, b, '{', d->untrusted);
    for (size_t i = 0; i < d->n && !b->failed; i++) {
        if (i)
            ns_jbuf_addz(r, b, ", ", d->untrusted);
        ns_jprint_repr(r, d->v[i].k, b);
        ns_jbuf_addz(r, b, ": ", d->untrusted);
        ns_jprint_repr(r, d->v[i].v, b);
    }
    ns_jbuf_addc(r, b, '}', d->untrusted);
}

static void repr_view(ns_jrun *r, ns_jval v, ns_jbuf *b)
{
    ns_jlist *l;
    if (ns_jval_list(r, v, &l)) {
        b->failed = true;
        return;
    }
    ns_jbuf_addz(r, b, ns_jval_type(v), v.d->untrusted);
    ns_jbuf_addz(r, b, "([", v.d->untrusted);
    repr_items(r, l, b);
    ns_jbuf_addz(r, b, "])", v.d->untrusted);
}

static void repr_range(ns_jrun *r, const ns_jrange *g, ns_jbuf *b)
{
    char text[100];
    int n = snprintf(text, sizeof text, "range(%lld, %lld", (long long)g->start, (long long)g->stop);
    if (g->step != 1)
        n += snprintf(text + n, sizeof text - (size_t)n, ", %lld", (long long)g->step);
    ns_jbuf_add(r, b, text, (size_t)n, false);
    ns_jbuf_addc(r, b, ')', false);
}

static void repr_number(ns_jrun *r, ns_jval v, ns_jbuf *b)
{
    char text[40];
    if (v.kind == NS_J_FLOAT)
        ns_jprint_float(v.f, text);
    else if (v.kind == NS_J_BOOL)
        strcpy(text, v.i ? "True" : "False");
    else
        snprintf(text, sizeof text, "%lld", (long long)v.i);
    ns_jbuf_addz(r, b, text, false);
}

static void repr_value(ns_jrun *r, ns_jval v, ns_jbuf *b)
{
    switch (v.kind) {
    case NS_J_UNDEF:
        ns_jbuf_addz(r, b, "Undefined", false);
        break;
    case NS_J_NONE:
        ns_jbuf_addz(r, b, "None", false);
        break;
    case NS_J_BOOL:
    case NS_J_INT:
    case NS_J_FLOAT:
        repr_number(r, v, b);
        break;
    case NS_J_STR:
        if (v.s->markup)
            ns_jbuf_addz(r, b, "Markup(", false);
        repr_string(r, v.s, b);
        if (v.s->markup)
            ns_jbuf_addc(r, b, ')', false);
        break;
    case NS_J_LIST:
    case NS_J_TUPLE:
        repr_list(r, v, b);
        break;
    case NS_J_DICT:
        repr_dict(r, v.d, b);
        break;
    case NS_J_VIEW:
        repr_view(r, v, b);
        break;
    case NS_J_RANGE:
        repr_range(r, v.r, b);
        break;
    case NS_J_SPACE:
        ns_jbuf_addz(r, b, "<Namespace ", false);
        repr_dict(r, v.d, b);
        ns_jbuf_addc(r, b, '>', false);
        break;
    case NS_J_MACRO:
        ns_jbuf_addz(r, b, "<Macro '", false);
        ns_jbuf_addz(r, b, r->tpl->names[v.macro->node->id], false);
        ns_jbuf_addz(r, b, "'>", false);
        break;
    default: /* Python prints an address */
        ns_jrun_fail(r, NS_EUNSUPPORTED, "printing a %s object is not supported", ns_jval_type(v));
        b->failed = true;
    }
}

void ns_jprint_repr(ns_jrun *r, ns_jval v, ns_jbuf *b)
{
    if (ns_jrun_enter(r)) {
        b->failed = true;
        return;
    }
    repr_value(r, v, b);
    r->depth--;
}

void ns_jprint_str(ns_jrun *r, ns_jval v, ns_jbuf *b)
{
    if (v.kind == NS_J_STR)
        ns_jbuf_adds(r, b, v.s);
    else if (v.kind != NS_J_UNDEF)
        ns_jprint_repr(r, v, b);
}

const ns_jstr *ns_jval_str(ns_jrun *r, ns_jval v)
{
    ns_jbuf b = { 0 };
    if (v.kind == NS_J_STR)
        return v.s;
    ns_jprint_str(r, v, &b);
    return ns_jbuf_take(r, &b);
}

const ns_jstr *ns_jstr_escape(ns_jrun *r, const ns_jstr *s)
{
    static const struct { char c; const char *to; } table[] = {
        { '&', "&amp;" }, { '<', "&lt;" }, { '>', "&gt;" }, { '"', "&#34;" }, { '\'', "&#39;" }
    };
    ns_jbuf b = { 0 };
    if (s->markup)
        return s;
    for (size_t i = 0; i < s->n && !b.failed; i++) {
        bool taint = s->t ? s->t[i] : s->untrusted;
        size_t k = 0;
        while (k < sizeof table / sizeof *table && table[k].c != s->p[i])
            k++;
        if (k < sizeof table / sizeof *table)
            ns_jbuf_addz(r, &b, table[k].to, taint);
        else
            ns_jbuf_add(r, &b, s->p + i, 1, taint);
    }
    ns_jstr *out = (ns_jstr *)ns_jbuf_take(r, &b);
    if (out)
        out->markup = true;
    return out;
}
