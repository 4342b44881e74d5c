/* Between comm.c and a communication module, a shared object that links what nestar itself does not (MPI). The module exports one
 * symbol, NS_COMM_MODULE, of this type; it knows nothing of nestar's own functions. */
#ifndef NS_TRAIN_COMM_MODULE_H
#define NS_TRAIN_COMM_MODULE_H
#include <stddef.h>

enum { NS_COMM_VERSION = 1 }; /* of this struct; a module of another one is refused */
#define NS_COMM_MODULE "ns_comm_module_table"

/* Functions return 0, or -1 with a reason in why[cap]. Counts are elements. */
typedef struct ns_comm_module {
    int version;
    const char *name;
    int (*open)(int *rank, int *size, char *why, size_t cap);
    void (*close)(void);
    int (*sum_start)(float *x, size_t n, char *why, size_t cap); /* in place; x is the module's until wait */
    int (*wait)(char *why, size_t cap);
    int (*sum_doubles)(double *x, size_t n, char *why, size_t cap);
    /* Rank r holds part[r] .. part[r+1]-1 of x. */
    int (*gather)(float *x, const size_t *part, char *why, size_t cap);
    int (*max_int)(int *x, char *why, size_t cap);
    int (*barrier)(char *why, size_t cap);
} ns_comm_module;
#endif
