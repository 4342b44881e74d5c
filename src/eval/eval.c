#include "eval/eval.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "eval/eval_impl.h"

ns_eval_opts ns_eval_defaults(void)
{
    static const char *const full[] = { "full" };
    static const int inf[] = { NS_EVAL_INF };
    static const enum ns_handover automatic[] = { NS_HANDOVER_AUTO };
    return (ns_eval_opts){ .sizes = full, .n_sizes = 1, .budgets = inf, .n_budgets = 1, .handovers = automatic, .n_handovers = 1, .batch = 32,
                           .max_thought = 512, .max_answer = 64, .samples = 1 };
}

/* ---- what generation asks for and hands back ---- */

static int prompt(void *ctx, int i, ns_ids *out, ns_err *e)
{
    struct eval *v = ctx;
    int index = v->todo[i], problem = index / v->o->samples;
    ns_prompt text;
    json_t *r = json_pack("{s:O, s:b, s:b}", "messages", v->t->item[problem].messages, "add_generation_prompt", 1, "enable_thinking", !v->now->off);
    int rc = r ? ns_engine_render(v->en, r, NULL, &text, e) : ns_fail(e, NS_ENOMEM, "prompt: out of memory");
    json_decref(r);
    if (rc == 0) {
        size_t before = out->len;
        rc = ns_engine_prompt_ids(v->en, &text, out, e);
        v->prompt_tokens[index] = (int)(out->len - before);
        ns_prompt_release(&text);
    }
    return rc == 0 ? 0 : ns_err_wrap(e, "problem %d", problem + 1);
}

static void show(struct eval *v)
{
    double seconds = ns_now() - v->started;
    long here = v->done - v->done_before;
    ns_eval_progress p = { .plan = v->now->label, .done = v->done, .total = v->total, .seconds_left = -1.0 };
    if (here > 0 && seconds > 0.0) {
        p.tokens_per_second = v->tokens / seconds;
        p.seconds_left = seconds / (double)here * (double)(v->total - v->done);
    }
    v->o->progress(v->o->progress_ctx, &p);
}

static int answer(void *ctx, const ns_gen_answer *a, ns_err *e)
{
    struct eval *v = ctx;
    struct plan *plan = &v->now->plan[a->budget];
    int index = v->todo[a->prompt];
    if (plan->answer[index].there) /* another budget of this problem was missing */
        return 0;
    ns_gen_answer mine = *a;
    mine.prompt = index;
    if (ns_eval_take(v, &mine, e) != 0)
        return -1;
    v->done++;
    v->tokens += a->n_ids + (a->budget == 0 || !a->closed ? a->n_thought : 0); /* a thought goes on from budget to budget */
    if (v->o->progress)
        show(v);
    return v->store && ns_results_due(v->store) ? ns_eval_save_totals(v, v->now, e) || ns_results_commit(v->store, e) : 0;
}

/* ---- passes ---- */

/* What the pass has spent so far. */
static void count_totals(struct eval *v, struct pass *p, double seconds)
{
    for (int i = 0; i < p->n; i++)
        p->plan[i].totals = (ns_results_totals){ p->plan[i].before.prompt_tokens + (int64_t)v->stats->prompt_tokens,
                                               p->plan[i].before.tokens + (int64_t)v->stats->tokens, p->plan[i].before.seconds + seconds };
}

int ns_eval_save_totals(struct eval *v, const struct pass *p, ns_err *e)
{
    count_totals(v, v->now, ns_now() - v->pass_started);
    for (int i = 0; i < p->n; i++)
        if (ns_results_set_totals(v->store, p->plan[i].id, &p->plan[i].totals, e) != 0)
            return -1;
    return 0;
}

/* todo[0 .. n), whose draws count from the first on. */
static int run_part(struct eval *v, struct pass *p, const int *todo, int n, ns_err *e)
{
    ns_sampling sampling = v->o->sampling ? *v->o->sampling : (ns_sampling){ 0 };
    ns_gen_stats stats = { 0 };
    const ns_gen_opts g = { .batch = v->o->batch, .answer = p->two ? &p->answer_cut : NULL, .handover = p->handover, .budget = p->limit,
                            .n_budgets = p->off ? 0 : p->n, .grace = v->o->grace, .max_answer = v->o->max_answer,
                            .sampling = v->o->sampling ? &sampling : NULL, .interrupted = v->o->interrupted };
    const ns_gen_io io = { .ctx = v, .n_prompts = n, .prompt = prompt, .answer = answer };
    sampling.seed += (uint64_t)todo[0];
    v->now = p;
    v->todo = todo;
    v->stats = &stats;
    v->pass_started = ns_now();
    int rc = ns_gen_run(v->en, &p->think_cut, &g, &io, &stats, e);
    if (rc == 0) {
        v->interrupted = stats.interrupted;
        count_totals(v, p, stats.seconds);
    }
    if (rc == 0 && v->store)
        rc = ns_eval_save_totals(v, p, e) || ns_results_commit(v->store, e);
    for (int i = 0; i < p->n; i++)
        p->plan[i].before = p->plan[i].totals;
    v->stats = NULL;
    return rc;
}

/* What the pass lacks. A draw depends on its prompt's number, so where there are draws the parts of what is left go one after another. */
static int run_pass(struct eval *v, struct pass *p, ns_err *e)
{
    int *todo = malloc((size_t)v->n_answers * sizeof *todo), n = 0, rc = 0;
    if (!todo)
        return ns_fail(e, NS_ENOMEM, "eval: out of memory");
    for (int i = 0; i < v->n_answers; i++) {
        bool all = true;
        for (int k = 0; k < p->n; k++)
            all = all && p->plan[k].answer[i].there;
        if (!all)
            todo[n++] = i;
    }
    for (int from = 0, to; rc == 0 && from < n && !v->interrupted; from = to) {
        for (to = from + 1; to < n && (!v->o->sampling || todo[to] == todo[to - 1] + 1); to++)
            ;
        rc = run_part(v, p, todo + from, to - from, e);
    }
    free(todo);
    return rc;
}

static int prepare(struct eval *v, ns_err *e)
{
    if (v->o->samples > INT_MAX / v->t->n)
        return ns_fail(e, NS_EINVAL, "%d samples of %d problems are too many", v->o->samples, v->t->n);
    v->n_answers = v->t->n * (v->o->samples > 0 ? v->o->samples : 1);
    if (!(v->prompt_tokens = calloc((size_t)v->n_answers, sizeof *v->prompt_tokens)))
        return ns_fail(e, NS_ENOMEM, "eval: out of memory");
    if (ns_eval_make_passes(v, e) != 0)
        return -1;
    for (int i = 0; i < v->n_passes; i++)
        v->total += (long)v->pass[i].n * v->n_answers;
    if (v->o->answers && ns_outfile_open(&v->out, v->o->answers, e) != 0)
        return -1;
    if (v->o->results && ns_eval_open_store(v, e) != 0)
        return -1;
    v->done_before = v->done;
    v->started = ns_now();
    return 0;
}

json_t *ns_eval_run(ns_engine *en, const ns_task *t, const ns_eval_opts *o, ns_err *e)
{
    struct eval v = { .en = en, .t = t, .o = o };
    json_t *report = NULL, *rows = NULL;
    int rc = prepare(&v, e);
    for (int i = 0; rc == 0 && i < v.n_passes && !v.interrupted; i++)
        rc = run_pass(&v, &v.pass[i], e);
    if (rc == 0 && v.store && !v.interrupted)
        rc = ns_eval_latency(&v, e);
    if (rc == 0 && v.store)
        rc = ns_results_commit(v.store, e);
    if (rc == 0 && o->answers)
        rc = ns_outfile_commit(&v.out, e);
    if (rc == 0 && (rows = ns_eval_rows(&v, e)))
        report = json_pack("{s:s, s:i, s:i, s:b, s:O}", "task", t->kind->name, "problems", t->n, "samples", o->samples, "interrupted", v.interrupted,
                           "rows", rows);
    if (rows && !report)
        ns_fail(e, NS_ENOMEM, "eval: out of memory");
    json_decref(rows);
    ns_outfile_release(&v.out);
    ns_results_close(v.store);
    ns_eval_free_passes(&v);
    free(v.prompt_tokens);
    return report;
}
