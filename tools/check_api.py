#!/usr/bin/env python3
"""Validates objects against the published description of the OpenAI API.

    check_api.py openapi.json[.xz] OBJECTS.jsonl ..

A line is {"schema": name of a component schema, "stream": bool, "object": {..}}; tests/unit/test_api_reply.c writes such lines with
NS_TEST_DUMP=DIR. Needs Python's jsonschema. Exit status 1 if any object does not validate; prints how many of each schema did.

OpenAPI 3.1 schemas are JSON Schema 2020-12, with these exceptions:
- "nullable": true is a leftover of 3.0, still used beside "$ref" and "type": null is allowed as well.
- "discriminator" is no validation keyword. Where it names "type", the branches that cannot have the object's type are left out before
  anyOf / oneOf are tried; the result is the same, and the message is about the branch that was meant.
- CreateCompletionResponse stands for the whole object and for the events of a stream, yet does not allow what every event but the last
  has: a finish_reason of null, and a usage of null with stream_options.include_usage. For lines with "stream": true both may be null.
Own fields (reasoning_content, nestar) are additional properties, which the schemas allow.
"""
import collections
import json
import lzma
import pathlib
import sys

import jsonschema

PREFIX = "#/components/schemas/"


def read(path):
    data = pathlib.Path(path).read_bytes()
    return json.loads(lzma.decompress(data) if path.endswith(".xz") else data)


def nullable(node):
    """The same schema with "nullable" spelled out."""
    if isinstance(node, list):
        return [nullable(v) for v in node]
    if not isinstance(node, dict):
        return node
    out = {k: nullable(v) for k, v in node.items() if k != "nullable" or not isinstance(v, bool)}
    return {"anyOf": [out, {"type": "null"}]} if node.get("nullable") is True else out


def may_be(schemas, branch, kind):
    """Can an object with this "type" be of the branch?"""
    if "$ref" in branch:
        branch = schemas[branch["$ref"].removeprefix(PREFIX)]
    if "allOf" in branch:
        return all(may_be(schemas, b, kind) for b in branch["allOf"])
    if "anyOf" in branch or "oneOf" in branch:
        return any(may_be(schemas, b, kind) for b in branch.get("anyOf", branch.get("oneOf")))
    return kind in branch.get("properties", {}).get("type", {}).get("enum", [kind])


def validator(root):
    schemas = root["components"]["schemas"]
    base = jsonschema.Draft202012Validator

    def union(keyword):
        plain = base.VALIDATORS[keyword]

        def check(v, branches, instance, schema):
            if schema.get("discriminator", {}).get("propertyName") == "type" and isinstance(instance, dict):
                branches = [b for b in branches if may_be(schemas, b, instance.get("type"))]
                if len(branches) == 1:
                    yield from v.descend(instance, branches[0])
                    return
            yield from plain(v, branches, instance, schema)

        return check

    return jsonschema.validators.extend(base, {"anyOf": union("anyOf"), "oneOf": union("oneOf")})


def allow_null_in_stream(schemas):
    chunk = json.loads(json.dumps(schemas["CreateCompletionResponse"]))
    chunk["properties"]["choices"]["items"]["properties"]["finish_reason"]["nullable"] = True
    chunk["properties"]["usage"]["nullable"] = True
    schemas["CreateCompletionResponse in a stream"] = chunk


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    root = read(sys.argv[1])
    allow_null_in_stream(root["components"]["schemas"])
    root = nullable(root)
    make = validator(root)
    good, bad = collections.Counter(), 0
    for path in sys.argv[2:]:
        for n, line in enumerate(open(path, encoding="utf-8"), 1):
            row = json.loads(line)
            name = row["schema"] + (" in a stream" if row["stream"] and row["schema"] == "CreateCompletionResponse" else "")
            errors = list(make({"$ref": PREFIX + name, "components": root["components"]}).iter_errors(row["object"]))
            for e in errors:
                print(f"{path}:{n}: {name}: {e.json_path}: {e.message[:300]}")
            kind = row["object"].get("type") if row["schema"] == "ResponseStreamEvent" else None
            good[f"{name} {kind}" if kind else name] += not errors
            bad += bool(errors)
    for name, count in sorted(good.items()):
        print(f"{count:7d} {name}")
    print(f"{sum(good.values())} objects validate, {bad} do not")
    sys.exit(bad > 0 or not good)


if __name__ == "__main__":
    main()
