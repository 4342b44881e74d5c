/* ns_answer from inside: what tests and commands need beside nestar.h. */
#ifndef NS_RUN_ANSWER_H
#define NS_RUN_ANSWER_H
#include "run/pace.h"
#include "run/session_impl.h"

/* As ns_answer_new with another clock; NULL: the machine's. */
ns_answer *ns_answer_new_at(ns_session *s, const ns_answer_opts *opts, const ns_answer_clock *clock, ns_err *e);
/* The machine's own `now`. */
double ns_answer_now(void *ctx, const char *size, int tokens);
/* What is wrong with the options themselves. */
int ns_answer_check(const ns_answer_opts *o, ns_err *e);
/* The sizes of the thought and of the answer as a deadline chose them or the plan has them; NULL where the session's own stays. */
const char *ns_answer_size(const ns_answer *a, enum ns_phase phase);

/* For who computes a session's tokens in common steps (ns_session.by_steps): what the next token needs. */
enum ns_answer_step {
    NS_ANSWER_COMPUTE, /* the session's pending tokens, at the size that it has now */
    NS_ANSWER_DRAW,    /* ns_answer_next only draws, from the session's logits */
    NS_ANSWER_PUT,     /* ns_answer_next puts one in */
    NS_ANSWER_END
};
/* Brings the session to the size of the next token; the prompt must be there, and computed. Unless it says COMPUTE, ns_answer_next does what
 * it says. */
int ns_answer_ready(ns_answer *a, enum ns_answer_step *step, ns_err *e);
/* So many of its tokens were computed, in so long. */
void ns_answer_computed(ns_answer *a, int tokens, double seconds);
/* The rest at this size, whatever the plan says; the text is the caller's while the answer lives. */
int ns_answer_use(ns_answer *a, const char *size, ns_err *e);
/* The mark that may still open a thought although an answer comes next; -1: none. */
int ns_answer_may_open(const ns_answer *a);
#endif
