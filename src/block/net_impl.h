/* A net's insides, shared by net.c and net_loss.c. */
#ifndef NS_BLOCK_NET_IMPL_H
#define NS_BLOCK_NET_IMPL_H
#include "block/net.h"
#include "block/space.h"

/* What a layer leaves for backward. Where less is kept (recompute, forward only) layers share parts. */
typedef struct ns_net_layer {
    ns_real *stream; /* [T, H] before the layer */
    ns_real *x;      /* [T, H] after the norm: the mixer's input */
    ns_real *root;   /* [T] the norm's reciprocal roots */
    ns_real *saved;  /* the mixer's */
    ns_real *y;      /* [T, H] the mixer's output */
    int64_t *load;   /* [E] of MoE layers */
} ns_net_layer;

struct ns_net {
    const ns_params *p;
    const ns_blas *blas;
    ns_net_opts o;
    ns_net_layer *layer; /* [n_layers] */
    ns_real *last;       /* [T, H] the stream after all layers */
    ns_real *hidden;     /* [T, H] after the final norm; columns that are not live are zero */
    ns_real *root;       /* [T] of the final norm */
    ns_real *dhidden;    /* [T, H] from the loss */
    ns_real *dstream;    /* [T, H] gradient of the stream, from the head down */
    ns_real *dy, *dx;    /* [T, H] gradients of a mixer's output and input */
    ns_real *row[2];     /* [H] */
    ns_real *scratch;    /* the mixers' */
    ns_real *logits, *teacher_logits; /* [block, V] */
    ns_real *head_x, *head_dx;        /* [block, H] rows of a block of the loss */
    ns_real *loss_row;   /* [2 V] */
    int *loss_token;     /* [block] */
    int block;           /* tokens whose logits are in memory at once */
    const ns_seqs *seqs; /* of the last forward */
    ns_tap_fn *tap;
    void *tap_ctx;
    ns_arena arena;
    ns_real *memory;
};

/* Live columns of the stream under a mask (may be NULL). */
int ns_net_live(const ns_net *n, const ns_net_mask *mask);
#endif
