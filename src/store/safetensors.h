/* Reading safetensors: one file from memory, and a checkpoint folder of one or many shards.
 * Layout of a file: u64 little-endian header length, the JSON header, then the tensors' bytes without holes or overlaps.
 * Everything is validated before anything is handed out, so `data[0..bytes)` of every tensor may be read; its alignment is
 * whatever the file gives. Little-endian hosts only. Tensors' names, shapes and data belong to the ns_st or ns_store. */
#ifndef NS_STORE_SAFETENSORS_H
#define NS_STORE_SAFETENSORS_H
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"
#include "tensor/dtype.h"

enum { NS_MAX_DIMS = 8 };

typedef struct ns_tensor {
    const char *name;
    ns_dtype dtype; /* as stored; an NVFP4 matrix appears as its U8, F8_E4M3 and F32 parts */
    int n_dims;     /* 0 is a scalar */
    int64_t shape[NS_MAX_DIMS];
    const uint8_t *data;
    size_t bytes;
    int shard; /* index for ns_store_shard; 0 in a single file */
} ns_tensor;

/* A string pair of a file's __metadata__. */
typedef struct ns_st_meta {
    const char *key, *value;
} ns_st_meta;

typedef struct ns_st {
    ns_tensor *tensors; /* in file order */
    size_t n_tensors;
    ns_st_meta *meta;
    size_t n_meta;
    ns_arena mem; /* names and the two arrays */
} ns_st;

/* p[0..n) is the whole file and must outlive `out`; `what` names it in errors. On failure `out` is empty. */
int ns_st_parse(const uint8_t *p, size_t n, const char *what, ns_st *out, ns_err *e);
void ns_st_release(ns_st *st);

/* Elements times width; -1 on a negative extent or overflow. dtype must not be NVFP4. */
int ns_tensor_size(ns_dtype dtype, int n_dims, const int64_t *shape, size_t *bytes);
void ns_tensor_print(const ns_tensor *t, ns_buf *out); /* appends "BF16 [10304, 2688]" */

typedef enum ns_store_load {
    NS_LOAD_MMAP, /* maps the shards: instant, shared, paged in on use */
    NS_LOAD_HUGE, /* reads them into memory of the process, backed by huge pages where the system grants them */
} ns_store_load;

typedef struct ns_store ns_store;

/* `path` is a folder with model.safetensors.index.json, or model.safetensors, or any *.safetensors (taken in sorted
 * order), or one safetensors file. With an index, the store holds exactly the tensors the index lists, each of which must
 * be in the shard it names. Without one a name may occur only once. NULL on failure. */
ns_store *ns_store_open(const char *path, ns_store_load mode, ns_err *e);
void ns_store_close(ns_store *s);

const ns_tensor *ns_store_find(const ns_store *s, const char *name); /* NULL when absent */
const ns_tensor *ns_store_get(const ns_store *s, const char *name, ns_err *e); /* absent is an error */
size_t ns_store_count(const ns_store *s);
const ns_tensor *ns_store_at(const ns_store *s, size_t i); /* shard by shard, in file order */
size_t ns_store_bytes(const ns_store *s);                  /* of all tensors */
int ns_store_n_shards(const ns_store *s);
const char *ns_store_shard(const ns_store *s, int i); /* file name without the folder */
/* The same address, writable: p is inside a tensor of a store that was loaded with NS_LOAD_HUGE, and the copy is the store's own. */
uint8_t *ns_store_own(const ns_store *s, const uint8_t *p);
/* What comes next: scattered small reads (no reading ahead), or ordinary ones. */
void ns_store_advise(const ns_store *s, bool scattered);
const char *ns_store_path(const ns_store *s);         /* as opened */
/* A value of the first shard's __metadata__, or NULL. */
const char *ns_store_meta(const ns_store *s, const char *key);
#endif
