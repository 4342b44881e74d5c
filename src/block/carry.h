/* What sequences' beginnings leave for their continuations, when one forward computes the beginnings (under one size's mask) and another
 * goes on from there (under another's): keys and values, the convolution's last inputs, the scan's state. For the continuation these are
 * constants: no gradient goes back through them. The engine's twin is a session whose size changes and whose cache is kept.
 *
 * A forward of the beginnings writes it (ns_seqs.leave), forward and backward of the continuations read it (ns_seqs.from). Both have the
 * same number of sequences in the same order; a beginning may have no tokens, then its continuation is an ordinary sequence. */
#ifndef NS_BLOCK_CARRY_H
#define NS_BLOCK_CARRY_H
#include "base/err.h"
#include "block/block.h"

struct ns_carry {
    const int *start;  /* [n_seqs + 1] of the beginnings: theirs, borrowed */
    ns_real **layer;   /* [n_layers] what the layer's mixer leaves, in its own layout; NULL where nothing goes from token to token */
    ns_real *memory;
    size_t room;       /* elements of memory */
};

/* Room for beginnings of at most n_tokens tokens in n_seqs sequences. Starts from a zeroed struct, and never shrinks. */
int ns_carry_reserve(ns_carry *c, const ns_arch *a, int n_tokens, int n_seqs, ns_err *e);
void ns_carry_release(ns_carry *c);
/* Before these beginnings: everything is zero. */
void ns_carry_begin(ns_carry *c, const ns_arch *a, const ns_seqs *beginnings);
#endif
