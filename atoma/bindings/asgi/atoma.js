// Follows a live query of atoma.bindings.asgi.LiveApp, over server-sent events or, for a ws: address, a WebSocket.
//
//   import { follow } from "/atoma.js";
//   const stop = follow("/live/cards", (rows, state) => draw(rows, state));
//
// `rows` is the whole result, a new array after every change; rows that did not change are the same objects. `state` is
// "live" or "waiting". A third argument is the completeness of the rows: {state: "complete" | "partial" | "stale", …}.
// When the connection is lost, it is opened again after one second, then after two, four … up to thirty.

export function apply(rows, batch) {
  let result = rows.slice();
  for (const change of batch.changes) {
    switch (change.type) {
      case "reset": result = change.rows; break;
      case "insert": result.splice(change.at, 0, change.row); break;
      case "remove": result.splice(change.at, 1); break;
      case "update": result[change.at] = change.row; break;
      case "move": result.splice(change.start, 1); result.splice(change.end, 0, change.row); break;
      default: throw new Error(`atoma.js is older than its server: ${change.type}`);
    }
  }
  return result;
}

export function follow(address, show) {
  let rows = [], completeness, wait = 1000, timer = 0, source = null, stopped = false;
  const url = new URL(address, location.href);

  function took(text) {
    wait = 1000;
    const batch = JSON.parse(text);
    rows = apply(rows, batch);
    completeness = batch.completeness;
    show(rows, "live", completeness);
  }

  function lost() {
    if (stopped || timer) return;
    source.close();
    show(rows, "waiting", completeness);
    timer = setTimeout(open, wait);
    wait = Math.min(2 * wait, 30000);
  }

  function open() {
    timer = 0;
    if (url.protocol.startsWith("ws")) {
      source = new WebSocket(url);
      source.onmessage = (event) => took(event.data);
      source.onclose = lost;
    } else {
      source = new EventSource(url);
      source.addEventListener("batch", (event) => took(event.data));
      source.onerror = lost;
    }
  }

  open();
  return function stop() {
    stopped = true;
    clearTimeout(timer);
    source.close();
  };
}
