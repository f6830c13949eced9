// Draws a policy: combinators are frames, nodes are boxes, what may follow what is a line.
// A tree is {kind, label, nodes: [id], children: [tree]}.

import {s} from "./dom.js";
import {micros, plural} from "./format.js";

const BOX = {w: 148, h: 50};
const GAP = 40;
const PAD = {x: 14, top: 30, bottom: 14};
const SAID = 44; // letters of an element that runs nothing
const SIDE_BY_SIDE = new Set(["fallback", "parallel", "race", "hedge", "merge", "synced"]);
const PLAIN = new Set(["node", "sequence"]);

/** Gives every part of the tree a size. */
function measure(tree) {
  if (tree.kind === "node") return {id: tree.nodes[0], tree, ...BOX};
  if (!tree.nodes.length && !tree.children.length) return {says: tree.label, tree, w: Math.min(tree.label.length, SAID) * 6.4 + 28, h: 34};
  const leaves = tree.nodes.map((id) => ({id, ...BOX}));
  const parts = [...leaves, ...tree.children.map(measure)];
  const stacked = SIDE_BY_SIDE.has(tree.kind);
  const inner = stacked
    ? {w: Math.max(...parts.map((part) => part.w)) + 2 * GAP, h: sum(parts, "h") + 16 * (parts.length - 1)}
    : {w: sum(parts, "w") + GAP * (parts.length - 1), h: Math.max(...parts.map((part) => part.h))};
  const framed = !PLAIN.has(tree.kind);
  return {tree, parts, stacked, framed, w: inner.w + (framed ? 2 * PAD.x : 0), h: inner.h + (framed ? PAD.top + PAD.bottom : 0)};
}

const sum = (parts, side) => parts.reduce((total, part) => total + part[side], 0);

function arrow(from, to) {
  const bend = Math.max(14, (to.x - from.x) / 2);
  const line = from.y === to.y ? `M${from.x} ${from.y}H${to.x - 7}` : `M${from.x} ${from.y}C${from.x + bend} ${from.y} ${to.x - bend - 4} ${to.y} ${to.x - 7} ${to.y}`;
  return [s("path", {class: "edge", d: line}), s("path", {class: "tip", d: `M${to.x} ${to.y}l-8-4.5v9Z`})];
}

/** Draws a measured part with its left edge at x and its middle at y; gives back where lines enter and leave. */
function place(part, x, y, out, facts) {
  if (part.id !== undefined) return placeNode(part, x, y, out, facts);
  if (part.says !== undefined) return placeWords(part, x, y, out);
  const ends = {in: {x, y}, out: {x: x + part.w, y}};
  if (part.framed) {
    const top = y - part.h / 2;
    out.frames.push(s("rect", {class: "group", x, y: top, width: part.w, height: part.h, rx: 14}),
      s("text", {class: "group-name", x: x + PAD.x, y: top + 20}, part.tree.label));
    x += PAD.x;
    y += (PAD.top - PAD.bottom) / 2;
  }
  const inside = {in: {x: part.framed ? x - PAD.x : x, y}, out: {x: part.framed ? x + part.w - PAD.x : x + part.w, y}};
  if (part.stacked) {
    let top = y - (sum(part.parts, "h") + 16 * (part.parts.length - 1)) / 2;
    const join = x + GAP + Math.max(...part.parts.map((child) => child.w));
    for (const child of part.parts) {
      const middle = top + child.h / 2;
      const reached = place(child, x + GAP, middle, out, facts);
      if (child.tree?.edge) out.edges.push(s("text", {class: "small", x: x + GAP - 8, y: reached.in.y + (middle > y ? 18 : -10), "text-anchor": "end"}, child.tree.edge));
      out.edges.push(...arrow({x: ends.in.x, y: ends.in.y}, reached.in),
        s("path", {class: "edge", d: `M${reached.out.x} ${reached.out.y}H${join}`}), ...arrow({x: join, y: reached.out.y}, ends.out));
      top += child.h + 16;
    }
    return ends;
  }
  let last = null;
  for (const child of part.parts) {
    const reached = place(child, x, y, out, facts);
    if (last) out.edges.push(...arrow(last, reached.in));
    else inside.in = reached.in;
    last = reached.out;
    x += child.w + GAP;
  }
  return {in: inside.in, out: last};
}

function placeNode(part, x, y, out, facts) {
  const known = facts[part.id];
  const line = known?.runs ? `${plural(known.runs, "run")} · ${micros(known.mean_us)}` : "not run yet";
  out.nodes.push(s("g", {class: "node", data: {node: part.id, outcome: known?.last ?? ""}, transform: `translate(${x} ${y - BOX.h / 2})`},
    s("rect", {class: "box", width: BOX.w, height: BOX.h, rx: 11}),
    s("text", {x: 14, y: 21}, part.id),
    s("text", {class: "small", x: 14, y: 38}, line)));
  return {in: {x, y}, out: {x: x + BOX.w, y}};
}

/** An element that runs no node, as a refusal: its words in a frame. */
function placeWords(part, x, y, out) {
  const words = part.says.length > SAID ? `${part.says.slice(0, SAID - 1)}…` : part.says;
  out.nodes.push(s("g", {class: "node words", transform: `translate(${x} ${y - part.h / 2})`}, s("title", {}, part.says),
    s("rect", {class: "group", width: part.w, height: part.h, rx: 11}), s("text", {class: "small", x: 14, y: 21}, words)));
  return {in: {x, y}, out: {x: x + part.w, y}};
}

/** The drawing of a tree; `facts[id]` tells `{runs, mean_us, last}` of a node. */
export function draw(tree, facts, start) {
  const root = measure(tree);
  const out = {frames: [], edges: [], nodes: []};
  const [left, right, y] = [74, 70, root.h / 2 + 14];
  const ends = place(root, left + 28, y, out, facts);
  const width = left + 28 + root.w + right;
  out.edges.push(...arrow({x: left, y: ends.in.y}, ends.in), ...arrow(ends.out, {x: width - 24, y: ends.out.y}));
  const doors = [
    s("rect", {class: "end", x: 2, y: ends.in.y - 15, width: left - 2, height: 30, rx: 15}), s("text", {class: "small", x: left / 2 + 1, y: ends.in.y + 4, "text-anchor": "middle"}, start),
    s("circle", {class: "end", cx: width - 14, cy: ends.out.y, r: 9}), s("circle", {class: "tip", cx: width - 14, cy: ends.out.y, r: 4}),
  ];
  return s("svg", {width, height: root.h + 28, viewBox: `0 0 ${width} ${root.h + 28}`, role: "img", "aria-label": `Policy graph: ${start}`},
    out.frames, out.edges, doors, out.nodes);
}

/** Marks the nodes of a trail up to and with step `at`. */
export function mark(svg, steps, at) {
  for (const node of svg.querySelectorAll(".node")) {
    node.classList.remove("on", "now", "wrong");
    node.querySelector(".badge")?.remove();
  }
  steps.slice(0, at + 1).forEach((step, index) => {
    const node = svg.querySelector(`.node[data-node="${CSS.escape(step.node)}"]`);
    if (!node) return;
    node.classList.add("on");
    node.classList.toggle("wrong", !["ok", "detached"].includes(step.outcome));
    node.classList.toggle("now", index === at);
    node.querySelector(".badge")?.remove();
    node.append(s("g", {class: "badge", transform: `translate(${BOX.w - 4} 4)`},
      s("circle", {class: "order", r: 10}), s("text", {class: "order-text", y: 4}, String(index + 1))));
  });
}
