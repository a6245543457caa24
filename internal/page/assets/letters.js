// Events that were put aside: a page of them at a time, and one of them whole.

import { age, ask, byId, commands, el, keyed, set } from "./dom.js";

const form = byId("filter");
let chosen = {}; // store and filter as of the last Show, not what is being typed
let pages = [0]; // the number after which each page begins; the last is shown
let next = 0;
let opener = null; // what had the focus before a letter was opened
let asked = 0; // of answers that cross only the last counts
let opened = 0; // of letters likewise

function choose() {
  chosen = Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
  pages = [0];
  next = 0; // of the page before, until the answer is there
  load();
}

// showStores offers the stores, and shows the first page when there is one.
export function showStores(stores) {
  const select = byId("store");
  const empty = select.options.length === 0;
  keyed(select, stores, (s) => s, (s) => el("option", { value: s, text: s }), () => {});
  if (empty && stores.length) choose();
}

// showFirst shows the first page of what matches, and takes the reader there.
export function showFirst(store, owner) {
  form.reset();
  form.elements.store.value = store;
  form.elements.owner.value = owner;
  choose();
  byId("letters-title").focus();
}

// showStore shows a store from its beginning, with the filter as it stands.
export function showStore(store) {
  form.elements.store.value = store;
  choose();
}

// refresh asks for the present page again.
export function refresh() {
  if (chosen.store) load(true);
}

async function load(quiet) {
  const mine = ++asked;
  const state = byId("letters-state");
  if (!quiet) set(state, "Loading…");
  let answer;
  try {
    answer = await ask("api/letters", { ...chosen, after: pages[pages.length - 1] });
  } catch (e) {
    if (mine !== asked) return;
    if (!quiet) showPage({ letters: [], next: 0 }); // what stands there is of something else
    set(state, `Not read: ${e.message}`);
    return;
  }
  if (mine !== asked) return;
  showPage(answer);
  set(state, answer.letters.length ? "" : pages.length > 1 ? "No more." : "None: nothing that matches waits.");
}

function showPage(answer) {
  next = answer.next;
  keyed(byId("letters"), answer.letters, (l) => `${l.n} ${chosen.store}`, makeRow, updateRow);
  set(byId("page-number"), `Page ${pages.length}`);
  enable(byId("previous"), pages.length > 1, byId("next"));
  enable(byId("next"), next !== 0, byId("previous"));
}

// enable does not let the focus get lost on a button that is disabled under it.
function enable(button, on, other) {
  const focused = document.activeElement === button;
  button.disabled = !on;
  if (focused && !on) (other.disabled ? byId("letters-title") : other).focus();
}

function makeRow(l) {
  const store = chosen.store;
  const button = el("button", { type: "button", class: "link", text: l.n, "aria-label": `Show event ${l.n}` });
  button.addEventListener("click", () => open(store, l.n, button));
  const wide = [1, 5, 6];
  const node = el("tr", {}, el("td", {}, button));
  for (let i = 1; i < 9; i++) node.append(el("td", { class: wide.includes(i) ? "wide" : false }));
  return node;
}

function updateRow(node, l) {
  const since = Math.max(0.1, (Date.now() - Date.parse(l.stored_at)) / 1000); // two clocks
  const values = [l.owner, l.state, l.topic, l.key, l.type, l.attempts, age(since), l.reason ? `${l.class}: ${l.reason}` : l.class];
  values.forEach((text, i) => set(node.children[i + 1], text));
}

// open shows a letter whole.
export async function open(store, n, from) {
  const box = byId("letter");
  const title = byId("letter-title");
  const mine = ++opened;
  opener = from;
  box.hidden = false;
  set(title, `Event ${n} of ${store}`);
  set(byId("letter-payload"), "Loading…");
  commands(byId("letter-commands"), []);
  byId("letter-lines").replaceChildren();
  title.focus();
  let l;
  try {
    l = await ask("api/letter", { store, n });
  } catch (e) {
    if (mine === opened) set(byId("letter-payload"), `Not read: ${e.message}`);
    return;
  }
  if (mine !== opened) return;
  set(byId("letter-payload"), (l.payload ?? "") + (l.cut ? "\n… cut here: relay dlq show prints all of it" : ""));
  commands(byId("letter-commands"), l.commands ?? []);
  byId("letter-lines").replaceChildren(...(l.lines ?? []).flatMap((line) => [el("dt", { text: line.name }), el("dd", { text: line.text })]));
}

function close() {
  const box = byId("letter");
  if (box.hidden) return;
  box.hidden = true;
  (opener?.isConnected ? opener : byId("letters-title")).focus();
}

byId("letter-close").addEventListener("click", close);
document.addEventListener("keydown", (e) => { if (e.key === "Escape") close(); });
form.addEventListener("submit", (e) => {
  e.preventDefault();
  choose();
});
byId("store").addEventListener("change", choose);
byId("previous").addEventListener("click", () => {
  pages.pop();
  load();
});
byId("next").addEventListener("click", () => {
  if (next === 0) return; // clicked again before the answer came
  pages.push(next);
  next = 0;
  load();
});
