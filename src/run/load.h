/* What "auto" means: which size thinks and which answers, so that the time to the first token and the tokens/s of a sequence stay at their
 * targets. Under load the thought goes to smaller sizes first, then the answer; when load falls it comes back, later than it went (so that
 * it does not swing). Pure: measurements in, sizes out, no clock of its own. */
#ifndef NS_RUN_LOAD_H
#define NS_RUN_LOAD_H
#include <stdbool.h>

typedef struct ns_load {
    double first_token, token_rate; /* targets; 0: none. Without any the sizes stay full */
    int n_sizes;                    /* 0 is the smallest, n_sizes - 1 the full size */
    int long_queue;                 /* so many waiting requests count as a first token that comes too late; ns_load_init: 8 */
    int think, answer;              /* sizes now */
    double calm_since;              /* when the last measurement that missed a target was, in the caller's clock */
    double spare_since;             /* when the last one was that was not twice as good */
    double first_token_now, token_rate_now; /* smoothed; 0: nothing yet, since the sizes changed last */
    double changed;                 /* when that was */
    bool went_up;                   /* that was a step up */
    double calm;                    /* seconds without a miss before a step up: longer after steps up that did not last */
} ns_load;

void ns_load_init(ns_load *l, int n_sizes, double first_token, double token_rate);
/* One answer's (or one window's) figures; 0 for what was not measured. `waiting`: requests in the queue. Call it about once a second also
 * when there is nothing to measure: it is then that the sizes come back. */
void ns_load_saw(ns_load *l, double now, double first_token, double token_rate, int waiting);
#endif
