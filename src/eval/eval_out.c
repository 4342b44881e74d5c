/* Answers: graded, counted, written to the JSONL file and to the store; and taken over from a store. */
#include <stdlib.h>
#include <string.h>

#include "eval/eval_impl.h"
#include "eval/fingerprint.h"

static const char mark[] = "</think>"; /* between thought and answer in the store */

json_t *ns_eval_budget(int budget)
{
    return budget == NS_EVAL_INF ? json_string("inf") : budget == NS_EVAL_OFF ? json_string("off") : json_integer(budget);
}

/* One answer with its texts. */
struct said {
    int index;           /* problem * samples + sample */
    enum ns_grade grade;
    const char *thought, *answer, *extracted;
    int n_thought, n_answer;
    bool closed, ended;
};

static json_t *verdict(enum ns_grade g)
{
    return g == NS_GRADE_NONE ? json_null() : json_boolean(g == NS_GRADE_RIGHT);
}

static int write_line(struct eval *v, const struct pass *p, const struct plan *plan, const struct said *s, ns_err *e)
{
    int problem = s->index / v->o->samples;
    json_t *o = json_pack("{s:s, s:o, s:i, s:s, s:s, s:s, s:o, s:i, s:i, s:b, s:b, s:s}", "size", p->label, "budget", ns_eval_budget(plan->budget),
                          "problem", problem + 1, "expected", v->t->item[problem].answer, "answer", s->answer, "extracted", s->extracted, "correct",
                          verdict(s->grade), "thinking_tokens", s->n_thought, "answer_tokens", s->n_answer, "closed", s->closed, "ended", s->ended,
                          "thought", s->thought);
    if (o && p->two)
        json_object_set_new(o, "handover", json_string(ns_handover_name(p->handover)));
    if (o && v->o->samples > 1)
        json_object_set_new(o, "sample", json_integer(s->index % v->o->samples + 1));
    if (o && v->t->item[problem].key)
        json_object_set_new(o, "key", json_string(v->t->item[problem].key));
    char *line = o ? json_dumps(o, JSON_COMPACT) : NULL;
    int rc = line ? ns_outfile_write(&v->out, line, strlen(line), e) : ns_fail(e, NS_ENOMEM, "answers: out of memory");
    if (rc == 0)
        rc = ns_outfile_write(&v->out, "\n", 1, e);
    free(line);
    json_decref(o);
    return rc;
}

static int count(struct eval *v, struct plan *plan, const struct said *s, int prompt, ns_err *e)
{
    struct answer *a = &plan->answer[s->index];
    *a = (struct answer){ .there = true, .closed = s->closed, .ended = s->ended, .grade = (unsigned char)s->grade, .prompt = prompt,
                          .thought = s->n_thought, .tokens = s->n_answer };
    bool marks = v->t->item[s->index / v->o->samples].check;
    a->marks = marks ? strdup(s->extracted) : NULL;
    return marks && !a->marks ? ns_fail(e, NS_ENOMEM, "answers: out of memory") : 0;
}

/* Model text need not be UTF-8; JSON and SQLite want it to be. */
static void text_of(const ns_engine *en, const int *ids, int n, ns_buf *b)
{
    ns_detok d;
    ns_detok_init(&d);
    for (int i = 0; i < n; i++)
        ns_detok_push(&d, en->tokenizer, ids[i], b);
    ns_detok_finish(&d, b);
    ns_buf_add(b, "", 0);
}

static const char *str(const ns_buf *b)
{
    return b->data ? b->data : "";
}

static int store(struct eval *v, const struct pass *p, const struct plan *plan, const struct said *s, ns_err *e)
{
    ns_buf output = { 0 };
    if (!p->off) {
        ns_buf_adds(&output, s->thought);
        ns_buf_adds(&output, mark);
    }
    ns_buf_adds(&output, s->answer);
    const ns_results_sample a = { .problem = s->index / v->o->samples, .sample = s->index % v->o->samples, .grade = s->grade, .extracted = s->extracted,
                                .output = str(&output), .prompt_tokens = v->prompt_tokens[s->index], .thinking_tokens = s->n_thought,
                                .answer_tokens = s->n_answer, .closed = s->closed, .ended = s->ended };
    int rc = output.failed ? ns_fail(e, NS_ENOMEM, "answers: out of memory") : ns_results_add(v->store, plan->id, &a, e);
    ns_buf_release(&output);
    return rc;
}

int ns_eval_take(struct eval *v, const ns_gen_answer *a, ns_err *e)
{
    struct pass *p = v->now;
    struct plan *plan = &p->plan[a->budget];
    ns_buf thought = { 0 }, answer = { 0 }, extracted = { 0 };
    text_of(v->en, a->thought, a->n_thought, &thought);
    text_of(v->en, a->ids, a->n_ids, &answer);
    ns_text text = ns_answer_extract(str(&answer), answer.len);
    struct said s = { .index = a->prompt, .n_thought = a->n_thought, .n_answer = a->n_ids, .closed = a->closed, .ended = a->ended };
    s.grade = v->t->kind->grade(&v->t->item[a->prompt / v->o->samples], text, &extracted);
    s.thought = str(&thought);
    s.answer = str(&answer);
    s.extracted = str(&extracted);
    int rc = thought.failed || answer.failed || extracted.failed ? ns_fail(e, NS_ENOMEM, "answers: out of memory") : 0;
    if (rc == 0)
        rc = count(v, plan, &s, v->prompt_tokens[s.index], e);
    if (rc == 0 && v->out.f)
        rc = write_line(v, p, plan, &s, e);
    if (rc == 0 && v->store)
        rc = store(v, p, plan, &s, e);
    ns_buf_release(&thought);
    ns_buf_release(&answer);
    ns_buf_release(&extracted);
    return rc;
}

/* ---- what a store has already ---- */

struct taking {
    struct eval *v;
    struct pass *p;
    struct plan *plan;
};

static int take_over(void *ctx, const ns_results_sample *a, ns_err *e)
{
    const struct taking *t = ctx;
    struct eval *v = t->v;
    if (a->problem < 0 || a->problem >= v->t->n || a->sample < 0 || a->sample >= v->o->samples)
        return ns_fail(e, NS_EFORMAT, "%s: an answer to problem %d, sample %d, which the task does not have", v->o->results, a->problem, a->sample);
    const char *output = a->output ? a->output : "", *end = t->p->off ? NULL : strstr(output, mark);
    char *thought = strndup(output, end ? (size_t)(end - output) : 0);
    struct said s = { .index = a->problem * v->o->samples + a->sample, .grade = a->grade, .thought = thought, .answer = end ? end + sizeof mark - 1 : output,
                      .extracted = a->extracted ? a->extracted : "", .n_thought = a->thinking_tokens, .n_answer = a->answer_tokens,
                      .closed = a->closed, .ended = a->ended };
    int rc = thought ? count(v, t->plan, &s, a->prompt_tokens, e) : ns_fail(e, NS_ENOMEM, "answers: out of memory");
    if (rc == 0 && v->out.f)
        rc = write_line(v, t->p, t->plan, &s, e);
    v->done++;
    free(thought);
    return rc;
}

static int find_plan(struct eval *v, struct pass *p, struct plan *plan, ns_err *e)
{
    ns_cost think, answer;
    const ns_ckpt *c = v->en->ckpt;
    ns_results_plan key = { .think = p->think, .answer = p->answer, .handover = p->two ? ns_handover_name(p->handover) : "none",
                          .budget = plan->budget == NS_EVAL_INF ? -1 : plan->budget };
    if (ns_cut_cost(v->en->model.arch, &p->think_cut, ns_ckpt_dtype_of, (void *)(uintptr_t)c, &think, e) != 0 ||
        ns_cut_cost(v->en->model.arch, &p->answer_cut, ns_ckpt_dtype_of, (void *)(uintptr_t)c, &answer, e) != 0)
        return -1;
    key.think_active = think.params_active;
    key.answer_active = answer.params_active;
    key.think_bytes = think.active_bytes;
    key.answer_bytes = answer.active_bytes;
    if (ns_results_find_plan(v->store, v->run, &key, &plan->id, &plan->before, e) != 0)
        return -1;
    plan->totals = plan->before;
    return ns_results_each(v->store, plan->id, take_over, &(struct taking){ v, p, plan }, e);
}

/* What answers depend on, beside checkpoint, task and plan. */
static json_t *options(const ns_eval_opts *o)
{
    json_t *j = json_pack("{s:i, s:i, s:i, s:i, s:i, s:n}", "samples", o->samples, "max_thought", o->max_thought, "max_answer", o->max_answer, "grace",
                          o->grace, "batch", o->batch, "closing");
    if (j && o->sampling)
        json_object_set_new(j, "sampling", json_pack("{s:f, s:f, s:f, s:i, s:f, s:I}", "temperature", o->sampling->temperature, "top_p", o->sampling->top_p,
                                                     "min_p", o->sampling->min_p, "top_k", o->sampling->top_k, "repetition_penalty",
                                                     o->sampling->repetition_penalty, "seed", (json_int_t)o->sampling->seed));
    return j;
}

static json_t *machine(const ns_engine *en)
{
    char line[256], cpu[256] = "";
    FILE *f = fopen("/proc/cpuinfo", "re");
    while (f && !*cpu && fgets(line, sizeof line, f))
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':'))
            snprintf(cpu, sizeof cpu, "%.*s", (int)strcspn(strchr(line, ':') + 2, "\n"), strchr(line, ':') + 2);
    if (f)
        fclose(f);
    return json_pack("{s:s, s:i, s:s}", "cpu", cpu, "threads", ns_engine_threads(en), "kernels", ns_engine_kernels(en));
}

int ns_eval_open_store(struct eval *v, ns_err *e)
{
    char print[17];
    json_t *o = options(v->o), *m = machine(v->en);
    char *options_text = o ? json_dumps(o, JSON_COMPACT) : NULL, *machine_text = m ? json_dumps(m, JSON_COMPACT) : NULL;
    const ns_results_run run = { .checkpoint = v->o->checkpoint ? v->o->checkpoint : v->en->ckpt->dir, .fingerprint = print,
                               .task = v->o->task ? v->o->task : v->t->kind->name, .options = options_text, .machine = machine_text };
    int rc = options_text && machine_text ? ns_fingerprint(v->en->ckpt->dir, v->o->nest_path, print, e) : ns_fail(e, NS_ENOMEM, "eval: out of memory");
    if (rc == 0)
        rc = (v->store = ns_results_open(v->o->results, e)) ? ns_results_find_run(v->store, &run, v->t, &v->run, e) : -1;
    for (int i = 0; rc == 0 && i < v->n_passes; i++)
        for (int k = 0; rc == 0 && k < v->pass[i].n; k++)
            rc = find_plan(v, &v->pass[i], &v->pass[i].plan[k], e);
    if (rc == 0)
        rc = ns_results_commit(v->store, e);
    free(options_text);
    free(machine_text);
    json_decref(o);
    json_decref(m);
    return rc;
}
