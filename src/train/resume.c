/* The run's state: one safetensors file, replaced by rename, so that whenever the run is ended one whole state is there. Flat arrays in
 * the order of ns_params; the moments of all ranks together, so that a run may go on with another number of ranks. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "store/safetensors.h"
#include "store/writer.h"
#include "train/trainer_impl.h"

enum { VERSION = 1, MAX_ARRAYS = 32 };

static const char *state_path(const char *dir, ns_buf *out)
{
    return ns_path_join(out, dir, "resume/state.safetensors");
}

bool ns_resume_exists(const char *dir)
{
    ns_buf path = { 0 };
    const bool yes = ns_file_exists(state_path(dir, &path));
    ns_buf_release(&path);
    return yes;
}

/* ---- what is in it ---- */

typedef struct array {
    const char *name;
    void *data;
    size_t bytes;
    ns_dtype dtype;
} array;

/* m and v: full arrays, or NULL to leave them out. Returns their number. */
static int list_arrays(const ns_trainer *t, ns_real *m, ns_real *v, array *out)
{
    const size_t bytes = t->p->count * sizeof *t->w;
    int n = 0;
    out[n++] = (array){ "parameters", t->w, bytes, NS_F32 };
    if (m)
        out[n++] = (array){ "first_moment", m, bytes, NS_F32 };
    if (v)
        out[n++] = (array){ "second_moment", v, bytes, NS_F32 };
    for (int i = 0; t->obj && i < t->obj->n_state && n < MAX_ARRAYS; i++)
        out[n++] = (array){ t->obj->state_name[i], t->obj->state_data[i], t->obj->state_bytes[i], NS_U8 };
    return n;
}

static const char *qad_of(const ns_trainer *t)
{
    return t->obj && t->obj->qad ? t->obj->qad->about : "";
}

static json_t *describe(const ns_trainer *t)
{
    char hash[24];
    snprintf(hash, sizeof hash, "%016" PRIx64, t->data_hash);
    return json_pack("{s:i, s:I, s:I, s:I, s:f, s:I, s:s, s:s, s:I, s:s}", "version", VERSION, "step", (json_int_t)t->step, "tokens",
                     (json_int_t)t->tokens, "position", (json_int_t)ns_data_position(t->data), "running", t->running, "log_bytes",
                     (json_int_t)(t->log ? ftell(t->log) : 0), "data", hash, "optimizer", t->o.optimizer, "seq_tokens",
                     (json_int_t)t->o.seq_tokens, "qad", qad_of(t));
}

/* ---- writing ---- */

static int write_state(const ns_trainer *t, ns_real *m, ns_real *v, ns_err *e)
{
    array a[MAX_ARRAYS];
    ns_tensor tensor[MAX_ARRAYS] = { 0 };
    ns_buf path = { 0 };
    json_t *about = describe(t);
    char *text = about ? json_dumps(about, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    const int n = list_arrays(t, m, v, a);
    for (int i = 0; i < n; i++)
        tensor[i] = (ns_tensor){ .name = a[i].name, .dtype = a[i].dtype, .n_dims = 1, .data = a[i].data, .bytes = a[i].bytes,
                                 .shape = { (int64_t)(a[i].bytes / (ns_dtype_bits(a[i].dtype) / 8)) } };
    int rc = text ? 0 : ns_fail(e, NS_ENOMEM, "%s: out of memory", t->dir);
    ns_path_join(&path, t->dir, "resume");
    if (rc == 0 && mkdir(path.data, 0777) != 0 && !ns_dir_exists(path.data))
        rc = ns_fail_errno(e, "%s", path.data);
    if (rc == 0)
        rc = ns_st_write_file(state_path(t->dir, &path), tensor, (size_t)n, &(ns_st_meta){ "state", text }, 1, e);
    ns_buf_release(&path);
    free(text);
    json_decref(about);
    return rc;
}

/* All ranks' shares of an array, on every rank. */
static ns_real *gather(ns_trainer *t, const ns_real *share, ns_err *e)
{
    const size_t lo = t->part[ns_comm_rank(t->comm)], hi = t->part[ns_comm_rank(t->comm) + 1];
    ns_real *all = ns_alloc_aligned(t->p->count * sizeof *all);
    int rc = ns_trainer_agree(t, all ? 0 : ns_fail(e, NS_ENOMEM, "gathering the optimiser's state: out of memory"), e);
    if (rc == 0) {
        memcpy(all + lo, share, (hi - lo) * sizeof *all);
        rc = ns_comm_gather(t->comm, all, t->part, e);
    }
    if (rc == 0)
        return all;
    free(all);
    return NULL;
}

int ns_resume_save(ns_trainer *t, ns_err *e)
{
    ns_real *m = NULL, *v = NULL;
    const bool alone = ns_comm_size(t->comm) == 1, frozen = ns_trainer_frozen(t);
    int rc = 0;
    if (!frozen && !alone)
        rc = (m = gather(t, t->m, e)) && (v = gather(t, t->v, e)) ? 0 : -1;
    if (rc == 0 && ns_comm_rank(t->comm) == 0)
        rc = write_state(t, alone ? t->m : m, alone ? t->v : v, e);
    free(m);
    free(v);
    return ns_trainer_agree(t, rc, e);
}

/* ---- reading ---- */

static int read_about(ns_trainer *t, const json_t *about, int64_t *log_bytes, ns_err *e)
{
    int64_t version, position, seq;
    const char *hash, *optimizer, *qad;
    char mine[24];
    snprintf(mine, sizeof mine, "%016" PRIx64, t->data_hash);
    if (ns_json_int(about, "version", 0, INT64_MAX, 0, &version, e) != 0 || ns_json_int(about, "step", 0, INT64_MAX, 0, &t->step, e) != 0 ||
        ns_json_int(about, "tokens", 0, INT64_MAX, 0, &t->tokens, e) != 0 ||
        ns_json_int(about, "position", 0, INT64_MAX, 0, &position, e) != 0 || ns_json_real(about, "running", 0, &t->running, e) != 0 ||
        ns_json_int(about, "log_bytes", 0, INT64_MAX, 0, log_bytes, e) != 0 || ns_json_str(about, "data", "", &hash, e) != 0 ||
        ns_json_str(about, "optimizer", "", &optimizer, e) != 0 || ns_json_int(about, "seq_tokens", 0, INT64_MAX, 0, &seq, e) != 0 ||
        ns_json_str(about, "qad", "", &qad, e) != 0)
        return -1;
    if (version != VERSION)
        return ns_fail(e, NS_EUNSUPPORTED, "written by another version of nestar");
    if (strcmp(hash, mine) != 0)
        return ns_fail(e, NS_EINVAL, "the training data (files, seed, held-out documents) are not those that the run began with");
    if (strcmp(optimizer, t->o.optimizer) != 0)
        return ns_fail(e, NS_EINVAL, "the run began with the optimizer %s, not %s", optimizer, t->o.optimizer);
    if (strcmp(qad, qad_of(t)) != 0)
        return ns_fail(e, NS_EINVAL, "the run began with weights quantised as \"%s\", not \"%s\"", qad, qad_of(t));
    if (seq != t->o.seq_tokens)
        return ns_fail(e, NS_EINVAL, "the run began with packs of %lld tokens, not %d", (long long)seq, t->o.seq_tokens);
    ns_data_seek(t->data, position);
    return 0;
}

static const ns_tensor *find(const ns_st *st, const char *name)
{
    for (size_t i = 0; i < st->n_tensors; i++)
        if (strcmp(st->tensors[i].name, name) == 0)
            return &st->tensors[i];
    return NULL;
}

/* bytes [from, from + n) of the tensor, all of which has `total` */
static int read_array(const ns_st *st, const char *name, size_t total, size_t from, void *to, size_t n, ns_err *e)
{
    const ns_tensor *x = find(st, name);
    if (!x || x->bytes != total)
        return ns_fail(e, NS_EINVAL, "\"%s\" has %zu bytes, expected %zu: the run is of another model or objective", name,
                       x ? x->bytes : 0, total);
    memcpy(to, x->data + from, n);
    return 0;
}

static int read_arrays(ns_trainer *t, const ns_st *st, ns_err *e)
{
    array a[MAX_ARRAYS];
    const int n = list_arrays(t, NULL, NULL, a);
    for (int i = 0; i < n; i++)
        if (read_array(st, a[i].name, a[i].bytes, 0, a[i].data, a[i].bytes, e) != 0)
            return -1;
    if (ns_trainer_frozen(t))
        return 0;
    const size_t lo = t->part[ns_comm_rank(t->comm)], share = t->part[ns_comm_rank(t->comm) + 1] - lo, width = sizeof *t->m;
    return read_array(st, "first_moment", t->p->count * width, lo * width, t->m, share * width, e) == 0 &&
           read_array(st, "second_moment", t->p->count * width, lo * width, t->v, share * width, e) == 0 ? 0 : -1;
}

/* The log goes back to where the state was written: the steps after it come again. */
static int cut_log(const ns_trainer *t, int64_t bytes, ns_err *e)
{
    ns_buf path = { 0 };
    ns_path_join(&path, t->dir, "log.jsonl");
    int rc = 0;
    if (ns_comm_rank(t->comm) == 0 && ns_file_exists(path.data) && truncate(path.data, (off_t)bytes) != 0)
        rc = ns_fail_errno(e, "%s", path.data);
    ns_buf_release(&path);
    return rc;
}

static int read_state(ns_trainer *t, const char *path, ns_err *e)
{
    ns_map map = { 0 };
    ns_st st = { 0 };
    json_t *about = NULL;
    const char *text = NULL;
    int64_t log_bytes = 0;
    int rc = ns_map_open(&map, path, e);
    if (rc == 0)
        rc = ns_st_parse(map.data, map.size, path, &st, e);
    for (size_t i = 0; i < st.n_meta; i++)
        text = strcmp(st.meta[i].key, "state") == 0 ? st.meta[i].value : text;
    if (rc == 0 && !text)
        rc = ns_fail(e, NS_EFORMAT, "%s: not the state of a training run", path);
    if (rc == 0)
        rc = (about = ns_json_parse(text, strlen(text), false, path, e)) ? 0 : -1;
    if (rc == 0 && (read_about(t, about, &log_bytes, e) != 0 || read_arrays(t, &st, e) != 0))
        rc = ns_err_wrap(e, "%s", path);
    if (rc == 0)
        rc = cut_log(t, log_bytes, e);
    json_decref(about);
    ns_st_release(&st);
    ns_map_close(&map);
    return rc;
}

int ns_resume_load(ns_trainer *t, bool *found, ns_err *e)
{
    ns_buf path = { 0 };
    *found = ns_resume_exists(t->dir);
    int rc = *found ? read_state(t, state_path(t->dir, &path), e) : 0;
    ns_buf_release(&path);
    return ns_trainer_agree(t, rc, e);
}
