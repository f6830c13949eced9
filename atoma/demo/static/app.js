// The page: one stream of device states in, commands out.

import {h, post, text} from "/static/inspector/dom.js";
import {makeBoard} from "./board.js";
import {makeHead} from "./head.js";
import {arrangeTabs, choose, makeTab} from "./tabs.js";

const strip = document.querySelector(".strip");
const boards = document.querySelector(".boards");
const devices = new Map();

export function say(message) {
  const toast = h("p", {class: "toast"}, message);
  document.getElementById("toasts").append(toast);
  setTimeout(() => toast.remove(), 6000);
}

function command(key) {
  return (name, body = {}) => post(`/api/${key}/${name}`, body).catch((error) => say(error.message));
}

function show(state) {
  let device = devices.get(state.key);
  if (!device) {
    const send = command(state.key);
    device = {head: makeHead(state, send), board: makeBoard(state, send), tab: makeTab(state), state};
    devices.set(state.key, device);
    arrange();
    document.getElementById("boards").removeAttribute("aria-busy");
  }
  device.state = state;
  device.head.update(state);
  device.board.update(state);
  device.tab.update(state);
  agree();
}

/** Device a stands on the left and b on the right, whichever answers first. */
function arrange() {
  const [a, b] = [devices.get("a"), devices.get("b")];
  if (a) strip.prepend(a.head.node);
  if (b) strip.append(b.head.node);
  const present = [a, b].filter(Boolean);
  boards.append(...present.map((device) => device.board.node));
  arrangeTabs(present.map((device) => device.tab));
}

/** What a person sees on a board, card by card. */
const faces = (state) => new Map(Object.entries(state.lanes).flatMap(([lane, cards]) => cards.map((card) => [card.id, `${lane}\n${card.pos}\n${card.title}`])));

function agree() {
  const [a, b] = [...devices.values()].map((device) => faces(device.state));
  if (!a || !b) return;
  let differing = 0;
  for (const id of new Set([...a.keys(), ...b.keys()])) if (a.get(id) !== b.get(id)) differing += 1;
  const open = [...devices.values()].reduce((sum, device) => sum + device.state.inbox.length, 0);
  const node = document.getElementById("agree");
  node.dataset.tone = differing || open ? "warn" : "good";
  const undecided = `${open} ${open === 1 ? "conflict" : "conflicts"} to decide`;
  const full = [...devices.values()].find((device) => device.state.inbox.length);
  if (full && !differing) node.href = `#inbox-${full.state.key}`;
  else node.removeAttribute("href");
  text(node, differing ? `${differing} ${differing === 1 ? "card differs" : "cards differ"}` : open ? undecided : "Boards agree");
}

/** What there is to decide may be below the edge of the window, or on the other tab. */
document.getElementById("agree").addEventListener("click", (event) => {
  const {hash} = event.currentTarget;
  if (!hash) return;
  event.preventDefault();
  const inbox = document.querySelector(hash);
  choose(inbox.closest(".board").dataset.device);
  const first = inbox.querySelector(".conflict");
  first?.focus({preventScroll: true});
  first?.scrollIntoView({block: "nearest"});
});

function listen() {
  const lost = document.getElementById("lost");
  const events = new EventSource("/api/events");
  events.addEventListener("open", () => { lost.hidden = true; });
  events.addEventListener("error", () => {
    lost.hidden = false;
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, 2000); // the browser itself gives up on an error page
  });
  events.addEventListener("device", (event) => show(JSON.parse(event.data)));
  events.addEventListener("hub", (event) => {
    const hub = JSON.parse(event.data);
    text(document.getElementById("hub-seq"), hub.seq);
    text(document.getElementById("where"), `Files: ${hub.directory}`);
  });
}

listen();
