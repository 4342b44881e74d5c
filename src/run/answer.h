/* ns_answer from inside: what tests and commands need beside nestar.h. */
#ifndef NS_RUN_ANSWER_H
#define NS_RUN_ANSWER_H
#include "run/pace.h"
#include "run/session_impl.h"

/* As ns_answer_new with another clock; NULL: the machine's. */
ns_answer *ns_answer_new_at(ns_session *s, const ns_answer_opts *opts, const ns_answer_clock *clock, ns_err *e);
/* The sizes of the thought and of the answer as a deadline chose them or the plan has them; NULL where the session's own stays. */
const char *ns_answer_size(const ns_answer *a, enum ns_phase phase);
#endif
