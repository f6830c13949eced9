// The panels that are lists: tiles, stores, live queries, outbox, lanes, conflicts, log.

import {h, keyed, post, text} from "./dom.js";
import {bytes, clock, micros, moment, plural, span} from "./format.js";

const byId = (id) => document.getElementById(id);
const cell = (value, props = {}) => h("td", props, value);
const none = () => h("i", {}, "null");
const shown = (value) => value === null || value === undefined ? none() : String(value);
const sentence = (words) => words[0].toUpperCase() + words.slice(1) + (words.endsWith(".") ? "" : ".");

/** Fills a list anew when its data is different; says so when there is none. */
function fill(id, panel, items, make, was) {
  const empty = byId(panel).querySelector(".empty");
  if (empty) empty.hidden = items.length > 0;
  const shape = JSON.stringify(items);
  if (was.get(id) === shape) return;
  was.set(id, shape);
  byId(id).replaceChildren(...items.map(make));
}

function tiles(state) {
  const {database: file} = state;
  const lag = state.lanes.reduce((most, lane) => Math.max(most, lane.head - lane.cursor), 0);
  return [
    ["Outbox", state.outbox.length, state.outbox.length ? "waiting for the hub" : "the hub has everything", state.outbox.length ? "warn" : ""],
    ["Behind the hub", lag, lag ? plural(lag, "change") : "nothing to fetch", lag ? "warn" : ""],
    ["Open conflicts", state.conflicts.filter((entry) => !entry.resolution).length, "in the inbox", state.conflicts.some((entry) => !entry.resolution) ? "bad" : ""],
    ["Live queries", state.live.length, `${plural(state.live.reduce((sum, query) => sum + query.evaluations, 0), "run")} so far`, ""],
    ["File", bytes(file.bytes + file.wal_bytes), `${file.name}, ${bytes(file.wal_bytes)} of it log`, ""],
    ["Policy", state.policies.find((policy) => policy.default)?.name ?? "–", "default", ""],
  ].map(([label, value, note, tone]) => ({label, value, note, tone}));
}

function storeRow(store, look) {
  return h("tr", {"aria-selected": String(store.looking), onclick: () => look(store.name)},
    cell(h("button", {type: "button", "aria-expanded": String(store.looking)}, store.name)), cell(store.rows.toLocaleString("en"), {class: "r"}), cell(store.scope), cell(store.conflict),
    cell(store.policy || h("span", {class: "dim"}, "default")),
    cell(h("div", {class: "columns"}, store.columns.map((column) => h("span", {}, column.name, " ", h("small", {}, column.type.toLowerCase() + (column.nullable ? "?" : "")))))));
}

const liveRow = (most) => (query) => h("tr", {},
  cell(h("code", {}, query.query)), cell(h("span", {title: query.reason}, `tier ${query.tier}`), {class: "nowrap"}),
  cell(query.rows.toLocaleString("en"), {class: "r"}), cell(h("span", {title: `${query.held} rows are kept in memory`}, bytes(query.bytes)), {class: "r nowrap"}), cell(query.subscribers, {class: "r"}),
  cell(query.evaluations, {class: "r"}), cell(query.skipped, {class: "r"}), cell(micros(query.last_us), {class: "r"}), cell(micros(query.mean_us), {class: "r"}),
  cell(h("span", {class: "cost"}, h("span", {}, micros(query.total_us)), h("meter", {min: 0, max: most, value: query.total_us, "aria-label": "share of the cost"}))));

function outboxRow(item) {
  const held = item.state === "held";
  const next = held ? "when released" : item.next_s > 0 ? `in ${span(item.next_s)}` : item.state === "waiting" ? "when connected" : "now";
  return h("tr", {}, cell(held ? "–" : item.mid, {class: "r"}),
    cell(item.ops.map((op) => h("div", {}, h("b", {}, op.kind), ` ${op.store} `, h("span", {class: "dim"}, op.summary)))),
    cell(item.state), cell(span(item.age_s), {class: "r"}), cell(item.attempts, {class: "r"}), cell(next, {class: "nowrap"}),
    cell(item.last_error || h("span", {class: "dim"}, "none"), {class: item.last_error ? "bad" : ""}));
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

function conflictItem(entry) {
  return h("li", {class: entry.resolution ? "done" : ""},
    h("p", {}, h("b", {}, `${entry.store} ${entry.title}`), " ", h("span", {class: "dim"}, entry.resolution || entry.code, ` · ${clock(entry.at_ms)}`)),
    h("table", {}, h("thead", {}, h("tr", {}, ["field", "base", "mine", "theirs"].map((name) => h("th", {}, name)))),
      h("tbody", {}, entry.fields.map((field) => h("tr", {}, cell(field.name), [field.base, field.mine, field.theirs].map((value) => cell(shown(value))))))));
}

function lostItem(client) {
  return (row) => {
    const had = row.deleted_here ? "You had seen it deleted; the hub has it." : row.gone_there ? "The hub has no such row." : "The hub has it differently.";
    const decide = (action) => async (event) => {
      const error = byId("lost-error");
      const buttons = event.target.parentElement.querySelectorAll("button");
      for (const button of buttons) button.disabled = true;
      try {
        await post("/api/inspector/lost", {client, numbers: [row.number], action});
        error.hidden = true;
      } catch (problem) {
        text(error, problem.message);
        error.hidden = false;
        for (const button of buttons) button.disabled = false;
      }
    };
    return h("li", {class: row.resolution ? "done" : ""},
      h("p", {}, h("b", {}, `${row.store} ${row.id}`), " ", h("span", {class: "dim"}, `${row.resolution || row.reason} · ${clock(row.at_ms)}`)),
      h("p", {}, had),
      !row.deleted_here && h("table", {}, h("thead", {}, h("tr", {}, ["field", "here", !row.gone_there && "at the hub"].filter(Boolean).map((name) => h("th", {}, name)))),
        h("tbody", {}, row.fields.map((field) => h("tr", {}, cell(field.name), cell(shown(field.mine)), !row.gone_there && cell(shown(field.theirs)))))),
      !row.resolution && h("p", {class: "buttons"},
        h("button", {class: "button", type: "button", onclick: decide("offer")}, row.deleted_here ? "Delete it at the hub" : "Offer it to the hub"),
        h("button", {class: "button quiet", type: "button", onclick: decide("drop")}, "Drop")));
  };
}

function repairItem(repair) {
  const fact = (label, value) => h("span", {}, `${label} `, h("b", {}, String(value)));
  return h("li", {},
    h("p", {}, h("b", {}, repair.title), " ", h("span", {class: "dim"}, `${repair.cause} · ${moment(repair.at_ms)}`)),
    h("p", {}, sentence(repair.why)),
    h("p", {class: "facts"}, Object.entries(repair.numbers).map(([label, number]) => fact(label, number)),
      Object.entries(repair.forks).map(([scope, seq]) => fact(`histories of ${scope} part after`, seq)), fact("client", `${repair.old} → ${repair.new}`)));
}

function epochItem(epoch) {
  return h("li", {},
    h("p", {}, h("b", {}, `Restored ${moment(epoch.ended_ms)}`), " ", h("span", {class: "dim"}, `epoch ${epoch.epoch} ended`)),
    h("p", {}, sentence(`${epoch.devices}; deletions are ${epoch.deletions}`)),
    h("p", {class: "dim"}, epoch.absent ? `${plural(epoch.absent, "device")} not back yet:` : "Every device that has written is back."),
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
    fill("live-list", "live", state.live, liveRow(Math.max(...state.live.map((query) => query.total_us), 1)), was);
    fill("outbox-list", "outbox", state.outbox, outboxRow, was);
    fill("lane-list", "lanes", state.lanes, laneRow, was);
    fill("conflict-list", "conflicts", state.conflicts, conflictItem, was);
    fill("lost-list", "lost", state.lost, lostItem(state.key), was);
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

/** A table of raw rows. */
export function rowsTable(answer) {
  return h("table", {}, h("thead", {}, h("tr", {}, answer.columns.map((name) => h("th", {}, name)))),
    h("tbody", {}, answer.rows.map((row) => h("tr", {}, row.map((value) => h("td", {title: String(value)}, value === null ? none() : String(value)))))));
}
