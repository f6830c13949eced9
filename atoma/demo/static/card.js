// One card: shown, edited in place, moved and deleted by mouse or keys.

import {copy, h, icon, text} from "/static/inspector/dom.js";
import {carry} from "./drag.js";

const ORDER = ["todo", "doing", "done"];
const SYNC = {
  synced: ["check", "Synced", "The hub has it"],
  sent: ["up", "Sent", "The hub has not answered yet"],
  waiting: ["clock", "Waiting", "Saved here, in the outbox until the cable is plugged in"],
};

export function makeCard(card, send) {
  const node = copy("t-card");
  const remove = () => send("delete", {id: card.id});
  const step = (by) => {
    const lane = ORDER[ORDER.indexOf(node.dataset.lane) + by];
    if (lane) send("move", {id: card.id, lane, before: null});
  };
  const actions = {left: () => step(-1), right: () => step(1), edit: () => edit(node, card.id, send), delete: remove};
  node.addEventListener("click", (event) => actions[event.target.closest("[data-do]")?.dataset.do]?.());
  node.addEventListener("dblclick", (event) => { if (!event.target.closest("[data-do]")) actions.edit(); });
  node.addEventListener("keydown", (event) => {
    if (event.target !== node) return;
    if (event.key === "Enter" || event.key === "F2") actions.edit();
    else if (event.key === "Delete") { neighbour(node)?.focus(); remove(); }
    else if (event.ctrlKey && event.key === "ArrowLeft") step(-1);
    else if (event.ctrlKey && event.key === "ArrowRight") step(1);
    else if (event.key === "ArrowDown") node.nextElementSibling?.focus();
    else if (event.key === "ArrowUp") node.previousElementSibling?.focus();
    else return;
    event.preventDefault();
  });
  carry(node, card.id);
  return node;
}

const neighbour = (node) => node.nextElementSibling ?? node.previousElementSibling;

export function updateCard(node, card, lane, troubled) {
  node.dataset.lane = lane;
  node.dataset.sync = card.sync;
  node.dataset.by = card.by;
  node.dataset.troubled = troubled;
  if (!node.querySelector("textarea")) text(node.querySelector(".text"), card.title);
  text(node.querySelector(".by"), card.by.toUpperCase());
  node.querySelector("[data-do=left]").disabled = lane === "todo";
  node.querySelector("[data-do=right]").disabled = lane === "done";
  const [name, label, title] = troubled ? ["alert", "In the inbox", "The hub refused a change: see the inbox"] : SYNC[card.sync];
  const sync = node.querySelector(".sync");
  if (sync.dataset.name !== name) {
    sync.dataset.name = name;
    sync.title = title;
    sync.replaceChildren(icon(name), h("span", {}, label));
  }
}

/** Turns the title into a field. Enter and leaving it save, Escape does not. */
function edit(node, id, send) {
  const shown = node.querySelector(".text");
  if (shown.querySelector("textarea")) return;
  const was = shown.textContent;
  const field = h("textarea", {class: "edit", rows: 1, maxlength: 200, "aria-label": "Title"});
  field.value = was;
  node.draggable = false;
  let open = true;
  const close = (save, focus) => {
    if (!open) return;
    open = false;
    const title = field.value.trim();
    const changed = save && title && title !== was;
    shown.textContent = changed ? title : was;
    node.draggable = true;
    if (focus) node.focus();
    if (changed) send("edit", {id, title});
  };
  field.addEventListener("keydown", (event) => {
    event.stopPropagation();
    if (event.key === "Escape") close(false, true);
    else if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); close(true, true); }
  });
  field.addEventListener("blur", () => close(true, false));
  shown.replaceChildren(field);
  field.focus();
  field.select();
}
