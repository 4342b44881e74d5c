/* The dense FFN: y = down(m relu(up x)^2). Inference twin: src/model/moe.c. */
#include "block/dense.h"

static size_t width(const ns_arch *a, int layer)
{
    return (size_t)a->layers[layer].width[NS_AXIS_DENSE_FFN];
}

static size_t saved(const ns_arch *a, int layer, int n_tokens, int n_seqs)
{
    (void)n_seqs;
    return (size_t)n_tokens * width(a, layer);
}

static size_t scratch(const ns_arch *a, int layer, int n_tokens, int n_seqs)
{
    (void)n_seqs;
    return 2 * (size_t)n_tokens * width(a, layer);
}

static ns_ffn ffn_of(const ns_block_ctx *c)
{
    const int live = ns_live_width(c, NS_AXIS_DENSE_FFN);
    return (ns_ffn){ .up = ns_dense_of(c, NS_W_UP, NS_W_UP_BIAS, 0, c->hidden, live),
                     .down = ns_dense_of(c, NS_W_DOWN, NS_W_DOWN_BIAS, 0, live, c->hidden),
                     .mask = ns_mask_of(c, NS_AXIS_DENSE_FFN),
                     .expert = -1,
                     .ld = (int)width(c->arch, c->layer) };
}

static void forward(const ns_block_ctx *c, const ns_real *x, ns_real *y, ns_real *u)
{
    const ns_ffn f = ffn_of(c);
    ns_ffn_forward(c, &f, c->seqs->n_tokens, x, c->arch->hidden_size, u, c->scratch, y, c->arch->hidden_size);
}

static void backward(const ns_block_ctx *c, const ns_real *x, const ns_real *dy, const ns_real *u, ns_real *dx)
{
    const ns_ffn f = ffn_of(c);
    const int n = c->seqs->n_tokens, h = c->arch->hidden_size;
    ns_ffn_backward(c, &f, n, x, h, dy, h, NULL, u, c->scratch, c->scratch + (size_t)n * (size_t)f.ld, NULL, false, dx, h);
}

const ns_mixer ns_mixer_mlp = { saved, scratch, NULL, forward, backward };
