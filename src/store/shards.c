/* A checkpoint folder: which shards there are, and one table over the tensors of all. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "store/safetensors.h"

#define INDEX_NAME "model.safetensors.index.json"
#define SUFFIX ".safetensors"

typedef struct shard {
    const char *name; /* in the store's arena */
    ns_map map;
    ns_st st;
} shard;

struct ns_store {
    const char *path;
    shard *shards;
    size_t n_shards;
    ns_tensor *tensors;
    size_t n_tensors, bytes;
    uint32_t *slots; /* open addressing, linear probing: tensor number + 1, 0 is free */
    size_t mask;
    ns_arena mem;
};

static int no_memory(const ns_store *s, ns_err *e)
{
    return ns_fail(e, NS_ENOMEM, "%s: out of memory", s->path ? s->path : "store");
}

static uint64_t hash(const char *s) /* FNV-1a */
{
    uint64_t h = 0xcbf29ce484222325;
    for (; *s; s++)
        h = (h ^ (uint8_t)*s) * 0x100000001b3;
    return h ^ h >> 32;
}

/* The slot that holds `name`, or the free one where it would go. */
static uint32_t *find_slot(const ns_store *s, const char *name)
{
    size_t i = hash(name) & s->mask;
    while (s->slots[i] && strcmp(s->tensors[s->slots[i] - 1].name, name) != 0)
        i = (i + 1) & s->mask;
    return &s->slots[i];
}

static bool has_suffix(const char *name)
{
    size_t n = strlen(name), k = strlen(SUFFIX);
    return n > k && strcmp(name + n - k, SUFFIX) == 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const shard *)a)->name, ((const shard *)b)->name);
}

/* Grows s->shards, a heap array while its length is unknown. */
static int add_shard(ns_store *s, const char *name, ns_err *e)
{
    if ((s->n_shards & (s->n_shards - 1)) == 0) {
        shard *p = realloc(s->shards, (s->n_shards ? 2 * s->n_shards : 1) * sizeof *p);
        if (!p)
            return no_memory(s, e);
        s->shards = p;
    }
    const char *copy = ns_arena_strdup(&s->mem, name);
    if (!copy)
        return no_memory(s, e);
    s->shards[s->n_shards++] = (shard){ .name = copy };
    return 0;
}

/* The distinct shards of a weight map. A shard is a plain file name: the index must not reach out of its folder. */
static int list_indexed(ns_store *s, json_t *weight_map, const char *index, ns_err *e)
{
    const char *tensor;
    json_t *v, *seen = json_object();
    int rc = seen ? 0 : no_memory(s, e);
    json_object_foreach(weight_map, tensor, v) {
        const char *name = json_string_value(v);
        if (rc != 0)
            break;
        if (!name || strlen(name) != json_string_length(v) || strchr(name, '/') || name[0] == '.' || !has_suffix(name))
            rc = ns_fail(e, NS_EFORMAT, "%s: tensor \"%.200s\": \"%.200s\" is not a shard's file name", index, tensor,
                         name ? name : "");
        else if (!json_object_get(seen, name))
            rc = json_object_set_new(seen, name, json_true()) == 0 ? add_shard(s, name, e) : no_memory(s, e);
    }
    json_decref(seen);
    return rc;
}

static int list_folder(ns_store *s, ns_err *e)
{
    DIR *d = opendir(s->path);
    if (!d)
        return ns_fail_errno(e, "%s", s->path);
    int rc = 0;
    for (struct dirent *ent; rc == 0 && (ent = readdir(d));)
        if (ent->d_name[0] != '.' && has_suffix(ent->d_name))
            rc = add_shard(s, ent->d_name, e);
    closedir(d);
    if (rc == 0 && s->n_shards == 0)
        rc = ns_fail(e, NS_EIO, "%s: holds no safetensors files", s->path);
    return rc;
}

static int read_index(const char *path, json_t **index, json_t **weight_map, ns_err *e)
{
    *index = ns_json_open(path, false, e);
    if (!*index)
        return -1;
    *weight_map = json_object_get(*index, "weight_map");
    return json_is_object(*weight_map) ? 0 : ns_fail(e, NS_EFORMAT, "%s: no \"weight_map\" object", path);
}

/* Fills s->shards with names. *index, if there is one, is the caller's to release; *weight_map is borrowed from it. */
static int list_shards(ns_store *s, json_t **index, json_t **weight_map, ns_err *e)
{
    ns_buf path = { 0 };
    int rc;
    if (!ns_dir_exists(s->path)) {
        const char *slash = strrchr(s->path, '/');
        rc = add_shard(s, slash ? slash + 1 : s->path, e);
    } else if (ns_file_exists(ns_path_join(&path, s->path, INDEX_NAME))) {
        rc = read_index(path.data, index, weight_map, e);
        if (rc == 0)
            rc = list_indexed(s, *weight_map, path.data, e);
    } else if (ns_file_exists(ns_path_join(&path, s->path, "model" SUFFIX))) {
        rc = add_shard(s, "model" SUFFIX, e);
    } else {
        rc = list_folder(s, e);
    }
    if (rc == 0 && s->n_shards > 1)
        qsort(s->shards, s->n_shards, sizeof *s->shards, by_name);
    ns_buf_release(&path);
    return rc;
}

static int load_shard(const ns_store *s, shard *sh, ns_store_load mode, ns_err *e)
{
    ns_buf joined = { 0 };
    const char *path = ns_dir_exists(s->path) ? ns_path_join(&joined, s->path, sh->name) : s->path;
    int rc = mode == NS_LOAD_HUGE ? ns_map_load(&sh->map, path, e) : ns_map_open(&sh->map, path, e);
    if (rc == 0)
        rc = ns_st_parse(sh->map.data, sh->map.size, path, &sh->st, e);
    ns_buf_release(&joined);
    return rc;
}

static int alloc_table(ns_store *s, ns_err *e)
{
    size_t n = 0, cap = 16;
    for (size_t i = 0; i < s->n_shards; i++)
        n += s->shards[i].st.n_tensors;
    if (n > UINT32_MAX / 4)
        return ns_fail(e, NS_EUNSUPPORTED, "%s: %zu tensors", s->path, n);
    while (cap < 2 * n)
        cap *= 2;
    s->tensors = ns_arena_array(&s->mem, n, sizeof *s->tensors);
    s->slots = ns_arena_array(&s->mem, cap, sizeof *s->slots);
    s->mask = cap - 1;
    return s->tensors && s->slots ? 0 : no_memory(s, e);
}

static int add_tensor(ns_store *s, const ns_tensor *t, int sh, ns_err *e)
{
    uint32_t *slot = find_slot(s, t->name);
    if (*slot)
        return ns_fail(e, NS_EFORMAT, "%s: tensor \"%.200s\" is in both %s and %s", s->path, t->name,
                       s->shards[s->tensors[*slot - 1].shard].name, s->shards[sh].name);
    s->tensors[s->n_tensors] = *t;
    s->tensors[s->n_tensors].shard = sh;
    *slot = (uint32_t)++s->n_tensors;
    s->bytes += t->bytes;
    return 0;
}

/* With a weight map, a tensor counts only in the shard the map gives for it. */
static int fill_table(ns_store *s, json_t *weight_map, ns_err *e)
{
    for (size_t i = 0; i < s->n_shards; i++) {
        const shard *sh = &s->shards[i];
        for (size_t j = 0; j < sh->st.n_tensors; j++) {
            const char *listed = json_string_value(json_object_get(weight_map, sh->st.tensors[j].name));
            if (weight_map && (!listed || strcmp(listed, sh->name) != 0))
                continue;
            if (add_tensor(s, &sh->st.tensors[j], (int)i, e) != 0)
                return -1;
        }
    }
    const char *name;
    json_t *v;
    json_object_foreach(weight_map, name, v)
        if (!*find_slot(s, name))
            return ns_fail(e, NS_EFORMAT, "%s/%s: tensor \"%.200s\" is not in %s", s->path, INDEX_NAME, name, json_string_value(v));
    return 0;
}

ns_store *ns_store_open(const char *path, ns_store_load mode, ns_err *e)
{
    json_t *index = NULL, *weight_map = NULL;
    int rc = -1;
    ns_store *s = calloc(1, sizeof *s);
    if (!s) {
        ns_fail(e, NS_ENOMEM, "%s: out of memory", path);
        return NULL;
    }
    s->path = ns_arena_strdup(&s->mem, path);
    if (!s->path) {
        no_memory(s, e);
        goto out;
    }
    if (list_shards(s, &index, &weight_map, e) != 0)
        goto out;
    for (size_t i = 0; i < s->n_shards; i++)
        if (load_shard(s, &s->shards[i], mode, e) != 0) {
            if (index)
                ns_err_wrap(e, "shard listed in %s", INDEX_NAME);
            goto out;
        }
    if (alloc_table(s, e) != 0)
        goto out;
    rc = fill_table(s, weight_map, e);
out:
    json_decref(index);
    if (rc != 0) {
        ns_store_close(s);
        return NULL;
    }
    return s;
}

void ns_store_close(ns_store *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n_shards; i++) {
        ns_st_release(&s->shards[i].st);
        ns_map_close(&s->shards[i].map);
    }
    free(s->shards);
    ns_arena_release(&s->mem);
    free(s);
}

const ns_tensor *ns_store_find(const ns_store *s, const char *name)
{
    uint32_t i = *find_slot(s, name);
    return i ? &s->tensors[i - 1] : NULL;
}

const ns_tensor *ns_store_get(const ns_store *s, const char *name, ns_err *e)
{
    const ns_tensor *t = ns_store_find(s, name);
    if (!t)
        ns_fail(e, NS_EFORMAT, "%s: no tensor \"%s\"", s->path, name);
    return t;
}

size_t ns_store_count(const ns_store *s)
{
    return s->n_tensors;
}

const ns_tensor *ns_store_at(const ns_store *s, size_t i)
{
    return i < s->n_tensors ? &s->tensors[i] : NULL;
}

size_t ns_store_bytes(const ns_store *s)
{
    return s->bytes;
}

int ns_store_n_shards(const ns_store *s)
{
    return (int)s->n_shards;
}

const char *ns_store_shard(const ns_store *s, int i)
{
    return i >= 0 && (size_t)i < s->n_shards ? s->shards[i].name : NULL;
}

uint8_t *ns_store_own(const ns_store *s, const uint8_t *p)
{
    for (size_t i = 0; i < s->n_shards; i++) {
        const ns_map *m = &s->shards[i].map;
        if (m->anonymous && p >= m->data && p < m->data + m->size)
            return (uint8_t *)(uintptr_t)p;
    }
    abort(); /* the caller asked of a mapped store */
}

void ns_store_advise(const ns_store *s, bool scattered)
{
    for (size_t i = 0; i < s->n_shards; i++)
        ns_map_advise(&s->shards[i].map, scattered);
}

const char *ns_store_path(const ns_store *s)
{
    return s->path;
}

const char *ns_store_meta(const ns_store *s, const char *key)
{
    const ns_st *st = s->n_shards ? &s->shards[0].st : NULL;
    for (size_t i = 0; st && i < st->n_meta; i++)
        if (strcmp(st->meta[i].key, key) == 0)
            return st->meta[i].value;
    return NULL;
}
