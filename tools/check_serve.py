#!/usr/bin/env python3
"""The official `openai` Python client against a running server; every reply and every event is held against OpenAI's own description.

    tools/check_serve.py URL OPENAPI [--key KEY] [--model NAME] [--tools] [--busy N] [--loose] [--only WORD]

URL      of the server, as in http://127.0.0.1:8080
OPENAPI  openapi.json or openapi.json.xz
--tools  the checkpoint's chat template knows tools: calls are asked for
--busy   so many requests at once are more than the server takes (--parallel and its queue): 429 and the client's retries are seen
--loose  replies that differ from the description are told at the end but fail no check: for other servers
--only   the checks whose name has WORD in it

Nothing depends on what the model says but for its form, so a checkpoint of random weights will do. Needs openai, pydantic, jsonschema. Ends
with a count; exit status 1 where a check failed. More clients: check_serve_others.py."""

import argparse
import asyncio
import json
import sys
import traceback
import typing

import jsonschema
import openai
import pydantic
import serve_spec

http = sys.modules[openai.DefaultHttpxClient.__mro__[1].__module__.partition(".")[0]]  # httpx, or what the client has in its place by now

ASK = [{"role": "user", "content": "Start with 25. Add 2. Subtract 7. Multiply by 3. Add 6."}]
PLAIN = {"chat_template_kwargs": {"enable_thinking": False}}  # no thought first
CHECKS = []


def check(f):
    CHECKS.append(f)
    return f


class Skip(Exception):
    pass


class Tee(http.SyncByteStream):
    """A reply's body on its way to the client; a copy stays in `kept`."""

    def __init__(self, stream, kept):
        self.stream, self.kept = stream, kept

    def __iter__(self):
        for piece in self.stream:
            self.kept["body"] += piece
            yield piece
        self.kept["whole"] = True

    def close(self):
        self.stream.close()


class Recorder(openai.DefaultHttpxClient):
    """The client's HTTP with every reply kept as it came, also those after which the client tries again."""

    seen: typing.ClassVar[list] = []

    def send(self, request, *, stream=False, **kw):
        r = super().send(request, stream=True, **kw)
        kept = {"method": request.method, "path": request.url.path, "status": r.status_code, "headers": r.headers, "body": b"", "whole": False}
        self.seen.append(kept)
        r.stream = Tee(r.stream, kept)
        if not stream:
            r.read()
        return r


class Run:
    def __init__(self, args):
        self.args = args
        self.spec = serve_spec.Spec(args.openapi)
        self.client = self.connect()
        self.sizes = [m.id for m in self.client.models.list()]
        self.model = args.model or self.sizes[0]
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.off = {}  # what differs from the description: how often

    def connect(self, **kw):
        options = {"base_url": self.args.url.rstrip("/") + "/v1", "api_key": self.args.key, "max_retries": 0, "timeout": 300} | kw
        return openai.OpenAI(http_client=Recorder(), **options)

    def chat(self, messages=ASK, **kw):
        options = {"model": self.model, "temperature": 0, "max_tokens": 48, "extra_body": PLAIN} | kw
        return self.client.chat.completions.create(messages=messages, **options)

    def refused(self, kind, param=None, code=None, **kw):
        """The exception, of class `kind`, with which a chat request ends."""
        try:
            self.chat(**kw)
        except openai.APIStatusError as e:
            assert type(e) is kind, f"{type(e).__name__} instead of {kind.__name__}: {e}"
            assert e.message and e.type, f"no message or type: {e.body}"
            assert param is None or (e.param or "").startswith(param), f"param {e.param}, expected {param}"
            assert code is None or e.code == code, f"code {e.code}, expected {code}"
            return e
        raise AssertionError(f"accepted, {kind.__name__} was expected: {kw}")

    def one(self, f):
        Recorder.seen.clear()
        outcome, why = "passed", ""
        try:
            f(self)
        except Skip as e:
            outcome, why = "skipped", str(e)
        except Exception as e:  # every failure is a line; the rest goes on
            where = [x for x in traceback.extract_tb(e.__traceback__) if x.filename == __file__][-1]
            outcome, why = "failed", f"{type(e).__name__}: {str(e)[:600] or where.line} (line {where.lineno})"
        off = self.differences()
        if off and not self.args.loose and outcome != "failed":
            outcome, why = "failed", off[0]
        self.counts[outcome] += 1
        print(f"{outcome:8s}{f.__name__}{': ' + why if why else ''}", flush=True)

    def differences(self):
        """Where the replies since the last check differ from the description."""
        out = []
        for k in Recorder.seen:
            whole = k["whole"] or k["body"].endswith(b"data: [DONE]\n\n")
            try:
                self.spec.check_reply(k["method"], k["path"], k["status"], k["headers"].get("content-type", ""), k["body"], whole)
            except (AssertionError, LookupError, TypeError, ValueError) as e:
                out.append(f"{k['path']}: {type(e).__name__}: {e}")
        for e in out:
            self.off[e] = self.off.get(e, 0) + 1
        return out


def joined(stream):
    """{choice: (content, reasoning, finish_reason)}, usage of a stream."""
    out, usage = {}, None
    for c in stream:
        usage = c.usage or usage
        for x in c.choices:
            said, thought, end = out.get(x.index, ("", "", None))
            assert end is None, "a choice goes on after its finish_reason"
            out[x.index] = (said + (x.delta.content or ""), thought + (getattr(x.delta, "reasoning_content", None) or ""), x.finish_reason)
    return out, usage


@check
def models(run):
    assert run.sizes and len(set(run.sizes)) == len(run.sizes), run.sizes
    for name in run.sizes:
        assert run.client.models.retrieve(name).id == name
        r = run.chat(model=name, max_tokens=4)
        assert r.choices[0].message.role == "assistant"
        if name != "auto":
            assert r.model == name, f"{name} was asked, {r.model} named"


@check
def chat(run):
    r = run.chat()
    assert r.choices[0].finish_reason in ("stop", "length")
    u = r.usage
    assert u.total_tokens == u.prompt_tokens + u.completion_tokens and u.prompt_tokens > 0
    assert r.choices[0].finish_reason != "length" or u.completion_tokens == 48, u
    assert run.chat(max_tokens=openai.omit, max_completion_tokens=3).usage.completion_tokens <= 3


@check
def roles_and_parts(run):
    parts = [{"type": "text", "text": "Add 2 "}, {"type": "text", "text": "to 3."}]
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": parts}, {"role": "assistant", "content": "5"},
            {"role": "user", "content": "And 4?"}]  # fmt: skip
    assert run.chat(talk).usage.prompt_tokens > run.chat(talk[-1:]).usage.prompt_tokens
    run.chat([{"role": "user", "content": "Grüße, 世界 🌍 \u0000 \U0010ffff"}])


@check
def stream_is_the_answer(run):
    whole = run.chat()
    parts, usage = joined(run.chat(stream=True))
    assert usage is None, "usage was not asked for"
    assert parts[0][0] == (whole.choices[0].message.content or ""), (parts[0], whole.choices[0].message)
    assert parts[0][2] == whole.choices[0].finish_reason


@check
def stream_usage(run):
    whole = run.chat()
    _, usage = joined(run.chat(stream=True, stream_options={"include_usage": True}))
    assert usage and (usage.prompt_tokens, usage.completion_tokens) == (whole.usage.prompt_tokens, whole.usage.completion_tokens), usage


@check
def stream_broken_off(run):
    for _ in range(3):
        with run.chat(stream=True, max_tokens=256) as s:
            next(iter(s))
    assert run.chat(max_tokens=2).choices


@check
def thinking(run):
    r = run.chat(extra_body={}, reasoning_effort="high", max_tokens=256)
    m, d = r.choices[0].message, r.usage.completion_tokens_details
    assert getattr(m, "reasoning_content", None), f"no reasoning_content: {m}"
    assert d and 0 < d.reasoning_tokens <= r.usage.completion_tokens, f"reasoning_tokens: {d}"
    parts, _ = joined(run.chat(extra_body={}, reasoning_effort="high", max_tokens=256, stream=True))
    assert parts[0][:2] == (m.content or "", m.reasoning_content), (parts[0], m)
    m = run.chat(extra_body={}, reasoning_effort="none").choices[0].message
    assert not getattr(m, "reasoning_content", None), "thought with reasoning_effort none"


@check
def n_choices(run):
    r = run.chat(n=3, temperature=1, seed=5, max_tokens=16)
    assert [c.index for c in r.choices] == [0, 1, 2]
    parts, usage = joined(run.chat(n=3, temperature=1, seed=5, max_tokens=16, stream=True, stream_options={"include_usage": True}))
    assert sorted(parts) == [0, 1, 2] and all(p[2] for p in parts.values())
    assert [parts[i][0] for i in range(3)] == [c.message.content or "" for c in r.choices], "the same seed, streamed, says something else"
    assert usage.completion_tokens == r.usage.completion_tokens and usage.prompt_tokens == r.usage.prompt_tokens


@check
def seed(run):
    def text(k):
        return run.chat(temperature=1.5, seed=k, max_tokens=24).choices[0].message.content

    assert text(7) == text(7)
    assert len({text(k) for k in range(4)}) > 1, "four seeds, one text"


@check
def stop(run):
    text = run.chat(max_tokens=64).choices[0].message.content or ""
    words = [text[i : i + 3] for i in range(1, len(text) - 2) if "\ufffd" not in text[i : i + 3]]
    if not words:
        raise Skip(f"the answer is {text!r}: nothing to stop at")
    word = words[len(words) // 2]
    for how in (word, ["never said \u2603", word]):
        r = run.chat(max_tokens=64, stop=how).choices[0]
        assert (r.message.content or "") == text[: text.index(word)] and r.finish_reason == "stop", (text, word, r)
        parts, _ = joined(run.chat(max_tokens=64, stop=how, stream=True))
        assert parts[0][0] == text[: text.index(word)] and parts[0][2] == "stop", (text, word, parts)


@check
def logprobs(run):
    r = run.chat(logprobs=True, top_logprobs=4, max_tokens=16).choices[0]
    tokens = r.logprobs.content
    said = b"".join(bytes(t.bytes) for t in tokens).decode("utf-8", "replace")
    assert said.replace("\ufffd", "").strip().startswith((r.message.content or "").replace("\ufffd", "").strip()), (said, r.message.content)
    for t in tokens:
        tops = [x.logprob for x in t.top_logprobs]
        assert len(tops) == 4 and tops == sorted(tops, reverse=True) and t.logprob <= 1e-6, t
        assert t.logprob == tops[0], f"greedy, but not the likeliest: {t}"
    told = [
        x
        for c in run.chat(logprobs=True, max_tokens=16, stream=True)
        for x in (c.choices[0].logprobs.content if c.choices and c.choices[0].logprobs else [])
    ]
    assert [x.token for x in told] == [t.token for t in tokens]
    assert run.chat(max_tokens=4).choices[0].logprobs is None


class Shape(pydantic.BaseModel):
    model_config = {"extra": "forbid"}
    kind: typing.Literal["circle", "square", "triangle"]
    filled: bool
    corners: list[typing.Literal[0, 1, 2, 3, 4]] = pydantic.Field(min_length=1, max_length=3)


@check
def json_schema(run):
    asked = {"model": run.model, "messages": ASK, "response_format": Shape, "temperature": 1, "extra_body": PLAIN, "max_tokens": 200}
    for k in range(3):
        r = run.client.chat.completions.parse(seed=k, **asked).choices[0]
        assert r.finish_reason == "stop" and isinstance(r.message.parsed, Shape), r
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    for k in range(3):
        r = run.chat(
            response_format={"type": "json_schema", "json_schema": {"name": "p", "strict": True, "schema": schema}}, seed=k, max_tokens=200
        ).choices[0]
        if r.finish_reason == "stop":
            jsonschema.validate(json.loads(r.message.content), schema)
        else:
            assert r.message.content.lstrip().startswith("{"), r.message


@check
def json_object(run):
    r = run.chat(response_format={"type": "json_object"}, max_tokens=200).choices[0]
    assert r.message.content.lstrip().startswith("{"), r.message
    assert r.finish_reason == "length" or isinstance(json.loads(r.message.content), dict)


PLACE = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Bern", "Oslo"]}, "days": {"type": "integer"}}, "required": ["city"]}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "The weather of a city", "parameters": PLACE}}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "The time", "parameters": {"type": "object", "properties": {}}}}


def calls_are_sound(calls, names):
    for c in calls:
        assert c.type == "function" and c.id and c.function.name in names, c
        assert isinstance(json.loads(c.function.arguments), dict), c


@check
def tools(run):
    if not run.args.tools:
        raise Skip("without --tools")
    r = run.chat(tools=[WEATHER, CLOCK], tool_choice="auto").choices[0]
    calls_are_sound(r.message.tool_calls or [], ["get_weather", "clock"])
    assert (r.finish_reason == "tool_calls") == bool(r.message.tool_calls), r
    assert not run.chat(tools=[WEATHER], tool_choice="none").choices[0].message.tool_calls


@check
def tools_round_trip(run):
    if not run.args.tools:
        raise Skip("without --tools")
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Bern", "days": 2}'}}
    talk = [{"role": "user", "content": "How is the weather in Bern?"}, {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "rain, 8 degrees"}]  # fmt: skip
    with_it, without = run.chat(talk, tools=[WEATHER]), run.chat(talk[:1], tools=[WEATHER])
    assert with_it.usage.prompt_tokens > without.usage.prompt_tokens


@check
def tool_choice(run):
    if not run.args.tools:
        raise Skip("without --tools")
    for how, names in (("required", ["get_weather", "clock"]), ({"type": "function", "function": {"name": "clock"}}, ["clock"])):
        asked = {"tools": [WEATHER, CLOCK], "tool_choice": how, "max_tokens": 200}
        r = run.chat(**asked).choices[0]
        assert r.message.tool_calls and r.finish_reason == "tool_calls", f"{how}: no call: {r}"
        calls_are_sound(r.message.tool_calls, names)
        args = {}
        for c in run.chat(stream=True, **asked):
            for d in c.choices[0].delta.tool_calls or [] if c.choices else []:
                args[d.index] = args.get(d.index, "") + (d.function.arguments or "")
        assert [json.loads(a) for _, a in sorted(args.items())] == [json.loads(c.function.arguments) for c in r.message.tool_calls], args
    run.refused(openai.BadRequestError, tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "clock"}})


@check
def completions(run):
    c = run.client.completions
    asked = {"model": run.model, "prompt": "Compute 12+30.", "max_tokens": 24, "temperature": 0}
    r = c.create(**asked)
    text = r.choices[0].text
    assert "".join(x.choices[0].text for x in c.create(stream=True, **asked) if x.choices) == text
    assert c.create(**asked | {"max_tokens": 1}).usage.completion_tokens == 1
    p = c.create(**asked, logprobs=3).choices[0].logprobs
    assert len(p.tokens) == len(p.token_logprobs) == len(p.top_logprobs) == len(p.text_offset) and "".join(p.tokens).startswith(text[:1]), p
    ids = c.create(**asked | {"prompt": [5, 6, 7, 8]})
    assert ids.usage.prompt_tokens == 4, ids.usage
    if len(text) > 4 and "\ufffd" not in text[2:4]:
        cut = c.create(**asked, stop=text[2:4]).choices[0]
        assert cut.text == text[: text.index(text[2:4])] and cut.finish_reason == "stop", (text, cut)


@check
def responses(run):
    asked = {"model": run.model, "input": "Compute 12+30.", "max_output_tokens": 64, "temperature": 0, "reasoning": {"effort": "none"}}
    r = run.client.responses.create(**asked)
    assert r.status in ("completed", "incomplete") and r.usage.total_tokens == r.usage.input_tokens + r.usage.output_tokens, r
    assert (r.status == "incomplete") == (r.incomplete_details is not None), r
    last, told = None, ""
    for e in run.client.responses.create(stream=True, **asked):
        last, told = e, told + (e.delta if e.type == "response.output_text.delta" else "")
    assert told == r.output_text == last.response.output_text, (told, r.output_text)
    talk = [
        {"role": "user", "content": [{"type": "input_text", "text": "Add 2 to 3."}]},
        {"role": "assistant", "content": "5"},
        {"role": "user", "content": "Again."},
    ]
    assert run.client.responses.create(**asked | {"input": talk, "instructions": "Be brief."}).usage.input_tokens > 0
    assert run.client.responses.create(**asked | {"reasoning": {"effort": "high"}}).usage.output_tokens_details.reasoning_tokens > 0


@check
def errors(run):
    run.refused(openai.NotFoundError, "model", "model_not_found", model="no-such-size")
    run.refused(openai.BadRequestError, "temperature", temperature=99)
    run.refused(openai.BadRequestError, "messages", messages=[])
    run.refused(openai.BadRequestError, "messages[0].role", messages=[{"role": "wizard", "content": "x"}])
    run.refused(openai.BadRequestError, "n", n=100000)
    run.refused(openai.BadRequestError, "max_tokens", max_tokens=-1)
    run.refused(openai.BadRequestError, "response_format", response_format={"type": "xml"})
    run.refused(openai.BadRequestError, "messages", messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}])
    run.refused(openai.BadRequestError, "messages", "context_length_exceeded", messages=[{"role": "user", "content": "12 + " * 200000}])
    try:
        run.client.post("/no/such/path", body={}, cast_to=object)
        raise AssertionError("/v1/no/such/path was answered")
    except openai.NotFoundError:
        pass


@check
def keys(run):
    if run.args.key == "none":
        raise Skip("without --key")
    for wrong in ("wrong", run.args.key + "x", run.args.key[:-1] or "x"):
        try:
            run.connect(api_key=wrong).models.list()
            raise AssertionError(f"key {wrong} was taken")
        except openai.AuthenticationError as e:
            assert e.message


@check
def alone_and_in_company(run):
    """Greedy answers of every size, one by one and then all at once, are the same."""
    jobs = [(s, f"Start with {k}. Add 2. Multiply by {k % 5}.") for s in run.sizes if s != "auto" for k in range(1, 7)]

    def asked(job):
        return {"model": job[0], "messages": [{"role": "user", "content": job[1]}], "temperature": 0, "max_tokens": 40, "extra_body": PLAIN}

    async def together():
        async with openai.AsyncOpenAI(base_url=run.client.base_url, api_key=run.args.key, max_retries=10, timeout=300) as c:
            return [r.choices[0].message.content for r in await asyncio.gather(*[c.chat.completions.create(**asked(j)) for j in jobs])]

    alone = [run.client.chat.completions.create(**asked(j)).choices[0].message.content for j in jobs]
    bad = [(j, a, b) for j, a, b in zip(jobs, alone, asyncio.run(together()), strict=True) if a != b]
    assert not bad, f"{len(bad)} of {len(jobs)} differ: {bad[:2]}"


@check
def busy_and_retries(run):
    if not run.args.busy:
        raise Skip("without --busy")
    from concurrent.futures import ThreadPoolExecutor

    def ask(c):
        try:
            c.chat.completions.create(model=run.model, messages=ASK, max_tokens=64, temperature=1, extra_body=PLAIN)
        except openai.RateLimitError as e:
            return e

    with ThreadPoolExecutor(run.args.busy) as pool:
        refused = [e for e in pool.map(ask, [run.connect() for _ in range(run.args.busy)]) if e]
        assert refused, f"{run.args.busy} requests at once, none refused"
        for e in refused:
            assert int(e.response.headers["retry-after"]) > 0, e.response.headers
        Recorder.seen.clear()
        assert not [e for e in pool.map(ask, [run.connect(max_retries=30) for _ in range(run.args.busy)]) if e], "refused after 30 retries"
    again = sum(k["status"] == 429 for k in Recorder.seen)
    assert again, "none was refused the second time"
    print(f"        {len(refused)} of {run.args.busy} refused without retries; with them all answered, after {again} replies of 429")


@check
def our_own_fields(run):
    r = run.chat(extra_body={"nestar": {"think_budget": 8}}, max_tokens=64)
    if not (r.model_extra or {}).get("nestar"):
        raise Skip("no field nestar in the reply")
    assert r.model_extra["nestar"].get("sizes"), r.model_extra
    run.refused(openai.BadRequestError, "nestar", extra_body={"nestar": {"no_such_field": 1}})


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("url")
    p.add_argument("openapi")
    p.add_argument("--key", default="none")
    p.add_argument("--model")
    p.add_argument("--tools", action="store_true")
    p.add_argument("--busy", type=int, default=0)
    p.add_argument("--loose", action="store_true")
    p.add_argument("--only", default="")
    run = Run(p.parse_args())
    print(f"openai {openai.__version__}, models {', '.join(run.sizes)}; asked: {run.model}")
    for f in CHECKS:
        if run.args.only in f.__name__:
            run.one(f)
    for e, n in run.off.items():
        print(f"differs from the description, {n} times: {e}")
    print(f"{sum(run.spec.checked.values())} texts against {len(run.spec.checked)} schemas")
    print(", ".join(f"{n} {k}" for k, n in run.counts.items()))
    return run.counts["failed"] > 0


if __name__ == "__main__":
    sys.exit(main())
