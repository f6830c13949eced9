"""A page with nothing of ours in it: its fetch, its EventSource and its WebSocket against a hub."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.xdist_group("machine"), pytest.mark.browser]
ROOT = Path(__file__).parents[2]

POST = """
const post = async (method, body) => {
  const answer = await fetch(`/v1/${method}`, {
    method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body),
  });
  return {status: answer.status, body: await answer.json()};
};
const write = (id, values) => post("write", {
  idem: `key-${id}`, options: {},
  ops: [{index: 0, name: "insert", store: "cards", id, scope: "main", values}],
});
const planOf = (parts) => ({source: ["store", "cards"], ...parts});
const byId = (id) => ({where: ["call", "eq", [["col", 0, "id"], ["lit", "text", id]]]});
const query = (parts) =>
  post("query", {ops: [{index: 0, name: "query", store: "cards", query: {plan: planOf(parts)}}]});
const card = (title) => ({title, board: "main", data: {"$x": "AP8"}, number: {"$i": "9007199254740993"}});
"""

PACK = """
const pack = (value) => {
  const out = [];
  const head = (short, limit, wide, n) => { if (n < limit) out.push(short | n); else out.push(wide, n >> 8, n & 255); };
  const put = (v) => {
    if (v === null) out.push(0xc0);
    else if (v === true || v === false) out.push(v ? 0xc3 : 0xc2);
    else if (typeof v === "number") {
      if (v >= 0 && v < 128) out.push(v);
      else if (v >= -32 && v < 0) out.push(v & 255);
      else out.push(0xd2, (v >> 24) & 255, (v >> 16) & 255, (v >> 8) & 255, v & 255);
    } else if (typeof v === "string") {
      const bytes = new TextEncoder().encode(v); head(0xa0, 32, 0xda, bytes.length); out.push(...bytes);
    } else if (v instanceof Uint8Array) { out.push(0xc5, v.length >> 8, v.length & 255, ...v); }
    else if (Array.isArray(v)) { head(0x90, 16, 0xdc, v.length); v.forEach(put); }
    else { const pairs = Object.entries(v); head(0x80, 16, 0xde, pairs.length); pairs.flat().forEach(put); }
  };
  put(value);
  return new Uint8Array(out);
};
const unpack = (bytes) => {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const take = (n) => bytes.subarray(at, at += n);
  const text = (n) => new TextDecoder().decode(take(n));
  const list = (n) => Array.from({length: n}, get);
  const map = (n) => Object.fromEntries(Array.from({length: n}, () => [get(), get()]));
  const number = (n, read) => { at += n; return read(at - n); };
  const u8 = () => bytes[at++], u16 = () => number(2, (i) => view.getUint16(i));
  const u32 = () => number(4, (i) => view.getUint32(i));
  function get() {
    const tag = u8();
    if (tag < 0x80) return tag;
    if (tag < 0x90) return map(tag & 15);
    if (tag < 0xa0) return list(tag & 15);
    if (tag < 0xc0) return text(tag & 31);
    if (tag >= 0xe0) return tag - 256;
    switch (tag) {
      case 0xc0: return null; case 0xc2: return false; case 0xc3: return true;
      case 0xc4: return take(u8()); case 0xc5: return take(u16()); case 0xc6: return take(u32());
      case 0xcb: return number(8, (i) => view.getFloat64(i));
      case 0xcc: return u8(); case 0xcd: return u16(); case 0xce: return u32();
      case 0xcf: return number(8, (i) => view.getBigUint64(i).toString());
      case 0xd0: return number(1, (i) => view.getInt8(i)); case 0xd1: return number(2, (i) => view.getInt16(i));
      case 0xd2: return number(4, (i) => view.getInt32(i)); case 0xd3: return number(8, (i) => view.getBigInt64(i).toString());
      case 0xd9: return text(u8()); case 0xda: return text(u16()); case 0xdb: return text(u32());
      case 0xdc: return list(u16()); case 0xdd: return list(u32()); case 0xde: return map(u16()); case 0xdf: return map(u32());
    }
    throw new Error(`no msgpack: ${tag}`);
  }
  return get();
};
const open = async (token) => {
  const socket = new WebSocket(`ws://${location.host}/sync`);
  socket.binaryType = "arraybuffer";
  const frames = [], waiting = [];
  const arrived = (frame) => waiting.length ? waiting.shift()(frame) : frames.push(frame);
  socket.onmessage = (event) => arrived(unpack(new Uint8Array(event.data)));
  socket.onclose = (event) => arrived([1, "closed", event.code]);
  await new Promise((done, failed) => { socket.onopen = done; socket.onerror = failed; });
  const next = () => frames.length ? Promise.resolve(frames.shift()) : new Promise((done) => waiting.push(done));
  const send = (kind, id, message, method = "", credit = 0) =>
    socket.send(pack([1, kind, id, method, -1, "", credit, message === null ? new Uint8Array() : pack(message)]));
  send("auth", 0, {token});
  const [, kind, , , , , , payload] = await next();
  return {socket, send, next, welcome: {kind, ...unpack(payload)}};
};
"""


@contextmanager
def running(folder: Path, *origins: str) -> Iterator[str]:
    """The address of a running hub."""
    command = [sys.executable, str(Path(__file__).with_name("foreign_hub.py")), str(folder / "hub.db"), *origins]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a running hub."""
    with running(tmp_path_factory.mktemp("hub")) as found:
        yield found


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A page from the hub's own address."""
    context = browser.new_context()
    opened = context.new_page()
    opened.set_default_timeout(30_000)
    opened.goto(f"http://{address}/page")
    yield opened
    context.close()


def run(page: Page, script: str) -> Any:
    """What ``script``, the body of an async function, returns in the page."""
    return page.evaluate(f"async () => {{ {POST} {PACK} {script} }}")


def test_fetch_writes_and_reads_rows(page: Page) -> None:
    found = run(
        page,
        """
        const written = await write("fetched", card("über fetch"));
        const read = await query(byId("fetched"));
        const wrong = await query({order: [[["col", 0, "nowhere"]]]});
        return {written, read, wrong};
        """,
    )
    assert found["written"]["status"] == 200
    result = found["read"]["body"]["results"][0]["found"]
    row = dict(zip(result["columns"], result["rows"][0][4:], strict=True))
    assert row == {"title": "über fetch", "board": "main", "data": {"$x": "AP8"}, "number": {"$i": "9007199254740993"}}
    assert (found["wrong"]["status"], found["wrong"]["body"]["error"]["code"]) == (409, "QUERY")


def test_an_event_source_gets_hints_while_the_page_writes(page: Page) -> None:
    heads = run(
        page,
        """
        const source = new EventSource("/v1/notify?scope=main");
        const heads = [];
        await new Promise((done, failed) => {
          source.onerror = () => failed(new Error("the stream failed"));
          source.addEventListener("hint", async (event) => {
            heads.push(Number(JSON.parse(event.data).head));
            if (heads.length == 4) done();
            else await write(`event-${heads.length}`, card("x"));
          });
        });
        source.close();
        return heads;
        """,
    )
    assert heads == sorted(set(heads))
    assert len(heads) == 4


def test_fetch_reads_events_with_a_token_in_the_header(page: Page) -> None:
    text = run(
        page,
        """
        const answer = await fetch("/v1/notify", {
          method: "POST", body: JSON.stringify({scopes: ["main"]}),
          headers: {"content-type": "application/json", "authorization": "Bearer any"},
        });
        const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
        let text = "";
        while (!text.includes("event: hint")) text += (await reader.read()).value;
        await reader.cancel();
        return text;
        """,
    )
    assert 'data: {"scope":"main","head":"' in text


def test_a_websocket_on_the_same_port_carries_calls_and_hints(page: Page) -> None:
    found = run(
        page,
        """
        await write("socketed", card("über WebSocket"));
        const {socket, send, next, welcome} = await open("any");
        const asked = pack([1, planOf(byId("socketed")), []]);
        const op = {index: 0, name: "query", store: "cards", query: asked};
        send("call", 1, {ops: [op], trace_id: ""}, "query");
        const reply = await next();
        send("stream", 2, {scopes: ["main"]}, "notify", 8);
        const hint = await next();
        send("cancel", 2, null);
        send("call", 3, {nonsense: 1}, "query");
        let refused = await next();
        while (refused[2] != 3) refused = await next();
        socket.close();
        return {welcome, reply: [reply[1], reply[2], JSON.stringify(unpack(reply[7]))],
                hint: [hint[1], hint[2], unpack(hint[7])], refused: [refused[1], unpack(refused[7]).code]};
        """,
    )
    assert (found["welcome"]["kind"], found["welcome"]["principal"]) == ("welcome", "local")
    kind, id, reply = found["reply"]
    assert (kind, id) == ("reply", 1)
    assert "über WebSocket" in reply
    assert "9007199254740993" in reply
    assert found["hint"][:2] == ["item", 2]
    assert found["hint"][2]["scope"] == "main"
    assert found["refused"] == ["error", "MALFORMED"]


def test_pages_of_other_sites_get_nothing(browser: Browser, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://{address.replace('127.0.0.1', 'localhost')}/page")  # the same machine, but another site
    outcome = page.evaluate(
        """async (there) => {
          const ask = async (path, options) => {
            try { return (await fetch(there + path, options)).status; } catch { return "blocked"; }
          };
          const json = {method: "POST", headers: {"content-type": "application/json"}, body: "{}"};
          const form = {method: "POST", headers: {"content-type": "text/plain"}, body: "{}", mode: "no-cors"};
          const socket = new WebSocket(there.replace("http", "ws") + "/sync");
          const opened = await new Promise((done) => {
            socket.onopen = () => done("open");
            socket.onerror = () => done("refused");
          });
          return [await ask("/v1/query", json), await ask("/v1/query", form), await ask("/v1/notify?scope=main"), opened];
        }""",
        f"http://{address}",
    )
    assert outcome[0] == "blocked"
    assert outcome[1] in (0, "blocked")
    assert outcome[2] == "blocked"
    assert outcome[3] == "refused"
    context.close()


def test_a_page_of_a_site_that_is_named_calls_listens_and_connects(
    browser: Browser, address: str, tmp_path: Path
) -> None:
    context = browser.new_context()
    page = context.new_page()
    site = f"http://{address.replace('127.0.0.1', 'localhost')}"
    page.goto(f"{site}/page")
    with running(tmp_path, site) as there:
        outcome = page.evaluate(
            """async (there) => {
              const headers = {"content-type": "application/json", authorization: "Bearer good"};
              const ask = async (path, body) => {
                const answer = await fetch(`http://${there}${path}`, {method: "POST", headers, body: JSON.stringify(body)});
                return [answer.status, await answer.text()];
              };
              const plan = {source: ["store", "cards"]};
              const listened = await fetch(`http://${there}/v1/notify?scope=main`, {headers: {authorization: "Bearer good"}});
              const reader = listened.body.pipeThrough(new TextDecoderStream()).getReader();
              let hint = "";
              while (!hint.includes("data:")) hint += (await reader.read()).value;
              await reader.cancel();
              const source = new EventSource(`http://${there}/v1/notify?scope=main`);
              const events = await new Promise((done) => {
                source.onopen = () => done("open");
                source.onerror = () => done("no token");
              });
              source.close();
              const socket = new WebSocket(`ws://${there}/sync`);
              const opened = await new Promise((done) => {
                socket.onopen = () => done("open");
                socket.onerror = () => done("refused");
              });
              socket.close();
              const query = await ask("/v1/query", {ops: [{index: 0, name: "query", store: "cards", query: {plan}}]});
              return [query, await ask("/v1/query", {}), hint, events, opened];
            }""",
            there,
        )
    query, wrong, hint, events, opened = outcome
    assert query[0] == 200
    assert (wrong[0], "MALFORMED" in wrong[1]) == (400, True)
    assert "event: hint" in hint
    assert (events, opened) == ("no token", "open")
    context.close()
