// A line over what is known of the last hour, without axes: its largest value and its
// present one are in the caption, and in its name for those who do not see it.

import { el, set } from "./dom.js";

const longest = 3600; // seconds
const shortest = 120; // a line of two samples is no history
const gap = 600; // without a sample, that the line does not bridge

export function makePlot(title) {
  const path = el("path");
  const svg = el("svg", { viewBox: "0 0 360 60", preserveAspectRatio: "none", role: "img" }, path);
  const caption = el("figcaption");
  const figure = el("figure", {}, caption, svg);
  figure.parts = { title, path, svg, caption };
  return figure;
}

// updatePlot shows points [unix time, …values], of which value(point) is drawn and
// name(value) is its text.
export function updatePlot(figure, points, value, name) {
  const { title, path, svg, caption } = figure.parts;
  const now = points.length ? points[points.length - 1][0] : 0;
  const recent = points.filter((p) => p[0] > now - longest);
  if (!recent.length) {
    path.removeAttribute("d"); // another database was shown
    set(caption, `${title}: no data yet`);
    svg.setAttribute("aria-label", caption.textContent);
    return;
  }
  const values = recent.map(value);
  const most = Math.max(...values);
  const span = Math.max(now - recent[0][0], shortest);
  const height = (v) => (most === 0 ? 58 : 58 - (v / most) * 54).toFixed(1);
  const place = (t) => (360 - ((now - t) / span) * 360).toFixed(1);
  // A single point is a dot's width, so that it is seen.
  let line = `M${place(recent[0][0] - (recent.length === 1 ? span / 120 : 0))} ${height(values[0])}`;
  let before = recent[0][0];
  recent.forEach((p, i) => {
    // A gap in the samples is a gap in the line.
    line += `${p[0] - before > gap ? "M" : "L"}${place(p[0])} ${height(values[i])}`;
    before = p[0];
  });
  path.setAttribute("d", line);
  const minutes = Math.max(1, Math.round((now - recent[0][0]) / 60));
  set(caption, `${title}: now ${name(values[values.length - 1])}, at most ${name(most)} in ${minutes} min`);
  svg.setAttribute("aria-label", caption.textContent);
}
