/* Reading config.json: where the language model's keys are, which spelling of a key counts, and typed look-ups that name the key
 * at fault. Shared by the parser (arch) and by the writer of a slice's config (nest). */
#ifndef NS_ARCH_CONFIG_H
#define NS_ARCH_CONFIG_H
#include <stdbool.h>

#include "base/err.h"
#include "base/json.h"
#include "base/mem.h"

enum { NS_MAX_LAYERS = 1024 };

/* The object that holds the language model's keys: `cfg` itself, or its text_config (llm_config) where the file nests. */
const json_t *ns_config_text(const json_t *cfg);
/* The spelling of `key` that counts in this object: a legacy alias wins over the modern name (as in transformers), other aliases
 * stand in where the modern name is missing. A key set to null counts as missing. */
const char *ns_config_key(const json_t *text, const char *key);

/* As ns_json_*, through ns_config_key. `need` refuses a missing key. */
int ns_config_need(const json_t *text, const char *key, int lo, int hi, int *out, ns_err *e);
int ns_config_int(const json_t *text, const char *key, int lo, int hi, int dflt, int *out, ns_err *e);
int ns_config_real(const json_t *text, const char *key, double lo, double hi, double dflt, double *out, ns_err *e);
int ns_config_bool(const json_t *text, const char *key, bool dflt, bool *out, ns_err *e);

/* Refuses settings that would change the forward pass in a way this engine does not compute. */
int ns_config_refuse(const json_t *text, ns_err *e);
/* The same for the keys that block_configs may set per layer. */
int ns_config_refuse_layer(const json_t *layer, ns_err *e);

/* The layer kinds, one character each (NUL-terminated, in the arena), from block_configs, layers_block_type and
 * hybrid_override_pattern; those present must agree with each other and with num_hidden_layers. */
int ns_config_kinds(const json_t *text, ns_arena *arena, char **kinds, int *n, ns_err *e);
/* Entry i of block_configs, or NULL where the config has none. */
const json_t *ns_config_block(const json_t *text, int i);

/* 'M' and "mamba" (or "linear_attention"); 0 when unknown. */
char ns_config_kind_of(const char *block_type);
const char *ns_config_kind_name(char kind);
#endif
