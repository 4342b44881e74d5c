/* Constrained decoding: a grammar over bytes, walked along an answer, and the tokens that may come next.
 *   ns_grammar        what is allowed; compiled once, immutable
 *   ns_grammar_walk   where an answer is in it
 *   ns_grammar_vocab  the vocabulary as a tree of bytes, made once per tokenizer, immutable
 * JSON texts are compact or with the usual white space: at the beginning, after '{', '[', ',' and ':', and before '}' and ']', at most one
 * newline and then 20 blanks. Strings are UTF-8 without control characters; numbers have at most 18 digits before the point, 24 behind it,
 * and exponents to 199.
 *
 * A walk follows all readings of the answer at once: at most 256, to a depth of 128 calls (about as many nested values); what would go
 * deeper than it could be closed again is not allowed. So an answer along the masks never gets stuck. (A schema whose branches stay alike
 * in more than 256 ways loses the last of them; only there may a token of a mask be refused when it is taken.) */
#ifndef NS_TEXT_GRAMMAR_H
#define NS_TEXT_GRAMMAR_H
#include <jansson.h>

#include "text/tokenizer.h"

typedef struct ns_grammar ns_grammar;
ns_grammar *ns_grammar_object(ns_err *e); /* any JSON object */
/* A value that the JSON Schema describes. Held: type, enum, const, properties, required, additionalProperties, items, prefixItems, minItems,
 * maxItems, minLength, maxLength, minimum and maximum and their exclusive twins (whole numbers), anyOf, oneOf, allOf of objects, $ref within
 * the schema. Other keywords of the standard that would change what is allowed are refused, by name and place; all else is an annotation.
 * What is allowed is valid; not all that is valid is allowed: properties come in the schema's order, then others, whose names are then
 * written without escapes; names and given values are spelled in one way; a schema with keywords for objects only means objects. oneOf is
 * anyOf: that only one branch fits is not checked. */
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
bool ns_grammar_complete(const ns_grammar_walk *w); /* the answer may end here: beside the mask, the caller allows the end of a turn */
/* Bit id for every token of the vocabulary whose bytes may come next; the others' bits are cleared. None where the answer is complete and
 * nothing may follow; else, over a vocabulary with every byte, there is one. */
void ns_grammar_mask(ns_grammar_walk *w, const ns_grammar_vocab *v, uint64_t *bits);
#endif
