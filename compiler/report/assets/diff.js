"use strict";
// The text of the IR before and after a pass: side by side where there is room, else one after the other.

const Diff = (() => {
  const CONTEXT = 3;
  const MANY_CONSTANTS = 10; // rows of constants in a block above which they are folded, as the ops are what matters
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
    const range = (from, to) => Array.from({ length: to - from }, (_, k) => one(from + k)).flat();
    const head = first ? 0 : CONTEXT;
    const foot = last ? 0 : CONTEXT;
    if (count <= head + foot + 2) return range(0, count);
    const gap = fold(`${count - head - foot} equal lines`, () => range(head, count - foot));
    return [...range(0, head), gap, ...range(count - foot, count)];
  }

  /** A button in place of rows that it shows when asked. */
  function fold(text, rows) {
    const gap = element("div", { class: "gap" });
    gap.append(element("button", { type: "button", class: "link", onclick: () => gap.replaceWith(...rows()) }, text));
    return gap;
  }

  /** Whether a row is a constant that came, went or changed. */
  function isConstant([kind, first, second], texts) {
    if (kind === "=") return false;
    const line = kind === "+" ? texts.after[first] : texts.before[first];
    return line.startsWith("  const ") && (kind !== "~" || texts.after[second].startsWith("  const "));
  }

  function rowCells(split, row, texts) {
    if (row[0] === "-") return cells(split, "-", row[1], -1, texts, null);
    if (row[0] === "+") return cells(split, "+", -1, row[1], texts, null);
    return cells(split, "~", row[1], row[2], texts, [row[3], row[4]]);
  }

  function build(stage, texts, split) {
    const grid = element("div", { class: `diff ${split ? "split" : "unified"}`, "data-testid": "diff" });
    if (split) grid.append(element("div", { class: "head" }, "before"), element("div", { class: "head" }, "after"));
    else grid.append(element("div", { class: "head" }, "− before   + after"));
    const rows = stage.diff;
    for (let at = 0; at < rows.length;) {
      let end = at;
      while (end < rows.length && isConstant(rows[end], texts)) end += 1;
      if (end - at > MANY_CONSTANTS) {
        const block = rows.slice(at, end);
        grid.append(fold(`${block.length} constants that came, went or changed`, () => block.flatMap((row) => rowCells(split, row, texts))));
        at = end;
        continue;
      }
      const row = rows[at];
      grid.append(...(row[0] === "=" ? equalRun(split, row, texts, at === 0, at === rows.length - 1) : rowCells(split, row, texts)));
      at += 1;
    }
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
