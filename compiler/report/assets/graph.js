"use strict";
// The graph before and after a pass, drawn by cytoscape and laid out by dagre.

const GraphPane = (() => {
  const WIDTH = 190;
  const SIGN = { same: "", added: "+ ", removed: "− ", changed: "~ ", merged: "→ ", rewired: "" };
  const FOCUS_ABOVE = 400; // nodes: a larger graph is first shown around what changed, as laying it out takes seconds

  /** Node name and its state, for each side of a pass. */
  function stateOf(states, key) {
    return (states && states[key] && states[key][0]) || "same";
  }

  /** Whether a node itself is another one; reading another value does not make it so. */
  const differs = (states, key) => !["same", "rewired"].includes(stateOf(states, key));

  function label(node, state) {
    const act = node.attrs.find(([name]) => name === "act");
    const name = node.sources.length ? node.sources[node.sources.length - 1] : node.key;
    return [
      SIGN[state] + node.op + (act ? ` + ${act[1]}` : ""),
      tail(name, 28),
      tail(node.outputs[0][1], 28),
    ].join("\n");
  }

  /** The names of nodes within so many edges of those that changed. */
  function nearChanges(graph, states, hops) {
    const near = new Set(graph.nodes.filter((node) => differs(states, node.key)).map((node) => node.key));
    const owner = ownerOf(graph);
    for (let hop = 0; hop < hops; hop += 1) {
      const found = [];
      for (const node of graph.nodes) {
        for (const name of node.inputs) {
          const source = owner.get(name);
          if (!source) continue;
          if (near.has(node.key) || near.has(source)) found.push(node.key, source);
        }
      }
      found.forEach((key) => near.add(key));
    }
    return near;
  }

  /** Which node makes a value. */
  function ownerOf(graph) {
    const owner = new Map();
    for (const node of graph.nodes) for (const [name] of node.outputs) owner.set(name, node.key);
    return owner;
  }

  function edgeKeys(graph) {
    const owner = ownerOf(graph);
    const keys = new Set();
    for (const node of graph.nodes) for (const name of node.inputs) if (owner.has(name)) keys.add(`${owner.get(name)}\n${node.key}`);
    return keys;
  }

  function elementsOf(graph, states, other, sideState, keep) {
    const owner = ownerOf(graph);
    const elements = [];
    const add = (id, text, classes, data = {}) => elements.push({ data: { id, label: text, ...data }, classes });
    const ends = new Set(graph.inputs.map(([name]) => name));
    if (!keep) for (const [name, type] of graph.inputs) add(`in:${name}`, `${tail(name, 26)}\n${tail(type, 26)}`, "end");
    for (const node of graph.nodes) {
      if (keep && !keep.has(node.key)) continue;
      const state = stateOf(states, node.key);
      add(`op:${node.key}`, label(node, state), `op ${state}`, { key: node.key });
    }
    const known = other && edgeKeys(other);
    for (const node of graph.nodes) {
      if (keep && !keep.has(node.key)) continue;
      node.inputs.forEach((name, at) => {
        const from = owner.has(name) ? `op:${owner.get(name)}` : ends.has(name) ? `in:${name}` : null;
        if (!from || (keep && !(owner.has(name) && keep.has(owner.get(name))))) return;
        const fresh = known && owner.has(name) && !known.has(`${owner.get(name)}\n${node.key}`);
        elements.push({
          data: { id: `e:${node.key}:${at}`, source: from, target: `op:${node.key}` },
          classes: fresh ? sideState : "",
        });
      });
    }
    if (!keep) {
      for (const [name, value] of graph.outputs) {
        add(`out:${name}`, `output\n${tail(name, 26)}`, "end");
        const from = owner.has(value) ? `op:${owner.get(value)}` : ends.has(value) ? `in:${value}` : null;
        if (from) elements.push({ data: { id: `y:${name}`, source: from, target: `out:${name}` } });
      }
    }
    return elements;
  }

  function style() {
    const states = ["added", "removed", "changed", "merged"].flatMap((state) => [
      { selector: `node.${state}`, style: {
        "background-color": colour(state), "border-color": colour(`${state}-ink`), color: colour(`${state}-ink`), "border-width": 2,
      } },
    ]);
    return [
      { selector: "node", style: {
        shape: "round-rectangle", width: WIDTH, height: 54, label: "data(label)", "text-wrap": "wrap", "text-valign": "center",
        "text-halign": "center", "font-size": 12, "font-family": "system-ui, sans-serif", "line-height": 1.2,
        "background-color": colour("paper"), "border-color": colour("edge"), "border-width": 1, color: colour("ink"),
      } },
      { selector: "node.end", style: { shape: "ellipse", height: 44, color: colour("soft") } },
      ...states,
      { selector: "node.rewired", style: { "border-color": colour("changed-ink"), "border-style": "dotted", "border-width": 2 } },
      { selector: "node.removed, node.merged", style: { "border-style": "dashed" } },
      { selector: "node.related", style: { "border-width": 4, "border-color": colour("pick-line") } },
      { selector: "node.picked", style: { "border-width": 4, "border-color": colour("pick-line"), "background-color": colour("pick"), color: colour("ink") } },
      { selector: "edge", style: {
        width: 1.5, "line-color": colour("edge"), "target-arrow-color": colour("edge"), "target-arrow-shape": "triangle", "curve-style": "bezier",
      } },
      { selector: "edge.added", style: { "line-color": colour("added-ink"), "target-arrow-color": colour("added-ink"), width: 2.5 } },
      { selector: "edge.removed", style: { "line-color": colour("removed-ink"), "target-arrow-color": colour("removed-ink"), width: 2.5, "line-style": "dashed" } },
    ];
  }

  /** A graph in a pane of its own. `side` is "before" or "after"; `onPick(key)` is told of clicks on ops. */
  class Pane {
    constructor(side, graph, states, other, onPick) {
      this.graph = graph;
      this.states = states;
      this.other = other;
      this.onPick = onPick;
      this.side = side;
      this.changed = graph.nodes.map((node) => node.key).filter((key) => differs(states, key));
      this.at = -1;
      this.focused = graph.nodes.length > FOCUS_ABOVE && this.changed.length > 0;
      this.canvas = element("div", {
        class: "canvas", tabindex: "0", role: "application", "data-testid": `graph-${side}`,
        "aria-label": `Graph ${side} the pass: ${graph.nodes.length} ops, ${this.changed.length} of them differ. Arrow keys go along the ops, n to the next that differs.`,
        onkeydown: (event) => this.key(event),
      });
      // The wheel scrolls the page, and zooms with Ctrl as everywhere else.
      this.canvas.addEventListener("wheel", (event) => { if (!event.ctrlKey && !event.metaKey) event.stopPropagation(); }, { capture: true });
      this.element = element("div", { class: "pane" }, this.bar(), this.canvas);
    }

    bar() {
      const tool = (text, name, act) => element("button", { type: "button", title: name, "aria-label": `${name}, graph ${this.side}`, onclick: act }, text);
      const whole = this.graph.nodes.length > FOCUS_ABOVE && this.changed.length
        ? [tool("all", "Show the whole graph, or what is near a change", () => { this.focused = !this.focused; this.layout(); })]
        : [];
      const next = this.changed.length ? [tool("next change", "Go to the next op that differs", () => this.nextChange())] : [];
      return element("div", { class: "bar" },
        element("h3", {}, `${this.side === "before" ? "Before" : "After"}: ${plural(this.graph.nodes.length, "op")}`),
        element("div", { class: "tools" }, ...next, ...whole,
          tool("+", "Zoom in", () => this.zoom(1.3)), tool("−", "Zoom out", () => this.zoom(1 / 1.3)), tool("fit", "Show all", () => this.cy.fit(undefined, 12))));
    }

    /** Draws; the element must be in the page, as its size decides what is seen. */
    start() {
      this.cy = cytoscape({ container: this.canvas, style: style(), minZoom: 0.03, maxZoom: 3, autoungrabify: true, boxSelectionEnabled: false });
      this.cy.on("tap", "node.op", (event) => this.onPick(event.target.data("key")));
      this.layout();
    }

    layout() {
      const keep = this.focused ? nearChanges(this.graph, this.states, 2) : null;
      this.cy.elements().remove();
      this.cy.add(elementsOf(this.graph, this.states, this.other, this.side === "before" ? "removed" : "added", keep));
      const ranker = this.cy.nodes().length > 500 ? "longest-path" : "network-simplex";
      this.cy.layout({ name: "dagre", rankDir: "TB", nodeSep: 24, rankSep: 34, ranker, fit: false }).run();
      this.cy.zoom(this.readable());
      this.place(this.changed.length ? this.node(this.changed[0]) : this.cy.nodes()[0]);
    }

    /** Shows a node in the upper part of the pane, or the beginning of the graph where that is near. */
    place(node) {
      const zoom = this.cy.zoom();
      const start = 14 - this.cy.elements().boundingBox().y1 * zoom;
      this.cy.center(node);
      this.cy.pan({ x: this.cy.pan("x"), y: Math.min(this.canvas.clientHeight / 3 - node.position("y") * zoom, start) });
    }

    /** The zoom at which the text can be read and a node fits the pane. */
    readable() {
      return Math.min(0.9, this.canvas.clientWidth / (WIDTH * 2.1));
    }

    node(key) {
      return this.cy.getElementById(`op:${key}`);
    }

    show(key) {
      const node = this.node(key);
      if (node.empty()) return;
      if (this.cy.zoom() < this.readable()) this.cy.zoom(this.readable());
      this.place(node);
    }

    mark(key, related, move) {
      this.cy.nodes().removeClass("picked related");
      for (const name of related) this.node(name).addClass("related");
      this.node(key).addClass("picked");
      const target = this.node(key).nonempty() ? key : related[0];
      if (target === undefined) return;
      this.at = this.graph.nodes.findIndex((node) => node.key === target);
      if (move) this.show(target);
    }

    nextChange() {
      const place = this.graph.nodes[this.at] ? this.changed.indexOf(this.graph.nodes[this.at].key) : -1;
      this.walk(this.graph.nodes.findIndex((node) => node.key === this.changed[(place + 1) % this.changed.length]));
    }

    walk(at) {
      const node = this.graph.nodes[Math.max(0, Math.min(at, this.graph.nodes.length - 1))];
      if (!node) return;
      this.show(node.key);
      this.onPick(node.key);
    }

    zoom(factor) {
      this.cy.zoom({ level: this.cy.zoom() * factor, renderedPosition: { x: this.canvas.clientWidth / 2, y: this.canvas.clientHeight / 2 } });
    }

    key(event) {
      const acts = {
        ArrowDown: () => this.walk(this.at + 1), ArrowUp: () => this.walk(Math.max(this.at - 1, 0)),
        Home: () => this.walk(0), End: () => this.walk(this.graph.nodes.length - 1),
        n: () => this.changed.length && this.nextChange(),
        "+": () => this.zoom(1.3), "-": () => this.zoom(1 / 1.3),
      };
      if (!acts[event.key] || event.altKey || event.metaKey || event.ctrlKey) return;
      event.preventDefault();
      acts[event.key]();
    }

    restyle() {
      this.cy.style(style());
    }

    destroy() {
      this.cy.destroy();
    }
  }

  return { Pane };
})();
