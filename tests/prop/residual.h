/* What the inference engine computes, for tests of the training network, whose headers it cannot share (both have taps). */
#ifndef PROP_RESIDUAL_H
#define PROP_RESIDUAL_H
#include "ckpt/ckpt.h"

/* One document through the reference kernels: the residual stream behind each layer, stream [n_layers][n, H], and the router's picks and
 * weights, [n_layers][n, topk] of each MoE layer at layer * n * 16. Aborts on failure. */
enum { PROP_MAX_TOPK = 16 };
void prop_residual(const char *dir, const int *ids, int n, float *stream, int *picks, float *gates);
#endif
