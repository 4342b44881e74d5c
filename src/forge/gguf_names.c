#include "forge/gguf_names.h"

#include <stdio.h>
#include <string.h>

const ns_gguf_place ns_gguf_places[NS_GGUF_PLACES] = {
    { NS_W_EMBED, "token_embd.weight", NS_GGUF_MATRIX },
    { NS_W_FINAL_NORM, "output_norm.weight", NS_GGUF_VECTOR },
    { NS_W_LM_HEAD, "output.weight", NS_GGUF_MATRIX },
    { NS_W_NORM, "attn_norm.weight", NS_GGUF_VECTOR },
    { NS_W_IN_PROJ, "ssm_in.weight", NS_GGUF_MATRIX },
    { NS_W_CONV, "ssm_conv1d.weight", NS_GGUF_PLAIN_MATRIX },
    { NS_W_CONV_BIAS, "ssm_conv1d.bias", NS_GGUF_VECTOR },
    { NS_W_DT_BIAS, "ssm_dt.bias", NS_GGUF_VECTOR },
    { NS_W_A_LOG, "ssm_a", NS_GGUF_NEG_EXP_ONE },
    { NS_W_D, "ssm_d", NS_GGUF_VECTOR_ONE },
    { NS_W_GATED_NORM, "ssm_norm.weight", NS_GGUF_GROUPED },
    { NS_W_OUT_PROJ, "ssm_out.weight", NS_GGUF_MATRIX },
    { NS_W_Q, "attn_q.weight", NS_GGUF_MATRIX },
    { NS_W_Q_BIAS, "attn_q.bias", NS_GGUF_VECTOR },
    { NS_W_K, "attn_k.weight", NS_GGUF_MATRIX },
    { NS_W_K_BIAS, "attn_k.bias", NS_GGUF_VECTOR },
    { NS_W_V, "attn_v.weight", NS_GGUF_MATRIX },
    { NS_W_V_BIAS, "attn_v.bias", NS_GGUF_VECTOR },
    { NS_W_O, "attn_output.weight", NS_GGUF_MATRIX },
    { NS_W_O_BIAS, "attn_output.bias", NS_GGUF_VECTOR },
    { NS_W_GATE, "ffn_gate_inp.weight", NS_GGUF_PLAIN_MATRIX },
    { NS_W_GATE_CORRECTION, "exp_probs_b.bias", NS_GGUF_VECTOR },
    { NS_W_LATENT_IN, "ffn_latent_down.weight", NS_GGUF_MATRIX },
    { NS_W_LATENT_OUT, "ffn_latent_up.weight", NS_GGUF_MATRIX },
    { NS_W_EXPERT_UP, "ffn_up_exps.weight", NS_GGUF_MATRIX },
    { NS_W_EXPERT_DOWN, "ffn_down_exps.weight", NS_GGUF_MATRIX },
    { NS_W_SHARED_UP, "ffn_up_shexp.weight", NS_GGUF_MATRIX },
    { NS_W_SHARED_DOWN, "ffn_down_shexp.weight", NS_GGUF_MATRIX },
    { NS_W_UP, "ffn_up.weight", NS_GGUF_MATRIX },
    { NS_W_UP_BIAS, "ffn_up.bias", NS_GGUF_VECTOR },
    { NS_W_DOWN, "ffn_down.weight", NS_GGUF_MATRIX },
    { NS_W_DOWN_BIAS, "ffn_down.bias", NS_GGUF_VECTOR },
};

void ns_gguf_place_name(const ns_gguf_place *p, int layer, const char *tail, char out[NS_GGUF_NAME])
{
    const int stem = (int)(strlen(p->name) - (tail ? strlen("weight") : 0));
    if (layer < 0)
        snprintf(out, NS_GGUF_NAME, "%.*s%s", stem, p->name, tail ? tail : "");
    else
        snprintf(out, NS_GGUF_NAME, "blk.%d.%.*s%s", layer, stem, p->name, tail ? tail : "");
}

int ns_gguf_place_shape(const ns_gguf_place *p, int n_dims, int rows, int cols, int experts, int groups, uint64_t ne[NS_GGUF_MAX_DIMS])
{
    ne[0] = (uint64_t)cols;
    ne[1] = (uint64_t)rows;
    ne[2] = (uint64_t)experts;
    switch (p->form) {
    case NS_GGUF_VECTOR_ONE:
    case NS_GGUF_NEG_EXP_ONE:
        ne[0] = 1;
        ne[1] = (uint64_t)cols;
        return 2;
    case NS_GGUF_GROUPED:
        ne[0] = (uint64_t)(cols / groups);
        ne[1] = (uint64_t)groups;
        return 2;
    default: return experts ? 3 : n_dims > 1 ? 2 : 1;
    }
}

void ns_gguf_pack_nvfp4(const uint8_t *q, const uint8_t *scale, int n, uint8_t *out)
{
    for (int u = 0; u < n / 64; u++, out += 36) {
        memcpy(out, scale + 4 * u, 4);
        for (int b = 0; b < 4; b++) {
            const uint8_t *in = q + 32 * u + 8 * b;
            for (int j = 0; j < 8; j++) {
                unsigned low = in[j / 2] >> 4 * (j % 2) & 15, high = in[4 + j / 2] >> 4 * (j % 2) & 15;
                out[4 + 8 * b + j] = (uint8_t)(low | high << 4);
            }
        }
    }
}

void ns_gguf_unpack_nvfp4(const uint8_t *in, int n, uint8_t *q, uint8_t *scale)
{
    for (int u = 0; u < n / 64; u++, in += 36) {
        memcpy(scale + 4 * u, in, 4);
        for (int b = 0; b < 4; b++) {
            const uint8_t *from = in + 4 + 8 * b;
            uint8_t *out = q + 32 * u + 8 * b;
            for (int j = 0; j < 4; j++) {
                out[j] = (uint8_t)((from[2 * j] & 15) | (from[2 * j + 1] & 15) << 4);
                out[4 + j] = (uint8_t)(from[2 * j] >> 4 | (from[2 * j + 1] & 0xf0));
            }
        }
    }
}
