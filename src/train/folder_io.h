/* Flat parameters from and to checkpoint folders. */
#ifndef NS_TRAIN_FOLDER_IO_H
#define NS_TRAIN_FOLDER_IO_H
#include "block/params.h"
#include "ckpt/ckpt.h"

/* Decodes every weight of an opened checkpoint (any stored type) into `flat` [p->count]. p is the plan of c->arch. */
int ns_params_load(const ns_params *p, const ns_ckpt *c, ns_real *flat, ns_err *e);
/* The config.json of a model that is written in plain `dtype` (NS_F32 or NS_BF16): `config` without quantisation, without multi-token
 * prediction, with the base type set. NULL when memory is out. */
json_t *ns_params_config(const json_t *config, ns_dtype dtype, ns_err *e);
/* An ordinary HF folder at `dir` (appears when complete): config.json (`config`, written as it is), the weights in the published names
 * (per-expert tensors, prefix backbone.) as `dtype` (NS_F32 or NS_BF16), and the text files (tokenizer*, chat_template*, special tokens,
 * generation_config) of `text_dir` (may be NULL). `extra` is called with the folder under construction to add files (nest.json,
 * router); may be NULL. */
typedef int ns_folder_extra_fn(void *ctx, const char *dir, ns_err *e);
int ns_params_save(const ns_params *p, const ns_real *flat, const json_t *config, ns_dtype dtype, const char *text_dir,
                   ns_folder_extra_fn *extra, void *ctx, const char *dir, ns_err *e);
#endif
