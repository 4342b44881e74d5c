#include "block/block.h"

const ns_mixer *ns_mixer_of(char kind)
{
    switch (kind) {
    case NS_LAYER_MAMBA: return &ns_mixer_mamba;
    case NS_LAYER_ATTENTION: return &ns_mixer_attention;
    case NS_LAYER_MOE: return &ns_mixer_moe;
    default: return &ns_mixer_mlp;
    }
}
