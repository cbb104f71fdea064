"use strict";
// The arena: every buffer as a box, from its first to its last step and over the bytes that it covers.

const Arena = (() => {
  const HEIGHT = 380, LEFT = 70, RIGHT = 12, TOP = 22, BOTTOM = 34;
  const FILLS = ["#8ecae6", "#ffd166", "#a3d9a5", "#f4a6a0", "#c3b1e1", "#f7c59f", "#9fd8d2", "#d6ccc2"];

  function figures(plan) {
    const one = (name, value) => element("span", {}, `${name} `, element("b", {}, value));
    const ratio = plan.bound_bytes ? ` (${(plan.arena_bytes / plan.bound_bytes).toFixed(2)} of the bound)` : "";
    return element("p", { class: "figures" },
      one("arena", bytes(plan.arena_bytes) + ratio), one("lower bound", bytes(plan.bound_bytes)),
      one("scratch a thread", bytes(plan.scratch_bytes)), one("prepared a handle", bytes(plan.prepared_bytes)),
      one("constants", bytes(plan.constant_bytes)));
  }

  /** Round byte counts to mark on the axis. */
  function ticks(most) {
    let step = 1;
    while (most / step > 6) step *= step.toString().startsWith("2") ? 2.5 : 2;
    return Array.from({ length: Math.floor(most / step) + 1 }, (_, k) => k * step);
  }

  function axes(plan, width, x, y, most) {
    const parts = ticks(most).flatMap((tick) => [
      svgElement("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick), y2: y(tick) }),
      svgElement("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, bytes(tick)),
    ]);
    const every = Math.max(1, Math.ceil(30 / (x(1) - x(0))));
    for (let step = 0; step < plan.steps.length; step += every) {
      parts.push(svgElement("text", { x: (x(step) + x(step + 1)) / 2, y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, String(step)));
    }
    parts.push(svgElement("text", { x: (LEFT + width) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "step"));
    return svgElement("g", { class: "axis" }, ...parts);
  }

  function box(plan, buffer, at, x, y, show) {
    const [first, last] = buffer.live;
    const left = x(first), width = x(last + 1) - left - 1, top = y(buffer.offset + buffer.bytes);
    const height = Math.max(y(buffer.offset) - top, 1.5);
    const group = svgElement("g", {
      class: "buffer", role: "button", "data-buffer": buffer.name,
      "aria-label": `buffer ${buffer.name}, ${bytes(buffer.bytes)}, steps ${first} to ${last}`,
      onclick: () => show(buffer, group),
      onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); show(buffer, group); } },
    });
    group.append(
      svgElement("title", {}, `${buffer.name}: ${bytes(buffer.bytes)} at ${buffer.offset}, steps ${first} to ${last}`),
      svgElement("rect", { x: left, y: top, width, height, fill: FILLS[at % FILLS.length] }),
      ...(height > 30 ? buffer.steps.map((step) => svgElement("circle", { cx: (x(step) + x(step + 1)) / 2, cy: top + height - 4, r: 1.8 })) : []),
    );
    const room = Math.floor((width - 8) / 6.6);
    if (height >= 15 && room >= 4) group.append(svgElement("text", { x: left + 4, y: top + Math.min(height / 2 + 4, 14) }, tail(buffer.name, room)));
    return group;
  }

  function liveLine(plan, x, y) {
    const points = plan.live_bytes.map((count, step) => `${step ? "L" : "M"}${x(step)},${y(count)}H${x(step + 1)}`);
    return svgElement("path", { class: "live", d: points.join(" ") });
  }

  function describe(plan, buffer) {
    const [first, last] = buffer.live;
    const words = buffer.steps.map((step) => `${step} ${plan.steps[step].kernel}`).join(", ");
    return [
      element("b", { class: "mono" }, `%${buffer.name}`), ` ${buffer.type}: ${bytes(buffer.bytes)} from byte ${buffer.offset} to `,
      `${buffer.offset + buffer.bytes}, alive in steps ${first} to ${last}`,
      buffer.border ? `, zero border ${buffer.border} (above, left, below, right)` : "",
      `. Touched by: ${words}.`,
    ];
  }

  function draw(host) {
    const plan = DATA.plan;
    if (!plan) {
      host.replaceChildren(element("p", { class: "hint" }, "There is no plan: the compilation ended before it."));
      return;
    }
    if (!plan.buffers.length) {
      host.replaceChildren(figures(plan), element("p", { class: "hint" }, "No step needs memory of the arena."));
      return;
    }
    const width = Math.max(host.clientWidth, LEFT + RIGHT + 26 * plan.steps.length);
    const most = Math.max(plan.arena_bytes, 1);
    const x = (step) => LEFT + (step * (width - LEFT - RIGHT)) / plan.steps.length;
    const y = (at) => HEIGHT - BOTTOM - (at * (HEIGHT - TOP - BOTTOM)) / most;
    const details = element("p", { "aria-live": "polite", "data-testid": "buffer" }, "Click a box for the buffer, or go along them with ← and →. Dots are the steps that touch it.");
    let picked = null;
    const show = (buffer, group) => {
      if (picked) picked.classList.remove("picked");
      picked = group;
      group.classList.add("picked");
      details.replaceChildren(...describe(plan, buffer).filter(Boolean));
    };
    const order = plan.buffers.map((buffer, at) => [buffer, at]).sort(([a], [b]) => a.live[0] - b.live[0] || a.offset - b.offset);
    const boxes = order.map(([buffer, at]) => box(plan, buffer, at, x, y, show));
    const svg = svgElement("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "group", "aria-label": "Buffers of the arena over the steps" },
      axes(plan, width, x, y, most), ...boxes, liveLine(plan, x, y),
      svgElement("line", { class: "bound", x1: LEFT, x2: width - RIGHT, y1: y(plan.bound_bytes), y2: y(plan.bound_bytes) }),
      svgElement("text", { x: width - RIGHT, y: y(plan.bound_bytes) - 5, "text-anchor": "end" }, "lower bound: most bytes alive at once"));
    roving(boxes, { horizontal: true });
    host.replaceChildren(figures(plan), element("p", { class: "hint" },
      "Each box is a buffer: as wide as it lives, as high as it is large, where it lies in the arena. The line is the sum of the bytes alive."),
      element("div", { class: "scroll" }, svg), details);
  }

  return { draw };
})();
