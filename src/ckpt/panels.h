/* Inside ckpt/: matrices in panels. A smaller size reads the first columns of a matrix; of a row that it reads in part the processor
 * fetches the rest all the same. Where the weights are in memory of our own, they are laid out so that a size's columns lie together. */
#ifndef NS_CKPT_PANELS_H
#define NS_CKPT_PANELS_H
#include "ckpt/ckpt.h"

/* Lays out every matrix whose columns the named sizes cut to a prefix, in place, and gives its ns_mat the panels. The store must have been
 * loaded, not mapped; the tensors' own bytes are no longer what their file says. The embedding, read by rows, stays as it is. */
int ns_ckpt_lay_out(ns_ckpt *c, ns_err *e);
#endif
