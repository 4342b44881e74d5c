/* Operators with Python's meaning on 64-bit integers. */
#include <math.h>
#include <string.h>

#include "text/jinja_run.h"

static const char *op_text(int op, char out[3])
{
    out[0] = (char)op;
    out[1] = (char)(op >> 8);
    out[2] = '\0';
    return out;
}

static int overflow(ns_jrun *r)
{
    return ns_jrun_fail(r, NS_EINVAL, "integer result does not fit 64 bits");
}

static int int_power(ns_jrun *r, int64_t a, int64_t b, ns_jval *out)
{
    int64_t v = 1;
    bool over = false;
    while (b > 0 && !over) {
        if (b & 1)
            over = __builtin_mul_overflow(v, a, &v);
        b >>= 1;
        if (b && !over)
            over = __builtin_mul_overflow(a, a, &a);
    }
    *out = ns_jv_int(v);
    return over ? overflow(r) : 0;
}

static int int_divide(ns_jrun *r, int op, int64_t a, int64_t b, ns_jval *out)
{
    if (b == 0)
        return ns_jrun_fail(r, NS_EINVAL, "division by zero");
    if (b == -1) { /* the quotient of INT64_MIN overflows, the remainder traps */
        int64_t v = 0;
        if (op != '%' && __builtin_sub_overflow(0, a, &v))
            return overflow(r);
        *out = ns_jv_int(v);
        return 0;
    }
    int64_t q = a / b, m = a % b;
    if (m != 0 && (m < 0) != (b < 0)) { /* Python rounds down */
        q--;
        m += b;
    }
    *out = ns_jv_int(op == '%' ? m : q);
    return 0;
}

static int int_op(ns_jrun *r, int op, int64_t a, int64_t b, ns_jval *out)
{
    int64_t v = 0;
    bool over = false;
    if (op == '%' || op == NS_JOP('/', '/'))
        return int_divide(r, op, a, b, out);
    if (op == NS_JOP('*', '*'))
        return int_power(r, a, b, out);
    if (op == '+')
        over = __builtin_add_overflow(a, b, &v);
    else if (op == '-')
        over = __builtin_sub_overflow(a, b, &v);
    else
        over = __builtin_mul_overflow(a, b, &v);
    *out = ns_jv_int(v);
    return over ? overflow(r) : 0;
}

static double python_mod(double a, double b)
{
    double m = fmod(a, b);
    if (m != 0 && (m < 0) != (b < 0))
        m += b;
    return m;
}

static int float_op(ns_jrun *r, int op, double a, double b, ns_jval *out)
{
    if ((op == '/' || op == '%' || op == NS_JOP('/', '/')) && b == 0)
        return ns_jrun_fail(r, NS_EINVAL, "division by zero");
    switch (op) {
    case '+':
        *out = ns_jv_float(a + b);
        return 0;
    case '-':
        *out = ns_jv_float(a - b);
        return 0;
    case '*':
        *out = ns_jv_float(a * b);
        return 0;
    case '/':
        *out = ns_jv_float(a / b);
        return 0;
    case '%':
        *out = ns_jv_float(python_mod(a, b));
        return 0;
    case NS_JOP('/', '/'):
        *out = ns_jv_float(floor((a - python_mod(a, b)) / b + 0.5));
        return 0;
    default:
        if ((a == 0 && b < 0) || (a < 0 && b != floor(b)))
            return ns_jrun_fail(r, NS_EINVAL, "power is not a real number");
        *out = ns_jv_float(pow(a, b));
        return 0;
    }
}

static int repeat_string(ns_jrun *r, const ns_jstr *s, int64_t times, ns_jval *out)
{
    ns_jbuf b = { 0 };
    for (int64_t i = 0; s->n && i < times && !b.failed; i++)
        ns_jbuf_adds(r, &b, s);
    ns_jstr *v = (ns_jstr *)ns_jbuf_take(r, &b);
    if (v)
        v->markup = s->markup;
    *out = ns_jv_str(v);
    return v ? 0 : -1;
}

static int repeat_list(ns_jrun *r, ns_jval a, int64_t times, ns_jval *out)
{
    size_t total;
    if (times < 0)
        times = 0;
    if (!ns_mul_size(a.l->n, (size_t)times, &total))
        total = SIZE_MAX / sizeof(ns_jval);
    ns_jlist *l = ns_jlist_new(r, total, a.l->untrusted);
    if (!l || ns_jrun_step(r, total * 16))
        return -1;
    for (size_t i = 0; i < total; i++)
        l->v[i] = a.l->v[i % a.l->n];
    *out = (ns_jval){ .kind = a.kind, .l = l };
    return 0;
}

static int add_strings(ns_jrun *r, const ns_jstr *a, const ns_jstr *b, ns_jval *out)
{
    bool markup = a->markup || b->markup;
    if (markup && (!(a = ns_jstr_escape(r, a)) || !(b = ns_jstr_escape(r, b))))
        return -1;
    const ns_jstr *s = ns_jstr_cat(r, a, b);
    if (s && markup && !s->markup) {
        ns_jstr *m = (ns_jstr *)ns_jstr_sub(r, s, 0, s->n);
        if (m)
            m->markup = true;
        s = m;
    }
    *out = ns_jv_str(s);
    return s ? 0 : -1;
}

static int add_lists(ns_jrun *r, ns_jval a, ns_jval b, ns_jval *out)
{
    ns_jlist *l = ns_jlist_new(r, a.l->n + b.l->n, a.l->untrusted || b.l->untrusted);
    if (!l || ns_jrun_step(r, l->n * 16))
        return -1;
    if (a.l->n)
        memcpy(l->v, a.l->v, a.l->n * sizeof *l->v);
    if (b.l->n)
        memcpy(l->v + a.l->n, b.l->v, b.l->n * sizeof *l->v);
    *out = (ns_jval){ .kind = a.kind, .l = l };
    return 0;
}

static int sequence_op(ns_jrun *r, int op, ns_jval a, ns_jval b, ns_jval *out)
{
    bool a_list = a.kind == NS_J_LIST || a.kind == NS_J_TUPLE, b_list = b.kind == NS_J_LIST || b.kind == NS_J_TUPLE;
    char text[3];
    if (op == '%' && a.kind == NS_J_STR)
        return ns_jstr_percent(r, a.s, b, out);
    if (op == '+' && a.kind == NS_J_STR && b.kind == NS_J_STR)
        return add_strings(r, a.s, b.s, out);
    if (op == '+' && a_list && a.kind == b.kind)
        return add_lists(r, a, b, out);
    if (op == '*' && a.kind == NS_J_STR && ns_jv_is_int(b))
        return repeat_string(r, a.s, b.i, out);
    if (op == '*' && b.kind == NS_J_STR && ns_jv_is_int(a))
        return repeat_string(r, b.s, a.i, out);
    if (op == '*' && a_list && ns_jv_is_int(b))
        return repeat_list(r, a, b.i, out);
    if (op == '*' && b_list && ns_jv_is_int(a))
        return repeat_list(r, b, a.i, out);
    return ns_jrun_fail(r, NS_EINVAL, "unsupported operand types for %s: '%s' and '%s'", op_text(op, text), ns_jval_type(a),
                        ns_jval_type(b));
}

int ns_jrun_binary(ns_jrun *r, int op, ns_jval a, ns_jval b, ns_jval *out)
{
    if (a.kind == NS_J_STR && op == '%')
        return sequence_op(r, op, a, b, out);
    if (a.kind == NS_J_UNDEF || b.kind == NS_J_UNDEF)
        return ns_jrun_undefined(r, a.kind == NS_J_UNDEF ? a : b);
    if (!ns_jv_is_num(a) || !ns_jv_is_num(b))
        return sequence_op(r, op, a, b, out);
    bool real = a.kind == NS_J_FLOAT || b.kind == NS_J_FLOAT || op == '/' || (op == NS_JOP('*', '*') && b.i < 0);
    return real ? float_op(r, op, ns_jv_num(a), ns_jv_num(b), out) : int_op(r, op, a.i, b.i, out);
}

int ns_jrun_compare(ns_jrun *r, int op, ns_jval a, ns_jval b, bool *out)
{
    char text[3];
    int c = 0, rc = 0;
    if (op == NS_JOP_IN || op == NS_JOP_NOT_IN) {
        rc = ns_jval_in(r, a, b, out);
        *out = *out == (op == NS_JOP_IN);
        return rc;
    }
    if (op == NS_JOP('=', '=') || op == NS_JOP('!', '=')) {
        rc = ns_jval_eq(r, a, b, out);
        *out = *out == (op == NS_JOP('=', '='));
        return rc;
    }
    if (ns_jval_cmp(r, op_text(op, text), a, b, &c))
        return -1;
    bool nan = ns_jv_is_num(a) && ns_jv_is_num(b) && (isnan(ns_jv_num(a)) || isnan(ns_jv_num(b)));
    if (op == '<')
        *out = c < 0;
    else if (op == '>')
        *out = c > 0;
    else
        *out = !nan && (op == NS_JOP('<', '=') ? c <= 0 : c >= 0);
    return 0;
}

int ns_jrun_negate(ns_jrun *r, ns_jval a, ns_jval *out)
{
    int64_t v;
    if (a.kind == NS_J_UNDEF)
        return ns_jrun_undefined(r, a);
    if (!ns_jv_is_num(a))
        return ns_jrun_fail(r, NS_EINVAL, "bad operand type for unary -: '%s'", ns_jval_type(a));
    if (a.kind == NS_J_FLOAT) {
        *out = ns_jv_float(-a.f);
        return 0;
    }
    if (__builtin_sub_overflow(0, a.i, &v))
        return overflow(r);
    *out = ns_jv_int(v);
    return 0;
}
