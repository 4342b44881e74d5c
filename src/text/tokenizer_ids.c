#include "text/tokenizer_ids.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(ns_ids *ids, size_t extra)
{
    if (extra > SIZE_MAX / sizeof(int) / 4 - ids->len)
        ids->failed = true;
    if (ids->failed)
        return false;
    size_t need = ids->len + extra;
    if (need <= ids->cap)
        return true;
    size_t cap = ids->cap ? ids->cap : 64;
    while (cap < need)
        cap *= 2;
    int *p = realloc(ids->data, cap * sizeof *p);
    if (!p) {
        ids->failed = true;
        return false;
    }
    ids->data = p;
    ids->cap = cap;
    return true;
}

void ns_ids_add(ns_ids *ids, int id)
{
    if (reserve(ids, 1))
        ids->data[ids->len++] = id;
}

void ns_ids_append(ns_ids *ids, const int *data, size_t n)
{
    if (n == 0 || !reserve(ids, n))
        return;
    memcpy(ids->data + ids->len, data, n * sizeof *data);
    ids->len += n;
}

void ns_ids_clear(ns_ids *ids)
{
    ids->len = 0;
}

void ns_ids_release(ns_ids *ids)
{
    free(ids->data);
    *ids = (ns_ids){ 0 };
}
