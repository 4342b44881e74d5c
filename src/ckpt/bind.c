/* Finding every weight of the manifest in the store, under any of its spellings, and checking what is found. */
#include "ckpt/bind.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum { NAME_CAP = 256, EXPERT_ROLES = NS_W_EXPERT_DOWN - NS_W_EXPERT_UP + 1 };

/* One weight on its way in. */
typedef struct binder {
    ns_ckpt *c;
    int layer, expert;
    ns_role role;
    const ns_weight_def *def;
    char name[NAME_CAP]; /* canonical */
    bool fused;
    int n_dims;
    int64_t shape[4]; /* of the whole tensor in elements, the experts in front when fused */
    ns_bound *b;
    ns_err *e;
} binder;

/* Layout of a row: one slot per role, then those of the per-expert roles, role by role. EXPERT_UP and EXPERT_DOWN are
 * neighbours in the manifest. */
static int layer_experts(const ns_ckpt *c, int layer)
{
    return layer < 0 ? 0 : c->arch->layers[layer].width[NS_AXIS_EXPERTS];
}

ns_bound *ns_ckpt_slot(const ns_ckpt *c, int layer, ns_role r, int expert)
{
    if (layer < -1 || layer >= c->arch->n_layers || (unsigned)r >= NS_W_COUNT)
        return NULL;
    ns_bound *row = c->layer_weights[layer + 1];
    if (!ns_weight_get(r)->per_expert)
        return &row[r];
    int n = layer_experts(c, layer);
    if (expert < 0 || expert >= n)
        return NULL;
    return &row[NS_W_COUNT + (int)(r - NS_W_EXPERT_UP) * n + expert];
}

static int alloc_rows(ns_ckpt *c, ns_err *e)
{
    int n = c->arch->n_layers + 1;
    c->layer_weights = ns_arena_array(&c->arena, (size_t)n, sizeof *c->layer_weights);
    for (int i = 0; c->layer_weights && i < n; i++) {
        size_t slots = (size_t)NS_W_COUNT + (size_t)layer_experts(c, i - 1) * EXPERT_ROLES;
        c->layer_weights[i] = ns_arena_array(&c->arena, slots, sizeof **c->layer_weights);
        if (!c->layer_weights[i])
            return ns_fail(e, NS_ENOMEM, "%s: out of memory", c->dir);
    }
    return c->layer_weights ? 0 : ns_fail(e, NS_ENOMEM, "%s: out of memory", c->dir);
}

/* ---- names ---- */

/* "backbone.X" is also looked for as "model.X"; the embedding is singular in some files. */
static const ns_tensor *find_name(const ns_store *s, const char *name)
{
    static const char *const prefixes[] = { "backbone.", "model." };
    char alt[NAME_CAP + 16];
    const ns_tensor *t = ns_store_find(s, name);
    if (t || strncmp(name, "backbone.", 9) != 0)
        return t;
    const char *rest = name + 9;
    snprintf(alt, sizeof alt, "model.%s", rest);
    t = ns_store_find(s, alt);
    for (int i = 0; !t && i < 2 && strcmp(rest, "embeddings.weight") == 0; i++) {
        snprintf(alt, sizeof alt, "%sembedding.weight", prefixes[i]);
        t = ns_store_find(s, alt);
    }
    return t;
}

/* "..experts.7.up_proj.weight" -> "..experts.up_proj", "..experts.up_proj.weight"; a bias also as "..up_proj_bias". */
static const ns_tensor *find_fused(const ns_store *s, const char *name)
{
    char fused[NAME_CAP];
    const char *number = strstr(name, ".experts.");
    const char *rest = number ? strchr(number + 9, '.') : NULL;
    if (!rest)
        return NULL;
    snprintf(fused, sizeof fused, "%.*s%s", (int)(number + 8 - name), name, rest);
    const ns_tensor *t = find_name(s, fused);
    char *kind = strrchr(fused, '.');
    if (!t && strcmp(kind, ".weight") == 0)
        *kind = '\0';
    else
        *kind = '_';
    return t ? t : find_name(s, fused);
}

/* The companion of a weight: "X.weight" has "X.weight_scale"; fused files also write "X_weight_scale" and "X_scale". */
static const ns_tensor *find_companion(const ns_store *s, const ns_tensor *weight, const char *what)
{
    static const char *const glue[] = { ".", "_" };
    char name[NAME_CAP + 32];
    size_t n = strlen(weight->name), k = strlen(".weight");
    if (n > k && strcmp(weight->name + n - k, ".weight") == 0)
        n -= k;
    const ns_tensor *t = NULL;
    for (int i = 0; !t && i < 2; i++) {
        snprintf(name, sizeof name, "%.*s%s%s", (int)n, weight->name, glue[i], what);
        t = ns_store_find(s, name);
    }
    if (!t && strncmp(what, "weight_", 7) == 0) {
        snprintf(name, sizeof name, "%.*s_%s", (int)n, weight->name, what + 7);
        t = ns_store_find(s, name);
    }
    return t;
}

/* ---- checks ---- */

static int refuse(const binder *k, const ns_tensor *t, const char *why)
{
    return ns_fail(k->e, NS_EFORMAT, "%s/%s: tensor %s: %s", k->c->dir, ns_store_shard(k->c->store, t->shard), t->name, why);
}

static void print_shape(char *out, size_t cap, int n, const int64_t *shape)
{
    size_t used = (size_t)snprintf(out, cap, "[");
    for (int i = 0; i < n && used < cap; i++)
        used += (size_t)snprintf(out + used, cap - used, "%s%" PRId64, i ? ", " : "", shape[i]);
    if (used < cap)
        snprintf(out + used, cap - used, "]");
}

static int check_shape(const binder *k, const ns_tensor *t, int n, const int64_t *want)
{
    char got_text[200], want_text[200], why[500];
    if (t->n_dims == n && (n == 0 || memcmp(t->shape, want, (size_t)n * sizeof *want) == 0))
        return 0;
    print_shape(got_text, sizeof got_text, t->n_dims, t->shape);
    print_shape(want_text, sizeof want_text, n, want);
    snprintf(why, sizeof why, "shape %s, expected %s", got_text, want_text);
    return refuse(k, t, why);
}

/* A per-tensor scale, or this expert's entry of a fused one. Infinite, NaN and negative scales would poison every product. */
static int read_scale(const binder *k, const ns_tensor *t, bool zero_allowed, float *out)
{
    int64_t n = 1;
    for (int i = 0; i < t->n_dims; i++)
        n *= t->shape[i];
    bool per_expert = k->fused && n == k->shape[0] && n > 1;
    char why[200];
    if (t->dtype != NS_F32) {
        snprintf(why, sizeof why, "a per-tensor scale must be F32, not %s", ns_dtype_name(t->dtype));
        return refuse(k, t, why);
    }
    if (n != 1 && !per_expert) {
        snprintf(why, sizeof why, "%" PRId64 " entries, expected a scalar%s", n, k->fused ? " or one per expert" : "");
        return refuse(k, t, why);
    }
    float x;
    memcpy(&x, t->data + (per_expert ? (size_t)k->expert * sizeof x : 0), sizeof x);
    if (isfinite(x) && (x > 0 || (zero_allowed && x == 0))) {
        *out = x;
        return 0;
    }
    snprintf(why, sizeof why, "the scale is %g, it must be finite and positive", (double)x);
    return refuse(k, t, why);
}

static int need_companion(const binder *k, const ns_tensor *t, const char *what, const ns_tensor **out)
{
    *out = find_companion(k->c->store, t, what);
    if (*out)
        return 0;
    char why[200];
    snprintf(why, sizeof why, "stored as %s, but its %s is missing", ns_dtype_name(t->dtype), what);
    return refuse(k, t, why);
}

static const char *scheme_name(ns_scheme s)
{
    return s == NS_SCHEME_NVFP4 ? "NVFP4" : s == NS_SCHEME_FP8 ? "FP8" : "not quantised";
}

/* What the type in the file amounts to, held against what the quantisation config says of the module, if it goes into modules. */
static int check_scheme(const binder *k, const ns_tensor *t, ns_scheme found)
{
    char module[NAME_CAP], why[200];
    if (!k->def->quantisable || !ns_quant_strict(k->c->quant))
        return 0;
    snprintf(module, sizeof module, "%.*s", (int)(strlen(k->name) - strlen(".weight")), k->name);
    ns_scheme want = ns_quant_scheme(k->c->quant, module);
    if (want == found)
        return 0;
    snprintf(why, sizeof why, "stored as %s, but the quantisation config says %s", ns_dtype_name(t->dtype), scheme_name(want));
    return refuse(k, t, why);
}

/* ---- binding ---- */

static void expected_shape(binder *k, bool fused)
{
    k->fused = fused;
    k->n_dims = 0;
    if (fused)
        k->shape[k->n_dims++] = layer_experts(k->c, k->layer);
    for (int i = 0; i < k->def->n_dims; i++) {
        ns_dim d = ns_arch_dim(k->c->arch, k->layer, k->def->dim[i]);
        k->shape[k->n_dims++] = ns_dim_size(&d);
    }
}

/* The matrix of one expert, or of the whole tensor: leading dimensions are rows. */
static void set_mat(binder *k, const ns_tensor *t, ns_dtype dtype)
{
    int first = k->fused ? 1 : 0;
    int64_t rows = 1, cols = k->shape[k->n_dims - 1];
    for (int i = first; i < k->n_dims - 1; i++)
        rows *= k->shape[i];
    size_t stride = ns_dtype_row_bytes(dtype, (size_t)cols);
    k->b->mat = (ns_mat){ .dtype = dtype, .rows = (int)rows, .cols = (int)cols, .stride = stride, .global_scale = 1 };
    k->b->mat.data = t->data + (k->fused ? (size_t)k->expert * (size_t)rows * stride : 0);
    k->b->tensor = t;
    k->b->expert_index = k->fused ? k->expert : -1;
}

static int bind_plain(binder *k, const ns_tensor *t)
{
    if (check_shape(k, t, k->n_dims, k->shape) != 0 || check_scheme(k, t, NS_SCHEME_NONE) != 0)
        return -1;
    set_mat(k, t, t->dtype);
    return 0;
}

static int bind_input_scale(binder *k, const ns_tensor *t)
{
    float unused; /* activations are not quantised here; the scale only travels along */
    k->b->input_scale = find_companion(k->c->store, t, "input_scale");
    return k->b->input_scale ? read_scale(k, k->b->input_scale, true, &unused) : 0;
}

static int bind_fp8(binder *k, const ns_tensor *t)
{
    if (check_shape(k, t, k->n_dims, k->shape) != 0 || check_scheme(k, t, NS_SCHEME_FP8) != 0)
        return -1;
    set_mat(k, t, NS_F8_E4M3);
    if (need_companion(k, t, "weight_scale", &k->b->scale) != 0)
        return -1;
    return read_scale(k, k->b->scale, false, &k->b->mat.global_scale) == 0 ? bind_input_scale(k, t) : -1;
}

static int bind_nvfp4(binder *k, const ns_tensor *t)
{
    const int last = k->n_dims - 1;
    int64_t shape[4];
    if (k->shape[last] % 16 != 0)
        return refuse(k, t, "NVFP4 needs a width that is a multiple of 16");
    memcpy(shape, k->shape, sizeof shape);
    shape[last] = k->shape[last] / 2;
    if (check_shape(k, t, k->n_dims, shape) != 0 || check_scheme(k, t, NS_SCHEME_NVFP4) != 0)
        return -1;
    set_mat(k, t, NS_NVFP4);
    if (need_companion(k, t, "weight_scale", &k->b->scale) != 0 || need_companion(k, t, "weight_scale_2", &k->b->scale_2) != 0)
        return -1;
    shape[last] = k->shape[last] / 16;
    if (k->b->scale->dtype != NS_F8_E4M3)
        return refuse(k, k->b->scale, "block scales must be F8_E4M3");
    if (check_shape(k, k->b->scale, k->n_dims, shape) != 0)
        return -1;
    ns_mat *m = &k->b->mat;
    m->scale_stride = (size_t)shape[last];
    m->scale = k->b->scale->data + (k->fused ? (size_t)k->expert * (size_t)m->rows * m->scale_stride : 0);
    return read_scale(k, k->b->scale_2, false, &m->global_scale) == 0 ? bind_input_scale(k, t) : -1;
}

/* The scales of a quantised KV cache stand beside k_proj and v_proj, whatever those are stored as. */
static int bind_kv_scale(binder *k, const ns_tensor *t)
{
    k->b->kv_factor = 1;
    if (k->role == NS_W_K || k->role == NS_W_V)
        k->b->kv_scale = find_companion(k->c->store, t, k->role == NS_W_K ? "k_scale" : "v_scale");
    return k->b->kv_scale ? read_scale(k, k->b->kv_scale, false, &k->b->kv_factor) : 0;
}

static int bind_typed(binder *k, const ns_tensor *t)
{
    char why[200];
    bool may = k->def->quantisable;
    if (t->dtype == NS_F32 || t->dtype == NS_F16 || t->dtype == NS_BF16)
        return bind_plain(k, t);
    if (may && t->dtype == NS_F8_E4M3)
        return bind_fp8(k, t);
    if (may && t->dtype == NS_U8)
        return bind_nvfp4(k, t);
    snprintf(why, sizeof why, "type %s, expected F32, F16%s", ns_dtype_name(t->dtype), may ? ", BF16, F8_E4M3 or U8 (NVFP4)" : " or BF16");
    return refuse(k, t, why);
}

static int bind_weight(void *ctx, int layer, ns_role r, int expert)
{
    binder *k = ctx;
    k->layer = layer;
    k->expert = expert;
    k->role = r;
    k->def = ns_weight_get(r);
    k->b = ns_ckpt_slot(k->c, layer, r, expert);
    k->b->expert_index = -1;
    ns_weight_name(layer, r, expert, k->name, sizeof k->name);
    bool fused = false;
    const ns_tensor *t = find_name(k->c->store, k->name);
    if (!t && k->def->per_expert)
        fused = (t = find_fused(k->c->store, k->name)) != NULL;
    if (!t)
        return ns_fail(k->e, NS_EFORMAT, "%s: tensor %s is missing", k->c->dir, k->name);
    expected_shape(k, fused);
    return bind_kv_scale(k, t) == 0 ? bind_typed(k, t) : -1;
}

/* ---- what was used, and what was left over ---- */

static int by_address(const void *a, const void *b)
{
    const ns_tensor *x = *(const ns_tensor *const *)a, *y = *(const ns_tensor *const *)b;
    return (x > y) - (x < y);
}

static void add_used(ns_ckpt *c, const ns_tensor *t)
{
    if (t)
        c->used[c->n_used++] = t;
}

/* A fused tensor belongs to many experts: listed for the first only. */
static int collect(void *ctx, int layer, ns_role r, int expert)
{
    ns_ckpt *c = ctx;
    const ns_bound *b = ns_ckpt_slot(c, layer, r, expert);
    if (!b->mat.data || b->expert_index > 0)
        return 0;
    add_used(c, b->tensor);
    add_used(c, b->scale);
    add_used(c, b->scale_2);
    add_used(c, b->input_scale);
    add_used(c, b->kv_scale);
    return 0;
}

/* Known, and not needed: multi-token prediction. */
static bool ignored(const char *name)
{
    return strncmp(name, "mtp.", 4) == 0 || strstr(name, ".mtp.");
}

/* A weight inside a layer that the manifest lacks (biases of routed experts, say): what it would add cannot be left out. */
static bool matters(const char *name)
{
    const char *dot = strrchr(name, '.');
    return (strncmp(name, "backbone.layers.", 16) == 0 || strncmp(name, "model.layers.", 13) == 0) &&
           (strcmp(dot, ".weight") == 0 || strcmp(dot, ".bias") == 0);
}

static int check_unknown(const ns_ckpt *c, ns_err *e)
{
    enum { SHOWN = 6 };
    size_t n = 0;
    ns_buf list = { 0 };
    for (size_t i = 0; i < ns_store_count(c->store); i++) {
        const ns_tensor *t = ns_store_at(c->store, i);
        if (ignored(t->name) || bsearch(&t, c->used, c->n_used, sizeof *c->used, by_address))
            continue;
        if (matters(t->name)) {
            ns_buf_release(&list);
            return ns_fail(e, NS_EUNSUPPORTED, "%s: tensor %s: the architecture has no such weight, and computing without it would be wrong",
                           c->dir, t->name);
        }
        if (n++ < SHOWN)
            ns_buf_addf(&list, "%s%s", n > 1 ? ", " : "", t->name);
    }
    if (n && !list.failed)
        ns_log("%s: ignoring %zu tensors that the architecture does not know: %s%s", c->dir, n, list.data, n > SHOWN ? ", .." : "");
    ns_buf_release(&list);
    return 0;
}

int ns_ckpt_bind(ns_ckpt *c, ns_err *e)
{
    binder k = { .c = c, .e = e };
    if (alloc_rows(c, e) != 0 || ns_manifest_each(c->arch, bind_weight, &k) != 0)
        return -1;
    c->used = ns_arena_array(&c->arena, ns_store_count(c->store), sizeof *c->used);
    if (!c->used)
        return ns_fail(e, NS_ENOMEM, "%s: out of memory", c->dir);
    ns_manifest_each(c->arch, collect, c);
    qsort(c->used, c->n_used, sizeof *c->used, by_address);
    return check_unknown(c, e);
}
