"use strict";
/* The theory of one activation, from the tables that tables.py makes. No DOM: node runs it as it stands.
   What each function returns is what the Python class of the same name has: eoc_theory.MeanField and
   edge_of_chaos; the tests hold the two together. */
const Theory = (() => {
  const LOG10 = Math.log(10);
  const FIRST = -12, LAST = 6, PANELS = 2;               // decades of q, and panels in each
  const MOMENT_PANELS = PANELS * (LAST + 4 - FIRST), FARTHEST = (LAST + 4) * Math.log(10);
  const LOW = FIRST * LOG10, HIGH = LAST * LOG10, WIDTH = LOG10 / PANELS;
  const SMALLEST = 1e-12, LARGEST = 1e6, UNBOUNDED = 1e30;
  const CRITICAL = 1e-5, LIMIT = 0.05, SLOPE = 1e-9;
  const STEP = LOG10 / 16;                               // of the search for fixed points

  function bytes(text) {
    const raw = atob(text), made = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) made[i] = raw.charCodeAt(i);
    return new DataView(made.buffer);
  }
  function doubles(text) {
    const view = bytes(text);
    return Float64Array.from({ length: view.byteLength / 8 }, (_, i) => view.getFloat64(8 * i, true));
  }
  function integers(text) {
    const view = bytes(text);
    return Int32Array.from({ length: view.byteLength / 4 }, (_, i) => view.getInt32(4 * i, true));
  }

  /* Σ c_k T_k(t) of count coefficients from start on, and its derivative by t. */
  function clenshaw(c, start, count, t) {
    let b1 = 0, b2 = 0, d1 = 0, d2 = 0;
    for (let k = count - 1; k > 0; k--) {
      const d = 2 * t * d1 + 2 * b1 - d2, b = 2 * t * b1 - b2 + c[start + k];
      d2 = d1; d1 = d; b2 = b1; b1 = b;
    }
    return [c[start] + t * b1 - b2, b1 + t * d1 - d2];
  }

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  /* A root of f, a function with values [f, f'], between low and high, where rising says its sign there. */
  function root(f, low, high, rising) {
    let u = 0.5 * (low + high);
    for (let i = 0; i < 100; i++) {
      const [value, slope] = f(u);
      if (value === 0) return u;
      if ((value > 0) === rising) high = u; else low = u;
      let next = u - value / slope;
      const inside = next > low && next < high;
      if (!inside) next = 0.5 * (low + high);
      if (Math.abs(next - u) <= (inside ? 1e-13 : 1e-15) * Math.max(1, Math.abs(u))) return next;
      u = next;
    }
    return u;
  }

  /* A moment as [log, d log/d log q] at log q: a power law below the table; above it a power, a multiple of
     ½ where φ grows like one, with a correction that falls like 1/√q. */
  class Moment {
    constructor(table) {
      this.first = table.first;
      this.terms = table.terms;
      this.values = doubles(table.values);
      this.starts = [];
      table.terms.reduce((at, count) => { this.starts.push(at); return at + count; }, 0);
    }
    at(u) {
      const inside = clamp(u, LOW, FARTHEST);
      const panel = Math.min(Math.floor((inside - LOW) / WIDTH), MOMENT_PANELS - 1);
      const index = panel - this.first;
      if (index < 0) return [-Infinity, 0];
      if (index >= this.terms.length) return [Infinity, 0];
      const t = 2 * ((inside - LOW) / WIDTH - panel) - 1;
      const [value, slope] = clenshaw(this.values, this.starts[index], this.terms[index], t);
      const power = 2 * slope / WIDTH;
      if (u === inside) return [value, power];
      const grown = Math.round(2 * power) / 2, further = u - inside;
      if (u < inside || Math.abs(grown - power) > 0.01) return [value + power * further, power];
      const faded = Math.exp(-0.5 * further), missing = power - grown;
      return [value + grown * further + 2 * missing * (1 - faded), grown + missing * faded];
    }
  }

  /* The same for a positively homogeneous activation: E[φ²] = gain q, E[φ'²] = gain. */
  class Power {
    constructor(gain, exponent) { this.log = Math.log(gain); this.exponent = exponent; }
    at(u) { return [this.log + this.exponent * u, this.exponent]; }
  }

  class Activation {
    constructor(data) {
      Object.assign(this, { name: data.name, gain: data.gain, phi0: data.phi0, zero: data.zero,
        largest: data.largest, length: data.length, parity: data.parity });
      this.logPhi2 = data.gain === null ? new Moment(data.moments.phi2) : new Power(data.gain, 1);
      this.logDphi2 = data.gain === null ? new Moment(data.moments.dphi2) : new Power(data.gain, 0);
      const dual = data.dual;
      this.dual = { sides: dual.sides, panels: dual.panels, shapes: dual.shapes, scales: dual.scales,
        values: integers(dual.values), starts: [] };
      dual.shapes.reduce((at, [n, m]) => { this.dual.starts.push(at); return at + n * m; }, 0);
    }
    phi2(q) { return Math.exp(this.logPhi2.at(Math.log(q))[0]); }
    dphi2(q) { return Math.exp(this.logDphi2.at(Math.log(q))[0]); }
    /* dE[φ²]/dq */
    slope(q) {
      const [value, power] = this.logPhi2.at(Math.log(q));
      return power * Math.exp(value) / q;
    }
    /* q E[φ'²] − E[φ²] */
    excess(q) { return q * this.dphi2(q) - this.phi2(q); }

    /* 1 − R at variance q as functions of θ; R = (Φ(1) − Φ(c))/(q E[φ'²](1 − c)). */
    means(q) {
      const panels = this.dual.panels, sides = this.dual.sides;
      const place = panels === 1 ? 0 : clamp((Math.log(q) - LOW) / WIDTH, 0, panels);
      const panel = Math.min(Math.floor(place), panels - 1);
      const lines = [];
      for (let side = 0; side < sides; side++) {
        const index = panel * sides + side;
        const [n, m] = this.dual.shapes[index], start = this.dual.starts[index];
        // Coefficients in x at this q: the sum over Chebyshev polynomials of log q.
        const t = 2 * (place - panel) - 1, line = new Float64Array(m);
        let before = 0, now = 1;
        for (let i = 0; i < n; i++) {
          for (let j = 0; j < m; j++) line[j] += now * this.dual.values[start + i * m + j];
          [before, now] = i === 0 ? [1, t] : [now, 2 * t * now - before];
        }
        let [scale, decay] = this.dual.scales[index];
        for (let j = 0; j < m; j++) { line[j] *= scale; scale *= decay; }
        lines.push(line);
      }
      const at = panels === 1 ? 1 : q;
      return new Means(lines, this.parity, 1 / Math.sqrt(1 + at / this.length ** 2),
        panels === 1 ? 1 : Math.exp(this.logPhi2.at(Math.log(q))[0] - this.logDphi2.at(Math.log(q))[0]) / q);
    }
  }

  class Means {
    constructor(lines, parity, width, share) {
      this.lines = lines; this.parity = parity; this.width = width;
      this.share = share;                                  // Φ(1)/(q E[φ'²])
      this.span = Math.asinh(0.5 * Math.PI / width);
    }
    /* [R, dR/dθ] for θ ≤ π/2. */
    near(theta) {
      const line = this.lines[0], y = theta / this.width, x = Math.asinh(y) / this.span;
      const [value, slope] = clenshaw(line, 0, line.length, 2 * x - 1);
      return [1 - value, -2 * slope / (this.span * this.width * Math.sqrt(1 + y * y))];
    }
    /* (Φ(1) − Φ(c))/(q E[φ'²]) from 1 − c in [0, 2]. */
    deficit(gap) {
      const theta = 2 * Math.atan2(Math.sqrt(gap), Math.sqrt(2 - gap));
      if (theta <= 0.5 * Math.PI) return gap * this.near(theta)[0];
      if (this.parity) {
        const mirror = (2 - gap) * this.near(Math.PI - theta)[0];
        return this.parity === "odd" ? 2 * this.share - mirror : mirror;
      }
      const line = this.lines[1], x = Math.asinh((Math.PI - theta) / this.width) / this.span;
      return gap * (1 - clenshaw(line, 0, line.length, 2 * x - 1)[0]);
    }
    /* The angle in (0, π/2] at which χ R = 1, and the correlation map's slope there; χ > 1. */
    fixed(chi) {
      let low = 0, high = 0.5 * Math.PI;
      if (chi * this.near(high)[0] >= 1) low = high;
      else {
        // In the logarithm of θ, which close to the edge of chaos is small.
        let step = high;
        while (step > 1e-8 && chi * this.near(step)[0] < 1) { high = step; step *= 0.5; }
        low = root(v => {
          const theta = Math.exp(v), [r, slope] = this.near(theta);
          return [chi * r - 1, chi * slope * theta];
        }, Math.log(step), Math.log(high), false);
        low = Math.exp(low);
      }
      const [r, slope] = this.near(low);
      return { gap: Math.min(2 * Math.sin(0.5 * low) ** 2, 1), slope: chi * (r + Math.tan(0.5 * low) * slope) };
    }
  }

  const depthScale = slope => {
    const size = Math.abs(Math.abs(slope) - 1) < 1e-14 ? 1 : Math.abs(slope);
    return size === 0 ? 0 : size === Infinity ? 0 : 1 / Math.abs(Math.log(size));
  };

  class MeanField {
    constructor(act, sigmaW, sigmaB) {
      Object.assign(this, { act, sigmaW, sigmaB, weight: sigmaW ** 2, bias: sigmaB ** 2 });
      this.q = this.limit();
      this.chi = this.chiAt(this.q);
      this.slope = this.slopeAt(this.q);
      this.phase = this.chi > 1 + CRITICAL ? "chaotic" : this.chi < 1 - CRITICAL ? "ordered" : "critical";
      this.xiQ = depthScale(this.slope);
      this.correlate();
      this.xiC = depthScale(this.cSlope);
    }
    variance(q) {
      if (q === Infinity) return Infinity;
      return this.bias + this.weight * (q > 0 ? this.act.phi2(q) : this.act.phi0);
    }
    chiAt(q) {
      return this.weight * this.act.dphi2(q === Infinity ? LARGEST : Math.max(q, SMALLEST));
    }
    slopeAt(q) {
      return this.weight * this.act.slope(q === Infinity ? LARGEST : Math.max(q, SMALLEST));
    }
    /* Where the variance goes from 1: 0 where it dies out, Infinity where it grows without bound. */
    limit() {
      const { act, weight, bias } = this;
      if (act.gain !== null) {
        let factor = weight * act.gain;
        if (Math.abs(factor - 1) < 1e-12) factor = 1;
        if (bias > 0) return factor < 1 ? bias / (1 - factor) : Infinity;
        return factor < 1 ? 0 : factor > 1 ? Infinity : 1;
      }
      // log V(q) − log q, and its derivative by log q.
      const miss = u => {
        const [value, power] = act.logPhi2.at(u), grown = weight * Math.exp(value);
        return [Math.log(bias + grown) - u, power * grown / (bias + grown) - 1];
      };
      if (!Number.isFinite(act.logPhi2.at(0)[0])) return Infinity;
      const start = miss(0)[0];
      if (start === 0) return 1;
      const end = start > 0 ? Math.log(UNBOUNDED) : Math.min(LOW, bias > 0 ? Math.log(bias) - 2 : LOW);
      const step = start > 0 ? STEP : -STEP;
      for (let before = 0; ; ) {
        const at = start > 0 ? Math.min(before + step, end) : Math.max(before + step, end);
        const value = miss(at)[0];
        // Upwards V ≤ q ends the search, downwards V > q: where it is 0 above, it is the fixed point itself.
        if (start > 0 ? value <= 0 : value > 0) {
          return Math.exp(root(miss, Math.min(before, at), Math.max(before, at), false));
        }
        if (at === end) return start > 0 ? Infinity : 0;
        before = at;
      }
    }
    /* c*, the slope of the correlation map there, and the map itself: 1 − C = factor · deficit. */
    correlate() {
      const { act, weight, q, chi } = this;
      const bounded = q > 0 && q < Infinity;
      const inside = bounded ? clamp(q, SMALLEST, LARGEST) : q;
      this.cStar = 1;
      this.cSlope = Math.abs(chi - 1) <= CRITICAL ? 1 : chi;
      const at = bounded ? inside : clamp(q, SMALLEST, LARGEST);
      // Outside of the tables the map is that at their end with the same σ_w² E[φ²]/q.
      const kept = !bounded ? at / act.phi2(at)
        : inside === q ? weight : weight * (act.phi2(q) / q) * (at / act.phi2(at));
      this.means = act.means(at);
      this.factor = kept * act.dphi2(at);
      if (act.gain !== null) {
        if (q === Infinity) this.cSlope = 1;
        return;
      }
      let judged = bounded ? kept * act.dphi2(at) : chi, means = this.means;
      if (!bounded) {
        const far = clamp(q, SMALLEST, act.largest);
        const relative = far / act.phi2(far) * act.dphi2(far);
        judged = relative > 1 + LIMIT ? relative : 1;
        means = act.means(far);
        if (q === Infinity) this.cSlope = 1;
      }
      if (judged > 1 + CRITICAL && Number.isFinite(judged)) {
        const found = means.fixed(judged);
        this.cStar = 1 - found.gap;
        this.cSlope = found.slope;
      }
    }
    /* 1 − C from 1 − c, at q*. */
    gapMap(gap) { return clamp(this.factor * this.means.deficit(gap), 0, 2); }

    variances(depth, start = 1) {
      const rows = [start];
      for (let i = 0; i < depth; i++) rows.push(this.variance(rows[i]));
      return rows;
    }
    gaps(depth, start) {
      const rows = [start];
      for (let i = 0; i < depth; i++) rows.push(this.gapMap(rows[i]));
      return rows;
    }
    /* A chain of depth weight layers of equal width and one input of mean square 1: log variances of the
       pre-activations, log mean squares of gradients and of SNIP scores, the last layer's gradient being 1.
       m^l ∝ σ_w² Γ^l E[φ²(y^{l−1})], Γ^l = χ(q^l) Γ^{l+1}. */
    chain(depth) {
      const { act, bias, weight } = this;
      const logQ = new Float64Array(depth), gradient = new Float64Array(depth), moment = new Float64Array(depth);
      const input = new Float64Array(depth);
      for (let l = 0; l < depth; l++) {
        input[l] = l === 0 ? 0 : act.logPhi2.at(logQ[l - 1])[0];
        const grown = Math.log(weight) + input[l];
        logQ[l] = bias > 0 ? Math.max(grown, Math.log(bias)) +
          Math.log1p(Math.exp(-Math.abs(grown - Math.log(bias)))) : grown;
      }
      for (let l = depth - 1; l >= 0; l--) {
        gradient[l] = l === depth - 1 ? 0
          : gradient[l + 1] + Math.log(weight) + act.logDphi2.at(logQ[l])[0];
        moment[l] = gradient[l] + input[l];
      }
      return { logQ, gradient, moment: moment.map(value => value - moment[depth - 1]) };
    }
  }

  /* P(|Z₁Z₂Z₃| ≤ e^u). */
  class Scores {
    constructor(table) {
      this.low = table.low; this.high = table.high; this.panels = table.panels;
      this.values = doubles(table.values);
      this.terms = this.values.length / table.panels;
    }
    below(u) {
      if (!(u > this.low)) return 0;
      if (u >= this.high) return 1;
      const place = (u - this.low) / (this.high - this.low) * this.panels;
      const panel = Math.min(Math.floor(place), this.panels - 1);
      return clamp(clenshaw(this.values, panel * this.terms, this.terms, 2 * (place - panel) - 1)[0], 0, 1);
    }
    /* The fraction of each layer's weights that one threshold for all keeps: layers of equal size, whose
       scores are e^{moment/2} times as large. */
    kept(moment, sparsity) {
      const size = Array.from(moment, value => 0.5 * value);
      let low = Math.min(...size) + this.low, high = Math.max(...size) + this.high;
      for (let i = 0; i < 80; i++) {
        const middle = 0.5 * (low + high);
        const removed = size.reduce((sum, own) => sum + this.below(middle - own), 0) / size.length;
        if (removed < sparsity) low = middle; else high = middle;
      }
      return size.map(own => 1 - this.below(0.5 * (low + high) - own));
    }
  }

  /* The critical points with q in the tables, σ_w against σ_b: [{ q, sigmaW, sigmaB, stable }], by q. */
  function criticalCurve(act, step = STEP / 2) {
    if (act.gain !== null) return [{ q: 1, sigmaW: 1 / Math.sqrt(act.gain), sigmaB: 0, stable: true }];
    const made = [];
    for (let u = LOW; u <= HIGH + 1e-9; u += step) {
      const point = pointAt(act, Math.min(u, HIGH));
      if (point) made.push(point);
    }
    return made;
  }
  function pointAt(act, u) {
    const q = Math.exp(u), dphi2 = act.dphi2(q);
    if (!(dphi2 > 0) || !Number.isFinite(dphi2)) return null;
    const bias = q - act.phi2(q) / dphi2, slope = act.slope(q) / dphi2;
    // Below rounding it is 0.
    const exact = Math.abs(bias) < 3e-12 * q ? 0 : bias;
    return { q, log: u, bias: exact, sigmaW: 1 / Math.sqrt(dphi2), sigmaB: exact >= 0 ? Math.sqrt(exact) : NaN,
      stable: slope > -1 && slope <= 1 + SLOPE, slope };
  }
  /* The critical point for a σ_b, as edge_of_chaos chooses it: stable if there is one, then nearest to q = 1;
     null where there is none with q in the tables. */
  function edgeOfChaos(act, sigmaB) {
    const target = sigmaB ** 2;
    if (act.gain !== null) {
      return target > 0 ? null : { q: 1, sigmaW: 1 / Math.sqrt(act.gain), sigmaB: 0, stable: true, slope: 1 };
    }
    const found = target > 0 ? [] : act.zero.map(([sigmaW, stable]) =>
      ({ q: 0, sigmaW, sigmaB: 0, stable }));
    let before = null;
    const equation = u => {
      const h = 1e-6, low = pointAt(act, u - h), high = pointAt(act, u + h);
      return [pointAt(act, u).bias - target, (high.bias - low.bias) / (2 * h)];
    };
    for (let u = LOW; u <= HIGH + 1e-9; u += STEP / 2) {
      const point = pointAt(act, Math.min(u, HIGH));
      const miss = point ? point.bias - target : 0;
      if (!point || miss === 0) continue;
      if (before && (miss > 0) !== (before.miss > 0)) {
        const at = root(equation, before.log, point.log, before.miss < 0);
        found.push({ ...pointAt(act, at), sigmaB });
      }
      before = { miss, log: point.log };
    }
    const rank = point => Math.abs(Math.log(Math.max(point.q, 1e-300)));
    found.sort((a, b) => (a.stable === b.stable ? rank(a) - rank(b) : a.stable ? -1 : 1));
    return found[0] ?? null;
  }

  return { Activation, MeanField, Scores, criticalCurve, edgeOfChaos };
})();
if (typeof module !== "undefined") module.exports = Theory;
