/* The page around the groups: head and style, drift, formulas, figures. One file, no script, nothing from elsewhere. */
#include <string.h>

#include "base/file.h"
#include "eval/report_out.h"

static const char head[] =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<link rel=\"icon\" href=\"data:,\">\n<title>nestar report</title>\n<style>\n"
    ":root { color-scheme: light dark; --line: #d0d0d0; --soft: #f4f4f4; --mark: #fff3cd; --ink: #1b1b1b; --paper: #fff; }\n"
    "@media (prefers-color-scheme: dark) { :root { --line: #444; --soft: #262626; --mark: #4a3f14; --ink: #e6e6e6; --paper: #181818; } }\n"
    "body { font: 1rem/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 60rem; margin: 0 auto; padding: 1rem; }\n"
    "h1 { font-size: 1.6rem; } h2 { font-size: 1.3rem; margin-top: 2.5rem; border-top: 2px solid var(--line); padding-top: 1rem; }\n"
    "h3 { font-size: 1.05rem; margin-top: 1.8rem; }\n"
    ".scroll { overflow-x: auto; }\n"
    "table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }\n"
    "th, td { padding: .25rem .6rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }\n"
    "th { background: var(--soft); vertical-align: bottom; white-space: normal; min-width: 4rem; } th.text, td.text { text-align: left; } td.wrap { white-space: normal; min-width: 14rem; }\n"
    "tr.front td, tr.asked td { background: var(--mark); } tr.mean td { font-weight: 600; border-bottom-width: 2px; }\n"
    "figure { margin: 1rem 0; overflow-x: auto; } figure svg { background: #fff; width: 100%; min-width: 34rem; height: auto; display: block; }\n"
    "figcaption, .note { font-size: .9rem; } code { font-size: .9em; overflow-wrap: anywhere; } dt { font-weight: 600; margin-top: .6rem; }\n"
    "dd { margin-left: 1rem; }\n"
    "</style>\n</head>\n<body>\n<h1>nestar report</h1>\n";

static const char formulas[] =
    "<h2 id=\"formulas\">How the figures are made</h2>\n<dl class=\"formulas\">\n"
    "<dt>Accuracy</dt><dd>The mean over problems of the share of right answers among those that could be graded. The interval is Wilson's at "
    "95&#8239;%; where problems were answered more than once, for p(1&#8239;&minus;&#8239;p)&#8239;/&#8239;(V&#8239;/&#8239;C) answers, V the variance "
    "of the C problems' shares, held between the number of problems and that of answers. It speaks of other problems of this kind, not of other "
    "trainings.</dd>\n"
    "<dt>Latency at batch 1</dt><dd>The mean of the answers' own times where each was timed alone (&ldquo;measured&rdquo;). Else computed, with the "
    "measured speeds of the sizes, S thinking and L answering: prompt&#8239;/&#8239;prefill(S) + thought&#8239;/&#8239;decode(S) + handover + "
    "answer&#8239;/&#8239;decode(L). Handover: none 0; cache: the measured time of a switch to L; prefill: (prompt + thought)&#8239;/&#8239;prefill(L); "
    "late, where L reads the prefix in pieces while S still writes: the last piece&#8239;/&#8239;prefill(L), which counts as free what L read before "
    "and is right only where both can compute at once.</dd>\n"
    "<dt>Weights read</dt><dd>What decoding reads, as a stand-in for energy: thought tokens &times; active bytes of S + answer tokens &times; active "
    "bytes of L + once the active bytes of S for the prompt, and once those of L where it reads the prefix (prefill, late). Caches and activations "
    "are not counted, nor that a prompt of many tokens reads more experts than one token does.</dd>\n"
    "<dt>Pareto front</dt><dd>Plans that no other plan beats: as accurate and quicker, or as quick and more accurate. Neighbours on it need not be told "
    "apart by their intervals.</dd>\n"
    "<dt>Equal, told apart</dt><dd>Two plans are called equal where their 95&#8239;% intervals overlap. A paired test of the "
    "difference tells more of them apart.</dd>\n"
    "<dt>Gain at equal latency</dt><dd>Accuracy of S&#8239;&rarr;&#8239;L less that of L alone at the same latency. The curve of L alone joins its "
    "budgets by straight lines after each was given the best accuracy of the quicker ones; beyond its slowest point it stays level, and left of its "
    "quickest there is nothing to compare with.</dd>\n"
    "<dt>Latency ratio at equal accuracy</dt><dd>The latency at which that curve reaches the accuracy of S&#8239;&rarr;&#8239;L, over the latency of "
    "S&#8239;&rarr;&#8239;L; above 1 the mixed plan is quicker. &ldquo;never&rdquo;: L alone does not get there with any budget measured.</dd>\n"
    "<dt>Their intervals</dt><dd>2.5 to 97.5 percentiles of a bootstrap over problems, the same draw for every plan (so the comparison is paired), a "
    "fixed seed. The row of means is over the budgets of the pair that have a value (ratio: geometric mean); it is not picked, as the best row "
    "would be.</dd>\n"
    "<dt>Lost, won</dt><dd>Problem by problem against the largest size: right there and wrong here, and the reverse. With several answers a problem "
    "counts as right where at least half are. p: two-sided sign test of lost against won.</dd>\n"
    "<dt>Drift</dt><dd>Of <code>nestar compare --json</code>: mean divergence KL(A || B) in nats a token, the worst token, how often both find the "
    "same token likeliest, and by layer the root of the squared difference of the residual streams over that of A.</dd>\n"
    "</dl>\n";

/* ---- figures ---- */

/* gnuplot gives the same ids in every file; one page holds several. */
static void add_svg(ns_buf *b, const char *svg, const char *name)
{
    static const char *const starts[] = { "id='", "id=\"", "href='#", "url(#" };
    while (*svg) {
        size_t n = 0;
        for (size_t i = 0; i < sizeof starts / sizeof *starts && n == 0; i++)
            if (strncmp(svg, starts[i], strlen(starts[i])) == 0)
                n = strlen(starts[i]);
        if (n == 0) {
            ns_buf_addc(b, *svg++);
            continue;
        }
        ns_buf_add(b, svg, n);
        ns_buf_addf(b, "%s-", name);
        svg += n;
    }
}

int ns_report_html_figure(const char *dir, const char *name, const char *caption, ns_buf *b, ns_err *e)
{
    ns_buf path = { 0 }, svg = { 0 };
    ns_buf_addf(&path, "%s/%s.svg", dir, name);
    int rc = path.failed ? ns_fail(e, NS_ENOMEM, "report: out of memory") : ns_file_read(path.data, (size_t)1 << 26, &svg, e);
    const char *start = rc == 0 && svg.data ? strstr(svg.data, "<svg") : NULL;
    if (rc == 0 && !start)
        rc = ns_fail(e, NS_EFORMAT, "%s: gnuplot wrote no SVG", path.data);
    if (rc == 0) {
        ns_buf_addf(b, "<figure class=\"%s\">\n", name);
        add_svg(b, start, name);
        ns_buf_addf(b, "<figcaption>%s Also as <code>%s.png</code>.</figcaption>\n</figure>\n", caption, name);
    }
    ns_buf_release(&path);
    ns_buf_release(&svg);
    return rc;
}

/* ---- drift ---- */

static int add_drift(const ns_report *r, const char *dir, ns_buf *b, ns_err *e)
{
    bool layers = false;
    ns_buf_adds(b, "<h2 id=\"drift\">Drift</h2>\n<p>How far the sizes are from what they were compared with, on text.</p>\n<div class=\"scroll\">"
                   "<table class=\"drift\">\n<tr><th class=\"text\">file</th><th class=\"text\">size</th><th>KL(A || B), nats</th><th>worst token</th>"
                   "<th>same likeliest token</th><th>perplexity A</th><th>perplexity B</th><th>tokens</th><th>last layer off by</th></tr>\n");
    for (int i = 0; i < r->n_drifts; i++) {
        const ns_report_drift *d = &r->drift[i];
        layers = layers || d->n_layers > 0;
        ns_buf_adds(b, "<tr><td class=\"text\">");
        ns_html(b, d->file);
        ns_buf_adds(b, "</td><td class=\"text\">");
        ns_html(b, d->size);
        ns_buf_addf(b, "</td><td>%.5f</td><td>%.3f</td><td>%s</td><td>%.4f</td><td>%.4f</td><td>%.0f</td><td>%s</td></tr>\n", d->kl, d->worst_kl,
                    ns_report_percent(d->agree).text, d->perplexity_a, d->perplexity_b, d->tokens,
                    ns_report_percent(d->n_layers ? d->layer[d->n_layers - 1] : NAN).text);
    }
    ns_buf_adds(b, "</table></div>\n");
    return layers ? ns_report_html_figure(dir, "drift-layers", "How far the residual stream is off after each layer.", b, e) : 0;
}

/* The sizes of all groups in one table: how trainings and tasks differ. */
static void add_overview(const ns_report *r, ns_buf *b)
{
    ns_buf_adds(b, "<h2>All checkpoints and tasks</h2>\n");
    ns_html_table(b, "overview", "<th class=\"text\">checkpoint</th><th class=\"text\">task</th><th class=\"text\">size</th><th>budget</th><th>accuracy</th>"
                                 "<th>95 % interval</th><th>latency</th><th>against the largest, points</th>");
    for (int g = 0; g < r->n_groups; g++)
        for (int i = 0; i < r->group[g]->n_sizes; i++) {
            const ns_report_size *s = &r->group[g]->size[i];
            const ns_report_plan *p = s->plan >= 0 ? r->group[g]->plan[s->plan] : NULL;
            if (!p)
                continue;
            ns_buf_adds(b, "<tr>");
            ns_html_text(b, r->group[g]->run[0]->checkpoint);
            ns_html_text(b, r->group[g]->task);
            ns_html_text(b, s->name);
            ns_html_cell(b, ns_report_budget(p));
            ns_html_cell(b, ns_report_percent(p->accuracy));
            ns_html_cell(b, ns_report_interval(p->lo, p->hi));
            ns_html_cell(b, ns_report_seconds(p->seconds));
            ns_html_cell(b, ns_report_points(s->against_full));
            ns_buf_adds(b, "</tr>\n");
        }
    ns_html_end(b);
}

int ns_report_html(const ns_report *r, const char *dir, ns_buf *b, ns_err *e)
{
    int rc = 0;
    ns_buf_adds(b, head);
    ns_buf_adds(b, "<p>What answers cost and how often they are right, for sizes of one checkpoint, budgets of thought, and sizes that think for "
                   "others. Made by nestar " NS_VERSION " from the results of <code>nestar eval</code>; "
                   "<a href=\"#formulas\">how the figures are made</a>.</p>\n");
    if (r->n_groups > 1 || r->n_drifts) {
        ns_buf_adds(b, "<ul class=\"contents\">\n");
        for (int g = 0; g < r->n_groups; g++) {
            ns_buf_addf(b, "<li><a href=\"#group-%d\">", g + 1);
            ns_html(b, r->group[g]->run[0]->checkpoint);
            ns_buf_adds(b, " on ");
            ns_html(b, r->group[g]->task);
            ns_buf_adds(b, "</a></li>\n");
        }
        if (r->n_drifts)
            ns_buf_adds(b, "<li><a href=\"#drift\">Drift</a></li>\n");
        ns_buf_adds(b, "</ul>\n");
    }
    if (r->n_groups > 1)
        add_overview(r, b);
    for (int g = 0; g < r->n_groups && rc == 0; g++)
        rc = ns_report_html_group(r, g, dir, b, e);
    if (rc == 0 && r->n_drifts)
        rc = add_drift(r, dir, b, e);
    ns_buf_adds(b, formulas);
    ns_buf_adds(b, "</body>\n</html>\n");
    return rc;
}
