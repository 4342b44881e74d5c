/* Numbers between bounds, written without an exponent. Bounds are whole numbers; the digits of the whole part are compared with theirs
 * from the left, and what lies behind the point matters only where the whole part is a bound itself. */
#include <stdlib.h>

#include "text/grammar_impl.h"

typedef int64_t whole;

static const whole limit = 999999999999999999; /* NS_GRAM_DIGITS digits */

static uint32_t digit(ns_gram_make *m, int lo, int hi, uint32_t to)
{
    uint32_t x = ns_gram_node_add(m, NS_GRAM_BYTES, 0);
    ns_gram_edge_add(m, x, (unsigned)('0' + lo), (unsigned)('0' + hi), to);
    return x;
}

/* n digits more, of which a bound says something while the digits so far are its own: `low`, `high`. */
static uint32_t same_length(ns_gram_make *m, whole lo, whole hi, whole unit, bool low, bool high, uint32_t end)
{
    if (unit == 0)
        return end;
    int a = low ? (int)(lo / unit % 10) : 0, b = high ? (int)(hi / unit % 10) : 9;
    if (!low && !high)
        return digit(m, 0, 9, same_length(m, lo, hi, unit / 10, false, false, end));
    if (low && high && a == b)
        return digit(m, a, a, same_length(m, lo, hi, unit / 10, true, true, end));
    int from = low ? a + 1 : 0, to = high ? b - 1 : 9;
    uint32_t x = ns_gram_node_add(m, NS_GRAM_BYTES, 0);
    if (low)
        ns_gram_edge_add(m, x, (unsigned)('0' + a), (unsigned)('0' + a), same_length(m, lo, hi, unit / 10, true, false, end));
    if (from <= to)
        ns_gram_edge_add(m, x, (unsigned)('0' + from), (unsigned)('0' + to), same_length(m, lo, hi, unit / 10, false, false, end));
    if (high)
        ns_gram_edge_add(m, x, (unsigned)('0' + b), (unsigned)('0' + b), same_length(m, lo, hi, unit / 10, false, true, end));
    return x;
}

/* Adds the whole numbers lo..hi, 0 <= lo, as alternatives of `split`. */
static void wholes(ns_gram_make *m, uint32_t split, whole lo, whole hi, uint32_t end)
{
    for (whole unit = 1; lo <= hi; unit *= 10) { /* by length */
        whole top = unit * 10 - 1 < hi ? unit * 10 - 1 : hi;
        if (lo > top)
            continue;
        ns_gram_edge_add(m, split, 0, 0, same_length(m, lo, top, unit, true, true, end));
        lo = top + 1;
    }
}

/* A point and digits, or nothing; `zeros`: only noughts. */
static uint32_t fraction(ns_gram_make *m, bool zeros, uint32_t end)
{
    uint32_t after = end, one = 0;
    for (int i = 0; i < NS_GRAM_FRACTION; i++) {
        one = digit(m, 0, zeros ? 0 : 9, after);
        after = ns_gram_split(m, end, one);
    }
    return ns_gram_split(m, end, ns_gram_byte(m, '.', one));
}

/* A point and digits that are not all noughts. */
static uint32_t some_fraction(ns_gram_make *m, uint32_t end)
{
    uint32_t after = end, one = digit(m, 1, 9, end);
    for (int i = 1; i < NS_GRAM_FRACTION; i++) {
        uint32_t longer = digit(m, 0, 9, after), nought = one;
        after = ns_gram_split(m, end, longer);
        one = digit(m, 1, 9, after);
        ns_gram_edge_add(m, one, '0', '0', nought);
    }
    return ns_gram_byte(m, '.', one);
}

/* Sizes from lo to hi, 0 <= lo, without the bounds themselves where they are open; as alternatives of `split`. */
static void sizes(ns_gram_make *m, uint32_t split, whole lo, bool lo_open, whole hi, bool hi_open, bool integer, uint32_t end)
{
    if (integer) {
        wholes(m, split, lo + lo_open, hi - hi_open, end);
        return;
    }
    if (lo > hi || (lo == hi && (lo_open || hi_open)))
        return;
    if (lo < hi)
        wholes(m, split, lo, lo, lo_open ? some_fraction(m, end) : fraction(m, false, end));
    wholes(m, split, lo + 1, hi - 1, fraction(m, false, end));
    if (!hi_open)
        wholes(m, split, hi, hi, fraction(m, true, end));
}

/* The tighter of a bound and its exclusive twin; `sign` 1: from below, -1: from above. */
static int bound(ns_gram_make *m, const ns_gram_rule *r, const char *key, const char *open_key, int sign, whole *at, bool *open)
{
    *at = -sign * limit;
    *open = false;
    for (int i = 0; i < 2; i++) {
        const json_t *v = json_object_get(r->schema, i ? open_key : key);
        double d = json_number_value(v);
        if (!v)
            continue;
        if (!json_is_number(v) || !(d > -1e17 && d < 1e17) || d != (double)(whole)d)
            return ns_fail(m->e, NS_EUNSUPPORTED, "%s: %s: only whole numbers of at most 17 digits are supported", r->path, i ? open_key : key);
        whole x = json_is_integer(v) ? json_integer_value(v) : (whole)d;
        if (i == 0 || sign * x >= sign * *at) {
            *at = x;
            *open = i == 1;
        }
    }
    return 0;
}

int ns_gram_range(ns_gram_make *m, const ns_gram_rule *r, bool integer, uint32_t *entry)
{
    whole lo, hi;
    bool lo_open, hi_open;
    if (bound(m, r, "minimum", "exclusiveMinimum", 1, &lo, &lo_open) < 0 || bound(m, r, "maximum", "exclusiveMaximum", -1, &hi, &hi_open) < 0)
        return -1;
    uint32_t end = ns_gram_node_add(m, NS_GRAM_RET, 0), split = ns_gram_node_add(m, NS_GRAM_SPLIT, 0), minus;
    if (hi >= 0)
        sizes(m, split, lo > 0 ? lo : 0, lo >= 0 && lo_open, hi, hi_open, integer, end);
    if (lo < 0) {
        minus = ns_gram_node_add(m, NS_GRAM_SPLIT, 0);
        sizes(m, minus, hi < 0 ? -hi : 0, hi <= 0 && hi_open, -lo, lo_open, integer, end);
        if (m->g->nodes[minus].edges)
            ns_gram_edge_add(m, split, 0, 0, ns_gram_byte(m, '-', minus));
    }
    if (!m->g->nodes[split].edges && !m->failed)
        return ns_fail(m->e, NS_EINVAL, "%s: no number lies between the bounds", r->path);
    *entry = split;
    return 0;
}
