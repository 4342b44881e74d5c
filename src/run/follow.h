/* Inside run/: a late handover. A second state, of the size that comes next, reads what a session writes while it is written: on a thread and
 * cores of its own where there are two or more, else between the session's steps.
 * It stops at places where a stretch may be cut (stretch.h), so what it computes is what a handover by prefill computes, bit for bit,
 * however far it gets at a time. */
#ifndef NS_RUN_FOLLOW_H
#define NS_RUN_FOLLOW_H
#include "run/engine.h"

typedef struct ns_follower ns_follower;

/* ids are read where they are. The cut is copied. */
ns_follower *ns_follower_new(const ns_engine *en, const ns_cut *cut, int context, const int *ids, ns_err *e);
/* Waits for the step in hand. */
void ns_follower_free(ns_follower *f);
const ns_cut *ns_follower_cut(const ns_follower *f);
/* n tokens are there: what can be read of them is to be read. An error of an earlier step shows here. */
int ns_follower_read(ns_follower *f, int n, ns_err *e);
/* Tokens that it has read, or may be reading. */
int ns_follower_asked(ns_follower *f);
int ns_follower_done(ns_follower *f);
/* The model for steps beside it: with the cores that it leaves. */
const ns_model *ns_follower_beside(ns_follower *f);
/* Waits, reads all of n tokens but the last piece on all cores, and hands over plan and state, the caller's from here on; frees f in any case. */
int ns_follower_take(ns_follower *f, int n, ns_plan **plan, ns_state **state, ns_err *e);
#endif
