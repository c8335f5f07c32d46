"use strict";
// Shows the JSON that this page's own address answers with, every five seconds.
// What it says reaches the page as `textContent` alone.

const INTERVAL_MS = 5_000;
const QUARTER_MS = 15 * 60_000;
const MINUTE_MS = 60_000;
const NONE = "–";
const DURATIONS = "northbridge_push_duration_seconds_bucket";
// The outcomes of pushes that were answered 200.
const STORED = ["stored", "spooled", "dead_lettered"];
// Those of the pushes that waited for Kafka.
const WAITED = [...STORED, "unconfirmed"];

const element = (id) => document.getElementById(id);

// How to write values.
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 2 });
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const units = {
  count: (value) => number.format(value),
  rate: (value) => number.format(value),
  seconds(value) {
    if (value === 0) return "0 s";
    if (value < 1) return `${Number((value * 1_000).toPrecision(3))} ms`;
    if (value < 120) return `${Number(value.toPrecision(3))} s`;
    if (value < 7_200) return `${Math.floor(value / 60)} min`;
    if (value < 172_800) return `${Math.floor(value / 3_600)} h`;
    return `${Math.floor(value / 86_400)} days`;
  },
  bytes(value) {
    const power = value < 1_024 ? 0 : Math.min(4, Math.floor(Math.log2(value) / 10));
    return `${number.format(value / 1_024 ** power)} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
  },
};
const written = (value, unit = "count") => (value === null ? NONE : units[unit](value));

// The samples of the last quarter of an hour; the last one is as of the answer.
class History {
  constructor({ times, series }) {
    this.times = times;
    this.series = series;
    this.last = times.length - 1;
    this.bounds = this.labels(DURATIONS, "le");
  }

  // The series of a family, or of one whose name begins like it.
  has(family) {
    return Object.keys(this.series).some((name) => name.startsWith(family));
  }

  // The values of a label of a family, in alphabetical order.
  labels(family, label) {
    const values = Object.keys(this.series).map((name) => {
      const labels = name.startsWith(`${family}{`) ? name : "";
      return labels.match(`[{,]${label}="([^"]*)"`)?.[1];
    });
    return [...new Set(values.filter(Boolean))];
  }

  at(name, index) {
    return this.series[name]?.[index] ?? null;
  }

  now(name) {
    return this.at(name, this.last);
  }

  // How much a counter grew between two samples. One that was not there was zero.
  increase(name, from = 0, to = this.last) {
    return (this.at(name, to) ?? 0) - (this.at(name, from) ?? 0);
  }

  // How much a counter grew a second, at each sample since the one before.
  rates(name) {
    return this.times.map((time, index) => {
      const seconds = (time - this.times[index - 1]) / 1_000;
      return seconds > 0 ? this.increase(name, index - 1, index) / seconds : null;
    });
  }

  // The last sample that is at least this old; the first one if none is.
  before(time) {
    return Math.max(0, this.times.findLastIndex((sampled) => sampled <= time));
  }

  // As `histogram_quantile` of Prometheus: linear within the bucket. Null if there was no push.
  latency(quantile, from = 0, to = this.last) {
    const counts = this.bounds.map((bound) => {
      const names = WAITED.map((outcome) => `${DURATIONS}{le="${bound}",outcome="${outcome}"}`);
      const count = names.reduce((sum, name) => sum + this.increase(name, from, to), 0);
      return { bound: bound === "+Inf" ? Infinity : Number(bound), count };
    });
    counts.sort((one, other) => one.bound - other.bound);
    const all = counts.at(-1)?.count ?? 0;
    if (all === 0) return null;
    const rank = quantile * all;
    const index = counts.findIndex(({ count }) => count >= rank);
    const { bound, count } = counts[index];
    const below = counts[index - 1] ?? { bound: 0, count: 0 };
    if (bound === Infinity) return below.bound;
    return below.bound + ((bound - below.bound) * (rank - below.count)) / (count - below.count);
  }
}

// A cell, and the series that it shows.
const text = (shown) => ({ shown });
const now = (history, series, unit) => ({ shown: written(history.now(series), unit), now: series });
const quarter = (history, series) => ({
  shown: written(history.increase(series)),
  quarter: series,
});

// Changes what is different, so that a selection or a screen reader stays where it is.
function show(target, { shown, now, quarter, bad }) {
  if (target.textContent !== shown) target.textContent = shown;
  if (now) target.dataset.now = now;
  if (quarter) target.dataset.quarter = quarter;
  target.classList.toggle("bad", Boolean(bad));
}

function fill(body, rows, scope = "row") {
  rows.forEach((cells, at) => {
    const row = body.rows[at] ?? body.insertRow();
    while (row.cells.length > cells.length) row.deleteCell(-1);
    cells.forEach((cell, column) => {
      const isHead = column === 0 || scope === "col";
      const target = row.cells[column] ?? row.appendChild(document.createElement(isHead ? "th" : "td"));
      if (isHead) target.scope = scope;
      show(target, cell);
    });
  });
  while (body.rows.length > rows.length) body.deleteRow(-1);
}

function list(target, entries) {
  while (target.children.length > entries.length) target.lastChild.remove();
  while (target.children.length < entries.length) target.append(document.createElement("li"));
  entries.forEach((entry, at) => show(target.children[at], entry));
}

// Scales: where a value is between 0, the bottom, and 1, and which values have grid lines.
function linear(lines) {
  const greatest = Math.max(1, ...lines.flatMap(({ values }) => values.map((value) => value ?? 0)));
  const step = 10 ** Math.floor(Math.log10(greatest));
  const top = [1, 2, 5, 10].map((times) => times * step).find((top) => top >= greatest);
  return { ticks: [0, top / 2, top], position: (value) => value / top };
}
const decades = {
  ticks: [0.001, 0.01, 0.1, 1, 10],
  position: (value) => Math.min(1, Math.max(0, Math.log10(value / 0.0005) / Math.log10(20 / 0.0005))),
};

function draw(parent, name, attributes, content = "") {
  const child = parent.appendChild(document.createElementNS("http://www.w3.org/2000/svg", name));
  for (const [key, value] of Object.entries(attributes)) child.setAttribute(key, value);
  child.textContent = content;
  return child;
}

// Draws lines over the last quarter of an hour, and their legend with the last values.
function chart(svg, history, lines, unit, scale = linear(lines)) {
  const { width, height } = svg.getBoundingClientRect();
  const [left, top, right, bottom] = [56, 8, width - 30, height - 20];
  const end = history.times[history.last];
  const x = (time) => right - ((end - time) / QUARTER_MS) * (right - left);
  const y = (value) => bottom - scale.position(value) * (bottom - top);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  for (const tick of scale.ticks) {
    draw(svg, "path", { class: "grid", d: `M${left} ${y(tick)}H${right}` });
    draw(svg, "text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, written(tick, unit));
  }
  for (const minutes of [15, 10, 5, 0]) {
    const label = minutes ? `−${minutes} min` : "now";
    draw(svg, "text", { x: x(end - minutes * MINUTE_MS), y: height - 4, "text-anchor": "middle" }, label);
  }
  for (const { values, style } of lines) {
    let path = "";
    history.times.forEach((time, index) => {
      if (values[index] === null || time < end - QUARTER_MS) return;
      const isStart = !path || values[index - 1] === null;
      const place = `${x(time).toFixed(2)} ${y(values[index]).toFixed(2)}`;
      // A value without neighbours is a dot.
      path += isStart ? `M${place}h0` : `L${place}`;
    });
    draw(svg, "path", { class: `line line-${style}`, d: path });
  }
  const legend = svg.parentElement.querySelector(".legend");
  const entries = lines.map(({ name, values, style }) => {
    const entry = document.createElement("li");
    const swatch = draw(entry, "svg", { "aria-hidden": true, viewBox: "0 0 26 10" });
    draw(swatch, "path", { class: `line line-${style}`, d: "M1 5H25" });
    entry.append(`${name}: ${written(values.at(-1) ?? null, unit)}`);
    return entry;
  });
  legend.replaceChildren(...entries);
  const title = svg.parentElement.querySelector("figcaption").textContent;
  const summaries = lines.map(({ name, values }) => {
    const known = values.filter((value) => value !== null);
    const highest = known.length ? written(Math.max(...known), unit) : NONE;
    return `${name} now ${written(values.at(-1) ?? null, unit)}, highest ${highest}`;
  });
  svg.setAttribute("aria-label", `${title}, in the last 15 minutes: ${summaries.join("; ")}`);
}

function showReadiness({ ready, conditions }, at) {
  const unmet = conditions.filter(({ met }) => !met).map(({ name }) => name);
  const title = ready ? "✓ Ready" : `✗ Not ready: ${unmet.join(", ")}`;
  show(element("ready"), text(title));
  element("readiness").classList.toggle("is-ready", ready);
  fill(
    element("conditions"),
    conditions.map(({ name, met, since, why }) => [
      text(name),
      { shown: met ? "✓ yes" : "✗ no", bad: !met },
      text(units.seconds(Math.max(0, Math.round((at - Date.parse(since)) / 1_000)))),
      text(why),
    ]),
  );
}

function codes(history) {
  return history.labels("northbridge_http_responses_total", "code");
}

function showPushes(history) {
  const received = "northbridge_pushes_received_total";
  const outcome = (name) => `northbridge_pushes_total{outcome="${name}"}`;
  const response = (code) => `northbridge_http_responses_total{code="${code}"}`;
  const outcomes = history.labels("northbridge_pushes_total", "outcome");
  const sum = (names) => names.reduce((sum, name) => sum + history.increase(outcome(name)), 0);

  const from = history.before(history.times[history.last] - MINUTE_MS);
  const seconds = (history.times[history.last] - history.times[from]) / 1_000;
  show(element("rate"), text(seconds > 0 ? units.rate(history.increase(received, from) / seconds) : NONE));
  const share = sum(STORED) / sum(outcomes);
  show(element("share"), { shown: sum(outcomes) ? `${Math.floor(share * 1_000) / 10} %` : NONE, bad: share < 1 });
  show(element("p50"), text(written(history.latency(0.5), "seconds")));
  show(element("p99"), text(written(history.latency(0.99), "seconds")));

  const counted = (series) => [quarter(history, series), now(history, series)];
  fill(element("outcomes"), outcomes.map((name) => [text(name), ...counted(outcome(name))]));
  const seen = codes(history).filter((code) => code === "200" || history.now(response(code)) > 0);
  fill(element("codes"), seen.map((code) => [text(code), ...counted(response(code))]));

  const style = (code, index) => ({ 200: "good", 503: "bad" })[code] ?? index % 4;
  const answers = seen.map((code, index) => ({
    name: code,
    values: history.rates(response(code)),
    style: style(code, index),
  }));
  chart(element("answers"), history, answers, "rate");
  const latency = (quantile) =>
    history.times.map((time, index) =>
      history.latency(quantile, history.before(time - MINUTE_MS), index));
  const quantiles = [
    { name: "half of the pushes", values: latency(0.5), style: 0 },
    { name: "99 of 100", values: latency(0.99), style: 1 },
  ];
  chart(element("latency"), history, quantiles, "seconds", decades);
  showMinutes(history, seen.map((code) => [code, response(code)]));
}

function showMinutes(history, answers) {
  const end = history.times[history.last];
  const head = ["Until", "Pushes", ...answers.map(([code]) => code), "Half within", "99 of 100 within"];
  fill(element("minute-head"), [head.map(text)], "col");
  const rows = [];
  for (let until = end; until > history.times[0] && until > end - QUARTER_MS; until -= MINUTE_MS) {
    const [from, to] = [history.before(until - MINUTE_MS), history.before(until)];
    const count = (name) => text(written(history.increase(name, from, to)));
    rows.push([
      text(clock.format(until)),
      count("northbridge_pushes_received_total"),
      ...answers.map(([, name]) => count(name)),
      text(written(history.latency(0.5, from, to), "seconds")),
      text(written(history.latency(0.99, from, to), "seconds")),
    ]);
  }
  fill(element("minutes"), rows);
}

function showDeadLetters(history) {
  const series = (reason) => `northbridge_dead_letters_total{reason="${reason}"}`;
  const reasons = history.labels("northbridge_dead_letters_total", "reason");
  const seen = reasons.filter((reason) => history.now(series(reason)) > 0);
  const rows = seen.map((reason) => [
    text(reason),
    quarter(history, series(reason)),
    now(history, series(reason)),
  ]);
  fill(element("reasons"), rows.length ? rows : [["none", "0", "0"].map(text)]);
}

function showStreams(history) {
  const streams = history.labels("northbridge_stream_records_total", "stream");
  const of = (family, result) => (stream) => {
    const labels = result ? `result="${result}",stream="${stream}"` : `stream="${stream}"`;
    return `northbridge_stream_${family}{${labels}}`;
  };
  const current = (series, unit) => (stream) => now(history, series(stream), unit);
  const recent = (series) => (stream) => quarter(history, series(stream));
  const rows = [
    ["Lag, in records", current(of("lag_records"))],
    ["Age of the last record", current(of("event_age_seconds"), "seconds")],
    ["Processed, 15 minutes", recent(of("records_total", "applied"))],
    ["Processed since the start", current(of("records_total", "applied"))],
    ["Dead letters, 15 minutes", recent(of("records_total", "dead_lettered"))],
    ["Dead letters since the start", current(of("records_total", "dead_lettered"))],
    ["Transactions aborted, 15 minutes", recent(of("transactions_total", "aborted"))],
    ["States in memory", current(of("state_entries"))],
  ];
  fill(element("stream-head"), [["Stage", ...streams].map(text)], "col");
  fill(
    element("stream-rows"),
    rows.map(([name, cell]) => [text(name), ...streams.map(cell)]),
  );
  const lags = streams.map((stream, index) => ({
    name: stream,
    values: history.times.map((_, at) => history.at(of("lag_records")(stream), at)),
    style: index % 4,
  }));
  chart(element("lag"), history, lags, "count");
}

function showKafka(history, lastErrors) {
  const clients = history.labels("northbridge_kafka_brokers_connected", "client");
  const rows = clients.map((client) => [
    text(client),
    now(history, `northbridge_kafka_brokers_connected{client="${client}"}`),
    quarter(history, `northbridge_kafka_errors_total{client="${client}"}`),
    now(history, `northbridge_kafka_errors_total{client="${client}"}`),
  ]);
  fill(element("clients"), rows);
  const errors = Object.entries(lastErrors).map(([client, { reason, firstAt, lastAt, ongoing }]) => {
    const [first, last] = [firstAt, lastAt].map((time) => clock.format(Date.parse(time)));
    const times = `first at ${first}, last at ${last}, ${ongoing ? "still failing" : "over"}`;
    return { shown: `${client}: ${reason} (${times})`, bad: ongoing };
  });
  list(element("errors"), errors.length ? errors : [text("none since the start")]);
}

function showSettings(settings) {
  const shown = (value) => (value === null || value.length === 0 ? "not set" : [value].flat().join(", "));
  fill(
    element("setting-rows"),
    Object.entries(settings).map(([key, value]) => [text(key), text(shown(value))]),
  );
}

function showAll(status) {
  const history = new History(status.history);
  const at = history.times[history.last];
  element("shown").hidden = false;
  for (const part of document.querySelectorAll("[data-needs]")) {
    part.hidden = !history.has(part.dataset.needs);
  }
  for (const target of document.querySelectorAll("dd[data-now]")) {
    show(target, now(history, target.dataset.now, target.dataset.unit));
  }
  for (const target of document.querySelectorAll("dd[data-quarter]")) {
    show(target, quarter(history, target.dataset.quarter));
  }
  const age = units.seconds(Math.round(at / 1_000 - history.now("process_start_time_seconds")));
  const memory = units.bytes(history.now("process_resident_memory_bytes"));
  show(element("process"), text(status.process));
  show(
    element("about"),
    text(`${location.host}, version ${status.version} (${status.revision}), started ${age} ago, ${memory} of memory; as of ${clock.format(at)}`),
  );
  document.title = `${status.readiness.ready ? "✓" : "✗"} northbridge ${status.process}`;
  showReadiness(status.readiness, at);
  if (history.has("northbridge_pushes_received_total")) showPushes(history);
  if (history.has("northbridge_dead_letters_total")) showDeadLetters(history);
  if (history.has("northbridge_spool_records")) {
    const values = history.times.map((_, index) => history.at("northbridge_spool_records", index));
    chart(element("spooled"), history, [{ name: "pushes", values, style: 0 }], "count");
  }
  if (history.has("northbridge_stream_records_total")) showStreams(history);
  showKafka(history, status.lastErrors);
  showSettings(status.settings);
}

let status = null;
let isAsking = false;

async function ask() {
  const request = { headers: { accept: "application/json" }, signal: AbortSignal.timeout(10_000) };
  try {
    return await (await fetch("", request)).json();
  } catch {
    return null;
  }
}

async function refresh() {
  if (document.hidden || isAsking) return;
  isAsking = true;
  const answer = await ask();
  isAsking = false;
  status = answer ?? status;
  const since = status ? ` What is shown is as of ${clock.format(status.history.times.at(-1))}.` : "";
  show(element("lost"), text(`The process does not answer; asking again.${since}`));
  element("lost").hidden = answer !== null;
  element("shown").classList.toggle("stale", answer === null);
  if (answer) showAll(answer);
}

document.addEventListener("visibilitychange", refresh);
window.addEventListener("resize", () => status && showAll(status));
setInterval(refresh, INTERVAL_MS);
refresh();
