#!/usr/bin/env python3
"""Compares grammars made from JSON Schema with Python's jsonschema.

    check_grammar.py BUILD TOKENIZER.json [SUITE] [--seeds N] [--show K]

BUILD has libnestar.a; tools/grammar_walks.c is compiled against it. Answers drawn along the masks must be valid by their schema; texts must be
allowed if valid, and not if invalid. Schemas: models as pydantic describes them (documents made from the models' own fields, written in
several styles, and broken ones), and with SUITE the folder tests/draft2020-12 of the JSON Schema Test Suite. There, valid texts that are
not allowed are only counted (other order of properties, values for which the schema says nothing), and overlapping branches of oneOf too.
Needs jsonschema and pydantic.
"""
import argparse
import collections
import datetime
import enum
import glob
import json
import os
import random
import subprocess
import sys
import tempfile
from typing import Any, Dict, List, Literal, Optional, Tuple, Union

import jsonschema
from pydantic import BaseModel, ConfigDict, Field


class Colour(str, enum.Enum):
    red = "red"
    odd = 'gre"\nen é'


class Node(BaseModel):
    value: int
    children: List["Node"] = []


class Chain(BaseModel):
    text: str
    next: Optional["Chain"] = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int = Field(ge=0, le=9)


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str = Field(min_length=2, max_length=6)


class Person(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    age: Optional[int]
    place: Tuple[float, float]
    colour: Colour = Colour.red
    tags: List[str] = Field(max_length=3)
    scores: Dict[str, float] = {}
    pet: Union[Cat, Dog] = Field(discriminator="kind")
    when: datetime.datetime
    anything: Any = None
    grid: List[List[int]] = Field(min_length=1, max_length=2)
    sure: float = Field(ge=0, le=1)


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int
    ab: Optional[str] = None
    é: bool = True


def text(r, lo=0, hi=8):
    return "".join(r.choice('ab"\\\n\t é漢😀/\x01\x7f<') for _ in range(r.randint(lo, hi)))


def some(r, make, lo=0, hi=3):
    return [make(r) for _ in range(r.randint(lo, hi))]


def whole(r):
    return r.choice([0, -1, 10**17, r.randint(-999, 999)])


def real(r):
    return r.choice([0, 1.5, -1e-7, 1e22, r.random(), r.uniform(-1e9, 1e9)])


def anything(r, depth=3):
    kinds = [text, whole, real, lambda r: None, lambda r: True]
    if depth:
        kinds += [lambda r: some(r, lambda r: anything(r, depth - 1)), lambda r: {text(r): anything(r, depth - 1) for _ in range(2)}]
    return r.choice(kinds)(r)


def maybe(r, **fields):
    return {k: v for k, v in fields.items() if r.random() < 0.6}


def node(r, depth=3):
    return {"value": whole(r), **(maybe(r, children=some(r, lambda r: node(r, depth - 1), 0, 2)) if depth else {})}


def chain(r):
    return {"text": text(r), **maybe(r, next=r.choice([None, {"text": text(r)}]))}


def pet(r):
    return r.choice([{"kind": "cat", "lives": r.randint(0, 9)}, {"kind": "dog", "name": text(r, 2, 6)}])


def person(r):
    return {"name": text(r), "age": r.choice([None, whole(r)]), "place": [real(r), real(r)],
            **maybe(r, colour=r.choice([c.value for c in Colour])), "tags": some(r, text), **maybe(r, scores={text(r): real(r)}),
            "pet": pet(r), "when": text(r), **maybe(r, anything=anything(r)), "grid": some(r, lambda r: some(r, whole), 1, 2),
            "sure": r.choice([0, 1, 1.0, round(r.random(), 9) + 0.001 if r.random() < 0.5 else 0.25])}


def open_(r):
    return {"a": whole(r), **maybe(r, ab=r.choice([None, text(r)])), **maybe(r, é=False), **maybe(r, abc=anything(r), ac=1)}


MODELS = [(Node, node), (Chain, chain), (Person, person), (Open, open_)]
STYLES = [{"separators": (",", ":")}, {}, {"indent": 2}, {"indent": "\t"}]


def broken(r, s):
    i = r.randrange(len(s) + 1)
    return s[:i] + r.choice(["", "x", '"', ",", "1", "}", "]", "\\", "\n\n"]) + s[i + r.randint(0, 1):]


def valid(validator, s):
    try:
        return validator.is_valid(json.loads(s))
    except ValueError:
        return False


def from_models(seed):
    r = random.Random(seed)
    for model, make in MODELS:
        schema = model.model_json_schema()
        good = [v for v in (make(r) for _ in range(60)) if jsonschema.Draft202012Validator(schema).is_valid(v)]
        docs = [json.dumps(v, ensure_ascii=False, **r.choice(STYLES)) for v in good]
        yield model.__name__, schema, docs, [broken(r, d) for d in docs], []


def from_suite(folder):
    for path in sorted(glob.glob(os.path.join(folder, "*.json"))):
        for group in json.load(open(path, encoding="utf-8")):
            docs = [(json.dumps(t["data"], ensure_ascii=False, separators=(",", ":")), t["valid"]) for t in group["tests"]]
            if not any(0xD800 <= ord(c) < 0xE000 for d, _ in docs for c in d):
                yield (os.path.basename(path) + ": " + group["description"], group["schema"], [], [d for d, v in docs if not v],
                       [d for d, v in docs if v])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("build")
    p.add_argument("tokenizer")
    p.add_argument("suite", nargs="?")
    p.add_argument("--seeds", type=int, default=3)
    p.add_argument("--show", type=int, default=20)
    o = p.parse_args()
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    cases = [c for s in range(o.seeds) for c in from_models(s)] + (list(from_suite(o.suite)) if o.suite else [])
    with tempfile.TemporaryDirectory() as d:
        walker = os.path.join(d, "grammar_walks")
        libs = subprocess.check_output(["pkg-config", "--libs", "jansson", "libpcre2-8", "libutf8proc", "sqlite3"], text=True).split()
        subprocess.check_call(["cc", "-O1", "-D_GNU_SOURCE", f"-I{root}/include", f"-I{root}/src", f"{root}/tools/grammar_walks.c",
                               f"{o.build}/libnestar.a", *libs, "-lm", "-pthread", "-o", walker])
        lines = [json.dumps({"schema": s, "docs": good + bad + other, "walks": 15, "seed": i}, ensure_ascii=False)
                 for i, (_, s, good, bad, other) in enumerate(cases)]
        out = subprocess.run([walker, o.tokenizer], input="\n".join(lines).encode() + b"\n", stdout=subprocess.PIPE, check=True).stdout
    count, wrong = collections.Counter(), []
    for (name, schema, good, bad, other), answer in zip(cases, map(json.loads, out.decode().splitlines())):
        if "error" in answer:
            count["schemas refused"] += 1
            if good:
                wrong.append((name, answer["error"]))
            continue
        validator = jsonschema.Draft202012Validator(schema)
        overlap = "oneOf" in name  # of the suite
        count["schemas"] += 1
        ok = iter(answer["accepted"])
        for d in good:
            count["valid texts allowed"] += 1
            if not next(ok):
                wrong.append((name, "not allowed", d))
        for d in bad:
            if next(ok) and not valid(validator, d):
                (count.update(["overlapping oneOf"]) if overlap else wrong.append((name, "allowed", d)))
            count["broken texts"] += 1
        for _ in other:
            count["valid texts of the suite allowed" if next(ok) else "valid texts of the suite not allowed"] += 1
        for s in answer["samples"]:
            count["answers" if s is not None else "answers that did not end"] += 1
            if s is not None and not valid(validator, s):
                (count.update(["overlapping oneOf"]) if overlap else wrong.append((name, "invalid answer", s)))
    print(", ".join(f"{k}: {v}" for k, v in sorted(count.items())))
    for w in wrong[:o.show]:
        print(*w, sep=" | ")
    print("wrong:", len(wrong))
    return len(wrong) > 0


if __name__ == "__main__":
    sys.exit(main())
