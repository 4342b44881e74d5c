#!/usr/bin/env python3
"""Writes the text files of the bundled small model: tokenizer.json and its two companions.

    make_demo_tokenizer.py PROBLEMS.jsonl -o examples/demo/text      (from `nestar problems -n 5000 -o PROBLEMS.jsonl`)
    make_demo_tokenizer.py PROBLEMS.jsonl --check examples/demo/text [--nestar build/nestar]

The ids: the special tokens of the Nemotron family where that family has them, then the 256 bytes, then merges that make one
token of every word the problems use, then reserved ones up to the size. Digits and the names of variables always stand alone:
only letters within a word are merged, and a space with a whole word, last of all.

--check compares the files with Hugging Face tokenizers and jinja2 on every line of PROBLEMS.jsonl: ids, decoding, and the
prompt that nestar renders. Needs tokenizers and jinja2 for that alone.
"""
import argparse
import collections
import json
import re
import subprocess
import sys

SPECIALS = ["<unk>", "<s>", "</s>"] + [f"<SPECIAL_{i}>" for i in range(3, 10)]
SPECIALS += ["<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
VISIBLE = set(SPECIALS[12:])  # part of an answer's text, not of its frame
MARKUP = ["user", "assistant", "system"]  # as they stand behind <|im_start|>


def byte_alphabet():
    """The printable stand-in of every byte, as byte-level tokenizers spell them."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    names, free = {b: chr(b) for b in plain}, 256
    for b in range(256):
        if b not in names:
            names[b] = chr(free)
            free += 1
    return names


def count_words(lines):
    """Words of two letters or more, a leading space included, with their numbers."""
    count = collections.Counter({w: 3 * len(lines) for w in MARKUP})
    for line in lines:
        for m in json.loads(line).get("messages", []):
            for text in (m.get("content", ""), m.get("reasoning_content", "")):
                count.update(w for w in re.findall(r" ?[A-Za-z]+", text) if len(w.strip()) > 1)
    return count


def merges(count):
    """Byte pair merges until every word is one token: the most frequent pair first, a leading space after everything else."""
    stems = collections.Counter()
    for w, n in count.items():
        stems[w.strip()] += n
    parts, out = {w: list(w) for w in stems}, []
    while any(len(p) > 1 for p in parts.values()):
        pairs = collections.Counter()
        for w, p in parts.items():
            for pair in zip(p, p[1:]):
                pairs[pair] += stems[w]
        best = min(pairs, key=lambda p: (-pairs[p], p))
        out.append(best)
        for p in parts.values():
            i = 0
            while i + 1 < len(p):
                if (p[i], p[i + 1]) == best:
                    p[i : i + 2] = [p[i] + p[i + 1]]
                i += 1
    return out + [(" ", w[1:]) for w in sorted(count) if w[0] == " "]


def tokenizer(lines, size):
    alphabet = byte_alphabet()
    joined = merges(count_words(lines))
    # Hugging Face gives added tokens the ids behind the vocabulary unless they are words of it.
    vocab, first = {c: i for i, c in enumerate(SPECIALS)}, len(SPECIALS)
    for b in range(256):
        vocab[alphabet[b]] = first + b
    spell = lambda w: "".join(alphabet[b] for b in w.encode())
    for i, (a, b) in enumerate(joined):
        vocab[spell(a + b)] = first + 256 + i
    used = first + 256 + len(joined)
    if used > size:
        sys.exit(f"{used} tokens are more than --vocab {size}")
    vocab.update((f"<SPECIAL_{i}>", i) for i in range(used, size))
    added = [(i, c) for c, i in vocab.items() if i < first or i >= used]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": c, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": c not in VISIBLE}
            for i, c in added
        ],
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab,
            "merges": [[spell(a), spell(b)] for a, b in joined],
        },
    }


def write(folder, name, value, indent=None):
    with open(f"{folder}/{name}", "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=indent, separators=(",", ":") if indent is None else None)
        f.write("\n")


def make(args, lines):
    names = {"bos_token": "<s>", "eos_token": "<|im_end|>", "unk_token": "<unk>", "pad_token": "<unk>"}
    write(args.output, "tokenizer.json", tokenizer(lines, args.vocab))
    write(args.output, "special_tokens_map.json", names, 2)
    write(args.output, "tokenizer_config.json", {**names, "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False,
                                                 "add_bos_token": False, "model_max_length": 4096}, 2)


def ask(nestar, argv, objects):
    done = subprocess.run([nestar, *argv], input="".join(json.dumps(o) + "\n" for o in objects), capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(args, lines):
    import jinja2.ext
    import tokenizers
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    tok = tokenizers.Tokenizer.from_file(f"{args.check}/tokenizer.json")
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols])
    with open(f"{args.check}/chat_template.jinja", encoding="utf-8") as f:
        template = env.from_string(f.read())
    requests, texts, lengths = [], [], []
    for line in lines:
        o = json.loads(line)
        if "messages" not in o:
            texts.append(o["prompt"] + o["completion"])
            continue
        question = o["messages"][:1]
        for r in ({"messages": o["messages"]}, {"messages": question, "add_generation_prompt": True},
                  {"messages": question, "add_generation_prompt": True, "enable_thinking": False},
                  {"messages": [{"role": "system", "content": "Be brief."}] + o["messages"] + question}):
            requests.append(r)
            texts.append(template.render(**r))
        lengths.append(len(tok.encode(texts[-4], add_special_tokens=False).ids))
    prompts = [a.get("prompt") for a in ask(args.nestar, ["template", "--jsonl", args.check], requests)]
    rendered = iter(prompts)
    bad = sum(p != template.render(**r) for p, r in zip(rendered, requests))
    ids = [tok.encode(t, add_special_tokens=False).ids for t in texts]
    ours = ask(args.nestar, ["tokenize", "--jsonl", args.check], [{"text": t} for t in texts])
    bad_ids = sum(a.get("ids") != i for a, i in zip(ours, ids))
    bad_back = sum(tok.decode(i, skip_special_tokens=False) != t for i, t in zip(ids, texts))
    lengths.sort()
    print(f"{len(requests)} prompts: {bad} differ; {len(texts)} texts: {bad_ids} differ in ids, {bad_back} in decoding")
    print(f"tokens of a document: mean {sum(lengths) / len(lengths):.1f}, half {lengths[len(lengths) // 2]}, "
          f"95 % {lengths[len(lengths) * 95 // 100]}, most {lengths[-1]}; vocabulary {tok.get_vocab_size()}")
    return 1 if bad or bad_ids or bad_back else 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("problems")
    p.add_argument("-o", "--output", metavar="DIR")
    p.add_argument("--vocab", type=int, default=384, help="size, padded with reserved tokens (default 384)")
    p.add_argument("--check", metavar="DIR")
    p.add_argument("--nestar", default="build/nestar")
    args = p.parse_args()
    with open(args.problems, encoding="utf-8") as f:
        lines = f.readlines()
    if args.output:
        make(args, lines)
    return check(args, lines) if args.check else 0


if __name__ == "__main__":
    sys.exit(main())
