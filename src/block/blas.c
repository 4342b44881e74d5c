#include "block/blas.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The C interface's codes, as every BLAS has them. */
enum { ROW_MAJOR = 101, NO_TRANS = 111, TRANS = 112 };
typedef void gemm_fn(int order, int ta, int tb, int m, int n, int k, ns_real alpha, const ns_real *A, int lda, const ns_real *B, int ldb,
                     ns_real beta, ns_real *C, int ldc);
typedef const char *text_fn(void);

#ifdef NS_REAL_DOUBLE
#define GEMM_NAME "cblas_dgemm"
#else
#define GEMM_NAME "cblas_sgemm"
#endif
static const char library[] = "libblas.so.3";

struct ns_blas {
    gemm_fn *gemm;
    char name[96];
};

/* What must be in the environment before the library's constructors look there: no threads of its own, and the AVX-512 kernels.
 * OpenBLAS picks kernels from a list of processor models; one that its release does not know (a Zen 5 with OpenBLAS 0.3.21)
 * gets AVX2 kernels, at half the speed. SkylakeX is the oldest core whose kernels need no more than the flags asked for here. */
static void prepare_environment(void)
{
    static const char *const threads[] = { "OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "BLIS_NUM_THREADS", "MKL_NUM_THREADS" };
    for (size_t i = 0; i < sizeof threads / sizeof *threads; i++)
        setenv(threads[i], "1", 1);
#ifdef __x86_64__
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        setenv("OPENBLAS_CORETYPE", "SkylakeX", 0);
#endif
}

/* The environment is too late for a library that the process had loaded before. */
static void one_thread(void *lib)
{
    typedef void openblas_fn(int n);
    typedef void blis_fn(long n); /* dim_t: 64 bits, or 32 that the same register carries */
    openblas_fn *openblas = (openblas_fn *)dlsym(lib, "openblas_set_num_threads");
    blis_fn *blis = (blis_fn *)dlsym(lib, "bli_thread_set_num_threads");
    if (openblas)
        openblas(1);
    if (blis)
        blis(1);
}

static void name_library(ns_blas *b, void *lib)
{
    text_fn *config = (text_fn *)dlsym(lib, "openblas_get_config"), *core = (text_fn *)dlsym(lib, "openblas_get_corename");
    text_fn *blis = (text_fn *)dlsym(lib, "bli_info_get_version_str");
    char product[24] = "", version[24] = ""; /* the first two words of "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH .." */
    if (config && sscanf(config(), "%23s %23s", product, version) == 2)
        snprintf(b->name, sizeof b->name, "%s %s %.40s", product, version, core ? core() : "");
    else if (blis)
        snprintf(b->name, sizeof b->name, "BLIS %.40s", blis());
    else
        snprintf(b->name, sizeof b->name, "%s", library);
}

ns_blas *ns_blas_open(ns_err *e)
{
    prepare_environment();
    /* Never unloaded: OpenMP builds leave threads behind that would return into unmapped code. */
    void *lib = dlopen(library, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!lib) {
        ns_fail(e, NS_EUNSUPPORTED, "training needs a BLAS (%s): install the package libopenblas0", dlerror());
        return NULL;
    }
    ns_blas *b = calloc(1, sizeof *b);
    if (!b) {
        ns_fail(e, NS_ENOMEM, "%s: out of memory", library);
    } else if (!(b->gemm = (gemm_fn *)dlsym(lib, GEMM_NAME))) {
        ns_fail(e, NS_EUNSUPPORTED, "%s has no %s: install the package libopenblas0", library, GEMM_NAME);
        free(b);
        b = NULL;
    } else {
        one_thread(lib);
        name_library(b, lib);
    }
    dlclose(lib);
    return b;
}

void ns_blas_close(ns_blas *b)
{
    free(b);
}

const char *ns_blas_name(const ns_blas *b)
{
    return b->name;
}

void ns_gemm(const ns_blas *b, bool ta, bool tb, int m, int n, int k, const ns_real *A, int lda, const ns_real *B, int ldb, bool add,
             ns_real *C, int ldc)
{
    if (m == 0 || n == 0 || (k == 0 && add))
        return;
    if (k == 0)
        for (int i = 0; i < m; i++)
            memset(C + (size_t)i * (size_t)ldc, 0, (size_t)n * sizeof *C);
    else
        b->gemm(ROW_MAJOR, ta ? TRANS : NO_TRANS, tb ? TRANS : NO_TRANS, m, n, k, 1, A, lda, B, ldb, add ? 1 : 0, C, ldc);
}
