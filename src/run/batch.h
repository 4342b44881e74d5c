/* Sessions computed together: the tokens that each still has to compute go into common steps (ns_forward), at each session's own size. */
#ifndef NS_RUN_BATCH_H
#define NS_RUN_BATCH_H
#include "run/session_impl.h"

typedef struct ns_batch_item {
    ns_session *s;
    int n;         /* of its tokens not yet computed; all of them make logits of the last */
} ns_batch_item;

/* One step; at most NS_STEP_TOKENS tokens in all. The sessions' figures count it. On error every session of the step is empty. */
int ns_batch_step(const ns_batch_item *item, int n, ns_scratch *scratch, ns_err *e);
/* Tokens that the session has not computed. */
static inline int ns_session_pending(const ns_session *s)
{
    return s->n - s->state->len;
}
#endif
