// Small helpers. Text is only ever set as text: no string becomes markup.

const svgNamespace = "http://www.w3.org/2000/svg";

// plain keeps names that others chose, such as topics, from turning the text around
// them.
const plain = (text) => String(text).replace(/(?!\n)[\p{Cc}\p{Cf}]/gu, "·");

// el makes an element with attributes ("on…" are listeners, "text" is its text,
// false leaves one out) and children.
export function el(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "title"].includes(tag);
  const node = svg ? document.createElementNS(svgNamespace, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === undefined) continue;
    if (name === "text") node.textContent = plain(value);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export const byId = (id) => document.getElementById(id);

// set changes a text only when it differs, so that a selection in it survives.
export function set(node, text) {
  text = plain(text);
  if (node.textContent !== text) node.textContent = text;
}

// setClass likewise.
export function setClass(node, name) {
  if (node.getAttribute("class") !== name) node.setAttribute("class", name);
}

// keyed makes the children of parent those of items, in their order. Nodes of items
// that stay are kept, with focus and selection. make(item) returns a node,
// update(node, item) brings it up to date.
export function keyed(parent, items, key, make, update) {
  const old = parent.nodesByKey ?? new Map();
  const wanted = new Map(items.map((item) => [String(key(item)), item]));
  // First what has gone: a node that is moved loses the focus.
  for (const [k, node] of old) if (!wanted.has(k)) node.remove();
  const now = new Map();
  let place = parent.firstChild;
  for (const [k, item] of wanted) {
    const node = old.get(k) ?? make(item);
    now.set(k, node);
    update(node, item);
    if (node === place) place = place.nextSibling;
    else parent.insertBefore(node, place);
  }
  parent.nodesByKey = now;
}

// command is a line with a button that copies it.
export function command(c) {
  const code = el("code");
  c.command.split(" ").forEach((word, i) => code.append(i ? " " : "", el("span", { text: word })));
  const button = el("button", { type: "button", text: "Copy", "aria-label": `Copy: ${c.what}` });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(c.command);
      button.textContent = "Copied";
      set(byId("announce"), "Copied");
    } catch { // not allowed here: mark it for the reader's own copying
      getSelection().selectAllChildren(code);
      button.textContent = "Marked";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
  return el("li", { class: "command" }, el("span", { class: "what", text: c.what }), code, button);
}

export function commands(list, items) {
  keyed(list, items, (c) => c.command, command, () => {});
}

// age is a time span in seconds for people.
export function age(seconds) {
  if (!seconds) return "–";
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const parts = [["d", 86400], ["h", 3600], ["min", 60]];
  const i = parts.findIndex(([, size]) => seconds >= size);
  const [name, size] = parts[i];
  const rest = parts[i + 1];
  let text = `${Math.floor(seconds / size)} ${name}`;
  if (rest) text += ` ${Math.floor((seconds % size) / rest[1])} ${rest[0]}`;
  return text;
}

export const count = (n) => n.toLocaleString("en");

// ask fetches an answer of the relay. Its errors are texts for people.
export async function ask(path, parameters) {
  let response;
  try {
    response = await fetch(`${path}?${new URLSearchParams(parameters)}`, { signal: AbortSignal.timeout(15000), cache: "no-store" });
  } catch {
    throw new Error("the relay does not answer");
  }
  let answer;
  try {
    answer = await response.json();
  } catch {
    throw new Error(response.status === 401 || response.status === 403 ? "not allowed: load the page again" : `the relay answers with ${response.status}`);
  }
  if (!response.ok) throw new Error(answer.error ?? `the relay answers with ${response.status}`);
  return answer;
}
