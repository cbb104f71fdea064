"use strict";
// The graph view of a pass: two panes, and beside them the details of the op that was picked.

const GraphView = (() => {
  let panes = [];

  const words = {
    same: null,
    added: "new in this pass",
    removed: "gone after this pass",
    changed: "changed by this pass",
    merged: "gone after this pass; its source name went to another op",
    rewired: "reads another value",
  };

  function legend() {
    const entries = [["added", "+ new"], ["removed", "− gone"], ["changed", "~ changed"], ["merged", "→ merged into another op"], ["rewired", "reads another value"]];
    return element("p", { class: "legend" },
      ...entries.map(([state, text]) => element("span", { class: `tag ${state}` }, text)),
      element("span", { class: "delta" }, "Click an op for its details; its counterpart is framed. Ctrl + wheel zooms."));
  }

  function definition(...entries) {
    return element("dl", {}, ...entries.filter(([, value]) => value !== null && value !== "").flatMap(([name, value]) =>
      [element("dt", {}, name), element("dd", {}, ...[value].flat())]));
  }

  function list(items) {
    return items.length ? element("ul", {}, ...items.map((item) => element("li", {}, ...[item].flat()))) : "";
  }

  /** Details of one op on one side; `go(side, key)` picks another. */
  function describe(side, stage, node, sideData, go) {
    const graph = sideData.graph;
    const made = new Map(graph.nodes.flatMap((other) => other.outputs.map(([name, type]) => [name, { key: other.key, type }])));
    const entered = new Map(graph.inputs);
    const [state, differences, related] = (sideData.states && sideData.states[node.key]) || ["same", [], []];
    const other = side === "before" ? "after" : "before";
    const operand = (name) => {
      if (made.has(name)) {
        return [element("button", { type: "button", class: "link mono", onclick: () => go(side, made.get(name).key) }, `%${name}`), ` ${made.get(name).type}`];
      }
      const about = graph.constants[name] || `${entered.get(name) || ""} (input)`;
      return [element("span", { class: "mono" }, `%${name}`), ` ${about}`];
    };
    const outputs = new Set(node.outputs.map(([name]) => name));
    const users = graph.nodes.filter((user) => user.inputs.some((name) => outputs.has(name)));
    const link = (where, key) => element("button", { type: "button", class: "link mono", onclick: () => go(where, key) }, `%${key}`);
    return [
      element("h3", {}, `${node.op} `, state === "same" ? null : element("span", { class: `tag ${state}` }, words[state])),
      definition(
        ["result", list(node.outputs.map(([name, type]) => [element("span", { class: "mono" }, `%${name}`), ` ${type}`]))],
        ["source names", list(node.sources.map((name) => element("span", { class: "mono" }, name)))],
        ["attributes", list(node.attrs.map(([name, text]) => element("span", { class: "mono" }, `${name}=${text}`)))],
        ["operands", list(node.inputs.map(operand))],
        ["read by", list(users.map((user) => [link(side, user.key), ` ${user.op}`]))],
        ["FLOPs", amount(node.flops)],
        ["bytes moved", bytes(node.bytes)],
        [side === "before" ? "went into" : "made of", list(related.map((key) => link(other, key)))],
      ),
      differences.length
        ? element("div", {}, element("h3", {}, "What changed"), definition(...differences.map(([what, old, fresh]) =>
          [what, [element("span", { class: "from" }, `− ${old}`), element("br"), element("span", { class: "to" }, `+ ${fresh}`)]])))
        : null,
      element("pre", {}, node.text),
    ].filter((part) => part !== null);
  }

  /** Draws the graph of `stage`, with the one before it when the stage is a pass that changed something. */
  function draw(panel, stage, previous) {
    clear();
    const sides = previous
      ? { before: { graph: previous.graph, states: stage.before }, after: { graph: stage.graph, states: stage.after } }
      : { after: { graph: stage.graph, states: null } };
    const details = element("div", { class: "details", "aria-live": "polite", "data-testid": "details" },
      element("p", { class: "hint" }, "Click an op to see what it is: its operands, attributes, source names, and what the pass did to it."));
    const byName = {};

    function pick(side, key, move) {
      const node = sides[side].graph.nodes.find((candidate) => candidate.key === key);
      if (!node) return;
      details.replaceChildren(...describe(side, stage, node, sides[side], (where, wanted) => pick(where, wanted, true)));
      for (const [name, pane] of Object.entries(byName)) {
        const state = sides[side].states && sides[side].states[key];
        const across = name === side ? [] : [key, ...(state ? state[2] : [])];
        pane.mark(name === side ? key : "", across.filter((wanted) => pane.node(wanted).nonempty()), move || name !== side);
      }
    }

    for (const [side, { graph, states }] of Object.entries(sides)) {
      const other = side === "before" ? sides.after : sides.before;
      byName[side] = new GraphPane.Pane(side, graph, states, other && other.graph, (key) => pick(side, key, false));
    }
    panes = Object.values(byName);
    panel.replaceChildren(
      ...(previous ? [legend()] : []),
      element("div", { class: previous ? "panes" : "panes single" }, ...panes.map((pane) => pane.element), details),
    );
    panes.forEach((pane) => pane.start());
    // For tests and for the console: where an op is drawn.
    window.reportPanes = byName;
  }

  function clear() {
    panes.forEach((pane) => pane.destroy());
    panes = [];
  }

  return { draw, clear, restyle: () => panes.forEach((pane) => pane.restyle()) };
})();
