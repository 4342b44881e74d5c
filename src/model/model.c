#include "model/model.h"

#include <math.h>
#include <string.h>

#include "tensor/format.h"

/* A stored vector in F32, [n]; NULL (and no error) where the model has none. */
static int widen(ns_model *m, int layer, ns_role r, int expert, float **out, ns_err *e)
{
    const ns_bound *b = ns_ckpt_weight(m->ckpt, layer, r, expert);
    *out = NULL;
    if (!b)
        return 0;
    *out = ns_arena_array(&m->arena, (size_t)b->mat.cols, sizeof(float));
    if (!*out)
        return ns_fail(e, NS_ENOMEM, "binding the model: out of memory");
    ns_row_decode(&b->mat, 0, 0, b->mat.cols, *out);
    return 0;
}

/* conv1d.weight [channels, kernel] as [kernel, channels]: the kernels go over channels. */
static int widen_conv(ns_model *m, int layer, float **out, ns_err *e)
{
    const ns_bound *b = ns_ckpt_weight(m->ckpt, layer, NS_W_CONV, 0);
    int channels = b->mat.rows, k = b->mat.cols;
    float row[64];
    *out = ns_arena_array(&m->arena, (size_t)channels * (size_t)k, sizeof(float));
    if (!*out)
        return ns_fail(e, NS_ENOMEM, "binding the model: out of memory");
    if (k > 64)
        return ns_fail(e, NS_EUNSUPPORTED, "conv_kernel %d: at most 64", k);
    for (int c = 0; c < channels; c++) {
        ns_row_decode(&b->mat, c, 0, k, row);
        for (int j = 0; j < k; j++)
            (*out)[(size_t)j * (size_t)channels + (size_t)c] = row[j];
    }
    return 0;
}

static int widen_layer(ns_model *m, int layer, ns_err *e)
{
    ns_vectors *v = &m->vec[layer];
    const struct {
        ns_role role;
        float **to;
    } list[] = { { NS_W_NORM, &v->norm },
                 { NS_W_CONV_BIAS, &v->conv_b },
                 { NS_W_DT_BIAS, &v->dt_bias },
                 { NS_W_A_LOG, &v->a },
                 { NS_W_D, &v->d },
                 { NS_W_GATED_NORM, &v->gated_norm },
                 { NS_W_IN_PROJ_BIAS, &v->in_bias },
                 { NS_W_OUT_PROJ_BIAS, &v->out_bias },
                 { NS_W_Q_BIAS, &v->q_bias },
                 { NS_W_K_BIAS, &v->k_bias },
                 { NS_W_V_BIAS, &v->v_bias },
                 { NS_W_O_BIAS, &v->o_bias },
                 { NS_W_GATE_CORRECTION, &v->correction },
                 { NS_W_LATENT_IN_BIAS, &v->latent_in_bias },
                 { NS_W_LATENT_OUT_BIAS, &v->latent_out_bias },
                 { NS_W_SHARED_UP_BIAS, &v->shared_up_bias },
                 { NS_W_SHARED_DOWN_BIAS, &v->shared_down_bias },
                 { NS_W_UP_BIAS, &v->up_bias },
                 { NS_W_DOWN_BIAS, &v->down_bias } };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (ns_weight_exists(m->arch, layer, list[i].role) && widen(m, layer, list[i].role, 0, list[i].to, e) != 0)
            return -1;
    if (m->arch->layers[layer].kind == NS_LAYER_ATTENTION) {
        v->k_scale = ns_ckpt_weight(m->ckpt, layer, NS_W_K, 0)->kv_factor;
        v->v_scale = ns_ckpt_weight(m->ckpt, layer, NS_W_V, 0)->kv_factor;
    }
    for (int h = 0; v->a && h < m->arch->layers[layer].width[NS_AXIS_MAMBA_HEADS]; h++)
        v->a[h] = -expf(v->a[h]);
    if (ns_weight_exists(m->arch, layer, NS_W_CONV) && widen_conv(m, layer, &v->conv_w, e) != 0)
        return -1;
    return 0;
}

int ns_model_init(ns_model *m, const ns_ckpt *c, const ns_ops *ops, ns_pool *pool, ns_err *e)
{
    *m = (ns_model){ .ckpt = c, .arch = c->arch, .ops = ops, .pool = pool };
    m->vec = ns_arena_array(&m->arena, (size_t)c->arch->n_layers, sizeof *m->vec);
    if (!m->vec) {
        ns_fail(e, NS_ENOMEM, "binding the model: out of memory");
        goto fail;
    }
    for (int i = 0; i < c->arch->n_layers; i++)
        if (widen_layer(m, i, e) != 0)
            goto fail;
    if (widen(m, -1, NS_W_FINAL_NORM, 0, &m->final_norm, e) != 0)
        goto fail;
    return 0;
fail:
    ns_model_release(m);
    return -1;
}

ns_state *ns_model_state(const ns_model *m, const ns_cut *cut, int context, ns_err *e)
{
    return ns_state_new(m->arch, cut, m->kv, context, e);
}

int ns_model_unscaled(const ns_model *m)
{
    int n = 0;
    for (int i = 0; i < m->arch->n_layers; i++)
        n += m->arch->layers[i].kind == NS_LAYER_ATTENTION &&
             (!ns_ckpt_weight(m->ckpt, i, NS_W_K, 0)->kv_scale || !ns_ckpt_weight(m->ckpt, i, NS_W_V, 0)->kv_scale);
    return n;
}

void ns_model_release(ns_model *m)
{
    ns_arena_release(&m->arena);
    *m = (ns_model){ 0 };
}
