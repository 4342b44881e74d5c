/* Inside ckpt/: finding the manifest's weights in the store. */
#ifndef NS_CKPT_BIND_H
#define NS_CKPT_BIND_H
#include "ckpt/ckpt.h"

/* Fills layer_weights and used; arch, quant and store are set. */
int ns_ckpt_bind(ns_ckpt *c, ns_err *e);
/* The weight's place, whether or not it is in this model; NULL when layer, role or expert is out of range. */
ns_bound *ns_ckpt_slot(const ns_ckpt *c, int layer, ns_role r, int expert);
#endif
