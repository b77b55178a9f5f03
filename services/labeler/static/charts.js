// The charts of an experiment: Plotly draws what the server made; under each stands its table.

import { call } from "./api.js";
import { onNews } from "./news.js";
import { update } from "./strip.js";

const LEAST_MS = 5000; // between two readings
const name = document.body.dataset.experiment;
const place = document.getElementById("charts");
const shown = new Map(); // chart id -> {article, chart}
let wanted = ""; // what the charts should be read for
let known = null; // the round and stage whose films are shown
let waits = null; // the timer of the next reading

onNews(([one]) => {
  const done = one.progress?.toFixed(2); // the curves grow while a trainer works
  const stage = `${one.round} ${one.round_state}`;
  const key = `${stage} ${one.given} ${done}`;
  if (key === wanted) return;
  if (stage !== known) readFilms(stage);
  wanted = key;
  waits ??= setTimeout(refresh, shown.size ? LEAST_MS : 0);
});

async function readFilms(what) {
  known = what;
  try {
    update(await call("GET", `/api/admin/experiments/${name}/films`));
  } catch {
    known = null; // the next news tries again
  }
}

async function refresh() {
  waits = null;
  try {
    const charts = await call("GET", `/api/admin/experiments/${name}/charts`);
    if (!shown.size) place.replaceChildren();
    charts.forEach(show);
    shown.forEach(draw); // once all are in place, and each has its width
  } catch (problem) {
    wanted = ""; // the next news tries again
    if (!shown.size) place.textContent = problem.message;
  }
}

function show(chart) {
  let one = shown.get(chart.id);
  if (!one) {
    one = { article: build() };
    one.article.id = `chart-${chart.id}`;
    one.article.querySelector("h3").textContent = chart.title;
    place.append(one.article);
    shown.set(chart.id, one);
  }
  one.chart = chart;
  const { article } = one;
  const warning = article.querySelector(".warning");
  warning.textContent = chart.warning ?? "";
  warning.hidden = !chart.warning;
  article.querySelector(".says").textContent = chart.says.join(" ");
  article.querySelector("table").replaceChildren(...table(chart));
}

function build() {
  const article = element("article", "chart");
  const details = element("details");
  const scroll = element("div", "scroll");
  scroll.tabIndex = 0; // so that the keyboard can scroll it
  scroll.setAttribute("role", "group");
  scroll.setAttribute("aria-label", "Table");
  scroll.append(element("table"));
  details.append(element("summary", "quiet", "Table"), scroll);
  article.append(element("h3"), element("p", "warning"), element("div", "plot"), element("p", "says quiet"), details);
  return article;
}

function draw({ article, chart }) {
  const plot = article.querySelector(".plot");
  const known = chart.rows.some((row) => chart.drawn.some((column) => row[chart.columns.indexOf(column)] !== null));
  plot.hidden = !known;
  if (!known) return;
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", `${chart.title}; the table below has the figures`);
  const style = getComputedStyle(plot);
  const { color, borderTopColor: line } = style; // the page's own colours, light or dark
  const { data, layout } = structuredClone(chart.figure);
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, tickcolor: line };
  Object.assign(layout, {
    paper_bgcolor: "transparent",
    plot_bgcolor: "transparent",
    font: { color, family: style.fontFamily, size: 12 },
    hoverlabel: { bgcolor: style.backgroundColor, bordercolor: line, font: { color } },
  });
  for (const name of Object.keys(layout)) if (/^[xy]axis/.test(name)) Object.assign(layout[name], axis);
  for (const shape of layout.shapes ?? []) shape.line.color = color;
  plot.style.height = `${layout.height}px`;
  window.Plotly.react(plot, data, layout, { displayModeBar: false, responsive: true });
}

function table(chart) {
  const numeric = chart.columns.map((_, i) => i > 0 && chart.rows.some((row) => typeof row[i] === "number"));
  const row = (cells, kind) => {
    const tr = element("tr");
    tr.append(...cells.map((cell, i) => element(kind, numeric[i] ? "number" : "", cell)));
    return tr;
  };
  const [head, body] = [element("thead"), element("tbody")];
  head.append(row(chart.columns, "th"));
  body.append(...chart.rows.map((cells) => row(cells.map(text), "td")));
  return [head, body];
}

function text(value) {
  if (value === null) return "–";
  if (typeof value === "number") return value.toLocaleString("en", { maximumSignificantDigits: 4, useGrouping: false });
  return /^\d{4}-\d\d-\d\dT/.test(value) ? `${new Date(value).toLocaleString("en-GB", { timeZone: "UTC" })} UTC` : value;
}

function element(tag, className = "", words = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = words;
  return made;
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => shown.forEach(draw));
