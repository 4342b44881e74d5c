/* What each size keeps and loses, as tables of the page; and the cells of all tables. */
#include <string.h>

#include "eval/report_out.h"

void ns_html_text(ns_buf *b, const char *s)
{
    ns_buf_adds(b, "<td class=\"text\">");
    ns_html(b, s);
    ns_buf_adds(b, "</td>");
}

void ns_html_cell(ns_buf *b, ns_report_name v)
{
    ns_buf_addf(b, "<td>%s</td>", v.text);
}

void ns_html_table(ns_buf *b, const char *class, const char *heads)
{
    ns_buf_addf(b, "<div class=\"scroll\"><table class=\"%s\">\n<tr>%s</tr>\n", class, heads);
}

void ns_html_end(ns_buf *b)
{
    ns_buf_adds(b, "</table></div>\n");
}

static void size_row(const ns_report_group *g, const ns_report_size *s, ns_buf *b)
{
    const ns_report_plan *full = g->size[0].plan >= 0 ? g->plan[g->size[0].plan] : NULL, *p = s->plan >= 0 ? g->plan[s->plan] : NULL;
    ns_buf_adds(b, "<tr>");
    ns_html_text(b, s->name);
    ns_html_cell(b, ns_report_count((double)s->active));
    ns_html_cell(b, ns_report_bytes((double)s->bytes));
    if (!p) {
        ns_buf_adds(b, "<td class=\"text\" colspan=\"9\">no complete plan</td></tr>\n");
        return;
    }
    ns_html_cell(b, ns_report_budget(p));
    ns_html_cell(b, ns_report_percent(p->accuracy));
    ns_html_cell(b, ns_report_interval(p->lo, p->hi));
    ns_html_cell(b, ns_report_points(s->against_full));
    if (!full || p == full) {
        ns_buf_adds(b, "<td></td><td></td><td></td><td></td><td></td></tr>\n");
        return;
    }
    const ns_report_tally t = ns_report_compare(g, full, p, NULL, -1);
    const double n = (double)(t.both + t.lost + t.won + t.neither);
    ns_buf_addf(b, "<td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td></tr>\n", ns_report_percent((double)t.both / n).text,
                ns_report_percent((double)t.lost / n).text, ns_report_percent((double)t.won / n).text, ns_report_percent((double)t.neither / n).text,
                t.lost + t.won ? ns_report_p(ns_report_sign_test(t.lost, t.won)).text : "–");
}

/* One row: accuracy of every size on the problems of a kind or level. */
static void part_row(const ns_report_group *g, const char *kind, int level, ns_buf *b)
{
    ns_buf_adds(b, "<tr>");
    if (kind)
        ns_html_text(b, kind);
    else
        ns_buf_addf(b, "<td class=\"text\">level %d</td>", level);
    for (int i = 0; i < g->n_sizes; i++) {
        long n = 0;
        const ns_report_plan *p = g->size[i].plan >= 0 ? g->plan[g->size[i].plan] : NULL;
        const ns_report_range a = p ? ns_report_accuracy(g, p, kind, level, &n) : (ns_report_range){ NAN, NAN, NAN };
        if (i == 0)
            ns_buf_addf(b, "<td>%ld</td>", n);
        ns_buf_addf(b, "<td>%s</td><td>%s</td>", ns_report_percent(a.value).text, ns_report_interval(a.lo, a.hi).text);
    }
    ns_buf_adds(b, "</tr>\n");
}

static void add_parts(const ns_report_group *g, ns_buf *b)
{
    ns_buf heads = { 0 };
    ns_buf_adds(&heads, "<th class=\"text\">problems</th><th>graded</th>");
    for (int i = 0; i < g->n_sizes; i++) {
        ns_buf_adds(&heads, "<th>");
        ns_html(&heads, g->size[i].name);
        ns_buf_adds(&heads, "</th><th>95 % interval</th>");
    }
    ns_buf_adds(b, "<h3>By kind and level</h3>\n");
    ns_html_table(b, "kinds", heads.failed ? "" : heads.data);
    for (int i = 0; i < g->n_kinds; i++)
        part_row(g, g->kind[i], -1, b);
    for (int i = 0; i < g->n_levels; i++)
        part_row(g, NULL, g->level[i], b);
    ns_html_end(b);
    b->failed = b->failed || heads.failed;
    ns_buf_release(&heads);
}

/* The judged plans run by run: how much seeds and machines differ. */
static void add_spread(const ns_report_group *g, ns_buf *b)
{
    ns_buf_adds(b, "<h3>Run by run</h3>\n");
    ns_buf_adds(b, "<div class=\"scroll\"><table class=\"spread\">\n<tr><th class=\"text\">size</th>");
    for (int r = 0; r < g->n_runs; r++)
        ns_buf_addf(b, "<th>run %d</th>", r + 1);
    ns_buf_adds(b, "</tr>\n");
    for (int i = 0; i < g->n_sizes; i++) {
        const ns_report_plan *p = g->size[i].plan >= 0 ? g->plan[g->size[i].plan] : NULL;
        ns_buf_adds(b, "<tr>");
        ns_html_text(b, g->size[i].name);
        for (int r = 0; r < g->n_runs; r++) {
            double right = 0, graded = 0;
            for (int k = 0; p && p->cell[r] && k < g->n_problems; k++) {
                right += p->cell[r][k].correct;
                graded += p->cell[r][k].graded;
            }
            ns_html_cell(b, ns_report_percent(right / graded));
        }
        ns_buf_adds(b, "</tr>\n");
    }
    ns_html_end(b);
}

void ns_report_html_sizes(const ns_report_group *g, ns_buf *b)
{
    ns_buf_adds(b, "<h3>What each size keeps and loses</h3>\n<p>Each size alone, with the longest budget measured. Problem by problem against ");
    ns_html(b, g->size[0].name);
    ns_buf_adds(b, ", the largest.</p>\n");
    ns_html_table(b, "sizes", "<th class=\"text\">size</th><th>active parameters</th><th>bytes a token</th><th>budget</th><th>accuracy</th><th>95 % interval"
                           "</th><th>difference, points</th><th>both right</th><th>lost</th><th>won</th><th>both wrong</th><th>sign test</th>");
    for (int i = 0; i < g->n_sizes; i++)
        size_row(g, &g->size[i], b);
    ns_html_end(b);
    if (g->n_kinds || g->n_levels)
        add_parts(g, b);
    if (g->n_runs > 1)
        add_spread(g, b);
}
