/* The figures: each is one gnuplot script that draws twice, as SVG (for the page) and as PNG. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/gnuplot.h"
#include "eval/report_out.h"

enum { WIDTH = 720, MAX_LABELS = 24 };

static const char *const colours[] = { "#1b1b1b", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00",
                                       "#56b4e9", "#8c564b", "#7f3fbf", "#6b8e23", "#b22222", "#2f8f8f" };
enum { N_COLOURS = sizeof colours / sizeof *colours };

ns_report_name ns_report_figure(const ns_report *r, int g, const char *what)
{
    ns_report_name out;
    if (r->n_groups > 1 && g >= 0)
        snprintf(out.text, sizeof out.text, "%.100s-%d", what, g + 1);
    else
        snprintf(out.text, sizeof out.text, "%.100s", what);
    return out;
}

bool ns_report_has_latency(const ns_report_group *g)
{
    for (int i = 0; i < g->n_plans; i++)
        if (g->plan[i]->latency != NS_LATENCY_NONE)
            return true;
    return false;
}

bool ns_report_has_claims(const ns_report_group *g)
{
    for (int i = 0; i < g->n_pairs; i++)
        if (g->pair[i].mean.n_gain)
            return true;
    return false;
}

/* ---- a figure ---- */

/* head: data blocks; plot: settings and the plot command. The legend below has as many columns as its longest entry leaves room for. */
struct figure {
    ns_buf head, plot;
    int entries, longest;
};

static void entry(struct figure *f, const char *title)
{
    const int n = (int)strlen(title);
    f->longest = n > f->longest ? n : f->longest;
    f->entries++;
    ns_buf_adds(&f->plot, " title ");
    ns_gnuplot_quote(&f->plot, title);
    ns_buf_adds(&f->plot, " noenhanced");
}

static int draw(struct figure *f, const char *dir, const char *name, ns_err *e)
{
    static const char *const ends[] = { ".svg", ".png" };
    ns_buf script = { 0 }, path = { 0 };
    const int room = WIDTH / (70 + 8 * f->longest), columns = room < 1 ? 1 : room > 3 ? 3 : room;
    const int height = 450 + 22 * ((f->entries + columns - 1) / columns);
    ns_buf_adds(&script, "set encoding utf8\n");
    if (f->head.len)
        ns_buf_add(&script, f->head.data, f->head.len);
    for (int i = 0; i < 2; i++) {
        ns_buf_clear(&path);
        ns_buf_addf(&path, "%s/%s%s", dir, name, ends[i]);
        ns_gnuplot_output(&script, path.data ? path.data : "", path.data ? path.data : "", i ? 2 * WIDTH : WIDTH, i ? 2 * height : height,
                          i ? "font 'Sans,12' fontscale 2 linewidth 2 pointscale 2" : "dynamic font 'sans-serif,14'");
        ns_buf_addf(&script, "set grid lc rgb '#dddddd' lt 1 lw 0.7\nset border 3\nset tics nomirror\nset key outside below center horizontal "
                             "Left reverse samplen 3 height 1 maxcols %d\n", columns);
        ns_buf_add(&script, f->plot.data, f->plot.len);
        ns_buf_adds(&script, "unset output\n");
    }
    const bool failed = f->head.failed || f->plot.failed || path.failed;
    int rc = failed ? ns_fail(e, NS_ENOMEM, "figures: out of memory") : ns_gnuplot_run(&script, e);
    ns_buf_release(&script);
    ns_buf_release(&path);
    ns_buf_release(&f->head);
    ns_buf_release(&f->plot);
    return rc ? ns_err_wrap(e, "figure %s", name) : 0;
}

static void labels(ns_buf *b, const char *x, const char *y)
{
    ns_buf_adds(b, "set xlabel ");
    ns_gnuplot_quote(b, x);
    ns_buf_adds(b, "\nset ylabel ");
    ns_gnuplot_quote(b, y);
    ns_buf_addc(b, '\n');
}

/* ---- accuracy against what it costs ---- */

enum cost { SECONDS, TOKENS, BYTES, N_COSTS };
static const struct {
    const char *file, *label;
} cost_of[N_COSTS] = { { "accuracy-latency", "latency at batch 1, seconds an answer" },
                       { "accuracy-tokens", "tokens written an answer (thought and answer)" },
                       { "accuracy-bytes", "weights read an answer, MB" } };

static double cost(const ns_report_plan *p, enum cost what)
{
    return what == SECONDS ? p->seconds : what == TOKENS ? p->thought + p->reply : p->bytes / 1e6;
}

static bool shown(const ns_report_plan *p, enum cost what)
{
    return p->complete && (what != SECONDS || p->latency != NS_LATENCY_NONE);
}

static bool same_series(const ns_report_plan *a, const ns_report_plan *b)
{
    return strcmp(a->think, b->think) == 0 && strcmp(a->answer, b->answer) == 0 && strcmp(a->handover, b->handover) == 0;
}

static bool one_size(const ns_report_plan *p)
{
    return strcmp(p->think, p->answer) == 0;
}

/* Dashes and points tell the handover, colours the pair of sizes. */
static void style(ns_buf *b, const ns_report_plan *p, int colour)
{
    static const struct {
        const char *name;
        int dash, point;
    } of[] = { { "none", 1, 7 }, { "cache", 2, 9 }, { "prefill", 4, 5 }, { "late", 3, 13 } };
    size_t i = 0;
    while (i + 1 < sizeof of / sizeof *of && strcmp(of[i].name, p->handover) != 0)
        i++;
    ns_buf_addf(b, "lc rgb '%s' dt %d pt %d lw %s ps 0.8", colours[colour % N_COLOURS], of[i].dash, of[i].point, one_size(p) ? "2.4" : "1.4");
}

/* One data block for each series: cost, accuracy, low, high in %. */
static void add_series(const ns_report_group *g, enum cost what, struct figure *f)
{
    int n = 0, pair = -1;
    const ns_report_plan *last = NULL;
    for (int i = 0; i < g->n_plans; i++) {
        const ns_report_plan *p = g->plan[i];
        if (!shown(p, what))
            continue;
        const bool new_pair = !last || strcmp(last->think, p->think) != 0 || strcmp(last->answer, p->answer) != 0;
        pair += new_pair;
        if (!last || !same_series(last, p)) {
            if (last)
                ns_buf_adds(&f->head, "EOD\n");
            ns_buf_addf(&f->head, "$s%d << EOD\n", n);
            ns_buf_addf(&f->plot, "%s$s%d using 1:2:3:4 with yerrorbars lc rgb '%s' lw 0.5 ps 0 notitle, $s%d using 1:2 with linespoints ",
                        n ? ", " : "", n, colours[pair % N_COLOURS], n);
            style(&f->plot, p, pair);
            entry(f, ns_report_sizes(p).text);
            n++;
        }
        last = p;
        ns_buf_addf(&f->head, "%.10g %.10g %.10g %.10g\n", cost(p, what), 100 * p->accuracy, 100 * p->lo, 100 * p->hi);
    }
    if (last)
        ns_buf_adds(&f->head, "EOD\n");
}

/* A grey staircase under the curves; rings with the numbers of the list over them. */
static void add_front(const ns_report_group *g, struct figure *f)
{
    int n = 0;
    ns_report_plan **front = ns_report_front(g, &n);
    ns_buf_adds(&f->head, "$front << EOD\n");
    for (int i = 0; front && i < n; i++)
        ns_buf_addf(&f->head, "%.10g %.10g %d\n", front[i]->seconds, 100 * front[i]->accuracy, i + 1);
    ns_buf_adds(&f->head, "EOD\n");
    free(front);
}

static void ranges(const ns_report_group *g, enum cost what, ns_buf *b)
{
    double lo = INFINITY, hi = -INFINITY, least = INFINITY, most = 0;
    for (int i = 0; i < g->n_plans; i++)
        if (shown(g->plan[i], what)) {
            lo = fmin(lo, 100 * g->plan[i]->lo);
            hi = fmax(hi, 100 * g->plan[i]->hi);
            least = fmin(least, cost(g->plan[i], what));
            most = fmax(most, cost(g->plan[i], what));
        }
    ns_buf_addf(b, "set yrange [%g:%g]\n", fmax(0, floor(lo - 2)), fmin(102, ceil(hi + 3)));
    if (most > 30 * least && least > 0)
        ns_buf_addf(b, "set logscale x\nset xrange [%g:%g]\n", least / 1.15, most * 1.15);
    else
        ns_buf_addf(b, "unset logscale x\nset xrange [0:%g]\n", most > 0 ? most * 1.05 : 1);
}

static int plot_cost(const ns_report *r, int g, enum cost what, const char *dir, ns_err *e)
{
    struct figure f = { 0 };
    const ns_report_group *v = r->group[g];
    labels(&f.plot, cost_of[what].label, "accuracy, %");
    ranges(v, what, &f.plot);
    ns_buf_adds(&f.plot, "plot ");
    if (what == SECONDS) {
        ns_buf_adds(&f.plot, "$front using 1:2 with steps lc rgb '#bbbbbb' lw 5");
        entry(&f, "Pareto front");
        ns_buf_adds(&f.plot, ", ");
    }
    add_series(v, what, &f);
    if (what == SECONDS) {
        add_front(v, &f);
        ns_buf_adds(&f.plot, ", $front using 1:2 with points pt 6 ps 1.6 lw 1.2 lc rgb '#000000' notitle, $front using 1:2:3 with labels "
                             "offset -0.9,0.7 notitle");
    }
    ns_buf_addc(&f.plot, '\n');
    return draw(&f, dir, ns_report_figure(r, g, cost_of[what].file).text, e);
}

/* ---- claims ---- */

static void add_claims(const ns_report_group *g, const ns_report_pair *p, int i, int colour, struct figure *f)
{
    ns_buf_addf(&f->head, "$c%d << EOD\n", i);
    for (int k = 0; k < p->n; k++) {
        const ns_report_range *gain = &p->claim[k].gain;
        if (p->claim[k].n_gain)
            ns_buf_addf(&f->head, "%.10g %.10g %.10g %.10g\n", g->plan[p->claim[k].plan]->seconds, 100 * gain->value,
                        100 * (isnan(gain->lo) ? gain->value : gain->lo), 100 * (isnan(gain->hi) ? gain->value : gain->hi));
    }
    ns_buf_adds(&f->head, "EOD\n");
    ns_buf_addf(&f->plot, ", $c%d using 1:2:3:4 with yerrorbars lc rgb '%s' lw 0.7 ps 0 notitle, $c%d using 1:2 with linespoints ", i,
                colours[colour % N_COLOURS], i);
    style(&f->plot, g->plan[p->claim[0].plan], colour);
    entry(f, ns_report_sizes(g->plan[p->claim[0].plan]).text);
}

/* A little wider than the points. */
static void x_range(const ns_report_group *g, ns_buf *b)
{
    double lo = INFINITY, hi = 0;
    for (int i = 0; i < g->n_pairs; i++)
        for (int k = 0; k < g->pair[i].n; k++)
            if (g->pair[i].claim[k].n_gain) {
                lo = fmin(lo, g->plan[g->pair[i].claim[k].plan]->seconds);
                hi = fmax(hi, g->plan[g->pair[i].claim[k].plan]->seconds);
            }
    const double room = hi > lo ? 0.05 * (hi - lo) : 0.05 * hi;
    ns_buf_addf(b, "set xrange [%.10g:%.10g]\n", lo - room, hi + room);
}

static int plot_claims(const ns_report *r, int g, const char *dir, ns_err *e)
{
    struct figure f = { 0 };
    const ns_report_group *v = r->group[g];
    int colour = 0;
    labels(&f.plot, "latency at batch 1, seconds an answer", "gain at equal latency, points");
    ns_buf_adds(&f.plot, "set autoscale noextend\nset offsets 0, 0, graph 0.05, graph 0.05\n");
    x_range(v, &f.plot);
    ns_buf_adds(&f.plot, "plot 0 with lines lc rgb "
                         "'#000000' lw 0.8 notitle");
    for (int i = 0; i < v->n_pairs; i++) {
        const ns_report_pair *p = &v->pair[i];
        colour += i > 0 && (strcmp(p->think, p[-1].think) != 0 || strcmp(p->answer, p[-1].answer) != 0);
        if (p->mean.n_gain)
            add_claims(v, p, i, colour + 1, &f); /* black is left to the zero line */
    }
    ns_buf_addc(&f.plot, '\n');
    return draw(&f, dir, ns_report_figure(r, g, "claims").text, e);
}

int ns_report_plot_group(const ns_report *r, int g, const char *dir, ns_err *e)
{
    int rc = 0;
    bool any = false;
    for (int i = 0; i < r->group[g]->n_plans; i++)
        any = any || r->group[g]->plan[i]->complete;
    if (!any)
        return 0;
    if (ns_report_has_latency(r->group[g]))
        rc = plot_cost(r, g, SECONDS, dir, e);
    if (rc == 0)
        rc = plot_cost(r, g, TOKENS, dir, e);
    if (rc == 0)
        rc = plot_cost(r, g, BYTES, dir, e);
    if (rc == 0 && ns_report_has_claims(r->group[g]))
        rc = plot_claims(r, g, dir, e);
    return rc;
}

/* ---- drift ---- */

int ns_report_plot_drift(const ns_report *r, const char *dir, ns_err *e)
{
    struct figure f = { 0 };
    labels(&f.plot, "layer", "residual stream off by, share of its size");
    ns_buf_adds(&f.plot, "set yrange [0:*]\nset offsets 0, 0.5, graph 0.05, 0\nplot ");
    for (int i = 0; i < r->n_drifts; i++) {
        const ns_report_drift *d = &r->drift[i];
        if (d->n_layers == 0)
            continue;
        ns_buf_addf(&f.head, "$d%d << EOD\n", i);
        for (int k = 0; k < d->n_layers; k++)
            ns_buf_addf(&f.head, "%d %.10g\n", k, d->layer[k]);
        ns_buf_adds(&f.head, "EOD\n");
        ns_buf_addf(&f.plot, "%s$d%d with linespoints lc rgb '%s' pt 7 ps 0.6 lw 1.6", f.entries ? ", " : "", i,
                    colours[f.entries % N_COLOURS]);
        char title[200];
        const char *base = strrchr(d->file, '/');
        snprintf(title, sizeof title, "%.80s, %.80s", base ? base + 1 : d->file, d->size);
        entry(&f, title);
    }
    ns_buf_addc(&f.plot, '\n');
    if (f.entries)
        return draw(&f, dir, "drift-layers", e);
    ns_buf_release(&f.head);
    ns_buf_release(&f.plot);
    return 0;
}
