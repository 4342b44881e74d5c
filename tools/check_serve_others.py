#!/usr/bin/env python3
"""Clients that share no code with the official one, against a running server: `InferenceClient` of huggingface_hub, which speaks the chat
protocol over an HTTP client of its own, and EleutherAI's lm-evaluation-harness over aiohttp and requests.

    tools/check_serve_others.py URL [--key KEY] [--model NAME] [--tools] [--problems FILE.jsonl [--least SHARE] [--think] [--at-once N]]

FILE.jsonl  as `nestar problems` writes it: {"messages": [..], "answer": ".."}; the harness asks them all and compares answers exactly.
            On the bundled checkpoint `nestar eval` gives the share to expect: --think as it is, without it with --think-budgets 0
--least     the share below which the check has failed

Needs huggingface_hub; lm_eval[api] and datasets for --problems. Ends with a count; exit status 1 where a check failed."""

import argparse
import asyncio
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ASK = [{"role": "user", "content": "Start with 25. Add 2. Subtract 7. Multiply by 3. Add 6."}]
PLAIN = {"chat_template_kwargs": {"enable_thinking": False}}
TOOL = {"type": "function", "function": {"name": "clock", "description": "The time", "parameters": {"type": "object", "properties": {}}}}

TASK = """task: problems
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_text: "{{{{question}}}}"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: [], do_sample: false, temperature: 0, max_gen_toks: {tokens}{kwargs}}}
metric_list: [{{metric: exact_match, aggregation: mean, higher_is_better: true}}]
"""


def hub(args):
    """[(name, function)] of the checks with huggingface_hub."""
    from huggingface_hub import AsyncInferenceClient, InferenceClient
    from huggingface_hub.errors import HfHubHTTPError

    where = {"base_url": args.url.rstrip("/") + "/v1", "api_key": args.key, "timeout": 300}
    client = InferenceClient(**where)
    common = {"model": args.model, "temperature": 0, "max_tokens": 48, "extra_body": PLAIN}

    def chat():
        r = client.chat_completion(ASK, **common)
        assert r.choices[0].finish_reason in ("stop", "length") and r.usage.total_tokens == r.usage.prompt_tokens + r.usage.completion_tokens, r
        return r.choices[0].message.content or ""

    def stream():
        parts, usage = "", None
        for c in client.chat_completion(ASK, stream=True, stream_options={"include_usage": True}, **common):
            usage = c.usage or usage
            parts += "".join(x.delta.content or "" for x in c.choices)
        assert parts == chat(), (parts, chat())
        assert usage and usage.completion_tokens > 0, usage

    def choices_and_logprobs():
        r = client.chat_completion(ASK, n=2, seed=3, logprobs=True, top_logprobs=2, **common | {"temperature": 1, "max_tokens": 8})
        assert [c.index for c in r.choices] == [0, 1] and all(t.logprob <= 1e-6 for c in r.choices for t in c.logprobs.content), r

    def json_object():  # a schema it rewrites to the dialect of another server
        r = client.chat_completion(ASK, response_format={"type": "json_object"}, **common).choices[0]
        assert r.message.content.lstrip().startswith("{"), r
        assert r.finish_reason == "length" or isinstance(json.loads(r.message.content), dict), r

    def tools():
        r = client.chat_completion(ASK, tools=[TOOL], tool_choice="required", **common | {"max_tokens": 200}).choices[0]
        assert r.message.tool_calls and r.message.tool_calls[0].function.name == "clock", r

    def errors():
        for bad in ({"temperature": -3}, {"messages": []}, {"model": "no-such-size"}):
            try:
                client.chat_completion(**{"messages": ASK} | common | bad)
                raise AssertionError(f"accepted: {bad}")
            except HfHubHTTPError as e:
                assert e.response.status_code in (400, 404), e

    async def many():
        async with AsyncInferenceClient(**where) as c:
            return await asyncio.gather(*[c.chat_completion(ASK, **common) for _ in range(8)])

    def at_once():
        assert {r.choices[0].message.content or "" for r in asyncio.run(many())} == {chat()}

    def no_openai():
        assert "openai" not in sys.modules, "huggingface_hub loaded the official client"

    return [chat, stream, choices_and_logprobs, json_object, *([tools] if args.tools else []), errors, at_once, no_openai]


def harness(args):
    """The harness over the problems in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        here = pathlib.Path(folder)
        rows = [json.loads(line) for line in args.problems.read_text().splitlines()]
        pairs = [{"question": r["messages"][0]["content"], "answer": r["answer"]} for r in rows]
        (here / "data.json").write_text("".join(json.dumps(x) + "\n" for x in pairs))
        kwargs = "" if args.think else ", chat_template_kwargs: {enable_thinking: false}"
        (here / "problems.yaml").write_text(TASK.format(data=here / "data.json", tokens=512 if args.think else 64, kwargs=kwargs))
        where = f"base_url={args.url.rstrip('/')}/v1/chat/completions,model={args.model},num_concurrent={args.at_once},max_retries=3"
        command = [sys.executable, "-m", "lm_eval", "run", "--model", "local-chat-completions", "--model_args", where, "--apply_chat_template"]
        command += ["--tasks", "problems", "--include_path", here, "--output_path", here / "out"]
        offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": folder, "OPENAI_API_KEY": args.key}
        done = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
        results = list((here / "out").rglob("results_*.json"))
        assert done.returncode == 0 and results, f"lm_eval: status {done.returncode}: {done.stderr.strip()[-1500:]}"
        share = json.loads(results[0].read_text())["results"]["problems"]["exact_match,none"]
        print(f"        lm_eval: {share:.4f} of {len(rows)} problems")
        assert share >= args.least, f"{share} right, at least {args.least} was expected"


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("url")
    p.add_argument("--key", default="none")
    p.add_argument("--model", default="full")
    p.add_argument("--tools", action="store_true")
    p.add_argument("--problems", type=pathlib.Path)
    p.add_argument("--least", type=float, default=0)
    p.add_argument("--think", action="store_true")
    p.add_argument("--at-once", type=int, default=8)
    args = p.parse_args()
    failed, checks = 0, hub(args)
    if args.problems:
        checks.append(lambda: harness(args))
        checks[-1].__name__ = "lm_evaluation_harness"
    for f in checks:
        try:
            f()
            print(f"passed  {f.__name__}", flush=True)
        except Exception as e:  # every failure is a line; the rest goes on
            failed += 1
            print(f"failed  {f.__name__}: {type(e).__name__}: {e}", flush=True)
    print(f"{len(checks) - failed} passed, {failed} failed")
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
