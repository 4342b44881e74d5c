/* Inside forge/: where each weight of the manifest is in a GGUF file of the architectures nemotron_h and nemotron_h_moe.
 * Source: llama.cpp's tensor names and its nemotron-h model. */
#ifndef NS_FORGE_GGUF_NAMES_H
#define NS_FORGE_GGUF_NAMES_H
#include "arch/manifest.h"
#include "store/gguf.h"

/* What the file holds of it. Extents are innermost first. */
typedef enum ns_gguf_form {
    NS_GGUF_MATRIX,       /* [cols, rows], experts outermost; in any type */
    NS_GGUF_PLAIN_MATRIX, /* the same, F32 always */
    NS_GGUF_VECTOR,       /* [n], F32 */
    NS_GGUF_VECTOR_ONE,   /* [1, n] */
    NS_GGUF_NEG_EXP_ONE,  /* [1, n], -exp of it */
    NS_GGUF_GROUPED       /* [n / groups, groups] */
} ns_gguf_form;

typedef struct ns_gguf_place {
    ns_role role;
    const char *name; /* behind "blk.N." in a layer */
    ns_gguf_form form;
} ns_gguf_place;

#define NS_GGUF_CONFIG_KEY "nestar.config" /* config.json as text */

enum { NS_GGUF_PLACES = 32, NS_GGUF_NAME = 96 };
extern const ns_gguf_place ns_gguf_places[NS_GGUF_PLACES];

/* The whole name. layer -1: model level. tail: NULL, or "scale" / "input_scale" in place of the final "weight". */
void ns_gguf_place_name(const ns_gguf_place *p, int layer, const char *tail, char out[NS_GGUF_NAME]);
/* The file's extents of a weight of this shape; returns how many. experts 0: not per expert. */
int ns_gguf_place_shape(const ns_gguf_place *p, int n_dims, int rows, int cols, int experts, int groups, uint64_t ne[NS_GGUF_MAX_DIMS]);
/* NVFP4 of one row of n elements (a multiple of 64): ModelOpt's nibble pairs (2j, 2j+1) and scales to GGUF's units, and back. */
void ns_gguf_pack_nvfp4(const uint8_t *q, const uint8_t *scale, int n, uint8_t *out);
void ns_gguf_unpack_nvfp4(const uint8_t *in, int n, uint8_t *q, uint8_t *scale);
#endif
