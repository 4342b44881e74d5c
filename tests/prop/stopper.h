/* Interrupts a training run after some steps, as Ctrl-C would: on_step, on_step_ctx and interrupted of ns_train_opts. */
#ifndef NS_TESTS_STOPPER_H
#define NS_TESTS_STOPPER_H
#include <jansson.h>

struct stopper {
    int left; /* steps until the interruption */
    volatile int flag;
};

static inline void stopper_step(void *ctx, const json_t *line)
{
    struct stopper *s = ctx;
    (void)line;
    if (--s->left == 0)
        s->flag = 1;
}
#endif
