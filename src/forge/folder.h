/* The files of a checkpoint folder that are not tensors. For whoever writes folders: forge/ and train/. */
#ifndef NS_FORGE_FOLDER_H
#define NS_FORGE_FOLDER_H
#include "base/json.h"
#include "ckpt/ckpt.h"

/* Writes dir/name as transformers does: two spaces, sorted keys, a final newline; the largest double, which stands for an
 * infinity since ns_json_open read it, as Python's Infinity. */
int ns_folder_json(const char *dir, const char *name, const json_t *v, ns_err *e);
/* Copies the tokenizer's files, the chat template and generation_config.json, those that are there. */
int ns_folder_copy_text(const char *from, const char *to, ns_err *e);
/* All of a checkpoint folder but the weights, for a cut of `c`: config.json, the quantisation config, the text files. Layers and
 * experts are renumbered; multi-token prediction is left out. `plain`: "F32", "BF16" or "F16" where all weights are written as that: then the
 * config says so and there is no quantisation config; else NULL. */
int ns_folder_describe(const ns_ckpt *c, const ns_cut *cut, const char *plain, const char *dir, ns_err *e);
/* What was written must open: headers only, so this is cheap. */
int ns_folder_check(const char *dir, ns_err *e);
/* Copies nest.json and the router's weights, those that are there: for results that keep every axis as it was. */
int ns_folder_copy_nest(const char *from, const char *to, ns_err *e);
#endif
