/* The MPI side of comm.h. Sums go on while the caller computes (MPI_Iallreduce); calls come from one thread at a time. */
#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>

#include "train/comm_module.h"

enum { PIECE = 1 << 28 }; /* elements of one call: MPI counts with int */

static struct {
    MPI_Request *request;
    int n, cap;
    int rank, size;
} state;

static int check(int rc, const char *what, char *why, size_t cap)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int n = 0;
    if (rc == MPI_SUCCESS)
        return 0;
    MPI_Error_string(rc, text, &n);
    snprintf(why, cap, "%s: %s", what, text);
    return -1;
}

static int module_open(int *rank, int *size, char *why, size_t cap)
{
    int have = 0;
    if (check(MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &have), "MPI_Init_thread", why, cap) != 0)
        return -1;
    if (have < MPI_THREAD_SERIALIZED) {
        snprintf(why, cap, "this MPI does not let threads call it in turn (MPI_THREAD_SERIALIZED)");
        return -1;
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &state.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &state.size);
    *rank = state.rank;
    *size = state.size;
    return 0;
}

static void module_close(void)
{
    free(state.request);
    state.request = NULL;
    state.n = state.cap = 0;
    MPI_Finalize();
}

static MPI_Request *new_request(void)
{
    if (state.n == state.cap) {
        const int cap = state.cap ? 2 * state.cap : 64;
        MPI_Request *p = realloc(state.request, (size_t)cap * sizeof *p);
        if (!p)
            return NULL;
        state.request = p;
        state.cap = cap;
    }
    return &state.request[state.n];
}

static int module_sum_start(float *x, size_t n, char *why, size_t cap)
{
    int done = 0;
    for (size_t at = 0, k; at < n; at += k) {
        MPI_Request *r = new_request();
        k = n - at < PIECE ? n - at : PIECE;
        if (!r) {
            snprintf(why, cap, "out of memory");
            return -1;
        }
        if (check(MPI_Iallreduce(MPI_IN_PLACE, x + at, (int)k, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD, r), "MPI_Iallreduce", why, cap) != 0)
            return -1;
        state.n++;
    }
    /* Those started before move on while somebody is inside MPI. */
    return check(MPI_Testall(state.n, state.request, &done, MPI_STATUSES_IGNORE), "MPI_Testall", why, cap);
}

static int module_wait(char *why, size_t cap)
{
    const int n = state.n;
    state.n = 0;
    return check(MPI_Waitall(n, state.request, MPI_STATUSES_IGNORE), "MPI_Waitall", why, cap);
}

static int module_sum_doubles(double *x, size_t n, char *why, size_t cap)
{
    for (size_t at = 0, k; at < n; at += k) {
        k = n - at < PIECE ? n - at : PIECE;
        if (check(MPI_Allreduce(MPI_IN_PLACE, x + at, (int)k, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD), "MPI_Allreduce", why, cap) != 0)
            return -1;
    }
    return 0;
}

/* Beyond what int can index, part by part. */
static int gather_large(float *x, const size_t *part, char *why, size_t cap)
{
    for (int r = 0; r < state.size; r++)
        for (size_t at = part[r], k; at < part[r + 1]; at += k) {
            k = part[r + 1] - at < PIECE ? part[r + 1] - at : PIECE;
            if (check(MPI_Bcast(x + at, (int)k, MPI_FLOAT, r, MPI_COMM_WORLD), "MPI_Bcast", why, cap) != 0)
                return -1;
        }
    return 0;
}

static int module_gather(float *x, const size_t *part, char *why, size_t cap)
{
    if (part[state.size] > INT_MAX)
        return gather_large(x, part, why, cap);
    int *count = malloc(2 * (size_t)state.size * sizeof *count), *at = count + state.size;
    if (!count) {
        snprintf(why, cap, "out of memory");
        return -1;
    }
    for (int r = 0; r < state.size; r++) {
        count[r] = (int)(part[r + 1] - part[r]);
        at[r] = (int)part[r];
    }
    int rc = check(MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_FLOAT, x, count, at, MPI_FLOAT, MPI_COMM_WORLD), "MPI_Allgatherv", why, cap);
    free(count);
    return rc;
}

static int module_max_int(int *x, char *why, size_t cap)
{
    return check(MPI_Allreduce(MPI_IN_PLACE, x, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD), "MPI_Allreduce", why, cap);
}

static int module_barrier(char *why, size_t cap)
{
    return check(MPI_Barrier(MPI_COMM_WORLD), "MPI_Barrier", why, cap);
}

extern const ns_comm_module ns_comm_module_table;
__attribute__((visibility("default"))) const ns_comm_module ns_comm_module_table = {
    .version = NS_COMM_VERSION,
    .name = "MPI",
    .open = module_open,
    .close = module_close,
    .sum_start = module_sum_start,
    .wait = module_wait,
    .sum_doubles = module_sum_doubles,
    .gather = module_gather,
    .max_int = module_max_int,
    .barrier = module_barrier,
};
