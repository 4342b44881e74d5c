/* Element types: the published family's, and how each is stored. One X-macro list; everything else derives from it. */
#ifndef NS_TENSOR_DTYPE_H
#define NS_TENSOR_DTYPE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*      id     safetensors name  bits per element  block (elements that share a scale along the input dimension) */
#define NS_DTYPES(X)              \
    X(F32, "F32", 32, 1)          \
    X(F16, "F16", 16, 1)          \
    X(BF16, "BF16", 16, 1)        \
    X(F8_E4M3, "F8_E4M3", 8, 1)   \
    X(NVFP4, "NVFP4", 4, 16)      \
    X(U8, "U8", 8, 1)             \
    X(I8, "I8", 8, 1)             \
    X(I16, "I16", 16, 1)          \
    X(I32, "I32", 32, 1)          \
    X(I64, "I64", 64, 1)          \
    X(U16, "U16", 16, 1)          \
    X(U32, "U32", 32, 1)          \
    X(U64, "U64", 64, 1)          \
    X(F64, "F64", 64, 1)          \
    X(BOOL, "BOOL", 8, 1)         \
    X(F8_E5M2, "F8_E5M2", 8, 1)   \
    X(F8_E8M0, "F8_E8M0", 8, 1)

typedef enum ns_dtype {
#define X(id, name, bits, block) NS_##id,
    NS_DTYPES(X)
#undef X
    NS_DTYPE_COUNT
} ns_dtype;

const char *ns_dtype_name(ns_dtype t);
int ns_dtype_find(const char *name, size_t len); /* the safetensors name; -1 when unknown */
unsigned ns_dtype_bits(ns_dtype t);
/* Elements of a row that cannot be separated: a prefix width must be a multiple of it. */
unsigned ns_dtype_block(ns_dtype t);

/* A matrix whose columns lie in panels: panel p is columns end[p - 1] (0 for the first) to end[p] - 1 of all rows, row after row, and the
 * panels follow each other; so do those of the block scales. A prefix of the columns that ends with a panel is then read without gaps. */
enum { NS_MAX_PANELS = 4 };
typedef struct ns_panels {
    int n, end[NS_MAX_PANELS]; /* multiples of every dtype's block, but for the last, which is the number of columns */
} ns_panels;

/* A matrix in its stored form, or a view of one: W [rows, cols], y = W x. Never owns memory.
 * A prefix view is the same pointers with fewer rows or cols.
 * NVFP4 (ModelOpt): byte j of a row holds elements 2j (low nibble) and 2j+1 (high), `scale` holds one E4M3 byte per 16
 * columns, value = e2m1 * e4m3(scale) * global_scale. F8_E4M3: value = e4m3 * global_scale. Others: global_scale is 1. */
typedef struct ns_mat {
    ns_dtype dtype;      /* F32, F16, BF16, F8_E4M3 or NVFP4 */
    int rows, cols;
    const uint8_t *data; /* element (0,0); any alignment */
    size_t stride;       /* bytes from one row to the next */
    const uint8_t *scale; /* NVFP4 only: block scale of (0,0) */
    size_t scale_stride;
    float global_scale;
    const ns_panels *panels; /* NULL: whole rows. Else the strides say nothing: views, one panel each, have their own */
} ns_mat;

/* Bytes that `cols` stored elements of one row take, scales not counted. */
size_t ns_dtype_row_bytes(ns_dtype t, size_t cols);
/* Bytes of an [rows, cols] matrix with its block scales (tensor-wide scalars not counted). */
size_t ns_mat_bytes(const ns_mat *m);
/* Columns from `col` on that lie together in a row: to the end of the panel, or of the row. */
int ns_mat_run(const ns_mat *m, int col);
/* The sub-matrix from (row, col) on: `col` must be a multiple of the dtype's block (of 2 for the nibbles), and cols <= ns_mat_run(m, col). */
ns_mat ns_mat_view(const ns_mat *m, int row, int rows, int col, int cols);
#endif
