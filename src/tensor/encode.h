/* Rows of floats to the quantised formats, with the squared error that the rounding makes. */
#ifndef NS_TENSOR_ENCODE_H
#define NS_TENSOR_ENCODE_H
#include "tensor/format.h"

/* The larger of amax and every |x[i]|; NaN when an entry is NaN. */
float ns_row_amax(const float *x, int n, float amax);
/* q = e4m3(x / scale). Adds the sum of squares of x and of the errors x - e4m3(q) scale. */
void ns_row_encode_fp8(const float *x, int n, float scale, uint8_t *q, double *squares, double *error);
/* As ns_nvfp4_encode_row, n a multiple of 16. With `search`, each block takes, of the E4M3 scales from 3/4 to 3/2 of the usual one,
 * that of the least squared error (the usual one wins ties): larger values may saturate where the smaller ones gain more. */
void ns_row_encode_nvfp4(const float *x, int n, float global_scale, bool search, uint8_t *q, uint8_t *scale, double *squares, double *error);
/* Both formats under one name: t is NS_F8_E4M3 or NS_NVFP4; `scale` and `search` are NVFP4's. */
void ns_row_encode(ns_dtype t, const float *x, int n, float global_scale, bool search, uint8_t *q, uint8_t *scale, double *squares,
                   double *error);
/* The global scale of a matrix whose largest magnitude is amax. A zero matrix gets 1, as ModelOpt leaves it; its codes are zeros under any
 * scale. */
float ns_global_scale(ns_dtype t, float amax);
#endif
