/* The loop: step, look, update, log, evaluate, save. */
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/log.h"
#include "train/trainer_impl.h"

enum { SPIKE_AFTER = 20 }; /* steps before a loss can be a spike */

ns_train_opts ns_train_defaults(void)
{
    return (ns_train_opts){ .steps = 1000, .seq_tokens = 2048, .packs = 8, .micro_batches = 1, .schedule = { .lr = 1e-3, .lr_min = 1e-4 },
                            .adamw = ns_adamw_defaults(), .optimizer = "adamw", .clip = 1 };
}

int ns_trainer_agree(ns_trainer *t, int rc, ns_err *e)
{
    bool failed = rc != 0;
    ns_err ours = { 0 };
    if (ns_comm_any(t->comm, &failed, &ours) != 0)
        return rc != 0 ? rc : ns_fail(e, NS_EIO, "%s", ours.msg);
    return failed && rc == 0 ? ns_fail(e, NS_ECANCELLED, "another rank failed") : rc;
}

static int check_options(const ns_train_opts *o, ns_err *e)
{
    if (o->steps < 1 || o->seq_tokens < 2 || o->packs < 1 || o->micro_batches < 1)
        return ns_fail(e, NS_EINVAL, "training: steps, packs and micro-batches must be 1 at least, the tokens of a pack 2");
    if (!o->optimizer || (strcmp(o->optimizer, "adamw") != 0 && strcmp(o->optimizer, "muon") != 0))
        return ns_fail(e, NS_EINVAL, "optimizer \"%s\": adamw or muon", o->optimizer ? o->optimizer : "");
    if (!(o->schedule.lr >= 0 && o->schedule.lr_min >= 0 && o->schedule.warmup >= 0))
        return ns_fail(e, NS_EINVAL, "training: a learning rate or its warm-up is negative");
    return 0;
}

/* ---- the log ---- */

static int open_log(ns_trainer *t, ns_err *e)
{
    ns_buf path = { 0 };
    if (ns_comm_rank(t->comm) != 0)
        return 0;
    t->log = fopen(ns_path_join(&path, t->dir, "log.jsonl"), "a");
    int rc = t->log && fseek(t->log, 0, SEEK_END) == 0 ? 0 : ns_fail_errno(e, "%s/log.jsonl", t->dir);
    ns_buf_release(&path);
    return rc;
}

static int write_log(ns_trainer *t, const json_t *line, ns_err *e)
{
    if (!t->log)
        return 0;
    char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9));
    int rc = text ? 0 : ns_fail(e, NS_ENOMEM, "log: out of memory");
    if (rc == 0 && (fprintf(t->log, "%s\n", text) < 0 || fflush(t->log) != 0))
        rc = ns_fail_errno(e, "%s/log.jsonl", t->dir);
    free(text);
    return rc;
}

static void put(json_t *line, const char *key, double value)
{
    json_object_set_new(line, key, isfinite(value) ? json_real(value) : json_null());
}

/* Means of a loss; "eval_" before the names of an evaluation's. */
static void put_loss(json_t *line, const char *prefix, const ns_loss *l, bool teacher)
{
    const struct { const char *name; double sum; bool on; } fields[] = {
        { "loss", *prefix && teacher ? l->kl : l->loss, true }, { "ce", l->ce, teacher && l->ce != 0 },
        { "kl", l->kl, teacher }, { "top1", l->top1, true }, { "agree", l->agree, teacher } };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        char key[32];
        snprintf(key, sizeof key, "%s%s", prefix, fields[i].name);
        if (fields[i].on)
            put(line, key, fields[i].sum / l->weight);
    }
}

static json_t *describe_step(const ns_trainer *t, double seconds)
{
    const double done = (double)(t->step - t->began_step), left = (double)(t->o.steps - t->step);
    json_t *line = json_pack("{s:I}", "step", (json_int_t)t->step);
    put_loss(line, "", &t->loss, t->obj && t->obj->teacher);
    put(line, "lr", t->lr);
    if (!ns_trainer_frozen(t))
        put(line, "grad_norm", t->grad_norm);
    json_object_set_new(line, "tokens", json_integer((json_int_t)t->tokens));
    put(line, "tokens_per_s", (double)t->step_tokens / seconds);
    put(line, "eta_s", done > 0 ? (ns_now() - t->began) / done * left : 0);
    return line;
}

/* ---- a step ---- */

static int stop(const ns_trainer *t, ns_err *e)
{
    const bool saved = ns_resume_exists(t->dir);
    return ns_err_wrap(e, "training stopped in step %lld, %s%s%s", (long long)t->step + 1,
                       saved ? "the last state is in " : "nothing is saved yet", saved ? t->dir : "", saved ? "/resume" : "");
}

/* Before anything moves: is this step fit to be taken? */
static int look(ns_trainer *t, ns_err *e)
{
    const double loss = t->loss.loss / t->loss.weight;
    int rc = 0;
    if (!isfinite(loss)) {
        if (t->bad.code)
            *e = t->bad;
        else
            ns_fail(e, NS_EFORMAT, "the loss is not finite on another rank");
        rc = -1;
    } else if (!isfinite(t->grad_norm)) {
        ns_diagnose_gradient(t, e);
        rc = -1;
    } else if (t->o.spike > 0 && t->step >= SPIKE_AFTER && loss > t->o.spike * t->running) {
        rc = ns_fail(e, NS_EFORMAT, "the loss is %.4g, over %g times its running mean of %.4g, in the batch of documents %lld..%lld "
                     "of the stream", loss, t->o.spike, t->running, (long long)t->first_doc, (long long)(ns_data_position(t->data) - 1));
    }
    if (rc == 0)
        t->running = t->step == 0 ? loss : 0.95 * t->running + 0.05 * loss;
    return rc == 0 ? 0 : stop(t, e);
}

static int evaluate(ns_trainer *t, json_t *line, ns_err *e)
{
    ns_loss l;
    const ns_real *teacher = t->obj ? t->obj->teacher : NULL;
    if (t->o.eval_every <= 0 || (t->step % t->o.eval_every != 0 && t->step != t->o.steps))
        return 0;
    if (ns_crew_eval(&t->crew, t->run, teacher, NULL, NULL, t->data, t->o.eval_docs, t->comm, &l, e) != 0)
        return -1;
    put_loss(line, "eval_", &l, teacher != NULL);
    put(line, "eval_ppl", exp(l.ce / l.weight));
    return 0;
}

/* After every change of w. */
static void refresh(ns_trainer *t)
{
    if (t->obj && t->obj->qad)
        ns_qad_refresh(t->obj->qad, t->w, t->crew.pool);
}

static int train_step(ns_trainer *t, ns_err *e)
{
    const double begin = ns_now();
    if (ns_step_run(t, e) != 0 || ns_update_norm(t, e) != 0 || look(t, e) != 0 || ns_update_apply(t, e) != 0)
        return -1;
    refresh(t);
    t->step++;
    t->tokens += t->step_tokens;
    json_t *line = describe_step(t, ns_now() - begin);
    int rc = 0;
    if (t->obj && t->obj->update)
        rc = t->obj->update(t->obj->ctx, t->step - 1, (double)t->step / (double)t->o.steps, t->comm, line, e);
    if (rc == 0)
        rc = evaluate(t, line, e);
    if (rc == 0)
        rc = write_log(t, line, e);
    if (rc == 0 && t->log && t->o.on_step)
        t->o.on_step(t->o.on_step_ctx, line);
    json_decref(line);
    return ns_trainer_agree(t, rc, e);
}

static int loop(ns_trainer *t, ns_err *e)
{
    bool interrupted = false;
    refresh(t);
    t->began = ns_now();
    t->began_step = t->step;
    while (t->step < t->o.steps && !interrupted) {
        if (train_step(t, e) != 0)
            return -1;
        interrupted = t->o.interrupted && *t->o.interrupted;
        if (ns_comm_any(t->comm, &interrupted, e) != 0)
            return -1;
        const bool due = t->o.save_every > 0 && t->step % t->o.save_every == 0;
        if ((due || interrupted || t->step == t->o.steps) && ns_resume_save(t, e) != 0)
            return -1;
    }
    return t->step >= t->o.steps ? 0 : ns_fail(e, NS_ECANCELLED, "interrupted after step %lld of %lld; the state is in %s/resume",
                                               (long long)t->step, (long long)t->o.steps, t->dir);
}

/* ---- around the loop ---- */

static int open_run(ns_trainer *t, bool resume, ns_err *e)
{
    bool found = false;
    int rc = 0;
    t->data_hash = ns_data_hash(t->data);
    if (ns_comm_rank(t->comm) == 0 && mkdir(t->dir, 0777) != 0 && !ns_dir_exists(t->dir))
        rc = ns_fail_errno(e, "%s", t->dir);
    if (rc == 0 && !resume && ns_resume_exists(t->dir))
        rc = ns_fail(e, NS_EINVAL, "%s holds a run already: go on with it by --resume, or remove it", t->dir);
    if (ns_trainer_agree(t, rc, e) != 0)
        return -1;
    if (resume && ns_resume_load(t, &found, e) != 0)
        return -1;
    if (!found) { /* what a run left that ended before its first state */
        ns_buf path = { 0 };
        ns_data_seek(t->data, 0);
        if (ns_comm_rank(t->comm) == 0)
            remove(ns_path_join(&path, t->dir, "log.jsonl"));
        ns_buf_release(&path);
    }
    return ns_trainer_agree(t, open_log(t, e), e);
}

static int prepare(ns_trainer *t, ns_err *e)
{
    const ns_crew_opts co = { .seq_tokens = t->o.seq_tokens, .workers = t->o.workers, .packs = t->o.packs,
                              .micro_batches = t->o.micro_batches, .recompute = t->o.recompute, .gradients = !ns_trainer_frozen(t), .teacher = t->obj && t->obj->teacher,
                              .split = t->obj && t->obj->before };
    return ns_crew_init(&t->crew, t->p, &co, e) == 0 && ns_step_init(t, e) == 0 && ns_update_init(t, e) == 0 ? 0 : -1;
}

int ns_train(const ns_params *p, ns_real *w, ns_data *data, const ns_objective *obj, const ns_train_opts *o, const char *dir, bool resume,
             ns_comm *comm, ns_err *e)
{
    ns_trainer t = { .p = p, .w = w, .data = data, .obj = obj, .o = *o, .comm = comm, .dir = dir };
    t.run = obj && obj->qad ? obj->qad->seen : w;
    if (check_options(o, e) != 0)
        return -1;
    t.o.schedule.steps = o->schedule.steps ? o->schedule.steps : o->steps;
    int rc = ns_trainer_agree(&t, prepare(&t, e), e);
    if (rc == 0)
        rc = open_run(&t, resume, e);
    if (rc == 0)
        rc = loop(&t, e);
    if (t.log)
        fclose(t.log);
    ns_update_release(&t);
    ns_step_release(&t);
    ns_crew_release(&t.crew);
    return rc;
}
