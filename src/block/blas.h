/* Matrix products through the system's BLAS (libblas.so.3), opened at run time: only training needs it. */
#ifndef NS_BLOCK_BLAS_H
#define NS_BLOCK_BLAS_H
#include <stdbool.h>

#include "base/err.h"
#include "block/real.h"

typedef struct ns_blas ns_blas;

/* Opens the library with one thread per call (the trainer's workers are the threads). Where the processor has AVX-512 and the
 * library is an OpenBLAS that predates it, OPENBLAS_CORETYPE is set first, unless the caller's environment has it. The error
 * names the package to install. */
ns_blas *ns_blas_open(ns_err *e);
void ns_blas_close(ns_blas *b);
const char *ns_blas_name(const ns_blas *b); /* "OpenBLAS 0.3.21 SkylakeX" */

/* C[m,n] (+)= op(A) op(B), row-major; op(A) is m x k, op(B) is k x n; ta: A is stored k x m; tb: B is stored n x k; ld* are the
 * stored row lengths. m, n or k may be 0. */
void ns_gemm(const ns_blas *b, bool ta, bool tb, int m, int n, int k, const ns_real *A, int lda, const ns_real *B, int ldb, bool add,
             ns_real *C, int ldc);
#endif
