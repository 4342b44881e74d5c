#include "eval/fingerprint.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"

enum { PIECES = 64, PIECE = 4096, HEADER = 64 << 20 };

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
    const unsigned char *b = p;
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 0x100000001b3; /* FNV-1a */
    return h;
}

static int mix_weights(uint64_t *h, const char *path, ns_err *e)
{
    ns_map m;
    uint64_t head = 0;
    if (ns_map_open(&m, path, e) != 0)
        return -1;
    for (int i = 0; m.size >= 8 && i < 8; i++)
        head |= (uint64_t)m.data[i] << (8 * i);
    size_t from = head > HEADER || head + 8 > m.size ? 0 : (size_t)head + 8;
    *h = mix(mix(*h, &m.size, sizeof m.size), m.data, from);
    for (size_t i = 0; i < PIECES && from < m.size; i++) {
        size_t at = from + (m.size - from) / PIECES * i, n = m.size - at < PIECE ? m.size - at : PIECE;
        *h = mix(*h, m.data + at, n);
    }
    ns_map_close(&m);
    return 0;
}

static int mix_text(uint64_t *h, const char *path, ns_err *e)
{
    ns_buf b = { 0 };
    int rc = ns_file_exists(path) ? ns_file_read(path, HEADER, &b, e) : 0;
    *h = mix(mix(*h, b.data ? b.data : "", b.len), "", 1);
    ns_buf_release(&b);
    return rc;
}

static int is_weights(const struct dirent *d)
{
    const char *dot = strrchr(d->d_name, '.');
    return dot && strcmp(dot, ".safetensors") == 0;
}

int ns_fingerprint(const char *dir, const char *nest_path, char out[17], ns_err *e)
{
    struct dirent **entry = NULL;
    ns_buf path = { 0 };
    uint64_t h = 0xcbf29ce484222325;
    int n = scandir(dir, &entry, is_weights, alphasort), rc = n < 0 ? ns_fail_errno(e, "%s", dir) : 0;
    if (rc == 0)
        rc = mix_text(&h, ns_path_join(&path, dir, "config.json"), e);
    if (rc == 0)
        rc = mix_text(&h, nest_path ? nest_path : ns_path_join(&path, dir, "nest.json"), e);
    for (int i = 0; i < n; i++) {
        h = mix(h, entry[i]->d_name, strlen(entry[i]->d_name) + 1);
        if (rc == 0)
            rc = mix_weights(&h, ns_path_join(&path, dir, entry[i]->d_name), e);
        free(entry[i]);
    }
    free(entry);
    ns_buf_release(&path);
    snprintf(out, 17, "%016llx", (unsigned long long)h);
    return rc;
}
