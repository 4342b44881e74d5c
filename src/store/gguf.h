/* GGUF version 3, the file of llama.cpp: typed keys and values, tensor descriptions, then the tensors' bytes, each at a multiple of
 * the alignment. Extents are given innermost first, the reverse of safetensors. Source: ggml's docs/gguf.md. Little-endian hosts only. */
#ifndef NS_STORE_GGUF_H
#define NS_STORE_GGUF_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/mem.h"

/* Tensor types that are read and written: id, name, elements of a block, bytes of a block. NVFP4: four blocks of 16 to a unit of 64:
 * four unsigned E4M3 scales, then per block eight bytes whose low nibbles are elements 0..7 and high nibbles 8..15. */
#define NS_GGUF_TYPES(X)      \
    X(F32, 0, "F32", 1, 4)    \
    X(F16, 1, "F16", 1, 2)    \
    X(Q8_0, 8, "Q8_0", 32, 34)\
    X(BF16, 30, "BF16", 1, 2) \
    X(NVFP4, 40, "NVFP4", 64, 36)

typedef enum ns_gguf_type {
#define X(id, code, name, block, bytes) NS_GGUF_##id = code,
    NS_GGUF_TYPES(X)
#undef X
} ns_gguf_type;

const char *ns_gguf_type_name(ns_gguf_type t); /* NULL when unknown */
int ns_gguf_type_block(ns_gguf_type t);
/* Bytes of n elements of one row; n must be a multiple of the block. */
size_t ns_gguf_row_bytes(ns_gguf_type t, size_t n);

/* ---- reading ---- */

enum { NS_GGUF_MAX_DIMS = 4 };

/* Types of values, by the file's own numbers. */
typedef enum ns_gguf_value {
    NS_GGUF_U8, NS_GGUF_I8, NS_GGUF_U16, NS_GGUF_I16, NS_GGUF_U32, NS_GGUF_I32, NS_GGUF_VF32, NS_GGUF_BOOL, NS_GGUF_STRING, NS_GGUF_ARRAY,
    NS_GGUF_U64, NS_GGUF_I64, NS_GGUF_F64, NS_GGUF_VALUE_COUNT
} ns_gguf_value;

typedef struct ns_gguf_kv {
    const char *key;
    ns_gguf_value type, item; /* item: of an array's entries (never an array) */
    uint64_t n;               /* entries of an array; 1 otherwise */
    const uint8_t *data;      /* in the file; strings are a u64 length and the bytes */
} ns_gguf_kv;

typedef struct ns_gguf_tensor {
    const char *name;
    ns_gguf_type type;
    int n_dims;
    uint64_t ne[NS_GGUF_MAX_DIMS]; /* innermost first; 1 beyond n_dims */
    const uint8_t *data;
    size_t bytes;
} ns_gguf_tensor;

typedef struct ns_gguf {
    ns_gguf_kv *kv;
    size_t n_kv;
    ns_gguf_tensor *tensor;
    size_t n_tensors;
    ns_arena mem;
} ns_gguf;

/* p[0..n) is the whole file and must outlive `out`; everything is checked before anything is handed out. `what` names it in errors.
 * Tensor types other than those above, nested arrays, overlapping tensors, and keys or tensors of one name are refused by name. */
int ns_gguf_parse(const uint8_t *p, size_t n, const char *what, ns_gguf *out, ns_err *e);
void ns_gguf_release(ns_gguf *g);
const ns_gguf_kv *ns_gguf_find(const ns_gguf *g, const char *key);            /* NULL when absent */
const ns_gguf_tensor *ns_gguf_find_tensor(const ns_gguf *g, const char *name); /* NULL when absent */
/* A number, whatever its type, or entry i of an array of numbers (0 for a single value). Absent, or of another kind: an error that names
 * the key. */
int ns_gguf_int(const ns_gguf *g, const char *key, uint64_t i, int64_t *out, ns_err *e);
int ns_gguf_real(const ns_gguf *g, const char *key, double *out, ns_err *e);
/* A string or entry i of an array of strings: not NUL-terminated, in the file. Going through all entries in order takes linear time
 * with `cursor` (start it at {0}). */
typedef struct ns_gguf_cursor {
    uint64_t i;
    const uint8_t *at;
} ns_gguf_cursor;
int ns_gguf_string(const ns_gguf *g, const char *key, uint64_t i, ns_gguf_cursor *cursor, const char **s, size_t *len, ns_err *e);

/* ---- writing ---- */

typedef struct ns_gguf_writer ns_gguf_writer;

/* Keys first, then declarations, then the bytes of each tensor in declared order, in pieces of any size. The file appears when complete. */
ns_gguf_writer *ns_gguf_writer_new(const char *path, ns_err *e);
void ns_gguf_writer_free(ns_gguf_writer *w); /* without finish: removes what was written */
void ns_gguf_put_u32(ns_gguf_writer *w, const char *key, uint32_t v);
void ns_gguf_put_f32(ns_gguf_writer *w, const char *key, float v);
void ns_gguf_put_bool(ns_gguf_writer *w, const char *key, bool v);
void ns_gguf_put_str(ns_gguf_writer *w, const char *key, const char *s, size_t n);
void ns_gguf_put_i32s(ns_gguf_writer *w, const char *key, const int32_t *v, size_t n);
/* Starts an array of n strings; exactly n ns_gguf_add_str follow. */
void ns_gguf_put_strs(ns_gguf_writer *w, const char *key, size_t n);
void ns_gguf_add_str(ns_gguf_writer *w, const char *s, size_t n);
int ns_gguf_declare(ns_gguf_writer *w, const char *name, ns_gguf_type t, int n_dims, const uint64_t *ne, ns_err *e);
int ns_gguf_append(ns_gguf_writer *w, const void *p, size_t n, ns_err *e); /* moves on to the next tensor by itself */
int ns_gguf_finish(ns_gguf_writer *w, ns_err *e);
size_t ns_gguf_total(const ns_gguf_writer *w); /* bytes of the tensors declared so far */
#endif
