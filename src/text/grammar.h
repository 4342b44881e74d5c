/* Constrained decoding: a grammar over bytes, walked along an answer, and the tokens that may come next.
 *   ns_grammar        what is allowed; compiled once, immutable
 *   ns_grammar_walk   where an answer is in it
 *   ns_grammar_vocab  the vocabulary as a tree of bytes, made once per tokenizer, immutable
 * JSON texts are compact or with the usual white space (bounded, so that an answer cannot go on in blanks for ever). */
#ifndef NS_TEXT_GRAMMAR_H
#define NS_TEXT_GRAMMAR_H
#include <jansson.h>

#include "text/tokenizer.h"

typedef struct ns_grammar ns_grammar;
ns_grammar *ns_grammar_object(ns_err *e); /* any JSON object */
/* A value that the JSON Schema describes. A keyword that is not held (it would change what is allowed) is refused, by name and place. */
ns_grammar *ns_grammar_schema(const json_t *schema, ns_err *e);
/* One call of a function of `tools` (as in a chat request; flat ones of Responses too) in the markup of the Nemotron 3 template; of the one
 * named `only`, where that is not NULL. */
ns_grammar *ns_grammar_call(const json_t *tools, const char *only, ns_err *e);
void ns_grammar_free(ns_grammar *g);

typedef struct ns_grammar_vocab ns_grammar_vocab;
ns_grammar_vocab *ns_grammar_vocab_new(const ns_tokenizer *t, ns_err *e); /* special tokens are left out */
void ns_grammar_vocab_free(ns_grammar_vocab *v);

typedef struct ns_grammar_walk ns_grammar_walk;
ns_grammar_walk *ns_grammar_walk_new(const ns_grammar *g, ns_err *e);
void ns_grammar_walk_free(ns_grammar_walk *w);
/* The next bytes of the answer. -1: not allowed, and the walk is as before. */
int ns_grammar_take(ns_grammar_walk *w, const char *bytes, size_t n);
bool ns_grammar_complete(const ns_grammar_walk *w); /* the answer may end here */
/* Bit id for every token of the vocabulary whose bytes may come next; the others' bits are cleared. None where the answer is complete and
 * nothing may follow; else, over a vocabulary with every byte, there is one. */
void ns_grammar_mask(ns_grammar_walk *w, const ns_grammar_vocab *v, uint64_t *bits);
#endif
