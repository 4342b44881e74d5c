#!/bin/sh
# Tests of `nestar problems` and `nestar eval`: eval.sh PATH-OF-NESTAR.
. "$(dirname "$0")/lib.sh"

# ---------------------------------------------------------------- problems

for c in problems eval; do
    want "$c --help" 0 "  nestar $c " "$N" $c --help
    want "$c: unknown option" 2 "nestar $c: " "$N" $c --frobnicate
    want "$c: no argument" 2 "is missing" "$N" $c
done
want "problems" 0 "" "$N" problems -n 300 --seed 4 -o train.jsonl
check "problems, one a line" "$(wc -l <train.jsonl)" -eq 300
"$N" problems -n 300 --seed 4 -o - >again.jsonl
same "problems, the same twice and on standard output" train.jsonl again.jsonl
head -100 train.jsonl >first
"$N" problems -n 100 --seed 4 -o few.jsonl
same "problems, fewer are the first ones" first few.jsonl
"$N" problems -n 300 --seed 5 -o other.jsonl
differ "problems, another seed" train.jsonl other.jsonl
"$N" problems -n 200 --seed 4 --split test -o test.jsonl
grep -o '"content":"[A-Z][^"]*"' train.jsonl | sort -u >q1
grep -o '"content":"[A-Z][^"]*"' test.jsonl | sort -u >q2
check "problems, test questions" "$(wc -l <q2)" -gt 150
check "problems, none in both splits" "$(comm -12 q1 q2 | wc -l)" -eq 0
check "problems, all test ones with thoughts" "$(grep -c reasoning_content test.jsonl)" -eq 200
"$N" problems -n 50 --kinds chain,sum --level 3 --no-think-share 1 --cut-share 0 -o some.jsonl
check "problems, kinds and level" "$(grep -cE '"kind":"(chain|sum)","level":3' some.jsonl)" -eq 50
check "problems, no thoughts" "$(grep -c reasoning_content some.jsonl)" -eq 0
"$N" problems -n 50 --no-think-share 0 --cut-share 1 -o cut.jsonl
check "problems, all cut" "$(grep -c '"completion"' cut.jsonl)" -eq 50
want "problems, unknown kind" 2 '"chains" is none of' "$N" problems -n 1 --kinds sum,chains -o x
want "problems, empty kind" 2 'is none of' "$N" problems -n 1 --kinds sum, -o x
want "problems, level too high" 2 "level" "$N" problems -n 1 --level 3-99 -o x
want "problems, levels the wrong way" 2 "level" "$N" problems -n 1 --level 5-3 -o x
want "problems, unknown split" 2 "neither train nor test" "$N" problems -n 1 --split dev -o x
want "problems, shares over one" 2 "all together" "$N" problems -n 1 --no-think-share 0.7 --cut-share 0.7 -o x
want "problems, no place to write" 1 "nowhere" "$N" problems -n 1 -o nowhere/x
absent "problems, nothing left of refused ones" x

# The markup of cut lines is the template's.
demo=$here/../../examples/demo
"$N" problems -n 1 --kinds sum --no-think-share 0 --cut-share 1 -o one.jsonl
"$N" problems -n 1 --kinds sum --no-think-share 1 --cut-share 0 -o plain.jsonl
sed 's/"role":"assistant".*/"role":"assistant","content":""}],"x":1}/; s/,{"role":"assistant".*\]/],"add_generation_prompt":true/' plain.jsonl >conversation
"$N" template "$demo/text" <conversation >prompt
sed 's/^{"prompt":"//; s/<think>.*/<think>/; s/\\n/\n/g' one.jsonl >start
same "problems, cut ones begin as prompts do" start prompt

# ---------------------------------------------------------------- eval

sed 's/"hidden_size": 192/"hidden_size": 64/; s/"MEM\*EMEM\*EME"/"ME*E"/; s/"num_hidden_layers": 12/"num_hidden_layers": 4/' "$demo/config.json" >config.json
echo '{"version": 1, "variants": [{"name": "small", "cut": {"hidden": 32, "expert_ffn": 32}}]}' >nest.json
want "a model" 0 "" "$N" synth config.json --dtype f32 --seed 3 --nest nest.json --text-dir "$demo/text" -o ck
E="$N eval ck --task test.jsonl -n 12 --max-thought 20 --max-answer 8"
want "eval" 0 "^12 problems" $E --sizes full,small,hidden=48,expert_ffn=48 --think-budgets 0,5,inf -o answers.jsonl
said "eval, a line for size and budget" "^small  *off " out
said "eval, axis pairs stay together" "^hidden=48,expert_ffn=48  *inf " out
check "eval, rows" "$(grep -cE ' (off|5|inf) .* % ' out)" -eq 9
check "eval, every answer in the file" "$(wc -l <answers.jsonl)" -eq 108
said "eval, answers have what was expected" '"expected":"' answers.jsonl
want "eval, JSON" 0 '"levels"' $E --size full --size small --json
said "eval, JSON has intervals" '"low": 0' out
$E --batch 1 -o one.jsonl >/dev/null 2>&1
$E --batch 7 -o seven.jsonl >/dev/null 2>&1
sort one.jsonl >a && sort seven.jsonl >b
same "eval, the batch does not matter" a b
want "eval, budget beyond the thought" 1 "thoughts end at 20" $E --think-budgets 20
want "eval, budget twice" 1 "given twice" $E --think-budgets 4,4
want "eval, bad budget" 2 "think-budgets" $E --think-budgets 4,x
want "eval, unknown size" 1 "huge" $E --size huge
want "eval, empty size" 2 "empty" $E --sizes full,
want "eval, no task" 2 "task is missing" "$N" eval ck
want "eval, missing task" 1 "no.jsonl" "$N" eval ck --task no.jsonl
echo '{"question": "Compute 1+1."}' >bad.jsonl
want "eval, a problem without an answer" 1 'bad.jsonl:1: key "answer"' "$N" eval ck --task bad.jsonl
want "eval, missing checkpoint" 1 "nowhere" "$N" eval nowhere --task test.jsonl
mkdir bare && cp ck/config.json ck/model.safetensors bare/
want "eval, no text files" 1 "tokenizer.json" "$N" eval bare --task test.jsonl
want "eval, prompts too long for the model" 1 "positions" "$N" eval ck --task test.jsonl --max-thought 5000

# ---- other tasks: each reads what it is published as, and says what is wrong with a file

mkdir -p bench/bbh
printf '%s\n' '{"question": "Two and two?", "answer": "2+2=<<2+2=4>>4\n#### 4"}' >bench/gsm.jsonl
echo '{"id": 7, "problem": "Three?", "answer": 3}' >bench/aime.jsonl
printf '%s\n' '{"problem": "Half?", "answer": "\\frac{1}{2}", "subject": "Algebra", "level": 2, "unique_id": "x"}' >bench/math.jsonl
printf '"Which, of ""these""?",a,b,"c\nd",e,B\n' >bench/sums_test.csv
echo '{"question_id": 1, "question": "Which?", "options": ["a", "b", "c"], "answer": "C", "category": "law"}' >bench/pro.jsonl
echo '{"examples": [{"input": "not True is", "target": "False"}]}' >bench/bbh/logic.json
echo '{"key": 1, "prompt": "No commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}' >bench/if.jsonl
echo '{"key": "2", "prompt": "A verb.", "instruction_id_list": ["words:start_verb"], "kwargs": [{}]}' >bench/ifb.jsonl
B="$N eval ck --max-thought 6 --max-answer 4 --json"
for t in gsm8k:bench/gsm.jsonl aime:bench/aime.jsonl math:bench/math.jsonl mmlu:bench mmlu-pro:bench/pro.jsonl bbh:bench/bbh ifeval:bench/if.jsonl; do
    want "eval, $t" 0 '"n": 1,' $B --task $t
done
want "eval, a kind of its own" 0 '"law": {' $B --task mmlu-pro:bench/pro.jsonl
want "eval, what cannot be graded is counted" 0 '"ungraded": 1' $B --task ifbench:bench/ifb.jsonl
said "eval, and is no answer" '"n": 0,' out
want "eval, no such task" 1 "no task of that name; there are plain, gsm8k" "$N" eval ck --task trivia:x.jsonl
want "eval, no number in a solution" 1 'bench/aime.jsonl:1: key "answer"' "$N" eval ck --task gsm8k:bench/aime.jsonl
want "eval, a quote that is not closed" 1 "unclosed_test.csv:1: a quote is not closed" sh -c "printf '\"a,b\n' >unclosed_test.csv; $N eval ck --task mmlu:unclosed_test.csv"
want "eval, fields missing" 1 "short_test.csv:2: 3 fields" sh -c "printf 'q,a,b,c,d,A\nq,a,b\n' >short_test.csv; $N eval ck --task mmlu:short_test.csv"
want "eval, a packed file" 1 "unpack it first" sh -c "echo >x.jsonl.xz; $N eval ck --task math:x.jsonl.xz"
want "eval, an empty folder" 1 "no problem in it" sh -c "mkdir none; $N eval ck --task math:none"

# ---- results that a stopped run goes on with

R="$E --sizes full,small --think-budgets 0,5,inf --batch 4"
speedless() { grep -v tokens_per_second "$1" >"$1.x"; mv "$1.x" "$1"; }
$R --json >whole 2>/dev/null
want "eval, results" 0 '"interrupted": false' $R --json --results r.db -o first.jsonl
speedless whole && speedless out && mv out once
same "eval, results do not change the report" whole once
want "eval, the same again has nothing to do" 0 "" $R --json --results r.db -o second.jsonl
speedless out
same "eval, and reports the same" whole out
sort first.jsonl >a && sort second.jsonl >b
same "eval, and writes the same answers" a b
want "eval, more plans in the same run" 0 "^small:full cache *5 " $R --pairs small:full --handover cache,prefill --results r.db
said "eval, a handover is a plan" "^small:full prefill *5 " out
want "eval, not a results file" 1 "first.jsonl" $E --results first.jsonl

# ---- samples

want "eval, samples" 0 '"pass_at": {' $E --samples 2 --temperature 1 --seed 3 --json
want "eval, samples in the table" 0 "pass@1 .* pass@2" $E --samples 2 --temperature 1
want "eval, samples without a temperature" 2 "all be the same" $E --samples 2
want "eval, top-p without a temperature" 2 "needs --temperature" $E --top-p 0.9
want "eval, bad pair" 2 "no pair of sizes" $E --pairs small
want "eval, the handover that run would take" 0 "^small:full prefill *5 " $E --pairs small:full --think-budgets 5
sed '1s/{/{"handover": "cache", /' ck/nest.json >cached.json
want "eval, the handover that the checkpoint allows" 0 "^small:full cache *5 " $E --nest cached.json --pairs small:full --think-budgets 5
want "eval, auto stands alone" 2 "stands alone" $E --pairs small:full --handover auto,cache
want "eval, bad handover" 2 "none of auto, cache" $E --pairs small:full --handover later
want "eval, sizes that think alone" 2 "go together" $E --think small
want "eval, every size with every other" 0 "^small:full prefill " $E --think full,small --answers full

# The bundled model does what docs/RESULTS.md says of it: nine in ten with thinking, at every size; also at a size of the router's.
"$N" problems -n 40 --seed 9 --split test -o bundled.jsonl
env -u NS_CPU -u NS_THREADS "$N" eval "$demo/model" --task bundled.jsonl --sizes full,medium,small,0.85 --json >out 2>err
check "the bundled model answers" "$(grep -c '"correct": \(3[4-9]\|40\),*$' out)" -ge 3
said "a budget between its sizes" '"size": "0.85"' out
want "a budget below them" 1 "no size is that small" "$N" run "$demo/model" --size 0.3 -p x

# Ctrl-C: what is done is counted.
"$N" problems -n 30000 --split test -o many.jsonl
"$N" eval ck --task many.jsonl --max-thought 20 --max-answer 8 -o part.jsonl >out 2>err &
n=0
until [ -n "$(find . -name 'part.jsonl*' -size +0)" ] || [ $n -ge 500 ]; do sleep 0.2; n=$((n + 1)); done
kill -INT $! && wait $!
check "eval, interrupted: exit status" $? -eq 130
said "eval, interrupted: said so" "interrupted" out
check "eval, interrupted: answers kept" "$(wc -l <part.jsonl)" -gt 0


# A run that is killed loses a second at most: the same command goes on, and reports what one in one go does.
head -60 many.jsonl >some60.jsonl
K="$N eval ck --task some60.jsonl --max-thought 60 --max-answer 8 --batch 2 --think-budgets 3,inf --json"
$K >whole 2>/dev/null
$K --results k.db >out 2>err &
n=0
until [ -s k.db ] && [ $n -ge 15 ]; do sleep 0.1; n=$((n + 1)); done
kill -9 $! 2>/dev/null
wait $! 2>/dev/null
want "eval, goes on after a kill" 0 '"interrupted": false' $K --results k.db
speedless whole && speedless out
same "eval, and reports what one run does" whole out

finish
