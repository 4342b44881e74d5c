/* The full scan: is every stored number a number? */
#include <inttypes.h>
#include <string.h>

#include "ckpt/ckpt.h"

enum { CHUNK = 1 << 22 }; /* bytes between two calls of the progress function; a multiple of every element size */

/* Each returns the index of the first bad element in p[0..n), or n. The inner loops have no exit so that they vectorise;
 * data may have any alignment. */
enum { STRIP = 512 };

#define DEFINE_SCAN(name, type, bad)                                          \
    static size_t name(const uint8_t *p, size_t n)                            \
    {                                                                         \
        for (size_t i = 0; i < n; i += STRIP) {                               \
            size_t k = n - i < STRIP ? n - i : STRIP;                         \
            type x, any = 0;                                                  \
            for (size_t j = 0; j < k; j++) {                                  \
                memcpy(&x, p + (i + j) * sizeof x, sizeof x);                 \
                any = (type)(any | (type)(bad));                              \
            }                                                                 \
            for (size_t j = 0; any && j < k; j++) {                           \
                memcpy(&x, p + (i + j) * sizeof x, sizeof x);                 \
                if (bad)                                                      \
                    return i + j;                                             \
            }                                                                 \
        }                                                                     \
        return n;                                                             \
    }

DEFINE_SCAN(scan_f32, uint32_t, (x & 0x7f800000u) == 0x7f800000u)
DEFINE_SCAN(scan_bf16, uint16_t, (x & 0x7f80u) == 0x7f80u)
DEFINE_SCAN(scan_f16, uint16_t, (x & 0x7c00u) == 0x7c00u)
DEFINE_SCAN(scan_e4m3, uint8_t, (x & 0x7fu) == 0x7fu)

static size_t scan(ns_dtype t, const uint8_t *p, size_t n)
{
    switch (t) {
    case NS_F32: return scan_f32(p, n);
    case NS_BF16: return scan_bf16(p, n);
    case NS_F16: return scan_f16(p, n);
    case NS_F8_E4M3: return scan_e4m3(p, n);
    default: return n; /* every nibble is a number */
    }
}

static int found(const ns_ckpt *c, const ns_tensor *t, size_t element, ns_err *e)
{
    char pos[256] = "";
    size_t used = 0, stride[NS_MAX_DIMS], inner = 1;
    for (int d = t->n_dims - 1; d >= 0; d--) {
        stride[d] = inner;
        inner *= (size_t)t->shape[d];
    }
    for (int d = 0; d < t->n_dims && used < sizeof pos && !c->laid_out; d++)
        used += (size_t)snprintf(pos + used, sizeof pos - used, "%s%zu", d ? ", " : " at [", element / stride[d] % (size_t)t->shape[d]);
    return ns_fail(e, NS_EFORMAT, "%s/%s: tensor %s: not a finite number%s%s", c->dir, ns_store_shard(c->store, t->shard), t->name, pos,
                   used ? "]" : "");
}

int ns_ckpt_verify(const ns_ckpt *c, ns_ckpt_progress *progress, void *ctx, ns_err *e)
{
    size_t done = 0, total = 0;
    for (size_t i = 0; i < c->n_used; i++)
        total += c->used[i]->bytes;
    for (size_t i = 0; i < c->n_used; i++) {
        const ns_tensor *t = c->used[i];
        const size_t width = ns_dtype_bits(t->dtype) / 8;
        for (size_t at = 0; at < t->bytes; at += CHUNK) {
            size_t bytes = t->bytes - at < CHUNK ? t->bytes - at : CHUNK, n = bytes / width;
            size_t bad = scan(t->dtype, t->data + at, n);
            if (bad < n)
                return found(c, t, at / width + bad, e);
            done += bytes;
            if (progress)
                progress(ctx, done, total);
        }
    }
    return 0;
}
