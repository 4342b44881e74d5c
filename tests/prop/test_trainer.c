/* The training loop: what must come out the same, and what must stop it. The program starts itself again under mpirun. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/rng.h"
#include "tiny/tiny.h"
#include "train/trainer.h"

enum { SEQ = 48, DOCS = 60, HELD = 6, VOCAB = 96 };

/* ---- a tiny model and its data ---- */

typedef struct setting {
    ns_arch *arch;
    ns_params p;
    ns_real *w;
    ns_data *data;
    ns_comm *comm;
} setting;

static void die(const ns_err *e)
{
    fprintf(stderr, "%s\n", e->msg);
    abort();
}

static void write_data(const char *base)
{
    ns_buf b = { 0 };
    ns_rng g;
    ns_err e = { 0 };
    char *path = tiny_path(base, "data.jsonl");
    ns_rng_init(&g, 11);
    for (int i = 0; i < DOCS; i++) {
        int id = (int)(ns_rng_uniform(&g) * VOCAB), n = 3 + (int)(ns_rng_uniform(&g) * 40);
        ns_buf_addf(&b, "{\"ids\": [%d", id);
        for (int k = 1; k < n; k++) /* mostly predictable */
            ns_buf_addf(&b, ", %d", id = ns_rng_uniform(&g) < 0.9 ? (5 * id + 7) % VOCAB : (int)(ns_rng_uniform(&g) * VOCAB));
        ns_buf_adds(&b, "]}\n");
    }
    if (ns_file_write(path, b.data, b.len, &e) != 0)
        die(&e);
    ns_buf_release(&b);
    free(path);
}

static setting open_setting(const char *base)
{
    setting s;
    ns_err e = { 0 };
    tiny_opts o = tiny_defaults();
    char config[600], data[600];
    snprintf(config, sizeof config, "%s/config-%d.json", base, (int)getpid());
    snprintf(data, sizeof data, "%s/data.jsonl", base);
    o.vocab = VOCAB;
    if (tiny_config(config, &o) != 0 || !(s.arch = ns_arch_open(config, &e)) || ns_params_plan(s.arch, &s.p, &e) != 0)
        die(&e);
    s.w = malloc(s.p.count * sizeof *s.w);
    const ns_data_opts d = { .paths = (const char *const[]){ data }, .n_paths = 1, .vocab_size = VOCAB, .eos_id = 0, .max_doc = SEQ,
                             .seed = 3 };
    if (ns_params_init(&s.p, 5, s.w, &e) != 0 || !(s.data = ns_data_open(&d, NULL, &e)) || ns_data_hold_out(s.data, HELD, &e) != 0 ||
        !(s.comm = ns_comm_open(&e)))
        die(&e);
    return s;
}

static void close_setting(setting *s)
{
    ns_comm_close(s->comm);
    ns_data_free(s->data);
    ns_params_release(&s->p);
    ns_arch_free(s->arch);
    free(s->w);
}

static ns_train_opts options(void)
{
    ns_train_opts o = ns_train_defaults();
    o.steps = 6;
    o.seq_tokens = SEQ;
    o.packs = 4;
    o.workers = 2;
    o.schedule = (ns_schedule){ .lr = 3e-3, .lr_min = 1e-4, .warmup = 2 };
    o.adamw.weight_decay = 0.1;
    o.balance_rate = 1e-3;
    return o;
}

static char *run_dir(const char *name)
{
    char *dir = tiny_path(tiny_base, name);
    if (ns_dir_exists(dir))
        tiny_remove(dir);
    return dir;
}

/* Trains in a folder of this name; the caller closes the setting. */
static int train_in(setting *s, const ns_objective *obj, const ns_train_opts *o, const char *name, bool resume, ns_err *e)
{
    char *dir = resume ? tiny_path(tiny_base, name) : run_dir(name);
    int rc = ns_train(&s->p, s->w, s->data, obj, o, dir, resume, s->comm, e);
    free(dir);
    return rc;
}

static setting trained(const ns_train_opts *o, const ns_objective *obj, const char *name)
{
    setting s = open_setting(tiny_base);
    ns_err e = { 0 };
    if (train_in(&s, obj, o, name, false, &e) != 0)
        fail_msg("%s", e.msg);
    return s;
}

/* ---- logs ---- */

typedef struct curve {
    int n;
    json_t *line[64];
} curve;

static curve read_curve(const char *name)
{
    curve c = { 0 };
    char path[600], *text = NULL;
    size_t cap = 0;
    snprintf(path, sizeof path, "%s/%s/log.jsonl", tiny_base, name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (c.n < 64 && getline(&text, &cap, f) > 0)
        c.line[c.n++] = json_loads(text, 0, NULL);
    fclose(f);
    free(text);
    return c;
}

static void free_curve(curve *c)
{
    for (int i = 0; i < c->n; i++)
        json_decref(c->line[i]);
}

static double at(const curve *c, int i, const char *key)
{
    const json_t *v = json_object_get(c->line[i], key);
    if (!v)
        fail_msg("line %d of the log has no %s", i, key);
    return json_number_value(v);
}

/* Every key but the times. bound 0: the same. */
static void assert_same_curve(const char *one, const char *two, double bound)
{
    static const char *const keys[] = { "step", "loss", "lr", "grad_norm", "tokens", "top1" };
    curve a = read_curve(one), b = read_curve(two);
    assert_int_equal(a.n, b.n);
    for (int i = 0; i < a.n; i++)
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++) {
            const bool count = strcmp(keys[k], "top1") == 0;
            const double x = at(&a, i, keys[k]), y = at(&b, i, keys[k]), slack = count && bound > 0 ? 0.02 : bound * fabs(x);
            if (!(fabs(x - y) <= slack))
                fail_msg("%s and %s, step %d: %s is %.9g and %.9g", one, two, i + 1, keys[k], x, y);
        }
    free_curve(&a);
    free_curve(&b);
}

static void assert_same_bits(const setting *a, const setting *b)
{
    assert_memory_equal(a->w, b->w, a->p.count * sizeof *a->w);
}

static void assert_close(const setting *a, const setting *b, double bound)
{
    double diff = 0, moved = 0;
    setting start = open_setting(tiny_base);
    for (size_t i = 0; i < a->p.count; i++) {
        diff += pow((double)a->w[i] - (double)b->w[i], 2);
        moved += pow((double)a->w[i] - (double)start.w[i], 2);
    }
    close_setting(&start);
    assert_true(moved > 0);
    if (!(sqrt(diff / moved) <= bound))
        fail_msg("parameters differ by %g of what they moved", sqrt(diff / moved));
}

/* ---- tests ---- */

static void test_overfits(void **state)
{
    (void)state;
    ns_train_opts o = options();
    o.steps = 60;
    o.schedule.lr = 5e-3;
    o.eval_every = 30;
    setting s = trained(&o, NULL, "overfit");
    curve c = read_curve("overfit");
    assert_int_equal(c.n, 60);
    assert_float_equal((float)at(&c, 0, "loss"), logf(VOCAB), 0.15f);
    if (at(&c, 59, "loss") > 1.2)
        fail_msg("the loss is still %g", at(&c, 59, "loss"));
    assert_true(at(&c, 59, "eval_loss") < at(&c, 29, "eval_loss"));
    assert_float_equal((float)log(at(&c, 59, "eval_ppl")), (float)at(&c, 59, "eval_loss"), 1e-5f);
    assert_null(json_object_get(c.line[10], "eval_loss"));
    assert_float_equal((float)at(&c, 0, "lr"), (float)(5e-3 / 2), 1e-9f);
    free_curve(&c);
    close_setting(&s);
}

/* Muon too, and recomputed activations change nothing but time. */
static void test_muon_learns_and_recompute_is_exact(void **state)
{
    (void)state;
    ns_train_opts o = options();
    o.steps = 25;
    o.optimizer = "muon";
    setting a = trained(&o, NULL, "muon");
    o.recompute = NS_RECOMPUTE_LAYER;
    setting b = trained(&o, NULL, "muon2");
    curve c = read_curve("muon");
    assert_true(at(&c, 24, "loss") < 3);
    assert_same_bits(&a, &b);
    free_curve(&c);
    close_setting(&a);
    close_setting(&b);
}

static void test_same_options_same_bits(void **state)
{
    (void)state;
    ns_train_opts o = options();
    o.workers = 3;
    setting a = trained(&o, NULL, "bits1"), b = trained(&o, NULL, "bits2");
    assert_same_bits(&a, &b);
    assert_same_curve("bits1", "bits2", 0);
    close_setting(&a);
    close_setting(&b);
}

/* How packs are spread changes only the order of additions. */
static void test_workers_and_micro_batches(void **state)
{
    (void)state;
    static const struct { int workers, packs, micro; } ways[] = { { 2, 4, 1 }, { 4, 4, 1 }, { 1, 1, 4 }, { 2, 2, 2 }, { 3, 4, 1 } };
    ns_train_opts o = options();
    o.adamw.eps = 1e-4; /* where all gradients are rounding errors, AdamW's step is as large as elsewhere */
    o.workers = 1;
    setting one = trained(&o, NULL, "spread0");
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        o.workers = ways[i].workers;
        o.packs = ways[i].packs;
        o.micro_batches = ways[i].micro;
        setting other = trained(&o, NULL, "spread1");
        assert_same_curve("spread0", "spread1", 2e-5);
        assert_close(&one, &other, 1e-3);
        close_setting(&other);
    }
    close_setting(&one);
}

/* ---- resuming ---- */

typedef struct interrupter {
    int flag, at;
    bool kill;
} interrupter;

static void on_step(void *ctx, const json_t *line)
{
    interrupter *x = ctx;
    if (json_integer_value(json_object_get(line, "step")) != x->at)
        return;
    x->flag = 1;
    if (x->kill)
        raise(SIGKILL);
}

/* An objective with a state of its own: what it holds must come back too. */
typedef struct counting {
    double sum;
    char text[5];
} counting;

static int count_update(void *ctx, int64_t step, double progress, ns_comm *comm, json_t *log, ns_err *e)
{
    counting *c = ctx;
    (void)comm;
    (void)e;
    c->sum = c->sum * 1.1 + (double)step + progress;
    json_object_set_new(log, "counted", json_real(c->sum));
    return 0;
}

static ns_objective counting_objective(counting *c)
{
    static const char *const names[] = { "sum", "text" };
    static const size_t bytes[] = { sizeof(double), 5 };
    static void *data[2];
    data[0] = &c->sum;
    data[1] = c->text;
    return (ns_objective){ .ctx = c, .update = count_update, .n_state = 2, .state_name = names, .state_data = data, .state_bytes = bytes };
}

static void test_resume_after_interruption(void **state)
{
    (void)state;
    for (int muon = 0; muon < 2; muon++) {
        ns_train_opts o = options();
        ns_err e = { 0 };
        counting c1 = { 0, "abcd" }, c2 = { 0, "abcd" }, c3 = { 9, "zzzz" };
        interrupter x = { .at = 5 };
        ns_objective one = counting_objective(&c1);
        o.optimizer = muon ? "muon" : "adamw";
        o.steps = 9;
        setting whole = trained(&o, &one, "whole"), part = open_setting(tiny_base), rest = open_setting(tiny_base);
        ns_objective two = counting_objective(&c2);
        o.interrupted = &x.flag;
        o.on_step = on_step;
        o.on_step_ctx = &x;
        assert_int_equal(train_in(&part, &two, &o, "parts", false, &e), -1);
        assert_int_equal(e.code, NS_ECANCELLED);
        assert_non_null(strstr(e.msg, "after step 5 of 9"));
        o.interrupted = NULL;
        ns_objective three = counting_objective(&c3);
        memset(rest.w, 0, rest.p.count * sizeof *rest.w);
        e = (ns_err){ 0 };
        assert_int_equal(train_in(&rest, &three, &o, "parts", true, &e), 0);
        assert_same_bits(&whole, &rest);
        assert_same_curve("whole", "parts", 0);
        assert_true(c1.sum == c3.sum);
        assert_string_equal(c3.text, "abcd");
        close_setting(&whole);
        close_setting(&part);
        close_setting(&rest);
    }
}

/* Killed between two saves: the steps since the last are done again, in the log too. */
static void test_resume_after_kill(void **state)
{
    (void)state;
    ns_train_opts o = options();
    ns_err e = { 0 };
    interrupter x = { .at = 8, .kill = true };
    o.steps = 10;
    setting whole = trained(&o, NULL, "unkilled");
    o.save_every = 3;
    free(run_dir("killed"));
    pid_t pid = fork();
    if (pid == 0) {
        setting s = open_setting(tiny_base);
        o.on_step = on_step;
        o.on_step_ctx = &x;
        train_in(&s, NULL, &o, "killed", false, &e);
        _exit(1);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    curve c = read_curve("killed");
    assert_int_equal(c.n, 8);
    free_curve(&c);
    setting rest = open_setting(tiny_base);
    if (train_in(&rest, NULL, &o, "killed", true, &e) != 0)
        fail_msg("%s", e.msg);
    assert_same_bits(&whole, &rest);
    assert_same_curve("unkilled", "killed", 0);
    /* all is done: going on is nothing to do, and the parameters are there */
    memset(rest.w, 0, rest.p.count * sizeof *rest.w);
    assert_int_equal(train_in(&rest, NULL, &o, "killed", true, &e), 0);
    assert_same_bits(&whole, &rest);
    close_setting(&whole);
    close_setting(&rest);
}

static void refused(setting *s, const ns_objective *obj, const ns_train_opts *o, const char *name, bool resume, const char *says)
{
    ns_err e = { 0 };
    char *dir = tiny_path(tiny_base, name);
    assert_int_equal(ns_train(&s->p, s->w, s->data, obj, o, dir, resume, s->comm, &e), -1);
    if (!strstr(e.msg, says))
        fail_msg("\"%s\" does not say \"%s\"", e.msg, says);
    free(dir);
}

static void test_refusals(void **state)
{
    (void)state;
    ns_train_opts o = options();
    o.steps = 2;
    setting s = trained(&o, NULL, "first");
    ns_err e = { 0 };
    refused(&s, NULL, &o, "first", false, "holds a run already");
    o.optimizer = "muon";
    refused(&s, NULL, &o, "first", true, "optimizer adamw, not muon");
    o.optimizer = "sgd";
    refused(&s, NULL, &o, "first", true, "\"sgd\"");
    o = options();
    o.packs = 0;
    refused(&s, NULL, &o, "first", true, "packs");
    o = options();
    o.steps = 2;
    counting c = { 0 };
    ns_objective obj = counting_objective(&c);
    refused(&s, &obj, &o, "first", true, "\"sum\" has 0 bytes, expected 8");
    assert_int_equal(ns_data_hold_out(s.data, HELD + 1, &e), 0);
    refused(&s, NULL, &o, "first", true, "not those that the run began with");
    char *path = tiny_path(tiny_base, "first/resume/state.safetensors");
    assert_int_equal(ns_file_write(path, "rubbish", 7, &e), 0);
    refused(&s, NULL, &o, "first", true, "state.safetensors");
    free(path);
    close_setting(&s);
}

/* ---- what is not finite ---- */

static void test_stops_on_nan(void **state)
{
    (void)state;
    ns_train_opts o = options();
    o.steps = 3;
    o.save_every = 1;
    setting s = open_setting(tiny_base);
    ns_real *at_k = ns_params_at(&s.p, s.w, 3, NS_W_K, 0);
    at_k[7] = NAN;
    free(run_dir("nan"));
    refused(&s, NULL, &o, "nan", false, "layers.3.mixer.k_proj.weight holds a value that is not finite");
    refused(&s, NULL, &o, "nan", false, "step 1");
    refused(&s, NULL, &o, "nan", false, "of documents");
    close_setting(&s);

    s = open_setting(tiny_base); /* all weights are finite, an FFN's squares are not */
    ns_real *up = ns_params_at(&s.p, s.w, 5, NS_W_UP, 0);
    assert_int_equal(s.arch->layers[5].kind, NS_LAYER_MLP);
    for (int i = 0; i < 64; i++)
        up[i] = 1e30f;
    refused(&s, NULL, &o, "nan", false, "in layer 6: the mixer's input");
    close_setting(&s);

    s = open_setting(tiny_base); /* the last good state stays */
    assert_int_equal(train_in(&s, NULL, &o, "nan2", false, &(ns_err){ 0 }), 0);
    o.steps = 9;
    o.schedule = (ns_schedule){ .lr = 1e20, .lr_min = 1e20 };
    refused(&s, NULL, &o, "nan2", true, "the last state is in");
    setting again = open_setting(tiny_base);
    o.steps = 3;
    ns_err e = { 0 };
    assert_int_equal(train_in(&again, NULL, &o, "nan2", true, &e), 0); /* and is whole */
    for (size_t i = 0; i < again.p.count; i++)
        assert_true(isfinite(again.w[i]));
    close_setting(&again);
    close_setting(&s);
}

static void test_stops_on_a_spike(void **state)
{
    (void)state;
    ns_train_opts o = options();
    o.steps = 60;
    o.spike = 1.5;
    o.schedule = (ns_schedule){ .lr = 3e-3, .lr_min = 3e-3 };
    setting s = open_setting(tiny_base);
    free(run_dir("spike"));
    ns_err e = { 0 };
    o.steps = 25;
    assert_int_equal(train_in(&s, NULL, &o, "spike", false, &e), 0);
    o.steps = 40;
    o.schedule = (ns_schedule){ .lr = 3, .lr_min = 3 };
    refused(&s, NULL, &o, "spike", true, "running mean");
    close_setting(&s);
}

/* ---- objectives ---- */

typedef struct watching {
    ns_net_mask mask;
    int asked, told;
    double d_keep, d_ffn, weight;
} watching;

static const ns_net_mask *give_mask(void *ctx, int64_t step, int micro)
{
    watching *x = ctx;
    (void)step;
    (void)micro;
    x->asked++;
    return &x->mask;
}

static int take_grad(void *ctx, int64_t step, int micro, const ns_net_mask *grad, const ns_loss *loss, ns_err *e)
{
    watching *x = ctx;
    (void)step;
    (void)micro;
    (void)e;
    x->told++;
    x->d_keep += (double)grad->layer[2].d_keep;
    for (int i = 0; i < grad->layer[5].axis[NS_AXIS_DENSE_FFN].full; i++)
        x->d_ffn += (double)grad->layer[5].axis[NS_AXIS_DENSE_FFN].dm[i];
    x->weight += loss->weight;
    return 0;
}

static void watch(watching *x, ns_objective *obj, ns_train_opts *o, int workers, int packs, int micro, const char *name)
{
    ns_err e = { 0 };
    *x = (watching){ 0 };
    setting s = open_setting(tiny_base), start = open_setting(tiny_base);
    assert_int_equal(ns_mask_init(s.arch, &x->mask, &e), 0);
    x->mask.layer[2].keep = 0.7f;
    x->mask.layer[2].want_keep = true;
    *obj = (ns_objective){ .ctx = x, .mask = give_mask, .micro_done = take_grad, .freeze_model = true };
    o->workers = workers;
    o->packs = packs;
    o->micro_batches = micro;
    o->steps = 1;
    if (train_in(&s, obj, o, name, false, &e) != 0)
        fail_msg("%s", e.msg);
    assert_same_bits(&s, &start);
    ns_mask_release(&x->mask);
    close_setting(&s);
    close_setting(&start);
}

/* Mask gradients are those of the mean loss, however the packs are spread; a frozen model does not move. */
static void test_mask_gradients(void **state)
{
    (void)state;
    ns_train_opts o = options();
    ns_objective obj;
    watching a, b;
    watch(&a, &obj, &o, 1, 4, 1, "mask1");
    watch(&b, &obj, &o, 2, 2, 2, "mask2");
    assert_int_equal(a.asked, 1);
    assert_int_equal(b.asked, 2);
    assert_int_equal(b.told, 2);
    assert_true(a.weight == b.weight && a.weight > 0);
    assert_true(a.d_keep != 0 && a.d_ffn != 0);
    assert_float_equal((float)a.d_keep, (float)b.d_keep, 1e-4f * fabsf((float)a.d_keep));
    assert_float_equal((float)a.d_ffn, (float)b.d_ffn, 1e-4f * fabsf((float)a.d_ffn));
}

static void test_teacher(void **state)
{
    (void)state;
    ns_train_opts o = options();
    o.steps = 1;
    o.schedule = (ns_schedule){ .lr = 0 };
    o.eval_every = 1;
    setting t = open_setting(tiny_base);
    ns_objective obj = { .teacher = t.w, .temperature = 1 };
    setting s = trained(&o, &obj, "same");
    curve c = read_curve("same");
    assert_true(fabs(at(&c, 0, "loss")) < 1e-5); /* a student that is its teacher */
    assert_true(at(&c, 0, "grad_norm") < 1e-4);
    assert_float_equal((float)at(&c, 0, "agree"), 1, 0);
    free_curve(&c);
    close_setting(&s);
    obj.ce = 1;
    s = trained(&o, &obj, "both");
    c = read_curve("both");
    assert_float_equal((float)at(&c, 0, "loss"), (float)at(&c, 0, "ce"), 1e-4f);
    assert_float_equal((float)at(&c, 0, "eval_loss"), 0, 1e-5f);
    assert_true(at(&c, 0, "eval_ppl") > 10);
    free_curve(&c);
    close_setting(&s);
    close_setting(&t);
}

/* Steps of the correction are the rate exactly, and opposite signs meet in every layer. */
static void test_balance(void **state)
{
    (void)state;
    ns_train_opts o = options();
    o.steps = 1;
    o.balance_rate = 0.25;
    setting s = trained(&o, NULL, "balance");
    const ns_real *bias = ns_params_at(&s.p, s.w, 1, NS_W_GATE_CORRECTION, 0);
    int up = 0, down = 0;
    for (int i = 0; i < s.arch->layers[1].width[NS_AXIS_EXPERTS]; i++) {
        assert_true(bias[i] == 0.25f || bias[i] == -0.25f || bias[i] == 0);
        up += bias[i] > 0;
        down += bias[i] < 0;
    }
    assert_true(up > 0 && down > 0);
    close_setting(&s);
}

/* Held-out loss over packs on several workers, against one document after the other. */
static void test_eval(void **state)
{
    (void)state;
    setting s = open_setting(tiny_base);
    ns_err e = { 0 };
    ns_train_opts o = options();
    ns_loss got, want = { 0 };
    ns_pack p;
    o.workers = 3;
    assert_int_equal(ns_train_eval(&s.p, s.w, NULL, NULL, NULL, s.data, &o, s.comm, &got, &e), 0);
    ns_blas *b = ns_blas_open(&e);
    ns_net *net = ns_net_new(&s.p, b, &(ns_net_opts){ .max_tokens = SEQ, .max_seqs = NS_PACK_SEQS(SEQ), .forward_only = true }, &e);
    assert_non_null(net);
    assert_int_equal(ns_pack_init(&p, SEQ, &e), 0);
    for (int64_t k = 0; ns_data_eval(s.data, &k, &p);)
        for (int q = 0; q < p.seqs.n_seqs; q++) {
            const int from = p.start[q], n = p.start[q + 1] - from;
            ns_seqs one = { .n_tokens = n, .n_seqs = 1, .ids = p.ids + from, .start = (const int[]){ 0, n } };
            ns_loss_spec spec = { .target = p.target + from, .weight = p.weight + from, .ce = 1, .temperature = 1 };
            ns_net_forward(net, s.w, NULL, &one);
            ns_net_loss(net, s.w, NULL, &spec, NULL, NULL, &want);
        }
    assert_true(got.weight == want.weight);
    assert_float_equal((float)(got.loss / got.weight), (float)(want.loss / want.weight), 1e-5f);
    assert_float_equal((float)got.top1, (float)want.top1, 1.01f);
    assert_int_equal(ns_data_hold_out(s.data, 0, &e), 0);
    assert_int_equal(ns_train_eval(&s.p, s.w, NULL, NULL, NULL, s.data, &o, s.comm, &got, &e), -1);
    assert_non_null(strstr(e.msg, "held out"));
    ns_pack_release(&p);
    ns_net_free(net);
    ns_blas_close(b);
    close_setting(&s);
}

/* ---- ranks ---- */

static const char *self;

/* In every other step a narrower size begins the documents, and the whole model, taught by another, goes on. */
static ns_net_mask *narrow_before(void *ctx, int64_t step, int micro, uint64_t *seed)
{
    *seed = 77 * (uint64_t)step + (uint64_t)micro;
    return step % 2 ? NULL : ctx;
}

static void change_inside(const setting *s, ns_net_mask *narrow, ns_objective *obj)
{
    ns_err e = { 0 };
    ns_cut cut;
    ns_real *teacher = calloc(s->p.count, sizeof *teacher);
    assert_non_null(teacher);
    for (size_t i = 0; i < s->p.count; i++)
        teacher[i] = s->w[i] * (1 + 0.2f * sinf((float)i));
    assert_int_equal(ns_cut_full(s->arch, &cut, &e) || ns_mask_init(s->arch, narrow, &e), 0);
    ns_cut_set(s->arch, &cut, NS_AXIS_HIDDEN, ns_cut_hidden(&cut) / 2);
    ns_mask_set_cut(s->arch, &cut, narrow);
    ns_cut_release(&cut);
    *obj = (ns_objective){ .ctx = narrow, .teacher = teacher, .before = narrow_before };
}

/* In a rank: trains with its share of the packs; rank 0 writes the parameters beside the run. */
static int rank_main(char **argv)
{
    const char *base = argv[2], *name = argv[3];
    tiny_base = argv[2];
    setting s = open_setting(base);
    ns_err e = { 0 };
    ns_train_opts o = options();
    ns_objective obj = { 0 };
    ns_net_mask narrow = { 0 };
    const bool change = strcmp(argv[5], "change") == 0;
    if (change)
        change_inside(&s, &narrow, &obj);
    o.adamw.eps = 1e-4;
    o.optimizer = change ? "adamw" : argv[5];
    o.workers = 1;
    o.steps = atoi(argv[6]);
    o.schedule.steps = 6;
    o.packs = 4 / ns_comm_size(s.comm);
    if (ns_comm_size(s.comm) != atoi(argv[7])) {
        fprintf(stderr, "%d ranks, expected %s\n", ns_comm_size(s.comm), argv[7]);
        return 1;
    }
    o.eval_every = 3;
    char *dir = tiny_path(base, name);
    int rc = ns_train(&s.p, s.w, s.data, change ? &obj : NULL, &o, dir, atoi(argv[4]), s.comm, &e);
    /* every rank has the same parameters */
    double sum[2] = { 0, 1 }, mine = 0;
    for (size_t i = 0; i < s.p.count; i++)
        mine += (double)s.w[i] * (double)(i % 1000);
    sum[0] = mine;
    if (rc == 0 && (ns_comm_sum_doubles(s.comm, sum, 2, &e) != 0 || fabs(sum[0] / sum[1] - mine) > 1e-9 * fabs(mine)))
        rc = ns_fail(&e, NS_EIO, "rank %d has parameters of its own: %.17g, %.17g on average", ns_comm_rank(s.comm), mine, sum[0] / sum[1]);
    if (rc != 0)
        fprintf(stderr, "%s\n", e.msg);
    char path[700];
    snprintf(path, sizeof path, "%s/%s.w", base, name);
    if (rc == 0 && ns_comm_rank(s.comm) == 0)
        rc = ns_file_write(path, s.w, s.p.count * sizeof *s.w, &e);
    free(dir);
    free((ns_real *)(uintptr_t)obj.teacher);
    ns_mask_release(&narrow);
    close_setting(&s);
    return rc != 0;
}

static void run_ranks(int ranks, const char *name, bool resume, const char *optimizer, int steps, setting *out)
{
    char launch[100] = "", command[2000], path[700];
    ns_buf b = { 0 };
    ns_err e = { 0 };
    if (ranks > 1) /* what MPI itself leaves behind is not ours */
        snprintf(launch, sizeof launch, "ASAN_OPTIONS=detect_leaks=0 mpirun --allow-run-as-root --oversubscribe -n %d ", ranks);
    snprintf(command, sizeof command, "%s%s --rank %s %s %d %s %d %d", launch, self, tiny_base, name, resume, optimizer, steps, ranks);
    if (system(command) != 0)
        fail_msg("failed: %s", command);
    if (!out)
        return;
    *out = open_setting(tiny_base);
    snprintf(path, sizeof path, "%s/%s.w", tiny_base, name);
    assert_int_equal(ns_file_read(path, SIZE_MAX, &b, &e), 0);
    assert_int_equal(b.len, out->p.count * sizeof *out->w);
    memcpy(out->w, b.data, b.len);
    ns_buf_release(&b);
}

/* N ranks compute what one rank with N times the packs computes; a run may go on with another number of ranks. */
static void test_ranks(void **state)
{
    (void)state;
    if (system("mpirun --version >/dev/null 2>&1") != 0)
        skip();
    static const char *const optimizers[] = { "adamw", "muon", "change" };
    for (int k = 0; k < 3; k++) {
        char one_name[16], name[16];
        setting one, some;
        snprintf(one_name, sizeof one_name, "one-%d", k);
        run_ranks(1, one_name, false, optimizers[k], 6, &one);
        for (int ranks = 2; ranks <= 4; ranks += 2) {
            snprintf(name, sizeof name, "ranks-%d-%d", k, ranks);
            run_ranks(ranks, name, false, optimizers[k], 6, &some);
            assert_same_curve(one_name, name, k == 1 ? 5e-4 : 5e-5);
            assert_close(&one, &some, k == 1 ? 1e-2 : 2e-3);
            close_setting(&some);
        }
        snprintf(name, sizeof name, "moving-%d", k);
        run_ranks(2, name, false, optimizers[k], 3, NULL);
        run_ranks(4, name, true, optimizers[k], 5, NULL);
        run_ranks(1, name, true, optimizers[k], 6, &some);
        assert_same_curve(one_name, name, k == 1 ? 5e-4 : 5e-5);
        assert_close(&one, &some, k == 1 ? 1e-2 : 2e-3);
        close_setting(&some);
        close_setting(&one);
    }
}

static int setup(void **state)
{
    int rc = tiny_setup(state);
    write_data(tiny_base);
    return rc;
}

int main(int argc, char **argv)
{
    self = argv[0];
    if (argc > 7 && strcmp(argv[1], "--rank") == 0)
        return rank_main(argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_overfits),
        cmocka_unit_test(test_muon_learns_and_recompute_is_exact),
        cmocka_unit_test(test_same_options_same_bits),
        cmocka_unit_test(test_workers_and_micro_batches),
        cmocka_unit_test(test_resume_after_interruption),
        cmocka_unit_test(test_resume_after_kill),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_stops_on_nan),
        cmocka_unit_test(test_stops_on_a_spike),
        cmocka_unit_test(test_mask_gradients),
        cmocka_unit_test(test_teacher),
        cmocka_unit_test(test_balance),
        cmocka_unit_test(test_eval),
        cmocka_unit_test(test_ranks),
    };
    return cmocka_run_group_tests(tests, setup, tiny_teardown);
}
