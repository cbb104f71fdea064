"use strict";
// The text of the IR before and after a pass: side by side where there is room, else one after the other.

const Diff = (() => {
  const CONTEXT = 3;
  const narrow = matchMedia("(max-width: 860px)");
  let redraw = null;
  narrow.addEventListener("change", () => redraw && redraw());

  function marked(text, spans) {
    const parts = [];
    let at = 0;
    for (const [start, end] of spans) {
      parts.push(text.slice(at, start), element("mark", {}, text.slice(start, end)));
      at = end;
    }
    return [...parts, text.slice(at)];
  }

  const number = (at) => element("span", { class: "n" }, at < 0 ? "" : String(at + 1));
  const cell = (kind, ...content) => element("span", { class: `t ${kind}` }, ...content);

  /** The cells of one row in either form; `left` and `right` are line numbers, -1 for none. */
  function cells(split, kind, left, right, texts, spans) {
    const old = left < 0 ? null : marked(texts.before[left], spans ? spans[0] : []);
    const fresh = right < 0 ? null : marked(texts.after[right], spans ? spans[1] : []);
    if (kind === "=") {
      return split
        ? [number(left), cell("", ...old), number(right), cell("", ...fresh)]
        : [number(left), number(right), cell("", ...fresh)];
    }
    if (split) {
      return [
        number(left), old ? cell("minus", ...old) : cell("none"),
        number(right), fresh ? cell("plus", ...fresh) : cell("none"),
      ];
    }
    return [
      ...(old ? [number(left), number(-1), cell("minus", ...old)] : []),
      ...(fresh ? [number(-1), number(right), cell("plus", ...fresh)] : []),
    ];
  }

  /** Equal lines, with the middle of a long run folded behind a button. */
  function equalRun(split, [, left, right, count], texts, first, last) {
    const one = (k) => cells(split, "=", left + k, right + k, texts, null);
    const head = first ? 0 : CONTEXT;
    const foot = last ? 0 : CONTEXT;
    if (count <= head + foot + 2) return Array.from({ length: count }, (_, k) => one(k)).flat();
    const gap = element("div", { class: "gap" });
    const hidden = count - head - foot;
    gap.append(element("button", {
      type: "button",
      class: "link",
      onclick: () => gap.replaceWith(...Array.from({ length: hidden }, (_, k) => one(head + k)).flat()),
    }, `${hidden} equal lines`));
    const range = (from, to) => Array.from({ length: to - from }, (_, k) => one(from + k)).flat();
    return [...range(0, head), gap, ...range(count - foot, count)];
  }

  function build(stage, texts, split) {
    const grid = element("div", { class: `diff ${split ? "split" : "unified"}`, "data-testid": "diff" });
    if (split) grid.append(element("div", { class: "head" }, "before"), element("div", { class: "head" }, "after"));
    else grid.append(element("div", { class: "head" }, "− before   + after"));
    stage.diff.forEach((row, at) => {
      if (row[0] === "=") grid.append(...equalRun(split, row, texts, at === 0, at === stage.diff.length - 1));
      else if (row[0] === "-") grid.append(...cells(split, "-", row[1], -1, texts, null));
      else if (row[0] === "+") grid.append(...cells(split, "+", -1, row[1], texts, null));
      else grid.append(...cells(split, "~", row[1], row[2], texts, [row[3], row[4]]));
    });
    return grid;
  }

  function plain(text) {
    const grid = element("div", { class: "diff unified", "data-testid": "diff" });
    text.forEach((line, at) => grid.append(number(-1), number(at), cell("", line)));
    return grid;
  }

  /** Draws the difference of a stage to the one before it, or its text when there is none before. */
  function draw(panel, stage, previous) {
    redraw = () => {
      if (!previous) {
        panel.replaceChildren(plain(stage.text));
        return;
      }
      const { added, removed, changed } = stage.counts;
      const words = `${plural(changed, "line")} changed, ${added} added, ${removed} removed`;
      const texts = { before: previous.text, after: stage.text };
      panel.replaceChildren(
        element("p", { class: "hint" }, words, ". The line that says how far the compilation has come is left out."),
        build(stage, texts, !narrow.matches),
      );
    };
    redraw();
  }

  return { draw, forget: () => { redraw = null; } };
})();
