"""One HTTP request of a load generator: as little work per event as can be, since the client shares the machine with the server."""

import asyncio
import json
import os
import re
import time

TEXT = re.compile(rb'"(?:text|content|reasoning_content)": ?"[^"]')  # an event that shows something


class Reply(asyncio.Protocol):
    """Sends `request`, keeps what comes with the time of the first text and of the last byte, until the server closes or `cut` is called."""

    def __init__(self, request):
        self.request, self.pieces, self.bytes = request, [], 0
        self.start = time.perf_counter()
        self.first = self.last = None
        self.more, self.over = None, asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        transport.write(self.request)

    def data_received(self, data):
        self.last = time.perf_counter()
        if self.first is None and TEXT.search(data):
            self.first = self.last
        self.pieces.append(data)
        self.bytes += len(data)
        if self.more:
            self.more(self)

    def eof_received(self):
        return False

    def connection_lost(self, error):
        if not self.over.done():
            self.over.set_result(error)

    def cut(self):
        """Away without a word: the server sees a reset."""
        self.transport.abort()

    def parts(self):
        """(status, headers as one lower-case text, body without the framing of chunks)."""
        head, _, body = b"".join(self.pieces).partition(b"\r\n\r\n")
        head = head.decode("latin-1").lower()
        if "transfer-encoding: chunked" not in head:
            return int(head.split()[1]), head, body
        out, at = [], 0
        while True:
            end = body.index(b"\r\n", at)
            size = int(body[at:end].split(b";")[0], 16)
            if size == 0:
                return int(head.split()[1]), head, b"".join(out)
            out.append(body[end + 2 : end + 2 + size])
            at = end + 2 + size + 2


class Server:
    def __init__(self, name, url, key=None):
        self.name = name
        self.host, _, self.port = url.removeprefix("http://").rstrip("/").rpartition(":")
        self.port, self.key = int(self.port), key
        self.extra = {}  # what completions are asked with beside OpenAI's own parameters

    def encode(self, method, path, body=None):
        body = b"" if body is None else json.dumps(body).encode()
        key = f"Authorization: Bearer {self.key}\r\n" if self.key else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\n{key}Content-Type: application/json\r\nConnection: close\r\n"
        return (head + f"Content-Length: {len(body)}\r\n\r\n").encode() + body

    async def begin(self, method, path, body=None):
        request = self.encode(method, path, body)
        _, reply = await asyncio.get_running_loop().create_connection(lambda: Reply(request), self.host, self.port)
        return reply

    async def ask(self, method, path, body=None, timeout=600):
        """(status, headers, body, reply) of a whole reply; `reply` has its times."""
        reply = await self.begin(method, path, body)
        try:
            await asyncio.wait_for(asyncio.shield(reply.over), timeout)
        finally:
            reply.transport.abort()
        return *reply.parts(), reply

    async def agree(self, body):
        """Answers of full length, where the server takes `ignore_eos` (llama.cpp, vLLM). False: it does not, and an answer ends where it ends."""
        self.extra = {"ignore_eos": True}
        status, _, text, _ = await self.ask("POST", "/v1/completions", body | self.extra)
        if status == 400 and b"ignore_eos" in text:
            self.extra = {}
        return bool(self.extra)

    def pid(self):
        """The process that listens on the port, from /proc; None where it is not this machine's or another user's."""
        sockets = set()
        for table in ("/proc/net/tcp", "/proc/net/tcp6"):
            for line in open(table).read().splitlines()[1:]:
                f = line.split()
                if f[3] == "0A" and int(f[1].rpartition(":")[2], 16) == self.port:
                    sockets.add(f"socket:[{f[9]}]")
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if any(os.readlink(f"/proc/{pid}/fd/{fd}") in sockets for fd in os.listdir(f"/proc/{pid}/fd")):
                    return int(pid)
            except OSError:
                continue
        return None


def memory(pid):
    """{VmRSS, RssAnon, ..} of a process in bytes."""
    out = {}
    for line in open(f"/proc/{pid}/status"):
        name, _, value = line.partition(":")
        if name in ("VmRSS", "RssAnon", "RssFile", "Threads"):
            out[name] = int(value.split()[0]) * (1024 if "kB" in value else 1)
    out["fds"] = len(os.listdir(f"/proc/{pid}/fd"))
    return out


def usage_of(body):
    """The usage that a stream of events, or a plain reply, ends with."""
    at = body.rfind(b'"usage"')
    while at >= 0:
        begin = body.rfind(b"data: ", 0, at)
        text = body[begin + 6 : body.find(b"\n", at)] if begin >= 0 else body
        usage = json.loads(text).get("usage")
        if usage:
            return usage
        at = body.rfind(b'"usage"', 0, at)
    return None


def quantile(values, q):
    v = sorted(values)
    return v[min(len(v) - 1, int(q * len(v)))] if v else None
