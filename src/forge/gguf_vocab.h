/* Inside forge/: the tokenizer of a folder as GGUF keys. */
#ifndef NS_FORGE_GGUF_VOCAB_H
#define NS_FORGE_GGUF_VOCAB_H
#include "arch/arch.h"
#include "store/gguf.h"

/* Writes tokenizer.ggml.*, the chat template, and tokenizer.huggingface.json (the file itself, from which nestar restores it). A folder
 * without tokenizer.json gets "no_vocab". `pre`: NULL finds the name from the regular expression, an unknown one is an error that says
 * how to give it. */
int ns_gguf_put_vocab(ns_gguf_writer *w, const char *dir, const ns_arch *a, const char *pre, ns_err *e);
#endif
