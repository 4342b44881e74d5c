"""A long mixed load with clients that break off in every way, and what becomes of the server's memory and slots meanwhile."""

import asyncio
import collections
import json
import math
import random
import statistics
import time

from load_client import memory

WAYS = {"stream": 10, "plain": 5, "cut in the stream": 5, "cut before the first token": 3, "half-closed": 2, "slow reader": 1, "bad request": 1}
BAD = [{"max_tokens": -5}, {"temperature": 99}, {"model": "no-such-size"}, {"prompt": 17}, {"n": 10**9}]


def between(draw, low, high):
    """Short ones are as many as long ones: uniform on a logarithmic scale."""
    return round(math.exp(draw.uniform(math.log(low), math.log(high))))


class Soak:
    def __init__(self, args, server, draw):
        self.args, self.server, self.draw = args, server, draw
        self.count, self.faults, self.samples = collections.Counter(), [], []
        low, high = args.ids
        self.begins = [
            [draw.randrange(low, high) for _ in range(args.longest // 2)] for _ in range(6)
        ]  # prompts begin with one of these: prefixes are kept
        self.known = {}

    def fault(self, what):
        self.count["fault"] += 1
        if len(self.faults) < 50:  # enough to see what it is
            self.faults.append(f"{time.time() - self.begun:.0f} s: {what}")

    def request(self):
        """(path, body) of some request."""
        d, longest = self.draw, self.args.longest
        n = between(d, 2, longest - 8)
        begin = d.choice(self.begins)[: between(d, 1, n - 1)] if d.random() < 0.6 else []
        ids = (begin + [d.randrange(*self.args.ids) for _ in range(n)])[:n]
        body = {
            "model": d.choice(self.models),
            "max_tokens": between(d, 1, longest - n),
            "temperature": d.choice([0, 0.7, 1.3]),
            "seed": d.randrange(1000),
        }
        if d.random() < 0.5:
            return "/v1/completions", body | {"prompt": ids, **self.server.extra}
        words = [{"role": "user", "content": "".join(d.choice("0123456789 +-*=abcdefgh") for _ in range(max(1, n // 2)))}]
        body |= {"messages": words, "max_tokens": max(1, body["max_tokens"] // 2), "chat_template_kwargs": {"enable_thinking": d.random() < 0.5}}
        extra = d.random()
        if extra < 0.15:
            body |= {"n": 2}
        elif extra < 0.25:
            body |= {"logprobs": True, "top_logprobs": 3}
        elif extra < 0.35:
            body |= {"response_format": {"type": "json_object"}}
        elif extra < 0.5 and self.nestar:
            body |= {"nestar": {"think": d.choice(self.models), "answer": d.choice(self.models), "think_budget": d.randrange(1, 64)}}
        return "/v1/chat/completions", body

    async def ended(self, reply, seconds=300):
        """(status, head, body) of a whole reply, or None: it was a fault."""
        try:
            await asyncio.wait_for(asyncio.shield(reply.over), seconds)
        except TimeoutError:
            self.fault(f"no end after {seconds} s, {reply.bytes} bytes came")
            return None
        finally:
            reply.transport.abort()
        try:
            return reply.parts()
        except (ValueError, IndexError):
            self.fault(f"a reply broken off by the server: {b''.join(reply.pieces)[-200:]!r}")
            return None

    async def one(self):
        d = self.draw
        way = d.choices(list(WAYS), list(WAYS.values()))[0]
        path, body = self.request()
        body |= {"stream": way not in ("plain", "half-closed", "bad request") or d.random() < 0.3}
        if way == "bad request":
            path, body = "/v1/completions", {"model": self.models[0], "prompt": [5, 6], "max_tokens": 4} | d.choice(BAD)
        self.count[way] += 1
        reply = await self.server.begin("POST", path, body)
        if way == "cut in the stream":
            limit = d.randrange(200, 6000)
            reply.more = lambda r: r.bytes > limit and r.cut()
        elif way == "cut before the first token":
            await asyncio.sleep(d.random() * d.choice([0.01, 0.3]))
            return reply.cut()
        elif way == "half-closed":
            reply.transport.write_eof()
        elif way == "slow reader":
            reply.transport.pause_reading()
            await asyncio.sleep(d.random() * 5)
            reply.transport.resume_reading()
        if way in ("cut in the stream", "half-closed"):  # a half-closed client may be taken for one that is gone
            await asyncio.wait_for(asyncio.shield(reply.over), 300)
            return reply.transport.abort()
        done = await self.ended(reply)
        if done is None:
            return None
        status, _, text = done
        self.count[f"status {status}"] += 1
        expected = (400, 404, 422) if way == "bad request" else (200, 429)
        if status not in expected:
            self.fault(f"{way}: status {status} for {json.dumps(body)[:200]}: {text[:300]!r}")
        elif status == 429:
            await asyncio.sleep(d.random())
        elif body.get("stream") and b"[DONE]" not in text[-64:]:
            self.fault(f"{way}: a stream without its end: {text[-200:]!r}")
        elif body.get("stream") and b'"error"' in text:
            self.fault(f"{way}: an error in the stream: {text[-300:]!r}")
        return None

    async def same(self, key):
        """A greedy answer that is asked again and again: it must not change."""
        model, k = key
        d = random.Random(k)
        ids = [d.randrange(*self.args.ids) for _ in range(4 + 29 * k)]
        body = {"model": model, "prompt": ids, "max_tokens": 24, "temperature": 0} | self.server.extra
        status, _, text, _ = await self.server.ask("POST", "/v1/completions", body)
        if status == 429 and key in self.known:
            return
        if status != 200:
            return self.fault(f"asked again: status {status}: {text[:300]!r}")
        said = json.loads(text)["choices"][0]["text"]
        self.count["asked again"] += 1
        if self.known.setdefault(key, said) != said:
            self.fault(f"{key}: {said!r}, before {self.known[key]!r}")

    async def status(self):
        if not self.nestar:
            return {}
        code, _, text, _ = await self.server.ask("GET", "/nestar/status", timeout=30)
        if code != 200:
            self.fault(f"/nestar/status: {code}")
            return {}
        return json.loads(text)

    async def watch(self):
        while time.time() < self.until:
            try:
                s = {"at": time.time() - self.begun, **(memory(self.pid) if self.pid else {}), "status": await self.status()}
                self.samples.append(s)
            except (OSError, TimeoutError) as e:
                self.fault(f"status: {type(e).__name__} {e}")
            await asyncio.sleep(self.every)

    async def worker(self):
        while time.time() < self.until:
            try:
                if self.draw.random() < 0.08:
                    await self.same(self.draw.choice(list(self.known)))
                else:
                    await self.one()
            except (OSError, TimeoutError, ValueError, LookupError) as e:
                self.fault(f"{type(e).__name__}: {e}")
                await asyncio.sleep(0.5)

    async def run(self):
        self.begun = time.time()
        self.pid = self.server.pid()
        code, _, text, _ = await self.server.ask("GET", "/v1/models")
        self.models = [m["id"] for m in json.loads(text)["data"]]
        self.nestar = (await self.server.ask("GET", "/nestar/status"))[0] == 200
        for model in self.models if self.nestar else self.models[:1]:
            for k in range(4):
                if model != "auto":  # its size depends on the load
                    await self.same((model, k))
        self.until = time.time() + self.args.soak
        self.every = max(0.5, self.args.soak / 1000)
        await asyncio.gather(self.watch(), *[self.worker() for _ in range(self.args.workers)])
        return await self.after()

    async def after(self):
        """What is left when no client is."""
        left = {}
        for _ in range(30):
            left = await self.status()
            if not left.get("running") and not left.get("waiting"):
                break
            await asyncio.sleep(1)
        if left.get("running") or left.get("waiting"):
            self.fault(f"stuck: nobody asks, yet after 30 s {left.get('running')} run and {left.get('waiting')} wait")
        for key in list(self.known):
            await self.same(key)
        at_rest = memory(self.pid) if self.pid else {}
        return {"seconds": self.args.soak, "counts": dict(self.count), "faults": self.faults, "memory": slope(self.samples, "RssAnon"),
                "descriptors": slope(self.samples, "fds"), "threads": slope(self.samples, "Threads"), "at_rest": at_rest, "status_at_rest": left,
                "samples": self.samples}  # fmt: skip


def slope(samples, field):
    """What a value did after the first third, in which caches fill: the medians of the first and the last quarter of that time, and the slope per
    hour, as the median over pairs of samples, which peaks do not move. `highest` is of the whole time."""
    s = [(x["at"], x[field]) for x in samples if field in x]
    late = s[len(s) // 3 :]
    if len(late) < 8:
        return None
    some = late[:: max(1, len(late) // 200)]
    pairs = [(b[1] - a[1]) / (b[0] - a[0]) for i, a in enumerate(some) for b in some[i + 1 :]]
    q = len(late) // 4
    return {"first": statistics.median(v for _, v in late[:q]), "last": statistics.median(v for _, v in late[-q:]),
            "slope_per_hour": statistics.median(pairs) * 3600, "highest": max(v for _, v in s)}  # fmt: skip


async def soak(args, server, draw):
    r = await Soak(args, server, draw).run()
    m = r["memory"]
    print("| soak | |\n|---|---|")
    print(f"| seconds, workers | {args.soak:.0f}, {args.workers} |")
    for name, n in sorted(r["counts"].items()):
        print(f"| {name} | {n} |")
    if m:
        mib = 1 << 20
        print(
            f"| memory of its own after a third, at the end, highest | {m['first'] / mib:.1f}, {m['last'] / mib:.1f}, {m['highest'] / mib:.1f} MiB |"
        )
        print(f"| slope after a third | {m['slope_per_hour'] / mib:+.2f} MiB an hour |")
        d, t = r["descriptors"], r["threads"]
        print(f"| descriptors, threads: highest; at rest | {d['highest']}, {t['highest']}; {r['at_rest']['fds']}, {r['at_rest']['Threads']} |")
    print(f"| running, waiting at rest | {r['status_at_rest'].get('running')}, {r['status_at_rest'].get('waiting')} |")
    print(f"| faults | {r['counts'].get('fault', 0)} |")
    for f in r["faults"][:20]:
        print(f"\n- {f}")
    return r
