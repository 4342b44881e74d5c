#!/usr/bin/python3
"""Opens the page of `nestar serve` in headless Chromium and uses it: check_page.py URL, or --fake, where a server in this script writes
slowly, so that no model is needed. Needs chromium, chromium-driver and python3-selenium (Debian); skipped (status 77) without. --shots DIR
leaves pictures; --axe FILE (axe.min.js) runs that accessibility audit too. Prints a line for each check; status 1 if one failed."""
import argparse
import http.server
import json
import pathlib
import re
import sys
import threading
import time
import traceback

PAGE = pathlib.Path(__file__).resolve().parent.parent / "src/serve/page"
FILES = {"/": ("index.html", "text/html"), "/page.css": ("page.css", "text/css"), "/page.js": ("page.js", "text/javascript"),
         "/machine.js": ("machine.js", "text/javascript"), "/icon.svg": ("icon.svg", "image/svg+xml")}
POLICY = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

# ---- the fake server ----

THOUGHT = "The sum is of two numbers.\nSeventeen and twenty-five make forty-two. So the answer is 42, which I now write down."
ANSWER = ("It is **42**, <b>not bold</b> & <img src=x onerror=alert(1)>.\n\n```python\nprint(17 + 25)  # " + "a long line " * 12 +
          "\n```\nA `word` in code, " + "Donaudampfschifffahrt" * 4 + ", an end.")
SIZES = [("full", 3.58e9, 18.0), ("23B", 2.685e9, 22.4), ("12B", 2.083e9, 28.1)]


class Fake(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.key, self.pace, self.rates, self.answers, self.gone, self.keys_seen = None, 0.03, True, {}, [], []

    def handle_error(self, request, client_address):
        pass  # a client that went is what is tested


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def send(self, status, body, kind="application/json", **more):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for k, v in {"Content-Type": kind, "Content-Length": len(data), "Content-Security-Policy": POLICY, **more}.items():
            self.send_header(k.replace("_", "-"), str(v))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status, message, **more):
        self.send(status, {"error": {"message": message, "type": "error", "param": None, "code": None}}, **more)

    def allowed(self):
        self.server.keys_seen.append(self.headers.get("Authorization"))
        if self.server.key and self.headers.get("Authorization") != "Bearer " + self.server.key:
            self.refuse(401, "An API key is needed.")
            return False
        return True

    def do_GET(self):
        if self.path in FILES:
            name, kind = FILES[self.path]
            return self.send(200, (PAGE / name).read_bytes(), kind)
        if self.path != "/nestar/status":
            return self.refuse(404, "No such path.")
        if not self.allowed():
            return None
        sizes = [dict(name=n, budget=a / 3.58e9, params_total=int(8 * a), params_active=int(a), weight_bytes=int(4.6 * a), active_bytes=int(.6 * a),
                      state_bytes=49 << 20, kv_bytes_per_token=12288, decode_rate=r if self.server.rates else 0) for n, a, r in SIZES]
        return self.send(200, dict(model="nano", version="0.1.0", context=4096, parallel=8, sizes=sizes, auto=dict(think="12B", answer="full"),
                                   running=len(self.server.answers), waiting=0, decode_rate=25.31, prefill_rate=411.0, state_bytes=49 << 20,
                                   state_budget=1 << 30, prefix_bytes=12 << 20, prefix_budget=256 << 20, rss_bytes=19 << 30, thinking=True))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if not self.allowed():
            return None
        if self.path == "/nestar/size":
            if body["id"] not in self.server.answers:
                return self.refuse(404, "No such answer is running.")
            time.sleep(0.5 if body["size"] == "23B" else 0) # whoever does not wait for this answer is overtaken
            self.server.answers[body["id"]] = body["size"]
            return self.send(200, {"id": body["id"], "size": body["size"]})
        question = body["messages"][-1]["content"]
        if question == "busy":
            return self.refuse(429, "Too many requests are waiting.", Retry_After=7)
        return self.stream(body, question)

    def stream(self, body, question):
        id = f"chatcmpl-{time.monotonic_ns()}"
        own, model, used = body.get("nestar", {}), body["model"], {}
        self.server.answers[id] = None
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()

        def event(delta, size=None, finish=None, **more):
            c = dict(id=id, object="chat.completion.chunk", created=0, model=model, choices=[dict(index=0, delta=delta, finish_reason=finish)], **more)
            if size:
                c["nestar"] = {"size": size}
                used[size] = used.get(size, 0) + 1
            # in two writes, cut in the middle of a character where it has one
            data = ("data: " + json.dumps(c, ensure_ascii=False) + "\n\n").encode()
            cut = next((i + 1 for i, b in enumerate(data) if b > 127), len(data) // 2)
            self.wfile.write(data[:cut])
            self.wfile.flush()
            time.sleep(self.server.pace)
            self.wfile.write(data[cut:])
            self.wfile.flush()

        def words(text, phase):
            for w in re.findall(r"\s*\S+\s*?", text):
                size = self.server.answers[id] or own.get(phase) or model
                yield w, {"think": "12B", "answer": "full"}[phase] if size == "auto" else size

        try:
            event({"role": "assistant", "content": ""})
            thought = 0
            if body.get("reasoning_effort") != "none":
                for w, size in words(THOUGHT, "think"):
                    event({"reasoning_content": w}, size)
                    thought += 1
            for w, size in words(("Äpfel für 5 €. " if question == "money" else "") + ANSWER * (3 if question == "long" else 1), "answer"):
                event({"content": w}, size)
                if question == "cut":
                    return
                if question == "broken":
                    self.wfile.write(b'data: {"error": {"message": "The state is lost."}}\n\ndata: [DONE]\n\n')
                    return
            event({}, None, "stop")
            n = sum(used.values())
            last = dict(id=id, choices=[], usage=dict(prompt_tokens=9, completion_tokens=n, total_tokens=n + 9, completion_tokens_details=dict(reasoning_tokens=thought)),
                        nestar=dict(sizes=[dict(size=k, tokens=v) for k, v in used.items()], end="stop", seconds=2.5, first_token_seconds=.25,
                                    switches=len(used) - 1, switch_seconds=.004))
            self.wfile.write(f"data: {json.dumps(last)}\n\ndata: [DONE]\n\n".encode())
        except OSError:
            self.server.gone.append(id)
        finally:
            del self.server.answers[id]
            self.close_connection = True


# ---- the browser ----

# Before the page's own script: what it asks for and how often it speaks.
RECORD = """
window.asked = []; window.spoken = [];
const real = window.fetch;
window.fetch = (path, o) => { asked.push({ path, headers: o.headers, body: o.body ? JSON.parse(o.body) : null }); return real(path, o); };
addEventListener("DOMContentLoaded", () => new MutationObserver(all => all.forEach(m => m.addedNodes.forEach(n => spoken.push(n.textContent))))
  .observe(document.getElementById("live"), { childList: true }));
"""

# Every text on the page, and every line that tells a size, with its contrast to what lies behind it.
CONTRAST = r"""
const rgb = c => { const m = c.match(/[\d.]+/g).map(Number); return m.length > 3 && m[3] == 0 ? null : m; };
const light = c => { const [r, g, b] = c.slice(0, 3).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
const behind = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c) return c; } return [255, 255, 255]; };
const out = [];
for (const e of document.querySelectorAll("body *")) {
  if (!e.checkVisibility() || e.closest(".unseen")) continue;
  const s = getComputedStyle(e), what = e.tagName + "." + (e.id || e.className.baseVal || e.className) + " " + e.textContent.slice(0, 20), b = behind(e);
  const text = [...e.childNodes].some(n => n.nodeType == 3 && n.data.trim()) || /^(INPUT|SELECT|TEXTAREA)$/.test(e.tagName);
  if (text && ratio(rgb(e.namespaceURI.endsWith("svg") ? s.fill : s.color), b) < 4.5) out.push([what, "text"]);
  if (e.placeholder && ratio(rgb(getComputedStyle(e, "::placeholder").color), b) < 4.5) out.push([what, "placeholder"]);
  if (e.matches(".by") && ratio(rgb(s.textDecorationColor), b) < 3) out.push([what, "line"]);
  if (e.matches(".strip i") && ratio(rgb(s.backgroundColor), behind(e.parentElement)) < 3) out.push([what, "strip"]);
  if (e.matches("circle") && ratio(rgb(s.fill), b) < 3) out.push([what, "circle"]);
  if (e.matches("button, input:not([type=range]), select, textarea") && ratio(rgb(s.borderTopColor), behind(e.parentElement)) < 3) out.push([what, "border"]);
}
return out;
"""


class Page:
    def __init__(self, url, fake, shots):
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service
        o = webdriver.ChromeOptions()
        for a in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
            o.add_argument(a)
        o.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self.d = webdriver.Chrome(service=Service("/usr/bin/chromedriver"), options=o)
        self.url, self.fake, self.shots = url, fake, shots
        self.d.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": RECORD})

    def js(self, code, *args):
        return self.d.execute_script(code, *args)

    def open(self, width=1200, height=850, scheme="light"):
        self.d.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", dict(width=width, height=height, deviceScaleFactor=1, mobile=width < 600))
        self.scheme(scheme)
        self.d.get(self.url)
        self.until("return sizes.length > 0", "the sizes arrive")

    def scheme(self, name):
        self.d.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": name}]})

    def until(self, code, what, seconds=60):
        end = time.monotonic() + seconds
        while not self.js(code):
            assert time.monotonic() < end, f"never: {what}"
            time.sleep(0.05)

    def keys(self, *keys):
        from selenium.webdriver import ActionChains
        ActionChains(self.d).send_keys(*keys).perform()

    def find(self, css):
        return self.d.find_element("css selector", css)

    def say(self, text):
        self.js("const t = document.getElementById('text'); t.focus(); t.select()")
        self.keys(text, "\ue007")

    def done(self, seconds=120):
        self.until("return running === null && document.getElementById('stop').hidden", "the answer ends", seconds)

    def shot(self, name):
        if self.shots:
            self.d.save_screenshot(f"{self.shots}/{name}.png")

    def quiet(self, expected="^$"):
        said = [m["message"] for m in self.d.get_log("browser") if m["level"] in ("SEVERE", "WARNING") and not re.search(expected, m["message"])]
        assert not said, said

    def asked(self, path):
        return [a for a in self.js("return asked") if a["path"] == path]


# ---- the checks ----

def check_loads(p):
    """loads without a complaint of the browser, with the sizes, the figures and the plot"""
    p.open()
    p.quiet()
    names = p.js("return sizes.map(s => s.name)")
    assert p.js("return [...document.querySelectorAll('#legend li')].map(l => l.textContent)") == ["auto"] + names
    assert len(p.js("return [...document.querySelectorAll('#figures dd')].map(d => d.textContent)")) == 8
    assert not p.js("return performance.getEntriesByType('resource').map(r => r.name).filter(n => !n.startsWith(location.origin))")
    if p.fake:
        assert names == ["12B", "23B", "full"], "smallest first"
        assert p.js("return document.querySelectorAll('#plot circle').length") == 3
        assert "auto: 12B, then full" == p.js("return document.getElementById('size-now').value")
        assert "19 GiB" in p.find("#figures").text and "49 MiB of 1 GiB" in p.find("#figures").text
    p.shot("desk-empty")


def check_streams(p):
    """an answer comes in pieces, the thought is folded, both are coloured by the sizes that wrote them"""
    p.open()
    names = p.js("return sizes.map(s => s.name)")
    thinks = p.js("return !document.getElementById('thinking').hidden")
    if thinks:
        p.js("document.getElementById('think').value = arguments[0]; document.getElementById('answer').value = arguments[1]", names[0], names[-1])
    p.say(p.prompt)
    grown = set()
    while p.js("return running !== null"):
        grown.add(p.js("return document.getElementById('log').textContent.length"))
    p.done()
    assert len(grown) > 3, f"lengths seen: {grown}"
    sent = p.asked("v1/chat/completions")[0]["body"]
    assert sent["stream"] and sent["stream_options"] == {"include_usage": True} and sent["model"] == "auto", sent
    if thinks:
        assert sent["nestar"] == {"think": names[0], "answer": names[-1]}, sent
        fold = p.find("details.thought")
        assert fold.get_attribute("open") is None and fold.text.startswith("Thought, "), fold.text
        assert p.js("return [...new Set([...document.querySelectorAll('.thought .by')].map(b => b.title))]") == names[:1]
        assert p.js("return [...new Set([...document.querySelectorAll('article > .text .by')].map(b => b.title))]") == names[-1:]
        colours = p.js("return ['.thought .strip i', 'article > .strip i'].map(s => getComputedStyle(document.querySelector(s)).backgroundColor)")
        assert colours[0] != colours[1], colours
    assert "tokens/s" in p.find(".about").text, p.find(".about").text
    if p.fake:
        # as text, but for the fences of the block of code
        want = ANSWER.replace("```python\n", "").replace("```\n", "")
        assert p.js("return [...document.querySelectorAll('article > .text')].pop().textContent") == want
        assert p.js("return document.querySelector('article pre').textContent").startswith("print(17 + 25)")
        assert not p.js("return document.querySelectorAll('#log b, #log img').length"), "a model's text became markup"
        assert len(p.js("return spoken")) <= ANSWER.count("\n") + 2, "spoken by lines, not by tokens"
        assert p.js("return conversation[1].content") == ANSWER
    assert p.js("return document.querySelector('.about').getBoundingClientRect().bottom <= document.getElementById('ask').getBoundingClientRect().top"), "the end is hidden"
    p.shot("desk")
    p.js("document.querySelector('details').open = true; scrollTo(0, 0)")
    p.shot("desk-open")


def check_follows(p):
    """a second question carries the conversation; characters cut between two packets arrive whole"""
    p.open()
    p.say(p.prompt)
    p.done()
    p.say("money" if p.fake else p.prompt)
    p.done()
    sent = p.asked("v1/chat/completions")[-1]["body"]["messages"]
    assert [m["role"] for m in sent] == ["user", "assistant", "user"], sent
    if p.fake:
        assert p.js("return conversation[3].content").startswith("Äpfel für 5 €.")
    p.find("#new").click()
    assert p.js("return conversation.length == 0 && document.getElementById('log').childNodes.length == 0")


def check_slider(p):
    """the slider moved during an answer asks for that size, and what follows has its colour"""
    p.open()
    smallest = p.js("return sizes[0].name")
    if p.fake:
        p.js("document.getElementById('size').value = 3")
        p.say("long")
        p.until("return document.querySelector('article > .text .by')", "the answer begins")
        p.js("document.getElementById('size').focus()")
        p.keys("\ue012", "\ue012")
        p.done()
        sizes = [a["body"]["size"] for a in p.asked("nestar/size")]
        assert sizes == ["23B", "12B"], sizes
    else: # a small model is quick: moved by the page itself as the first token appears
        p.js("""const s = document.getElementById('size'); s.value = s.max;
             new MutationObserver((_, o) => { if (document.querySelector('#log .by')) { o.disconnect(); s.value = 1; s.dispatchEvent(new Event('change')); } })
             .observe(document.getElementById('log'), { childList: true, subtree: true });""")
        p.say(p.prompt)
        p.done()
    assert not p.fake or p.js("return document.activeElement.id") == "size", "the end of an answer took the focus"
    posts = p.asked("nestar/size")
    assert posts and posts[-1]["body"]["size"] == smallest and posts[-1]["body"]["id"].startswith("chatcmpl-"), posts
    wrote = p.js("return [...new Set([...document.querySelectorAll('#log .by')].map(b => b.title))]")
    assert len(wrote) >= 2 and wrote[-1] == smallest, wrote
    wrong = p.js("""const look = e => { const s = getComputedStyle(e); return s.textDecorationColor + s.textDecorationStyle; };
                    const legend = Object.fromEntries([...document.querySelectorAll('#legend span')].map(e => [e.textContent, look(e)]));
                    if (new Set(Object.values(legend)).size < sizes.length) return ['the legend'];
                    return [...document.querySelectorAll('#log .by')].filter(e => look(e) != legend[e.title]).map(e => e.title)""")
    assert not wrong and len(set(wrote)) == len(wrote), wrong
    assert "changes of size: " in p.find(".about").text, p.find(".about").text
    p.js("document.querySelector('details')?.toggleAttribute('open', true)")
    p.shot("desk-switched")


def check_stops(p):
    """the button stops; what was written stays; the server sees it"""
    p.open()
    if p.fake:
        p.fake.pace = 0.2
    p.say("long" if p.fake else p.prompt)
    p.until("return document.querySelector('#log .by')", "the first token")
    p.find("#stop").click()
    p.done(5)
    if p.fake:
        assert "stopped" in p.find(".about").text
        end = time.monotonic() + 5
        while not p.fake.gone:
            assert time.monotonic() < end, "the connection stays open"
            time.sleep(0.05)
    n = p.js("return document.getElementById('log').textContent.length")
    time.sleep(0.3)
    assert p.js("return document.getElementById('log').textContent.length") == n
    p.quiet()


def check_keyboard(p):
    """all of it by keyboard: Enter, Shift+Enter, Escape, every control reached with a visible focus"""
    p.open()
    assert p.js("return document.activeElement.id") == "text"
    p.keys("one")
    from selenium.webdriver import ActionChains
    ActionChains(p.d).key_down("\ue008").send_keys("\ue007").key_up("\ue008").perform()
    p.keys("two")
    assert p.js("return document.getElementById('text').value") == "one\ntwo" and not p.js("return running")
    if p.fake:
        p.fake.pace = 0.2
    p.keys("\ue007")
    p.until("return document.querySelector('#log .by')", "the first token")
    p.keys("\ue00c")
    p.done(5)
    assert p.js("return document.activeElement.id") == "text"
    p.js("document.getElementById('budget').value = 'limited'; document.getElementById('budget').onchange(); document.getElementById('new').focus()")
    reached = []
    for _ in range(30):
        p.keys("\ue004")
        e = p.js("const e = document.activeElement, s = getComputedStyle(e); return [e.id || e.tagName, s.outlineStyle, parseFloat(s.outlineWidth)]")
        if e[0] == "BODY":
            break
        assert e[1] != "none" and e[2] >= 2, e
        reached.append(e[0])
    want = ["size", "text", "send", "budget", "tokens", "think", "answer", "temperature", "key"]
    assert [r for r in reached if r in want] == want, reached


def check_options(p):
    """budgets and temperature go into the request as chosen"""
    p.open()
    if not p.js("return !document.getElementById('thinking').hidden"):
        return "this model does not think"
    for budget, reasoning, own in (("limited", None, {"think_budget": 64}), ("off", "none", {}), ("free", None, {})):
        p.js("const b = document.getElementById('budget'); b.value = arguments[0]; b.onchange()", budget)
        if budget == "limited":
            p.find("#tokens").clear()
            p.find("#tokens").send_keys("64")
        p.find("#temperature").clear()
        p.find("#temperature").send_keys("0.7")
        p.say(p.prompt)
        p.until("return document.querySelectorAll('#log .by').length || document.querySelector('#log .error')", "a token")
        p.keys("\ue00c")
        p.done()
        sent = p.asked("v1/chat/completions")[-1]["body"]
        assert sent.get("reasoning_effort") == reasoning and sent["nestar"] == own and sent["temperature"] == 0.7, sent
        assert bool(p.js("return document.querySelector('.thought')")) == (budget != "off")
        p.find("#new").click()
    p.quiet()


def check_narrow(p):
    """320 px: nothing to scroll sideways, light and dark; the size stays in reach"""
    p.open(320, 640)
    p.say(p.prompt)
    p.done()
    p.js("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert p.js("return document.documentElement.scrollWidth") <= 320, p.js("return document.documentElement.scrollWidth")
    box = p.js("scrollTo(0, 0); const r = document.getElementById('size').getBoundingClientRect(); return [r.top, r.bottom, r.left, r.right]")
    assert box[0] >= 0 and box[1] <= 640 and box[2] >= 0 and box[3] <= 320, box
    small = p.js("return [...document.querySelectorAll('button, select, textarea, input')].filter(e => e.checkVisibility() && e.getBoundingClientRect().height < 24).map(e => e.id)")
    assert not small, small
    p.shot("phone-top")
    p.js("document.querySelectorAll('details').forEach(d => d.open = false); toEnd()")
    p.shot("phone")
    had = p.js("return document.querySelectorAll('#log .by').length")
    p.say("money" if p.fake else p.prompt)
    p.until(f"return document.querySelectorAll('#log .by').length > {had}", "the second answer")
    p.shot("phone-running")
    p.done()
    assert p.js("return [...document.querySelectorAll('.about')].pop().getBoundingClientRect().bottom <= document.getElementById('ask').getBoundingClientRect().top"), "the end is hidden"
    assert abs(p.js("return document.getElementById('main').getBoundingClientRect().bottom") - 640) < 2, "scrolled beyond the conversation"
    p.scheme("dark")
    p.shot("phone-dark")
    p.js("location.hash = 'settings'")
    p.shot("phone-settings-dark")
    p.js("scrollTo(0, 1e6)")
    p.shot("phone-machine-dark")


def check_contrast(p):
    """every text 4.5 : 1, every line that tells a size 3 : 1, light and dark, with all eight colours"""
    p.open()
    p.say(p.prompt)
    p.done()
    p.js("""document.querySelectorAll('details').forEach(d => d.open = true);
         sizes = [...'01234567'].map(name => ({ name }));
         const t = newTurn('x'); for (const s of sizes) think(t, 'a ', s.name); for (const s of sizes) answer(t, 'b ', s.name);
         t.box.append(make('p', { className: 'error', textContent: 'an error' })); document.querySelectorAll('details').forEach(d => d.open = true);""")
    for scheme in ("light", "dark"):
        p.scheme(scheme)
        bad = p.js(CONTRAST)
        assert not bad, (scheme, bad)
        p.shot("desk-colours-" + scheme)
    paper = p.js("return getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(21, 23, 26)", f"dark is not in force: {paper}"


def check_errors(p):
    """429 with its Retry-After, an error and an end in the middle of a stream; the question comes back"""
    if not p.fake:
        return "only with --fake"
    p.open()
    for question, error in (("busy", "Too many requests are waiting. Try again in 7 s."), ("broken", "The state is lost."), ("cut", "The connection ended before the answer did.")):
        p.say(question)
        p.done()
        assert p.js("return [...document.querySelectorAll('#log .error')].pop().textContent") == error
        assert p.js("return document.getElementById('text').value") == (question if question == "busy" else "")
        p.js("document.getElementById('text').value = ''")
    p.shot("desk-errors")
    p.quiet("status of 429|ERR_INCOMPLETE_CHUNKED")


def check_key(p):
    """a key that was typed is sent, and kept nowhere"""
    if p.fake:
        p.fake.key = "geheim"
        p.d.get(p.url)
        p.until("return document.getElementById('trouble').textContent", "the refusal is shown")
        assert "An API key is needed." in p.find("#trouble").text
        p.shot("desk-key")
    else:
        p.open()
    p.find("#key").send_keys("geheim", "\ue004")
    p.until("return asked.some(a => a.headers.Authorization == 'Bearer geheim')", "the key is sent")
    if p.fake:
        p.until("return sizes.length > 0", "the key opens")
        p.say(p.prompt)
        p.done()
        assert p.find(".about").text and not p.js("return document.querySelector('#log .error')")
        assert "Bearer geheim" in p.fake.keys_seen
        p.fake.key = None
    assert p.js("return localStorage.length + sessionStorage.length + document.cookie.length") == 0
    p.d.get(p.url)
    assert p.js("return document.getElementById('key').value") == ""
    p.quiet("status of 401")


def check_unmeasured(p):
    """no speed measured yet: the plot says so instead of drawing nothing"""
    if not p.fake:
        return "only with --fake"
    p.fake.rates = False
    p.open()
    p.fake.rates = True
    assert not p.find("#plot").is_displayed() and "appear here" in p.find("#plot-title").text
    p.until("return document.querySelectorAll('#plot circle').length == 3", "the next status draws them", 10)


def check_axe(p):
    """axe-core finds nothing, light and dark, wide and narrow"""
    if not p.axe:
        return "only with --axe"
    for width in (1200, 320):
        p.open(width)
        p.say(p.prompt)
        p.done()
        p.js("document.querySelectorAll('details').forEach(d => d.open = true)")
        for scheme in ("light", "dark"):
            p.scheme(scheme)
            p.js(pathlib.Path(p.axe).read_text())
            r = p.d.execute_async_script("axe.run(document, { resultTypes: ['violations'] }).then(arguments[0])")
            found = [(v["id"], v["impact"], n["html"][:120]) for v in r["violations"] for n in v["nodes"]]
            assert not found, (width, scheme, found)


def main():
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument("url", nargs="?")
    a.add_argument("--fake", action="store_true")
    a.add_argument("--shots")
    a.add_argument("--axe")
    a.add_argument("--prompt", default="What is 17 + 25? Think slowly.")
    a.add_argument("--only", help="names of checks, separated by commas")
    o = a.parse_args()
    if bool(o.url) == o.fake:
        a.error("a URL or --fake")
    try:
        import selenium  # noqa: F401
    except ImportError:
        print("skipped: no selenium")
        return 77
    if not pathlib.Path("/usr/bin/chromedriver").exists():
        print("skipped: no chromedriver")
        return 77
    if o.shots:
        pathlib.Path(o.shots).mkdir(parents=True, exist_ok=True)
    fake = Fake() if o.fake else None
    if fake:
        threading.Thread(target=fake.serve_forever, daemon=True).start()
    p = Page(o.url or f"http://127.0.0.1:{fake.server_port}/", fake, o.shots)
    p.prompt, p.axe = o.prompt, o.axe
    failed = 0
    try:
        for name, check in [(n[6:], f) for n, f in globals().items() if n.startswith("check_")]:
            if o.only and name not in o.only.split(","):
                continue
            if fake:
                fake.pace = 0.03
            try:
                skipped = check(p)
                print(f"skipped {name}: {skipped}" if skipped else f"ok      {name}: {check.__doc__}", flush=True)
            except Exception:
                failed += 1
                print(f"FAILED  {name}: {check.__doc__}\n{traceback.format_exc()}", flush=True)
                p.js("running?.abort.abort()")
    finally:
        p.d.quit()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
