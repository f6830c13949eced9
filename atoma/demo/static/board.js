// One board: three lanes of cards and the conflict inbox under them.

import {copy, h, keyed, text} from "/static/inspector/dom.js";
import {makeCard, updateCard} from "./card.js";
import {acceptDrops} from "./drag.js";
import {makeConflict} from "./inbox.js";
import {glide} from "./motion.js";

export const LANES = [["todo", "To do"], ["doing", "Doing"], ["done", "Done"]];

function makeLane(lane, title, device, send) {
  const node = copy("t-lane");
  const cards = node.querySelector(".cards");
  const add = node.querySelector(".add");
  node.dataset.lane = lane;
  node.setAttribute("aria-label", `${title} on ${device}`);
  text(node.querySelector(".title"), title);
  add.addEventListener("click", () => compose(add, (title) => send("add", {title, lane})));
  acceptDrops(node, (id, before) => send("move", {id, lane, before}));
  return {node, cards, count: node.querySelector(".count")};
}

/** A field in place of the "Add a card" button; Enter adds and stays for the next one, Escape leaves. */
function compose(button, add) {
  const field = h("textarea", {class: "compose", rows: 2, maxlength: 200, placeholder: "What is to be done?", "aria-label": "Title of the new card"});
  let open = true;
  const leave = (focus) => {
    if (!open) return; // removing a focused field blurs it
    open = false;
    field.remove();
    button.hidden = false;
    if (focus) button.focus();
  };
  const submit = () => { const title = field.value.trim(); if (title) add(title); field.value = ""; return title; };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") leave(true);
    else if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); if (!submit()) leave(true); }
  });
  field.addEventListener("blur", () => { if (open) submit(); leave(false); });
  button.hidden = true;
  button.after(field);
  field.focus();
}

const changes = (count) => (count === 1 ? "1 change waits" : `${count} changes wait`);

export function makeBoard(first, send) {
  const node = copy("t-board");
  const find = (selector) => node.querySelector(selector);
  node.dataset.device = first.key;
  node.setAttribute("aria-label", `Board on ${first.name}`);
  find(".inbox").id = `inbox-${first.key}`;
  const lanes = new Map(LANES.map(([lane, title]) => [lane, makeLane(lane, title, first.name, send)]));
  find(".lanes").append(...[...lanes.values()].map((lane) => lane.node));

  function update(state) {
    node.dataset.plugged = state.plugged;
    find(".banner").hidden = state.plugged;
    text(find(".banner span"), state.outbox ? `Unplugged. ${changes(state.outbox)} here.` : "Unplugged. Keep working: every change is saved here.");
    const troubled = new Set(state.inbox.map((entry) => entry.id));
    const shown = new Map([...node.querySelectorAll(".card")].map((card) => [card.dataset.key, card]));
    const focused = node.contains(document.activeElement) ? document.activeElement : null;
    glide(node, ".card", () => {
      for (const [lane, parts] of lanes) {
        const cards = state.lanes[lane];
        text(parts.count, cards.length);
        // a card that changes lanes keeps its element, and with it focus and movement
        keyed(parts.cards, cards, (card) => card.id, (card) => shown.get(card.id) ?? makeCard(card, send),
          (element, card) => updateCard(element, card, lane, troubled.has(card.id)));
      }
    });
    if (focused?.isConnected && document.activeElement !== focused) focused.focus({preventScroll: true});
    text(find(".inbox .count"), state.inbox.length);
    find(".inbox").dataset.full = state.inbox.length > 0;
    keyed(find(".conflicts"), state.inbox, (entry) => `${entry.mid}/${entry.store}/${entry.id}`, (entry) => makeConflict(entry, send));
  }
  return {node, update};
}
