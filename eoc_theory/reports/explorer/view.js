"use strict";
/* The page: controls, numbers and pictures of what theory.js computes. */
(() => {
  const tables = JSON.parse(document.getElementById("tables").textContent);
  const scores = new Theory.Scores(tables.scores);
  const acts = new Map(tables.activations.map(data => [data.name, new Theory.Activation(data)]));
  const get = id => document.getElementById(id);
  const NAMES = ["sigma_w", "sigma_b", "depth", "start", "sparsity", "width"];
  const state = { activation: acts.keys().next().value, sigma_w: 1.5, sigma_b: 0.05, depth: 50, start: 0.3,
    sparsity: 0.9, width: 100 };
  const RANGE = { w: [0.2, 4], b: [0, 2] };
  const COLUMNS = 96, ROWS = 64;                         // of the phase diagram's picture
  const SVG = "http://www.w3.org/2000/svg";
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  /* --- numbers --- */
  function shown(value, digits = 4) {
    if (value === Infinity) return "∞";
    if (!Number.isFinite(value)) return "–";
    if (value === 0) return "0";
    const size = Math.abs(value);
    if (size >= 1e5 || size < 1e-3) {
      const [number, power] = value.toExponential(2).split("e");
      return `${number}·10${superscript(Number(power))}`.replace("-", "−");
    }
    return String(Number(value.toPrecision(digits))).replace("-", "−");
  }
  /* Text with σ_w, ξ_c as formulas have them. */
  function rich(text) {
    return text.split(/([σξ]_[a-z])/).flatMap(part => {
      if (!/^[σξ]_[a-z]$/.test(part)) return [part];
      const sub = document.createElement("sub");
      sub.textContent = part[2];
      return [part[0], sub];
    });
  }
  const say = (id, text) => get(id).replaceChildren(...rich(text));
  const superscript = power => String(power).replace(/[-\d]/g, sign => sign === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[sign]);

  /* --- drawing --- */
  function make(name, attributes, parent, text) {
    const made = document.createElementNS(SVG, name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    if (text !== undefined) {
      for (const part of text.split(/([σξ]_[a-z])/)) {
        const symbol = /^[σξ]_[a-z]$/.test(part);
        const lettered = document.createElementNS(SVG, "tspan");
        lettered.textContent = symbol ? part[0] : part;
        made.append(lettered);
        if (symbol) {
          const lower = document.createElementNS(SVG, "tspan");
          lower.setAttribute("baseline-shift", "sub");
          lower.setAttribute("font-size", "9");
          lower.textContent = part[2];
          made.append(lower);
        }
      }
    }
    if (parent) parent.append(made);
    return made;
  }
  function ticks(low, high, count) {
    const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map(one => one * power).find(one => one >= raw);
    const made = [];
    for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + 1e-9 * step; at += step) {
      made.push(Math.abs(at) < 1e-9 * step ? 0 : at);
    }
    return made;
  }
  let clips = 0;
  /* Axes in an svg of the element's own size in pixels; returns where numbers lie, and the layer to draw on. */
  function axes(id, { x, y, xLabel, yLabel, tall = 0.7, tick = value => shown(value), empty = false }) {
    const box = get(id), svg = box.querySelector("svg");
    const width = Math.max(box.clientWidth, 200), height = clamp(tall * width, 220, 400);
    const inner = { left: 54, right: width - 12, top: 10, bottom: height - 42 };
    svg.replaceChildren();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("height", height);
    const place = {
      x: value => inner.left + (value - x[0]) / (x[1] - x[0]) * (inner.right - inner.left),
      y: value => inner.bottom - (value - y[0]) / (y[1] - y[0]) * (inner.bottom - inner.top), inner };
    for (const value of ticks(...y, 5)) {
      if (!empty) make("line", { class: "grid", x1: inner.left, x2: inner.right, y1: place.y(value), y2: place.y(value) }, svg);
      make("text", { class: "tick", x: inner.left - 7, y: place.y(value) + 4, "text-anchor": "end" }, svg, tick(value, "y"));
    }
    for (const value of ticks(...x, width < 420 ? 4 : 6)) {
      if (!empty) make("line", { class: "grid", x1: place.x(value), x2: place.x(value), y1: inner.top, y2: inner.bottom }, svg);
      make("text", { class: "tick", x: place.x(value), y: inner.bottom + 17, "text-anchor": "middle" }, svg, tick(value, "x"));
    }
    make("path", { class: "axis", d: `M${inner.left} ${inner.top}V${inner.bottom}H${inner.right}` }, svg);
    make("text", { x: (inner.left + inner.right) / 2, y: height - 6, "text-anchor": "middle" }, svg, xLabel);
    const middle = (inner.top + inner.bottom) / 2;
    make("text", { x: 12, y: middle, "text-anchor": "middle", transform: `rotate(-90 12 ${middle})` }, svg, yLabel);
    const clip = `clip${clips++}`;
    make("rect", { x: inner.left, y: inner.top - 4, width: inner.right - inner.left + 5, height: inner.bottom - inner.top + 8 },
      make("clipPath", { id: clip }, svg));
    place.layer = make("g", { "clip-path": `url(#${clip})` }, svg);
    place.svg = svg;
    return place;
  }
  function path(place, points, attributes) {
    let d = "", pen = false;
    for (const [a, b] of points) {
      if (!Number.isFinite(a) || !Number.isFinite(b)) { pen = false; continue; }
      const [across, down] = [place.x(a), place.y(b)].map(value => clamp(value, -1e4, 1e4).toFixed(1));
      d += `${pen ? "L" : "M"}${across} ${down}`;
      pen = true;
    }
    make("path", { d, ...attributes }, place.layer);
  }
  function dot(place, a, b, fill, radius = 5) {
    make("circle", { cx: place.x(a), cy: place.y(b), r: radius, fill, stroke: "var(--card)", "stroke-width": 1.5 }, place.layer);
  }
  function key(id, entries) {
    get(id).replaceChildren(...entries.map(([text, stroke, dash]) => {
      const span = document.createElement("span"), svg = make("svg", { "aria-hidden": "true", viewBox: "0 0 32 12" });
      make("path", { d: "M0 6H32", stroke, "stroke-width": 3, "stroke-dasharray": dash || "none" }, svg);
      span.append(svg, text);
      return span;
    }));
  }

  /* --- the phase diagram --- */
  const maps = new Map();
  function phaseMap(name) {
    if (!maps.has(name)) {
      const act = acts.get(name), cells = [];
      for (let j = 0; j < ROWS; j++) {
        for (let i = 0; i < COLUMNS; i++) {
          const w = RANGE.w[0] + (i + 0.5) / COLUMNS * (RANGE.w[1] - RANGE.w[0]);
          const b = RANGE.b[1] - (j + 0.5) / ROWS * (RANGE.b[1] - RANGE.b[0]);
          const field = new Theory.MeanField(act, w, b);
          cells.push(field.q === Infinity ? null : { chi: field.chi, xi: field.xiC });
        }
      }
      maps.set(name, { cells, curve: Theory.criticalCurve(act) });
    }
    return maps.get(name);
  }
  const dark = () => matchMedia("(prefers-color-scheme: dark)").matches;
  /* From pale where the depth scale is a thousand layers to full where it is one. */
  function shade(cell) {
    const paper = dark() ? [28, 32, 38] : [255, 255, 255];
    if (cell === null) return dark() ? [66, 72, 81] : [208, 212, 217];
    const full = cell.chi > 1 ? (dark() ? [214, 120, 40] : [213, 94, 0]) : (dark() ? [40, 140, 205] : [0, 114, 178]);
    const share = 0.12 + 0.78 * (1 - clamp(Math.log10(Math.max(cell.xi, 1e-9)) / 3, 0, 1));
    return full.map((value, k) => Math.round(paper[k] + (value - paper[k]) * share));
  }
  function drawPhase(field, edge) {
    const { cells, curve } = phaseMap(state.activation);
    const place = axes("phase", { x: RANGE.w, y: RANGE.b, xLabel: "weight scale σ_w", yLabel: "bias scale σ_b",
      tall: 0.5, empty: true });
    const canvas = get("phase").querySelector("canvas"), { inner } = place;
    canvas.width = COLUMNS; canvas.height = ROWS;
    Object.assign(canvas.style, { left: `${inner.left}px`, top: `${inner.top}px`,
      width: `${inner.right - inner.left}px`, height: `${inner.bottom - inner.top}px` });
    const pen = canvas.getContext("2d"), image = pen.createImageData(COLUMNS, ROWS);
    cells.forEach((cell, k) => image.data.set([...shade(cell), 255], 4 * k));
    pen.putImageData(image, 0, 0);
    const points = curve.filter(point => Number.isFinite(point.sigmaB));
    for (const stable of [true, false]) {
      path(place, curve.map(point => point.stable === stable && Number.isFinite(point.sigmaB)
        ? [point.sigmaW, point.sigmaB] : [NaN, NaN]),
        { class: "line", stroke: "var(--ink)", "stroke-dasharray": stable ? "none" : "2 5" });
    }
    if (points.length === 1) {
      const only = points[0];
      path(place, [[only.sigmaW, 0], [only.sigmaW, 0.06]], { class: "line", stroke: "var(--ink)" });
      dot(place, only.sigmaW, 0, "var(--ink)", 5);
    }
    labelRegions(place, cells);
    make("circle", { cx: place.x(clamp(state.sigma_w, ...RANGE.w)), cy: place.y(clamp(state.sigma_b, ...RANGE.b)), r: 7,
      fill: "none", stroke: "var(--card)", "stroke-width": 5 }, place.svg);
    make("circle", { cx: place.x(clamp(state.sigma_w, ...RANGE.w)), cy: place.y(clamp(state.sigma_b, ...RANGE.b)), r: 7,
      fill: "none", stroke: "var(--ink)", "stroke-width": 2.5, id: "marker" }, place.svg);
    phasePlace = place;
    const at = edge ? `At this σ_b the edge of chaos is at σ_w = ${shown(edge.sigmaW, 6)}` +
      (edge.stable ? "." : ", where the variance does not stay.") : "At this σ_b there is no edge of chaos.";
    say("phase_text", `${at} Drag or click to move; with the keyboard use the arrow keys.`);
    const entries = [["edge of chaos, χ = 1", "var(--ink)"], ["ordered", "var(--ordered)"]];
    if (cells.some(cell => cell && cell.chi > 1)) entries.push(["chaotic", "var(--chaotic)"]);
    if (points.some(point => !point.stable)) entries.splice(1, 0, ["χ = 1, variance unstable", "var(--ink)", "2 5"]);
    if (cells.includes(null)) entries.push(["variance grows without bound", "var(--grows)"]);
    key("phase_key", entries);
    const bar = document.createElement("span"), swatch = document.createElement("i"), text = document.createElement("b");
    swatch.className = "bar";
    text.append(...rich("paler: greater depth scale ξ_c, up to 1000 layers"));
    bar.append(swatch, text);
    get("phase_key").append(bar);
  }
  /* The name of each region in its middle, so that colour is not all that tells. */
  function labelRegions(place, cells) {
    const kinds = [["ordered", cell => cell && cell.chi < 1], ["chaotic", cell => cell && cell.chi > 1],
      ["unbounded", cell => cell === null]];
    for (const [text, belongs] of kinds) {
      let count = 0, across = 0;
      const columns = new Array(COLUMNS).fill(0);
      cells.forEach((cell, k) => { if (belongs(cell)) { count++; columns[k % COLUMNS]++; across += k % COLUMNS; } });
      if (count < 0.04 * cells.length) continue;
      const column = Math.round(across / count);
      const rows = [...Array(ROWS).keys()].filter(j => belongs(cells[j * COLUMNS + column]));
      if (!rows.length) continue;
      const row = rows[Math.floor(rows.length / 2)];
      make("text", { class: "halo", "text-anchor": "middle",
        x: place.x(RANGE.w[0] + (column + 0.5) / COLUMNS * (RANGE.w[1] - RANGE.w[0])),
        y: place.y(RANGE.b[1] - (row + 0.5) / ROWS * (RANGE.b[1] - RANGE.b[0])) }, place.svg, text);
    }
  }
  let phasePlace = null;

  /* --- the maps --- */
  function web(values) {
    const points = [[values[0], values[0]]];
    for (let i = 1; i < values.length; i++) points.push([values[i - 1], values[i]], [values[i], values[i]]);
    return points;
  }
  function drawMap(id, range, label, image, path_, fixed) {
    const place = axes(id, { x: range, y: range, xLabel: `${label} in one layer`, yLabel: "and in the next", tall: 0.85 });
    const grid = Array.from({ length: 161 }, (_, i) => range[0] + i / 160 * (range[1] - range[0]));
    path(place, [[range[0], range[0]], [range[1], range[1]]], { class: "line", stroke: "var(--muted)", "stroke-width": 1, "stroke-dasharray": "5 4" });
    path(place, grid.map(value => [value, image(value)]), { class: "line", stroke: "var(--ordered)" });
    path(place, web(path_), { class: "web", stroke: "var(--chaotic)" });
    dot(place, path_[0], path_[0], "var(--chaotic)", 4);
    if (Number.isFinite(fixed)) dot(place, fixed, fixed, "var(--ink)", 5);
  }
  function drawMaps(field, depth) {
    const variances = field.variances(depth);
    const high = field.q === Infinity ? 6 : 1.35 * Math.max(1, field.q);
    drawMap("variance", [0, high], "variance q", q => field.variance(q), variances, field.q);
    say("variance_text", `From q = 1 (orange) variances go to q* = ${shown(field.q)}` +
      (field.q === Infinity ? ": they grow without bound." : `, over ξ_q = ${shown(field.xiQ, 3)} layers.`));
    const gaps = field.gaps(depth, 1 - state.start);
    const range = state.start < 0 ? [-1, 1] : [0, 1];
    drawMap("correlation", range, "correlation c", c => 1 - field.gapMap(1 - c), gaps.map(gap => 1 - gap), field.cStar);
    say("correlation_text", `At variance q*. From c = ${shown(state.start)} (orange) the correlation of ` +
      `two inputs goes to c* = ${shown(field.cStar)}; after ${depth} layers it is ${shown(1 - gaps[depth], 6)}.`);
    return { variances, gaps };
  }

  /* --- depth --- */
  function drawLayers(field, gaps) {
    const depth = state.depth, chain = field.chain(depth);
    const tens = values => Array.from(values, value => value / Math.LN10);
    const lines = [
      ["variance q of pre-activations", tens(chain.logQ), "var(--ordered)", "none"],
      ["distance 1 − c of two inputs", gaps.slice(1).map(gap => gap > 0 ? Math.log10(gap) : NaN), "var(--third)", "7 4"],
      ["mean squared gradient (last layer: 1)", tens(chain.gradient), "var(--chaotic)", "2 3"]];
    const all = lines.flatMap(([, values]) => values).filter(Number.isFinite);
    const low = Math.max(Math.min(...all, -1), -30), high = Math.min(Math.max(...all, 1), 30);
    const place = axes("layers", { x: [1, depth], y: [Math.floor(low), Math.ceil(high)], xLabel: "layer", yLabel: "value, log scale",
      tick: (value, axis) => axis === "y" ? (Number.isInteger(value) ? `10${superscript(value)}` : "") : shown(value) });
    for (const [, values, stroke, dash] of lines) {
      path(place, values.map((value, i) => [i + 1, value]), { class: "line", stroke, "stroke-dasharray": dash });
    }
    key("layers_key", lines.map(([text, , stroke, dash]) => [text, stroke, dash]));
    const first = chain.gradient[0] / Math.LN10;
    say("layers_text", `From the last layer to the first the mean squared gradient changes by a factor ` +
      `${Math.abs(first) < 4 ? shown(10 ** first, 3) : `10${superscript(Math.round(first))}`}.`);
    return chain;
  }
  function drawKept(chain) {
    const { depth, sparsity, width } = state, finite = chain.moment.every(Number.isFinite);
    const kept = finite ? scores.kept(chain.moment, sparsity) : new Array(depth).fill(NaN);
    const most = finite ? Math.max(...kept, 1 - sparsity) : 1;
    const place = axes("kept", { x: [1, depth], y: [0, Math.min(1.08 * most, 1)], xLabel: "layer", yLabel: "fraction kept" });
    path(place, [[1, 1 - sparsity], [depth, 1 - sparsity]], { class: "line", stroke: "var(--muted)", "stroke-width": 1.2, "stroke-dasharray": "5 4" });
    path(place, kept.map((value, i) => [i + 1, value]), { class: "line", stroke: "var(--ordered)" });
    if (depth <= 40) kept.forEach((value, i) => dot(place, i + 1, value, "var(--ordered)", 3.2));
    const least = Math.min(...kept), layer = kept.indexOf(least) + 1, left = least * width ** 2;
    say("kept_text", !finite ? "Signals or scores leave the range of numbers."
      : `Dashed: the same for all layers. Least is kept in layer ${layer}: ${shown(100 * least, 3)} %, ` +
        `${left < 1 ? "less than one" : `about ${Math.round(left).toLocaleString("en")}`} of ${(width ** 2).toLocaleString("en")} weights` +
        (left < 1 ? ": that layer collapses." : "."));
  }

  /* --- all of it --- */
  function tiles(field, edge) {
    const entries = [["phase", phaseOf(field)], ["q*", shown(field.q, 6)],
      ["χ at q*", shown(field.chi, 6)], ["c*", shown(field.cStar, 5)], ["ξ_c, layers", shown(field.xiC, 4)],
      ["ξ_q, layers", shown(field.xiQ, 4)], ["σ_w at the edge", edge ? shown(edge.sigmaW, 6) : "none"]];
    get("tiles").replaceChildren(...entries.map(([name, value]) => {
      const box = document.createElement("div"), dt = document.createElement("dt"), dd = document.createElement("dd");
      dt.append(...rich(name));
      const strong = document.createElement("b");
      strong.textContent = value;
      if (name === "phase") strong.className = field.phase;
      dd.append(strong);
      box.append(dt, dd);
      return box;
    }));
  }
  const MEANS = {
    ordered: "gradients vanish with depth and all inputs become alike",
    chaotic: "gradients explode with depth and similar inputs become different",
    critical: "gradients keep their size, and signals travel deep",
    unbounded: "variances grow without bound, and each layer multiplies gradients by χ" };
  const phaseOf = field => field.q === Infinity ? "unbounded" : field.phase;
  let timer = 0;
  function summarise(field, edge) {
    const phase = phaseOf(field), strong = document.createElement("b");
    strong.className = field.phase;
    strong.textContent = phase === "critical" ? "on the edge of chaos" : phase;
    const before = `${state.activation} with σ_w = ${shown(state.sigma_w)} and σ_b = ${shown(state.sigma_b)} is `;
    const layers = phase === "ordered" || phase === "chaotic" ? `, over about ${shown(field.xiC, 3)} layers` : "";
    const off = phase !== "critical" && edge && edge.stable
      ? ` The edge of chaos is at σ_w = ${shown(edge.sigmaW, 5)}.` : "";
    // Screen readers are told once the slider rests.
    clearTimeout(timer);
    timer = setTimeout(() => get("summary").replaceChildren(...rich(before), strong,
      ...rich(`: ${MEANS[phase]}${layers}.${off}`)), 150);
  }
  function draw() {
    const act = acts.get(state.activation);
    const field = new Theory.MeanField(act, state.sigma_w, state.sigma_b);
    const edge = Theory.edgeOfChaos(act, state.sigma_b);
    get("to_edge").disabled = !edge;
    tiles(field, edge);
    summarise(field, edge);
    drawPhase(field, edge);
    const { gaps } = drawMaps(field, state.depth);
    drawKept(drawLayers(field, gaps));
  }
  let waiting = false;
  function redraw() {
    if (waiting) return;
    waiting = true;
    setTimeout(() => { waiting = false; draw(); }, 16);
  }
  function show(except) {
    for (const name of NAMES) {
      const range = get(name), exact = get(`${name}_value`);
      if (range) range.value = state[name];
      if (exact !== except) exact.value = Number(state[name].toPrecision(10));
    }
    get("activation").value = state.activation;
    remember();
    redraw();
  }
  function remember() {
    const made = new URLSearchParams({ activation: state.activation });
    for (const name of NAMES) made.set(name, String(Number(state[name].toPrecision(10))));
    try { history.replaceState(null, "", `#${made}`); } catch { /* a page inside of another has no address */ }
  }
  function limits(name) { const exact = get(`${name}_value`); return [Number(exact.min), Number(exact.max)]; }
  function accept(name, text, source) {
    const value = Number(text);
    if (text.trim() === "" || !Number.isFinite(value)) return;
    const [low, high] = limits(name);
    if (value < low || value > high) return;
    state[name] = name === "depth" || name === "width" ? Math.round(value) : value;
    show(source);
  }
  function restore() {
    const given = new URLSearchParams(location.hash.slice(1));
    if (acts.has(given.get("activation"))) state.activation = given.get("activation");
    for (const name of NAMES) if (given.has(name)) accept(name, given.get(name));
  }
  function listen() {
    for (const name of acts.keys()) get("activation").append(new Option(name, name));
    get("activation").addEventListener("change", event => { state.activation = event.target.value; show(); });
    for (const name of NAMES) {
      const range = get(name), exact = get(`${name}_value`);
      if (range) range.addEventListener("input", () => accept(name, range.value));
      exact.addEventListener("input", () => accept(name, exact.value, exact));
      exact.addEventListener("change", () => show());
    }
    get("controls").addEventListener("submit", event => event.preventDefault());
    get("to_edge").addEventListener("click", () => {
      const edge = Theory.edgeOfChaos(acts.get(state.activation), state.sigma_b);
      if (edge) { state.sigma_w = edge.sigmaW; show(); }
    });
    const box = get("phase");
    const moveTo = event => {
      const { inner } = phasePlace, bounds = box.getBoundingClientRect();
      const across = (event.clientX - bounds.left - inner.left) / (inner.right - inner.left);
      const up = (inner.bottom - (event.clientY - bounds.top)) / (inner.bottom - inner.top);
      state.sigma_w = rounded(RANGE.w[0] + clamp(across, 0, 1) * (RANGE.w[1] - RANGE.w[0]));
      state.sigma_b = rounded(RANGE.b[0] + clamp(up, 0, 1) * (RANGE.b[1] - RANGE.b[0]));
      show();
    };
    let dragging = false;
    box.addEventListener("pointerdown", event => { dragging = true; box.setPointerCapture(event.pointerId); moveTo(event); });
    box.addEventListener("pointermove", event => { if (dragging) moveTo(event); });
    for (const end of ["pointerup", "pointercancel"]) box.addEventListener(end, () => { dragging = false; });
    box.addEventListener("keydown", event => {
      const step = event.shiftKey ? 0.1 : 0.01;
      const [w, b] = { ArrowRight: [step, 0], ArrowLeft: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[event.key] || [];
      if (w === undefined) return;
      event.preventDefault();
      state.sigma_w = rounded(clamp(state.sigma_w + w, ...RANGE.w));
      state.sigma_b = rounded(clamp(state.sigma_b + b, ...RANGE.b));
      show();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    new ResizeObserver(redraw).observe(document.querySelector("main"));
    addEventListener("hashchange", () => { restore(); show(); });
  }
  const rounded = value => Math.round(100 * value) / 100;

  listen();
  restore();
  show();
})();
