#!/usr/bin/env python3
"""Hostile clients against a running server: what each sends, and the status it must get. After each the server must still answer.

    tools/hostile.py URL [--key KEY] [--max-body BYTES] [--slow SECONDS] [--rss-limit MIB] [--only WORD] [--verbose]

--max-body   the server's limit for a body (8 MiB)
--slow       how long a client may be slow before the server must have ended it (150 s: a head has twice the idle time); 0: slow clients are left out
--rss-limit  how much the server's own memory may grow from the first case to the last (256 MiB)

Plain sockets, loopback. Statuses are those of RFC 9110 and 9112 and of the OpenAI API; "closed" is a connection ended without a reply, which
RFC 9112 allows for what is no HTTP. Ends with a count; exit status 1 where a case failed."""

import argparse
import json
import math
import pathlib
import resource
import socket
import sys
import threading
import time

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "experiments"))
from load_client import Server, memory  # noqa: E402

MODEL, CHAT, COMPLETIONS = "full", "/v1/chat/completions", "/v1/completions"
CLOSED, OPEN, NO_KEY = "closed", "still open", "no key is asked for"
CASES = []  # (name, function of a Target, expected outcomes)


def case(name, expected, f):
    CASES.append((name, f, expected if isinstance(expected, tuple) else (expected,)))


class Target:
    def __init__(self, args):
        self.args = args
        server = Server("", args.url)
        self.host, self.port, self.pid = server.host, server.port, server.pid()
        self.key = f"Authorization: Bearer {args.key}\r\n" if args.key else ""

    def connect(self):
        return socket.create_connection((self.host, self.port), timeout=10)

    def head(self, method, path, *headers, host=True):
        lines = "".join(h + "\r\n" for h in headers)
        return f"{method} {path} HTTP/1.1\r\n{'Host: localhost' + chr(13) + chr(10) if host else ''}{self.key}{lines}\r\n".encode("latin-1")

    def raw(self, data, wait=10, half_close=False):
        """The status of the first reply to `data`; CLOSED, or OPEN where nothing came in time."""
        with self.connect() as s:
            return status(s, data, wait, half_close)

    def post(self, path, body, *headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.raw(self.head("POST", path, "Content-Type: application/json", f"Content-Length: {len(body)}", *headers) + body, wait=60)

    def get(self, path, *headers):
        return self.raw(self.head("GET", path, *headers))


def status(s, data, wait=10, half_close=False):
    s.settimeout(wait)
    try:
        s.sendall(data)
        if half_close:
            s.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # refused in the middle of a body: the reply may be there all the same
    got = b""
    try:
        while b"\r\n" not in got:
            piece = s.recv(4096)
            if not piece:
                return CLOSED
            got += piece
    except TimeoutError:
        return OPEN
    except OSError:
        return CLOSED
    if not got.startswith(b"HTTP/1."):
        return f"no HTTP: {got[:60]!r}"
    return int(got.split()[1])


def ask(**kw):
    return {"model": MODEL, "messages": [{"role": "user", "content": "1+1"}], "max_tokens": 2} | kw


def text(**kw):
    return {"model": MODEL, "prompt": "1+1", "max_tokens": 2} | kw


# ---- requests that are no HTTP, or too much of it ----

GET = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
case("a plain request", 200, lambda t: t.get("/health"))
case("a TLS hello", (400, CLOSED, OPEN), lambda t: t.raw(bytes.fromhex("16030100c8010000c40303") + bytes(200), wait=3))
case("HTTP/0.9", (400, 505, CLOSED), lambda t: t.raw(b"GET /health\r\n\r\n", half_close=True))
case("HTTP/9.9", (400, 505, CLOSED), lambda t: t.raw(b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n"))
case("HTTP/2 without asking", (400, 404, 405, 501, 505, CLOSED), lambda t: t.raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
case("no Host", 400, lambda t: t.raw(t.head("GET", "/health", host=False)))
case("a name of another site", (200, 421), lambda t: t.raw(b"GET /health HTTP/1.1\r\nHost: example.org\r\n\r\n"))
case("two Hosts", (400, 200), lambda t: t.raw(t.head("GET", "/health", "Host: y")))
case("a header of 1 MiB", (431, 413, 400, CLOSED), lambda t: t.raw(t.head("GET", "/health", "X: " + "a" * (1 << 20))))
case("20000 headers", (431, 413, 400, CLOSED), lambda t: t.raw(t.head("GET", "/health", *[f"X-{i}: {i}" for i in range(20000)])))
case("a path of 1 MiB", (414, 431, 413, 400, CLOSED), lambda t: t.get("/" + "a" * (1 << 20)))
case("a header without a colon", (400, 200), lambda t: t.raw(t.head("GET", "/health", "no colon here")))
case("white space before the colon", (400, 200), lambda t: t.raw(t.head("GET", "/health", "X-A : b")))
case("NUL in a header", (400, 200, CLOSED), lambda t: t.raw(t.head("GET", "/health", "X-A: b\x00c")))
case("a folded header", (400, 200), lambda t: t.raw(t.head("GET", "/health", "X-A: b\r\n c")))
case("a bare line feed for an end", (400, 200, CLOSED), lambda t: t.raw(GET.replace(b"\r\n", b"\n") + b"\n"))
case("only line ends, half closed", CLOSED, lambda t: t.raw(b"\r\n" * 1000, half_close=True))
case("half of a header, half closed", (400, CLOSED), lambda t: t.raw(b"GET /hea", half_close=True))
case("connected and gone", CLOSED, lambda t: t.raw(b"", half_close=True))

# ---- methods ----

for _method in ("DELETE", "PUT", "PATCH", "TRACE", "BREW"):
    case(f"{_method} of chat", (405, 501), lambda t, m=_method: t.raw(t.head(m, CHAT, "Content-Length: 0")))
case("GET of chat", 405, lambda t: t.get(CHAT))
case("POST of models", 405, lambda t: t.post("/v1/models", {}))
case("OPTIONS of chat", (204, 200, 405), lambda t: t.raw(t.head("OPTIONS", CHAT, "Content-Length: 0")))
case("HEAD of health", (200, 405), lambda t: t.raw(t.head("HEAD", "/health")))
case("a method of 64 KiB", (400, 405, 414, 431, 501, CLOSED), lambda t: t.raw(t.head("A" * 65536, "/health")))
case("CONNECT", (400, 401, 404, 405, 501, CLOSED), lambda t: t.raw(b"CONNECT example.invalid:443 HTTP/1.1\r\nHost: localhost\r\n\r\n"))

# ---- paths ----

PATHS = ["/../etc/passwd", "/v1/../v1/models", "/%2e%2e/%2e%2e/etc/passwd", "//v1/models", "/v1//models", "/v1/models/../../health", "/v1/models%00",
         "/v1/models/%00", "/v1/models/" + "x" * 4000, "/v1/models/%ff%fe", "/V1/models", "/v1/models/", "/nestar/../health", "/.git/config", "/%",
         "/v1/%6dodels", "/\\..\\x", "*"]  # fmt: skip
for _path in PATHS:
    case(f"path {_path[:40]}", (404, 400), lambda t, p=_path: t.get(p))
case("a whole URL as target", (200, 400, 404), lambda t: t.get("http://example.invalid/health"))
case("a query of 8 KiB", (200, 414, 431), lambda t: t.get("/health?a=" + "b" * 8192))
case("a query of 2048 fields", (200, 400, 414, 431), lambda t: t.get("/health?" + "a=b&" * 2048))

# ---- lengths ----

JSON = "Content-Type: application/json"
BODY = json.dumps(ask()).encode()
case("Content-Length and chunked", 400, lambda t: t.raw(t.head("POST", CHAT, JSON, "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n"))
case("two Content-Lengths", 400, lambda t: t.raw(t.head("POST", CHAT, JSON, f"Content-Length: {len(BODY)}", "Content-Length: 5") + BODY))
case("the same Content-Length twice", (400, 200), lambda t: t.raw(t.head("POST", CHAT, JSON, *[f"Content-Length: {len(BODY)}"] * 2) + BODY))
for _length in ("-1", "1e3", "0x10", "+5", "5, 6", "99999999999999999999999", "five", ""):
    case(f"Content-Length: {_length}", (400, 413), lambda t, n=_length: t.raw(t.head("POST", CHAT, JSON, f"Content-Length: {n}") + BODY))
case("a body without a length", (400, 411), lambda t: t.raw(t.head("POST", CHAT, JSON) + BODY))
case("a body over the limit, announced", 413, lambda t: t.raw(t.head("POST", CHAT, JSON, f"Content-Length: {t.args.max_body + 1}") + b"x" * 1000))
case("a body over the limit, sent", 413, lambda t: t.post(CHAT, b'{"model": "' + b"a" * t.args.max_body + b'"}'))
case(
    "10 GB announced, after 100-continue",
    (413, 417),
    lambda t: t.raw(t.head("POST", CHAT, JSON, "Content-Length: 10000000000", "Expect: 100-continue")),
)
case("a strange expectation", (417, 400, 200), lambda t: t.post(CHAT, ask(), "Expect: the unexpected"))


def chunked(t, chunks):
    return t.raw(t.head("POST", CHAT, JSON, "Transfer-Encoding: chunked") + chunks, wait=60)


case("chunked, well formed", 200, lambda t: chunked(t, b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)))
case("chunks of one byte", 200, lambda t: chunked(t, b"".join(b"1\r\n%c\r\n" % c for c in BODY) + b"0\r\n\r\n"))
case(
    "chunked without end over the limit",
    (413, CLOSED),
    lambda t: chunked(t, b"100000\r\n%s\r\n" % (b" " * (1 << 20)) * (t.args.max_body // (1 << 20) + 2)),
)
case("a chunk size that is none", (400, CLOSED), lambda t: chunked(t, b"zz\r\nabc\r\n0\r\n\r\n"))
case("a chunk size that overflows", (400, 413, CLOSED), lambda t: chunked(t, b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"))
case("a chunk size below zero", (400, CLOSED), lambda t: chunked(t, b"-5\r\nabc\r\n0\r\n\r\n"))
case("a chunk longer than it says", (400, CLOSED), lambda t: chunked(t, b"2\r\nabcdef\r\n0\r\n\r\n"))
case("an unknown transfer coding", (400, 501), lambda t: t.raw(t.head("POST", CHAT, JSON, "Transfer-Encoding: zip") + BODY))
case("Transfer-Encoding: xchunked", (400, 501), lambda t: t.raw(t.head("POST", CHAT, JSON, "Transfer-Encoding: xchunked") + b"0\r\n\r\n"))
case("half of a body, half closed", (400, 408, CLOSED), lambda t: t.raw(t.head("POST", CHAT, JSON, "Content-Length: 1000") + b"{", half_close=True))


def pipelined(t):
    """Ten requests in one piece: ten replies, in order."""
    with t.connect() as s:
        s.settimeout(30)
        s.sendall(b"".join(t.head("GET", "/health" if i % 2 else "/no-such-path") for i in range(9)) + t.head("GET", "/health", "Connection: close"))
        got = b""
        while piece := s.recv(65536):
            got += piece
    found = [x[:3].decode() for x in got.split(b"HTTP/1.1 ")[1:]]
    return "in order" if found == ["404", "200"] * 4 + ["404", "200"] else f"replies {found}"


def smuggled(t):
    """What follows a request with two lengths is not taken for a second request."""
    with t.connect() as s:
        s.settimeout(5)
        s.sendall(
            t.head("POST", CHAT, JSON, "Content-Length: 4", "Transfer-Encoding: chunked")
            + b"0\r\n\r\n"
            + t.head("GET", "/health", "Connection: close")
        )
        got = b""
        try:
            while piece := s.recv(65536):
                got += piece
        except OSError:
            pass
    found = [x[:3].decode() for x in got.split(b"HTTP/1.1 ")[1:]]
    return "refused" if found in (["400"], []) else f"replies {found}"


case("ten requests at once on one connection", "in order", pipelined)
case("a request behind two lengths", "refused", smuggled)

# ---- JSON ----

GOOD = '{"model": "full", "messages": [{"role": "user", "content": "%s"}], "max_tokens": 2}'
for _name, _body in {
    "an empty body": b"", "no JSON": b"hello", "half of an object": b'{"model": ', "two objects": b"{}{}", "an array": b"[]", "a number": b"17",
    "null": b"null",
    "an empty object": b"{}", "bad UTF-8": (GOOD % "\xff\xfe").encode("latin-1"), "overlong UTF-8": (GOOD % "\xc0\x80").encode("latin-1"),
    "a surrogate in UTF-8": (GOOD % "\xed\xa0\x80").encode("latin-1"), "half a surrogate pair": (GOOD % "\\ud800").encode(),
    "UTF-16": (GOOD % "x").encode("utf-16"),
    "a BOM": b"\xef\xbb\xbf[]", "100000 arrays deep": b'{"messages": ' + b"[" * 100000, "100000 objects deep": b'{"a":' * 100000,
    "100000 deep and closed": b'{"messages": ' + b"[" * 100000 + b"]" * 100000 + b"}",
    "the same key twice": b'{"model": "full", "model": "small", "messages": []}',
    "a comment": b'{/* */"model": "full"}', "NaN": json.dumps(ask()).encode()[:-1] + b', "temperature": NaN}',
    "Infinity": json.dumps(ask()).encode()[:-1] + b', "top_p": Infinity}',
    "a number of 100000 digits": json.dumps(ask()).encode()[:-1] + b', "seed": ' + b"9" * 100000 + b"}",
    "1e999": json.dumps(ask()).encode()[:-1] + b', "temperature": 1e999}',
    "a raw line break in a string": (GOOD % "a\nb").encode(), "NUL bytes": bytes(64), "a form": b"model=full&messages=x",
}.items():  # fmt: skip
    case(f"body: {_name}", 400, lambda t, b=_body: t.post(CHAT, b))
case("NUL in a text", (200, 400), lambda t: t.post(CHAT, (GOOD % "a\\u0000b").encode()))
case(
    "another content type",
    (415, 400, 200),
    lambda t: t.raw(t.head("POST", CHAT, "Content-Type: image/png", f"Content-Length: {len(BODY)}") + BODY, wait=60),
)
case("a body said to be packed that is not", (415, 400, 200), lambda t: t.post(CHAT, ask(), "Content-Encoding: gzip"))
case("4 MiB of one message", (400, 413), lambda t: t.post(CHAT, ask(messages=[{"role": "user", "content": "12 + " * (800 << 10)}])))
case("100000 messages", (400, 413), lambda t: t.post(CHAT, ask(messages=[{"role": "user", "content": "x"}] * 100000)))
case("50000 unknown keys", (400, 200), lambda t: t.post(CHAT, ask(**{f"k{i}": i for i in range(50000)})))

# ---- parameters ----

for _bad in (
    {"n": 10**9}, {"n": 0}, {"n": -1}, {"n": 2.5}, {"n": 10**30}, {"max_tokens": -1}, {"max_tokens": -(2**63)}, {"max_tokens": "many"},
    {"max_completion_tokens": -5},
    {"temperature": 1e308}, {"temperature": -1}, {"temperature": "hot"}, {"top_p": 0 - 0.5}, {"top_p": 7}, {"top_logprobs": 10**6, "logprobs": True},
    {"top_logprobs": -1, "logprobs": True},
    {"stop": ["x"] * 1000}, {"stop": [""]}, {"stop": 5}, {"stop": [None]}, {"seed": "x"}, {"seed": 1.5}, {"stream": "yes"}, {"model": ""},
    {"model": "x" * 100000}, {"model": 5}, {"model": None},
    {"messages": "x"}, {"messages": [5]}, {"messages": [{}]}, {"messages": [{"role": "user"}]}, {"messages": [{"role": 5, "content": "x"}]},
    {"messages": {"role": "user"}},
    {"messages": [{"role": "user", "content": {"a": 1}}]}, {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
    {"messages": [{"role": "tool", "content": 7}]},
    {"tools": "x"}, {"tools": [{}]}, {"tools": [{"type": "function", "function": {"name": "a b\n"}}]}, {"tool_choice": "always"},
    {"tool_choice": {"type": "function"}},
    {"response_format": "json"}, {"response_format": {"type": "json_schema"}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": 5}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "http://127.0.0.1:1/x"}}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string", "pattern": "(a+)+" * 50 + "("}}}},
    {"reasoning_effort": "extreme"}, {"nestar": 5}, {"nestar": {"think_budget": -1}}, {"nestar": {"think": "../../etc/passwd"}},
    {"nestar": {"deadline_ms": -1}}, {"stream_options": 5, "stream": True},
):  # fmt: skip
    case(f"chat: {json.dumps(_bad)[:60]}", (400, 404), lambda t, b=_bad: t.post(CHAT, ask(**b)))
for _bad in ({"prompt": 5}, {"prompt": [-1]}, {"prompt": [10**12]}, {"prompt": [[5], "x"]}, {"prompt": ["a", 5]}, {"prompt": None}, {"prompt": [1.5]},
    {"prompt": {}}, {"logprobs": 10**9}, {"best_of": 10**9},
             {"max_tokens": -7}, {"n": 10**9}, {"echo": "x"}, {"prompt": [5] * 500000}):  # fmt: skip
    case(f"completions: {json.dumps(_bad)[:60]}", 400, lambda t, b=_bad: t.post(COMPLETIONS, text(**b)))
for _bad in ({"input": 5}, {"input": [{"type": "x"}]}, {"input": None}, {"input": "x", "max_output_tokens": -1},
    {"input": "x", "previous_response_id": "resp_none"}, {"input": "x", "background": True}):  # fmt: skip
    case(f"responses: {json.dumps(_bad)[:60]}", (400, 404), lambda t, b=_bad: t.post("/v1/responses", {"model": MODEL} | b))
case("max_tokens of 2^62", (200, 400), lambda t: t.post(COMPLETIONS, text(max_tokens=2**62)))
DEFS = {f"d{i}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}, "b": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(60)} | {
    "d60": {"type": "null"}
}
BOMB = {"type": "json_schema", "json_schema": {"name": "bomb", "schema": {"$defs": DEFS, "$ref": "#/$defs/d0"}}}
case("a schema that unfolds to 2^60", (200, 400), lambda t: t.post(CHAT, ask(response_format=BOMB)))
DEEP = {"type": "null"}
for _ in range(400):
    DEEP = {"type": "array", "items": DEEP}
case(
    "a schema 400 deep",
    (200, 400),
    lambda t: t.post(CHAT, ask(response_format={"type": "json_schema", "json_schema": {"name": "d", "schema": DEEP}})),
)
WIDE = {"type": "json_schema", "json_schema": {"name": "w", "schema": {"enum": [f"v{i}" for i in range(20000)]}}}
case("an enum of 20000", (200, 400), lambda t: t.post(CHAT, ask(response_format=WIDE)))
MANY = {
    "type": "array",
    "items": {"type": "array", "items": {"type": "boolean"}, "maxItems": 10**9, "minItems": 10**9},
    "maxItems": 10**9,
    "minItems": 10**9,
}
case(
    "a schema with 10^9 items",
    (200, 400),
    lambda t: t.post(CHAT, ask(response_format={"type": "json_schema", "json_schema": {"name": "m", "schema": MANY}})),
)

# ---- keys ----

KEYS = {"no key": "X-A: b", "a wrong key": "Authorization: Bearer wrong", "an empty key": "Authorization: Bearer ",
        "another scheme": "Authorization: Basic eDp5", "a key of 8 KiB": "Authorization: Bearer " + "k" * 8192}  # fmt: skip


def with_header(t, header):
    return t.raw(f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n{header}\r\n\r\n".encode()) if t.args.key else NO_KEY


for _name, _header in KEYS.items():
    case(f"key: {_name}", (401, NO_KEY), lambda t, h=_header: with_header(t, h))


# ---- slow ones, together ----


def drip(begin, data, pause):
    """`begin` at once, then a byte in every `pause` seconds, until the server ends it."""

    def f(t):
        end = time.time() + t.args.slow
        with t.connect() as s:
            s.settimeout(pause)
            s.sendall(begin)
            for c in data * 1000:
                try:
                    s.sendall(bytes([c]))
                    got = s.recv(4096)
                    return int(got.split()[1]) if got.startswith(b"HTTP/1.") else CLOSED
                except TimeoutError:
                    if time.time() > end:
                        return OPEN
                except OSError:
                    return CLOSED
        return OPEN

    return f


def body_stops(t):
    return t.raw(t.head("POST", CHAT, JSON, "Content-Length: 100") + b"{", wait=t.args.slow)


def body_drips(t):
    return drip(t.head("POST", CHAT, JSON, "Content-Length: 100000"), b" ", 0.5)(t)


def never_reads(t):
    """Asks for a long stream and reads nothing: the server must let the slot go, by its end or by its limit."""
    with t.connect() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        body = json.dumps(ask(stream=True, max_tokens=400, logprobs=True, top_logprobs=20, n=4)).encode()
        s.sendall(t.head("POST", CHAT, JSON, f"Content-Length: {len(body)}") + body)
        time.sleep(min(20, t.args.slow))
        return t.post(CHAT, ask())


def silent(begin):
    return lambda t: t.raw(begin, wait=t.args.slow)


SLOW = [
    ("slow: connected and silent", silent(b""), (408, CLOSED)),
    ("slow: no HTTP, then silence", silent(b"\x00\x01\x02\x03\r\n\r\n"), (400, 408, CLOSED)),
    ("slow: a header byte by byte", drip(GET, b"X-A: b\r\n", 0.5), (408, CLOSED)),
    ("slow: a body that stops", body_stops, (408, 400, CLOSED)),
    ("slow: a body byte by byte", body_drips, (408, 400, CLOSED)),
    ("slow: a reader that never reads", never_reads, (200,)),
]


def crowd(t):
    """2000 connections that say nothing; whoever comes then is served, or refused at once."""
    held = []
    try:
        for _ in range(2000):
            try:
                held.append(t.connect())
            except OSError:
                break
        seen = t.get("/health")
    finally:
        for s in held:
            s.close()
    return seen


CROWD = ("2000 silent connections", crowd, (200, 503, CLOSED))


def one(t, name, f, expected, out):
    try:
        got = f(t)
    except Exception as e:  # every failure is a line; the rest goes on
        got = f"{type(e).__name__}: {e}"
    alive = None
    for _ in range(20):
        try:
            alive = t.get("/health")
        except OSError as e:
            alive = f"{type(e).__name__}"
        if alive == 200:
            break
        time.sleep(0.25)
    fine = got in expected and alive == 200
    out.append(fine)
    if not fine or t.args.verbose:
        print(f"{'ok    ' if fine else 'FAILED'} {name}: {got}{'' if got in expected else ', expected ' + ' or '.join(map(str, expected))}"
              f"{'' if alive == 200 else f'; after it /health is {alive}'}", flush=True)  # fmt: skip


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("url")
    p.add_argument("--key")
    p.add_argument("--max-body", type=int, default=8 << 20)
    p.add_argument("--slow", type=float, default=150)
    p.add_argument("--rss-limit", type=float, default=256)
    p.add_argument("--only", default="")
    p.add_argument("--verbose", action="store_true")
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    t, out = Target(p.parse_args()), []
    before = memory(t.pid)["RssAnon"] if t.pid else math.nan
    threads = [threading.Thread(target=one, args=(t, *c, out)) for c in SLOW if t.args.slow and t.args.only in c[0]]
    for th in threads:
        th.start()
    for name, f, expected in CASES:
        if t.args.only in name:
            one(t, name, f, expected, out)
    for th in threads:
        th.join()
    if t.args.only in CROWD[0]:
        one(t, *CROWD, out)
    if t.pid:
        grown = (memory(t.pid)["RssAnon"] - before) / (1 << 20)
        out.append(grown <= t.args.rss_limit)
        print(f"{'ok    ' if out[-1] else 'FAILED'} memory of its own grew by {grown:.1f} MiB")
    print(f"{sum(out)} passed, {len(out) - sum(out)} failed")
    return sum(out) < len(out)


if __name__ == "__main__":
    sys.exit(main())
