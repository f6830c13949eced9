// The policy panel: which graph, which trail, which step of it.

import {h, icon, keyed, s, text} from "./dom.js";
import {micros} from "./format.js";
import {draw, mark} from "./graph.js";

const byId = (id) => document.getElementById(id);
const NOTES = {atomic: "in one transaction; the time is that of the transaction"};
const good = (step) => ["ok", "detached", "skipped"].includes(step.outcome);

export function makePolicyPanel() {
  let state = null;
  let policy = "";
  let mode = "write";
  let picked = null; // the trail itself: it stays on show when it has left the list
  let at = 0;
  let drawn = "";

  const modes = ["write", "query"].map((name) => h("button", {type: "button", onclick: () => { mode = name; unpick(); }}, name));
  byId("modes").append(...modes);
  byId("policies").addEventListener("change", (event) => { policy = event.target.value; unpick(); });

  function unpick() { picked = null; show(); }

  function pick(trail) {
    [picked, at, policy, mode] = [trail, 0, trail.policy || policy, trail.kind];
    show();
  }

  function step(by) {
    at = Math.max(0, Math.min(picked.steps.length - 1, at + by));
    show();
  }

  function showGraph() {
    const chosen = state.policies.find((item) => item.name === policy) ?? state.policies[0];
    const tree = chosen?.[mode];
    const shape = JSON.stringify([chosen?.name, mode, tree, state.nodes]);
    if (shape !== drawn) {
      drawn = shape;
      byId("graph").replaceChildren(tree ? draw(tree, state.nodes, mode) : h("p", {class: "empty"}, chosen ? `${chosen.name} has no ${mode} graph.` : "No policy."));
    }
    text(byId("policy-note"), chosen?.missing || (chosen?.default ? "The default of this client." : ""));
    const svg = byId("graph").querySelector("svg");
    if (svg) mark(svg, picked?.steps ?? [], picked ? at : -1);
  }

  function showPolicies() {
    keyed(byId("policies"), state.policies, (item) => item.name, (item) => h("option", {value: item.name}, item.name),
      (option, item) => text(option, item.missing ? `${item.name} (not available)` : item.name));
    byId("policies").value = policy;
    for (const button of modes) button.setAttribute("aria-pressed", String(button.textContent === mode));
  }

  function showTrails() {
    byId("no-trails").hidden = state.trails.length > 0;
    keyed(byId("trails"), state.trails, (trail) => trail.trace, (trail) => h("li", {}, h("button", {type: "button", onclick: () => pick(trail)},
      h("span", {class: "kind", data: {kind: trail.kind, tone: trail.error ? "bad" : "good"}, title: trail.kind}, trail.kind === "write" ? "W" : "Q"),
      h("span", {class: "title"}, trail.title), h("span", {class: "took"}, micros(trail.us)),
      h("span", {class: "path"}, trail.error || trail.steps.map((item) => item.node).join(" → ")))),
    (item, trail) => item.firstChild.setAttribute("aria-pressed", String(picked?.trace === trail.trace)));
  }

  function showTrail() {
    const panel = byId("trail");
    if (!picked?.steps.length) { panel.replaceChildren(); return; }
    const longest = Math.max(...picked.steps.map((item) => item.us), 1);
    const now = picked.steps[at];
    panel.replaceChildren(
      h("div", {class: "steer"},
        h("p", {}, `Step ${at + 1} of ${picked.steps.length}: `, h("b", {}, now.node), ` ${now.outcome}, ${micros(now.us)}`, picked.status ? ` · ${picked.status}` : ""),
        h("button", {class: "button", type: "button", "aria-label": "Previous step", disabled: at === 0, onclick: () => step(-1)}, icon("left")),
        h("button", {class: "button", type: "button", "aria-label": "Next step", disabled: at === picked.steps.length - 1, onclick: () => step(1)}, icon("right")),
        h("button", {class: "button quiet", type: "button", onclick: unpick}, "Close")),
      h("ol", {class: "steps"}, picked.steps.map((item, index) => row(item, index, longest))));
  }

  function row(item, index, longest) {
    const why = [item.attempt > 1 && `attempt ${item.attempt}`, NOTES[item.note] ?? item.note, item.error, item.budget_s !== null && `${item.budget_s.toFixed(2)} s left`].filter(Boolean).join(" · ");
    return h("li", {class: `${good(item) ? "" : "bad"} ${index > at ? "later" : ""}`, "aria-current": index === at ? "step" : null, onclick: () => { at = index; show(); }},
      h("span", {class: "n num"}, String(index + 1)), h("span", {class: "name"}, item.node), h("span", {class: "outcome"}, item.outcome),
      h("span", {class: "track"}, s("svg", {preserveAspectRatio: "none", viewBox: "0 0 100 8"}, s("rect", {width: Math.max(1, 100 * item.us / longest), height: 8, rx: 2}))),
      h("span", {class: "r"}, micros(item.us)), why && h("span", {class: "why"}, why));
  }

  function show() {
    if (!state) return;
    if (!state.policies.some((item) => item.name === policy)) policy = state.policies.find((item) => item.default)?.name ?? state.policies[0]?.name ?? "";
    showPolicies();
    showGraph();
    showTrails();
    showTrail();
  }

  function beat(before) {
    const svg = byId("graph").querySelector("svg");
    if (!svg || !before) return;
    for (const [id, facts] of Object.entries(state.nodes)) {
      if (facts.runs > (before[id]?.runs ?? 0)) svg.querySelector(`.node[data-node="${CSS.escape(id)}"]`)?.classList.add("beat");
    }
  }

  return {
    update(next) {
      const before = state?.key === next.key ? state.nodes : null;
      if (state && state.key !== next.key) picked = null;
      state = next;
      show();
      beat(before);
    },
  };
}

