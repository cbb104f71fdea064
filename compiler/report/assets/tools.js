"use strict";
// What the scripts of the page share: making elements, words for numbers, and the data.

const DATA = JSON.parse(document.getElementById("data").textContent);

const byId = (id) => document.getElementById(id);

/** An element with attributes and children; strings become text, never markup. `on…` attributes are listeners. */
function element(name, attributes = {}, ...children) {
  return furnish(document.createElement(name), attributes, children);
}

/** The same for SVG. */
function svgElement(name, attributes = {}, ...children) {
  return furnish(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function furnish(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** A number with a prefix: 784.2 M, 1.24 k. */
function amount(value, unit = "") {
  const steps = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  for (const [size, prefix] of steps) {
    if (value >= size) return `${trimmed(value / size)} ${prefix}${unit}`;
  }
  return unit ? `${value} ${unit}` : String(value);
}

const trimmed = (value) => (value >= 100 ? value.toFixed(1) : value.toFixed(2));

const bytes = (value) => amount(value, "B");

function milliseconds(seconds) {
  return seconds === null ? "" : (1000 * seconds).toFixed(2);
}

function errorText(error) {
  if (error === null || error === undefined) return "";
  return typeof error === "number" ? (error === 0 ? "0" : error.toExponential(1)) : error;
}

/** The end of a name that is too long. */
const tail = (text, length) => (text.length <= length ? text : "…" + text.slice(1 - length));

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : word.endsWith("s") ? "es" : "s"}`;

/** Moves the focus along a list of elements by arrow keys; only one of them is in the tab order. */
function roving(elements, { horizontal = false } = {}) {
  const forward = horizontal ? "ArrowRight" : "ArrowDown";
  const back = horizontal ? "ArrowLeft" : "ArrowUp";
  const visible = () => elements.filter((item) => item.getClientRects().length > 0);
  const settle = (picked) => elements.forEach((item) => item.setAttribute("tabindex", item === picked ? "0" : "-1"));
  for (const item of elements) {
    item.addEventListener("keydown", (event) => {
      const shown = visible();
      const at = shown.indexOf(item);
      const target = { [forward]: at + 1, [back]: at - 1, Home: 0, End: shown.length - 1 }[event.key];
      if (target === undefined || !shown[target]) return;
      event.preventDefault();
      settle(shown[target]);
      shown[target].focus();
    });
  }
  settle(elements[0]);
  return settle;
}

const probe = element("span", { hidden: true });
document.body.append(probe);

/** What a colour of the style sheet is now, in the form that canvases take. */
function colour(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}
