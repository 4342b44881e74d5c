/* Errors. A function that can fail returns 0 or -1 (or a pointer or NULL) and fills the ns_err its caller owns.
 * While unwinding, a caller may put context in front: "model.safetensors: layer 12 in_proj: shape ..".
 * The first failure wins: ns_fail does not overwrite an error that is already set. A NULL err is allowed everywhere. */
#ifndef NS_BASE_ERR_H
#define NS_BASE_ERR_H
#include <stdarg.h>

#include "nestar.h" /* struct ns_err and its codes are public */

#define NS_PRINTF(a, b) __attribute__((format(printf, a, b)))

/* Sets code and message; returns -1 so that `return ns_fail(..)` reads as one step. */
int ns_fail(ns_err *e, enum ns_code code, const char *fmt, ...) NS_PRINTF(3, 4);
/* The same with ": " and strerror(errno) appended, code NS_EIO. */
int ns_fail_errno(ns_err *e, const char *fmt, ...) NS_PRINTF(2, 3);
/* Puts "context: " in front of the message; returns -1. */
int ns_err_wrap(ns_err *e, const char *fmt, ...) NS_PRINTF(2, 3);
#endif
