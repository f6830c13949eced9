// On a narrow page one device is shown at a time; its tab lets a reader peek at the other one's board.

import {copy, h, text} from "/static/inspector/dom.js";
import {LANES} from "./board.js";
import {condition} from "./head.js";
import {pulse} from "./motion.js";

const PEEK_CARDS = 6; // of a lane: as many as a tab has room for

const page = document.getElementById("boards");
const tabs = document.querySelector(".tabs");

export function choose(key) {
  page.dataset.shown = key;
  for (const tab of tabs.children) tab.setAttribute("aria-current", String(tab.dataset.device === key));
}

/** A lane as a person sees it from afar: a bar for each card. */
function lane(cards) {
  return h("i", {}, ...cards.slice(0, PEEK_CARDS).map(() => h("i")));
}

function waiting(state) {
  if (state.inbox.length) return `${state.inbox.length} to decide`;
  return state.outbox ? `${state.outbox} waiting` : "";
}

export function makeTab(first) {
  const node = copy("t-tab");
  const find = (selector) => node.querySelector(selector);
  node.dataset.device = first.key;
  text(find(".badge"), first.key.toUpperCase());
  text(find(".name"), first.name);
  node.addEventListener("click", () => choose(first.key));
  let peeked = "";

  function update(state) {
    const [label, tone] = condition(state);
    const news = waiting(state);
    node.dataset.tone = state.inbox.length ? "bad" : tone;
    text(find(".state"), news || label);
    text(find(".link-state"), news ? label : "");
    const board = JSON.stringify(LANES.map(([name]) => state.lanes[name].map((card) => [card.id, card.title])));
    if (board === peeked) return;
    find(".peek").replaceChildren(...LANES.map(([name]) => lane(state.lanes[name])));
    if (peeked) pulse(find(".peek"));
    peeked = board;
  }
  return {node, update};
}

/** The tabs stand in the order of the devices, the shown one marked. */
export function arrangeTabs(made) {
  tabs.replaceChildren(...made.map((tab) => tab.node));
  choose(page.dataset.shown);
}
