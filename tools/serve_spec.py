"""What a server said, held against the published OpenAPI description of the OpenAI API (version 3.1, JSON or JSON packed with xz).

Where the description contradicts the service it describes, the service is followed, in two places: `nullable` of OpenAPI 3.0, which is
still in it, counts; and an event of a streamed completion may have no finish_reason yet."""

import json
import lzma

import jsonschema
import referencing
import referencing.jsonschema


def load(path):
    with (lzma.open if path.endswith(".xz") else open)(path, "rb") as f:
        return json.load(f)


def with_null(node):
    """OpenAPI 3.0's `nullable` as JSON Schema has it."""
    if isinstance(node, list):
        return [with_null(x) for x in node]
    if not isinstance(node, dict):
        return node
    nullable = node.get("nullable") is True
    node = {k: with_null(v) for k, v in node.items()}
    return {"anyOf": [node, {"type": "null"}]} if nullable else node


def events_of(body):
    """[(event's name or None, data)] of the whole events of a stream; their syntax is checked on the way."""
    out = []
    for block in body[: body.rfind(b"\n\n") + 2].decode("utf-8").split("\n\n"):
        name, data = None, []
        for line in block.split("\n"):
            field, _, value = line.partition(":")
            if field == "event":
                name = value.strip()
            elif field == "data":
                data.append(value.removeprefix(" "))
            elif field and line[0] != ":":
                raise AssertionError(f"not a field of an event: {line[:80]!r}")
        if data:
            out.append((name, "\n".join(data)))
    return out


class Spec:
    def __init__(self, path):
        doc = with_null(load(path))
        self.schemas = doc["components"]["schemas"]
        resource = referencing.Resource.from_contents(doc, default_specification=referencing.jsonschema.DRAFT202012)
        self.registry = referencing.Registry().with_resource("urn:openai", resource)
        self.by_event, self.checked = {}, {}
        for ref in self.schemas["ResponseStreamEvent"]["anyOf"]:
            schema = ref["$ref"].rsplit("/", 1)[1]
            for kind in self.schemas[schema]["properties"]["type"]["enum"]:
                self.by_event[kind] = schema

    def check(self, schema, value):
        self.checked[schema] = self.checked.get(schema, 0) + 1
        v = jsonschema.Draft202012Validator({"$ref": f"urn:openai#/components/schemas/{schema}"}, registry=self.registry)
        e = jsonschema.exceptions.best_match(v.iter_errors(value))
        if e is not None:
            raise AssertionError(f"{schema}: {e.json_path}: {e.message[:300]}")

    def check_completion_event(self, data):
        """Only the last has a finish_reason, and a usage where one was asked for."""
        for choice in data["choices"]:
            choice["finish_reason"] = choice["finish_reason"] or "stop"
        self.check("CreateCompletionResponse", {k: v for k, v in data.items() if k != "usage" or v is not None})

    def check_stream(self, path, body, whole):
        events = events_of(body)
        if not events:
            raise AssertionError(f"{path}: a stream without events")
        if path.endswith("/responses"):
            for i, (name, data) in enumerate(events):
                data = json.loads(data)
                if name != data["type"]:
                    raise AssertionError(f"event {name} holds type {data['type']}")
                if data.get("sequence_number") != i:
                    raise AssertionError(f"event {i}, {name}: sequence_number {data.get('sequence_number')}")
                self.check(self.by_event[name], data)
            if whole and name not in ("response.completed", "response.incomplete", "response.failed"):
                raise AssertionError(f"{path}: the last event is {name}")
            return
        done = events[-1][1] == "[DONE]"
        if whole and not done:
            raise AssertionError(f"{path}: the last event is {events[-1][1][:80]!r}, not [DONE]")
        for _, data in events[: -1 if done else None]:
            data = json.loads(data)
            if path.endswith("/chat/completions"):
                self.check("CreateChatCompletionStreamResponse", data)
            else:
                self.check_completion_event(data)

    def check_reply(self, method, path, status, kind, body, whole=True):
        """One reply to one request; `path` without query, `kind` the Content-Type, `whole` unless the client broke off."""
        if status >= 400:
            self.check("ErrorResponse", json.loads(body))
        elif kind.startswith("text/event-stream"):
            self.check_stream(path, body, whole)
        elif path.endswith("/models"):
            self.check("ListModelsResponse", json.loads(body))
        elif "/models/" in path:
            self.check("Model", json.loads(body))
        elif method == "POST":
            schema = {"chat/completions": "CreateChatCompletionResponse", "completions": "CreateCompletionResponse", "responses": "Response"}
            self.check(schema[path.partition("/v1/")[2]], json.loads(body))
