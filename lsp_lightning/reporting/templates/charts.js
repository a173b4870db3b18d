"use strict";
// Draws the charts. Texts of a run are data: they reach the page by textContent only.
const DATA = JSON.parse(document.getElementById("data").textContent);
const COLOURS = ["#2f7de1", "#e8702a", "#1a9a6c", "#b84fc9", "#c99700", "#d6415f", "#5f6caf", "#7a8a2a"];
const DASHED = new Set(["Challenger", "greedy"]);
const hidden = { run: new Set(), kind: new Set() };
const colourOf = (run, kind) => COLOURS[
  DATA.runs.length > 1 ? run % COLOURS.length : Number(DASHED.has(kind))];
const dark = matchMedia("(prefers-color-scheme: dark)");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children); // a string becomes a text node
  return made;
}

// plotly reads some tags and entities in its texts
const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

function layoutOf(more) {
  const axis = {
    gridcolor: css("grid"), linecolor: css("line"), zeroline: false, automargin: true, fixedrange: false,
    tickfont: { size: 11 }, exponentformat: "power",
  };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "x",
    font: { color: css("faint"), family: "system-ui, DejaVu Sans, sans-serif", size: 12 },
    margin: { l: 38, r: 8, t: 8, b: 24 }, hoverlabel: { font: { size: 12 }, namelength: -1 },
    ...more, xaxis: { ...axis, ...more.xaxis }, yaxis: { ...axis, ...more.yaxis },
  };
}

function tracesOf(chart) {
  const traces = [];
  const single = DATA.runs.length === 1;
  for (const line of chart.lines) {
    if (hidden.run.has(line.run) || hidden.kind.has(line.kind)) continue;
    const x = line.x || DATA.runs[line.run].rounds;
    const color = colourOf(line.run, line.kind);
    const name = [single ? "" : plain(DATA.runs[line.run].name), plain(line.kind)].filter(Boolean).join(", ");
    const dash = DASHED.has(line.kind) && chart.kinds.length ? "5px,3px" : "solid";
    if (line.line) {
      traces.push({ x, y: line.y, mode: "markers", hoverinfo: "skip", opacity: 0.3, marker: { size: 3, color } });
    }
    traces.push({
      x, y: line.line || line.y, name, mode: x.length < 3 || line.error ? "lines+markers" : "lines",
      connectgaps: true, line: { color, width: 2, dash }, marker: { size: 4 },
      customdata: line.y, error_y: line.error && { array: line.error, color, thickness: 1, width: 2 },
      hovertemplate: "%{customdata:.4~g}" + (line.line ? ", smoothed %{y:.4~g}" : "")
        + (name ? `  ${name}` : "") + "<extra></extra>",
    });
  }
  return traces;
}

function limitsOf(chart) {
  return chart.limits
    .filter((limit) => limit.run === null || !hidden.run.has(limit.run))
    .map((limit) => ({
      type: "line", xref: "paper", x0: 0, x1: 1, y0: limit.y, y1: limit.y, layer: "above",
      line: {
        width: 1.3, dash: limit.level === "alarm" ? "solid" : "dot", color: css(limit.level),
      },
      opacity: 0.8,
    }));
}

function heightsOf(chart, traces) {
  // the first bound belongs to the picture; the second only if it is near
  const values = traces.flatMap((trace) => trace.y).filter((y) => y !== null);
  if (!values.length) return {};
  let [low, high] = [Math.min(...values), Math.max(...values)];
  const reach = Math.max(high - low, Math.abs(high) * 0.5, 1e-9);
  for (const { y, level } of chart.limits) {
    const far = level === "watch" ? Infinity : reach;
    if (y > high && y <= high + far) high = y;
    if (y < low && y >= low - far) low = y;
  }
  const room = (high - low || Math.abs(high) || 1) * 0.06;
  return { range: [low - room, high + room] };
}

function draw(figure) {
  const chart = DATA.charts[figure.dataset.chart];
  const plot = figure.querySelector(".plot");
  const traces = tracesOf(chart);
  const yaxis = chart.limits.length ? heightsOf(chart, traces) : {};
  Plotly.react(plot, traces, layoutOf({ shapes: limitsOf(chart), yaxis }), { displayModeBar: false, responsive: true });
  figure.dataset.drawn = "yes";
}

function drawHeat(place) {
  const game = DATA.crossplay[place.dataset.heat];
  const count = game.players.length;
  // numbers are places, so that two players of one name keep a row each
  const places = game.players.map((_, i) => i);
  const ticks = { tickvals: places, ticktext: game.players.map(plain), showgrid: false, tickfont: { size: 12 } };
  const text = game.rate.map((row, i) => row.map((rate, j) => {
    const error = game.error[i][j];
    return rate === null ? "-" : rate.toFixed(2) + (error === null || count > 8 ? "" : `<br>± ${error.toFixed(2)}`);
  }));
  place.style.height = `${Math.max(260, 120 + 52 * Math.min(count, 14))}px`;
  Plotly.react(place, [{
    type: "heatmap", x: places, y: places, z: game.rate, text, zmin: 0, zmax: 1, xgap: 2, ygap: 2,
    texttemplate: count > 14 ? "" : "%{text}", hovertemplate: "Challenger %{y}, Solver %{x}: %{z:.3f}<extra></extra>",
    colorscale: [[0, "#7b2d3b"], [0.25, "#d98b6a"], [0.5, "#f1ead0"], [0.75, "#7fb3a0"], [1, "#1f6a63"]],
    colorbar: { thickness: 10, outlinewidth: 0, title: { text: "solve rate", side: "right" } },
  }], layoutOf({
    hovermode: "closest", margin: { l: 60, r: 8, t: 8, b: 40 },
    xaxis: { ...ticks, title: { text: "Solver", standoff: 10 }, fixedrange: true },
    yaxis: { ...ticks, title: { text: "Challenger", standoff: 14 }, autorange: "reversed", fixedrange: true },
  }), { displayModeBar: false, responsive: true });
  place.dataset.drawn = "yes";
}

const drawAny = (place) => (place.dataset.heat === undefined ? draw(place) : drawHeat(place));
const places = [...document.querySelectorAll("[data-chart], [data-heat]")];

function redraw() {
  for (const place of places) if (place.dataset.drawn) drawAny(place);
}

function toggle(group, value, button) {
  const off = hidden[group];
  if (off.has(value)) off.delete(value); else off.add(value);
  button.setAttribute("aria-pressed", String(!off.has(value)));
  redraw();
}

function addToggles() {
  const bar = document.getElementById("toggles");
  const add = (group, value, mark, text) => {
    const button = element("button", { type: "button", "aria-pressed": "true" }, mark, text);
    button.addEventListener("click", () => toggle(group, value, button));
    bar.append(button);
  };
  if (DATA.runs.length > 1) DATA.runs.forEach((run, i) => add("run", i, swatch(i), run.name));
  const kinds = new Set(DATA.charts.flatMap((chart) => chart.kinds));
  for (const kind of kinds) add("kind", kind, stroke(kind), kind);
}

function swatch(run) {
  const made = element("i", { class: "swatch" });
  made.style.background = colourOf(run, "");
  return made;
}

function stroke(kind) {
  const made = element("i", { class: DASHED.has(kind) ? "stroke dashed" : "stroke" });
  if (DATA.runs.length === 1) made.style.borderTopColor = colourOf(0, kind);
  return made;
}

for (const mark of document.querySelectorAll(".swatch[data-run]")) {
  if (DATA.runs.length > 1) mark.style.background = colourOf(mark.dataset.run, ""); else mark.remove();
}
for (const place of places) {
  const kinds = place.dataset.chart === undefined ? [] : DATA.charts[place.dataset.chart].kinds;
  if (kinds.length) {
    const key = kinds.map((kind) => element("span", {}, stroke(kind), kind));
    place.querySelector("figcaption").append(element("div", { class: "key" }, ...key));
  }
}
addToggles();
// charts are drawn when they come near the window, so that the page opens at once
const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) { watcher.unobserve(entry.target); drawAny(entry.target); }
  }
}, { rootMargin: "300px" });
for (const place of places) watcher.observe(place);
dark.addEventListener("change", redraw);
addEventListener("beforeprint", () => {
  for (const place of places) if (!place.dataset.drawn && !place.closest("details:not([open])")) drawAny(place);
});
