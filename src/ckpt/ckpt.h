/* An opened checkpoint folder: config, quantisation scheme, sizes, and every weight of the manifest found in the store.
 * Opening reads headers and per-tensor scales only; weight bytes stay in the mapping, in their stored form. */
#ifndef NS_CKPT_CKPT_H
#define NS_CKPT_CKPT_H
#include "nest/variants.h"
#include "store/safetensors.h"

typedef struct ns_ckpt_opts {
    const char *nest_path; /* instead of DIR/nest.json; NULL */
    bool huge_pages;       /* load into memory of the process, on huge pages and in panels (ns_mat), instead of mapping the files */
} ns_ckpt_opts;

/* One weight as stored. Vectors are matrices of one row. conv1d.weight [C,1,K] is the matrix [C,K]. */
typedef struct ns_bound {
    ns_mat mat;              /* mat.data == NULL: not in this model */
    const ns_tensor *tensor, *scale, *scale_2, *input_scale; /* what the slicer copies; NULL where absent */
    const ns_tensor *kv_scale; /* k_proj's k_scale, v_proj's v_scale: of an FP8 cache, not of the weight; NULL where absent */
    float kv_factor;         /* its value; 1 where absent */
    int expert_index;        /* >= 0: the tensors are fused over experts and mat is this expert's part; else -1 */
} ns_bound;

typedef struct ns_ckpt {
    char *dir;
    ns_arch *arch;
    ns_quant *quant;
    json_t *hf_quant; /* hf_quant_config.json; NULL where there is none */
    bool laid_out;    /* some weights are in panels: ns_mat says where the numbers of a weight are, its tensor no longer does */
    ns_variants variants;
    ns_store *store;
    /* private */
    ns_bound **layer_weights; /* [n_layers + 1]; row 0 is the model level */
    const ns_tensor **used;   /* the tensors that are bound, each once, sorted by address */
    size_t n_used;
    ns_arena arena;
} ns_ckpt;

/* `opts` may be NULL. Every weight must be there in the shape that config.json says and in a type that its quantisation
 * scheme allows; tensors that the architecture does not know are logged once and otherwise ignored. */
ns_ckpt *ns_ckpt_open(const char *dir, const ns_ckpt_opts *opts, ns_err *e);
void ns_ckpt_close(ns_ckpt *c);
/* Layer -1 and expert 0 where they do not apply. NULL when the model has no such weight. A tied head answers with the embedding. */
const ns_bound *ns_ckpt_weight(const ns_ckpt *c, int layer, ns_role r, int expert);
/* An ns_dtype_of_fn over a checkpoint (ctx is the ns_ckpt). A scalar that all experts share counts with the first. */
ns_stored ns_ckpt_dtype_of(void *ckpt, int layer, ns_role r, int expert);
/* ns_size_parse, then validation against the stored blocks. */
int ns_ckpt_size(const ns_ckpt *c, const char *text, ns_cut *out, char *name, size_t cap, ns_err *e);

/* A file of the folder that describes the checkpoint (config.json ..); NULL without error when it is not there. */
int ns_ckpt_json(const char *dir, const char *name, json_t **out, ns_err *e);

/* Reads every bound byte: an infinity or NaN in a weight, or a NaN block scale, is an error that names the tensor and, of
 * weights that are not laid out in panels, the position. `progress` (may be NULL) gets bytes. */
typedef void ns_ckpt_progress(void *ctx, size_t done, size_t total);
int ns_ckpt_verify(const ns_ckpt *c, ns_ckpt_progress *progress, void *ctx, ns_err *e);
#endif
