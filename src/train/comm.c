#include "train/comm.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "train/comm_module.h"

struct ns_comm {
    int rank, size;
    const ns_comm_module *m; /* NULL: one rank */
    char why[400];
};

/* Did mpirun (Open MPI, Hydra) or srun start this process as one of several? Each says of how many. */
static const char *launcher(void)
{
    static const struct { const char *size, *name; } known[] = {
        { "OMPI_COMM_WORLD_SIZE", "mpirun" }, { "PMI_SIZE", "mpiexec" }, { "SLURM_STEP_NUM_TASKS", "srun" } };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const char *size = getenv(known[i].size);
        if (size && atoi(size) > 1)
            return known[i].name;
    }
    return NULL;
}

/* The folder of this program, with `rest` behind it. */
static int beside_program(const char *rest, ns_buf *out)
{
    char exe[PATH_MAX];
    const ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    if (n <= 0)
        return -1;
    exe[n] = '\0';
    char *slash = strrchr(exe, '/');
    if (!slash)
        return -1;
    *slash = '\0';
    ns_path_join(out, exe, rest);
    return out->failed ? -1 : 0;
}

static void *open_module(ns_err *e)
{
    static const char *const places[] = { "nestar_mpi.so", "../" NS_LIBDIR "/nestar/nestar_mpi.so" }; /* built; installed */
    void *lib = NULL;
    ns_buf path = { 0 };
    for (size_t i = 0; i < sizeof places / sizeof *places && !lib && !(e && e->code); i++) {
        if (beside_program(places[i], &path) != 0 || !ns_file_exists(path.data))
            continue;
        /* Global: Open MPI's own plug-ins look for its symbols. Never unloaded: MPI does not survive it. */
        lib = dlopen(path.data, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE);
        if (!lib)
            ns_fail(e, NS_EUNSUPPORTED, "%s", dlerror());
    }
    ns_buf_release(&path);
    if (!lib)
        ns_fail(e, NS_EUNSUPPORTED, "%s started this process as one of several, but there is no nestar_mpi.so: it is built where CMake "
                "finds MPI (packages libopenmpi-dev and openmpi-bin)", launcher());
    return lib;
}

static int failed(ns_comm *c, ns_err *e)
{
    return ns_fail(e, NS_EIO, "%s, rank %d of %d: %s", c->m->name, c->rank, c->size, c->why);
}

static int open_ranks(ns_comm *c, ns_err *e)
{
    void *lib = open_module(e);
    const ns_comm_module *m = lib ? dlsym(lib, NS_COMM_MODULE) : NULL;
    if (!lib)
        return -1;
    if (!m || m->version != NS_COMM_VERSION)
        return ns_fail(e, NS_EUNSUPPORTED, "nestar_mpi.so is not of this version of nestar");
    if (m->open(&c->rank, &c->size, c->why, sizeof c->why) != 0)
        return ns_fail(e, NS_EIO, "%s: %s", m->name, c->why);
    c->m = m;
    return 0;
}

ns_comm *ns_comm_open(ns_err *e)
{
    ns_comm *c = calloc(1, sizeof *c);
    if (!c) {
        ns_fail(e, NS_ENOMEM, "ranks: out of memory");
        return NULL;
    }
    c->size = 1;
    if (launcher() && open_ranks(c, e) != 0) {
        free(c);
        return NULL;
    }
    return c;
}

void ns_comm_close(ns_comm *c)
{
    if (!c)
        return;
    if (c->m)
        c->m->close();
    free(c);
}

int ns_comm_rank(const ns_comm *c)
{
    return c->rank;
}

int ns_comm_size(const ns_comm *c)
{
    return c->size;
}

int ns_comm_sum_start(ns_comm *c, ns_real *x, size_t n, ns_err *e)
{
    return c->size > 1 && c->m->sum_start(x, n, c->why, sizeof c->why) != 0 ? failed(c, e) : 0;
}

int ns_comm_wait(ns_comm *c, ns_err *e)
{
    return c->size > 1 && c->m->wait(c->why, sizeof c->why) != 0 ? failed(c, e) : 0;
}

int ns_comm_sum_doubles(ns_comm *c, double *x, size_t n, ns_err *e)
{
    return c->size > 1 && c->m->sum_doubles(x, n, c->why, sizeof c->why) != 0 ? failed(c, e) : 0;
}

int ns_comm_gather(ns_comm *c, ns_real *x, const size_t *part, ns_err *e)
{
    return c->size > 1 && c->m->gather(x, part, c->why, sizeof c->why) != 0 ? failed(c, e) : 0;
}

int ns_comm_any(ns_comm *c, bool *flag, ns_err *e)
{
    int x = *flag;
    if (c->size > 1 && c->m->max_int(&x, c->why, sizeof c->why) != 0)
        return failed(c, e);
    *flag = x != 0;
    return 0;
}

void ns_comm_barrier(ns_comm *c)
{
    if (c->size > 1)
        c->m->barrier(c->why, sizeof c->why);
}
