#!/bin/sh
# Tests of the nestar command: run.sh PATH-OF-NESTAR. Needs no model: `nestar synth` makes tiny ones.
. "$(dirname "$0")/lib.sh"

# ---------------------------------------------------------------- what the tests work on

mkdir text
cp "$here/tokenizer.json" text/
cat >config.json <<'EOF'
{"architectures": ["NemotronHForCausalLM"], "model_type": "nemotron_h", "torch_dtype": "float32",
 "hybrid_override_pattern": "MEM*EME-", "num_hidden_layers": 8, "hidden_size": 64, "vocab_size": 288, "intermediate_size": 48,
 "max_position_embeddings": 1024, "layer_norm_epsilon": 1e-5, "tie_word_embeddings": false, "mamba_num_heads": 8, "mamba_head_dim": 16,
 "n_groups": 2, "ssm_state_size": 16, "conv_kernel": 4, "chunk_size": 32, "use_conv_bias": true, "use_bias": false,
 "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "attention_bias": false, "mlp_bias": false,
 "mlp_hidden_act": "relu2", "mamba_hidden_act": "silu", "n_routed_experts": 8, "num_experts_per_tok": 2, "n_shared_experts": 1,
 "moe_intermediate_size": 32, "moe_shared_expert_intermediate_size": 48, "n_group": 1, "topk_group": 1, "norm_topk_prob": true,
 "routed_scaling_factor": 2.5, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
EOF
cat >nest.json <<'EOF'
{"version": 1, "variants": [{"name": "big"}, {"name": "mid", "cut": {"hidden": 48}},
 {"name": "small", "cut": {"hidden": 48, "expert_ffn": 16, "mamba_heads": 4}}]}
EOF
cat >text/chat_template.jinja <<'EOF'
{%- if bos_token %}{{ bos_token }}{% endif %}{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}
{%- if m.reasoning_content %}{{ '<think>\n' + m.reasoning_content + '\n</think>\n' }}{% endif %}{{ m.content + '<|im_end|>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}
{%- if enable_thinking is not defined or enable_thinking %}{{ '<think>\n' }}{% endif %}{% endif -%}
EOF
echo '{"bos_token": "<s>", "eos_token": {"content": "</s>"}}' >text/special_tokens_map.json
echo '{"temperature": 0.7, "top_p": 0.95}' >text/generation_config.json
echo 5 40 280 7 99 100 101 17 3 250 44 44 9 >ids

# ---------------------------------------------------------------- the command itself

want "no command" 2 "Usage: nestar" "$N"
want "help" 0 "slice" "$N" help
want "version" 0 "^nestar [0-9]" "$N" --version
want "unknown command" 2 "frobnicate" "$N" frobnicate
want "help for one command" 0 "Examples:" "$N" help slice
for c in run chat serve inspect slice synth score logits tokenize template bench calibrate; do
    want "$c --help" 0 "  nestar $c " "$N" $c --help
    want "$c: unknown option" 2 "nestar $c: " "$N" $c --frobnicate
    want "$c: no argument" 2 "is missing" "$N" $c
done
for c in "run -p x" chat inspect "slice --size full -o x" "score --text config.json" "logits --ids-file ids -o x" tokenize template bench; do
    set -- $c
    want "$1: missing checkpoint" 1 "nestar $1: .*nowhere" "$N" $c nowhere
done
want "synth: missing config" 1 "nestar synth: .*nowhere.json" "$N" synth nowhere.json -o x
absent "nothing was left" x

# ---------------------------------------------------------------- synth, inspect

want "synth" 0 "" "$N" synth config.json -o ck --seed 3 --dtype f32 --nest nest.json --text-dir text
want "synth again" 0 "" "$N" synth config.json -o ck2 --seed 3 --dtype f32 --nest nest.json --text-dir text
want "synth, another seed" 0 "" "$N" synth config.json -o ck3 --seed 4 --dtype f32
same "same seed, same bytes" ck/model.safetensors ck2/model.safetensors
differ "another seed, other bytes" ck/model.safetensors ck3/model.safetensors
want "synth into an existing folder" 1 "exists already" "$N" synth config.json -o ck
want "synth, unknown dtype" 1 "nvfp4" "$N" synth config.json -o x --dtype f8
want "synth, bad seed" 2 "seed" "$N" synth config.json -o x --seed one
want "synth, one size" 0 "" "$N" synth config.json -o cks --dtype f32 --nest nest.json --size small
want "synth nvfp4" 0 "" "$N" synth config.json -o q --dtype nvfp4 --seed 5 --nest nest.json --text-dir text
want "synth in shards" 0 "" "$N" synth config.json -o sh --dtype bf16 --seed 5 --max-shard 100KB
check "synth made shards" -e sh/model.safetensors.index.json
want "synth with progress" 0 "synth 100 %" "$N" synth config.json -o p --dtype f32 --progress
"$N" synth config.json -o p2 --dtype f32 2>err
check "no progress without a terminal" ! -s err

want "inspect" 0 "MEM\*EME-" "$N" inspect ck
want "inspect lists sizes" 0 "small" "$N" inspect ck
want "inspect a config" 0 "MEM\*EME-" "$N" inspect config.json
want "inspect a config with sizes" 0 "small" "$N" inspect config.json --nest nest.json
want "inspect --verify" 0 "verified" "$N" inspect --verify ck
want "inspect --verify of a config" 1 "config.json" "$N" inspect --verify config.json
want "inspect --json" 0 '"variants"' "$N" inspect --json --verify ck
if command -v python3 >/dev/null 2>&1 && python3 -c '' 2>/dev/null; then
    cp out report.json
    want "inspect --json is JSON" 0 "" python3 -m json.tool report.json
fi
want "inspect, bad --context" 2 "context" "$N" inspect --context none ck
if [ -c /dev/full ]; then
    "$N" inspect ck >/dev/full 2>err
    check "full disk" $? -eq 1
    said "full disk is said" "No space" err
fi
( "$N" inspect --json ck; echo $? >status ) 2>err | true
check "closed pipe is quiet" ! -s err

# ---------------------------------------------------------------- slice, logits

for s in small mid full hidden=32,expert_ffn=8 "expert_ffn@4=16,hidden=48" layers=0-3+7; do
    d=slice-$(echo "$s" | tr -c 'a-z0-9\n' _)
    want "slice $s" 0 "" "$N" slice ck --size "$s" -o "$d"
    want "logits of slice $s" 0 "" "$N" logits "$d" --ids-file ids -o a.st
    want "logits at size $s" 0 "" "$N" logits ck --size "$s" --ids-file ids -o b.st
    want "logits at size $s, masked" 0 "" "$N" logits ck --size "$s" --masked --ids-file ids -o c.st
    # the header notes the size, whose name differs: compare the tensors behind it
    for f in a b c; do tail -c $((13 * 4 + 13 * 288 * 4)) $f.st >$f.bin; done
    same "view == slice, $s" a.bin b.bin
    same "mask == view, $s" b.bin c.bin
    want "logits at size $s, token by token" 0 "" "$N" logits ck --size "$s" --step 1 --ids-file ids -o d.st
done
want "logits, full" 0 "" "$N" logits ck --ids-file ids -o full.st
want "logits, --hidden --router" 0 "" "$N" logits ck --ids-file ids --hidden --router -o hidden.st
said "hidden states are there" "hidden.7" hidden.st
said "router picks are there" "router.6.weights" hidden.st
echo "[5, 40, 280, 7, 99, 100, 101, 17, 3, 250, 44, 44, 9]" >ids.json
"$N" logits ck --ids-file - -o stdin.st <ids.json 2>err
same "ids as JSON, from standard input" full.st stdin.st
want "id outside the vocabulary" 1 "288" sh -c "echo 5 288 | \"$N\" logits ck --ids-file - -o x"
want "ids that are none" 1 "entry 1" sh -c "echo 5 x | \"$N\" logits ck --ids-file - -o x"
want "no ids" 1 "no token ids" sh -c "echo | \"$N\" logits ck --ids-file - -o x"
want "output in no folder" 1 "no/such/x" "$N" logits ck --ids-file ids -o no/such/x
absent "no half-written output" x
want "unknown size lists the sizes" 1 "full (big), mid, small" "$N" slice ck --size huge -o x
want "unknown axis" 1 "width" "$N" slice ck --size width=3 -o x
want "too wide" 1 "hidden" "$N" slice ck --size hidden=65 -o x
want "heads that do not divide" 1 "mamba_heads" "$N" slice ck --size mamba_heads=5 -o x
want "a cut through a block" 1 "nearest are 16 and 32" "$N" slice q --size expert_ffn=20 -o x
want "a cut through a block, at run time" 1 "nearest are 16 and 32" "$N" logits q --size expert_ffn=20 --ids-file ids -o x
want "slice without a size" 2 "\-\-size" "$N" slice ck -o x
want "slice into an existing folder" 1 "exists already" "$N" slice ck --size small -o ck2
want "slice, bad --max-shard" 2 "max-shard" "$N" slice ck --size small -o x --max-shard many
absent "refused slices leave nothing" x
want "slice nvfp4" 0 "" "$N" slice q --size small -o qs --max-shard 30KB
want "logits of the nvfp4 slice" 0 "" "$N" logits qs --ids-file ids -o a.st
want "logits of nvfp4 at that size" 0 "" "$N" logits q --size small --ids-file ids -o b.st
for f in a b; do tail -c $((13 * 4 + 13 * 288 * 4)) $f.st >$f.bin; done
same "view == slice, nvfp4" a.bin b.bin
check "the slice has shards" -e qs/model.safetensors.index.json

# ---------------------------------------------------------------- broken checkpoints

cp -r sh broken
shard=$(ls broken | grep safetensors | grep -v index | head -1)
dd if=sh/"$shard" of=broken/"$shard" bs=1000 count=20 2>/dev/null
want "truncated shard" 1 "$shard" "$N" inspect broken
cp sh/"$shard" broken/"$shard"
rm broken/"$(ls broken | grep safetensors | grep -v index | tail -1)"
want "missing shard" 1 "model-0" "$N" run broken --raw -p x
cp -r ck badconfig
sed 's/"hidden_size": 64/"hidden_size": 80/' config.json >badconfig/config.json
want "shapes that do not fit" 1 "shape" "$N" inspect badconfig
echo '{' >badconfig/config.json
want "config that is no JSON" 1 "config.json.*JSON" "$N" inspect badconfig
echo '{"version": 1, "variants": [{"name": "x", "cut": {"width": 1}}]}' >badnest.json
want "bad nest.json" 1 "badnest.json.*width" "$N" inspect ck --nest badnest.json

# ---------------------------------------------------------------- run

want "run" 0 "prefill [0-9]* tokens at .* decode 8 at .*size full" "$N" run ck -p "hello" -n 9 --ignore-eos --seed 1
check "run prints text" -s out
"$N" run ck --raw -p "hello the" -n 30 --seed 7 >a 2>err
"$N" run ck --raw -p "hello the" -n 30 --seed 7 >b 2>err
"$N" run ck --raw -p "hello the" -n 30 --seed 8 >c 2>err
"$N" run ck --raw -p "hello the" -n 30 --seed 7 --threads 2 --load huge >d 2>err
same "same seed, same text" a b
differ "another seed, another text" a c
same "same text from any number of threads" a d
printf 'hello the' | "$N" run ck --raw -n 30 --seed 7 >b 2>err
same "prompt from standard input" a b
"$N" tokenize ck >ids.run <<EOF
hello
EOF
"$N" run ck --ids-file ids.run -n 9 --temp 0 >a 2>err
printf 'hello\n' | "$N" run ck --raw -n 9 --temp 0 >b 2>err
same "prompt as ids" a b
want "run --json" 0 '"reason": "length"' "$N" run ck -p hello -n 5 --ignore-eos --seed 1 --json
said "run --json, the seed" '"seed": 1' out
if command -v python3 >/dev/null 2>&1 && python3 -c '' 2>/dev/null; then
    cp out answer.json
    want "run --json is JSON" 0 "" python3 -m json.tool answer.json
fi
want "run at a size" 0 "size small" "$N" run ck --size small -p hello -n 5 --ignore-eos --seed 1
want "run --sizes" 0 "sizes small 5 + full 7, 1 switch in" "$N" run ck --sizes small:5,full -p hello -n 12 --ignore-eos --seed 1
want "run --sizes, three" 0 "sizes mid 2 + hidden=32,expert_ffn=8 3 + full 4, 2 switches" \
    "$N" run ck --sizes mid:2,hidden=32,expert_ffn=8:3,full -p hello -n 9 --ignore-eos --seed 1
want "run --handover cache" 0 "sizes mid 5 + full 7" "$N" run ck --sizes mid:5,full --handover cache -p hello -n 12 --ignore-eos --seed 1
want "run --handover cache, other shapes" 1 "handover prefill" "$N" run ck --sizes small:5,full --handover cache -p hello -n 12 --ignore-eos --seed 1
# a switch with prefill is exact: the second half is what full says about the first
"$N" run ck --sizes small:5,full --handover prefill --raw -p hello -n 12 --temp 0 --ignore-eos --json 2>err | sed -n '/"ids"/,/]/p' | tr -dc '0-9\n' | grep . >both
head -5 both >first
"$N" tokenize ck >ids.prefix <<EOF
EOF
printf hello | "$N" tokenize ck | tr ' ' '\n' | cat - first >ids.prefix
"$N" run ck --ids-file ids.prefix -n 7 --temp 0 --ignore-eos --json 2>err | sed -n '/"ids"/,/]/p' | tr -dc '0-9\n' | grep . >second
cat first second >joined
same "a switch with prefill is exact" both joined
# budgets of thought: this model never closes one itself
T="$N run ck -p hello --temp 0 --ignore-eos --answer-tokens 4"
want "run --think-budget" 0 "thought 6 tokens at .* tok/s (closed), answer 4 tokens" $T --think-budget 6
want "run --think --answer" 0 "1 switch in .* by prefill" $T --think small --answer full --think-budget 6
said "run --think --answer, sizes" "sizes small 9 + full 4" err
want "run --handover late" 0 "by late" $T --think small --answer full --think-budget 70 --handover late
want "run --plan" 0 "2 switches" $T --plan think:small,last-think:3:mid,answer:full --think-budget 6
said "run --plan, sizes" "sizes small 3 + mid 6 + full 4" err
$T --think-budget 6 --json 2>err >a
$T --plan all:full --think-budget 6 --json 2>err >b
sed -n '/"ids"/,/]/p' a >a.ids
sed -n '/"ids"/,/]/p' b >b.ids
same "one size, two ways to say it" a.ids b.ids
check "and it said something" -s a.ids
said "run --json, the thought" '"closed": true' a
want "run --think-budget 0" 0 "size full" $T --think-budget 0
if grep -q thought err; then bad "no thought at 0" "one in the figures"; else ok "no thought at 0"; fi
want "run --close" 0 "^.*That was it.</think>" $T --think-budget 6 --close 'That was it.</think>\n'
want "run --close without the mark" 1 "has no </think> in it" $T --think-budget 6 --close enough
want "run --grace" 0 "thought [6-9] tokens" $T --think-budget 6 --grace 3
want "run --deadline" 0 "answer 4 tokens\|cut at the deadline" $T --deadline 1s
want "run, last-think without a budget" 2 "think-budget, which is missing" $T --plan last-think:5:full
want "run, bad plan" 2 "expected think:SIZE" $T --plan reason:full
want "run, bad --think-budget" 2 "think-budget" $T --think-budget some
want "run, bad --deadline" 2 "no time" $T --deadline soon
want "run, unknown --think" 1 "huge" $T --think huge
want "run --fit" 0 "size full" "$N" run ck --fit 1GiB -p hello -n 2 --ignore-eos
want "run --fit, nothing fits" 1 "no size fits" "$N" run ck --fit 1KB -p hello -n 2
want "run --fit, no number" 2 "fit" "$N" run ck --fit much -p hello
want "run, two sizes" 2 "only one of" "$N" run ck --fit 1GB --size small -p hello
want "run, unknown size" 1 "full (big), mid, small" "$N" run ck --size huge -p hello
want "run, bad --temp" 2 "temp" "$N" run ck --temp hot -p hello
want "run, bad --top-p" 2 "top-p" "$N" run ck --top-p 1.5 -p hello
want "run, bad --handover" 2 "handover" "$N" run ck --handover now -p hello
want "run, bad --activations" 2 "neither 8 nor 16" "$N" run ck --activations 4 -p hello
want "8-bit activations, none on this rung" 1 "the avx2 kernels have none" env NS_CPU=avx2 "$N" run ck --activations 8 -p hello
want "8-bit activations" 0 "8-bit activations" env NS_CPU=ref "$N" bench ck -s full -p 4 -n 1 -r 1 --activations 8
want "run, bad --load" 2 "load" "$N" run ck --load fast -p hello
want "run without a tokenizer" 1 "tokenizer.json" "$N" run ck3 --raw -p hello -n 3
want "run without a template" 1 "chat_template.jinja" "$N" run ck3 -p hello -n 3
want "ids without a tokenizer" 0 "^[0-9]* [0-9]* [0-9]*$" "$N" run ck3 --ids-file ids -n 3 --ignore-eos
want "run, the context is full" 0 '"reason": "context"' "$N" run ck --raw -p hello --context 20 --ignore-eos --json
want "run, prompt over the context" 1 "context of 3" "$N" run ck --raw -p "hello hello hello" --context 3
"$N" run ck --raw -p hello -n 40 --seed 3 --ignore-eos >long 2>err
stop=$(tr -dc 'a-zA-Z' <long | cut -c 3)
if [ -n "$stop" ]; then
    want "run --stop" 0 '"reason": "stop_string"' "$N" run ck --raw -p hello -n 40 --seed 3 --ignore-eos --stop "$stop" --stop never --json
    "$N" run ck --raw -p hello -n 40 --seed 3 --ignore-eos --stop "$stop" >cut 2>err
    if grep -q "$stop" cut; then bad "run --stop cuts" "\"$stop\" is in the text"; else ok "run --stop cuts"; fi
fi
"$N" run ck --raw -p "hello the" -n 20 --temp 0 --ignore-eos >whole 2>err
"$N" run ck --raw -p "hello the" -n 8 --temp 0 --ignore-eos --save-state st >half 2>err
"$N" run ck --raw --load-state st -n 12 --temp 0 --ignore-eos >rest 2>err </dev/null
# halves end in a newline of their own, and may part a character: compare ids
idlist() { sed -n '/"ids"/,/]/p' "$1" | tr -dc '0-9\n' | grep .; }
"$N" run ck --raw -p "hello the" -n 20 --temp 0 --ignore-eos --json >whole 2>err
"$N" run ck --raw -p "hello the" -n 8 --temp 0 --ignore-eos --save-state st --json >half 2>err
"$N" run ck --raw --load-state st -n 12 --temp 0 --ignore-eos --json >rest 2>err </dev/null
idlist whole >a
{ idlist half; idlist rest; } >b
same "a saved state goes on as if nothing had been" a b
want "a state of another shape" 1 "st" "$N" run ck --size small --raw --load-state st -n 3
want "a state that is none" 1 "config.json" "$N" run ck --raw --load-state config.json -n 3
want "a missing state" 1 "nowhere" "$N" run ck --raw --load-state nowhere -n 3
want "an unwritable state" 1 "no/such/st" "$N" run ck --raw -p hello -n 3 --save-state no/such/st
absent "no half-written state" no
if [ -c /dev/full ]; then
    "$N" run ck --raw -p hello -n 5 >/dev/full 2>err
    check "run to a full disk" $? -eq 1
fi
( "$N" run ck --raw -p hello -n 900 --ignore-eos --seed 1; echo $? >status ) 2>err | head -c 1 >/dev/null
check "run to a closed pipe ends" "$(cat status)" -eq 0
check "run to a closed pipe is quiet" ! -s err
( trap - INT; exec "$N" run ck --raw -p hello --ignore-eos --context 100000 --seed 1 ) >out 2>err &
pid=$!
sleep 0.5
kill -INT $pid 2>/dev/null
wait $pid
status=$?
# an asynchronous job of a shell without job control ignores SIGINT; then it runs to the end of the context
if [ $status -eq 130 ]; then said "Ctrl-C ends an answer cleanly" "decode" err
else kill -9 $pid 2>/dev/null; echo "skip Ctrl-C (status $status)"; fi

# ---------------------------------------------------------------- chat

printf 'hello\n/size small\n/sizes\n/think off\nsecond \\\nline\n/save conv\n/bogus\n/size huge\n/reset\n/load conv\n/help\n//slash\n/quit\nnever\n' |
    "$N" chat ck --system "Be brief." -n 6 --temp 0 >out 2>err
check "chat" $? -eq 0
cp err chat.err
cp out chat.out
said "chat: /size" "size small" chat.out
said "chat: /sizes" "\* small" chat.out
said "chat: /help" "/reset" chat.out
said "chat: /load" "loaded conv, 5 messages" chat.out
said "chat: unknown command" "no command /bogus" chat.err
said "chat: unknown size" "full (big), mid, small" chat.err
said "chat: system message saved" '"Be brief."' conv
said "chat: continued line" 'second \\nline' conv
said "chat: the thought is apart" '"reasoning_content"' conv
want "chat without a template" 1 "chat template" "$N" chat ck3
printf 'one\ntwo\n' | "$N" chat ck -n 6 --temp 0 --no-think >a 2>err
printf 'one\n/save c1\n' | "$N" chat ck -n 6 --temp 0 --no-think >b 2>err
printf '/load c1\ntwo\n' | "$N" chat ck -n 6 --temp 0 --no-think >c 2>err
{ sed '/^saved /d' b; sed '/^loaded /d' c; } >joined
same "chat: a saved conversation goes on" a joined

# ---------------------------------------------------------------- tokenize, template, score

printf 'hello the <|im_end|> on' >t
"$N" tokenize ck <t >a 2>err
"$N" tokenize --plain ck/tokenizer.json <t >b 2>err
said "tokenize finds special tokens" "\b4\b" a
differ "tokenize --plain does not" a b
"$N" tokenize --decode ck <a >back 2>err
same "decode gives the text" t back
"$N" tokenize --decode ck <b >back 2>err
same "decode gives the plain text" t back
head -c 3000 /dev/urandom >noise
"$N" tokenize ck <noise 2>err | "$N" tokenize --decode ck >back 2>>err
same "any bytes survive" noise back
printf '{"text": "hello the"}\n\n{"text": 3}\nnonsense\n' | "$N" tokenize --jsonl ck >out 2>err
check "tokenize --jsonl answers every line" "$(grep -c . out)" -eq 3
said "tokenize --jsonl: ids" '^{"ids": \[271, 118, 269\]}' out
said "tokenize --jsonl: errors" '"error": ".*line 4' out
echo '{"ids": [271, 118, 269]}' | "$N" tokenize --jsonl --decode ck >out 2>err
said "tokenize --jsonl --decode" '{"text": "hello the"}' out
want "decode of an id not in use" 1 "280" sh -c "echo 280 | \"$N\" tokenize --decode ck"
want "a tokenizer that is none" 1 "config.json" "$N" tokenize config.json
echo '{"messages": [{"role": "user", "content": "Hi"}], "add_generation_prompt": true}' >conv.json
printf '<s><|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n' >expected
"$N" template ck <conv.json >out 2>err
same "template with the checkpoint's tokens" expected out
printf '<|im_start|>user\nHi<|im_end|>\n' >expected
echo '{"messages": [{"role": "user", "content": "Hi"}]}' | "$N" template text/chat_template.jinja >out 2>err
same "template alone" expected out
printf '{"messages": [{"role": "user", "content": "Hi"}], "kwargs": {"bos_token": "B"}}\n{"messages": 3}\n' | "$N" template --jsonl ck >out 2>err
said "template --jsonl" '^{"prompt": "B<|im_start|>user' out
said "template --jsonl: errors" '^{"error": ' out
want "template: not JSON" 1 "JSON" "$N" template ck
echo '{% frobnicate %}' >bad.jinja
want "template: unknown tag" 1 "bad.jinja.*frobnicate" sh -c "echo '{}' | \"$N\" template bad.jinja"

want "quantize" 0 "nvfp4.*weights, relative error 0.0" "$N" quantize ck --format nvfp4 --search -o q-nvfp4
want "quantize: the sizes are there" 0 "small" "$N" inspect q-nvfp4
want "quantize --json" 0 '"format": "fp8"' "$N" quantize ck --format fp8 --keep 'backbone.layers.1.*' --json -o q-fp8
want "quantize: unknown format" 1 "int3" "$N" quantize ck --format int3 -o q-bad
absent "quantize: nothing left" q-bad
want "quantize: no format" 2 "format" "$N" quantize ck -o q-bad
want "quantize: cache without statistics" 1 "statistics" "$N" quantize ck --format fp8 --kv fp8 -o q-bad
want "quantize: missing statistics" 1 "nostats" "$N" quantize ck --format fp8 --calib nostats -o q-bad
want "quantize: twice" 1 "already" "$N" quantize q-fp8 --format nvfp4 -o q-bad
absent "quantize: nothing left" q-bad


printf 'One text.\n\nAnother text, a little longer.\n' >calib.txt
want "calibrate" 0 "keys and values of 1 attention layer" "$N" calibrate ck --data calib.txt -o calib.st
want "calibrate: more sizes" 0 "matrices" "$N" calibrate ck --data calib.txt --size big --size small -o calib2.st
want "calibrate: a layer that no size has" 0 "none of the sizes" "$N" calibrate ck --data calib.txt --size layers=0-6 -o calib3.st
want "calibrate: unknown size" 1 "huge" "$N" calibrate ck --data calib.txt --size huge -o calib4.st
want "calibrate: no data" 2 "data" "$N" calibrate ck -o calib4.st
want "calibrate: missing data" 1 "nowhere" "$N" calibrate ck --data nowhere.txt -o calib4.st
absent "calibrate: nothing left" calib4.st
want "quantize with statistics" 0 "matrices" "$N" quantize ck --format fp8 --calib calib.st --kv fp8 -o q-calib
said "quantize: the cache's algorithm" '"kv_cache_quant_algo": "FP8"' q-calib/hf_quant_config.json
said "quantize: scales of the cache" 'k_proj.k_scale' q-calib/model.safetensors
said "quantize: scales of activations" 'experts.7.down_proj.input_scale' q-calib/model.safetensors
want "quantize: statistics of another size" 1 "layers.7" "$N" quantize ck --format fp8 --calib calib3.st -o q-bad
absent "quantize: nothing left" q-bad

want "run with an FP8 cache" 0 "size full" "$N" run q-calib --kv fp8 -p hello -n 4 --ignore-eos --seed 1 --save-state kv.state
want "run: a state of the other cache" 1 "stored as F8_E4M3" "$N" run q-calib -p more -n 4 --load-state kv.state
want "run: no scales, said" 0 "no k_scale" "$N" run ck --kv fp8 -p hello -n 4 --ignore-eos --seed 1
want "run: unknown cache" 2 "neither f32 nor fp8" "$N" run ck --kv int8 -p hello
want "inspect --kv" 0 "in FP8; states F32" "$N" inspect --kv fp8 ck
want "compare caches" 0 "^full" "$N" compare q-calib --data calib.txt --kv-a f32 --kv fp8 --size full
if grep -q "^full  *0.000000  *0.0000" out; then bad "compare caches: they differ" "a divergence of 0"; else ok "compare caches: they differ"; fi

sed 's/MEM\*EME-/MEM*EMEM/' config.json >moe.json
want "synth for export" 0 "" "$N" synth moe.json -o moe --dtype bf16 --seed 2 --text-dir text
want "export" 0 "" "$N" export moe --to gguf --pre gpt-2 -o moe.gguf
want "import" 0 "" "$N" import moe.gguf -o moe-back
same "import: the weights are back" moe/model.safetensors moe-back/model.safetensors
same "import: the tokenizer is back" moe/tokenizer.json moe-back/tokenizer.json
same "import: the template is back" moe/chat_template.jinja moe-back/chat_template.jinja
want "export of a size" 0 "" "$N" export moe --to gguf --size hidden=32,shared_ffn=32 --type q8_0 --pre gpt-2 -o moe32.gguf
want "export: dense layers beside experts" 1 "dense FFN" "$N" export ck --to gguf -o no.gguf
want "export: no format" 2 "to" "$N" export moe -o no.gguf
absent "export: nothing left" no.gguf
head -c 5000 moe.gguf >cut.gguf
want "import: cut short" 1 "cut.gguf" "$N" import cut.gguf -o no-dir
want "import: not GGUF" 1 "not a GGUF" "$N" import config.json -o no-dir
absent "import: nothing left" no-dir

# ---------------------------------------------------------------- Hugging Face folders

want "export: a folder" 0 "" "$N" export q --size small --to hf --dtype f32 -o hf --max-shard 60KB
check "the folder has shards" -e hf/model.safetensors.index.json
check "the folder has its tokenizer" -e hf/tokenizer.json
absent "no quantisation config is left" hf/hf_quant_config.json
absent "one size keeps no nest.json" hf/nest.json
said "the config says the type" '"torch_dtype": "float32"' hf/config.json
want "inspect the folder" 0 "F32.*100.0" "$N" inspect hf
want "logits of the folder" 0 "" "$N" logits hf --ids-file ids -o a.st
want "logits of what it came from" 0 "" "$N" logits q --size small --ids-file ids -o b.st
for f in a b; do tail -c $((13 * 4 + 13 * 288 * 4)) $f.st >$f.bin; done
same "decoded == as stored" a.bin b.bin
for t in bf16 f16; do want "export: $t" 0 "" "$N" export q-fp8 --to hf --dtype $t -o hf-$t; done
same "the whole model keeps nest.json" ck/nest.json hf-bf16/nest.json
want "export: as stored" 0 "" "$N" export q --size small --to hf -o hf-stored
want "the slice of it" 0 "" "$N" slice q --size small -o hf-slice
want "as stored is the slice" 0 "" diff -r hf-stored hf-slice
want "export: unknown dtype" 1 "f32, bf16 or f16" "$N" export q --to hf --dtype f64 -o hf-no
want "export: --dtype for gguf" 2 "\-\-dtype is for" "$N" export q --to gguf --dtype f32 -o hf-no
want "export: --type for hf" 2 "\-\-type is for" "$N" export q --to hf --type f32 -o hf-no
want "export: unknown format" 2 "neither" "$N" export q --to onnx -o hf-no
want "export: into a folder that is there" 1 "exists already" "$N" export q --to hf -o hf
absent "export: no folder left" hf-no

# ---------------------------------------------------------------- elastify

awk 'BEGIN { for (d = 0; d < 40; d++) { s = ""; for (i = 0; i < 20; i++) s = s (i ? "," : "") 3 + (d * 7 + i % 3 * 5) % 200; print "{\"ids\":[" s "]}" } }' >mix.jsonl
E="--data mix.jsonl --steps 4 --seq 40 --batch 2 --accum 3 --workers 1 --eval-docs 4"
want "elastify" 0 "^0.6 " "$N" elastify ck $E --budgets 1,0.6 --axes hidden,expert_ffn,dense_ffn,mamba_heads --choices expert_ffn=1,16,8 --round 8 -o nested
check "elastify keeps its log" -s nested.train/stage1/log.jsonl
check "elastify writes the router" -s nested/router.safetensors
want "a nested checkpoint has its sizes" 0 "0.6  *0.600" "$N" inspect nested
want "a budget between the sizes" 0 "" "$N" logits nested --size 0.8 --ids-file ids -o a.st
want "a slice at a budget" 0 "" "$N" slice nested --size 0.7 -o nested-07
want "elastify into a folder that is there" 1 "exists already" "$N" elastify ck $E --budgets 1,0.6 -o nested
want "elastify, a run that is there" 1 "resume" "$N" elastify ck $E --budgets 1,0.6 --run-dir nested.train -o nested2
want "elastify --fixed" 0 "\"name\": \"S\"" "$N" elastify ck $E --fixed full --fixed S=hidden=32 --json -o fixed
want "elastify, out of reach" 1 "budget 0.1: the smallest choices" "$N" elastify ck $E --budgets 1,0.1 -o x
want "elastify, unknown axis" 1 "unknown axis" "$N" elastify ck $E --budgets 1,0.6 --axes width -o x
want "elastify, depth without an order" 1 "depth-order" "$N" elastify ck $E --budgets 1,0.6 --axes depth -o x
want "elastify without sizes" 1 "no sizes of its own" "$N" elastify moe $E -o x
want "elastify without data" 2 "data" "$N" elastify ck --budgets 1,0.6 -o x
want "elastify, unknown target" 2 "target" "$N" elastify ck $E --budgets 1,0.6 --target speed -o x
absent "refused runs leave nothing" x
rm nested/router.safetensors
want "a router without weights" 1 "router.safetensors: not there" "$N" inspect nested

sed 's/"vocab_size": 288/"vocab_size": 300/' moe.json >moe3.json
want "synth of another vocabulary" 0 "" "$N" synth moe3.json -o moe3 --dtype f32
cat config.json nest.json >book
want "bench" 0 "small" "$N" bench ck -s full -s small -p 16 -n 2 -r 1
want "bench --json" 0 '"sizes"' "$N" bench ck -s small -p 0 -n 1 --json
want "bench --mix" 0 "2 sizes, 1 sequences each: .* times" "$N" bench ck -s full -s small -p 0 -n 2 --mix
want "compare: a model with itself" 0 "^full  *0.000000  *0.0000 100.00 %" "$N" compare ck --data book --size full --limit 200
want "compare: its sizes" 0 "^small  *[0-9.]*[1-9]" "$N" compare ck --data book --limit 100 --layers
want "compare: a quantised copy" 0 '"kl"' "$N" compare ck q-fp8 --data book --limit 100 --size mid --size-a mid --json
printf '{"text": "hello"}\n{"messages": [{"role": "user", "content": "Hi"}]}\n{"prompt": "a", "completion": "b"}\n' >docs.jsonl
want "compare: JSONL" 0 "^full" "$N" compare ck --data docs.jsonl --size full
echo '{"words": 1}' >>docs.jsonl
want "compare: a bad line" 1 "docs.jsonl: line 4" "$N" compare ck --data docs.jsonl
want "compare: other vocabulary" 1 "vocabular" "$N" compare ck moe3 --data book
want "compare: no data" 2 "data" "$N" compare ck

want "score" 0 "^small  *[0-9]" "$N" score ck --text book --size full --size small --context 128
want "score --json" 0 '"perplexity"' "$N" score ck --text book --json --limit 200
"$N" score ck --text book --json --limit 200 --context 200 2>err | grep nll >a
"$N" score ck --text book --json --limit 200 --context 1000 2>err | grep nll >b
same "score: one window is one window" a b
want "score, empty text" 1 "at least two" "$N" score ck --text /dev/null
want "score, stride over context" 2 "stride" "$N" score ck --text book --context 10 --stride 11
want "score, missing text" 1 "nobook" "$N" score ck --text nobook
want "score without a tokenizer" 1 "tokenizer.json" "$N" score ck3 --text book

# ---------------------------------------------------------------- serve

echo >nokeys
want "serve: no checkpoint" 2 "CKPT" "$N" serve
want "serve: pieces that cut a chunk" 2 "multiple of 64" "$N" serve ck --chunk 100
want "serve: everybody, without a key" 2 "api-key-file" "$N" serve ck --host 0.0.0.0
want "serve: a certificate alone" 2 "cert-key" "$N" serve ck --cert book
want "serve: no key in the file" 1 "nokeys" "$N" serve ck --api-key-file nokeys
want "serve: no such file" 1 "nofile" "$N" serve ck --api-key-file nofile
want "serve: no certificate" 1 "ertificate\|cert\|TLS" "$N" serve ck --port 0 --cert book --cert-key book
want "serve: no such address" 1 "192.0.2.1" "$N" serve ck --host 192.0.2.1 --no-key
"$N" serve ck --port 0 --no-measure >out 2>err </dev/null &
server=$!
for i in 1 2 3 4 5 6 7 8 9 10; do grep -q "ready after" err && break; sleep 0.3; done
said "serve: says where" "ck at http://127.0.0.1:[1-9][0-9]*, ready after" err
kill -TERM $server
wait $server
check "serve: SIGTERM ends it well" $? -eq 0
said "serve: says that it stops" "stopping" err

finish
