/* Optimisers over flat arrays. State for elements [lo, hi) only: ranks share the work and the memory of the moments. */
#ifndef NS_TRAIN_OPTIM_H
#define NS_TRAIN_OPTIM_H
#include "block/params.h"

typedef struct ns_adamw_opts {
    double lr, beta1, beta2, eps, weight_decay; /* Loshchilov and Hutter 2019, as torch.optim.AdamW */
} ns_adamw_opts;
ns_adamw_opts ns_adamw_defaults(void); /* lr 1e-3, .9, .98, 1e-8, 0 */

/* One step t >= 1 on n elements: decay, moments, bias-corrected update. `decay`: apply weight decay here. */
void ns_adamw_step(const ns_adamw_opts *o, int64_t t, size_t n, ns_real *w, const ns_real *g, ns_real *m, ns_real *v, bool decay);

/* Learning rate: linear warm-up from 0 over `warmup` steps to lr, then cosine to lr_min at `steps`. */
typedef struct ns_schedule {
    double lr, lr_min;
    int64_t warmup, steps;
} ns_schedule;
double ns_schedule_at(const ns_schedule *s, int64_t step); /* step counts from 0 */
#endif
