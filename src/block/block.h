/* The mixers, differentiable: forward and backward of each stand side by side in one file. F32 (or double, see real.h), one thread.
 *
 * A batch is packed sequences: nothing (attention, convolution, state) crosses from one sequence to the next.
 * Gradients: parameters' accumulate into ctx->g, inputs' are overwritten, masks' accumulate. Formulas: docs/MODEL.md and, for
 * the chunked state space scan, its backward recurrences in ssd.h.
 * `x` is the mixer's input after norm, [n_tokens, H] with row length H (the full hidden size); columns from hidden live on are not read.
 * `y` likewise; columns from hidden live on are not written. */
#ifndef NS_BLOCK_BLOCK_H
#define NS_BLOCK_BLOCK_H
#include "block/blas.h"
#include "block/mask.h"
#include "block/params.h"

typedef struct ns_carry ns_carry; /* carry.h */

typedef struct ns_seqs {
    int n_tokens, n_seqs;
    const int *ids;       /* [n_tokens] */
    const int *start;     /* [n_seqs + 1]: sequence s holds tokens start[s] .. start[s+1] - 1; at least one each unless they are left */
    ns_carry *leave;      /* forward: these are beginnings, what they leave goes here; NULL */
    const ns_carry *from; /* the sequences go on from what their beginnings left; NULL. Not both */
} ns_seqs;

/* What the parts of the network show to whoever watches (importance, calibration). Rows are tokens. */
typedef enum ns_tap_kind {
    NS_TAP_NORM,      /* input of the mixer after norm [T, H]; layer n_layers: after the final norm */
    NS_TAP_FFN,       /* FFN before ReLU^2: [T, width]; expert >= 0 with its tokens only, -1 the shared or dense FFN */
    NS_TAP_MAMBA_X,   /* x part of in_proj's output, before the convolution [T, inner] */
    NS_TAP_MAMBA_BC,  /* B of all groups, then C, after convolution and SiLU [rows of a chunk, 2 * groups * state]: a call for every chunk */
    NS_TAP_ATTENTION, /* attention output before o_proj [T, heads * head_dim] */
    NS_TAP_EXPERT_OUT /* an expert's output before its gate weight [T_e, io]; `gate` has the weights */
} ns_tap_kind;

typedef struct ns_tap {
    ns_tap_kind kind;
    int layer, expert;
    int rows, cols;
    const ns_real *x;    /* row length ld */
    size_t ld;
    const ns_real *gate; /* [rows], NS_TAP_EXPERT_OUT only */
} ns_tap;
typedef void ns_tap_fn(void *ctx, const ns_tap *t);

typedef struct ns_block_ctx {
    const ns_arch *arch;
    const ns_params *params;
    const ns_blas *blas;
    int layer;
    const ns_seqs *seqs;
    const ns_real *w;      /* flat parameters */
    ns_real *g;            /* flat gradients; NULL: only the inputs' (and masks') gradients are computed */
    ns_layer_mask *mask;   /* NULL: none */
    int hidden;            /* live columns of x and y */
    ns_real *scratch;      /* of ns_*_scratch() elements, contents undefined */
    int64_t *expert_load;  /* [E] MoE forward adds the tokens of each expert; may be NULL */
    ns_tap_fn *tap;        /* forward only; may be NULL */
    void *tap_ctx;
} ns_block_ctx;

/* Each mixer: elements that forward leaves in `saved` for backward, elements of scratch that both need, for at most n_tokens tokens
 * in at most n_seqs sequences; what they leave (carry.h); forward; backward. Backward may read x and saved only; dx is overwritten. */
typedef struct ns_mixer {
    size_t (*saved)(const ns_arch *a, int layer, int n_tokens, int n_seqs);
    size_t (*scratch)(const ns_arch *a, int layer, int n_tokens, int n_seqs);
    size_t (*carried)(const ns_arch *a, int layer, int n_tokens, int n_seqs); /* elements that beginnings leave; NULL: none */
    void (*forward)(const ns_block_ctx *c, const ns_real *x, ns_real *y, ns_real *saved);
    void (*backward)(const ns_block_ctx *c, const ns_real *x, const ns_real *dy, const ns_real *saved, ns_real *dx);
} ns_mixer;

extern const ns_mixer ns_mixer_mamba;     /* mamba_block.c */
extern const ns_mixer ns_mixer_attention; /* attention_block.c */
extern const ns_mixer ns_mixer_moe;       /* moe_block.c */
extern const ns_mixer ns_mixer_mlp;       /* mlp_block.c */
const ns_mixer *ns_mixer_of(char kind);
#endif
