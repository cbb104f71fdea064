"use strict";
// The table of passes.

const Pipeline = (() => {
  const columns = [
    ["", "index"], ["pass", "pass"], ["ms", "seconds"], ["ops", "ops"], ["FLOPs", "flops"], ["bytes moved", "bytes"],
    ["constants", "constants"], ["rewrites", "rewrites"], ["error", "error"],
  ];
  const measured = DATA.pipeline.some((row) => "relative" in row.check);
  let buttons = [];
  let settle = null;

  function cells(row, before) {
    const changes = (key, text) => {
      const delta = before && row[key] !== before[key] ? [" ", element("span", { class: "delta" }, row[key] < before[key] ? "▼" : "▲")] : [];
      return [text, ...delta];
    };
    return {
      index: [String(row.index).padStart(2, "0")],
      seconds: [milliseconds(row.seconds)],
      ops: changes("ops", String(row.ops)),
      flops: changes("flops", amount(row.flops)),
      bytes: changes("bytes", bytes(row.bytes)),
      constants: changes("constant_bytes", `${row.constants}, ${bytes(row.constant_bytes)}`),
      rewrites: [row.rewrites ? String(row.rewrites) : ""],
      error: [errorText(row.check.relative)],
    };
  }

  function line(row, before, open) {
    const button = element("button", { type: "button", class: "link", "data-pass": row.index }, row.pass);
    buttons.push(button);
    const idle = row.changed ? [] : [" ", element("span", { class: "delta" }, "changed nothing")];
    const found = cells(row, before);
    const shown = columns.filter(([, key]) => key !== "error" || measured).map(([label, key]) => {
      if (key === "pass") return element("td", { class: "name" }, button, ...idle);
      const text = found[key].filter((part) => part !== "");
      return element("td", { class: key === "seconds" ? "num always" : "num", "data-label": label || false }, ...text);
    });
    return element(
      "tr",
      { class: row.changed ? "" : "idle", "data-index": row.index, onclick: () => open(row.index) },
      ...shown,
    );
  }

  function draw(open) {
    const heads = columns.filter(([, key]) => key !== "error" || measured);
    const lines = DATA.pipeline.map((row, at) => line(row, DATA.pipeline[at - 1], open));
    byId("pipeline-table").append(
      element("thead", {}, element("tr", {}, ...heads.map(([label, key]) =>
        element("th", { scope: "col", class: key === "pass" ? "" : "num" }, label)))),
      element("tbody", {}, ...lines),
    );
    settle = roving(buttons);
    const filter = byId("only-changed");
    const apply = () => byId("pipeline-table").classList.toggle("only-changed", filter.checked);
    filter.addEventListener("change", apply);
    filter.checked = matchMedia("(max-width: 700px)").matches;
    apply();
  }

  function pick(index) {
    for (const line of byId("pipeline-table").querySelectorAll("tbody tr")) {
      const picked = Number(line.dataset.index) === index;
      line.classList.toggle("picked", picked);
      const button = line.querySelector("button");
      button.toggleAttribute("aria-current", picked);
      if (picked) settle(button);
    }
  }

  return { draw, pick };
})();
