#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "eval/report_out.h"

#define NAME(...) \
    ns_report_name out; \
    snprintf(out.text, sizeof out.text, __VA_ARGS__); \
    return out

ns_report_name ns_report_sizes(const ns_report_plan *p)
{
    const bool one = strcmp(p->think, p->answer) == 0 && strcmp(p->handover, "none") == 0;
    NAME(one ? "%.60s" : "%.60s → %.60s, %.30s", p->think, p->answer, p->handover);
}

ns_report_name ns_report_budget(const ns_report_plan *p)
{
    if (p->budget == NS_REPORT_TO_END) {
        NAME("to the end");
    }
    if (p->budget == 0) {
        NAME("off");
    }
    NAME("%lld", (long long)p->budget);
}

ns_report_name ns_report_plan_name(const ns_report_plan *p)
{
    const ns_report_name sizes = ns_report_sizes(p);
    if (p->budget == NS_REPORT_TO_END) {
        NAME("%.150s, thinking to the end", sizes.text);
    }
    if (p->budget == 0) {
        NAME("%.150s, thinking off", sizes.text);
    }
    NAME("%.150s, %lld tokens of thought", sizes.text, (long long)p->budget);
}

static ns_report_name scaled(double n, const char *unit)
{
    static const char *const prefix[] = { "", "k", "M", "G", "T" };
    int i = 0;
    for (; i < 4 && n >= 999.5; i++)
        n /= 1000;
    NAME("%.*f %s%s", i == 0 ? 0 : n < 9.995 ? 2 : n < 99.95 ? 1 : 0, n, prefix[i], unit);
}

ns_report_name ns_report_bytes(double n)
{
    return scaled(n, "B");
}

ns_report_name ns_report_count(double n)
{
    ns_report_name s = scaled(n, "");
    const size_t len = strlen(s.text);
    if (s.text[len - 1] == 'G')
        s.text[len - 1] = 'B'; /* billions are written so */
    else if (s.text[len - 1] == ' ')
        s.text[len - 1] = '\0';
    return s;
}

ns_report_name ns_report_seconds(double s)
{
    if (isnan(s)) {
        NAME("–");
    }
    NAME(s < 0.9995 ? "%.*f ms" : "%.*f s", s < 0.00995 ? 2 : s < 0.0995 ? 1 : s < 0.9995 ? 0 : s < 9.995 ? 2 : s < 99.95 ? 1 : 0,
         s < 0.9995 ? 1000 * s : s);
}

ns_report_name ns_report_percent(double share)
{
    if (isnan(share)) {
        NAME("–");
    }
    NAME("%.1f %%", 100 * share);
}

ns_report_name ns_report_interval(double lo, double hi)
{
    if (isnan(lo)) {
        NAME("–");
    }
    NAME("%.1f to %.1f %%", 100 * lo, 100 * hi);
}

ns_report_name ns_report_points(ns_report_range r)
{
    if (isnan(r.value)) {
        NAME("–");
    }
    if (isnan(r.lo)) {
        NAME("%+.1f", 100 * r.value);
    }
    NAME("%+.1f (%+.1f to %+.1f)", 100 * r.value, 100 * r.lo, 100 * r.hi);
}

static ns_report_name number(double v)
{
    if (isinf(v)) {
        NAME("never");
    }
    NAME("%.2f", v);
}

ns_report_name ns_report_ratio(ns_report_range r)
{
    if (isnan(r.value)) {
        NAME("–");
    }
    if (isnan(r.lo)) {
        NAME("%s", number(r.value).text);
    }
    NAME("%.40s (%.40s to %.40s)", number(r.value).text, number(r.lo).text, number(r.hi).text);
}

ns_report_name ns_report_p(double p)
{
    if (p < 0.001) {
        NAME("p < 0.001");
    }
    NAME("p = %.3f", p);
}

void ns_html(ns_buf *b, const char *s)
{
    for (; *s; s++) {
        switch (*s) {
        case '<': ns_buf_adds(b, "&lt;"); break;
        case '>': ns_buf_adds(b, "&gt;"); break;
        case '&': ns_buf_adds(b, "&amp;"); break;
        case '"': ns_buf_adds(b, "&quot;"); break;
        case '\'': ns_buf_adds(b, "&#39;"); break;
        default: ns_buf_addc(b, *s);
        }
    }
}

void ns_markdown(ns_buf *b, const char *s)
{
    for (; *s; s++) {
        if (strchr("<>&", *s))
            ns_html(b, (const char[]){ *s, '\0' });
        else if (iscntrl((unsigned char)*s))
            ns_buf_addc(b, ' ');
        else
            ns_buf_addf(b, strchr("\\`*_[]|#~", *s) ? "\\%c" : "%c", *s);
    }
}
