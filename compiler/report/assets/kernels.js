"use strict";
// The steps of the plan: which kernel does what, with which schedule.

const Kernels = (() => {
  const columns = [["", "num"], ["kernel", ""], ["source names", ""], ["FLOPs", "num"], ["bytes", "num"], ["schedule", ""]];

  function more(step) {
    const line = (name, value) => (value ? [element("b", {}, name), element("span", { class: "mono" }, value)] : []);
    return element("td", { colspan: columns.length }, element("div", { class: "facts" },
      line("ops", step.ops.join("\n")), line("reads", step.reads.join("\n")), line("constants", step.constants.join("\n")),
      line("writes", step.writes.join("\n")), line("facts", step.facts),
      line("memory", `${bytes(step.bytes.read)} read, ${bytes(step.bytes.constants)} of constants, ${bytes(step.bytes.written)} written, `
        + `scratch ${bytes(step.scratch)} a thread, prepared ${bytes(step.prepared)}`)));
  }

  function rows(step, at, total) {
    const moved = step.bytes.read + step.bytes.constants + step.bytes.written;
    const extra = element("tr", { class: "more", hidden: true, id: `kernel-${at}` }, more(step));
    const button = element("button", { type: "button", class: "link", "aria-expanded": "false", "aria-controls": `kernel-${at}`, "data-kernel": at }, step.kernel);
    const toggle = () => {
      extra.hidden = !extra.hidden;
      button.setAttribute("aria-expanded", String(!extra.hidden));
      row.classList.toggle("picked", !extra.hidden);
    };
    const share = total ? `, ${((100 * step.flops) / total).toFixed(1)} %` : "";
    const row = element("tr", { class: "row", onclick: toggle },
      element("td", { class: "num" }, String(at)),
      element("td", { class: "name" }, button),
      element("td", { class: "wide" }, element("span", { class: "mono" }, step.sources.join(", "))),
      element("td", { class: "num", "data-label": "FLOPs" }, step.flops ? amount(step.flops) + share : ""),
      element("td", { class: "num", "data-label": "bytes" }, bytes(moved)),
      element("td", { class: "wide" }, element("span", { class: "mono" }, step.schedule)));
    return [row, extra];
  }

  function draw(host) {
    const plan = DATA.plan;
    if (!plan) {
      host.replaceChildren(element("p", { class: "hint" }, "There is no plan: the compilation ended before it."));
      return;
    }
    const total = plan.steps.reduce((sum, step) => sum + step.flops, 0);
    const body = element("tbody", {}, ...plan.steps.flatMap((step, at) => rows(step, at, total)));
    const head = element("thead", {}, element("tr", {}, ...columns.map(([name, kind]) => element("th", { scope: "col", class: kind }, name))));
    host.replaceChildren(
      element("p", { class: "hint" }, `${plural(plan.steps.length, "step")} for ${plan.target}, in the order in which they run. Click one for its operands.`),
      element("div", { class: "scroll" }, element("table", { class: "cards" }, head, body)));
    roving([...body.querySelectorAll("button")]);
  }

  return { draw };
})();
