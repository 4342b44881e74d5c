#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_regular(const char *path, size_t *size, ns_err *e)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* non-blocking: opening a FIFO must fail below, not wait */
    if (fd < 0)
        return ns_fail_errno(e, "%s", path);
    if (fstat(fd, &st) != 0) {
        ns_fail_errno(e, "%s", path);
        close(fd);
        return -1;
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return ns_fail(e, NS_EIO, "%s: not a regular file", path);
    }
    *size = (size_t)st.st_size;
    return fd;
}

int ns_map_open(ns_map *m, const char *path, ns_err *e)
{
    *m = (ns_map){ 0 };
    int fd = open_regular(path, &m->size, e);
    if (fd < 0)
        return -1;
    int rc = 0;
    if (m->size) {
        void *p = mmap(NULL, m->size, PROT_READ, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED)
            rc = ns_fail_errno(e, "%s: mmap", path);
        else
            m->data = p;
    }
    close(fd);
    return rc;
}

static int read_full(int fd, uint8_t *p, size_t n)
{
    while (n) {
        ssize_t got = read(fd, p, n > (1u << 30) ? (1u << 30) : n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got == 0)
            errno = EIO; /* the file became shorter while it was read */
        if (got <= 0)
            return -1;
        p += got;
        n -= (size_t)got;
    }
    return 0;
}

int ns_map_load(ns_map *m, const char *path, ns_err *e)
{
    *m = (ns_map){ .anonymous = true };
    size_t size;
    int fd = open_regular(path, &size, e);
    if (fd < 0)
        return -1;
    int rc = 0;
    if (size) {
        uint8_t *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) {
            rc = ns_fail_errno(e, "%s: %zu bytes of memory", path, size);
        } else {
            madvise(p, size, MADV_HUGEPAGE); /* advice: without it the load is as correct, only slower to use */
            if (read_full(fd, p, size) != 0) {
                rc = ns_fail_errno(e, "%s: read", path);
                munmap(p, size);
            } else {
                m->data = p;
                m->size = size;
            }
        }
    }
    close(fd);
    return rc;
}

void ns_map_close(ns_map *m)
{
    if (m->data)
        munmap((void *)(uintptr_t)m->data, m->size);
    *m = (ns_map){ 0 };
}

void ns_map_advise(const ns_map *m, bool scattered)
{
    if (m->data && !m->anonymous) /* advice: failing changes nothing but speed */
        madvise((void *)(uintptr_t)m->data, m->size, scattered ? MADV_RANDOM : MADV_NORMAL);
}

int ns_file_read(const char *path, size_t limit, ns_buf *out, ns_err *e)
{
    FILE *f = fopen(path, "rbe");
    if (!f)
        return ns_fail_errno(e, "%s", path);
    char chunk[65536];
    size_t got, total = 0;
    int rc = 0;
    while (rc == 0 && (got = fread(chunk, 1, sizeof chunk, f)) > 0) {
        total += got;
        if (total > limit)
            rc = ns_fail(e, NS_EFORMAT, "%s: larger than %zu bytes", path, limit);
        else
            ns_buf_add(out, chunk, got);
    }
    if (rc == 0 && ferror(f))
        rc = ns_fail_errno(e, "%s: read", path);
    if (rc == 0 && out->failed)
        rc = ns_fail(e, NS_ENOMEM, "%s: out of memory", path);
    fclose(f);
    return rc;
}

bool ns_file_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool ns_dir_exists(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

const char *ns_path_join(ns_buf *out, const char *dir, const char *name)
{
    ns_buf_clear(out);
    ns_buf_addf(out, "%s/%s", dir, name);
    return out->failed ? "" : out->data;
}

static char *with_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    char *s = malloc(n + strlen(suffix) + 1);
    if (s) {
        memcpy(s, path, n);
        strcpy(s + n, suffix);
    }
    return s;
}

int ns_outfile_open(ns_outfile *o, const char *path, ns_err *e)
{
    *o = (ns_outfile){ .path = with_suffix(path, ""), .tmp = with_suffix(path, ".partial") };
    if (!o->path || !o->tmp) {
        ns_outfile_release(o);
        return ns_fail(e, NS_ENOMEM, "%s: out of memory", path);
    }
    o->f = fopen(o->tmp, "wbe");
    if (!o->f) {
        ns_fail_errno(e, "%s", o->tmp);
        ns_outfile_release(o);
        return -1;
    }
    return 0;
}

int ns_outfile_write(ns_outfile *o, const void *p, size_t n, ns_err *e)
{
    if (n && fwrite(p, 1, n, o->f) != n)
        return ns_fail_errno(e, "%s: write", o->tmp);
    return 0;
}

int ns_outfile_commit(ns_outfile *o, ns_err *e)
{
    int rc = 0;
    if (ferror(o->f))
        rc = ns_fail(e, NS_EIO, "%s: an earlier write failed", o->tmp);
    else if (fflush(o->f) != 0 || fsync(fileno(o->f)) != 0)
        rc = ns_fail_errno(e, "%s: write", o->tmp);
    if (fclose(o->f) != 0 && rc == 0)
        rc = ns_fail_errno(e, "%s: close", o->tmp);
    o->f = NULL;
    if (rc == 0 && rename(o->tmp, o->path) != 0)
        rc = ns_fail_errno(e, "%s: rename", o->path);
    if (rc == 0) {
        free(o->tmp);
        o->tmp = NULL; /* nothing left to remove */
    }
    ns_outfile_release(o);
    return rc;
}

void ns_outfile_release(ns_outfile *o)
{
    if (o->f)
        fclose(o->f);
    if (o->tmp)
        unlink(o->tmp);
    free(o->tmp);
    free(o->path);
    *o = (ns_outfile){ 0 };
}

int ns_file_write(const char *path, const void *p, size_t n, ns_err *e)
{
    ns_outfile o;
    if (ns_outfile_open(&o, path, e) != 0)
        return -1;
    if (ns_outfile_write(&o, p, n, e) != 0) {
        ns_outfile_release(&o);
        return -1;
    }
    return ns_outfile_commit(&o, e);
}

/* Removes a folder that holds files only (all that an ns_outdir ever holds). A symbolic link in its place is not followed. */
static void remove_flat_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (struct dirent *ent; (ent = readdir(d));)
        if (strcmp(ent->d_name, ".") != 0 && strcmp(ent->d_name, "..") != 0)
            unlinkat(fd, ent->d_name, 0);
    closedir(d);
    rmdir(path);
}

int ns_outdir_open(ns_outdir *d, const char *path, ns_err *e)
{
    *d = (ns_outdir){ .path = with_suffix(path, ""), .tmp = with_suffix(path, ".partial") };
    struct stat st;
    if (!d->path || !d->tmp) {
        ns_fail(e, NS_ENOMEM, "%s: out of memory", path);
    } else if (lstat(d->path, &st) == 0 && rmdir(d->path) != 0) {
        ns_fail(e, NS_EIO, "%s: exists already; choose another output folder", path);
    } else {
        remove_flat_dir(d->tmp); /* what an interrupted run left */
        if (mkdir(d->tmp, 0777) == 0)
            return 0;
        ns_fail_errno(e, "%s", d->tmp);
    }
    free(d->path);
    free(d->tmp);
    *d = (ns_outdir){ 0 };
    return -1;
}

int ns_outdir_commit(ns_outdir *d, ns_err *e)
{
    int rc = 0;
    if (rename(d->tmp, d->path) != 0)
        rc = ns_fail_errno(e, "%s: rename", d->path);
    else {
        free(d->tmp);
        d->tmp = NULL;
    }
    ns_outdir_release(d);
    return rc;
}

void ns_outdir_release(ns_outdir *d)
{
    if (d->tmp)
        remove_flat_dir(d->tmp);
    free(d->tmp);
    free(d->path);
    *d = (ns_outdir){ 0 };
}

int ns_file_copy(const char *from, const char *to, ns_err *e)
{
    ns_buf b = { 0 };
    int rc = ns_file_read(from, (size_t)1 << 30, &b, e);
    if (rc == 0)
        rc = ns_file_write(to, b.data, b.len, e);
    ns_buf_release(&b);
    return rc;
}
