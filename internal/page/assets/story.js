// One event's story.

import { ask, byId, el } from "./dom.js";
import { open } from "./letters.js";

const form = byId("ask");
const box = byId("story");
let asked = 0; // of answers that cross only the last counts

form.addEventListener("submit", async (e) => {
  e.preventDefault();
  const id = form.elements.id.value.trim();
  const mine = ++asked;
  box.replaceChildren(el("p", { text: "Asking…" }));
  let s;
  try {
    s = await ask("api/event", { id });
  } catch (error) {
    if (mine === asked) box.replaceChildren(el("p", { text: `Not known: ${error.message}` }));
    return;
  }
  if (mine !== asked) return;
  const parts = [];
  if (s.explained) parts.push(el("pre", { role: "region", tabindex: "0", "aria-label": "Explanation", text: s.explained.trimEnd() }));
  for (const { store, letters } of s.found) {
    for (const l of letters) parts.push(letter(store, l));
  }
  for (const p of s.problems) parts.push(el("p", { class: "banner warn", text: p }));
  if (!s.explained && !s.found.length) {
    parts.push(el("p", { text: "No store of events that were put aside has it: it waits in the log, was published and handled, or was never committed." }));
  }
  box.replaceChildren(...parts);
});

// A link such as #event=ID, for logs and alerts, asks by itself.
function follow() {
  const id = new URLSearchParams(location.hash.slice(1)).get("event");
  if (!id) return;
  form.elements.id.value = id;
  form.requestSubmit();
  box.focus();
}

addEventListener("hashchange", follow);
follow();

function letter(store, l) {
  const why = l.reason ? `, because of ${l.class}: ${l.reason}` : "";
  const button = el("button", { type: "button", text: "Show it", "aria-label": `Show event ${l.n} of ${store}` });
  button.addEventListener("click", () => open(store, l.n, button));
  return el("p", {}, `In ${store}, ${l.owner}: ${l.state}, ${l.attempts} attempts, put aside ${new Date(l.stored_at).toISOString()}${why}. `, button);
}
