/* Ranks: one process, or many through MPI. Everything above sees only this. */
#ifndef NS_TRAIN_COMM_H
#define NS_TRAIN_COMM_H
#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"
#include "block/real.h"

typedef struct ns_comm ns_comm;

/* One rank, unless the process was started by mpirun or srun: then the MPI module (nestar_mpi.so, beside the command or in the
 * library folder; built where MPI is found) is opened. An MPI start without the module is an error that names the package. */
ns_comm *ns_comm_open(ns_err *e);
void ns_comm_close(ns_comm *c);
int ns_comm_rank(const ns_comm *c);
int ns_comm_size(const ns_comm *c);
/* Sums over ranks, in place. start returns at once and may be called from any one thread at a time while others compute; wait finishes
 * all started sums. The order of additions depends on nothing but the number of ranks. */
int ns_comm_sum_start(ns_comm *c, ns_real *x, size_t n, ns_err *e);
int ns_comm_wait(ns_comm *c, ns_err *e);
int ns_comm_sum_doubles(ns_comm *c, double *x, size_t n, ns_err *e);
/* Rank r holds part[r] .. part[r+1]-1 of x; afterwards all hold all. */
int ns_comm_gather(ns_comm *c, ns_real *x, const size_t *part, ns_err *e);
/* The largest of a flag over ranks: did anybody fail, was anybody interrupted. */
int ns_comm_any(ns_comm *c, bool *flag, ns_err *e);
void ns_comm_barrier(ns_comm *c);
#endif
