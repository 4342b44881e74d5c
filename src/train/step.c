/* One step's micro-batches.
 *
 * Packs come from the stream in this order: for each micro-batch, those of rank 0, of rank 1, ..; a rank deals its own to its workers
 * in turn. So a run of N ranks with P packs sees what one rank with N P packs sees. Every rank walks the whole stream (packing copies
 * integers) and so knows the sum of all weights before it begins: gradients are those of the mean over all counted tokens at once. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "block/vec.h"
#include "train/trainer_impl.h"

int ns_step_init(ns_trainer *t, ns_err *e)
{
    t->left = calloc((size_t)t->p->n_buckets, sizeof *t->left);
    if (!t->left)
        return ns_fail(e, NS_ENOMEM, "training: out of memory");
    return ns_mask_init(t->p->arch, &t->mask_grad, e);
}

void ns_step_release(ns_trainer *t)
{
    free(t->left);
    t->left = NULL;
    ns_mask_release(&t->mask_grad);
}

/* The places where documents are cut, by the number of the pack in its micro-batch over all ranks. */
static ns_rng cuts_of(const ns_trainer *t, int pack)
{
    ns_rng rng;
    ns_rng_init(&rng, t->cuts + (uint64_t)pack * 0x9e3779b97f4a7c15u);
    return rng;
}

/* Asks how the micro-batch is run. */
static void begin_micro(ns_trainer *t, int micro)
{
    t->micro = micro;
    t->before = t->obj && t->obj->before ? t->obj->before(t->obj->ctx, t->step, micro, &t->cuts) : NULL;
}

/* What counts of a pack, and the most tokens and sequences of any that is cut. */
static void take_pack(ns_trainer *t, ns_pack *pack, int number, int *n_tokens, int *n_seqs)
{
    ns_data_next(t->data, pack);
    double weight = pack->weight_sum;
    if (t->before) {
        ns_rng rng = cuts_of(t, number);
        ns_split *split = &t->crew.worker[0].split;
        ns_split_make(split, pack, &rng);
        weight = split->tail.weight_sum;
        *n_tokens = split->head.seqs.n_tokens > *n_tokens ? split->head.seqs.n_tokens : *n_tokens;
        *n_seqs = split->head.seqs.n_seqs > *n_seqs ? split->head.seqs.n_seqs : *n_seqs;
    }
    t->weight += weight;
    t->step_tokens += pack->seqs.n_tokens;
}

static int read_packs(ns_trainer *t, ns_err *e)
{
    const int rank = ns_comm_rank(t->comm), size = ns_comm_size(t->comm);
    int n_tokens = 0, n_seqs = 0;
    t->weight = 0;
    t->step_tokens = 0;
    t->first_doc = ns_data_position(t->data);
    for (int micro = 0; micro < t->o.micro_batches; micro++) {
        begin_micro(t, micro);
        for (int r = 0; r < size; r++)
            for (int i = 0; i < t->o.packs; i++)
                take_pack(t, r == rank ? &t->crew.pack[micro * t->o.packs + i] : &t->crew.other, r * t->o.packs + i, &n_tokens, &n_seqs);
    }
    if (n_seqs == 0) /* on every rank */
        return 0;
    return ns_trainer_agree(t, ns_crew_reserve(&t->crew, n_tokens, n_seqs, e), e);
}

/* ---- in the workers ---- */

/* The last worker to finish a bucket adds all workers' gradients, in their order, and starts the sum over ranks. Each worker finishes
 * the buckets from last to first, so the last ones come in that order on every rank, one after the other. */
static void bucket_done(void *ctx, int b)
{
    ns_trainer *t = ctx;
    const size_t lo = t->p->bucket[b], n = t->p->bucket[b + 1] - lo;
    if (atomic_fetch_sub_explicit(&t->left[b], 1, memory_order_acq_rel) != 1)
        return;
    for (int i = 1; i < t->crew.n; i++)
        ns_vec_axpy(n, 1, t->crew.worker[i].g + lo, t->crew.worker[0].g + lo);
    if (t->sum_err.code == 0)
        ns_comm_sum_start(t->comm, t->crew.worker[0].g + lo, n, &t->sum_err);
}

/* Own pack j of the micro-batch, or what is left of it when the beginnings of its documents are computed. */
static const ns_pack *part_of(ns_trainer *t, ns_worker *k, int j)
{
    const ns_pack *pack = &t->crew.pack[t->micro * t->o.packs + j];
    if (!t->before)
        return pack;
    ns_rng rng = cuts_of(t, ns_comm_rank(t->comm) * t->o.packs + j);
    return ns_worker_begin(k, t->run, t->before, pack, &rng);
}

/* `pack` whole, and the part of it that has the loss. */
static ns_loss_spec spec_of(const ns_trainer *t, ns_worker *k, ns_net_mask *mask, const ns_pack *pack, const ns_pack *part)
{
    const ns_objective *obj = t->obj;
    ns_loss_spec s = { .target = part->target, .weight = part->weight, .ce = 1, .temperature = 1, .scale = 1 / t->weight };
    if (!obj || !obj->teacher)
        return s;
    ns_net_forward(k->teacher, obj->teacher, obj->teacher_masked ? mask : NULL, &pack->seqs);
    s.ce = (ns_real)obj->ce;
    s.kd = 1;
    s.temperature = (ns_real)(obj->temperature > 0 ? obj->temperature : 1);
    s.teacher = ns_net_hidden(k->teacher);
    s.teacher_row = part == pack ? NULL : k->split.row;
    s.teacher_w = obj->teacher;
    return s;
}

/* Worker i's packs of the micro-batch. */
static void run_worker(void *ctx, int i, int thread)
{
    ns_trainer *t = ctx;
    ns_worker *k = &t->crew.worker[i];
    ns_net_mask *mask = t->mask ? &k->mask : NULL;
    const bool last_micro = t->micro == t->o.micro_batches - 1;
    (void)thread;
    if (mask) {
        ns_mask_copy(mask, t->mask);
        ns_mask_zero_grad(mask);
    }
    if (k->g && t->micro == 0)
        memset(k->g, 0, t->p->count * sizeof *k->g);
    k->loss = (ns_loss){ 0 };
    k->bad = -1;
    for (int j = i; j < t->o.packs; j += t->crew.n) {
        const ns_pack *pack = &t->crew.pack[t->micro * t->o.packs + j], *part = part_of(t, k, j);
        const bool last = last_micro && j + t->crew.n >= t->o.packs;
        ns_net_forward(k->net, t->run, mask, &part->seqs);
        const ns_loss_spec spec = spec_of(t, k, mask, pack, part);
        ns_net_loss(k->net, t->run, mask, &spec, k->g, NULL, &k->loss);
        if (k->bad < 0 && !isfinite(k->loss.loss))
            k->bad = j;
        ns_net_backward(k->net, t->run, mask, k->g, k->g && last ? bucket_done : NULL, t);
    }
}

/* ---- around them ---- */

static void add_loss(ns_loss *to, const ns_loss *from)
{
    to->weight += from->weight;
    to->loss += from->loss;
    to->ce += from->ce;
    to->kl += from->kl;
    to->top1 += from->top1;
    to->agree += from->agree;
}

static int micro_done(ns_trainer *t, ns_err *e)
{
    ns_loss loss = { 0 };
    for (int i = 0; i < t->crew.n; i++)
        add_loss(&loss, &t->crew.worker[i].loss);
    add_loss(&t->loss, &loss);
    for (int i = 0; i < t->crew.n && t->bad.code == 0; i++) {
        ns_worker *k = &t->crew.worker[i];
        if (k->bad >= 0)
            ns_diagnose_pack(t, k, part_of(t, k, k->bad), &t->bad);
    }
    if (!t->obj || !t->obj->micro_done)
        return 0;
    if (t->mask) {
        ns_mask_copy(&t->mask_grad, t->mask);
        ns_mask_zero_grad(&t->mask_grad);
        for (int i = 0; i < t->crew.n; i++)
            ns_mask_add_grad(&t->mask_grad, &t->crew.worker[i].mask);
    }
    return t->obj->micro_done(t->obj->ctx, t->step, t->micro, t->mask ? &t->mask_grad : NULL, &loss, e);
}

static void clear_loads(ns_trainer *t)
{
    const ns_arch *a = t->p->arch;
    for (int i = 0; i < t->crew.n; i++)
        for (int l = 0; l < a->n_layers; l++) {
            int64_t *load = ns_net_expert_load(t->crew.worker[i].net, l);
            if (load)
                memset(load, 0, (size_t)a->layers[l].width[NS_AXIS_EXPERTS] * sizeof *load);
        }
}

int ns_step_run(ns_trainer *t, ns_err *e)
{
    int rc = 0;
    t->loss = (ns_loss){ 0 };
    t->bad = t->sum_err = (ns_err){ 0 };
    if (read_packs(t, e) != 0)
        return -1;
    clear_loads(t);
    for (int b = 0; b < t->p->n_buckets; b++)
        atomic_store(&t->left[b], t->crew.n);
    for (int micro = 0; micro < t->o.micro_batches; micro++) {
        begin_micro(t, micro);
        t->mask = t->obj && t->obj->mask ? t->obj->mask(t->obj->ctx, t->step, t->micro) : NULL;
        ns_pool_run(t->crew.pool, t->crew.n, run_worker, t);
        if (micro_done(t, rc == 0 ? e : NULL) != 0) /* the others wait in the sums: go on to them */
            rc = -1;
    }
    if (t->sum_err.code) {
        *e = t->sum_err;
        return -1;
    }
    if (ns_comm_wait(t->comm, e) != 0 || ns_trainer_agree(t, rc, e) != 0)
        return -1;
    double sums[] = { t->loss.weight, t->loss.loss, t->loss.ce, t->loss.kl, t->loss.top1, t->loss.agree };
    if (ns_comm_sum_doubles(t->comm, sums, sizeof sums / sizeof *sums, e) != 0)
        return -1;
    t->loss = (ns_loss){ sums[0], sums[1], sums[2], sums[3], sums[4], sums[5] };
    return 0;
}
