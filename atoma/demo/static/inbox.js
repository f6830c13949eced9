// What the hub refused or cut: what it was before, what I wrote, what the others wrote.

import {copy, h, text} from "/static/inspector/dom.js";

const REASONS = {
  CONFLICT: "was changed on another device first. Your change was not taken.",
  DEPENDENCY_REJECTED: "builds on a change that was not taken.",
  NOT_FOUND: "is no longer there.",
  MERGED: "was merged with a change of another device.",
};

const shown = (value) => (value === null || value === undefined ? h("i", {}, "not there") : String(value));

export function makeConflict(entry, send) {
  const node = copy("t-conflict");
  text(node.querySelector(".what b"), entry.title);
  text(node.querySelector(".what span"), REASONS[entry.code] ?? entry.message);
  node.querySelector(".what").title = `${entry.code}: ${entry.message}`;
  node.querySelector("tbody").append(...entry.fields.map((field) => h("tr", {data: {differs: field.differs}},
    h("th", {scope: "row"}, field.name),
    h("td", {}, shown(field.base)),
    h("td", {class: "mine"}, shown(field.mine)),
    h("td", {class: "theirs"}, shown(field.theirs)))));
  node.addEventListener("click", (event) => {
    const action = event.target.closest("[data-do]")?.dataset.do;
    if (action) send("inbox", {mid: entry.mid, store: entry.store, id: entry.id, action});
  });
  return node;
}
