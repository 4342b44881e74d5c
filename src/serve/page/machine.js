// The sizes and the machine, from /nestar/status: the slider's steps, the figures, the plot.
"use strict";

const AUTO = "auto";
let sizes = [];  // as of the last status, smallest first
let auto = null; // what "auto" means now: {think, answer}

// A class for each size: the same colour and kind of line everywhere.
const colour = size => "s" + (sizes.findIndex(s => s.name == size) + 8) % 8;
const steps = () => [AUTO, ...sizes.map(s => s.name)];
const sizeNow = () => steps()[$("size").value];

const params = n => n >= 1e9 ? +(n / 1e9).toPrecision(3) + " B" : +(n / 1e6).toPrecision(3) + " M";
const seconds = s => s < 0.1 ? `${+(1000 * s).toPrecision(2)} ms` : `${s.toPrecision(2)} s`;
function bytes(n) {
  let i = 0;
  for (; n >= 1000 && i < 4; i++)
    n /= 1024;
  return `${+n.toPrecision(3)} ${["B", "KiB", "MiB", "GiB", "TiB"][i]}`;
}

function showSize() {
  let text = sizeNow();
  if (text == AUTO && auto)
    text += auto.think == auto.answer ? `: ${auto.answer}` : `: ${auto.think}, then ${auto.answer}`;
  $("size-now").value = text;
  $("size").setAttribute("aria-valuetext", text);
}

// The steps of the slider with their legend, and the same choices for thought and answer.
function showSizes(now) {
  const names = steps(), was = sizeNow();
  sizes = now.sort((a, b) => a.params_active - b.params_active);
  const all = steps();
  if (all.join() == names.join())
    return;
  $("size").max = all.length - 1;
  $("size").value = Math.max(0, all.indexOf(was));
  $("ask").style.setProperty("--n", all.length);
  $("legend").replaceChildren(...all.map((n, i) => make("li", "", make("span", i ? "by " + colour(n) : "", n))));
  for (const e of [$("think"), $("answer")]) {
    const chosen = e.value;
    e.replaceChildren(e.firstChild, ...all.map(n => make("option", "", n)));
    e.value = all.includes(chosen) ? chosen : "";
  }
}

function show(s) {
  showSizes(s.sizes);
  auto = s.auto;
  showSize();
  $("model").textContent = s.model;
  document.title = `${s.model}, nestar`;
  $("thinking").hidden = !s.thinking;
  $("tokens").max = s.context;
  const rate = r => `${r.toFixed(1)} tokens/s`, of = (a, b) => bytes(a) + (b ? ` of ${bytes(b)}` : "");
  const rows = {
    "Answers running": `${s.running} of ${s.parallel}`, "Waiting": s.waiting, "Writing": rate(s.decode_rate), "Reading": rate(s.prefill_rate),
    "Memory in all": bytes(s.rss_bytes), "States": of(s.state_bytes, s.state_budget), "Kept prefixes": of(s.prefix_bytes, s.prefix_budget),
    "Context": `${s.context} tokens`,
  };
  $("figures").replaceChildren(...Object.entries(rows).flatMap(([k, v]) => [make("dt", "", k), make("dd", "", v)]));
  const row = (tag, cells) => make("tr", "", ...cells.map(c => make(tag, "", c)));
  $("table").replaceChildren(make("thead", "", row("th", ["size", "active", "read a token", "tokens/s"])),
    make("tbody", "", ...sizes.map(z => row("td", [z.name, params(z.params_active), bytes(z.active_bytes), z.decode_rate ? z.decode_rate.toFixed(1) : "–"]))));
  plot(sizes.filter(z => z.decode_rate * z.params_active > 0));
}

// Between lines 1, 2 or 5 times a power of ten, so that there are at most four up to `max`.
function step(max) {
  const p = 10 ** Math.floor(Math.log10(max / 4));
  return p * [1, 2, 5, 10].find(m => m * p * 4 >= max);
}

// The machine's frontier: measured tokens/s over active parameters, both from zero.
function plot(points) {
  $("plot-title").textContent = points.length ? "Tokens/s of one answer over active parameters, as measured here." : "Speeds appear here with use.";
  $("plot").toggleAttribute("hidden", !points.length);
  $("plot").replaceChildren();
  if (!points.length)
    return;
  const put = (tag, at, text) => {
    const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const k in at)
      e.setAttribute(k, at[k]);
    e.textContent = text ?? "";
    $("plot").append(e);
  };
  const right = 1.1 * Math.max(...sizes.map(z => z.params_active)), top = 1.15 * Math.max(...points.map(z => z.decode_rate));
  const x = v => 38 + 245 * v / right, y = v => 165 - 155 * v / top;
  for (let v = 0; v <= top; v += step(top)) {
    put("line", { x1: 38, x2: 296, y1: y(v), y2: y(v) });
    put("text", { x: 33, y: y(v) + 4, class: "end" }, +v.toPrecision(3));
  }
  for (let v = step(right); v <= right; v += step(right))
    put("text", { x: x(v), y: 182 }, params(v));
  put("path", { d: "M" + points.map(z => `${x(z.params_active)} ${y(z.decode_rate)}`).join("L") });
  for (const z of points) {
    put("circle", { class: colour(z.name), cx: x(z.params_active), cy: y(z.decode_rate), r: 5 });
    put("text", { x: x(z.params_active), y: y(z.decode_rate) - 9 }, z.name);
  }
}

// Every two seconds while somebody looks; not again where a key is missing, until one is typed.
let timer = 0, asking = false;
async function poll() {
  clearTimeout(timer);
  if (document.hidden || asking)
    return;
  asking = true;
  let says = "", again = true;
  try {
    show(await (await ask("nestar/status", null, AbortSignal.timeout(10000))).json());
  } catch (e) {
    says = reason(e);
    again = e.status != 401;
  }
  if ($("trouble").textContent != says) // an alert: read out when it changes
    $("trouble").textContent = says;
  asking = false;
  if (again)
    timer = setTimeout(poll, 2000);
}
