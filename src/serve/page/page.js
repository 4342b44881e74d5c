// The conversation of the page of `nestar serve`, over /v1/chat/completions; sizes and machine are in machine.js. Addresses are relative, so
// that it works behind a proxy under another path too. What a model wrote becomes text, never markup.
"use strict";

const $ = id => document.getElementById(id);
let conversation = []; // messages that were answered
let running = null;    // the answer being written: {abort, id, size, told, moving}; size: wanted, told: to the server

// An element; strings among its children become text.
function make(tag, className, ...children) {
  const e = document.createElement(tag);
  e.className = className;
  e.append(...children);
  return e;
}

// ---- the server ----

// fetch, with what the server says in {"error": {"message"}} as the error.
async function ask(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  if ($("key").value)
    headers.Authorization = "Bearer " + $("key").value;
  const r = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal, cache: "no-store" });
  if (r.ok)
    return r;
  let says;
  try { says = (await r.json()).error.message; } catch { says = `The server answered with status ${r.status}.`; }
  if (r.headers.has("Retry-After"))
    says += ` Try again in ${r.headers.get("Retry-After")} s.`;
  if (r.status == 401)
    says += " The key goes under Settings.";
  throw Object.assign(new Error(says), { status: r.status });
}

// Why a request failed, for people.
const reason = e => e instanceof TypeError ? "The server cannot be reached." : e.message;

// The data of server-sent events, one string each; every event of this server is one line.
async function* events(stream) {
  const reader = stream.getReader(), decoder = new TextDecoder();
  for (let rest = ""; ;) {
    const { done, value } = await reader.read();
    if (done)
      return;
    const lines = (rest + decoder.decode(value, { stream: true })).split(/\r?\n/);
    rest = lines.pop();
    for (const l of lines)
      if (l.startsWith("data:"))
        yield l.slice(5).trim();
  }
}

// ---- an answer on the page ----

// Writes text into `box` as it comes: a span for each stretch of one size; lines of ``` open and close a block of code. `wrote` is told of
// every piece, and whether it ends a line.
function writer(box, wrote) {
  let into = box, span = null, by = null, held = "", fresh = true; // held: until the rest of its line decides; fresh: at a line's start
  function put(text, size) {
    if (!span || by != size) {
      span = make("span", "by " + colour(size), "");
      span.title = by = size;
      into.append(span);
    }
    span.firstChild.appendData(text);
  }
  function add(text, size, last) {
    held += text;
    while (held) {
      const end = held.indexOf("\n") + 1, piece = held.slice(0, end || undefined);
      const fence = fresh && (/^```[^`]*$/.test(piece) || "```".startsWith(piece));
      if (fence && !end && !last)
        return;
      held = held.slice(piece.length);
      fresh = end > 0;
      if (fence && piece.length > 2) {
        into = into == box ? box.appendChild(make("pre", "")) : box;
        if (into != box)
          into.tabIndex = 0; // may have to be scrolled sideways
        span = null;
      } else {
        put(piece, size);
      }
      wrote?.(piece, fresh);
    }
  }
  return { add, end: () => add("", by, true) };
}

// One more token in a bar, where each is a piece in its size's colour.
function count(bar, size) {
  const c = colour(size);
  if (bar.lastChild?.className != c)
    bar.append(make("i", c));
  bar.lastChild.style.flexGrow = +bar.lastChild.style.flexGrow + 1;
}

// Read out by screen readers: whole lines, not tokens.
function say(text) {
  const p = make("p", "", text);
  if (text.trim())
    $("live").append(p);
  setTimeout(() => p.remove(), 30000);
}

function newTurn(question) {
  const box = make("article", "", make("h3", "", "Answer"));
  $("log").append(make("article", "", make("h3", "", "You"), make("div", "text question", question)), box);
  $("hint").hidden = true;
  return { box, raw: "", line: "", tokens: 0, thoughts: 0, first: 0, shown: 0 };
}

function think(t, text, size) {
  if (!t.thought) {
    const box = make("div", "text");
    t.title = make("span", "", "Thinking");
    t.thoughtBar = make("span", "strip");
    t.box.append(make("details", "thought", make("summary", "", t.title, t.thoughtBar), box));
    t.thought = writer(box);
    say("Thinking");
  }
  t.thoughts++;
  count(t.thoughtBar, size);
  t.thought.add(text, size);
}

function thoughtOver(t) {
  t.thought?.end();
  if (t.thought)
    t.title.textContent = `Thought, ${t.usage?.completion_tokens_details?.reasoning_tokens ?? t.thoughts} tokens`;
}

function answer(t, text, size) {
  if (!t.answer) {
    thoughtOver(t);
    const box = make("div", "text");
    t.bar = make("span", "strip");
    t.box.append(t.bar, box);
    t.answer = writer(box, (piece, whole) => {
      t.line += piece;
      if (whole) {
        say(t.line);
        t.line = "";
      }
    });
  }
  t.raw += text;
  count(t.bar, size);
  t.answer.add(text, size);
}

// Where the page is scrolled to when the conversation's end is in view.
const end = () => $("main").offsetTop + $("main").offsetHeight - innerHeight;
const toEnd = () => scrollTo(0, end());
const atEnd = () => scrollY > end() - 60;

// One event of the stream; false: it was the last.
function take(t, data) {
  if (data == "[DONE]")
    return false;
  const c = JSON.parse(data), choice = c.choices?.[0], d = choice?.delta, size = c.nestar?.size ?? "";
  if (c.error)
    throw new Error(c.error.message);
  if (!running.id) {
    running.id = c.id;
    resize(running); // moved before there was an id
  }
  t.usage = c.usage ?? t.usage;
  t.finish = choice?.finish_reason ?? t.finish;
  if (c.nestar?.sizes)
    t.end = c.nestar;
  if (!d?.reasoning_content && !d?.content)
    return true;
  t.first ||= performance.now();
  t.tokens++;
  const follow = atEnd();
  if (d.reasoning_content)
    think(t, d.reasoning_content, size);
  if (d.content)
    answer(t, d.content, size);
  if (follow)
    toEnd();
  const now = performance.now(), s = (now - t.first) / 1000;
  if (now > t.shown + 250) {
    t.shown = now;
    $("rate").textContent = (s > 0.2 ? `${((t.tokens - 1) / s).toFixed(1)} tokens/s` : "") + (size ? ` at ${size}` : "");
  }
  return true;
}

const ENDS = { length: "cut off at its limit of tokens", context: "cut off: the context is full", cancelled: "stopped" };

// The line under an answer: who wrote it, how fast, why it ended.
function about(t, stopped) {
  const e = t.end, parts = [];
  if (e) {
    for (const u of e.sizes)
      parts.push(`${u.size}: ${u.tokens} tokens`);
    const n = t.usage?.completion_tokens ?? t.tokens, s = e.seconds - e.first_token_seconds;
    if (n > 1 && s > 0)
      parts.push(`${((n - 1) / s).toFixed(1)} tokens/s`);
    parts.push(`first token after ${seconds(e.first_token_seconds)}`);
    if (e.switches)
      parts.push(`changes of size: ${e.switches}, ${seconds(e.switch_seconds)}`);
  }
  const why = stopped ? "stopped" : ENDS[e?.end] ?? ENDS[t.finish];
  if (why)
    parts.push(why);
  t.box.append(make("p", "about", parts.join(" · ")));
}

// ---- asking ----

function request(text) {
  const messages = [...conversation, { role: "user", content: text }];
  const r = { model: sizeNow(), messages, stream: true, stream_options: { include_usage: true }, nestar: {} };
  if ($("think").value && $("budget").value != "off")
    r.nestar.think = $("think").value;
  if ($("answer").value)
    r.nestar.answer = $("answer").value;
  if ($("budget").value == "limited" && $("tokens").valueAsNumber > 0)
    r.nestar.think_budget = Math.round($("tokens").valueAsNumber);
  if ($("budget").value == "off")
    r.reasoning_effort = "none";
  if ($("temperature").value != "")
    r.temperature = $("temperature").valueAsNumber;
  return r;
}

async function send() {
  const text = $("text").value.trim();
  if (!text || running)
    return;
  const t = newTurn(text), mine = conversation, r = request(text), abort = new AbortController(), gone = abort.signal;
  running = { abort, size: r.model, told: r.model };
  $("text").value = "";
  busy(true);
  toEnd();
  let error;
  try {
    let on = true;
    for await (const data of events((await ask("v1/chat/completions", r, gone)).body))
      if (gone.aborted || !(on = take(t, data)))
        break;
    if (on && !gone.aborted)
      throw new Error("The connection ended before the answer did.");
  } catch (e) {
    error = !gone.aborted && reason(e);
  }
  const follow = atEnd();
  thoughtOver(t);
  t.answer?.end();
  say(t.line);
  if (t.tokens)
    about(t, gone.aborted);
  if (error)
    t.box.append(make("p", "error", error));
  say(error || "");
  if (t.raw) // into the conversation that it was asked in, which may be over
    mine.push({ role: "user", content: text }, { role: "assistant", content: t.raw });
  else if (mine == conversation && !$("text").value)
    $("text").value = text; // not answered: to be asked again
  running = null;
  abort.abort(); // what is left of the stream
  busy(false);
  if (follow)
    toEnd();
}

function busy(on) {
  const lost = document.activeElement == $(on ? "send" : "stop"); // the focus, with the button that goes
  $("send").hidden = on;
  $("stop").hidden = !on;
  $("rate").textContent = on ? "waiting" : "";
  if (lost)
    $("text").focus();
}

// The rest of an answer at another size; one request at a time, so that the last choice is what holds.
async function resize(job) {
  if (!job.id || job.moving)
    return;
  job.moving = true;
  while (running == job && job.told != job.size) {
    job.told = job.size;
    let says = `from here on: ${job.told}`;
    try { await ask("nestar/size", { id: job.id, size: job.told }); } catch (e) { says = `the size stays: ${reason(e)}`; }
    if (running == job)
      say($("rate").textContent = says);
  }
  job.moving = false;
}

// ---- what people do ----

const stop = () => running?.abort.abort();
$("ask").onsubmit = e => { e.preventDefault(); send(); };
$("choices").onsubmit = e => e.preventDefault();
$("stop").onclick = stop;
$("new").onclick = () => {
  stop();
  conversation = [];
  $("log").replaceChildren();
  $("hint").hidden = false;
  $("text").focus();
};
$("text").onkeydown = e => {
  if (e.key == "Enter" && !e.shiftKey && !e.isComposing) {
    e.preventDefault();
    send();
  }
};
document.onkeydown = e => { if (e.key == "Escape") stop(); };
$("size").oninput = () => showSize();
$("size").onchange = () => {
  if (running) {
    running.size = sizeNow();
    resize(running);
  }
};
$("budget").onchange = () => {
  $("tokens").disabled = $("budget").value != "limited";
  $("think").disabled = $("budget").value == "off";
};
$("key").onchange = poll;
document.onvisibilitychange = poll;
showSize();
poll();
