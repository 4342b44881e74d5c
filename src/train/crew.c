/* Workers: each has its own networks, gradients and mask; a pool of threads runs them. Packs are dealt by number, and sums go over
 * workers in their order, so the result does not depend on which thread was quick. */
#include <stdlib.h>
#include <string.h>

#include "train/trainer_impl.h"

static int init_worker(ns_worker *k, const ns_crew *c, const ns_crew_opts *o, ns_err *e)
{
    ns_net_opts no = { .max_tokens = o->seq_tokens, .max_seqs = NS_PACK_SEQS(o->seq_tokens), .recompute = o->recompute,
                       .forward_only = o->forward_only };
    if (!(k->net = ns_net_new(c->p, c->blas, &no, e)))
        return -1;
    no.forward_only = true;
    if (o->teacher && !(k->teacher = ns_net_new(c->p, c->blas, &no, e)))
        return -1;
    if (o->gradients && !(k->g = ns_alloc_aligned(c->p->count * sizeof *k->g)))
        return ns_fail(e, NS_ENOMEM, "gradients of %zu parameters: out of memory", c->p->count);
    if (o->split && ns_split_init(&k->split, o->seq_tokens, e) != 0)
        return -1;
    return ns_mask_init(c->p->arch, &k->mask, e);
}

int ns_crew_init(ns_crew *c, const ns_params *p, const ns_crew_opts *o, ns_err *e)
{
    *c = (ns_crew){ .p = p };
    if (!(c->blas = ns_blas_open(e)) || !(c->pool = ns_pool_new(o->workers, e)))
        return -1;
    c->n = ns_pool_threads(c->pool);
    c->n = o->packs && o->packs < c->n ? o->packs : c->n;
    const int n_packs = (o->packs ? o->packs : c->n) * (o->micro_batches ? o->micro_batches : 1);
    c->worker = calloc((size_t)c->n, sizeof *c->worker);
    c->pack = calloc((size_t)n_packs, sizeof *c->pack);
    if (!c->worker || !c->pack)
        return ns_fail(e, NS_ENOMEM, "workers: out of memory");
    for (int i = 0; i < c->n; i++)
        if (init_worker(&c->worker[i], c, o, e) != 0)
            return -1;
    for (; c->n_packs < n_packs; c->n_packs++)
        if (ns_pack_init(&c->pack[c->n_packs], o->seq_tokens, e) != 0)
            return -1;
    return ns_pack_init(&c->other, o->seq_tokens, e);
}

void ns_crew_release(ns_crew *c)
{
    for (int i = 0; c->worker && i < c->n; i++) {
        ns_net_free(c->worker[i].net);
        ns_net_free(c->worker[i].teacher);
        free(c->worker[i].g);
        ns_mask_release(&c->worker[i].mask);
        ns_split_release(&c->worker[i].split);
    }
    for (int i = 0; i < c->n_packs; i++)
        ns_pack_release(&c->pack[i]);
    ns_pack_release(&c->other);
    free(c->worker);
    free(c->pack);
    ns_pool_free(c->pool);
    ns_blas_close(c->blas);
    *c = (ns_crew){ 0 };
}

/* ---- a change of size inside documents ---- */

int ns_crew_reserve(ns_crew *c, int n_tokens, int n_seqs, ns_err *e)
{
    for (int i = 0; i < c->n; i++)
        if (ns_carry_reserve(&c->worker[i].split.carry, c->p->arch, n_tokens, n_seqs, e) != 0)
            return -1;
    return 0;
}

const ns_pack *ns_worker_begin(ns_worker *k, const ns_real *w, ns_net_mask *before, const ns_pack *pack, ns_rng *rng)
{
    ns_split_make(&k->split, pack, rng);
    ns_net_forward(k->teacher, w, before, &k->split.head.seqs); /* the teacher's memory is free until its own forward */
    return &k->split.tail;
}

/* ---- evaluation ---- */

typedef struct eval {
    ns_crew *c;
    const ns_real *w, *teacher;
    bool masked;
    ns_net_mask *before;
} eval;

static void eval_pack(void *ctx, int i, int thread)
{
    eval *v = ctx;
    ns_worker *k = &v->c->worker[i];
    const ns_pack *whole = &v->c->pack[i], *p = v->before ? ns_worker_begin(k, v->w, v->before, whole, NULL) : whole;
    ns_net_mask *mask = v->masked ? &k->mask : NULL;
    ns_loss_spec spec = { .target = p->target, .weight = p->weight, .ce = 1, .temperature = 1 };
    (void)thread;
    ns_net_forward(k->net, v->w, mask, &p->seqs);
    if (v->teacher) {
        ns_net_forward(k->teacher, v->teacher, NULL, &whole->seqs);
        spec.kd = 1;
        spec.teacher_row = v->before ? k->split.row : NULL;
        spec.teacher = ns_net_hidden(k->teacher);
        spec.teacher_w = v->teacher;
    }
    ns_net_loss(k->net, v->w, mask, &spec, NULL, NULL, &k->loss);
}

/* Held-out packs are dealt to ranks in turn. Returns how many this rank got. */
static int next_packs(ns_crew *c, ns_data *data, int64_t limit, int64_t *position, int *turn, const ns_comm *comm)
{
    int n = 0;
    while (n < c->n && (limit == 0 || *position < limit)) {
        const bool mine = *turn == ns_comm_rank(comm);
        if (!ns_data_eval(data, position, mine ? &c->pack[n] : &c->other))
            break;
        n += mine;
        *turn = (*turn + 1) % ns_comm_size(comm);
    }
    return n;
}

/* Room for any of the packs at hand. */
static int reserve_packs(ns_crew *c, int n, ns_err *e)
{
    int n_seqs = 0;
    for (int i = 0; i < n; i++)
        n_seqs = c->pack[i].seqs.n_seqs > n_seqs ? c->pack[i].seqs.n_seqs : n_seqs;
    return ns_crew_reserve(c, c->other.max_tokens, n_seqs, e);
}

int ns_crew_eval(ns_crew *c, const ns_real *w, const ns_real *teacher, const ns_net_mask *mask, ns_net_mask *before, ns_data *data,
                 int64_t limit, ns_comm *comm, ns_loss *out, ns_err *e)
{
    eval v = { c, w, teacher, mask != NULL, before };
    int64_t position = 0;
    int turn = 0;
    bool failed = false;
    for (int i = 0; i < c->n; i++) {
        c->worker[i].loss = (ns_loss){ 0 };
        if (mask)
            ns_mask_copy(&c->worker[i].mask, mask);
    }
    for (int n; !failed && (n = next_packs(c, data, limit, &position, &turn, comm)) > 0;)
        if (!(failed = before && reserve_packs(c, n, e) != 0))
            ns_pool_run(c->pool, n, eval_pack, &v);
    if (ns_comm_any(comm, &failed, e) != 0 || failed)
        return e->code ? -1 : ns_fail(e, NS_ECANCELLED, "evaluation: another rank failed");
    *out = (ns_loss){ 0 };
    for (int i = 0; i < c->n; i++) {
        const ns_loss *l = &c->worker[i].loss;
        out->weight += l->weight;
        out->loss += l->loss;
        out->ce += l->ce;
        out->kl += l->kl;
        out->top1 += l->top1;
        out->agree += l->agree;
    }
    double sums[] = { out->weight, out->loss, out->ce, out->kl, out->top1, out->agree };
    if (ns_comm_sum_doubles(comm, sums, sizeof sums / sizeof *sums, e) != 0)
        return -1;
    *out = (ns_loss){ sums[0], sums[1], sums[2], sums[3], sums[4], sums[5] };
    return out->weight > 0 ? 0 : ns_fail(e, NS_EINVAL, "evaluation: no document is held out");
}

int ns_train_eval(const ns_params *p, const ns_real *w, const ns_real *teacher, ns_net_mask *mask, ns_net_mask *before, ns_data *data,
                  const ns_train_opts *o, ns_comm *comm, ns_loss *out, ns_err *e)
{
    ns_crew c;
    int rc = ns_crew_init(&c, p, &(ns_crew_opts){ .seq_tokens = o->seq_tokens, .workers = o->workers, .forward_only = true,
                                                  .teacher = teacher != NULL, .split = before != NULL }, e);
    bool failed = rc != 0;
    if (ns_comm_any(comm, &failed, e) != 0 || (failed && rc == 0))
        rc = ns_fail(e, NS_ECANCELLED, "evaluation: another rank failed");
    if (rc == 0)
        rc = ns_crew_eval(&c, w, teacher, mask, before, data, o->eval_docs, comm, out, e);
    ns_crew_release(&c);
    return rc;
}
