/* What the writers of a report share. */
#ifndef NS_EVAL_REPORT_OUT_H
#define NS_EVAL_REPORT_OUT_H
#include "base/buf.h"
#include "eval/report.h"

/* ---- words; report_text.c ---- */

typedef struct ns_report_name {
    char text[192];
} ns_report_name;

ns_report_name ns_report_sizes(const ns_report_plan *p);    /* "small → full, cache", "full" */
ns_report_name ns_report_budget(const ns_report_plan *p);   /* "32", "off", "to the end" */
ns_report_name ns_report_plan_name(const ns_report_plan *p); /* "small → full, cache, 32 tokens of thought" */
ns_report_name ns_report_count(double n);                   /* "3.45 M" */
ns_report_name ns_report_bytes(double n);                   /* "6.90 MB" */
ns_report_name ns_report_seconds(double s);                 /* "1.23 s", "80 ms" */
ns_report_name ns_report_percent(double share);             /* "97.2 %", "–" for NAN */
ns_report_name ns_report_points(ns_report_range r);         /* "-1.6 (-2.9 to -0.4)" percentage points */
ns_report_name ns_report_interval(double lo, double hi);    /* "96.0 to 98.1 %" */
ns_report_name ns_report_ratio(ns_report_range r);          /* "1.90 (1.71 to 2.05)" */
ns_report_name ns_report_p(double p);                        /* "p = 0.031", "p < 0.001" */
/* Text from the data: < > & " ' as entities; in Markdown also what would be markup, and no line breaks. */
void ns_html(ns_buf *b, const char *s);
void ns_markdown(ns_buf *b, const char *s);

/* ---- figures; report_plot.c ---- */

/* Draws all figures of group g, or of the drifts, into dir. */
int ns_report_plot_group(const ns_report *r, int g, const char *dir, ns_err *e);
int ns_report_plot_drift(const ns_report *r, const char *dir, ns_err *e);
/* "accuracy-latency", or with more than one group "accuracy-latency-2": the file without its end. */
ns_report_name ns_report_figure(const ns_report *r, int g, const char *what);
bool ns_report_has_claims(const ns_report_group *g);
bool ns_report_has_latency(const ns_report_group *g);

/* ---- pages; report_html.c, report_html_group.c, report_html_sizes.c, report_card.c ---- */

/* dir holds the figures. */
int ns_report_html(const ns_report *r, const char *dir, ns_buf *out, ns_err *e);
int ns_report_html_group(const ns_report *r, int g, const char *dir, ns_buf *b, ns_err *e);
int ns_report_html_figure(const char *dir, const char *name, const char *caption, ns_buf *b, ns_err *e);
/* Tables: class and head cells as HTML; cells with text from the data, and with figures. */
void ns_html_table(ns_buf *b, const char *class, const char *heads);
void ns_html_end(ns_buf *b);
void ns_html_text(ns_buf *b, const char *s);
void ns_html_cell(ns_buf *b, ns_report_name v);
void ns_report_html_sizes(const ns_report_group *g, ns_buf *b);
void ns_report_card(const ns_report *r, ns_buf *out);
#endif
