"use strict";
// Which pass is open, in which view.

const Page = (() => {
  const VIEWS = [["graph", "Graph"], ["text", "Text"], ["log", "Rewrites"]];
  let open = 0;
  let view = "graph";

  const stageOf = (index) => DATA.stages.find((stage) => stage.index === index);

  /** The last graph at or before a pass. */
  function stageUpTo(index) {
    return DATA.stages.filter((stage) => stage.index <= index).pop();
  }

  function summary(row, before) {
    const change = (name, key, show) => (before && row[key] !== before[key] ? `${show(before[key])} → ${show(row[key])} ${name}` : `${show(row[key])} ${name}`);
    const parts = [change("ops", "ops", String), change("FLOPs", "flops", amount), change("moved", "bytes", bytes), change("of constants", "constant_bytes", bytes)];
    if (row.seconds !== null) parts.push(`${milliseconds(row.seconds)} ms`);
    if (row.rewrites) parts.push(plural(row.rewrites, "rewrite"));
    return (row.changed || !before ? "" : "Changed nothing. ") + parts.join(" · ");
  }

  /** What --verify-passes measured of a pass that changed something. */
  function checked({ check, changed }) {
    if (!changed || !("relative" in check)) return "";
    const parts = [`relative error ${errorText(check.relative)}`];
    if ("exact" in check) parts.push(`in double precision ${errorText(check.exact)}`);
    if ("max_abs" in check) parts.push(`absolute ${errorText(check.max_abs)}`);
    if ("ulps" in check) parts.push(`${check.ulps} ULP`);
    if (check.compared) parts.push(`${check.compared} values compared`);
    if (check.worst) parts.push(`worst ${check.worst}`);
    return `Numbers checked: ${parts.join(" · ")}`;
  }

  function log(row, stage) {
    const lines = (title, items) => (items.length
      ? [element("h3", {}, title), element("ul", {}, ...items.map((item) => element("li", { class: "mono" }, item)))]
      : []);
    const rewrites = stage ? stage.rewrites || [] : [];
    const parts = [...lines("What it changed", rewrites), ...lines("What it could have changed, and why it did not", row.notes || [])];
    return parts.length ? parts : [element("p", { class: "hint" }, "It has nothing to say.")];
  }

  function drawView() {
    const row = DATA.pipeline[open];
    const stage = stageOf(row.index);
    const shown = stage || stageUpTo(row.index);
    const previous = stage && stage.diff ? DATA.stages[DATA.stages.indexOf(stage) - 1] : null;
    for (const [name] of VIEWS) {
      const picked = name === view;
      byId(`panel-${name}`).hidden = !picked;
      byId(`tab-${name}`).setAttribute("aria-selected", String(picked));
      byId(`tab-${name}`).setAttribute("tabindex", picked ? "0" : "-1");
    }
    GraphView.clear();
    Diff.forget();
    if (view === "graph") GraphView.draw(byId("panel-graph"), shown, previous);
    if (view === "text") Diff.draw(byId("panel-text"), shown, previous);
    if (view === "log") byId("panel-log").replaceChildren(...log(row, stage));
  }

  function openPass(index, { scroll = true } = {}) {
    open = DATA.pipeline.findIndex((row) => row.index === index);
    if (open < 0) open = 0;
    const row = DATA.pipeline[open];
    byId("pass-title").textContent = `${String(row.index).padStart(2, "0")} ${row.pass}`;
    byId("pass-summary").textContent = summary(row, DATA.pipeline[open - 1]);
    byId("pass-check").textContent = checked(row);
    byId("previous").disabled = open === 0;
    byId("next").disabled = open === DATA.pipeline.length - 1;
    Pipeline.pick(row.index);
    drawView();
    if (scroll) {
      history.replaceState(null, "", `#pass-${row.index}`);
      byId("pass").scrollIntoView();
    }
  }

  /** Opens the pass before or after the open one, passing over those that the table hides. */
  function step(by) {
    const skip = byId("only-changed").checked;
    let at = open + by;
    while (DATA.pipeline[at] && skip && !DATA.pipeline[at].changed) at += by;
    if (DATA.pipeline[at]) openPass(DATA.pipeline[at].index);
  }

  function tabs() {
    const buttons = VIEWS.map(([name, text]) => element("button", {
      type: "button", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`,
      onclick: () => { view = name; drawView(); },
      onfocus: () => { if (view !== name) { view = name; drawView(); } },
    }, text));
    byId("tabs").append(...buttons);
    roving(buttons, { horizontal: true });
  }

  function heading() {
    const { meta, plan } = DATA;
    const facts = [
      meta.target && `for ${meta.target}`, meta.level !== undefined && `O${meta.level}`, meta.weights && `weights ${meta.weights}`,
      plural(DATA.pipeline.length - 1, "pass"), plan && plural(plan.steps.length, "kernel"), `sqzc ${DATA.sqzc}`,
    ];
    byId("model").textContent = DATA.model;
    byId("facts").textContent = facts.filter(Boolean).join(" · ");
    byId("file-list").append(...DATA.files.map((file) => element("li", {}, element("a", { href: file }, file))));
  }

  function theme() {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    byId("theme").addEventListener("click", () => {
      const root = document.documentElement;
      const now = root.dataset.theme || (dark.matches ? "dark" : "light");
      root.dataset.theme = now === "dark" ? "light" : "dark";
      GraphView.restyle();
    });
    dark.addEventListener("change", () => GraphView.restyle());
  }

  function start() {
    heading();
    theme();
    tabs();
    Pipeline.draw(openPass);
    Arena.draw(byId("arena-body"));
    Kernels.draw(byId("kernels-body"));
    byId("previous").addEventListener("click", () => step(-1));
    byId("next").addEventListener("click", () => step(1));
    const wanted = /^#pass-(\d+)$/.exec(location.hash);
    const first = DATA.pipeline.find((row) => row.index > 0 && row.changed) || DATA.pipeline[0];
    openPass(wanted ? Number(wanted[1]) : first.index, { scroll: Boolean(wanted) });
    let width = window.innerWidth;
    window.addEventListener("resize", () => {
      if (window.innerWidth === width) return;
      width = window.innerWidth;
      Arena.draw(byId("arena-body"));
    });
  }

  return { start };
})();

Page.start();
