// The inspector: pick a database, follow its state.

import {h, keyed, text} from "./dom.js";
import {makePanels} from "./panels.js";
import {makeBrowser, makeSqlBox} from "./asking.js";
import {makePolicyPanel} from "./trails.js";

const byId = (id) => document.getElementById(id);
const TONES = {online: "good", live: "good", connecting: "busy", repairing: "busy", offline: "warn", paused: "warn", stalled: "bad", stopped: "bad"};
let current = null;
let source = null;
let looking = null;

const policyPanel = makePolicyPanel();
const showPanels = makePanels(look);
const showRows = makeBrowser();
const followSql = makeSqlBox();

/** Shows or hides the rows of a store. */
function look(store) {
  looking = looking === store ? null : store;
  if (current) show(current);
}

function show(state) {
  current = state;
  keyed(byId("clients"), state.clients, (client) => client.key, (client) => h("button", {type: "button", onclick: () => follow(client.key)}, client.name),
    (button, client) => button.setAttribute("aria-pressed", String(client.key === state.key)));
  const pill = byId("state");
  text(pill, state.state[0].toUpperCase() + state.state.slice(1));
  pill.dataset.tone = TONES[state.state] ?? "";
  pill.title = state.reason;
  const view = {...state, stores: state.stores.map((store) => ({...store, looking: store.name === looking}))};
  showPanels(view);
  policyPanel.update(view);
  showRows(state, looking);
  followSql(state.key);
}

function follow(key) {
  source?.close();
  source = new EventSource(`/api/inspector/${key}/events`);
  source.addEventListener("state", (event) => show(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    text(byId("state"), "No answer");
    byId("state").dataset.tone = "bad";
    const lost = source;
    if (lost.readyState === EventSource.CLOSED) setTimeout(() => { if (lost === source) follow(key); }, 2000);
  });
  history.replaceState(null, "", `#${key}`);
}

const clients = await (await fetch("/api/inspector")).json();
const wanted = location.hash.slice(1);
follow(clients.find((client) => client.key === wanted)?.key ?? clients[0].key);
