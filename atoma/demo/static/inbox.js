// The conflict inbox: what the hub refused or dropped, with the value before, mine and theirs.

import {copy, h, text} from "/static/inspector/dom.js";

const REASONS = {
  CONFLICT: "was changed on another device first. Your change was refused.",
  DEPENDENCY_REJECTED: "builds on a change that was refused.",
  NOT_FOUND: "no longer exists.",
  MERGED: "was merged with a change of another device.",
};

const DELETED = "was deleted on another device first. Your change was refused.";

/** Whether the row is deleted on that side, ours or theirs. */
const isGone = (entry, side) => entry.fields.length > 0 && entry.fields.every((field) => field[side] === null);

/** The fields to choose one by one: several that I have changed, in a row that neither side has deleted. */
function changedByMe(entry) {
  const changed = entry.fields.filter((field) => field.mine !== field.base && field.differs);
  return isGone(entry, "mine") || isGone(entry, "theirs") || changed.length < 2 ? [] : changed.map((field) => field.name);
}

/** The fields to show: of a row that one side has deleted those that the other one has changed, if it has changed any. */
function fieldsOf(entry) {
  const kept = isGone(entry, "theirs") ? "mine" : isGone(entry, "mine") ? "theirs" : null;
  const changed = kept ? entry.fields.filter((field) => field[kept] !== field.base) : [];
  return changed.length ? changed : entry.fields;
}

const shown = (value) => (value === null || value === undefined ? h("i", {}, "none") : String(value));

export function makeConflict(entry, send) {
  const node = copy("t-conflict");
  text(node.querySelector(".what b"), entry.title);
  const deleted = entry.code === "CONFLICT" && isGone(entry, "theirs");
  text(node.querySelector(".what span"), deleted ? DELETED : REASONS[entry.code] ?? entry.message);
  node.querySelector(".what").title = `${entry.code}: ${entry.message}`;
  const mine = changedByMe(entry);
  const fields = fieldsOf(entry);
  const cell = (side, at, content) => {
    if (!isGone(entry, side)) return h("td", {class: side}, content);
    return at === 0 && h("td", {class: side, rowspan: fields.length}, h("i", {}, "deleted"));
  };
  node.querySelector("tbody").append(...fields.map((field, at) => h("tr", {data: {differs: field.differs}},
    h("th", {scope: "row"}, field.name),
    h("td", {}, shown(field.base)),
    cell("mine", at, mine.includes(field.name) ? h("label", {}, h("input", {type: "checkbox", checked: true, value: field.name}), " ", shown(field.mine)) : shown(field.mine)),
    cell("theirs", at, shown(field.theirs)))));
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
