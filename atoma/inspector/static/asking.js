// Looking things up: the rows of a store page by page, and SQL of somebody's own.

import {h, post, shown, text} from "./dom.js";
import {micros, plural} from "./format.js";

const byId = (id) => document.getElementById(id);
const BARS = {least: 2, most: 40};
const TYPING_MS = 200;

/** A table of rows: `{columns, rows}`. */
function rowsTable(answer) {
  return h("table", {}, h("thead", {}, h("tr", {}, answer.columns.map((name) => h("th", {}, name)))),
    h("tbody", {}, answer.rows.map((row) => h("tr", {}, row.map((value) => h("td", {title: String(value)}, shown(value)))))));
}

/** The rows of the store that is looked at: `update(state, store)`. */
export function makeBrowser() {
  let state = null;
  let store = null;
  let after = "";
  let seen = "";
  let typing = null;

  async function refresh() {
    const spec = state.stores.find((item) => item.name === store);
    byId("browse").hidden = !spec;
    const containing = byId("containing").value;
    const wanted = spec ? JSON.stringify([state.key, store, containing, after, state.database.commit]) : "";
    if (wanted === seen) return;
    seen = wanted;
    if (!spec) return;
    const answer = await fetch(`/api/inspector/rows?${new URLSearchParams({client: state.key, store, containing, after})}`);
    const page = await answer.json().catch(() => ({}));
    if (seen !== wanted) return;
    if (!answer.ok) return text(byId("rows-note"), page.error?.message ?? `The server answered with status ${answer.status}.`);
    byId("rows").replaceChildren(rowsTable(page));
    text(byId("rows-note"), plural(page.rows.length, "row") + (after || page.after ? " on this page" : ""));
    byId("rows-first").disabled = !after;
    byId("rows-next").disabled = !page.after;
    byId("rows-next").onclick = () => turn(page.after);
  }

  function turn(place) {
    after = place;
    byId("rows").scrollTop = 0;
    refresh();
  }

  byId("rows-first").onclick = () => turn("");
  byId("containing").addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => turn(""), TYPING_MS);
  });
  return (next, chosen) => {
    if (state?.key !== next.key || store !== chosen) {
      after = "";
      byId("containing").value = "";
    }
    state = next;
    store = chosen;
    refresh();
  };
}

/** A bar for each row, where there is something to call it and a number. */
function bars(answer) {
  const {columns, rows} = answer;
  const number = columns.findIndex((_, at) => rows.every((row) => row[at] === null || typeof row[at] === "number"));
  const label = columns.findIndex((_, at) => at !== number && rows.some((row) => typeof row[at] === "string")) ;
  if (number < 0 || rows.length < BARS.least || rows.length > BARS.most) return [];
  const name = label >= 0 ? label : columns.findIndex((_, at) => at !== number);
  const value = label >= 0 ? number : columns.findLastIndex((_, at) => at !== name && rows.every((row) => row[at] === null || typeof row[at] === "number"));
  if (name < 0 || value < 0) return [];
  const most = Math.max(...rows.map((row) => Math.abs(row[value] ?? 0)));
  if (!most) return [];
  return rows.map((row) => {
    const bar = h("i", {data: {sign: row[value] < 0 ? "minus" : "plus"}});
    bar.style.width = `${100 * Math.abs(row[value] ?? 0) / most}%`;
    return [h("dt", {title: String(row[name])}, shown(row[name])), h("dd", {}, h("span", {class: "bar"}, bar), h("b", {}, row[value] === null ? "null" : row[value].toLocaleString("en")))];
  });
}

/** The SQL box: `follow(key)` names the client that is asked. What is shown answers the last question, and is of that client. */
export function makeSqlBox() {
  const form = byId("sql-form");
  const field = byId("sql-text");
  let client = null;
  let asked = 0;

  async function run() {
    const error = byId("sql-error");
    const number = ++asked;
    byId("sql-run").disabled = true;
    try {
      const answer = await post("/api/inspector/sql", {client, text: field.value});
      if (number !== asked) return;
      error.hidden = true;
      text(byId("sql-note"), `${plural(answer.rows.length, "row")}${answer.more ? ", and there are more" : ""} in ${micros(answer.us)}${answer.live ? `; live: ${answer.live}` : ""}`);
      byId("sql-plan").replaceChildren(...answer.sources.map((line) => h("li", {}, line)));
      const drawn = bars(answer);
      byId("sql-chart").hidden = !drawn.length;
      byId("sql-chart").replaceChildren(...drawn.flat());
      byId("sql-rows").replaceChildren(rowsTable(answer));
      byId("sql-answer").hidden = false;
    } catch (problem) {
      if (number !== asked) return;
      text(error, problem.message);
      error.hidden = false;
      byId("sql-answer").hidden = true;
    }
    byId("sql-run").disabled = false;
  }

  function follow(key) {
    if (key === client) return;
    client = key;
    asked++;
    byId("sql-run").disabled = false;
    byId("sql-error").hidden = byId("sql-answer").hidden = true;
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    run();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  return follow;
}
