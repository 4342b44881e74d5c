/* The model card: for each size what it keeps and loses, in words made from the figures. */
#include <string.h>

#include "eval/report_out.h"

static const double told_apart = 0.05; /* the sign test's level, for every word that says a size loses or gains */

static void add_name(ns_buf *b, const char *s)
{
    ns_markdown(b, s);
}

static void add_cost(const ns_report_size *s, const ns_report_size *full, ns_buf *b)
{
    ns_buf_addf(b, "- **Cost:** %s active parameters", ns_report_count((double)s->active).text);
    if (s != full && full->active > 0)
        ns_buf_addf(b, " (%s of the largest size)", ns_report_percent((double)s->active / (double)full->active).text);
    if (s->total)
        ns_buf_addf(b, " of %s in all; %s of weights", ns_report_count((double)s->total).text, ns_report_bytes((double)s->weight_bytes).text);
    ns_buf_addf(b, "; decoding one token reads %s.\n", ns_report_bytes((double)s->bytes).text);
}

/* "loses", "gains" or neither, by the sign test. */
static const char *verdict(const ns_report_tally *t)
{
    if (ns_report_sign_test(t->lost, t->won) >= told_apart)
        return "not told apart from it";
    return t->lost > t->won ? "worse than it" : "better than it";
}

static void add_agreement(const ns_report_group *g, const ns_report_plan *full, const ns_report_size *s, ns_buf *b)
{
    const ns_report_tally t = ns_report_compare(g, full, g->plan[s->plan], NULL, -1);
    const long n = t.both + t.lost + t.won + t.neither;
    ns_buf_adds(b, "- **Against ");
    add_name(b, g->size[0].name);
    ns_buf_addf(b, ":** of %ld problems%s both solve %ld; it loses %ld that the larger size solves and wins %ld that it does not; %ld neither "
                "solves. The difference is %s points; by the sign test (%s) it is %s.\n",
                n, g->n_runs > 1 ? " (each counted once a run)" : "", t.both, t.lost, t.won, t.neither,
                ns_report_points(s->against_full).text, ns_report_p(ns_report_sign_test(t.lost, t.won)).text, verdict(&t));
}

/* Kinds that the sign test calls worse or better. Many kinds are tested, so some are called by chance: said in the notes. */
static void add_kind_words(const ns_report_group *g, const ns_report_plan *full, const ns_report_plan *p, ns_buf *b)
{
    int named = 0;
    ns_buf_adds(b, "- **By kind:** ");
    for (int i = 0; i < g->n_kinds; i++) {
        const ns_report_tally t = ns_report_compare(g, full, p, g->kind[i], -1);
        if (ns_report_sign_test(t.lost, t.won) >= told_apart)
            continue;
        ns_buf_addf(b, "%s%s on ", named++ ? "; " : "", t.lost > t.won ? "loses" : "gains");
        add_name(b, g->kind[i]);
        ns_buf_addf(b, " (%ld lost, %ld won)", t.lost, t.won);
    }
    ns_buf_adds(b, named ? "; on the other kinds no difference is told apart.\n" : "no kind of question on which a difference is told apart.\n");
}

/* What the size takes for granted: how far it gets with less thought. */
static void add_budgets(const ns_report_group *g, const char *size, ns_buf *b)
{
    int n = 0;
    for (int i = 0; i < g->n_plans; i++) {
        const ns_report_plan *p = g->plan[i];
        if (!p->complete || strcmp(p->think, size) != 0 || strcmp(p->answer, size) != 0 || strcmp(p->handover, "none") != 0)
            continue;
        ns_buf_addf(b, "%s%s %s", n++ ? ", " : "- **By budget of thought:** ", ns_report_budget(p).text, ns_report_percent(p->accuracy).text);
        if (p->latency != NS_LATENCY_NONE)
            ns_buf_addf(b, " in %s", ns_report_seconds(p->seconds).text);
    }
    if (n)
        ns_buf_adds(b, ".\n");
}

static void add_drift(const ns_report *r, const char *size, ns_buf *b)
{
    for (int i = 0; i < r->n_drifts; i++) {
        const ns_report_drift *d = &r->drift[i];
        if (strcmp(d->size, size) != 0)
            continue;
        ns_buf_addf(b, "- **Drift** (");
        add_name(b, d->file);
        ns_buf_addf(b, "): %.5f nats a token, at worst %.3f; the same token is likeliest at %s of %.0f places; perplexity %.4f against %.4f", d->kl,
                    d->worst_kl, ns_report_percent(d->agree).text, d->tokens, d->perplexity_b, d->perplexity_a);
        if (d->n_layers)
            ns_buf_addf(b, "; the residual stream is off by %s after the last layer", ns_report_percent(d->layer[d->n_layers - 1]).text);
        ns_buf_adds(b, ".\n");
    }
}

static void add_size(const ns_report *r, const ns_report_group *g, const ns_report_size *s, ns_buf *b)
{
    const ns_report_plan *p = s->plan >= 0 ? g->plan[s->plan] : NULL, *full = g->size[0].plan >= 0 ? g->plan[g->size[0].plan] : NULL;
    ns_buf_adds(b, "\n### ");
    add_name(b, s->name);
    ns_buf_adds(b, "\n\n");
    add_cost(s, &g->size[0], b);
    if (!p) {
        ns_buf_adds(b, "- **Accuracy:** not known, no plan has answers to all problems.\n");
        return;
    }
    ns_buf_addf(b, "- **Accuracy:** %s (%s) of %ld answers, %.1f tokens of thought on average.\n", ns_report_percent(p->accuracy).text,
                ns_report_interval(p->lo, p->hi).text, p->graded, p->thought);
    add_budgets(g, s->name, b);
    if (full && p != full) {
        add_agreement(g, full, s, b);
        if (g->n_kinds)
            add_kind_words(g, full, p, b);
    }
    add_drift(r, s->name, b);
}

static void add_kind_table(const ns_report_group *g, ns_buf *b)
{
    ns_buf_adds(b, "\n### By kind\n\n| kind |");
    for (int i = 0; i < g->n_sizes; i++) {
        ns_buf_addc(b, ' ');
        add_name(b, g->size[i].name);
        ns_buf_adds(b, " |");
    }
    ns_buf_adds(b, "\n|---|");
    for (int i = 0; i < g->n_sizes; i++)
        ns_buf_adds(b, "---|");
    ns_buf_addc(b, '\n');
    for (int k = 0; k < g->n_kinds; k++) {
        ns_buf_adds(b, "| ");
        add_name(b, g->kind[k]);
        ns_buf_adds(b, " |");
        for (int i = 0; i < g->n_sizes; i++) {
            long n = 0;
            const ns_report_plan *p = g->size[i].plan >= 0 ? g->plan[g->size[i].plan] : NULL;
            const ns_report_range a = p ? ns_report_accuracy(g, p, g->kind[k], -1, &n) : (ns_report_range){ NAN, NAN, NAN };
            ns_buf_addf(b, " %s (%s) |", ns_report_percent(a.value).text, ns_report_interval(a.lo, a.hi).text);
        }
        ns_buf_addc(b, '\n');
    }
}

/* How mixed plans did as a whole, pair by pair. */
static void add_pairs(const ns_report_group *g, ns_buf *b)
{
    ns_buf_adds(b, "\n### One size thinks, another answers\n\nAgainst the answering size alone, means over the budgets that can be compared:\n\n");
    for (int i = 0; i < g->n_pairs; i++) {
        const ns_report_pair *p = &g->pair[i];
        ns_buf_adds(b, "- ");
        add_name(b, ns_report_sizes(g->plan[p->claim[0].plan]).text);
        if (!p->mean.n_gain) {
            ns_buf_adds(b, ": nothing to compare with at its latencies.\n");
            continue;
        }
        ns_buf_addf(b, ": %s points at equal latency (%s)", ns_report_points(p->mean.gain).text,
                    p->mean.gain.lo > 0 ? "better" : p->mean.gain.hi < 0 ? "worse" : "not told apart");
        if (p->mean.n_ratio)
            ns_buf_addf(b, "; latency ratio at equal accuracy %s", ns_report_ratio(p->mean.ratio).text);
        ns_buf_adds(b, ".\n");
    }
}

static void add_group(const ns_report *r, const ns_report_group *g, ns_buf *b)
{
    int asked = 0;
    for (int i = 0; i < g->n_problems; i++)
        asked += g->problem[i].asked;
    ns_buf_adds(b, "\n## ");
    add_name(b, g->run[0]->checkpoint);
    ns_buf_adds(b, " on ");
    add_name(b, g->task);
    ns_buf_addf(b, "\n\n%d problems, %d run%s (fingerprint ", asked, g->n_runs, g->n_runs == 1 ? "" : "s");
    add_name(b, g->fingerprint);
    ns_buf_adds(b, "), first on ");
    add_name(b, g->run[0]->created);
    ns_buf_adds(b, ". Each size alone, with the longest budget of thought measured.\n");
    for (int i = 0; i < g->n_sizes; i++)
        add_size(r, g, &g->size[i], b);
    if (g->n_sizes && g->n_kinds)
        add_kind_table(g, b);
    if (g->n_pairs)
        add_pairs(g, b);
}

void ns_report_card(const ns_report *r, ns_buf *b)
{
    ns_buf_adds(b, "# Model card\n\nMade by nestar " NS_VERSION " from results of `nestar eval`; every figure comes from them.\n");
    for (int i = 0; i < r->n_groups; i++)
        add_group(r, r->group[i], b);
    ns_buf_adds(b, "\n## Notes\n\n- Intervals are at 95 %: Wilson's for accuracies (by problem where problems were answered more than once), a paired "
                   "bootstrap over problems for differences. They speak of other problems of this kind, not of other trainings or other kinds.\n"
                   "- \"Told apart\" means p < 0.05 of the sign test for problems lost and won, and an interval without 0 for pairs of sizes. With many "
                   "sizes and kinds one in twenty comparisons comes out so by chance.\n"
                   "- Latencies are means at batch 1 on the machine of the runs; `index.html` has the formulas.\n");
}
