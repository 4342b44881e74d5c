/* Files: read-only mappings, whole-file reads, and output that appears by rename only when it is complete. */
#ifndef NS_BASE_FILE_H
#define NS_BASE_FILE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/buf.h"
#include "base/err.h"

/* A read-only mapping of a whole file. An empty file maps to data == NULL, size == 0. */
typedef struct ns_map {
    const uint8_t *data;
    size_t size;
    bool anonymous; /* a private copy on huge pages instead of a file mapping */
} ns_map;

int ns_map_open(ns_map *m, const char *path, ns_err *e);
/* Reads the file into anonymous memory on which huge pages are requested: costs a copy, saves TLB misses. */
int ns_map_load(ns_map *m, const char *path, ns_err *e);
void ns_map_close(ns_map *m);
/* Advice on a file mapping: `scattered` reads need single pages, no reading ahead. The default is sequential. */
void ns_map_advise(const ns_map *m, bool scattered);

/* Appends a file's bytes to `out`; refuses files over `limit` bytes. */
int ns_file_read(const char *path, size_t limit, ns_buf *out, ns_err *e);
bool ns_file_exists(const char *path);
bool ns_dir_exists(const char *path);
/* "dir/name" in `out` (cleared first). */
const char *ns_path_join(ns_buf *out, const char *dir, const char *name);

/* An output file under a temporary name beside its final one. Commit flushes, fsyncs and renames; release without commit
 * removes it. A zero-initialised ns_outfile may be released. */
typedef struct ns_outfile {
    FILE *f;
    char *path, *tmp; /* owned */
} ns_outfile;

int ns_outfile_open(ns_outfile *o, const char *path, ns_err *e);
int ns_outfile_write(ns_outfile *o, const void *p, size_t n, ns_err *e);
int ns_outfile_commit(ns_outfile *o, ns_err *e);
void ns_outfile_release(ns_outfile *o);
/* Writes a small file the same way. */
int ns_file_write(const char *path, const void *p, size_t n, ns_err *e);

/* An output folder: built as PATH.partial, renamed to PATH by commit, removed by release without commit.
 * Refuses an existing PATH that is not an empty folder. */
typedef struct ns_outdir {
    char *path, *tmp; /* owned; write into tmp */
} ns_outdir;

int ns_outdir_open(ns_outdir *d, const char *path, ns_err *e);
int ns_outdir_commit(ns_outdir *d, ns_err *e);
void ns_outdir_release(ns_outdir *d);
int ns_file_copy(const char *from, const char *to, ns_err *e);
#endif
