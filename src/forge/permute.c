#include "forge/permute.h"

#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "forge/folder.h"
#include "store/writer.h"

enum { MAX_DIMS = 4, BUFFER = 1 << 20, N_DIM_IDS = NS_DIM_LATENT + 1, BLOCK = 16 };

/* How the entries of a row are stored. */
typedef enum layout {
    WHOLE,   /* nothing moves, or a scalar: copied as it is */
    ENTRIES, /* one after the other, of `width` bytes */
    NIBBLES, /* two to a byte, the even one in the low half */
    SCALES   /* one byte for every block of 16 */
} layout;

/* A tensor to write: the bytes of `from`, moved. */
typedef struct item {
    const ns_tensor *from;
    layout layout;
    int n_dims;
    int size[MAX_DIMS];       /* in elements: not halved for nibbles, not divided for block scales */
    const int *map[MAX_DIMS]; /* new index -> old; NULL: the same */
    size_t row_bytes, width;
} item;

typedef struct permuter {
    const ns_ckpt *c;
    const ns_orders *orders;
    ns_writer *w;
    item *items;
    size_t n, cap;
    int layer; /* whose maps are cached */
    bool have[N_DIM_IDS];
    const int *maps[N_DIM_IDS];
    uint8_t *buffer;
    size_t fill, room;
    ns_arena arena;
    ns_err *e;
} permuter;

static int no_memory(permuter *s)
{
    return ns_fail(s->e, NS_ENOMEM, "permute: out of memory");
}

/* ---- what moves where ---- */

static int map_of(permuter *s, int layer, ns_dim_id id, const int **out)
{
    if (layer != s->layer)
        memset(s->have, 0, sizeof s->have);
    s->layer = layer;
    if (!s->have[id] && ns_orders_dim(s->orders, layer, id, &s->arena, &s->maps[id], s->e) != 0)
        return -1;
    s->have[id] = true;
    *out = s->maps[id];
    return 0;
}

static int add_dim(permuter *s, item *it, int layer, ns_dim_id id)
{
    ns_dim d = ns_arch_dim(s->c->arch, layer, id);
    it->size[it->n_dims] = ns_dim_size(&d);
    return map_of(s, layer, id, &it->map[it->n_dims++]);
}

/* The axes that move the inputs of a weight, for people. */
static void name_axes(const permuter *s, int layer, ns_dim_id id, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = '\0';
    for (int x = 0; x < NS_AXIS_COUNT && n < cap; x++)
        if (ns_orders_dim_has(s->c->arch, layer, id, (ns_axis)x) && ns_orders_find(s->orders, layer, (ns_axis)x))
            n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? " and " : "", ns_axis_name((ns_axis)x));
}

/* A block of 16 shares a scale: its entries must come from one block. */
static int check_blocks(const permuter *s, const item *it, int layer, ns_dim_id id)
{
    const int last = it->n_dims - 1, *map = it->map[last];
    char axes[100];
    for (int i = 0; map && i < it->size[last]; i++)
        if (map[i] / BLOCK != map[i - i % BLOCK] / BLOCK) {
            name_axes(s, layer, id, axes, sizeof axes);
            return ns_fail(s->e, NS_EUNSUPPORTED, "tensor %s is NVFP4, and the order of %s moves its inputs between blocks of %d, which "
                           "cannot be done without rounding: permute before quantising, or leave the axis as it is", it->from->name,
                           axes, BLOCK);
        }
    return 0;
}

static bool moves(const item *it)
{
    for (int d = 0; d < it->n_dims; d++)
        if (it->map[d])
            return true;
    return false;
}

/* The manifest's dimensions, the experts in front where they are fused. */
static int plan_dims(permuter *s, item *it, int layer, ns_role r, bool fused, layout how)
{
    const ns_weight_def *def = ns_weight_get(r);
    const ns_dim_id inputs = def->dim[def->n_dims - 1];
    int rc = fused ? add_dim(s, it, layer, NS_DIM_EXPERTS) : 0;
    for (int i = 0; rc == 0 && i < def->n_dims; i++)
        rc = add_dim(s, it, layer, def->dim[i]);
    if (rc == 0 && how != ENTRIES)
        rc = check_blocks(s, it, layer, inputs);
    if (rc != 0 || !moves(it))
        return rc;
    const int n = it->size[it->n_dims - 1];
    it->layout = how;
    it->width = how == ENTRIES ? ns_dtype_bits(it->from->dtype) / 8 : 1;
    it->row_bytes = (size_t)(how == NIBBLES ? n / 2 : how == SCALES ? n / BLOCK : n) * it->width;
    return 0;
}

/* A scale of the whole tensor, or one for each of the fused experts. */
static int plan_scalar(permuter *s, item *it, int layer, bool fused)
{
    const size_t width = ns_dtype_bits(it->from->dtype) / 8;
    if (!fused || it->from->n_dims == 0 || it->from->bytes <= width)
        return 0;
    if (add_dim(s, it, layer, NS_DIM_EXPERTS) != 0)
        return -1;
    it->layout = moves(it) ? ENTRIES : WHOLE;
    it->width = width;
    it->row_bytes = it->from->bytes;
    return 0;
}

static item *add_item(permuter *s, const ns_tensor *from)
{
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 1024;
        item *p = realloc(s->items, cap * sizeof *p);
        if (!p) {
            no_memory(s);
            return NULL;
        }
        s->items = p;
        s->cap = cap;
    }
    s->items[s->n] = (item){ .from = from };
    return &s->items[s->n++];
}

enum { SCALAR = -1 };

/* `to` has the name and `from` the bytes: they differ where experts move. `how`: a layout, or SCALAR. */
static int plan_tensor(permuter *s, const ns_tensor *to, const ns_tensor *from, int layer, ns_role r, bool fused, int how)
{
    if (!to)
        return 0;
    item *it = add_item(s, from);
    if (!it || (how == SCALAR ? plan_scalar(s, it, layer, fused) : plan_dims(s, it, layer, r, fused, (layout)how)) != 0)
        return -1;
    if (it->row_bytes > s->room)
        s->room = it->row_bytes;
    return ns_writer_declare(s->w, to->name, to->dtype, to->n_dims, to->shape, s->e);
}

/* The place of one expert takes the bytes of another: they must be stored in the same form. */
static int check_alike(const permuter *s, const ns_bound *a, const ns_bound *b)
{
    if (a->mat.dtype == b->mat.dtype && !a->scale == !b->scale && !a->scale_2 == !b->scale_2 && !a->input_scale == !b->input_scale)
        return 0;
    return ns_fail(s->e, NS_EUNSUPPORTED, "%s would take the place of %s, but the two are not stored alike: permute before quantising, or "
                   "leave the axis experts as it is", a->tensor->name, b->tensor->name);
}

static int plan_weight(void *ctx, int layer, ns_role r, int expert)
{
    permuter *s = ctx;
    const ns_bound *to = ns_ckpt_weight(s->c, layer, r, expert), *from = to;
    if (!to || to->expert_index > 0)
        return 0;
    const bool fused = to->expert_index == 0, blocks = to->mat.dtype == NS_NVFP4;
    const int *experts = NULL;
    if (ns_weight_get(r)->per_expert && !fused && map_of(s, layer, NS_DIM_EXPERTS, &experts) != 0)
        return -1;
    if (experts)
        from = ns_ckpt_weight(s->c, layer, r, experts[expert]);
    return check_alike(s, from, to) != 0 ||
           plan_tensor(s, to->tensor, from->tensor, layer, r, fused, blocks ? NIBBLES : ENTRIES) != 0 ||
           plan_tensor(s, to->scale, from->scale, layer, r, fused, blocks ? SCALES : SCALAR) != 0 ||
           plan_tensor(s, to->scale_2, from->scale_2, layer, r, fused, SCALAR) != 0 ||
           plan_tensor(s, to->input_scale, from->input_scale, layer, r, fused, SCALAR) != 0 ||
           plan_tensor(s, to->kv_scale, from->kv_scale, layer, r, fused, SCALAR) != 0 ? -1 : 0;
}

/* ---- moving ---- */

static void gather1(const uint8_t *p, const int *map, int n, uint8_t *out)
{
    for (int i = 0; i < n; i++)
        out[i] = p[map[i]];
}

/* Neither side need be aligned: the copies of constant size become plain loads and stores. */
static void gather2(const uint8_t *p, const int *map, int n, uint8_t *out)
{
    for (int i = 0; i < n; i++)
        memcpy(out + 2 * (size_t)i, p + 2 * (size_t)map[i], 2);
}

static void gather4(const uint8_t *p, const int *map, int n, uint8_t *out)
{
    for (int i = 0; i < n; i++)
        memcpy(out + 4 * (size_t)i, p + 4 * (size_t)map[i], 4);
}

static unsigned nibble(const uint8_t *p, int i)
{
    return p[i / 2] >> (i % 2 * 4) & 15;
}

static void gather_nibbles(const uint8_t *p, const int *map, int n, uint8_t *out)
{
    for (int i = 0; i < n; i += 2)
        out[i / 2] = (uint8_t)(nibble(p, map[i]) | nibble(p, map[i + 1]) << 4);
}

static void gather_scales(const uint8_t *p, const int *map, int n, uint8_t *out)
{
    for (int i = 0; i < n; i += BLOCK)
        out[i / BLOCK] = p[map[i] / BLOCK];
}

static void gather_row(const item *it, const uint8_t *p, uint8_t *out)
{
    const int n = it->size[it->n_dims - 1], *map = it->map[it->n_dims - 1];
    if (!map)
        memcpy(out, p, it->row_bytes);
    else if (it->layout == NIBBLES)
        gather_nibbles(p, map, n, out);
    else if (it->layout == SCALES)
        gather_scales(p, map, n, out);
    else if (it->width == 1)
        gather1(p, map, n, out);
    else if (it->width == 2)
        gather2(p, map, n, out);
    else
        gather4(p, map, n, out);
}

/* Where row i (over all dimensions but the last) comes from. */
static size_t old_row(const item *it, size_t i)
{
    size_t at = 0, pitch = 1;
    for (int d = it->n_dims - 2; d >= 0; d--) {
        size_t here = i % (size_t)it->size[d];
        at += pitch * (it->map[d] ? (size_t)it->map[d][here] : here);
        pitch *= (size_t)it->size[d];
        i /= (size_t)it->size[d];
    }
    return at;
}

static int flush(permuter *s)
{
    size_t n = s->fill;
    s->fill = 0;
    return n ? ns_writer_append(s->w, s->buffer, n, s->e) : 0;
}

static int write_rows(permuter *s, const item *it)
{
    size_t rows = it->from->bytes / it->row_bytes;
    for (size_t i = 0; i < rows; i++) {
        if (s->fill + it->row_bytes > s->room && flush(s) != 0)
            return -1;
        gather_row(it, it->from->data + old_row(it, i) * it->row_bytes, s->buffer + s->fill);
        s->fill += it->row_bytes;
    }
    return flush(s);
}

static int write_whole(permuter *s, const ns_tensor *t)
{
    for (size_t at = 0, n; at < t->bytes; at += n) { /* in pieces, so that progress is seen */
        n = t->bytes - at < BUFFER ? t->bytes - at : BUFFER;
        if (ns_writer_append(s->w, t->data + at, n, s->e) != 0)
            return -1;
    }
    return 0;
}

static int write_weights(permuter *s, const char *dir, const ns_permute_opts *o)
{
    ns_writer_options wo = ns_writer_defaults();
    wo.max_shard_bytes = o->max_shard_bytes ? o->max_shard_bytes : wo.max_shard_bytes;
    wo.progress = o->progress;
    wo.ctx = o->ctx;
    s->w = ns_writer_new(dir, &wo, s->e);
    if (!s->w || ns_manifest_each(s->c->arch, plan_weight, s) != 0)
        return -1;
    s->buffer = malloc(s->room);
    if (!s->buffer)
        return no_memory(s);
    for (size_t i = 0; i < s->n; i++) {
        const item *it = &s->items[i];
        if (ns_writer_tensor_begin(s->w, i, s->e) != 0 || (it->layout == WHOLE ? write_whole(s, it->from) : write_rows(s, it)) != 0)
            return -1;
    }
    return ns_writer_finish(s->w, s->e);
}

/* ---- the folder ---- */

/* The sizes of nest.json are prefixes of the old order. */
static int copy_nest(const permuter *s, const char *dir)
{
    ns_buf nest = { 0 };
    if (ns_orders_identity(s->orders))
        return ns_folder_copy_nest(s->c->dir, dir, s->e);
    ns_path_join(&nest, s->c->dir, "nest.json");
    if (!nest.failed && ns_file_exists(nest.data))
        ns_log("%s is not copied: its sizes are prefixes of the old order", nest.data);
    ns_buf_release(&nest);
    return 0;
}

static int write_folder(permuter *s, const char *dir, const ns_permute_opts *o)
{
    ns_cut full;
    if (ns_cut_full(s->c->arch, &full, s->e) != 0)
        return -1;
    int rc = ns_folder_describe(s->c, &full, NULL, dir, s->e);
    ns_cut_release(&full);
    if (rc == 0)
        rc = copy_nest(s, dir);
    if (rc == 0)
        rc = write_weights(s, dir, o);
    return rc == 0 ? ns_folder_check(dir, s->e) : rc;
}

int ns_permute(const ns_ckpt *c, const ns_orders *orders, const char *out_dir, const ns_permute_opts *o, ns_err *e)
{
    const ns_permute_opts defaults = { 0 };
    permuter s = { .c = c, .orders = orders, .layer = -2, .room = BUFFER, .e = e };
    ns_outdir dir = { 0 };
    int rc = ns_outdir_open(&dir, out_dir, e);
    if (rc == 0)
        rc = write_folder(&s, dir.tmp, o ? o : &defaults);
    ns_writer_free(s.w);
    if (rc == 0)
        rc = ns_outdir_commit(&dir, e);
    ns_outdir_release(&dir);
    free(s.items);
    free(s.buffer);
    ns_arena_release(&s.arena);
    return rc;
}
