/* Inside nest/: what variants.c and nest_file.c share. */
#ifndef NS_NEST_VARIANTS_IMPL_H
#define NS_NEST_VARIANTS_IMPL_H
#include "nest/variants.h"

void ns_variant_release(ns_variant *v);
/* Takes over *item, also when it fails. */
int ns_variants_append(ns_variants *out, ns_variant *item, ns_err *e);
/* Refuses a value that is no object, and a key that is not in the NULL-terminated list, by name. */
int ns_nest_check_keys(const json_t *obj, const char *const *known, ns_err *e);
/* Appends the variants that nest.json states, and its router. */
int ns_nest_read(const ns_arch *a, const json_t *nest, ns_variants *out, ns_err *e);
#endif
