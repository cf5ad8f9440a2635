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
function short(v) {
  if (missing(v)) return "–";
  const size = Math.abs(v);
  return size >= 100 ? v.toFixed(0) : size >= 1 ? v.toFixed(1) : size === 0 ? "0" : size >= 0.05 ? v.toFixed(2) : v.toPrecision(2);
}
const one = (v) => missing(v) ? "–" : Math.abs(v) >= 100 ? v.toFixed(0) : v.toFixed(1).replace(/^-0\.0$/, "0.0");
const percent = (v) => missing(v) ? "–" : (100 * v).toFixed(v > 0 && v < 0.01 || v > 0.99 && v < 1 ? 1 : 0) + " %";
const spread = (band, k, form) => missing(band.low[k]) ? "" : "± " + form((band.high[k] - band.low[k]) / 2);

// Plans: int16, one unit for each strength, little-endian; -32768 marks what is not finite ------------------------------
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
for (const method of run.methods) {
  const { shape: [s, p, h], positions, units, crossing } = method.plans;
  const view = new DataView(bytes(positions).buffer), bits = bytes(crossing), size = p * h * 2;
  method.frames = method.plans.rows.map((row, k) => {
    const x = new Float32Array(size);
    for (let i = 0; i < size; i++) {
      const raw = view.getInt16(2 * (k * size + i), true);
      x[i] = raw === -32768 ? NaN : raw * units[k];
    }
    const broken = (i) => { const n = k * p * (h - 1) + i; return (bits[n >> 3] >> (7 - (n & 7))) & 1; };
    return { row, x, p, h, broken: Array.from({ length: p * (h - 1) }, (_, i) => broken(i)), leaving: method.plans.leaving[k] };
  });
  console.assert(method.frames.length === s);
}

// State ---------------------------------------------------------------------------------------------------------------
let method = run.methods.find((a) => a.name === run.first), at = 0, shown = null, moving = 0, timer = 0;
const frame = () => method.frames[at];

function choose(nextMethod, k) {
  method = nextMethod;
  at = Math.max(0, Math.min(k, method.frames.length - 1));
  $("strength").max = method.frames.length - 1;
  $("strength").disabled = method.frames.length < 2;
  $("strength").value = at;
  show();
}
const chooseRow = (nextMethod, row) => {
  const distance = (f) => Math.abs(f.row - row);
  choose(nextMethod, nextMethod.frames.reduce((best, f, k) => distance(f) < distance(nextMethod.frames[best]) ? k : best, 0));
};

function show() {
  const row = frame().row, value = String(method.strengths[row]);
  const alone = method.strengths.length < 2;
  $("strength-name").textContent = alone ? "no strength" : method.strength_name;
  $("value").textContent = alone ? "" : value + (row === method.best ? "  ★ best of this method" : "");
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
    const tick = make("span", { textContent: (f.row === method.best ? "★ " : "") + method.strengths[f.row] });
    tick.style.left = 100 * k / last + "%";
    tick.className = f.row === method.best ? "best" : "";
    return tick;
  }));
}

const RETURNS = ["promised", "open_loop", "tracked"];
function numbers(row) {
  const cards = [
    ["proxy, sd of the data", "proxy", one], ["promised return", "promised", one],
    ["plans that cross a wall", "violations.walls", percent], ["return, open loop", "open_loop", one],
    ["return, tracked by a controller", "tracked", one], ["pressure: path KL, nats", "path_kl", short],
  ];
  $("numbers").replaceChildren(...cards.map(([title, name, form]) => {
    const band = method.bands[name], rank = method.ranks[name]?.[row];
    const above = missing(rank) ? "" : rank === 1 ? "above all data" : "above " + (100 * rank).toFixed(rank > 0.99 ? 1 : 0) + " % of data";
    const small = make("small", {}, spread(band, row, form), make("br"), above);
    const tone = name === "proxy" ? "proxy" : RETURNS.includes(name) ? "gold" : "";
    return make("div", {}, make("dt", { textContent: title }), make("dd", {}, make("b", { className: tone, textContent: form(band.value[row]) }), small));
  }));
}

// Canvas --------------------------------------------------------------------------------------------------------------
function canvas(id) {
  const element = $(id), ratio = devicePixelRatio || 1, { width, height } = element.getBoundingClientRect();
  element.width = Math.round(width * ratio);
  element.height = Math.round(height * ratio);
  const pen = element.getContext("2d");
  pen.scale(ratio, ratio);
  return { pen, width, height };
}
const ease = (t) => t < 0.5 ? 2 * t * t : 1 - 2 * (1 - t) * (1 - t);

function tween() {
  cancelAnimationFrame(moving);
  const from = shown, to = frame().x, begin = performance.now();
  if (still || document.hidden || !from || from.length !== to.length) { shown = to; return draw(to); }
  const step = (now) => {
    const t = ease(Math.min(1, Math.max(0, (now - begin) / 420)));
    shown = t === 1 ? to : to.map((x, i) => Number.isNaN(from[i]) ? x : from[i] + t * (x - from[i]));
    draw(shown);
    if (t < 1) moving = requestAnimationFrame(step);
  };
  moving = requestAnimationFrame(step);
}

function draw(x) {
  const { pen, width, height } = canvas("maze"), [left, right, bottom, top] = run.maze.frame;
  const X = (column) => (column - left) / (right - left) * width, Y = (row) => (row - top) / (bottom - top) * height;
  pen.fillStyle = colour("wall");
  run.maze.walls.forEach((line, i) => line.forEach((wall, j) => {
    if (wall) pen.fillRect(X(j - 0.7) - 0.5, Y(i - 0.7) - 0.5, X(1) - X(0) + 1, Y(1) - Y(0) + 1);
  }));
  const { p, h, broken } = frame(), wild = broken.reduce((a, b) => a + b, 0) / broken.length;
  pen.lineCap = "round";
  for (const side of [0, 1]) {
    pen.beginPath();
    for (let i = 0; i < p; i++) for (let t = 0; t < h - 1; t++) {
      if (broken[i * (h - 1) + t] !== side) continue;
      const n = 2 * (i * h + t);
      if (Number.isNaN(x[n] + x[n + 1] + x[n + 2] + x[n + 3])) continue;
      pen.moveTo(X(x[n + 1]), Y(x[n]));
      pen.lineTo(X(x[n + 3]), Y(x[n + 2]));
    }
    pen.strokeStyle = colour(side ? "broken" : "sound");
    pen.lineWidth = side ? 1.8 - 0.9 * wild : 1.8;
    pen.globalAlpha = 0.8;
    pen.stroke();
  }
  pen.globalAlpha = 1;
  pen.fillStyle = pen.strokeStyle = colour("ink");
  for (const [row, column] of run.maze.starts.slice(0, p)) {
    pen.beginPath(); pen.arc(X(column), Y(row), 3.2, 0, 7); pen.fill();
  }
  const [row, column, radius] = run.maze.region;
  pen.setLineDash([6, 4]); pen.lineWidth = 1.8; pen.beginPath(); pen.arc(X(column), Y(row), X(radius) - X(0), 0, 7); pen.stroke();
  pen.setLineDash([]);
}

// Curves --------------------------------------------------------------------------------------------------------------
const LEFT = 38, RIGHT = 78, TOP = 8, BOTTOM = 22;
function places() {
  const positive = method.strengths.filter((s) => s > 0), zero = Math.log10(Math.min(...positive)) - 0.7;
  const at = method.strengths.map((s) => positive.length && s > 0 ? Math.log10(s) : positive.length ? zero : 0);
  const low = Math.min(...at), wide = Math.max(...at) - low || 1;
  return at.map((x) => method.strengths.length > 1 ? (x - low) / wide : 0.5);
}

function curves() {
  const bend = 1.15 * run.data.proxy.best, squash = (v) => v < bend ? 1.6 * v / bend : 1.6 + Math.log10(v / bend);
  curve("proxy", "proxy", squash, [0, 2, 10, 100, 1000, 10000], "broken");
  curve("gold", "promised", (v) => v, [0, 20, 40, 60, 80], "sound");
}

function curve(id, name, scale, marks, tone) {
  const { pen, width, height } = canvas(id), band = method.bands[name], quantiles = run.data[id];
  const all = [...band.value, ...band.high, quantiles.best].filter((v) => !missing(v)), floor = Math.min(0, ...band.value.filter((v) => !missing(v)));
  const top = scale(Math.max(...all)) * 1.06, low = scale(floor) - 0.03 * top, at = places();
  const X = (k) => LEFT + 6 + at[k] * (width - LEFT - RIGHT - 12), Y = (v) => TOP + (1 - (scale(v) - low) / (top - low)) * (height - TOP - BOTTOM);
  pen.font = "11px " + getComputedStyle(document.body).fontFamily;
  pen.textBaseline = "middle";
  pen.strokeStyle = pen.fillStyle = colour("soft");
  pen.textAlign = "right";
  marks.filter((v) => scale(v) <= top && v >= floor).forEach((v) => pen.fillText(v, LEFT - 6, Y(v)));
  pen.textAlign = "left";
  pen.setLineDash([1, 3]);
  let above = Infinity;
  for (const [label, v] of Object.entries(quantiles)) {
    line(pen, LEFT, Y(v), width - RIGHT, Y(v));
    above = Math.min(above - 12, Y(v));
    pen.fillText("data " + label, width - RIGHT + 5, above);
  }
  pen.strokeStyle = colour("ink");
  pen.setLineDash([5, 4]);
  line(pen, X(method.best), TOP, X(method.best), height - BOTTOM);
  pen.setLineDash([]);
  pen.strokeStyle = colour("faint");
  line(pen, LEFT, height - BOTTOM, width - RIGHT, height - BOTTOM);
  pen.textAlign = "center";
  method.strengths.forEach((s, k) => pen.fillText(s, X(k), height - BOTTOM + 12));
  strokes(pen, band, X, Y, colour(tone));
  const row = frame().row;
  if (missing(band.value[row])) return;
  pen.fillStyle = colour("card"); pen.strokeStyle = colour("ink"); pen.lineWidth = 2.5;
  pen.beginPath(); pen.arc(X(row), Y(band.value[row]), 6, 0, 7); pen.fill(); pen.stroke();
}

function line(pen, x0, y0, x1, y1) { pen.beginPath(); pen.moveTo(x0, y0); pen.lineTo(x1, y1); pen.stroke(); }

function strokes(pen, band, X, Y, tone) {
  const rows = band.value.map((_, k) => k), known = rows.filter((k) => !missing(band.low[k])), drawn = rows.filter((k) => !missing(band.value[k]));
  pen.fillStyle = pen.strokeStyle = tone;
  pen.globalAlpha = 0.22;
  pen.beginPath();
  known.forEach((k) => pen.lineTo(X(k), Y(band.low[k])));
  [...known].reverse().forEach((k) => pen.lineTo(X(k), Y(band.high[k])));
  pen.fill();
  pen.globalAlpha = 1;
  pen.lineWidth = 2.2;
  pen.beginPath();
  drawn.forEach((k) => pen.lineTo(X(k), Y(band.value[k])));
  pen.stroke();
  drawn.forEach((k) => { pen.beginPath(); pen.arc(X(k), Y(band.value[k]), 3, 0, 7); pen.fill(); });
}

// Table and controls --------------------------------------------------------------------------------------------------
const COLUMNS = [
  ["proxy", "proxy", one], ["promised return", "promised", one], ["open loop", "open_loop", one],
  ["tracked", "tracked", one], ["plans through walls", "violations.walls", percent],
  ["path KL, nats", "path_kl", short], ["distance to data", "data_distance", short], ["seconds a plan", "seconds", short],
];
function results() {
  const head = make("tr", {}, ...["method", "strength", ...COLUMNS.map((c) => c[0])].map((t) => make("th", { scope: "col", textContent: t })));
  const lines = run.methods.flatMap((a) => a.strengths.map((s, row) => {
    const cells = COLUMNS.map(([, name, form]) => {
      const interval = name === "promised" ? [" ", make("small", { textContent: spread(a.bands[name], row, form) })] : [];
      return make("td", {}, form(a.bands[name].value[row]), ...interval);
    });
    const line = make("tr", { className: (row === 0 ? "first " : "") + (row === a.best ? "best" : "") }, make("td", { textContent: row === 0 ? a.label : "" }), make("td", { textContent: s }), ...cells);
    line.dataset.key = a.name + "/" + row;
    line.onclick = () => { chooseRow(a, row); $("maze").scrollIntoView({ block: "nearest" }); };
    return line;
  }));
  $("results").append(make("thead", {}, head), make("tbody", {}, ...lines));
  $("dropped").textContent = run.dropped;
}

function pause() { clearInterval(timer); timer = 0; $("play").textContent = "▶"; }
function play() {
  if (timer) return pause();
  $("play").textContent = "❚❚";
  if (at === method.frames.length - 1) choose(method, 0);
  timer = setInterval(() => at < method.frames.length - 1 ? choose(method, at + 1) : pause(), 1100);
}

function controls() {
  for (const a of run.methods) {
    const input = make("input", { type: "radio", name: "method", value: a.name });
    input.onchange = () => { pause(); chooseRow(a, a.best); };
    $("methods").append(make("label", {}, input, make("span", { textContent: a.label })));
  }
  $("strength").oninput = (event) => { pause(); choose(method, Number(event.target.value)); };
  $("play").onclick = play;
  for (const id of ["proxy", "gold"]) $(id).onclick = (event) => {
    const x = (event.offsetX - LEFT - 6) / ($(id).clientWidth - LEFT - RIGHT - 12), at = places();
    chooseRow(method, at.reduce((best, place, k) => Math.abs(place - x) < Math.abs(at[best] - x) ? k : best, 0));
  };
  $("config").textContent = JSON.stringify(run.config, null, 2);
  const redraw = () => { curves(); draw(frame().x); };
  new ResizeObserver(redraw).observe($("maze"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
}

// report.html#ascent/3000 opens at that method and strength
function open() {
  const [name, strength] = decodeURIComponent(location.hash.slice(1)).split("/");
  const asked = run.methods.find((a) => a.name === name) ?? method, row = asked.strengths.indexOf(Number(strength));
  chooseRow(asked, row < 0 ? asked.best : row);
}

results();
controls();
open();
addEventListener("hashchange", open);
