/* Inside forge/: the rows of a weight that a cut keeps, decoded, or in their stored nibbles. */
#ifndef NS_FORGE_CUT_ROWS_H
#define NS_FORGE_CUT_ROWS_H
#include "ckpt/ckpt.h"

typedef struct ns_cut_rows {
    const ns_bound *bound;
    int rows, cols;             /* live; a vector is one row (ns_bound) */
    ns_segs row_segs, col_segs; /* in the arena; row_segs of a vector has the one row */
} ns_cut_rows;

/* layer and expert as the full model counts them. The cut must have been validated. NULL weights are the caller's to ask about first. */
int ns_cut_rows_init(const ns_ckpt *c, const ns_cut *cut, int layer, ns_role r, int expert, ns_arena *arena, ns_cut_rows *out, ns_err *e);
/* Live row i: out[0..cols). */
void ns_cut_rows_get(const ns_cut_rows *w, int i, float *out);
/* Live row i of an NVFP4 matrix: cols/2 bytes of nibble pairs and cols/16 block scales. */
void ns_cut_rows_nvfp4(const ns_cut_rows *w, int i, uint8_t *q, uint8_t *scale);
#endif
