#!/usr/bin/env python3
"""Validates objects against the published description of the OpenAI API.

    check_api.py openapi.json[.xz] OBJECTS.jsonl ..

A line is {"schema": name of a component schema, "stream": bool, "object": {..}}; tests/unit/test_api_reply.c writes such lines with
NS_TEST_DUMP=DIR. How the description is read, and where it contradicts the service: serve_spec.py. Needs Python's jsonschema. Exit status 1 if
any object does not validate; prints how many of each schema did."""

import collections
import json
import sys

from serve_spec import Spec


def main():
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    spec, good, bad = Spec(sys.argv[1]), collections.Counter(), 0
    for path in sys.argv[2:]:
        for n, line in enumerate(open(path, encoding="utf-8"), 1):
            row = json.loads(line)
            name, value = row["schema"], row["object"]
            try:
                if row["stream"] and name == "CreateCompletionResponse":
                    spec.check_completion_event(value)
                else:
                    name = spec.by_event[value["type"]] if name == "ResponseStreamEvent" else name
                    spec.check(name, value)
                good[name] += 1
            except AssertionError as e:
                print(f"{path}:{n}: {e}")
                bad += 1
    for name, count in sorted(good.items()):
        print(f"{count:7d} {name}")
    print(f"{sum(good.values())} objects validate, {bad} do not")
    sys.exit(bad > 0 or not good)


if __name__ == "__main__":
    main()
