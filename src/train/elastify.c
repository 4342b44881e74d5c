#include "train/elastify.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "ckpt/router_file.h"
#include "train/elastify_run.h"
#include "train/folder_io.h"

ns_elastify_opts ns_elastify_defaults(void)
{
    ns_elastify_opts o = { .sizes = ns_elastic_defaults(), .train = ns_train_defaults(), .temperature = 1, .alpha = 1, .router_lr = 1e-2,
                           .router_std = 0.1, .scale_from = 1, .scale_to = 10, .tau = 1, .hard = 0.004, .dtype = NS_F32 };
    o.train.steps = 0;
    o.train.schedule = (ns_schedule){ .lr = 1e-4, .lr_min = -1, .warmup = -1 };
    return o;
}

typedef ns_elastify_run elastify;

/* No rank may go on to wait for one that has failed. */
static int agree(elastify *s, int rc)
{
    bool failed = rc != 0;
    ns_err other = { 0 };
    if (ns_comm_any(s->comm, &failed, &other) != 0)
        return rc != 0 ? rc : ns_fail(s->e, other.code, "%s", other.msg);
    return failed && rc == 0 ? ns_fail(s->e, NS_ECANCELLED, "another rank failed") : rc;
}

/* ---- stages ---- */

static int open_data(elastify *s, int seq)
{
    const ns_arch *a = s->c->arch;
    const ns_data_opts d = { .paths = s->o->data, .n_paths = s->o->n_data, .seed = s->o->seed, .vocab_size = a->vocab_size,
                             .eos_id = a->n_eos > 0 ? a->eos_ids[0] : -1, .template_dir = s->c->dir, .max_doc = seq };
    ns_data_free(s->data);
    if (!(s->data = ns_data_open(&d, s->tok, s->e)))
        return -1;
    return s->o->hold_out > 0 ? ns_data_hold_out(s->data, s->o->hold_out, s->e) : 0;
}

static ns_train_opts stage_opts(const elastify *s, int stage)
{
    const ns_elastify_opts *o = s->o;
    ns_train_opts t = o->train;
    ns_schedule *c = &t.schedule;
    t.steps = stage == 1 ? o->stage2_steps : s->steps;
    if (stage == 1) {
        t.seq_tokens = o->stage2_seq ? o->stage2_seq : t.seq_tokens;
        c->lr = o->stage2_lr > 0 ? o->stage2_lr : 0.7 * c->lr;
    }
    c->lr_min = c->lr_min < 0 ? c->lr / 10 : c->lr_min < c->lr ? c->lr_min : c->lr;
    c->warmup = c->warmup < 0 ? (t.steps + 49) / 50 : c->warmup;
    c->steps = t.steps;
    return t;
}

/* Once through the data, when nothing else is said. */
static int64_t default_steps(const elastify *s)
{
    const ns_train_opts *t = &s->o->train;
    const int64_t step = (int64_t)t->seq_tokens * t->packs * t->micro_batches * ns_comm_size(s->comm);
    return (ns_data_tokens(s->data) + step - 1) / step;
}

static int run_stage(elastify *s, int stage)
{
    const ns_elastify_opts *o = s->o;
    ns_train_opts t = stage_opts(s, stage);
    if (agree(s, open_data(s, t.seq_tokens)) != 0)
        return -1;
    if (s->steps == 0) {
        s->steps = default_steps(s);
        t = stage_opts(s, stage);
    }
    const bool soft = s->plan.router && !(stage == 1 && o->freeze_router);
    ns_elastic_stage st = { .arch = s->c->arch, .o = o, .plan = &s->plan, .learner = &s->learner, .train = &t, .stage = stage, .soft = soft,
                            .first = stage == 1 ? s->steps : 0, .total = s->steps + (o->freeze_router ? 0 : o->stage2_steps),
                            .ranks = ns_comm_size(s->comm) };
    ns_objective obj = { 0 };
    ns_buf dir = { 0 };
    ns_buf_addf(&dir, "%s/stage%d", s->run, stage + 1);
    int rc = dir.failed ? ns_fail(s->e, NS_ENOMEM, "%s: out of memory", s->run) : 0;
    if (rc == 0)
        rc = ns_elastic_stage_init(&st, s->teacher, &obj, s->e);
    obj.qad = o->qad.format ? &s->qad : NULL;
    obj.teacher_masked = o->same_size;
    if ((rc = agree(s, rc)) == 0)
        rc = ns_train(&s->p, s->w, s->data, &obj, &t, dir.data, o->resume, s->comm, s->e);
    ns_elastic_stage_release(&st);
    ns_buf_release(&dir);
    return rc == 0 ? 0 : ns_err_wrap(s->e, "stage %d", stage + 1);
}

/* From here on the router is what its file will hold. */
static int decide(elastify *s)
{
    if (!s->plan.router)
        return 0;
    ns_router_round(s->plan.router);
    return ns_elastic_plan_decide(s->c, &s->plan, s->e);
}

static int run_stages(elastify *s)
{
    if (run_stage(s, 0) < 0)
        return -1;
    if (s->o->freeze_router && (decide(s) < 0 || ns_elastic_check_change(s->c->arch, &s->plan, s->o, true, s->e) < 0))
        return -1;
    if (s->o->stage2_steps > 0 && run_stage(s, 1) < 0)
        return -1;
    return decide(s);
}

/* ---- what came out ---- */

/* As the checkpoint will hold them. */
static const ns_real *weights(const elastify *s)
{
    return s->o->qad.format ? s->qad.seen : s->w;
}

static int evaluate(elastify *s)
{
    const ns_train_opts t = stage_opts(s, s->o->stage2_steps > 0);
    ns_net_mask mask = { 0 };
    int rc = s->o->hold_out > 0 ? ns_mask_init(s->c->arch, &mask, s->e) : 0;
    for (int i = 0; rc == 0 && s->o->hold_out > 0 && i < s->plan.n; i++) {
        ns_mask_set_cut(s->c->arch, &s->plan.size[i].cut, &mask);
        rc = ns_train_eval(&s->p, weights(s), s->teacher, &mask, NULL, s->data, &t, s->comm, &s->held[i], s->e);
    }
    ns_mask_release(&mask);
    return rc;
}

/* Every size after every size, in the middle of each held-out document; after itself for comparison. */
static int evaluate_pairs(elastify *s)
{
    const ns_train_opts t = stage_opts(s, s->o->stage2_steps > 0);
    const int n = s->plan.n;
    ns_net_mask from = { 0 }, to = { 0 };
    int rc = -1;
    if (s->o->hold_out <= 0 || n < 2 || !ns_elastic_states_fit(s->c->arch, &s->plan))
        return 0;
    if (!(s->pairs = calloc((size_t)n * (size_t)n, sizeof *s->pairs)))
        rc = ns_fail(s->e, NS_ENOMEM, "losses of %d sizes: out of memory", n);
    else
        rc = ns_mask_init(s->c->arch, &from, s->e) == 0 ? ns_mask_init(s->c->arch, &to, s->e) : -1;
    rc = agree(s, rc);
    for (int i = 0; rc == 0 && i < n * n; i++) {
        ns_mask_set_cut(s->c->arch, &s->plan.size[i / n].cut, &from);
        ns_mask_set_cut(s->c->arch, &s->plan.size[i % n].cut, &to);
        rc = ns_train_eval(&s->p, weights(s), s->teacher, &to, &from, s->data, &t, s->comm, &s->pairs[i], s->e);
    }
    ns_mask_release(&from);
    ns_mask_release(&to);
    return rc;
}

static json_t *loss_json(const ns_loss *l)
{
    return json_pack("{s:f, s:f, s:f, s:f}", "kl", l->kl / l->weight, "ce", l->ce / l->weight, "top1", l->top1 / l->weight, "agree",
                     l->agree / l->weight);
}

static json_t *pairs_json(const elastify *s)
{
    const int n = s->plan.n;
    json_t *list = json_array();
    for (int i = 0; i < n * n; i++)
        json_array_append_new(list, json_pack("{s:s, s:s, s:o}", "from", s->plan.size[i / n].name, "to", s->plan.size[i % n].name,
                                              "held_out", loss_json(&s->pairs[i])));
    return list;
}

static json_t *size_json(const elastify *s, int i)
{
    const ns_elastic_size *z = &s->plan.size[i];
    ns_cost c;
    double cost;
    if (ns_cut_cost(s->c->arch, &z->cut, NULL, NULL, &c, s->e) < 0 || ns_budget_of_cut(&s->plan.budget, &z->cut, &cost, s->e) < 0)
        return NULL;
    json_t *obj = json_pack("{s:s, s:f, s:f, s:I, s:I}", "name", z->name, "budget", z->budget, "share", cost / s->plan.budget.full,
                            "params_total", (json_int_t)c.params_total, "params_active", (json_int_t)c.params_active);
    const ns_loss *l = &s->held[i];
    if (l->weight > 0)
        json_object_set_new(obj, "held_out", loss_json(l));
    return obj;
}

static json_t *report_json(const elastify *s)
{
    json_t *list = json_array();
    for (int i = 0; i < s->plan.n; i++)
        json_array_append_new(list, size_json(s, i));
    json_t *obj = json_pack("{s:s, s:o}", "target", ns_budget_target_name(s->o->sizes.budget.target), "sizes", list);
    if (!obj || json_array_size(list) != (size_t)s->plan.n) {
        json_decref(obj);
        ns_fail(s->e, NS_ENOMEM, "the report: out of memory");
        return NULL;
    }
    if (s->pairs)
        json_object_set_new(obj, "switches", pairs_json(s));
    return obj;
}

/* ---- */

/* Every size must be one of the quantised checkpoint, too. */
static int prepare_qad(elastify *s)
{
    s->qad_opts = s->o->qad;
    s->qad_opts.bf16 = s->o->dtype == NS_BF16;
    s->qad_opts.threads = s->o->train.workers;
    if (s->plan.router)
        return ns_fail(s->e, NS_EINVAL, "the router learns without quantisation; then its sizes are distilled quantised");
    if (ns_qad_init(&s->qad, s->c, &s->p, &s->qad_opts, s->e) < 0)
        return -1;
    for (int i = 0; i < s->plan.n; i++)
        if (ns_cut_validate(s->c->arch, &s->plan.size[i].cut, ns_formats_dtype_of, &s->qad.formats, s->e) < 0)
            return ns_err_wrap(s->e, "size %s", s->plan.size[i].name);
    return 0;
}

static int prepare(elastify *s)
{
    const ns_elastify_opts *o = s->o;
    ns_buf run = { 0 };
    if (ns_elastic_plan_make(s->c, &o->sizes, &s->plan, s->e) < 0 || ns_params_plan(s->c->arch, &s->p, s->e) < 0)
        return -1;
    if (o->qad.format && prepare_qad(s) < 0)
        return ns_err_wrap(s->e, "--qad %s", o->qad.format);
    if (o->freeze_router && (!s->plan.router || o->stage2_steps == 0))
        return ns_fail(s->e, NS_EINVAL, "--freeze-router: there is %s", s->plan.router ? "no second stage" : "no router");
    if (ns_elastic_check_change(s->c->arch, &s->plan, o, !s->plan.router, s->e) < 0)
        return -1;
    if (s->plan.router)
        ns_router_init_weights(s->plan.router, o->router_std, o->seed);
    ns_buf_addf(&run, o->run_dir ? "%s" : "%s.train", o->run_dir ? o->run_dir : s->out);
    s->run = run.data;
    s->w = ns_alloc_aligned(s->p.count * sizeof *s->w);
    s->teacher = ns_alloc_aligned(s->p.count * sizeof *s->teacher);
    if (run.failed || !s->w || !s->teacher)
        return ns_fail(s->e, NS_ENOMEM, "two copies of %zu parameters: out of memory", s->p.count);
    if (ns_params_load(&s->p, s->c, s->w, s->e) < 0 || ns_params_load(&s->p, o->teacher ? o->teacher : s->c, s->teacher, s->e) < 0)
        return -1;
    if (ns_comm_rank(s->comm) == 0 && mkdir(s->run, 0777) != 0 && !ns_dir_exists(s->run))
        return ns_fail_errno(s->e, "%s", s->run);
    return ns_elastic_learner_init(s->c->arch, s->plan.router, &s->learner, s->e);
}

/* Finding out at the end that the folder is there already would be late. */
static int check_out(const char *out, ns_err *e)
{
    ns_outdir d = { 0 };
    int rc = ns_outdir_open(&d, out, e);
    ns_outdir_release(&d);
    return rc;
}

int ns_elastify(const ns_ckpt *parent, const ns_tokenizer *tok, const ns_elastify_opts *o, const char *out, ns_comm *comm, json_t **report,
                ns_err *e)
{
    elastify s = { .c = parent, .tok = tok, .o = o, .steps = o->train.steps, .out = out, .comm = comm, .e = e };
    int rc = ns_comm_rank(comm) == 0 ? check_out(out, e) : 0;
    if (rc == 0)
        rc = prepare(&s);
    if ((rc = agree(&s, rc)) == 0)
        rc = run_stages(&s);
    if (rc == 0)
        rc = evaluate(&s);
    if (rc == 0)
        rc = evaluate_pairs(&s);
    if (rc == 0)
        rc = ns_elastify_save(&s);
    if (rc == 0 && report && ns_comm_rank(comm) == 0)
        rc = (*report = report_json(&s)) ? 0 : -1;
    ns_data_free(s.data);
    ns_elastic_learner_release(&s.learner);
    ns_elastic_plan_release(&s.plan);
    ns_qad_release(&s.qad);
    ns_params_release(&s.p);
    free(s.w);
    free(s.teacher);
    free(s.pairs);
    free(s.run);
    return rc;
}
