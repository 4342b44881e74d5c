/* Tests (`x is ...`) and the global functions. */
#include <string.h>
#include <time.h>

#include "text/jinja_run.h"

#define TEST(name) static int name(ns_jrun *r, ns_jval self, const ns_jargs *args, const ns_jval *a, ns_jval *out)
#define UNUSED (void)args, (void)a, (void)r

/* Tests that look only at the kind. */
#define KIND_TEST(name, expr)             \
    TEST(name)                            \
    {                                     \
        UNUSED;                           \
        *out = ns_jv_bool(expr);          \
        return 0;                         \
    }

KIND_TEST(t_defined, self.kind != NS_J_UNDEF)
KIND_TEST(t_undefined, self.kind == NS_J_UNDEF)
KIND_TEST(t_none, self.kind == NS_J_NONE)
KIND_TEST(t_boolean, self.kind == NS_J_BOOL)
KIND_TEST(t_true, self.kind == NS_J_BOOL && self.i)
KIND_TEST(t_false, self.kind == NS_J_BOOL && !self.i)
KIND_TEST(t_integer, self.kind == NS_J_INT)
KIND_TEST(t_float, self.kind == NS_J_FLOAT)
KIND_TEST(t_number, ns_jv_is_num(self))
KIND_TEST(t_string, self.kind == NS_J_STR)
KIND_TEST(t_mapping, self.kind == NS_J_DICT)
KIND_TEST(t_iterable, ns_jval_iterable(self))
KIND_TEST(t_callable, ns_jval_callable(self))
KIND_TEST(t_sequence, ns_jval_has_len(self) && self.kind != NS_J_VIEW && self.kind != NS_J_LOOP)
KIND_TEST(t_escaped, self.kind == NS_J_STR && self.s->markup)

static int modulo(ns_jrun *r, ns_jval self, ns_jval by, int64_t want, ns_jval *out)
{
    ns_jval m;
    if (ns_jrun_binary(r, '%', self, by, &m))
        return -1;
    *out = ns_jv_bool(ns_jv_is_num(m) && ns_jv_num(m) == (double)want);
    return 0;
}

TEST(t_odd)
{
    UNUSED;
    return modulo(r, self, ns_jv_int(2), 1, out);
}

TEST(t_even)
{
    UNUSED;
    return modulo(r, self, ns_jv_int(2), 0, out);
}

TEST(t_divisibleby)
{
    UNUSED;
    return modulo(r, self, a[0], 0, out);
}

static int compare(ns_jrun *r, int op, ns_jval x, ns_jval y, ns_jval *out)
{
    bool yes = false;
    if (ns_jrun_compare(r, op, x, y, &yes))
        return -1;
    *out = ns_jv_bool(yes);
    return 0;
}

#define COMPARE_TEST(name, op)                       \
    TEST(name)                                       \
    {                                                \
        UNUSED;                                      \
        return compare(r, op, self, a[0], out);      \
    }

COMPARE_TEST(t_eq, NS_JOP('=', '='))
COMPARE_TEST(t_ne, NS_JOP('!', '='))
COMPARE_TEST(t_lt, '<')
COMPARE_TEST(t_le, NS_JOP('<', '='))
COMPARE_TEST(t_gt, '>')
COMPARE_TEST(t_ge, NS_JOP('>', '='))
COMPARE_TEST(t_in, NS_JOP_IN)

TEST(t_sameas)
{
    UNUSED;
    bool same = self.kind == a[0].kind;
    if (same && self.kind == NS_J_STR)
        same = self.s->n == a[0].s->n && (self.s->p == a[0].s->p || self.s->n == 0);
    else if (same && self.kind != NS_J_NONE && self.kind != NS_J_UNDEF)
        same = self.i == a[0].i;
    *out = ns_jv_bool(same);
    return 0;
}

static int string_case(ns_jrun *r, ns_jval self, const char *method, ns_jval *out)
{
    const ns_jstr *s = ns_jval_str(r, self);
    const ns_jargs none = { 0 };
    return s ? ns_jmethod_find_str(method)->fn(r, ns_jv_str(s), &none, NULL, out) : -1;
}

TEST(t_lower)
{
    UNUSED;
    return string_case(r, self, "islower", out);
}

TEST(t_upper)
{
    UNUSED;
    return string_case(r, self, "isupper", out);
}

/* `'x' is filter`, `'x' is test` */
static int known(ns_jrun *r, ns_jval self, const ns_jbuiltin *(*find)(const char *), ns_jval *out)
{
    const char *z = self.kind == NS_J_STR ? ns_jstr_cstr(r, self.s) : "";
    *out = ns_jv_bool(z && find(z));
    return z ? 0 : -1;
}

TEST(t_filter)
{
    UNUSED;
    return known(r, self, ns_jfilter_find, out);
}

TEST(t_test)
{
    UNUSED;
    return known(r, self, ns_jtest_find, out);
}

const ns_jbuiltin *ns_jtest_find(const char *name)
{
    static const ns_jbuiltin table[] = {
        { "!=", "/other", t_ne },
        { "<", "/other", t_lt },
        { "<=", "/other", t_le },
        { "==", "/other", t_eq },
        { ">", "/other", t_gt },
        { ">=", "/other", t_ge },
        { "boolean", "", t_boolean },
        { "callable", "", t_callable },
        { "defined", "", t_defined },
        { "divisibleby", "num", t_divisibleby },
        { "eq", "/other", t_eq },
        { "equalto", "/other", t_eq },
        { "escaped", "", t_escaped },
        { "even", "", t_even },
        { "false", "", t_false },
        { "filter", "", t_filter },
        { "float", "", t_float },
        { "ge", "/other", t_ge },
        { "greaterthan", "/other", t_gt },
        { "gt", "/other", t_gt },
        { "in", "seq", t_in },
        { "integer", "", t_integer },
        { "iterable", "", t_iterable },
        { "le", "/other", t_le },
        { "lessthan", "/other", t_lt },
        { "lower", "", t_lower },
        { "lt", "/other", t_lt },
        { "mapping", "", t_mapping },
        { "ne", "/other", t_ne },
        { "none", "", t_none },
        { "number", "", t_number },
        { "odd", "", t_odd },
        { "sameas", "other", t_sameas },
        { "sequence", "", t_sequence },
        { "string", "", t_string },
        { "test", "", t_test },
        { "true", "", t_true },
        { "undefined", "", t_undefined },
        { "upper", "", t_upper },
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(name, table[i].name) == 0)
            return &table[i];
    return NULL;
}

/* dict(mapping or pairs, **named) */
static int fill_dict(ns_jrun *r, const ns_jargs *args, ns_jdict *d)
{
    ns_jlist *l = NULL, *pair;
    if (args->n > 1)
        return ns_jrun_fail(r, NS_EINVAL, "dict expected at most 1 argument, got %d", args->n);
    if (args->n == 1) {
        ns_jval src = args->v[0];
        if (src.kind == NS_J_DICT)
            src = (ns_jval){ .kind = NS_J_VIEW, .aux = NS_JVIEW_ITEMS, .d = src.d };
        if (ns_jval_list(r, src, &l))
            return -1;
    }
    for (size_t i = 0; l && i < l->n; i++) {
        if (ns_jval_list(r, l->v[i], &pair))
            return -1;
        if (pair->n != 2)
            return ns_jrun_fail(r, NS_EINVAL, "dict: element %zu has length %zu, 2 is required", i, pair->n);
        if (ns_jdict_put(r, d, pair->v[0], pair->v[1]))
            return -1;
    }
    for (int i = 0; i < args->nkw; i++) {
        const ns_jstr *k = ns_jstr_new(r, args->kw[i], strlen(args->kw[i]), false);
        if (!k || ns_jdict_put(r, d, ns_jv_str(k), args->kwv[i]))
            return -1;
    }
    return 0;
}

static int new_dict(ns_jrun *r, const ns_jargs *args, enum ns_jkind kind, ns_jval *out)
{
    bool untrusted = args->n > 0 && ns_jval_untrusted(args->v[0]);
    ns_jdict *d = ns_jdict_new(r, 4, untrusted);
    if (!d || fill_dict(r, args, d))
        return -1;
    *out = (ns_jval){ .kind = (uint8_t)kind, .d = d };
    return 0;
}

TEST(g_dict)
{
    (void)self, (void)a;
    return new_dict(r, args, NS_J_DICT, out);
}

TEST(g_namespace)
{
    (void)self, (void)a;
    return new_dict(r, args, NS_J_SPACE, out);
}

TEST(g_range)
{
    (void)self, (void)args;
    int64_t v[3] = { 0, 0, 1 };
    bool one = a[1].kind == NS_J_MISSING;
    if (ns_jarg_int(r, a[0], 0, &v[one]) || (!one && ns_jarg_int(r, a[1], 0, &v[1])) || ns_jarg_int(r, a[2], 1, &v[2]))
        return -1;
    if (v[2] == 0)
        return ns_jrun_fail(r, NS_EINVAL, "range() step must not be zero");
    __int128 span = (__int128)v[1] - v[0], n = v[2] > 0 ? (span + v[2] - 1) / v[2] : (span + v[2] + 1) / v[2];
    n = (v[2] > 0) == (span > 0) && span != 0 ? n : 0;
    if (n > NS_JRUN_RANGE)
        return ns_jrun_fail(r, NS_EINVAL, "range too big: more than %d items", NS_JRUN_RANGE);
    ns_jrange *g = ns_jrun_alloc(r, sizeof *g);
    if (!g)
        return -1;
    *g = (ns_jrange){ v[0], v[1], v[2], (int64_t)n };
    *out = (ns_jval){ .kind = NS_J_RANGE, .r = g };
    return 0;
}

TEST(g_raise)
{
    (void)self, (void)args, (void)out;
    const ns_jstr *s = ns_jval_str(r, a[0]);
    return s ? ns_jrun_fail(r, NS_EINVAL, "%.*s", (int)(s->n < 700 ? s->n : 700), s->p) : -1;
}

TEST(g_strftime_now)
{
    (void)self, (void)args;
    const ns_jstr *format;
    char *text = ns_jrun_alloc(r, 1000);
    struct tm tm;
    time_t now = r->opts.now ? (time_t)r->opts.now : time(NULL);
    if (!text || ns_jarg_str(r, a[0], &format))
        return -1;
    const char *z = ns_jstr_cstr(r, format);
    if (!z || !localtime_r(&now, &tm))
        return z ? ns_jrun_fail(r, NS_EINVAL, "strftime_now: bad time") : -1;
    size_t n = *z ? strftime(text, 1000, z, &tm) : 0;
    if (n == 0 && *z)
        return ns_jrun_fail(r, NS_EINVAL, "strftime_now: the result is empty or over 1000 bytes");
    *out = ns_jv_str(ns_jstr_new(r, text, n, ns_jstr_any_untrusted(format)));
    return out->s ? 0 : -1;
}

const ns_jbuiltin *ns_jglobal_find(const char *name)
{
    static const ns_jbuiltin table[] = {
        { "cycler", NULL, NULL },        { "dict", NULL, g_dict },
        { "joiner", NULL, NULL },        { "lipsum", NULL, NULL },
        { "namespace", NULL, g_namespace }, { "raise_exception", "message", g_raise },
        { "range", "/start ?stop ?step", g_range }, { "strftime_now", "format", g_strftime_now },
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (strcmp(name, table[i].name) == 0)
            return &table[i];
    return NULL;
}
