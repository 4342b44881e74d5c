/* What a loaded tokenizer consists of. Private to the tokenizer's own files. */
#ifndef NS_TEXT_TOKENIZER_IMPL_H
#define NS_TEXT_TOKENIZER_IMPL_H
#include "text/pretok.h"
#include "text/tokenizer.h"
#include "text/tokenizer_added.h"
#include "text/tokenizer_bpe.h"
#include "text/tokenizer_vocab.h"

struct ns_tokenizer {
    ns_vocab vocab;
    ns_bpe bpe;
    ns_pretok *pretok;
    /* Looked for one after the other, as in Hugging Face: `normalized` false first, over the whole text, then true, in what
     * lies between. */
    ns_added_set added[2];
    bool ignore_merges; /* a piece that is a word of the vocabulary is that token, whatever the merges say */
    bool nfc;
};

/* The token of a whole piece, or -1: what ignore_merges looks up. */
int ns_tokenizer_find_piece(const ns_tokenizer *t, const char *p, size_t n);
#endif
