/* The router's weights: router.safetensors, beside nest.json. */
#ifndef NS_CKPT_ROUTER_FILE_H
#define NS_CKPT_ROUTER_FILE_H
#include "nest/router.h"

/* AXIS.fc1.weight [inner, budgets] and AXIS.fc2.weight [slots * choices, inner] of every axis, F32. Reading refuses what is missing, what
 * is there too many, another shape or type, infinities and NaN, by name. */
int ns_router_read(ns_router *r, const char *path, ns_err *e);
int ns_router_write(const ns_router *r, const char *path, ns_err *e);
/* What reading back what was written would give: the weights rounded to F32. */
void ns_router_round(ns_router *r);
#endif
