/* The number type of the differentiable blocks. Training computes in float; the gradient tests compile the same sources with
 * -DNS_REAL_DOUBLE, so that finite differences in double check the very code that trains. */
#ifndef NS_BLOCK_REAL_H
#define NS_BLOCK_REAL_H
#include <math.h>

#ifdef NS_REAL_DOUBLE
typedef double ns_real;
#define NS_R(fn) fn /* NS_R(exp)(x) */
#else
typedef float ns_real;
#define NS_R(fn) fn##f
#endif

/* Loops worth several instruction sets carry this; the system picks one at start. Not under sanitizers: their run-time is not up when
 * the loader resolves the choice. */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(NS_NO_CLONES)
#define NS_CLONES __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define NS_CLONES
#endif
#endif
