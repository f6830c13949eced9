// A device's name, its cable and its outbox.

import {copy, text} from "/static/inspector/dom.js";
import {packet, pulse} from "./motion.js";

const STATES = {
  online: ["Online", "good"],
  connecting: ["Connecting", "busy"],
  syncing: ["Syncing", "busy"],
  offline: ["Offline", "warn"],
  stalled: ["Stalled", "bad"],
  stopped: ["Stopped", "bad"],
};

/** What is said of a device's link: a word and its tone. */
export function condition(state) {
  return state.plugged ? STATES[state.link] ?? [state.link, "busy"] : ["Unplugged", "warn"];
}

export function makeHead(first, send) {
  const node = copy("t-head");
  const find = (selector) => node.querySelector(selector);
  node.dataset.device = first.key;
  node.setAttribute("aria-label", first.name);
  text(find(".badge"), first.key.toUpperCase());
  text(find(".name"), first.name);
  text(find(".file"), first.file);
  const cable = find(".cable");
  let before = first;
  cable.addEventListener("click", () => send("plug", {plugged: !before.plugged}));

  function update(state) {
    const [label, tone] = condition(state);
    node.dataset.plugged = state.plugged;
    node.dataset.link = state.link;
    text(find(".status"), label);
    find(".status").dataset.tone = tone;
    find(".status").title = state.reason;
    text(cable.lastElementChild, state.plugged ? "Pull the plug" : "Plug back in");
    cable.setAttribute("aria-label", `${state.plugged ? "Pull the plug" : "Plug back in"}: ${state.name}`);
    text(find(".outbox .count"), state.outbox);
    find(".outbox").dataset.full = state.outbox > 0;
    if (state.outbox !== before.outbox) pulse(find(".outbox .count"));
    if (state.plugged && state.outbox < before.outbox) packet(find(".wire"), "up", before.outbox - state.outbox);
    else if (state.plugged && state.cursor > before.cursor) packet(find(".wire"), "down", state.cursor - before.cursor);
    before = state;
  }
  return {node, update};
}
