/* A cut: how wide each axis is in each layer, and which layers stay. Plain data. The full model is its widest cut.
 * Everything that runs, stores, counts or writes a size takes a cut; there is no other notion of a smaller model. */
#ifndef NS_NEST_CUT_H
#define NS_NEST_CUT_H
#include "arch/manifest.h"
#include "tensor/dtype.h"

typedef struct ns_cut_layer {
    bool keep;
    int width[NS_AXIS_COUNT]; /* as ns_layer.width; HIDDEN is the same in every layer */
} ns_cut_layer;

typedef struct ns_cut {
    int n_layers;
    ns_cut_layer *layer; /* [n_layers] of the full model, dropped ones included; owned */
} ns_cut;

int ns_cut_full(const ns_arch *a, ns_cut *out, ns_err *e); /* everything */
int ns_cut_copy(const ns_cut *c, ns_cut *out, ns_err *e);
void ns_cut_release(ns_cut *c);
bool ns_cut_equal(const ns_cut *a, const ns_cut *b);
int ns_cut_hidden(const ns_cut *c);
/* Sets an axis in every layer that has it; false when none has. The cut is not validated. */
bool ns_cut_set(const ns_arch *a, ns_cut *c, ns_axis axis, int width);
/* Legal widths of the axis are multiples of this: the groups that it lives in. */
int ns_cut_step(const ns_arch *a, ns_axis axis);
/* True where the recurrent state and KV cache of the two have the same shape in every layer kept by `to`, and `from` keeps
 * those layers too: then a cache written by `from` can be continued by `to` as it is. */
bool ns_cut_same_state(const ns_arch *a, const ns_cut *from, const ns_cut *to);

/* How a weight is stored, as the file at hand says; NS_F32 and 0 stand in where nothing is known. `scalar_bytes` are the bytes of
 * the weight's tensor-wide companions (weight_scale_2, input_scale, k_scale ..): no cut changes them. */
typedef struct ns_stored {
    ns_dtype dtype;
    int scalar_bytes;
} ns_stored;
typedef ns_stored ns_dtype_of_fn(void *ctx, int layer, ns_role r, int expert);

/* Refuses a cut that the architecture or the stored blocks cannot serve: widths outside 1..full, heads not divisible by the
 * groups, fewer experts than the router picks, a width that splits a quantisation block of any weight (the error names the axis,
 * the layer, the weight, and the nearest legal widths). dtype_of may be NULL (no block rule). */
int ns_cut_validate(const ns_arch *a, const ns_cut *c, ns_dtype_of_fn *dtype_of, void *ctx, ns_err *e);

/* The parts of a full dimension that a cut keeps, in order, neighbours merged. */
typedef struct ns_seg {
    int off, len;
} ns_seg;
typedef struct ns_segs {
    int n, total; /* segments; sum of their lengths */
    ns_seg *seg;  /* in the arena that was given */
} ns_segs;
/* Returns -1 only when memory is out. Layer -1 for model-level weights. */
int ns_cut_segments(const ns_arch *a, const ns_cut *c, int layer, ns_dim_id id, ns_arena *arena, ns_segs *out);
/* Total live size without the list. */
int ns_cut_dim(const ns_arch *a, const ns_cut *c, int layer, ns_dim_id id);
/* Is expert e (of the full model) kept in this layer? With routing groups, the first experts of each group are. */
bool ns_cut_has_expert(const ns_arch *a, const ns_cut *c, int layer, int e);

/* What a cut costs. Bytes need the dtypes; a sliced file's tensor bytes equal `weight_bytes`. */
typedef struct ns_cost {
    int64_t params_total;   /* every parameter of the slice, biases and corrections included */
    int64_t params_active;  /* read for one token: top-k experts, both embeddings (the published convention) */
    int64_t weight_bytes;   /* stored bytes with block and tensor scales */
    int64_t weight_bytes_by_dtype[NS_DTYPE_COUNT];
    int64_t active_bytes;   /* weight bytes read to decode one token: one embedding row, top-k experts, the head */
    int64_t kv_bytes_per_token, state_bytes; /* in the engine's own layout, F32, per sequence */
    double flops_per_token; /* 2 x multiply-accumulates of decode at position 0 */
} ns_cost;
int ns_cut_cost(const ns_arch *a, const ns_cut *c, ns_dtype_of_fn *dtype_of, void *ctx, ns_cost *out, ns_err *e);
/* Counts keys and values as stored in `kv` (NS_F32, NS_F8_E4M3) where ns_cut_cost counted F32. */
void ns_cost_set_kv(ns_cost *c, ns_dtype kv);

/* config.json of the sliced model: the parent's with the dims, layers and (where widths differ between layers) block_configs of
 * the cut. Everything else is kept as it stands, quantization_config included: its module names still count the parent's layers. */
json_t *ns_cut_config(const ns_arch *a, const ns_cut *c, ns_err *e);
#endif
