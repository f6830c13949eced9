// Making and updating elements; the whole "framework" of these pages.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "data") Object.assign(node.dataset, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** An HTML element: `h("button", {class: "x", onclick: f}, "text", child)`. */
export const h = (tag, props = {}, ...children) => fill(document.createElement(tag), props, children);

/** An SVG element. */
export const s = (tag, props = {}, ...children) => fill(document.createElementNS(SVG, tag), props, children);

/** A copy of the `<template>` with that id. */
export const copy = (id) => document.getElementById(id).content.firstElementChild.cloneNode(true);

/** Sets text only when it differs, so that selections and screen readers are left in peace. */
export function text(node, value) {
  const wanted = String(value);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/** A value of a row, for reading. */
export const shown = (value) => value === null || value === undefined ? h("i", {}, "null") : String(value);

/** An icon of the page's sprite. */
export const icon = (name) => s("svg", {class: "icon", "aria-hidden": "true"}, s("use", {href: `#i-${name}`}));

/**
 * Makes the children of `parent` match `items` in order, keeping the element of each key.
 * `make(item)` builds an element, `update(element, item)` brings it up to date. Elements in `keep` are not removed.
 */
export function keyed(parent, items, key, make, update) {
  const old = new Map([...parent.children].filter((node) => node.dataset.key !== undefined).map((node) => [node.dataset.key, node]));
  let before = parent.firstElementChild;
  for (const item of items) {
    const id = String(key(item));
    let node = old.get(id);
    if (node) old.delete(id);
    else { node = make(item); node.dataset.key = id; }
    update?.(node, item);
    while (before && before.dataset.key !== undefined && old.has(before.dataset.key) && before !== node) before = before.nextElementSibling;
    if (node === before) before = before.nextElementSibling;
    else parent.insertBefore(node, before);
  }
  for (const node of old.values()) node.remove();
}

/** Sends JSON; resolves to the answer, rejects with the message the server gave. */
export async function post(path, body) {
  const answer = await fetch(path, {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body)});
  const data = await answer.json().catch(() => ({}));
  if (!answer.ok || data.error) throw new Error(data.error?.message ?? data.error ?? `The server answered with status ${answer.status}.`);
  return data;
}
