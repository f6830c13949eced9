// The conflict inbox: what the hub refused or dropped, with the value before, mine and theirs.

import {copy, h, text} from "/static/inspector/dom.js";

const REASONS = {
  CONFLICT: "was changed on another device first. Your change was refused.",
  DEPENDENCY_REJECTED: "builds on a change that was refused.",
  NOT_FOUND: "no longer exists.",
  MERGED: "was merged with a change of another device.",
};

const DELETED = "was deleted on another device first. Your change was refused.";

/** The fields to choose one by one: several that I have changed, in a row that neither side has deleted. */
function changedByMe(entry) {
  const gone = (side) => entry.fields.every((field) => field[side] === null);
  const changed = entry.fields.filter((field) => field.mine !== field.base && field.differs);
  return gone("mine") || gone("theirs") || changed.length < 2 ? [] : changed.map((field) => field.name);
}

const shown = (value) => (value === null || value === undefined ? h("i", {}, "none") : String(value));

export function makeConflict(entry, send) {
  const node = copy("t-conflict");
  text(node.querySelector(".what b"), entry.title);
  const deleted = entry.code === "CONFLICT" && entry.fields.length > 0 && entry.fields.every((field) => field.theirs === null);
  text(node.querySelector(".what span"), deleted ? DELETED : REASONS[entry.code] ?? entry.message);
  node.querySelector(".what").title = `${entry.code}: ${entry.message}`;
  const mine = changedByMe(entry);
  node.querySelector("tbody").append(...entry.fields.map((field) => h("tr", {data: {differs: field.differs}},
    h("th", {scope: "row"}, field.name),
    h("td", {}, shown(field.base)),
    h("td", {class: "mine"}, mine.includes(field.name) ? h("label", {}, h("input", {type: "checkbox", checked: true, value: field.name}), " ", shown(field.mine)) : shown(field.mine)),
    h("td", {class: "theirs"}, shown(field.theirs)))));
  const ticked = () => [...node.querySelectorAll("input:checked")].map((box) => box.value);
  node.addEventListener("change", () => { node.querySelector("[data-do=keep]").disabled = !ticked().length; });
  node.addEventListener("click", (event) => {
    const action = event.target.closest("[data-do]")?.dataset.do;
    if (!action) return;
    const fields = action === "keep" && mine.length ? ticked() : null;
    send("inbox", {mid: entry.mid, store: entry.store, id: entry.id, action, fields});
  });
  return node;
}
