/* The config.json of a slice: the parent's, with the keys that a cut changes. Widths that differ between layers of a kind become
 * block_configs, the form of the published Puzzle models, which arch reads back. */
#include <string.h>

#include "arch/config.h"
#include "nest/cut.h"

typedef struct job {
    const ns_arch *a;
    const ns_cut *c;
    json_t *text; /* the slice's config being edited (the language model's part) */
    ns_err *e;
} job;

static int oom(ns_err *e)
{
    return ns_fail(e, NS_ENOMEM, "config.json: out of memory");
}

static int set(const job *j, json_t *obj, const char *key, json_t *value)
{
    return json_object_set_new(obj, key, value) == 0 ? 0 : oom(j->e);
}

static bool kept(const job *j, int layer)
{
    return j->c->layer[layer].keep;
}

/* The range of an axis over the kept layers that have it; false when there is none. */
static bool range_of(const job *j, ns_axis axis, int *lo, int *hi)
{
    bool any = false;
    for (int i = 0; i < j->a->n_layers; i++) {
        if (!kept(j, i) || !ns_axis_of_kind(axis, j->a->layers[i].kind))
            continue;
        int w = j->c->layer[i].width[axis];
        *lo = !any || w < *lo ? w : *lo;
        *hi = !any || w > *hi ? w : *hi;
        any = true;
    }
    return any;
}

static bool differs(const job *j)
{
    const ns_layer *moe = NULL;
    int lo, hi;
    for (int x = 0; x < NS_AXIS_COUNT; x++)
        if (range_of(j, (ns_axis)x, &lo, &hi) && lo != hi)
            return true;
    for (int i = 0; i < j->a->n_layers; i++) {
        const ns_layer *l = &j->a->layers[i];
        if (!kept(j, i) || l->kind != NS_LAYER_MOE)
            continue;
        if (moe && moe->topk != l->topk)
            return true;
        moe = l;
    }
    return false;
}

/* A width of 0 is a shared expert that is not there: n_shared_experts says so, its width key stays as it is. */
static int set_widths(const job *j)
{
    int lo, hi;
    for (int x = 0; x < NS_AXIS_COUNT; x++)
        if (range_of(j, (ns_axis)x, &lo, &hi) && hi > 0 &&
            set(j, j->text, ns_config_key(j->text, ns_axis_key((ns_axis)x)), json_integer(hi)) < 0)
            return -1;
    return set(j, j->text, "hidden_size", json_integer(ns_cut_hidden(j->c)));
}

/* ---- the list of layers ---- */

/* Removes the dropped layers' entries; a list of another length is not one entry per layer and stays. */
static void drop_entries(const job *j, json_t *list)
{
    if (json_array_size(list) != (size_t)j->a->n_layers)
        return;
    for (int i = j->a->n_layers - 1; i >= 0; i--)
        if (!kept(j, i))
            json_array_remove(list, (size_t)i);
}

static int set_layers(const job *j)
{
    char pattern[NS_MAX_LAYERS + 1];
    int n = 0;
    for (int i = 0; i < j->a->n_layers; i++)
        if (kept(j, i))
            pattern[n++] = j->a->layers[i].kind;
    pattern[n] = 0;
    if (n == j->a->n_layers)
        return 0;
    drop_entries(j, json_object_get(j->text, "layers_block_type"));
    drop_entries(j, json_object_get(j->text, "layer_types"));
    drop_entries(j, json_object_get(j->text, "block_configs"));
    if (json_is_string(json_object_get(j->text, "hybrid_override_pattern")) &&
        set(j, j->text, "hybrid_override_pattern", json_string(pattern)) < 0)
        return -1;
    if (json_object_get(j->text, "num_hidden_layers") && set(j, j->text, "num_hidden_layers", json_integer(n)) < 0)
        return -1;
    return 0;
}

/* ---- block_configs ---- */

static int set_block(const job *j, json_t *block, int layer)
{
    const ns_layer *l = &j->a->layers[layer];
    const int *w = j->c->layer[layer].width;
    if (!json_object_get(block, "block_type") && set(j, block, "block_type", json_string(ns_config_kind_name(l->kind))) < 0)
        return -1;
    for (int x = 0; x < NS_AXIS_COUNT; x++) {
        const char *key = ns_axis_key((ns_axis)x);
        /* the hidden size is the model's; a block repeats it only where it already did */
        bool wanted = x == NS_AXIS_HIDDEN ? json_object_get(block, key) != NULL : ns_axis_of_kind((ns_axis)x, l->kind);
        if (wanted && w[x] > 0 && set(j, block, key, json_integer(w[x])) < 0)
            return -1;
    }
    if (l->kind != NS_LAYER_MOE)
        return 0;
    if (set(j, block, "n_shared_experts", json_integer(w[NS_AXIS_SHARED_FFN] > 0)) < 0)
        return -1;
    return set(j, block, "num_experts_per_tok", json_integer(l->topk));
}

static int set_blocks(const job *j)
{
    json_t *list = json_object_get(j->text, "block_configs");
    size_t at = 0;
    if (!json_is_array(list)) {
        if (set(j, j->text, "block_configs", json_array()) < 0)
            return -1;
        list = json_object_get(j->text, "block_configs");
    }
    for (int i = 0; i < j->a->n_layers; i++) {
        if (!kept(j, i))
            continue;
        if (at == json_array_size(list) && json_array_append_new(list, json_object()) < 0)
            return oom(j->e);
        if (set_block(j, json_array_get(list, at++), i) < 0)
            return -1;
    }
    return 0;
}

/* Readers that know only nemotron_h would build the wrong shapes: say so in the type, and drop the pointers to their code. */
static int set_type(const job *j, json_t *root)
{
    const char *type = json_string_value(json_object_get(j->text, "model_type"));
    if (type && strcmp(type, "nemotron_h_puzzle") == 0)
        return 0;
    json_object_del(root, "auto_map");
    if (j->text != root)
        return set(j, j->text, "model_type", json_string("nemotron_h_puzzle"));
    if (set(j, root, "architectures", json_pack("[s]", "NemotronHPuzzleForCausalLM")) < 0)
        return -1;
    return set(j, root, "model_type", json_string("nemotron_h_puzzle"));
}

json_t *ns_cut_config(const ns_arch *a, const ns_cut *c, ns_err *e)
{
    json_t *root = NULL;
    job j = { a, c, NULL, e };
    if (ns_cut_validate(a, c, NULL, NULL, e) < 0)
        return NULL;
    root = json_deep_copy(a->config);
    if (!root) {
        oom(e);
        return NULL;
    }
    j.text = (json_t *)(uintptr_t)ns_config_text(root); /* of our own copy */
    bool blocks = json_is_array(json_object_get(j.text, "block_configs")), hetero = differs(&j);
    if (set_layers(&j) < 0 || set_widths(&j) < 0 || ((blocks || hetero) && set_blocks(&j) < 0) ||
        (hetero && set_type(&j, root) < 0)) {
        json_decref(root);
        return NULL;
    }
    return root;
}
