// The way of the events through each pipeline: log, relays, circuit, broker.

import { age, count, el, keyed, set, setClass } from "./dom.js";
import { makePlot, updatePlot } from "./plot.js";

const levels = { "": ["good", "well"], warn: ["warn", "look"], bad: ["bad", "act"] };

// showPipelines draws an overview's pipelines. history has their points, and
// aside(pipeline) is called to show what was put aside.
export function showPipelines(parent, shown, history, aside) {
  const list = shown.status?.pipelines ?? [];
  keyed(parent, list, (p) => p.name, (p) => makePipeline(p, aside), (node, p) =>
    updatePipeline(node, p, shown.pipelines[p.name], history.get(p.name) ?? []));
}

function stage(what) {
  const strong = el("strong");
  const detail = el("span");
  const list = el("ul");
  const node = el("li", { class: "stage" }, el("span", { class: "what", text: what }), strong, detail, list);
  node.parts = { strong, detail, list, what: node.firstChild };
  return node;
}

function makePipeline(p, aside) {
  const parts = {
    badge: el("span"), log: stage("Log"), relays: stage("Relays"), circuit: stage("Circuit"), broker: stage("Broker"),
    shares: el("div", { class: "shares", "aria-hidden": "true" }), waits: el("span"), error: el("p", { class: "aside" }),
    button: el("button", { type: "button", text: "Show them", "aria-label": `Show what ${p.name} put aside`, onclick: () => aside(p.name) }),
    backlog: makePlot("Backlog"), rate: makePlot("Events/s"), oldest: makePlot("Oldest unsent"),
  };
  parts.relays.insertBefore(parts.shares, parts.relays.parts.list);
  const title = `pipeline ${p.name}`;
  const node = el("article", { class: "pipeline", "aria-label": title },
    el("h3", {}, el("span", { text: p.name }), parts.badge),
    el("ol", { class: "flow", "aria-label": "The way of its events" }, parts.log, parts.relays, parts.circuit, parts.broker),
    parts.error,
    el("p", { class: "aside" }, parts.waits, " ", parts.button),
    el("div", { class: "plots" }, parts.backlog, parts.rate, parts.oldest));
  node.parts = parts;
  return node;
}

function updatePipeline(node, p, more, points) {
  const parts = node.parts;
  const [style, word] = levels[more?.level ?? ""];
  set(parts.badge, word);
  setClass(parts.badge, `badge ${style}`);
  updateLog(parts.log, p);
  updateRelays(parts, p);
  updateCircuit(parts.circuit, p);
  const broker = parts.broker.parts;
  set(broker.what, more?.broker || "Broker (not in this relay’s configuration)");
  set(broker.strong, `${p.published_per_second.toFixed(1)} events/s`);
  parts.error.hidden = !more?.last_error;
  set(parts.error, more?.last_error ? `Last error of this relay, ${age(more.last_error_since)} ago: ${more.last_error}` : "");
  const k = p.parked;
  const waiting = k.dead + k.retrying + k.blocked;
  set(parts.waits, waiting === 0 ? "Nothing is put aside."
    : `Put aside: ${k.exact ? "" : "at least "}${count(k.dead)} dead, ${count(k.retrying)} retrying, ${count(k.blocked)} blocked; the first ${age(k.oldest_seconds)} ago.${k.blocked_keys ? ` ${count(k.blocked_keys)} keys stand still.` : ""}`);
  parts.button.hidden = waiting === 0;
  updatePlot(parts.backlog, points, (q) => q[1], count);
  updatePlot(parts.rate, points, (q) => q[2], (v) => v.toFixed(1));
  updatePlot(parts.oldest, points, (q) => q[3], (v) => (v ? age(v) : "0 s"));
}

function updateLog(node, p) {
  const { strong, detail, list } = node.parts;
  set(strong, `${p.backlog_exact ? "" : "~"}${count(p.backlog)} unsent`);
  set(detail, p.backlog === 0 ? "" : `oldest ${age(p.oldest_unsent_seconds)}`);
  const only = [];
  if (p.filter.topics?.length) only.push(`only topics ${p.filter.topics.join(", ")}`);
  if (p.filter.types?.length) only.push(`only types ${p.filter.types.join(", ")}`);
  texts(list, only);
}

function updateRelays({ relays, shares }, p) {
  const { strong, detail, list } = relays.parts;
  const owned = p.owners.reduce((sum, o) => sum + (o.live ? o.shards : 0), 0);
  setClass(relays, p.unowned === 0 ? "stage" : owned === 0 ? "stage bad" : "stage warn");
  set(strong, `${owned} of ${owned + p.unowned} shards`);
  set(detail, `position stored ${age(p.position_age_seconds)} ago`);
  keyed(shares, p.owners, (o) => o.instance, () => el("span"), (bar, o) => {
    bar.style.flex = `${o.shards} 1 0`;
    setClass(bar, o.live ? "" : "silent");
  });
  texts(list, p.owners.map((o) => `${o.instance}: ${o.shards}${o.live ? "" : ", silent, to be taken over"}`));
}

function updateCircuit(node, p) {
  const { strong, list } = node.parts;
  const broker = p.circuits.filter((c) => !c.topic);
  const away = broker.some((c) => c.state !== "recovering");
  setClass(node, away ? "stage bad" : p.circuits.length ? "stage warn" : "stage");
  set(strong, broker.length ? broker[0].state : "closed");
  const lines = p.circuits.map((c) => `${c.topic ? `topic ${c.topic}` : "broker"} ${c.state} (${c.instance})`);
  if (p.more_circuits > 0) lines.push(`and ${p.more_circuits} more topics`);
  texts(list, lines);
}

function texts(list, lines) {
  keyed(list, lines, (text) => text, (text) => el("li", { text }), () => {});
}

export function showRelays(parent, instances) {
  keyed(parent, instances, (i) => i.name, () => row(3), (node, i) => cells(node, [
    i.name, age(i.running_seconds),
    i.live ? `valid for ${age(i.expires_in_seconds)}` : `expired ${age(-i.expires_in_seconds)} ago`,
  ]));
}

export function showSlots(parent, slots) {
  keyed(parent, slots, (s) => s.slot, () => row(4), (node, s) => cells(node, [
    `${s.slot}${s.current ? " (current)" : ""}`, count(s.rows), (s.bytes / (1 << 20)).toFixed(1), age(s.oldest_seconds),
  ]));
}

function row(n) {
  const node = el("tr");
  for (let i = 0; i < n; i++) node.append(el("td"));
  return node;
}

function cells(node, values) {
  values.forEach((text, i) => set(node.children[i], text));
}
