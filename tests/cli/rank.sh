#!/bin/sh
# Tests of nestar importance and nestar permute: rank.sh PATH-OF-NESTAR.
. "$(dirname "$0")/lib.sh"
export NS_THREADS=2

# ---------------------------------------------------------------- what the tests work on

mkdir text
cp "$here/tokenizer.json" text/
cat >config.json <<'EOS'
{"architectures": ["NemotronHForCausalLM"], "model_type": "nemotron_h", "torch_dtype": "bfloat16",
 "hybrid_override_pattern": "MEM*E", "num_hidden_layers": 5, "hidden_size": 64, "vocab_size": 288, "intermediate_size": 48,
 "max_position_embeddings": 1024, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": false, "mamba_num_heads": 8, "mamba_head_dim": 16,
 "n_groups": 2, "ssm_state_size": 16, "conv_kernel": 4, "chunk_size": 32, "use_conv_bias": true, "use_bias": false,
 "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "attention_bias": false, "mlp_bias": false,
 "mlp_hidden_act": "relu2", "mamba_hidden_act": "silu", "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1,
 "moe_intermediate_size": 32, "moe_shared_expert_intermediate_size": 48, "n_group": 1, "topk_group": 1, "norm_topk_prob": true,
 "routed_scaling_factor": 2.5, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
EOS
echo '{"version": 1, "variants": [{"name": "small", "cut": {"hidden": 48}}]}' >nest.json
for w in "one hello the the hello" "two the hello hello" "three hello"; do echo "{\"text\": \"$w $w $w\"}"; done >data.jsonl
printf 'hello the\nhello\n\nthe the the the\n' >data.txt
echo 5 40 280 7 99 100 101 17 3 250 44 44 9 >ids
"$N" synth config.json -o ck --seed 3 --nest nest.json --text-dir text || exit 2
"$N" synth config.json -o q --seed 3 --dtype nvfp4-all || exit 2

# ---------------------------------------------------------------- importance

for c in importance permute; do
    want "$c --help" 0 "  nestar $c " "$N" $c --help
    want "$c: unknown option" 2 "nestar $c: " "$N" $c --frobnicate
    want "$c: no argument" 2 "is missing" "$N" $c
done
want "importance" 0 "" "$N" importance ck --data data.jsonl --seq 16 --depth 2 --depth-tokens 20 -o stats.st
want "importance, one thread" 0 "" "$N" importance ck --data data.jsonl --seq 16 --depth 2 --depth-tokens 20 --threads 1 -o stats1.st
same "the same file from any number of threads" stats.st stats1.st
for t in '"hidden"' layers.0.mamba_heads layers.0.mamba_head_dim layers.2.ssm_state layers.3.attn_heads layers.1.expert_ffn layers.4.shared_ffn.active \
    layers.4.experts.reap layers.4.experts.frequency depth.order depth.score '"nestar.data":"data.jsonl"' '"nestar.source":"ck"'; do
    if head -c 6000 stats.st | grep -aq "$t"; then ok "the statistics have $t"; else bad "the statistics have $t" "no"; fi
done
want "importance of two files with shares" 0 "" "$N" importance ck --data data.jsonl:0.7 --data data.txt:0.3 --seq 16 --tokens 40 -o two.st
differ "other data, other scores" stats.st two.st
want "importance, all of the data" 0 "" "$N" importance ck --data data.txt --tokens 0 -o all.st
want "importance with progress" 0 "importance 100 %  [0-9]* of [0-9]* tokens" "$N" importance ck --data data.txt --progress -o all.st
want "importance without data" 2 "\-\-data" "$N" importance ck -o x
want "importance without output" 2 "\-o FILE" "$N" importance ck --data data.txt
want "importance, missing data" 1 "nowhere.jsonl" "$N" importance ck --data nowhere.jsonl -o x
want "importance, missing checkpoint" 1 "nestar importance: .*nowhere" "$N" importance nowhere --data data.txt -o x
want "importance into no folder" 1 "no/such/x" "$N" importance ck --data data.txt -o no/such/x
want "importance, more layers than there are" 1 "5 layers" "$N" importance ck --data data.txt --depth 6 -o x
want "importance, bad --seq" 2 "seq" "$N" importance ck --data data.txt --seq 0 -o x
want "text without a tokenizer" 1 "data.txt" "$N" importance q --data data.txt -o x
absent "refused measurements leave nothing" x

# ---------------------------------------------------------------- permute

logits() { "$N" logits "$1" --ids-file ids -o "$2" 2>err && tail -c $((13 * 288 * 4)) "$2"; }
# close NAME CKPT CKPT: logits that agree up to rounding
close() {
    if command -v python3 >/dev/null 2>&1 && python3 -c '' 2>/dev/null; then
        logits "$2" a.st >a.bin
        logits "$3" b.st >b.bin
        if python3 -c '
import struct
a, b = (struct.unpack("<%df" % (13 * 288), open(f, "rb").read()) for f in ("a.bin", "b.bin"))
assert max(abs(x - y) for x, y in zip(a, b)) < 1e-4 * max(map(abs, a))' 2>err; then ok "$1"; else bad "$1" "logits differ"; fi
    fi
}
want "permute" 0 "nest.json is not copied" "$N" permute ck --stats stats.st -o ranked
close "a reordered checkpoint computes the same" ck ranked
differ "its bytes are others" ck/model.safetensors ranked/model.safetensors
same "the config is the same" ck/config.json ranked/config.json
same "the tokenizer comes along" ck/tokenizer.json ranked/tokenizer.json
absent "nest.json stays behind" ranked/nest.json
want "it can be sliced" 0 "" "$N" slice ranked --size hidden=48,expert_ffn=16,experts=4,mamba_heads=4 -o small
want "permute, other metrics" 0 "" "$N" permute ck --stats stats.st --expert-metric frequency --ffn-metric active -o ranked2
differ "other metrics, another order" ranked/model.safetensors ranked2/model.safetensors
want "permute at random" 0 "" "$N" permute ck --random 4 -o random --max-shard 100KB
close "a random order computes the same" ck random
if [ -e random/model.safetensors.index.json ]; then ok "permute makes shards"; else bad "permute makes shards" "no index"; fi
want "permute, some axes" 0 "" "$N" permute ck --random 4 --axes experts,attn_heads -o some
differ "some axes are not all" some/model.safetensors ranked/model.safetensors
want "permute nvfp4, whole blocks" 0 "" "$N" permute q --random 4 --axes experts,attn_heads,mamba_heads,ssm_state -o q2
close "reordered nvfp4 computes the same" q q2
want "permute nvfp4, across blocks" 1 "layers.*expert_ffn.*permute before quantising" "$N" permute q --random 4 --axes expert_ffn -o x
want "permute, no such axis" 2 "no axis \"width\"" "$N" permute ck --random 4 --axes hidden,width -o x
want "permute, an axis the model lacks" 1 "no layer has dense_ffn" "$N" permute ck --random 4 --axes dense_ffn -o x
want "permute, both sources" 2 "one of" "$N" permute ck --random 4 --stats stats.st -o x
want "permute, neither source" 2 "one of" "$N" permute ck -o x
want "permute, bad metric" 2 "neither reap nor frequency" "$N" permute ck --stats stats.st --expert-metric size -o x
want "permute, missing statistics" 1 "nowhere.st" "$N" permute ck --stats nowhere.st -o x
sed 's/"hidden_size": 64/"hidden_size": 32/' config.json >narrow.json
"$N" synth narrow.json -o narrow --seed 3 || exit 2
want "permute, statistics of another model" 1 "hidden: F32 \[64\], expected F32 \[32\]" "$N" permute narrow --stats stats.st -o x
want "permute, statistics that are none" 1 "ids" "$N" permute ck --stats ids -o x
want "permute into an existing folder" 1 "exists already" "$N" permute ck --random 1 -o ranked
absent "refused orders leave nothing" x

finish
