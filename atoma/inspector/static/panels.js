// The panels that are lists: tiles, stores, live queries, outbox, lanes, conflicts, log.

import {h, keyed, post, shown, text} from "./dom.js";
import {bytes, clock, micros, moment, plural, span} from "./format.js";

const byId = (id) => document.getElementById(id);
const cell = (value, props = {}) => h("td", props, value);
const sentence = (words) => words[0].toUpperCase() + words.slice(1) + (words.endsWith(".") ? "" : ".");

/** A handler of a button that sends a decision: its neighbours wait, and what went wrong is said in the panel. */
const decides = (panel, body, question) => async (event) => {
  if (question && !confirm(question)) return;
  const error = byId(`${panel}-error`);
  const buttons = event.target.parentElement.querySelectorAll("button");
  for (const button of buttons) button.disabled = true;
  try {
    await post(`/api/inspector/${panel}`, typeof body === "function" ? body(event.target) : body);
    error.hidden = true;
  } catch (problem) {
    text(error, problem.message);
    error.hidden = false;
  }
  for (const button of buttons) button.disabled = false;
};

/** Fills a list anew when its data is different; says so when there is none. */
function fill(id, panel, items, make, was) {
  const empty = byId(panel).querySelector(".empty");
  if (empty) empty.hidden = items.length > 0;
  const shape = JSON.stringify(items);
  if (was.get(id) === shape) return;
  was.set(id, shape);
  byId(id).replaceChildren(...items.map(make));
}

/** A list that keeps the element of an entry for as long as the entry is the same: what somebody has ticked or is about to press stays. */
function entries(id, panel, client, items, name, make) {
  byId(panel).querySelector(".empty").hidden = items.length > 0;
  keyed(byId(id), items, (item) => [client, name(item), JSON.stringify(item)].join("\n"), make);
}

function tiles(state) {
  const {database: file} = state;
  const lag = state.lanes.reduce((most, lane) => Math.max(most, lane.head - lane.cursor), 0);
  return [
    ["Outbox", state.outbox.length, state.outbox.length ? "waiting for the hub" : "everything sent", state.outbox.length ? "warn" : ""],
    ["Behind the hub", lag, lag ? plural(lag, "change") : "nothing to fetch", lag ? "warn" : ""],
    ["Open conflicts", state.conflicts.filter((entry) => !entry.resolution).length, "in the inbox", state.conflicts.some((entry) => !entry.resolution) ? "bad" : ""],
    ["Live queries", state.live.length, `${plural(state.live.reduce((sum, query) => sum + query.evaluations, 0), "run")} so far`, ""],
    ["File", bytes(file.bytes + file.wal_bytes), `${file.name}, log ${bytes(file.wal_bytes)}`, ""],
    ["Policy", state.policies.find((policy) => policy.default)?.name ?? "–", "default", ""],
  ].map(([label, value, note, tone]) => ({label, value, note, tone}));
}

function storeRow(store, look) {
  return h("tr", {"aria-selected": String(store.looking), onclick: () => look(store.name)},
    cell(h("button", {type: "button", "aria-expanded": String(store.looking)}, store.name)), cell(store.rows.toLocaleString("en"), {class: "r"}), cell(store.scope), cell(store.conflict),
    cell(store.policy || h("span", {class: "dim"}, "default")),
    cell(h("div", {class: "columns"}, store.columns.map((column) => h("span", {}, column.name, " ", h("small", {}, column.type.toLowerCase() + (column.nullable ? "?" : "")))))));
}

/** The plans that somebody has opened, by client, store and query; lists are made anew, and they stay open. */
const plans = new Map();

function planOf(client, query) {
  const wanted = {client, store: query.store, query: query.query};
  const key = JSON.stringify(wanted);
  const list = h("ul", {class: "plan"});
  const show = (button) => {
    list.replaceChildren(...(plans.get(key) ?? []));
    list.hidden = !plans.has(key);
    button.setAttribute("aria-expanded", String(plans.has(key)));
  };
  const toggle = async (event) => {
    if (!plans.delete(key)) {
      const plan = await post("/api/inspector/plan", wanted).catch((problem) => ({sources: [problem.message], warnings: []}));
      plans.set(key, [...plan.sources.map((line) => h("li", {}, line)), ...plan.warnings.map((line) => h("li", {class: "bad"}, line))]);
    }
    show(event.target);
  };
  const button = h("button", {class: "button quiet small", type: "button", onclick: toggle}, "Plan");
  show(button);
  return [button, list];
}

const liveRow = (client, most) => (query) => h("tr", {},
  cell([h("code", {}, `${query.store}: ${query.query}`), planOf(client, query)]), cell(h("span", {title: query.reason}, `tier ${query.tier}`), {class: "nowrap"}),
  cell(query.rows.toLocaleString("en"), {class: "r"}), cell(h("span", {title: `${query.held} rows are kept in memory`}, bytes(query.bytes)), {class: "r nowrap"}), cell(query.subscribers, {class: "r"}),
  cell(query.evaluations, {class: "r"}), cell(query.skipped, {class: "r"}), cell(micros(query.last_us), {class: "r"}), cell(micros(query.mean_us), {class: "r"}),
  cell(h("span", {class: "cost"}, h("span", {}, micros(query.total_us)), h("meter", {min: 0, max: most, value: query.total_us, "aria-label": "share of the cost"}))));

const outboxRow = () => h("tr", {}, cell("", {class: "r"}), cell(""), cell(""), cell("", {class: "r"}), cell("", {class: "r"}), cell("", {class: "nowrap"}), cell(""), cell(""));

/** Brings a row up to date; a row lives as long as its write waits, so that its buttons can be pressed while its age goes on. */
const showWrite = (state) => (row, item) => {
  const [number, change, kind, age, tries, next, error, acts] = row.children;
  const held = item.state === "held";
  const act = (label, action, question) => h("button", {class: "button quiet", type: "button", onclick: decides("outbox", {client: state.key, keys: [item.key], action}, question)}, label);
  text(number, held ? "–" : item.mid);
  fresh(change, item.ops, () => item.ops.map((op) => h("div", {}, h("b", {}, op.kind), ` ${op.store} `, h("span", {class: "dim"}, op.summary))));
  text(kind, item.state);
  text(age, span(item.age_s));
  text(tries, item.attempts);
  text(next, held ? "when released" : item.state === "accepted" ? "–" : item.next_s > 0 ? `in ${span(item.next_s)}` : state.state === "online" ? "now" : "when connected");
  error.className = item.last_error && !held ? "bad" : "";
  fresh(error, item.last_error, () => [item.last_error || h("span", {class: "dim"}, "none")]);
  fresh(acts, [held, item.editable], () => held || item.editable ? [h("span", {class: "acts"}, held ? act("Release", "release") : act("Hold", "hold"), act("Discard", "discard", "Take this write back, as if it had never been written?"))] : []);
};

/** Makes what is in an element anew when its data is different. */
function fresh(node, data, make) {
  const shape = JSON.stringify(data);
  if (node.dataset.shape === shape) return;
  node.dataset.shape = shape;
  node.replaceChildren(...make());
}

function laneRow(lane) {
  const fact = (label, value) => h("span", {}, `${label} `, h("b", {}, String(value)));
  return h("div", {class: "lane-row"}, h("b", {}, lane.name), h("span", {class: "pill", data: {tone: lane.tone}}, lane.state),
    lane.ribbon.length > 0 && h("div", {class: "ribbon", role: "img", "aria-label": `States so far: ${lane.ribbon.map((part) => part.state).join(", ")}`}, lane.ribbon.map((part) => {
      const piece = h("i", {data: {state: part.state}, title: `${part.state}, ${span(part.seconds)}`});
      piece.style.flexGrow = String(Math.max(part.seconds, 0.5));
      return piece;
    })),
    h("p", {class: "facts"}, lane.head > 0 && [fact("cursor", lane.cursor), fact("head", lane.head), fact("lag", lane.head - lane.cursor)],
      Object.entries(lane.facts).map(([label, value]) => fact(label, value))),
    lane.last_error && h("p", {class: "facts bad"}, lane.last_error));
}

const conflictItem = (client) => (entry) => {
  const open = !entry.resolution;
  const chosen = (button) => [...button.closest("li").querySelectorAll("input:checked")].map((box) => box.value);
  const choices = entry.fields.filter((field) => field.kept);
  const several = open && choices.length > 1;
  const named = {client, number: entry.number, store: entry.store, id: entry.id};
  const mine = (button) => ({...named, action: "mine", fields: several ? chosen(button) : null});
  const first = (field) => several && field.kept ? h("label", {}, h("input", {type: "checkbox", value: field.name, checked: true}), " ", field.name) : field.name;
  return h("li", {class: open ? "" : "done"},
    h("p", {}, h("b", {}, `${entry.store} ${entry.title}`), " ", h("span", {class: "dim"}, entry.resolution || entry.code, ` · ${clock(entry.at_ms)}`)),
    entry.deleted_here && h("p", {}, "You had deleted it."),
    h("table", {}, h("thead", {}, h("tr", {}, ["field", "base", "mine", "theirs"].map((name) => h("th", {}, name)))),
      h("tbody", {}, entry.fields.map((field) => h("tr", {}, cell(first(field)), [field.base, field.mine, field.theirs].map((value) => cell(shown(value))))))),
    open && h("p", {class: "buttons"},
      h("button", {class: "button", type: "button", onclick: decides("conflicts", mine)}, entry.deleted_here ? "Delete it again" : "Keep mine"),
      h("button", {class: "button quiet", type: "button", onclick: decides("conflicts", {...named, action: "theirs"})}, "Take theirs")));
};

function lostItem(client) {
  return (row) => {
    const had = row.deleted_here ? "You had seen it deleted; the hub still has it." : row.gone_there ? "The hub has no such row." : "The hub has a different version.";
    const decide = (action) => decides("lost", {client, numbers: [row.number], action});
    return h("li", {class: row.resolution ? "done" : ""},
      h("p", {}, h("b", {}, `${row.store} ${row.id}`), " ", h("span", {class: "dim"}, `${row.resolution || row.reason} · ${clock(row.at_ms)}`)),
      h("p", {}, had),
      !row.deleted_here && h("table", {}, h("thead", {}, h("tr", {}, ["field", "here", !row.gone_there && "at the hub"].filter(Boolean).map((name) => h("th", {}, name)))),
        h("tbody", {}, row.fields.map((field) => h("tr", {}, cell(field.name), cell(shown(field.mine)), !row.gone_there && cell(shown(field.theirs)))))),
      !row.resolution && h("p", {class: "buttons"},
        h("button", {class: "button", type: "button", onclick: decide("offer")}, row.deleted_here ? "Delete it at the hub" : "Offer it to the hub"),
        h("button", {class: "button quiet", type: "button", onclick: decide("drop")}, "Discard")));
  };
}

function repairItem(repair) {
  const fact = (label, value) => h("span", {}, `${label} `, h("b", {}, String(value)));
  return h("li", {},
    h("p", {}, h("b", {}, repair.title), " ", h("span", {class: "dim"}, `${repair.cause} · ${moment(repair.at_ms)}`)),
    h("p", {}, sentence(repair.why)),
    h("p", {class: "facts"}, Object.entries(repair.numbers).map(([label, number]) => fact(label, number)),
      Object.entries(repair.forks).map(([scope, seq]) => fact(`${scope} diverged after`, seq)), fact("client", `${repair.old} → ${repair.new}`)));
}

function epochItem(epoch) {
  return h("li", {},
    h("p", {}, h("b", {}, `Restored ${moment(epoch.ended_ms)}`), " ", h("span", {class: "dim"}, `epoch ${epoch.epoch} ended`)),
    h("p", {}, sentence(epoch.deletions ? `${epoch.devices}; deletions are ${epoch.deletions}` : epoch.devices)),
    h("p", {class: "dim"}, epoch.absent ? `${plural(epoch.absent, "device")} not connected since:` : "Every device that has written has connected since."),
    epoch.awaited.length > 0 && h("ul", {class: "awaited"}, epoch.awaited.map((device) => h("li", {}, `${device.principal || "nobody"} · ${device.client} · last seen ${moment(device.seen_ms)}`))));
}

export function makePanels(look) {
  const was = new Map();
  return function update(state) {
    keyed(byId("tiles"), tiles(state), (tile) => tile.label, (tile) => h("div", {}, h("dt", {}, tile.label), h("dd", {})), (node, tile) => {
      node.dataset.tone = tile.tone;
      const wanted = `${tile.value}\n${tile.note}`;
      if (node.dataset.shown === wanted) return;
      node.dataset.shown = wanted;
      node.lastChild.replaceChildren(String(tile.value), h("small", {title: tile.note}, tile.note));
    });
    fill("store-list", "stores", state.stores, (store) => storeRow(store, look), was);
    fill("live-list", "live", state.live, liveRow(state.key, Math.max(...state.live.map((query) => query.total_us), 1)), was);
    byId("outbox").querySelector(".empty").hidden = state.outbox.length > 0;
    keyed(byId("outbox-list"), state.outbox, (item) => `${state.key}\n${item.key}`, outboxRow, showWrite(state));
    const retry = byId("outbox-retry");
    retry.hidden = !state.outbox.some((item) => item.state === "queued" || item.state === "sent");
    retry.onclick = decides("outbox", {client: state.key, action: "retry"});
    fill("lane-list", "lanes", state.lanes, laneRow, was);
    entries("conflict-list", "conflicts", state.key, state.conflicts, (entry) => [entry.number, entry.mid, entry.store, entry.id], conflictItem(state.key));
    byId("log-export").href = `/api/inspector/log?${new URLSearchParams({client: state.key})}`;
    entries("lost-list", "lost", state.key, state.lost, (row) => row.number, lostItem(state.key));
    fill("repair-list", "repairs", state.repairs, repairItem, was);
    byId("epochs").hidden = state.epochs === null;
    fill("epoch-list", "epochs", state.epochs ?? [], epochItem, was);
    fill("log-list", "log", state.log, (line) => h("li", {data: {tone: line.tone}}, h("time", {}, clock(line.at_ms)), h("b", {}, line.kind), h("span", {}, line.text)), was);
    for (const node of document.querySelectorAll("nav b")) {
      const items = state[node.dataset.count];
      text(node, (node.dataset.count === "lost" ? items.filter((row) => !row.resolution) : items).length || "");
      node.dataset.tone = {outbox: "warn", conflicts: "bad", lost: "bad"}[node.dataset.count] ?? "";
    }
  };
}
