// The page polls for the state while somebody looks at it.

import { age, ask, byId, commands, el, keyed, set, setClass } from "./dom.js";
import { showPipelines, showRelays, showSlots } from "./flow.js";
import { refresh, showFirst, showStore, showStores } from "./letters.js";
import "./story.js";

const every = 2000; // ms
const lettersEvery = 5; // polls

let database = "";
let history = new Map(); // points by pipeline
let started = 0; // the relay's: another one has another history
let last = 0; // the unix time of the last point
let paused = false;
let polls = 0;
let lostSince = null;
let timer;
let told = "";
let store = ""; // with the dead letters of the database that is shown

async function poll() {
  clearTimeout(timer);
  if (!document.hidden && !paused) {
    const asked = database;
    try {
      const o = await ask("api/status", { database, after: last });
      if (asked === database) show(o); // else another one was chosen meanwhile
      found();
    } catch (e) {
      lost(e);
    }
    if (polls++ % lettersEvery === lettersEvery - 1) refresh();
  }
  timer = setTimeout(poll, every);
}

function found() {
  lostSince = null;
  byId("lost").hidden = true;
}

function lost(error) {
  lostSince ??= new Date();
  const banner = byId("lost");
  banner.hidden = false;
  set(banner, `Since ${lostSince.toLocaleTimeString()}: ${error.message}. What is shown is from before.`);
}

function show(o) {
  if (o.started !== started) [started, history, last] = [o.started, new Map(), 0];
  const shown = o.shown;
  const before = store;
  store = shown.store;
  remember(shown);
  document.title = title(shown);
  set(byId("version"), o.version);
  chooseDatabase(o.databases, shown.name);
  set(byId("age"), shown.status ? `as of ${age(Math.max(shown.age_seconds, 0.1))} ago` : "not read yet");
  showTodo(shown);
  showPipelines(byId("pipelines"), shown, history, (owner) => showFirst(store, owner));
  showRelays(byId("relays"), shown.status?.instances ?? []);
  showSlots(byId("slots"), shown.status?.slots ?? []);
  showStores(o.stores);
  if (before && before !== store) showStore(store);
  byId("notes-section").hidden = o.notes.length === 0;
  keyed(byId("notes"), o.notes, (n) => n, (n) => el("li", { text: n }), () => {});
}

// remember keeps an hour of points.
function remember(shown) {
  for (const name of history.keys()) if (shown.status && !(name in shown.history)) history.delete(name);
  for (const [name, points] of Object.entries(shown.history)) {
    const had = history.get(name) ?? [];
    const until = had.at(-1)?.[0] ?? 0; // two answers may have crossed
    const all = [...had, ...points.filter((p) => p[0] > until)].slice(-360);
    history.set(name, all);
    last = Math.max(last, all.at(-1)?.[0] ?? 0);
  }
}

function chooseDatabase(list, shown) {
  byId("choose").hidden = list.length < 2;
  const select = byId("database");
  keyed(select, list, (d) => d.name, (d) => el("option", { value: d.name }), (option, d) =>
    set(option, d.level ? `${d.name} (${d.level === "bad" ? "act" : "look"})` : d.name));
  if (document.activeElement !== select) select.value = shown;
}

function title(shown) {
  const levels = Object.values(shown.pipelines).map((p) => p.level);
  const mark = shown.error || levels.includes("bad") ? "✖ " : levels.includes("warn") ? "! " : "";
  return `${mark}relay${shown.name ? ` – ${shown.name}` : ""}`;
}

function showTodo(shown) {
  const list = [];
  if (shown.error) {
    list.push({ level: "bad", of: "", text: `The database gives no status${shown.status ? "; what follows is old" : ""}: ${shown.error}`, commands: [] });
  }
  for (const p of shown.status?.pipelines ?? []) {
    for (const a of shown.pipelines[p.name].advice) list.push({ ...a, of: `${p.name}: ` });
  }
  if (!list.length) list.push({ level: "good", of: "", text: shown.status ? "Nothing: all is well." : "Not known yet.", commands: [] });
  // By place, because texts have numbers that change.
  keyed(byId("todo"), list.map((a, i) => ({ ...a, i })), (a) => a.i, makeTodo, updateTodo);
  tell(list);
}

function makeTodo() {
  return el("li", {}, el("p", {}, el("strong"), el("span")), el("ul", { class: "commands" }));
}

function updateTodo(node, a) {
  setClass(node, a.level);
  set(node.firstChild.firstChild, a.of);
  set(node.firstChild.lastChild, a.text);
  commands(node.lastChild, a.commands);
}

// tell announces what is new, not every change of a number or probe of a circuit.
function tell(list) {
  const kinds = list.map((a) => a.level + a.of + a.text.replace(/half-open/g, "open").replace(/\d[\d.,]*/g, "")).join("\n");
  if (kinds !== told && told !== "") set(byId("announce"), list.map((a) => a.of + a.text).join(" "));
  told = kinds;
}

byId("database").addEventListener("change", (e) => {
  database = e.target.value;
  [history, last] = [new Map(), 0];
  if (paused) byId("pause").click(); // it would show the old one for ever
  else poll();
});
byId("pause").addEventListener("click", (e) => {
  paused = !paused;
  e.target.setAttribute("aria-pressed", String(paused));
  if (!paused) poll();
});
document.addEventListener("visibilitychange", poll);
poll();
