"use strict";
// One state (method, strength), one function that shows it. All numbers come from the JSON in #run, written by page.py.
const run = JSON.parse(document.getElementById("run").textContent);
const $ = (id) => document.getElementById(id);
const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// Formats -------------------------------------------------------------------------------------------------------------
const missing = (v) => v === null || v === undefined;
const FORMS = {
  one: (v) => missing(v) ? "–" : Math.abs(v) >= 100 ? v.toFixed(0) : v.toFixed(1).replace(/^-0\.0$/, "0.0"),
  percent: (v) => missing(v) ? "–" : (100 * v).toFixed(v > 0 && v < 0.01 || v > 0.99 && v < 1 ? 1 : 0) + " %",
  short: (v) => {
    if (missing(v)) return "–";
    const size = Math.abs(v);
    return size >= 100 ? v.toFixed(0) : size >= 1 ? v.toFixed(1) : size === 0 ? "0" : size >= 0.05 ? v.toFixed(2) : v.toPrecision(2);
  },
};
const spread = (band, k, form) => missing(band.low[k]) ? "" : "± " + form((band.high[k] - band.low[k]) / 2);
const EMPTY = { value: [], low: [], high: [] };
const bandOf = (method, name) => method.bands[name] ?? EMPTY;
const known = (method, name) => bandOf(method, name).value.some((v) => !missing(v));

// Plans: int16, one unit for each coordinate of each strength, little-endian; -32768 marks what is not finite -----------
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
for (const method of run.methods) {
  if (!method.plans) {
    method.frames = method.strengths.map((_, row) => ({ row, x: null, p: 0, h: 0, leaving: 0 }));
    continue;
  }
  const { shape: [, p, h, n], steps, positions, units, broken: flags } = method.plans;
  const view = new DataView(bytes(positions).buffer), bits = bytes(flags), size = p * h * n;
  method.frames = method.plans.rows.map((row, k) => {
    const x = new Float32Array(size);
    for (let i = 0; i < size; i++) {
      const raw = view.getInt16(2 * (k * size + i), true);
      x[i] = raw === -32768 ? NaN : raw * units[k][i % n];
    }
    const flag = (i) => { const at = k * p * (h - 1) + i; return (bits[at >> 3] >> (7 - (at & 7))) & 1; };
    return { row, x, p, h, steps, broken: Array.from({ length: p * (h - 1) }, (_, i) => flag(i)), leaving: method.plans.leaving[k] };
  });
}

// State ---------------------------------------------------------------------------------------------------------------
let method = run.methods.find((a) => a.name === run.first), at = 0, shown = null, moving = 0, timer = 0;
const frame = () => method.frames[at];

function choose(nextMethod, k) {
  method = nextMethod;
  at = Math.max(0, Math.min(k, method.frames.length - 1));
  $("strength").max = method.frames.length - 1;
  $("strength").disabled = $("play").disabled = method.frames.length < 2;
  $("strength").value = at;
  show();
}
const isBest = (m, row) => row === m.best && m.scored && m.feasible[row];
const chooseRow = (nextMethod, row) => {
  const distance = (f) => Math.abs(f.row - row);
  choose(nextMethod, nextMethod.frames.reduce((best, f, k) => distance(f) < distance(nextMethod.frames[best]) ? k : best, 0));
};

function show() {
  const row = frame().row, value = String(method.strengths[row]), alone = method.strengths.length < 2;
  $("strength-name").textContent = alone ? "no strength" : method.strength_name;
  const marks = [isBest(method, row) && "★ best of this method", !method.feasible[row] && "not feasible", method.unconverged[row] && "not converged"];
  $("value").textContent = alone ? "" : [value, marks.filter(Boolean).join(", ")].join("  ");
  $("strength").setAttribute("aria-valuetext", method.strength_name + " " + value);
  $("leaving").textContent = frame().leaving ? frame().leaving + " of " + frame().p + " plans leave the picture" : "";
  document.querySelector(`input[value="${CSS.escape(method.name)}"]`).checked = true;
  ticks();
  numbers(row);
  curves();
  for (const line of $("results").tBodies[0].rows) line.classList.toggle("now", line.dataset.key === method.name + "/" + row);
  tween();
}

function ticks() {
  const last = Math.max(1, method.frames.length - 1);
  $("ticks").replaceChildren(...method.frames.map((f, k) => {
    const tick = make("span", { textContent: method.strengths.length < 2 ? "" : (isBest(method, f.row) ? "★ " : "") + method.strengths[f.row] });
    tick.style.left = 100 * k / last + "%";
    tick.className = isBest(method, f.row) ? "best" : "";
    return tick;
  }));
}

const RETURNS = ["promised", "delivered"];
function numbers(row) {
  $("numbers").replaceChildren(...run.columns.slice(0, run.cards).map(([name, title, form]) => {
    const band = bandOf(method, name), rank = method.ranks[name]?.[row];
    const above = missing(rank) ? "" : rank === 1 ? "above all data" : "above " + (100 * rank).toFixed(rank > 0.99 ? 1 : 0) + " % of data";
    const small = make("small", {}, missing(band.value[row]) ? "" : spread(band, row, FORMS[form]), make("br"), above);
    const tone = name === "proxy" ? "proxy" : RETURNS.includes(name) ? "return" : "";
    return make("div", {}, make("dt", { textContent: title }), make("dd", {}, make("b", { className: tone, textContent: FORMS[form](band.value[row]) }), small));
  }));
}

// Pictures ------------------------------------------------------------------------------------------------------------
function canvas(id) {
  const element = $(id), ratio = devicePixelRatio || 1, { width, height } = element.getBoundingClientRect();
  element.width = Math.round(width * ratio);
  element.height = Math.round(height * ratio);
  const pen = element.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "11px " + getComputedStyle(document.body).fontFamily;
  pen.textBaseline = "middle";
  return { pen, width, height };
}
const ease = (t) => t < 0.5 ? 2 * t * t : 1 - 2 * (1 - t) * (1 - t);

function tween() {
  cancelAnimationFrame(moving);
  const from = shown, to = frame().x, begin = performance.now();
  if (still || document.hidden || !from || !to || from.length !== to.length) { shown = to; return draw(to); }
  const step = (now) => {
    const t = ease(Math.min(1, Math.max(0, (now - begin) / 420)));
    shown = t === 1 ? to : to.map((x, i) => Number.isNaN(from[i]) ? x : from[i] + t * (x - from[i]));
    draw(shown);
    if (t < 1) moving = requestAnimationFrame(step);
  };
  moving = requestAnimationFrame(step);
}

function draw(x) {
  const { pen, width, height } = canvas("picture"), world = run.world;
  if (world.plane) drawPlane(pen, x, width, height);
  else world.labels.forEach((label, i) => drawSeries(pen, x, i, width, height / world.labels.length));
  if (x && x.some((v) => !Number.isNaN(v))) return;
  pen.fillStyle = colour("soft");
  pen.textAlign = "center";
  pen.fillText(x ? "no finite plan" : "no plans of this method are kept", width / 2, height / 2);
}

// With cells, the first coordinate runs down and the second to the right; without, to the right and up.
function drawPlane(pen, x, width, height) {
  const { solid, origin, size, region, starts, limits, labels } = run.world, [a, b] = solid ? [1, 0] : [0, 1];
  const inset = solid ? [0, 0] : [46, 34], [low, high] = limits[a], [bottom, top] = solid ? [limits[b][1], limits[b][0]] : limits[b];
  const scale = Math.min((width - inset[0]) / (high - low), (height - inset[1]) / Math.abs(top - bottom));
  const X = (v) => inset[0] + (v - low) * scale, Y = (v) => (top - v) * scale * Math.sign(top - bottom);
  pen.save();
  if (!solid) frameOf(pen, X, Y, limits, labels);
  pen.beginPath(); pen.rect(X(low), Y(top), X(high) - X(low), Y(bottom) - Y(top)); pen.clip();
  pen.fillStyle = colour("wall");
  solid?.forEach((line, i) => line.forEach((full, j) => {
    if (full) pen.fillRect(X(origin[1] + j * size) - 0.5, Y(origin[0] + i * size) - 0.5, size * scale + 1, size * scale + 1);
  }));
  if (x) lines(pen, (i, t) => { const n = 2 * (i * frame().h + t); return [X(x[n + a]), Y(x[n + b])]; });
  pen.fillStyle = pen.strokeStyle = colour("ink");
  for (const start of starts.slice(0, frame().p || starts.length)) {
    pen.beginPath(); pen.arc(X(start[a]), Y(start[b]), 3.2, 0, 7); pen.fill();
  }
  if (region) {
    pen.setLineDash([6, 4]); pen.lineWidth = 1.8;
    pen.beginPath(); pen.arc(X(region[a]), Y(region[b]), region[2] * scale, 0, 7); pen.stroke();
  }
  pen.restore();
}

function frameOf(pen, X, Y, [across, up], labels) {
  pen.strokeStyle = colour("faint"); pen.fillStyle = colour("soft");
  pen.strokeRect(X(across[0]), Y(up[1]), X(across[1]) - X(across[0]), Y(up[0]) - Y(up[1]));
  pen.textAlign = "center";
  nice(...across).forEach((v) => pen.fillText(v, X(v), Y(up[0]) + 10));
  pen.fillText(labels[0], (X(across[0]) + X(across[1])) / 2, Y(up[0]) + 25);
  pen.textAlign = "right";
  nice(...up).forEach((v) => pen.fillText(v, X(across[0]) - 6, Y(v)));
  turnedText(pen, labels[1], 9, (Y(up[0]) + Y(up[1])) / 2);
}

function turnedText(pen, words, x, y) {
  pen.save();
  pen.translate(x, y); pen.rotate(-Math.PI / 2); pen.textAlign = "center";
  pen.fillText(words, 0, 0);
  pen.restore();
}

function drawSeries(pen, x, entry, width, tall) {
  const { limits, labels, band } = run.world, n = labels.length, last = entry === n - 1;
  const steps = frame().steps ?? [0, band[0].length - 1], end = steps[steps.length - 1], [low, high] = limits[entry];
  const top = entry * tall + 8, base = (entry + 1) * tall - 30, X = (t) => 62 + t / end * (width - 72), Y = (v) => base - (v - low) / (high - low) * (base - top);
  pen.save();
  pen.strokeStyle = colour("faint"); pen.fillStyle = colour("soft"); pen.textAlign = "right";
  nice(low, high, 3).forEach((v) => pen.fillText(v, 56, Y(v)));
  turnedText(pen, labels[entry], 9, (top + base) / 2);
  pen.textAlign = "center";
  nice(0, end).forEach((t) => pen.fillText(t, X(t), base + 10));
  if (last) pen.fillText(run.words.step, (X(0) + X(end)) / 2, base + 23);
  pen.strokeRect(X(0), top, X(end) - X(0), base - top);
  pen.beginPath(); pen.rect(X(0), top, X(end) - X(0), base - top); pen.clip();
  pen.fillStyle = colour("wall"); pen.beginPath();
  band[0].forEach((step, t) => pen.lineTo(X(t), Y(step[entry])));
  for (let t = band[1].length - 1; t >= 0; t--) pen.lineTo(X(t), Y(band[1][t][entry]));
  pen.fill();
  if (x) lines(pen, (i, t) => [X(steps[t]), Y(x[n * (i * frame().h + t) + entry])]);
  pen.restore();
}

// All plans, infeasible segments in the second colour on top; at(i, t) is step t of plan i in pixels
function lines(pen, at) {
  const { p, h, broken } = frame(), wild = broken.reduce((a, b) => a + b, 0) / broken.length;
  pen.lineCap = "round";
  for (const side of [0, 1]) {
    pen.beginPath();
    for (let i = 0; i < p; i++) for (let t = 0; t < h - 1; t++) {
      const from = at(i, t), to = at(i, t + 1);
      if (broken[i * (h - 1) + t] !== side || [...from, ...to].some(Number.isNaN)) continue;
      pen.moveTo(...from);
      pen.lineTo(...to);
    }
    pen.strokeStyle = colour(side ? "broken" : "sound");
    pen.lineWidth = side ? 1.8 - 0.9 * wild : 1.8;
    pen.globalAlpha = 0.8; pen.stroke();
  }
  pen.globalAlpha = 1;
}

// Curves --------------------------------------------------------------------------------------------------------------
const LEFT = 44, RIGHT = 84, TOP = 8, BOTTOM = 22;
function nice(low, high, count = 5) {
  const raw = (high - low) / count, ten = 10 ** Math.floor(Math.log10(raw)), step = ten * [1, 2, 5, 10].find((m) => m * ten >= raw);
  return Array.from({ length: Math.floor(high / step) - Math.ceil(low / step) + 1 }, (_, i) => Number(((Math.ceil(low / step) + i) * step).toPrecision(6)));
}

// Where strengths stand, from 0 to 1: log10, and zero 0.7 decades left of the smallest other one
function place(s) {
  const positive = method.strengths.filter((v) => v > 0), zero = positive.length ? Math.log10(Math.min(...positive)) - 0.7 : 0;
  const log = (v) => v > 0 ? Math.log10(v) : zero, low = log(Math.min(...method.strengths)), high = log(Math.max(...method.strengths));
  return high > low ? (log(s) - low) / (high - low) : 0.5;
}

// A scale that is linear over the core, and logarithmic beyond it where values run far away
function reach(core, beyond) {
  const low = Math.min(...core), high = Math.max(...core), wide = high - low || 1, least = Math.min(low, ...beyond), most = Math.max(high, ...beyond);
  if (least >= low - 2 * wide && most <= high + 2 * wide) {
    const ends = [least - 0.04 * wide, most + 0.09 * wide];
    return { squash: (v) => v, ends, marks: nice(...ends) };
  }
  const bend = 1.15 * Math.max(Math.abs(low), Math.abs(high));
  const squash = (v) => Math.abs(v) < bend ? 1.6 * v / bend : Math.sign(v) * (1.6 + Math.log10(Math.abs(v) / bend));
  const tens = Array.from({ length: 13 }, (_, i) => 10 ** (i - 3)).filter((v) => v > 1.7 * bend);
  const ends = [least < -bend ? least * 1.6 : low - 0.1 * wide, most > bend ? most * 2 : high + 0.1 * wide];
  const marks = [...tens.map((v) => -v), ...nice(low, high, 3), ...tens].filter((v) => v >= ends[0] && v <= ends[1]);
  return { squash, ends, marks };
}

function curves() {
  const data = (quantiles) => Object.entries(quantiles).map(([name, value]) => ["data " + name, value]);
  const values = (name) => bandOf(method, name).value.filter((v) => !missing(v));
  const main = known(method, "delivered") ? "delivered" : "promised", levels = data(run.data.returns), extra = Object.entries(run.levels).filter(([, v]) => !missing(v));
  const proxy = data(run.data.proxy);
  curve("proxy", [["proxy", "broken", false]], proxy, reach([...proxy.map((l) => l[1]), ...(proxy.length ? [] : values("proxy"))], values("proxy")));
  const core = [...levels.map((l) => l[1]), ...values(main), ...values("replanned")], wide = Math.max(...core) - Math.min(...core);
  const near = extra.filter(([, v]) => v <= Math.max(...core) + 3 * wide);
  curve("returns", [["promised", "sound", main === "delivered"], ["delivered", "sound", false]], [...levels, ...near], reach([...core, ...near.map((l) => l[1])], values("promised")));
}

function curve(id, names, levels, { squash, ends, marks }) {
  const drawn = names.filter(([name]) => known(method, name));
  $(id + "-figure").hidden = drawn.length === 0;
  if (drawn.length) $("curve-note").hidden = false;
  if (drawn.length === 0) return;
  const { pen, width, height } = canvas(id), low = squash(ends[0]), high = squash(ends[1]);
  const X = (s) => LEFT + 6 + place(s) * (width - LEFT - RIGHT - 12), Y = (v) => TOP + (1 - (squash(v) - low) / (high - low)) * (height - TOP - BOTTOM);
  pen.strokeStyle = pen.fillStyle = colour("soft");
  pen.textAlign = "right";
  marks.forEach((v) => pen.fillText(v, LEFT - 6, Y(v)));
  pen.textAlign = "left";
  let above = Infinity;
  for (const [label, v] of [...levels].sort((a, b) => a[1] - b[1])) {
    const own = !label.startsWith("data ");
    pen.strokeStyle = pen.fillStyle = colour(own ? "ink" : "soft"); pen.setLineDash(own ? [] : [1, 3]); pen.lineWidth = own ? 0.8 : 1;
    line(pen, LEFT, Y(v), width - RIGHT, Y(v));
    above = Math.min(above - 12, Y(v));
    pen.fillText(label, width - RIGHT + 5, above);
  }
  pen.strokeStyle = colour("ink"); pen.lineWidth = 1; pen.setLineDash([5, 4]);
  if (isBest(method, method.best)) line(pen, X(method.strengths[method.best]), TOP, X(method.strengths[method.best]), height - BOTTOM);
  pen.setLineDash([]);
  pen.strokeStyle = colour("faint");
  line(pen, LEFT, height - BOTTOM, width - RIGHT, height - BOTTOM);
  pen.fillStyle = colour("soft"); pen.textAlign = "center";
  let last = -Infinity;
  if (method.strengths.length > 1) for (const s of method.strengths) if (X(s) - last > 24) { pen.fillText(s, X(s), height - BOTTOM + 12); last = X(s); }
  if (id === "returns") nulls(pen, X, Y);
  for (const [name, tone, open] of drawn) strokes(pen, bandOf(method, name), method.strengths.map(X), Y, colour(tone), open);
  const row = frame().row;
  pen.fillStyle = colour("card"); pen.strokeStyle = colour("ink"); pen.lineWidth = 2.5;
  for (const [name] of drawn) {
    const v = bandOf(method, name).value[row];
    if (missing(v)) continue;
    pen.beginPath(); pen.arc(X(method.strengths[row]), Y(v), 6, 0, 7); pen.fill(); pen.stroke();
  }
  pen.fillStyle = colour("ink"); pen.font = "17px sans-serif";
  if (id === "returns") bandOf(method, "replanned").value.forEach((v, k) => missing(v) || pen.fillText("★", X(method.strengths[k]), Y(v)));
}

function line(pen, x0, y0, x1, y1) { pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x1, y1); pen.stroke(); }

// What the same strengths do with a meaningless reward
function nulls(pen, X, Y) {
  const [low, high] = [Math.min(...method.strengths), Math.max(...method.strengths)];
  pen.strokeStyle = colour("soft"); pen.lineWidth = 1.2; pen.setLineDash([4, 2]);
  for (const control of run.methods.filter((a) => a.name.startsWith("null") && a.strength_name === method.strength_name)) {
    const { value } = bandOf(control, known(control, "delivered") ? "delivered" : "promised");
    pen.beginPath();
    control.strengths.forEach((s, k) => { if (s >= low && s <= high && !missing(value[k])) pen.lineTo(X(s), Y(value[k])); });
    pen.stroke();
  }
  pen.setLineDash([]);
}

// A band and its mean; open: dashed with open markers
function strokes(pen, band, x, Y, tone, open) {
  const rows = band.value.map((_, k) => k), sure = rows.filter((k) => !missing(band.low[k])), drawn = rows.filter((k) => !missing(band.value[k]));
  pen.fillStyle = pen.strokeStyle = tone; pen.globalAlpha = 0.18; pen.beginPath();
  sure.forEach((k) => pen.lineTo(x[k], Y(band.low[k])));
  [...sure].reverse().forEach((k) => pen.lineTo(x[k], Y(band.high[k])));
  pen.fill();
  pen.globalAlpha = 1; pen.lineWidth = open ? 1.3 : 2.2; pen.setLineDash(open ? [5, 3] : []); pen.beginPath();
  drawn.forEach((k) => pen.lineTo(x[k], Y(band.value[k])));
  pen.stroke();
  pen.setLineDash([]);
  if (open) pen.fillStyle = colour("card");
  drawn.forEach((k) => { pen.beginPath(); pen.arc(x[k], Y(band.value[k]), 3, 0, 7); pen.fill(); if (open) pen.stroke(); });
}

// Table and controls --------------------------------------------------------------------------------------------------
function results() {
  const head = make("tr", {}, ...["method", "strength", ...run.columns.map((c) => c[1])].map((t) => make("th", { scope: "col", textContent: t })));
  const rows = run.methods.flatMap((a) => a.strengths.map((s, row) => {
    const cells = run.columns.map(([name, , form]) => {
      const band = bandOf(a, name), text = FORMS[form](band.value[row]);
      return make("td", {}, text, ...(RETURNS.includes(name) ? [" ", make("small", { textContent: spread(band, row, FORMS[form]) })] : []));
    });
    const star = isBest(a, row) && a.strengths.length > 1;
    const tr = make("tr", { className: (row === 0 ? "first " : "") + (star ? "best" : "") }, make("td", { textContent: row === 0 ? a.label : "" }), make("td", { textContent: a.strengths.length > 1 ? s : "–" }), ...cells);
    tr.dataset.key = a.name + "/" + row;
    if (!a.control) tr.onclick = () => { chooseRow(a, row); $("picture").scrollIntoView({ block: "nearest" }); };
    return tr;
  }));
  $("results").append(make("thead", {}, head), make("tbody", {}, ...rows));
  $("notes").append(...run.notes.map((note) => make("p", { textContent: note })));
}

function pause() { clearInterval(timer); timer = 0; $("play").textContent = "▶"; }
function play() {
  if (timer) return pause();
  $("play").textContent = "❚❚";
  if (at === method.frames.length - 1) choose(method, 0);
  timer = setInterval(() => at < method.frames.length - 1 ? choose(method, at + 1) : pause(), 1100);
}

function controls() {
  for (const a of run.methods.filter((a) => !a.control || a.plans)) {
    const input = make("input", { type: "radio", name: "method", value: a.name });
    input.onchange = () => { pause(); chooseRow(a, a.best); };
    $("methods").append(make("label", {}, input, make("span", { textContent: a.label })));
  }
  $("strength").oninput = (event) => { pause(); choose(method, Number(event.target.value)); };
  $("play").onclick = play;
  for (const id of ["proxy", "returns"]) $(id).onclick = (event) => {
    const x = (event.offsetX - LEFT - 6) / ($(id).clientWidth - LEFT - RIGHT - 12), far = (s) => Math.abs(place(s) - x);
    chooseRow(method, method.strengths.reduce((best, s, k) => far(s) < far(method.strengths[best]) ? k : best, 0));
  };
  const redraw = () => { curves(); draw(frame().x); };
  new ResizeObserver(redraw).observe($("picture"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

// What the page says of the task
function about() {
  const { limits, plane, region } = run.world, some = (name) => run.methods.some((a) => known(a, name));
  $("task").textContent = run.words.task;
  $("best").textContent = run.best;
  $("config").textContent = JSON.stringify(run.config, null, 2);
  const legend = [["delivered", "● delivered"], ["promised", some("delivered") ? "○ promised" : "● promised"], ["replanned", "★ replanned"]];
  const grey = run.methods.some((a) => a.name.startsWith("null")) ? ["grey: nulls"] : [];
  $("legend").textContent = [...legend.filter(([name]) => some(name)).map(([, words]) => words), ...grey].join(", ") + " (" + run.words.unit + ")";
  for (const [id, there] of [["start", plane], ["region", region], ["band", !plane], ["broken", run.methods.some((a) => a.frames.some((f) => f.broken?.includes(1)))]]) $("key-" + id).hidden = !there;
  const [wide, tall] = plane ? limits.map(([low, high]) => high - low) : [1, 1], ratio = run.world.solid ? tall / wide : wide / tall;
  $("picture").style.aspectRatio = Math.max(0.7, Math.min(2.5, ratio));
}

// report.html#ascent/3000 opens at that method and strength
function open() {
  const [name, strength] = decodeURIComponent(location.hash.slice(1)).split("/");
  const asked = run.methods.find((a) => a.name === name && (!a.control || a.plans)) ?? method, row = asked.strengths.indexOf(Number(strength));
  chooseRow(asked, row < 0 ? asked.best : row);
}

about();
results();
controls();
open();
addEventListener("hashchange", open);
