#!/bin/sh
# Tests of nestar train and nestar plot: train.sh PATH-OF-NESTAR. Tiny models, a few steps each.
. "$(dirname "$0")/lib.sh"
unset NS_CPU NS_THREADS
number() { sed -n "${2}s/.*\"$1\":\([0-9.e+-]*\).*/\1/p" "$3"; } # number KEY LINE FILE

# ---------------------------------------------------------------- what the tests work on

mkdir model
cat >model/config.json <<'EOF2'
{"model_type": "nemotron_h", "architectures": ["NemotronHForCausalLM"], "torch_dtype": "bfloat16", "hybrid_override_pattern": "ME*-",
 "num_hidden_layers": 4, "hidden_size": 32, "vocab_size": 288, "max_position_embeddings": 512, "layer_norm_epsilon": 1e-5,
 "tie_word_embeddings": false, "mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 2, "ssm_state_size": 16, "conv_kernel": 4,
 "chunk_size": 32, "use_conv_bias": true, "use_bias": false, "mamba_hidden_act": "silu", "num_attention_heads": 4,
 "num_key_value_heads": 2, "head_dim": 8, "attention_bias": false, "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1,
 "moe_intermediate_size": 32, "moe_shared_expert_intermediate_size": 32, "intermediate_size": 64, "n_group": 1, "topk_group": 1,
 "norm_topk_prob": true, "routed_scaling_factor": 2.5, "mlp_bias": false, "mlp_hidden_act": "relu2", "bos_token_id": 1,
 "eos_token_id": 2, "pad_token_id": 0}
EOF2
cp "$here/tokenizer.json" model/
cat >model/chat_template.jinja <<'EOF2'
{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif -%}
EOF2
i=0
while [ $i -lt 120 ]; do
    printf '{"text": "the hen in the barn said %d and %d to the other hen"}\n' $((i % 7)) $((i * i % 10))
    i=$((i + 1))
done >plain.jsonl
cat >chat.jsonl <<'EOF2'
{"messages": [{"role": "user", "content": "one?"}, {"role": "assistant", "content": "two"}, {"role": "user", "content": "and?"}, {"role": "assistant", "content": "three"}]}
{"prompt": "one and one is ", "completion": "two"}
this line is not JSON
{"ids": [40, 41, 999]}
EOF2
small="--seq 128 --batch 2 --workers 2"

# ---------------------------------------------------------------- from scratch

# shellcheck disable=SC2086
{
want "train from scratch" 0 "held out" "$N" train model/config.json --data plain.jsonl -o a --steps 6 $small --eval-docs 10 --eval-every 3 --lr 3e-3
check "a log line for every step" "$(wc -l <a.train/log.jsonl)" -eq 6
said "the log has the held-out loss" '"step":3,.*"eval_loss":' a.train/log.jsonl
for f in config.json model.safetensors tokenizer.json chat_template.jinja; do check "the folder has $f" -s a/$f; done
want "it opens" 0 "" "$N" inspect a
want "and runs" 0 "" "$N" run a --raw -p the -n 4 --seed 1
first=$(number loss 1 a.train/log.jsonl) last=$(number loss 6 a.train/log.jsonl)
check "the loss falls" "$(printf '%s %s\n' "$first" "$last" | awk '{print ($2 < $1)}')" -eq 1
want "the folder is there already" 1 "a: it is there already" "$N" train model/config.json --data plain.jsonl -o a --steps 6 $small
mv a a.done
want "so is the run" 1 "a.train holds a run already" "$N" train model/config.json --data plain.jsonl -o a --steps 6 $small --eval-docs 10
want "other data" 1 "not those that the run began with" "$N" train model/config.json --data chat.jsonl -o a --steps 6 $small --resume
want "a finished run gives its folder again" 0 "" "$N" train model/config.json --data plain.jsonl -o a --steps 6 $small --eval-docs 10 --eval-every 3 --lr 3e-3 --resume
same "the same one" a/model.safetensors a.done/model.safetensors
want "from scratch again" 0 "" "$N" train model/config.json --data plain.jsonl -o b --steps 6 $small --eval-docs 10 --eval-every 3 --lr 3e-3
same "same options, same bytes" b/model.safetensors a/model.safetensors
want "by tokens, as BF16, with Muon" 0 "" "$N" train model/config.json --data plain.jsonl -o c --tokens 1024 $small --dtype bf16 --optimizer muon --recompute layer --balance 1e-3 --accum 2 --json
check "two steps" "$(wc -l <c.train/log.jsonl)" -eq 2
check "the lines on standard output" "$(grep -c '"loss":' out)" -eq 2
said "the config says bfloat16" '"torch_dtype": "bfloat16"' c/config.json

# ---------------------------------------------------------------- from a checkpoint

want "train a checkpoint on" 0 "chat.jsonl:3: left out" "$N" train a --data chat.jsonl -o d --steps 3 $small
said "and the id outside the vocabulary" 'chat.jsonl:4: left out: entry 2' err
said "starts from its weights" '"step":3' d.train/log.jsonl
check "not from scratch" "$(number loss 1 d.train/log.jsonl | awk '{print ($1 < 6)}')" -eq 1
want "shares" 0 "" "$N" train a --data plain.jsonl:3 --data chat.jsonl:1 -o e --steps 2 $small
printf 'one paragraph\nof two lines\n\nand another\n' >book.txt
want "paragraphs of a text file" 0 "2 documents" "$N" train a --data book.txt -o f --steps 1 $small

# ---------------------------------------------------------------- ended early

# Long enough that a quick machine is not done before the signal comes.
long="--steps 1500 --save-every 40"
lines() { wc -l 2>/dev/null <part.train/log.jsonl || echo 0; }
# grow N: waits until the log of the run has more than N lines
grow() { n=0; while [ $n -lt 600 ] && [ "$(lines)" -le "$1" ]; do sleep 0.05; n=$((n + 1)); done; }
want "whole" 0 "" "$N" train model/config.json --data plain.jsonl -o whole $small $long
"$N" train model/config.json --data plain.jsonl -o part $small $long >out 2>err &
pid=$!
grow 50
kill -9 $pid
wait $pid 2>/dev/null
absent "killed: no folder" part
"$N" train model/config.json --data plain.jsonl -o part $small $long --resume >out 2>err &
pid=$!
grow $(($(lines) + 50))
kill -INT $pid
wait $pid
check "interrupted: exit status" $? -eq 130
said "it says how to go on" "the same command with --resume goes on" err
absent "interrupted: no folder" part
want "resumed" 0 "" "$N" train model/config.json --data plain.jsonl -o part $small $long --resume
same "killed, interrupted, resumed: the same bytes" part/model.safetensors whole/model.safetensors
check "and every step once in the log" "$(lines)" -eq 1500
}

# ---------------------------------------------------------------- quantised training

# shellcheck disable=SC2086
{
Q="--data plain.jsonl $small --accum 2 --eval-docs 10 --lr 1e-3"
want "a nested checkpoint" 0 "" "$N" elastify a $Q --fixed full --fixed S=hidden=16,expert_ffn=16 --steps 2 -o nest
want "its own sizes, no router" 0 '"name": "S"' "$N" elastify nest $Q --steps 1 --json -o again
same "are kept" nest/nest.json again/nest.json
want "qad" 0 "^S " "$N" elastify nest $Q --qad nvfp4 --steps 4 --teacher a --same-size -o qad
said "writes a quantised checkpoint" NVFP4 qad/hf_quant_config.json
check "and leaves nothing else" "$(ls qad.train)" = stage1
want "which runs" 0 "" "$N" run qad --size S --raw -p the -n 4 --seed 1
want "and is cut by copying" 0 "" "$N" slice qad --size S -o qad-s
want "still NVFP4" 0 NVFP4 "$N" inspect qad-s
want "qad without a rate" 0 "" "$N" elastify nest $Q --lr 0 --qad nvfp4 --all --keep '*.layers.0.*' --steps 1 -o still
want "is quantize" 0 "" "$N" quantize nest --format nvfp4 --all --keep '*.layers.0.*' -o still-q
same "the same weights" still/model.safetensors still-q/model.safetensors
same "the same exclusions" still/hf_quant_config.json still-q/hf_quant_config.json
want "qad to FP8, the rest BF16" 0 "" "$N" elastify nest $Q --qad fp8 --dtype bf16 --steps 1 -o qad8
want "it has both" 0 "BF16" "$N" inspect qad8
want "qad whole" 0 "" "$N" elastify nest $Q --qad nvfp4 --steps 60 -o qwhole
"$N" elastify nest $Q --qad nvfp4 --steps 60 --save-every 5 -o qpart >out 2>err &
pid=$!
n=0; while [ $n -lt 600 ] && [ "$(wc -l 2>/dev/null <qpart.train/stage1/log.jsonl || echo 0)" -lt 7 ]; do sleep 0.05; n=$((n + 1)); done
kill -INT $pid
wait $pid
check "qad interrupted: exit status" $? -eq 130
want "qad resumed with other exclusions" 1 "the run began with weights quantised as" "$N" elastify nest $Q --qad nvfp4 --all --steps 60 --resume -o qpart
want "qad resumed" 0 "" "$N" elastify nest $Q --qad nvfp4 --steps 60 --resume -o qpart
same "the same bytes" qwhole/model.safetensors qpart/model.safetensors
want "qad of a quantised checkpoint" 1 "NVFP4 already" "$N" elastify qad $Q --qad nvfp4 -o x
want "qad of a size that splits a block" 1 "size S: .*hidden" "$N" elastify nest $Q --qad nvfp4 --fixed full --fixed S=hidden=24 -o x
want "qad with a router" 1 "router learns without" "$N" elastify nest $Q --qad nvfp4 --budgets 1,0.8 -o x
want "qad to what" 2 "neither fp8 nor nvfp4" "$N" elastify nest $Q --qad int4 -o x
want "exclusions without qad" 2 "what --qad quantises" "$N" elastify nest $Q --all -o x
want "a teacher of other dims" 1 "not of the architecture" "$N" elastify nest $Q --teacher qad-s -o x
absent "refused runs leave nothing" x
}

# ---------------------------------------------------------------- several processes

cp "$N" lone # without the module beside it
want "no module for MPI" 1 "nestar_mpi.so" env OMPI_COMM_WORLD_SIZE=2 ./lone train model/config.json --data plain.jsonl -o x
if command -v mpirun >/dev/null 2>&1 && [ -e "$(dirname "$N")/nestar_mpi.so" ]; then
    mpi() { timeout 120 env ASAN_OPTIONS=detect_leaks=0 mpirun --allow-run-as-root --oversubscribe -n 2 "$N" train "$@"; }
    want "two ranks" 0 "on 2 ranks" mpi model/config.json --data plain.jsonl -o g --steps 6 --seq 128 --batch 1 --workers 1 --eval-docs 10 --eval-every 3 --lr 3e-3
    check "a line for every step, once" "$(wc -l <g.train/log.jsonl)" -eq 6
    check "the loss of one rank with twice the packs" "$(printf '%s %s\n' "$(number loss 6 g.train/log.jsonl)" "$last" | awk '{d = $1 - $2; print (d * d < 1e-6)}')" -eq 1
    want "two ranks fail together" 1 "one at least must stay" mpi model/config.json --data plain.jsonl -o x --eval-docs 500
    check "and say it once" "$(grep -c 'one at least' err)" -eq 1
fi

# ---------------------------------------------------------------- wrong calls

want "no data" 2 "data" "$N" train model/config.json -o x
want "no output" 2 "o DIR" "$N" train model/config.json --data plain.jsonl
want "unknown optimizer" 2 "adamw nor muon" "$N" train model/config.json --data plain.jsonl -o x --optimizer sgd
want "steps and tokens" 2 "exclude" "$N" train model/config.json --data plain.jsonl -o x --steps 1 --tokens 1
want "no such data" 1 "nothing.jsonl" "$N" train model/config.json --data nothing.jsonl -o x
want "no such model" 1 "nothing.json" "$N" train nothing.json --data plain.jsonl -o x
want "no such tokenizer" 1 "tokenizer.json" "$N" train model/config.json --data plain.jsonl -o x --tokenizer /nonexistent
mkdir bare && cp model/config.json bare/
want "text without a tokenizer" 1 "every line was left out" "$N" train bare/config.json --data plain.jsonl -o x
want "too many held out" 1 "one at least must stay" "$N" train model/config.json --data plain.jsonl -o x --eval-docs 120
: >empty.jsonl
want "nothing to learn" 1 "no document" "$N" train model/config.json --data empty.jsonl -o x
absent "nothing was made" x
absent "no run was begun" x.train

# ---------------------------------------------------------------- curves

want "plot: no gnuplot" 1 "gnuplot-nox" env PATH=/nonexistent "$N" plot a.train/log.jsonl
if command -v gnuplot >/dev/null 2>&1; then
    want "plot in characters" 0 "step" "$N" plot a.train/log.jsonl
    want "plot to a picture" 0 "" "$N" plot a.train/log.jsonl whole.train/log.jsonl --y loss,lr -o curves.svg
    said "it is one" "<svg" curves.svg
    want "plot to PNG" 0 "" "$N" plot a.train/log.jsonl --log -o curves.png
    cp a.train/log.jsonl "it's a log.jsonl"
    want "a name with a quote" 0 "" "$N" plot "it's a log.jsonl" a.train/log.jsonl -o "cur'ves.svg"
    check "the picture is there" -s "cur'ves.svg"
fi
want "plot: unknown number" 1 "there are: step, loss" "$N" plot a.train/log.jsonl --y lossy -o no.svg
absent "no picture of it" no.svg
want "plot: not a log" 1 "plain.txt:1" sh -c 'echo x >plain.txt; "$1" plot plain.txt' sh "$N"
want "plot: no such log" 1 "nothing.jsonl" "$N" plot nothing.jsonl
want "plot: other pictures" 2 "neither .svg nor .png" "$N" plot a.train/log.jsonl -o x.gif

finish
