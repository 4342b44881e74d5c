/* str.format and the % operator: the replacement fields and conversions templates use, the rest refused by name. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text/jinja_run.h"
#include "text/jinja_text.h"

/* [[fill]align][sign][#][0][width][,][.precision][type] */
typedef struct spec {
    uint32_t fill;
    char align, sign, type;
    bool alternate, zero, comma;
    int width, precision; /* -1: not given */
} spec;

static int digits(const char **p, const char *end, int dflt)
{
    if (*p == end || **p < '0' || **p > '9')
        return dflt;
    int v = 0;
    while (*p < end && **p >= '0' && **p <= '9' && v < 100000)
        v = 10 * v + *(*p)++ - '0';
    return v;
}

static bool read_spec(const char *p, const char *end, spec *sp)
{
    *sp = (spec){ .fill = ' ', .width = -1, .precision = -1 };
    const char *q = p;
    uint32_t first = p < end ? ns_jtext_next(&q, end) : 0;
    if (q < end && strchr("<>^=", *q)) {
        sp->fill = first;
        sp->align = *q;
        p = q + 1;
    } else if (first && first < 128 && strchr("<>^=", (int)first)) {
        sp->align = (char)first;
        p = q;
    }
    if (p < end && strchr("+- ", *p))
        sp->sign = *p++;
    if (p < end && *p == '#')
        sp->alternate = *p++ == '#';
    if (p < end && *p == '0')
        sp->zero = *p++ == '0';
    sp->width = digits(&p, end, -1);
    if (p < end && *p == ',')
        sp->comma = *p++ == ',';
    if (p < end && *p == '.') {
        p++;
        sp->precision = digits(&p, end, -2);
    }
    if (p < end)
        sp->type = *p++;
    return p == end && sp->precision != -2 && sp->precision < 400 && sp->width < 100000;
}

static void add_padded(ns_jrun *r, ns_jbuf *b, const ns_jstr *s, const spec *sp, char align)
{
    int64_t len = (int64_t)ns_jtext_count(s->p, s->n), n = sp->width > len ? sp->width - len : 0;
    int64_t left = align == '<' ? 0 : align == '^' ? n / 2 : n;
    for (int64_t i = 0; i < left && !b->failed; i++)
        ns_jbuf_addc(r, b, sp->fill, false);
    ns_jbuf_adds(r, b, s);
    for (int64_t i = left; i < n && !b->failed; i++)
        ns_jbuf_addc(r, b, sp->fill, false);
}

/* Digits of |v| in base 10, 2, 8 or 16; returns their beginning inside text[70]. */
static char *int_digits(int64_t v, char type, char text[70])
{
    uint64_t u = v < 0 ? 0 - (uint64_t)v : (uint64_t)v;
    uint64_t base = type == 'b' ? 2 : type == 'o' ? 8 : type == 'x' || type == 'X' ? 16 : 10;
    char *p = text + 69;
    *p = '\0';
    do
        *--p = (type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef")[u % base];
    while (u /= base);
    return p;
}

/* Sign and digits with the padding a number gets: zeros go between the two. */
static void add_number(ns_jrun *r, ns_jbuf *b, const char *sign, const char *body, const spec *sp)
{
    char text[1200];
    size_t n = strlen(body), whole = strspn(body, "0123456789"), k = 0;
    for (size_t i = 0; i < n && k < sizeof text - 2; i++) {
        if (sp->comma && i && i < whole && (whole - i) % 3 == 0)
            text[k++] = ',';
        text[k++] = body[i];
    }
    text[k] = '\0';
    spec inner = *sp;
    bool between = sp->align == '=' || (sp->zero && !sp->align);
    if (!between) {
        char full[1210];
        snprintf(full, sizeof full, "%s%s", sign, text);
        ns_jstr s = { .p = full, .n = strlen(full) };
        add_padded(r, b, &s, sp, sp->align ? sp->align : '>');
        return;
    }
    if (sp->zero)
        inner.fill = '0';
    inner.width = sp->width - (int)strlen(sign);
    ns_jbuf_addz(r, b, sign, false);
    ns_jstr s = { .p = text, .n = k };
    add_padded(r, b, &s, &inner, '>');
}

static int format_int(ns_jrun *r, ns_jbuf *b, int64_t v, const spec *sp)
{
    char text[70], sign[4] = "", *body = int_digits(v, sp->type, text);
    size_t n = 0;
    if (v < 0 || sp->sign == '+' || sp->sign == ' ')
        sign[n++] = v < 0 ? '-' : sp->sign;
    if (sp->alternate && sp->type && sp->type != 'd') {
        sign[n++] = '0';
        sign[n++] = sp->type;
    }
    sign[n] = '\0';
    add_number(r, b, sign, body, sp);
    return 0;
}

static int format_float(ns_jrun *r, ns_jbuf *b, double f, const spec *sp)
{
    char body[1100], sign[2] = "", form[8] = "%.*f";
    double v = fabs(f);
    if (sp->type == '\0' && sp->precision < 0) {
        char repr[40];
        ns_jprint_float(v, repr);
        snprintf(body, sizeof body, "%s", repr);
    } else if (sp->type == '\0')
        return ns_jrun_fail(r, NS_EUNSUPPORTED, "float format with a precision but no type is not supported");
    else {
        bool percent = sp->type == '%';
        form[3] = percent ? 'f' : sp->type;
        snprintf(body, sizeof body, form, sp->precision < 0 ? 6 : sp->precision, percent ? v * 100 : v);
        if (percent)
            strcat(body, "%");
    }
    if (signbit(f) || sp->sign == '+' || sp->sign == ' ')
        sign[0] = signbit(f) ? '-' : sp->sign;
    add_number(r, b, sign, body, sp);
    return 0;
}

static int format_value(ns_jrun *r, ns_jbuf *b, ns_jval v, const char *p, const char *end)
{
    spec sp;
    int shown = (int)(end - p < 40 ? end - p : 40);
    if (p == end) {
        ns_jprint_str(r, v, b);
        return b->failed ? -1 : 0;
    }
    if (!read_spec(p, end, &sp))
        return ns_jrun_fail(r, NS_EUNSUPPORTED, "format specification '%.*s' is not supported", shown, p);
    if (v.kind == NS_J_STR && (sp.type == '\0' || sp.type == 's') && sp.align != '=' && !sp.sign && !sp.comma) {
        size_t n = sp.precision < 0 ? v.s->n : ns_jtext_offset(v.s->p, v.s->n, (size_t)sp.precision);
        const ns_jstr *s = ns_jstr_sub(r, v.s, 0, n);
        if (!s)
            return -1;
        if (sp.zero && !sp.align)
            sp.fill = '0';
        add_padded(r, b, s, &sp, sp.align ? sp.align : '<');
        return b->failed ? -1 : 0;
    }
    bool real = sp.type && strchr("eEfFgG%", sp.type);
    int rc = -1;
    if (v.kind == NS_J_FLOAT ? real || !sp.type : ns_jv_is_int(v) && real)
        rc = format_float(r, b, ns_jv_num(v), &sp);
    else if (v.kind == NS_J_INT && sp.precision < 0 && (!sp.type || strchr("dxXbo", sp.type)))
        rc = format_int(r, b, v.i, &sp);
    else
        ns_jrun_fail(r, NS_EINVAL, "format '%.*s' does not suit a %s", shown, p, ns_jval_type(v));
    return rc || b->failed ? -1 : 0;
}

typedef struct formatter {
    ns_jrun *r;
    const ns_jstr *s;
    const ns_jargs *args;
    int next; /* number of the next {}; -1 once a numbered one was seen */
    ns_jbuf b;
} formatter;

static bool all_digits(const char *p, size_t n)
{
    size_t i = 0;
    while (i < n && p[i] >= '0' && p[i] <= '9')
        i++;
    return n > 0 && i == n && n < 9;
}

/* whole: nothing follows the name. Only a field that is empty as a whole is numbered automatically. */
static int first_field(formatter *f, const char *p, size_t n, bool whole, ns_jval *out)
{
    bool numbered = all_digits(p, n);
    if ((n == 0 && whole) || numbered) {
        if (n == 0 ? f->next < 0 : f->next > 0)
            return ns_jrun_fail(f->r, NS_EINVAL, "format: numbered and automatic fields mixed");
        int i = n == 0 ? f->next++ : atoi(p);
        if (numbered)
            f->next = -1;
        if (i >= f->args->n)
            return ns_jrun_fail(f->r, NS_EINVAL, "format: no argument for field %d", i);
        *out = f->args->v[i];
        return 0;
    }
    for (int i = 0; i < f->args->nkw; i++) {
        if (strlen(f->args->kw[i]) == n && memcmp(f->args->kw[i], p, n) == 0) {
            *out = f->args->kwv[i];
            return 0;
        }
    }
    return ns_jrun_fail(f->r, NS_EINVAL, "format: no argument '%.*s'", (int)(n < 60 ? n : 60), p);
}

/* name.attr[key]: the sandbox's look-ups. */
static int field_value(formatter *f, const char *p, const char *end, ns_jval *out)
{
    size_t n = 0;
    while (p + n < end && p[n] != '.' && p[n] != '[')
        n++;
    if (first_field(f, p, n, p + n == end, out))
        return -1;
    for (p += n; p < end; p += n) {
        bool bracket = *p++ == '[';
        for (n = 0; p + n < end && (bracket ? p[n] != ']' : p[n] != '.' && p[n] != '['); n++)
            ;
        if (n == 0 || (bracket && p + n == end))
            return ns_jrun_fail(f->r, NS_EINVAL, "format: empty or open attribute in a field");
        const ns_jstr *name = ns_jstr_new(f->r, p, n, false);
        const char *z = name ? ns_jstr_cstr(f->r, name) : NULL;
        if (!z)
            return -1;
        ns_jval key = bracket && all_digits(p, n) ? ns_jv_int(atoi(z)) : ns_jv_str(name);
        if (bracket ? ns_jrun_getitem(f->r, *out, key, out) : ns_jrun_getattr(f->r, *out, z, out))
            return -1;
        n += bracket;
    }
    return 0;
}

/* One {...}: p is behind the brace; returns the position behind the closing one, or NULL. */
static const char *format_field(formatter *f, const char *p, const char *end)
{
    const char *close = memchr(p, '}', (size_t)(end - p)), *name_end = p;
    ns_jval v;
    if (!close) {
        ns_jrun_fail(f->r, NS_EINVAL, "format: '}' is missing");
        return NULL;
    }
    if (memchr(p, '{', (size_t)(close - p))) {
        ns_jrun_fail(f->r, NS_EUNSUPPORTED, "format: nested replacement fields are not supported");
        return NULL;
    }
    while (name_end < close && *name_end != '!' && *name_end != ':')
        name_end++;
    if (field_value(f, p, name_end, &v))
        return NULL;
    char conversion = *name_end == '!' && close - name_end >= 2 ? name_end[1] : '\0';
    const char *sp = name_end + (conversion ? 2 : 0);
    if ((*name_end == '!' && conversion != 's' && conversion != 'r') || (sp < close && *sp != ':')) {
        ns_jrun_fail(f->r, NS_EINVAL, "format: bad conversion in a field");
        return NULL;
    }
    if (conversion) {
        ns_jbuf text = { 0 };
        conversion == 'r' ? ns_jprint_repr(f->r, v, &text) : ns_jprint_str(f->r, v, &text);
        v = ns_jv_str(ns_jbuf_take(f->r, &text));
        if (!v.s)
            return NULL;
    }
    return format_value(f->r, &f->b, v, sp < close ? sp + 1 : close, close) ? NULL : close + 1;
}

static void copy_text(ns_jrun *r, ns_jbuf *b, const ns_jstr *s, const char *from, const char *to)
{
    size_t off = (size_t)(from - s->p);
    ns_jstr part = { .p = from, .t = s->t ? s->t + off : NULL, .n = (size_t)(to - from), .untrusted = s->untrusted };
    ns_jbuf_adds(r, b, &part);
}

int ns_jstr_format(ns_jrun *r, const ns_jstr *s, const ns_jargs *args, ns_jval *out)
{
    formatter f = { .r = r, .s = s, .args = args };
    const char *p = s->p, *end = p + s->n;
    while (p < end) {
        const char *q = p;
        while (q < end && *q != '{' && *q != '}')
            q++;
        copy_text(r, &f.b, s, p, q);
        if (q == end)
            break;
        if (q + 1 < end && q[1] == *q) { /* {{ and }} */
            copy_text(r, &f.b, s, q, q + 1);
            p = q + 2;
        } else if (*q == '}')
            return ns_jrun_fail(r, NS_EINVAL, "format: single '}' in the format string");
        else if (!(p = format_field(&f, q + 1, end)))
            return -1;
    }
    const ns_jstr *v = ns_jbuf_take(r, &f.b);
    *out = ns_jv_str(v);
    return v ? 0 : -1;
}

/* %(key)d: the value and the position behind the name; else the next argument of the tuple. */
static const char *percent_key(ns_jrun *r, const char *p, const char *end, ns_jval args, size_t *next, ns_jval *out)
{
    if (p < end && *p == '(') {
        const char *close = memchr(p, ')', (size_t)(end - p));
        const ns_jstr *key = close ? ns_jstr_new(r, p + 1, (size_t)(close - p) - 1, false) : NULL;
        if (!key || args.kind != NS_J_DICT) {
            ns_jrun_fail(r, NS_EINVAL, "%%: format requires a mapping");
            return NULL;
        }
        int found = ns_jdict_find(r, args.d, ns_jv_str(key), out);
        if (found == 0)
            ns_jrun_fail(r, NS_EINVAL, "%%: no key '%.60s'", ns_jval_str(r, ns_jv_str(key))->n ? ns_jstr_cstr(r, key) : "");
        *next = SIZE_MAX;
        return found > 0 ? close + 1 : NULL;
    }
    size_t n = args.kind == NS_J_TUPLE ? args.l->n : 1;
    if (*next >= n) {
        ns_jrun_fail(r, NS_EINVAL, "%%: not enough arguments for format string");
        return NULL;
    }
    *out = args.kind == NS_J_TUPLE ? args.l->v[*next] : args;
    (*next)++;
    return p;
}

/* The conversion whose flags begin at p: translated to the specification of format_value. */
static const char *percent_field(ns_jrun *r, ns_jbuf *b, const char *p, const char *end, ns_jval v)
{
    char text[40], flags[4] = "";
    const char *q = p;
    bool left = false;
    size_t k = 0;
    for (; q < end && strchr("-+ 0#", *q) && k < 3; q++) {
        left |= *q == '-';
        if (*q == '+' || *q == '0' || *q == ' ')
            flags[k++] = *q;
    }
    const char *number = q;
    while (q < end && ((*q >= '0' && *q <= '9') || *q == '.') && q - number < 12)
        q++;
    char type = q < end ? *q : '\0';
    if (!type || !strchr("sdirfFeEgGxXo", type)) {
        ns_jrun_fail(r, NS_EUNSUPPORTED, "conversion %%%c is not supported", type ? type : ' ');
        return NULL;
    }
    bool string = type == 's' || type == 'r';
    if (string) {
        ns_jbuf s = { 0 };
        type == 'r' ? ns_jprint_repr(r, v, &s) : ns_jprint_str(r, v, &s);
        v = ns_jv_str(ns_jbuf_take(r, &s));
        if (!v.s)
            return NULL;
    } else if (strchr("diu", type) && v.kind == NS_J_FLOAT && fabs(v.f) < 9e18)
        v = ns_jv_int((int64_t)v.f);
    else if (v.kind == NS_J_BOOL)
        v.kind = NS_J_INT;
    if (!string && !ns_jv_is_num(v)) {
        ns_jrun_fail(r, NS_EINVAL, "%%%c format: a number is required, not %s", type, ns_jval_type(v));
        return NULL;
    }
    bool zero = strchr(flags, '0') && !left && !string;
    const char *sign = string ? "" : strchr(flags, '+') ? "+" : strchr(flags, ' ') ? " " : "";
    int n = snprintf(text, sizeof text, "%s%s%s%.*s%c", left ? "<" : string ? ">" : "", sign, zero ? "0" : "", (int)(q - number),
                     number, type == 'i' ? 'd' : type == 'r' ? 's' : type);
    return format_value(r, b, v, text, text + n) ? NULL : q + 1;
}

int ns_jstr_percent(ns_jrun *r, const ns_jstr *s, ns_jval args, ns_jval *out)
{
    ns_jbuf b = { 0 };
    size_t next = 0;
    const char *p = s->p, *end = p + s->n;
    if (s->markup)
        return ns_jrun_fail(r, NS_EUNSUPPORTED, "%% of a string marked safe is not supported");
    while (p < end) {
        const char *q = memchr(p, '%', (size_t)(end - p));
        copy_text(r, &b, s, p, q ? q : end);
        if (!q)
            break;
        p = q + 1;
        if (p < end && *p == '%') {
            copy_text(r, &b, s, p, p + 1);
            p++;
            continue;
        }
        ns_jval v;
        if (!(p = percent_key(r, p, end, args, &next, &v)) || !(p = percent_field(r, &b, p, end, v)))
            return -1;
    }
    /* What has [] counts as a mapping, and a mapping need not be used up. */
    bool mapping = args.kind == NS_J_UNDEF || args.kind == NS_J_LIST || args.kind == NS_J_DICT || args.kind == NS_J_RANGE;
    bool all = next == SIZE_MAX || mapping || next >= (args.kind == NS_J_TUPLE ? args.l->n : 1);
    if (!all)
        return ns_jrun_fail(r, NS_EINVAL, "%%: not all arguments converted during string formatting");
    const ns_jstr *v = ns_jbuf_take(r, &b);
    *out = ns_jv_str(v);
    return v ? 0 : -1;
}
