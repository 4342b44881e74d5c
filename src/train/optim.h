/* Optimisers over flat arrays: pure arithmetic on the part of the array that the caller gives. */
#ifndef NS_TRAIN_OPTIM_H
#define NS_TRAIN_OPTIM_H
#include "block/blas.h"
#include "block/params.h"

typedef struct ns_adamw_opts {
    double lr, beta1, beta2, eps, weight_decay; /* Loshchilov and Hutter 2019, as torch.optim.AdamW */
} ns_adamw_opts;
ns_adamw_opts ns_adamw_defaults(void); /* lr 1e-3, .9, .98, 1e-8, 0 */

/* One step t >= 1 on n elements: decay, moments, bias-corrected update. `decay`: apply weight decay here. */
void ns_adamw_step(const ns_adamw_opts *o, int64_t t, size_t n, ns_real *w, const ns_real *g, ns_real *m, ns_real *v, bool decay);

/* Muon (Jordan and others 2024): momentum, then the nearest orthogonal matrix by Newton-Schulz iterations. The update is scaled by
 * 0.2 sqrt(max(rows, cols)), the size of AdamW's, so that the same learning rate and weight decay fit (Liu and others 2025). */
typedef struct ns_muon_opts {
    double lr, momentum, weight_decay;
} ns_muon_opts;
enum { NS_MUON_ITERATIONS = 5 };

/* One step on one matrix. m: its momentum; scratch: of ns_muon_scratch elements. */
size_t ns_muon_scratch(int rows, int cols);
void ns_muon_step(const ns_muon_opts *o, const ns_blas *b, int rows, int cols, ns_real *w, const ns_real *g, ns_real *m, ns_real *scratch);

/* Learning rate: linear warm-up over `warmup` steps, the last of which has lr, then cosine to lr_min at `steps`. */
typedef struct ns_schedule {
    double lr, lr_min;
    int64_t warmup, steps;
} ns_schedule;
double ns_schedule_at(const ns_schedule *s, int64_t step); /* step counts from 0 */
#endif
