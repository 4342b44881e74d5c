#include "eval/eval.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "eval/score.h"

ns_eval_opts ns_eval_defaults(void)
{
    static const char *const full[] = { "full" };
    static const int inf[] = { NS_EVAL_INF };
    return (ns_eval_opts){ .sizes = full, .n_sizes = 1, .budgets = inf, .n_budgets = 1, .batch = 32, .max_thought = 512, .max_answer = 64 };
}

/* A size under a budget. */
struct row {
    int budget;
    long n, correct, closed, unfinished;
    double thought, answer; /* sums of tokens */
    json_t *kinds, *levels;
};

/* One size: its rows, and the pass that is running. */
struct pass {
    const ns_engine *en;
    const ns_task *t;
    const ns_eval_opts *o;
    char size[64];
    struct row *row;  /* [n_budgets], budgets ascending */
    struct row *base; /* the pass' first row */
    int *limit;       /* [n_budgets] as row, in tokens */
    ns_outfile *out;  /* not open: none */
    int done;
};

static int compare(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

/* ---- what generation asks for and hands back ---- */

static int prompt(void *ctx, int i, ns_ids *out, ns_err *e)
{
    const struct pass *p = ctx;
    ns_prompt text;
    json_t *r = json_pack("{s:O, s:b, s:b}", "messages", p->t->item[i].messages, "add_generation_prompt", 1, "enable_thinking",
                          p->base->budget != NS_EVAL_OFF);
    int rc = r ? ns_engine_render(p->en, r, &text, e) : ns_fail(e, NS_ENOMEM, "prompt: out of memory");
    json_decref(r);
    if (rc != 0)
        return ns_err_wrap(e, "problem %d", i + 1);
    rc = ns_engine_prompt_ids(p->en, &text, out, e);
    ns_prompt_release(&text);
    return rc;
}

/* {"n", "correct"} under a name. */
static void count(json_t *groups, const char *name, bool correct)
{
    json_t *g = json_object_get(groups, name);
    if (!g)
        json_object_set_new(groups, name, g = json_pack("{s:i, s:i}", "n", 0, "correct", 0));
    json_t *n = json_object_get(g, "n"), *k = json_object_get(g, "correct");
    json_integer_set(n, json_integer_value(n) + 1);
    json_integer_set(k, json_integer_value(k) + correct);
}

static json_t *budget_json(int budget)
{
    return budget == NS_EVAL_INF ? json_string("inf") : budget == NS_EVAL_OFF ? json_string("off") : json_integer(budget);
}

/* Model text need not be UTF-8; JSON must be. */
static json_t *text_json(const ns_engine *en, const int *ids, int n)
{
    ns_buf b = { 0 };
    ns_detok d;
    ns_detok_init(&d);
    for (int i = 0; i < n; i++)
        ns_detok_push(&d, en->tokenizer, ids[i], &b);
    ns_detok_finish(&d, &b);
    json_t *s = b.failed ? NULL : json_stringn(b.data ? b.data : "", b.len);
    ns_buf_release(&b);
    return s;
}

static int write_line(const struct pass *p, const ns_gen_answer *a, const struct row *row, bool correct, json_t *said, ns_err *e)
{
    const ns_task_item *item = &p->t->item[a->prompt];
    json_t *o = json_pack("{s:s, s:o, s:i, s:s, s:O, s:b, s:i, s:i, s:b, s:b, s:o}", "size", p->size, "budget", budget_json(row->budget), "problem",
                          a->prompt + 1, "expected", item->answer, "answer", said, "correct", correct, "thinking_tokens", a->n_thought,
                          "answer_tokens", a->n_ids, "closed", a->closed, "ended", a->ended, "thought",
                          text_json(p->en, a->thought, a->n_thought));
    char *line = o ? json_dumps(o, JSON_COMPACT) : NULL;
    int rc = line ? ns_outfile_write(p->out, line, strlen(line), e) : ns_fail(e, NS_ENOMEM, "results: out of memory");
    if (rc == 0)
        rc = ns_outfile_write(p->out, "\n", 1, e);
    free(line);
    json_decref(o);
    return rc;
}

static int answer(void *ctx, const ns_gen_answer *a, ns_err *e)
{
    struct pass *p = ctx;
    struct row *row = p->base + a->budget;
    const ns_task_item *item = &p->t->item[a->prompt];
    json_t *said = text_json(p->en, a->ids, a->n_ids);
    char level[16];
    int rc = 0;
    if (!said)
        return ns_fail(e, NS_ENOMEM, "answer: out of memory");
    bool correct = ns_answer_is(ns_answer_extract(json_string_value(said), json_string_length(said)), item->answer);
    row->n++;
    row->correct += correct;
    row->closed += a->closed;
    row->unfinished += !a->ended;
    row->thought += a->n_thought;
    row->answer += a->n_ids;
    if (item->kind)
        count(row->kinds, item->kind, correct);
    if (item->level >= 0) {
        snprintf(level, sizeof level, "%d", item->level);
        count(row->levels, level, correct);
    }
    if (p->out->f)
        rc = write_line(p, a, row, correct, said, e);
    json_decref(said);
    p->done++;
    if (p->o->progress)
        p->o->progress(p->o->progress_ctx, p->size, p->done, p->t->n * p->o->n_budgets);
    return rc;
}

/* ---- a size ---- */

static json_t *row_json(const struct pass *p, const struct row *r, const ns_gen_stats *s)
{
    double lo, hi, n = (double)r->n;
    ns_wilson(r->correct, r->n, &lo, &hi);
    return json_pack("{s:s, s:o, s:I, s:I, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:f, s:O, s:O}", "size", p->size, "budget", budget_json(r->budget), "n",
                     (json_int_t)r->n, "correct", (json_int_t)r->correct, "accuracy", (double)r->correct / n, "low", lo, "high", hi,
                     "thinking_tokens", r->thought / n, "answer_tokens", r->answer / n, "closed", (json_int_t)r->closed, "unfinished",
                     (json_int_t)r->unfinished, "tokens_per_second", s->seconds > 0 ? (double)s->tokens / s->seconds : 0.0, "kinds", r->kinds,
                     "levels", r->levels);
}

/* The rows [first, first + n) in one pass. */
static int run_pass(struct pass *p, const ns_cut *cut, int first, int n, json_t *rows, bool *interrupted, ns_err *e)
{
    bool off = p->row[first].budget == NS_EVAL_OFF;
    const ns_gen_opts g = { .batch = p->o->batch, .budget = p->limit + first, .n_budgets = off ? 0 : n, .max_answer = p->o->max_answer,
                            .interrupted = p->o->interrupted };
    const ns_gen_io io = { .ctx = p, .n_prompts = p->t->n, .prompt = prompt, .answer = answer };
    ns_gen_stats stats;
    p->base = &p->row[first];
    if (ns_gen_run(p->en, cut, &g, &io, &stats, e) != 0)
        return -1;
    *interrupted = stats.interrupted;
    for (int i = first; i < first + n; i++)
        if (p->row[i].n && json_array_append_new(rows, row_json(p, &p->row[i], &stats)) != 0)
            return ns_fail(e, NS_ENOMEM, "results: out of memory");
    return 0;
}

static int run_size(struct pass *p, const char *size, json_t *rows, bool *interrupted, ns_err *e)
{
    ns_cut cut = { 0 };
    int n = p->o->n_budgets, rc = ns_engine_cut(p->en, size, p->o->max_thought + p->o->max_answer, &cut, p->size, sizeof p->size, e);
    p->done = 0;
    for (int i = 0; i < n; i++) {
        json_decref(p->row[i].kinds);
        json_decref(p->row[i].levels);
        p->row[i] = (struct row){ .budget = p->row[i].budget, .kinds = json_object(), .levels = json_object() };
    }
    int off = p->row[0].budget == NS_EVAL_OFF; /* the budgets ascend */
    if (rc == 0 && off)
        rc = run_pass(p, &cut, 0, 1, rows, interrupted, e);
    if (rc == 0 && n > off && !*interrupted)
        rc = run_pass(p, &cut, off, n - off, rows, interrupted, e);
    ns_cut_release(&cut);
    return rc;
}

/* The budgets in ascending order, as rows and as the limits that generation is given. */
static int prepare(struct pass *p, ns_err *e)
{
    size_t n = (size_t)p->o->n_budgets;
    if (p->o->n_budgets < 1 || p->o->n_sizes < 1 || p->o->max_thought < 1)
        return ns_fail(e, NS_EINVAL, "eval: a size, a budget and some tokens of thought are needed");
    p->row = calloc(n, sizeof *p->row);
    p->limit = malloc(n * sizeof *p->limit);
    if (!p->row || !p->limit)
        return ns_fail(e, NS_ENOMEM, "eval: out of memory");
    memcpy(p->limit, p->o->budgets, n * sizeof *p->limit);
    qsort(p->limit, n, sizeof *p->limit, compare);
    for (size_t i = 0; i < n; i++) {
        int b = p->row[i].budget = p->limit[i];
        if (b < 0 || (i && b == p->limit[i - 1]))
            return ns_fail(e, NS_EINVAL, b < 0 ? "a budget of %d tokens" : "the budget %d is given twice", b);
        if (b != NS_EVAL_INF && b >= p->o->max_thought)
            return ns_fail(e, NS_EINVAL, "a budget of %d tokens where thoughts end at %d", b, p->o->max_thought);
        if (b == NS_EVAL_INF)
            p->limit[i] = p->o->max_thought;
    }
    return 0;
}

json_t *ns_eval_run(const ns_engine *en, const ns_task *t, const ns_eval_opts *o, ns_err *e)
{
    ns_outfile out = { 0 };
    struct pass p = { .en = en, .t = t, .o = o, .out = &out };
    json_t *rows = json_array();
    bool interrupted = false;
    int rc = prepare(&p, e);
    if (rc == 0 && o->results)
        rc = ns_outfile_open(&out, o->results, e);
    for (int i = 0; rc == 0 && i < o->n_sizes && !interrupted; i++)
        rc = run_size(&p, o->sizes[i], rows, &interrupted, e);
    if (rc == 0 && o->results)
        rc = ns_outfile_commit(&out, e);
    ns_outfile_release(&out);
    for (int i = 0; p.row && i < o->n_budgets; i++) {
        json_decref(p.row[i].kinds);
        json_decref(p.row[i].levels);
    }
    free(p.row);
    free(p.limit);
    json_t *report = rc == 0 ? json_pack("{s:i, s:b, s:O}", "problems", t->n, "interrupted", interrupted, "rows", rows) : NULL;
    if (rc == 0 && !report)
        ns_fail(e, NS_ENOMEM, "eval: out of memory");
    json_decref(rows);
    return report;
}
