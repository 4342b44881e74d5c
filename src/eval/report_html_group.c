/* One checkpoint on one task, as a chapter of the page. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "eval/report_out.h"

enum { N_DEADLINES = 6 };

/* ---- what was run ---- */

/* Are two runs' options the same but for the seed? */
static bool same_options(const char *a, const char *b)
{
    json_t *x = json_loads(a, 0, NULL), *y = json_loads(b, 0, NULL);
    json_object_del(json_object_get(x, "sampling"), "seed");
    json_object_del(json_object_get(y, "sampling"), "seed");
    const bool same = json_equal(x, y);
    json_decref(x);
    json_decref(y);
    return same;
}

static void add_runs(const ns_report_group *g, ns_buf *b)
{
    const ns_report_run *first = g->run[0];
    bool machines = false, options = false, assumed = false, late = false;
    ns_html_table(b, "runs", "<th class=\"text\">checkpoint</th><th class=\"text\">made</th><th class=\"text\">nestar</th><th class=\"text\">file</th>"
                          "<th class=\"text\">options</th><th class=\"text\">machine</th>");
    for (int i = 0; i < g->n_runs; i++) {
        const ns_report_run *r = g->run[i];
        machines = machines || strcmp(r->machine, first->machine) != 0;
        options = options || !same_options(r->options, first->options);
        assumed = assumed || r->chunk_assumed;
        ns_buf_adds(b, "<tr>");
        ns_html_text(b, r->checkpoint);
        ns_html_text(b, r->created);
        ns_html_text(b, r->version);
        ns_html_text(b, r->file);
        ns_buf_adds(b, "<td class=\"text wrap\"><code>");
        ns_html(b, r->options);
        ns_buf_adds(b, "</code></td><td class=\"text wrap\"><code>");
        ns_html(b, r->machine);
        ns_buf_adds(b, "</code></td></tr>\n");
    }
    ns_html_end(b);
    for (int i = 0; i < g->n_plans; i++)
        late = late || strcmp(g->plan[i]->handover, "late") == 0;
    if (options)
        ns_buf_adds(b, "<p class=\"note\">The runs were not made with the same options (the seed aside); their answers are pooled all the same.</p>\n");
    if (machines)
        ns_buf_adds(b, "<p class=\"note\">The runs come from different machines; latencies are means over them.</p>\n");
    if (late && assumed)
        ns_buf_addf(b, "<p class=\"note\">The options do not say how long the last piece of a late handover is; the %d tokens of this nestar are taken.</p>\n",
                    NS_REPORT_CHUNK);
}

/* ---- plans ---- */

static void plan_cells(const ns_report_plan *p, ns_buf *b)
{
    ns_html_text(b, ns_report_sizes(p).text);
    ns_html_cell(b, ns_report_budget(p));
    ns_html_cell(b, ns_report_percent(p->accuracy));
    ns_html_cell(b, ns_report_interval(p->lo, p->hi));
    ns_html_cell(b, ns_report_seconds(p->seconds));
}

#define PLAN_HEADS "<th class=\"text\">sizes</th><th>budget</th><th>accuracy</th><th>95 % interval</th><th>latency</th>"

static void add_plans(const ns_report_group *g, ns_buf *b)
{
    ns_buf_adds(b, "<h3>All plans</h3>\n");
    ns_html_table(b, "plans", PLAN_HEADS "<th class=\"text\">latency is</th><th>tokens</th><th>of thought</th><th>weights read</th><th>answers</th>"
                           "<th>thoughts closed</th><th>did not end</th><th>not graded</th>");
    for (int i = 0; i < g->n_plans; i++) {
        const ns_report_plan *p = g->plan[i];
        static const char *const how[] = { "–", "computed", "measured" };
        ns_buf_adds(b, p->pareto ? "<tr class=\"front\">" : "<tr>");
        plan_cells(p, b);
        ns_html_text(b, how[p->latency]);
        ns_buf_addf(b, "<td>%.1f</td><td>%.1f</td><td>%s</td><td>%ld%s</td><td>%ld</td><td>%ld</td><td>%ld</td></tr>\n", p->thought + p->reply, p->thought,
                    ns_report_bytes(p->bytes).text, p->n, p->complete ? "" : " (incomplete)", p->closed, p->unended, p->n - p->graded);
    }
    ns_html_end(b);
    ns_buf_adds(b, "<p class=\"note\">Means an answer. Marked rows are on the Pareto front. Incomplete plans lack answers to some problems and are "
                   "compared with nothing.</p>\n");
}

static void add_front(const ns_report_group *g, ns_buf *b)
{
    int n = 0;
    ns_report_plan **front = ns_report_front(g, &n);
    ns_buf_adds(b, "<h3>Pareto front</h3>\n");
    ns_html_table(b, "pareto", "<th>no.</th>" PLAN_HEADS "<th class=\"text\">told apart from the one before</th>");
    for (int i = 0; front && i < n; i++) {
        ns_buf_addf(b, "<tr><td>%d</td>", i + 1);
        plan_cells(front[i], b);
        ns_html_text(b, i == 0 ? "–" : ns_report_apart(front[i - 1], front[i]) ? "yes" : "no");
        ns_buf_adds(b, "</tr>\n");
    }
    ns_html_end(b);
    free(front);
}

/* Plans within the deadline whose intervals overlap the best one's, the quickest of them named. */
static void add_equals(const ns_report_group *g, const ns_report_plan *best, double deadline, ns_buf *b)
{
    int n = 0;
    const ns_report_plan *quick = NULL;
    for (int i = 0; i < g->n_plans; i++) {
        const ns_report_plan *p = g->plan[i];
        if (p == best || !ns_report_comparable(p) || p->seconds > deadline || ns_report_apart(p, best))
            continue;
        n++;
        if (!quick || p->seconds < quick->seconds)
            quick = p;
    }
    ns_buf_addf(b, "<td>%d</td>", n);
    if (!quick || quick->seconds >= best->seconds) {
        ns_html_text(b, n ? "none quicker" : "–");
        return;
    }
    ns_report_name name = ns_report_plan_name(quick);
    ns_buf_adds(b, "<td class=\"text\">");
    ns_html(b, name.text);
    ns_buf_addf(b, " (%s, %s)</td>", ns_report_percent(quick->accuracy).text, ns_report_seconds(quick->seconds).text);
}

static void deadline_row(const ns_report_group *g, double deadline, bool asked, ns_buf *b)
{
    const int best = ns_report_best(g, deadline);
    ns_buf_addf(b, "<tr%s><td>%s</td>", asked ? " class=\"asked\"" : "", ns_report_seconds(deadline).text);
    if (best < 0) {
        ns_buf_adds(b, "<td class=\"text\" colspan=\"7\">no plan is that quick</td></tr>\n");
        return;
    }
    plan_cells(g->plan[best], b);
    add_equals(g, g->plan[best], deadline, b);
    ns_buf_adds(b, "</tr>\n");
}

static void add_deadlines(const ns_report *r, const ns_report_group *g, ns_buf *b)
{
    double lo = INFINITY, hi = 0;
    for (int i = 0; i < g->n_plans; i++)
        if (ns_report_comparable(g->plan[i])) {
            lo = fmin(lo, g->plan[i]->seconds);
            hi = fmax(hi, g->plan[i]->seconds);
        }
    ns_buf_adds(b, "<h3>The best plan for a deadline</h3>\n");
    ns_html_table(b, "deadlines", "<th>within</th>" PLAN_HEADS "<th>others equal</th><th class=\"text\">the quickest of them</th>");
    bool asked = r->deadline <= 0;
    for (int i = 0; i < N_DEADLINES; i++) {
        const double t = i == N_DEADLINES - 1 ? hi : lo * pow(hi / lo, (double)i / (N_DEADLINES - 1));
        if (!asked && r->deadline < t) {
            deadline_row(g, r->deadline, true, b);
            asked = true;
        }
        deadline_row(g, t, false, b);
    }
    if (!asked)
        deadline_row(g, r->deadline, true, b);
    ns_html_end(b);
    ns_buf_adds(b, "<p class=\"note\">Mean latencies: single answers take longer and shorter. &ldquo;Others equal&rdquo;: plans within the deadline whose "
                   "accuracy is not told apart from the best one's.</p>\n");
}

/* ---- claims ---- */

static void claim_row(const ns_report_group *g, const ns_report_pair *p, const ns_report_claim *c, ns_buf *b)
{
    const bool mean = c->plan < 0;
    ns_report_name sizes = ns_report_sizes(g->plan[p->claim[0].plan]);
    ns_buf_adds(b, mean ? "<tr class=\"mean\">" : "<tr>");
    ns_html_text(b, sizes.text);
    if (mean) {
        ns_buf_addf(b, "<td>mean</td><td></td><td></td><td>%s</td><td>%s</td></tr>\n", ns_report_points(c->gain).text, ns_report_ratio(c->ratio).text);
        return;
    }
    const ns_report_plan *plan = g->plan[c->plan];
    ns_html_cell(b, ns_report_budget(plan));
    ns_html_cell(b, ns_report_percent(plan->accuracy));
    ns_html_cell(b, ns_report_seconds(plan->seconds));
    ns_html_cell(b, ns_report_points(c->gain));
    ns_html_cell(b, ns_report_ratio(c->ratio));
    ns_buf_adds(b, "</tr>\n");
}

static int add_claims(const ns_report *r, int at, const char *dir, ns_buf *b, ns_err *e)
{
    const ns_report_group *g = r->group[at];
    int better = 0, worse = 0, n = 0;
    for (int i = 0; i < g->n_pairs; i++)
        for (int k = 0; k < g->pair[i].n; k++) {
            const ns_report_range *gain = &g->pair[i].claim[k].gain;
            n += !isnan(gain->lo);
            better += gain->lo > 0;
            worse += gain->hi < 0;
        }
    ns_buf_adds(b, "<h3>One size thinks, another answers</h3>\n<p>Against ordinary budgets with the answering size alone. ");
    ns_buf_addf(b, "Of %d mixed plans with an interval %d %s more accurate at equal latency, %d less, the others are not told apart", n, better,
                better == 1 ? "is" : "are", worse);
    if (n)
        ns_buf_addf(b, "; by chance alone about %.1f would fall on each side", 0.025 * n);
    ns_buf_adds(b, ".</p>\n");
    int rc = ns_report_has_claims(g) ? ns_report_html_figure(dir, ns_report_figure(r, at, "claims").text,
                                                             "What the mixed plans gain, with 95&#8239;% intervals; above 0 they are better.", b, e) : 0;
    ns_html_table(b, "claims", "<th class=\"text\">sizes</th><th>budget</th><th>accuracy</th><th>latency</th><th>gain at equal latency, points</th>"
                            "<th>latency ratio at equal accuracy</th>");
    for (int i = 0; i < g->n_pairs; i++) {
        for (int k = 0; k < g->pair[i].n; k++)
            claim_row(g, &g->pair[i], &g->pair[i].claim[k], b);
        claim_row(g, &g->pair[i], &g->pair[i].mean, b);
    }
    ns_html_end(b);
    return rc;
}

/* ---- the chapter ---- */

static void add_summary(const ns_report_group *g, ns_buf *b)
{
    int asked = 0;
    const ns_report_plan *best = NULL;
    for (int i = 0; i < g->n_problems; i++)
        asked += g->problem[i].asked;
    for (int i = 0; i < g->n_plans; i++)
        if (g->plan[i]->complete && (!best || g->plan[i]->accuracy > best->accuracy))
            best = g->plan[i];
    ns_buf_addf(b, "<p>%d problems, %d plans, %d run%s.", asked, g->n_plans, g->n_runs, g->n_runs == 1 ? "" : "s");
    if (best) {
        ns_report_name name = ns_report_plan_name(best);
        ns_buf_adds(b, " The most accurate plan is <strong>");
        ns_html(b, name.text);
        ns_buf_addf(b, "</strong>: %s (%s)", ns_report_percent(best->accuracy).text, ns_report_interval(best->lo, best->hi).text);
        if (best->latency != NS_LATENCY_NONE)
            ns_buf_addf(b, " in %s", ns_report_seconds(best->seconds).text);
        ns_buf_adds(b, ".");
    } else {
        ns_buf_adds(b, " No plan has answers to all problems yet, so none is compared.");
    }
    ns_buf_adds(b, "</p>\n");
}

static int add_figures(const ns_report *r, int g, const char *dir, bool latency, ns_buf *b, ns_err *e)
{
    int rc = 0;
    if (latency)
        rc = ns_report_html_figure(dir, ns_report_figure(r, g, "accuracy-latency").text,
                                   "Accuracy against latency; points along a curve are budgets of thought, bars 95&#8239;% intervals, ringed numbers those of "
                                   "the Pareto list.", b, e);
    if (rc == 0)
        rc = ns_report_html_figure(dir, ns_report_figure(r, g, "accuracy-tokens").text, "Accuracy against tokens.", b, e);
    if (rc == 0)
        rc = ns_report_html_figure(dir, ns_report_figure(r, g, "accuracy-bytes").text,
                                   "Accuracy against bytes of weights read, which stand for energy.", b, e);
    return rc;
}

int ns_report_html_group(const ns_report *r, int at, const char *dir, ns_buf *b, ns_err *e)
{
    const ns_report_group *g = r->group[at];
    bool any = false, latency = false;
    int rc = 0;
    for (int i = 0; i < g->n_plans; i++) {
        any = any || g->plan[i]->complete;
        latency = latency || ns_report_comparable(g->plan[i]);
    }
    ns_buf_addf(b, "<h2 id=\"group-%d\">", at + 1);
    ns_html(b, g->run[0]->checkpoint);
    ns_buf_adds(b, " on ");
    ns_html(b, g->task);
    ns_buf_adds(b, "</h2>\n");
    add_summary(g, b);
    add_runs(g, b);
    if (any)
        rc = add_figures(r, at, dir, latency, b, e);
    if (latency) {
        add_deadlines(r, g, b);
        add_front(g, b);
    } else if (any) {
        ns_buf_adds(b, "<p class=\"note\">No latencies: no answer was timed alone, and the speeds of the sizes were not measured.</p>\n");
    }
    if (rc == 0 && g->n_pairs)
        rc = add_claims(r, at, dir, b, e);
    if (g->n_sizes)
        ns_report_html_sizes(g, b);
    add_plans(g, b);
    return rc;
}
