"""Where a token that a page has may turn up: in the field of the calls that bring it, in a browser and at the hub, and nowhere else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.browser.foreign_hub import TOKEN
from tests.browser.other_site import open_other_site
from tests.browser.test_foreign_browser import PACK, POST

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Request, Response

pytestmark = [pytest.mark.xdist_group("machine"), pytest.mark.browser]
ROOT = Path(__file__).parents[2]
WRONG = f"{TOKEN}-wrong"
"""What is shown of neither may be shown of the other: it has the right one in it."""


@contextmanager
def talkative(folder: Path, origin: str) -> Iterator[tuple[str, Path]]:
    """A hub that logs all it can, with tokens, and its log."""
    log = folder / "log"
    command = [sys.executable, str(Path(__file__).with_name("foreign_hub.py")), str(folder / "hub.db"), origin, "--log"]
    with log.open("w") as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=said, text=True)
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), log
        finally:
            process.kill()
            process.communicate()


CALLS = """
const fetched = async (path, options) => {
  try { const answer = await fetch(path, options); return [answer.status, await answer.text()]; }
  catch (error) { return ["blocked", String(error)]; }
};
const json = {"content-type": "application/json"};
const socketed = async (token) => {
  try { const {socket, welcome} = await open(token); socket.close(); return [welcome.kind, JSON.stringify(welcome)]; }
  catch (error) { return ["failed", String(error)]; }
};
const body = JSON.stringify({ops: [{index: 0, name: "query", store: "cards", query: {plan: planOf({})}}]});
const found = [];
for (const token of [right, wrong]) {
  const authorization = `Bearer ${token}`, headers = {...json, authorization};
  found.push(await fetched("/v1/query", {method: "POST", headers, body}));
  found.push(await fetched("/v1/query", {method: "POST", headers, body: "{"}));
  found.push(await fetched("/v1/nothing", {method: "POST", headers, body}));
  found.push(await fetched("/v1/query", {method: "POST", headers: {...json, authorization: token}, body}));
  found.push(await fetched(`/v1/query?access_token=${token}`, {method: "POST", headers: json, body}));
  found.push(await fetched(`/v1/docs/cards/pull?scope=main&token=${token}`, {method: "POST", headers: json, body: "{}"}));
  found.push(await fetched(`/v1/notify?scope=main&access_token=${token}`, {headers: {accept: "text/event-stream"}}));
  found.push(await fetched(`/nowhere?token=${token}`));
  found.push(await fetched(`/nowhere`, {method: "POST", headers, body}));
  found.push(await fetched("/sync", {headers: {authorization}}));
  found.push(await socketed(token));
}
return found;
"""
KEPT = """async () => JSON.stringify([
  location.href, document.referrer, document.cookie, document.documentElement.outerHTML, history.state,
  {...localStorage}, {...sessionStorage}, await indexedDB.databases(), await caches.keys().catch(() => []),
  window.name, [...performance.getEntriesByType("navigation")].map((entry) => entry.name),
])"""


LEAVE = """(other) => {
  const link = document.createElement('a');
  link.href = other;
  document.documentElement.append(link);
  link.click();
}"""


def test_a_token_is_in_the_field_that_brings_it_and_nowhere_else(browser: Browser, tmp_path: Path) -> None:
    """Not in an answer, a log line, the console or what the browser keeps; not even one that was put into an address."""
    shown: list[str] = []
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.on("console", lambda message: shown.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: shown.append(f"error: {error}"))

    def answered(answer: Response) -> None:
        shown.append(f"fields of {answer.request.url.partition('?')[0]}: {answer.headers}")

    with open_other_site() as other, talkative(tmp_path, other.rstrip("/")) as (address, log):
        page.on("response", answered)
        page.goto(f"http://{address}/page")
        calls = f"async ([right, wrong]) => {{ {POST} {PACK} {CALLS} }}"
        found = page.evaluate(calls, [TOKEN, WRONG])
        assert [found[0][0], found[10][0], found[11][0]] == [200, "welcome", 401], (
            "a right token is let in, a wrong one not"
        )
        assert {status for status, _ in (*found[3:10], *found[12:])} <= {
            400,
            401,
            403,
            404,
            405,
            426,
            "failed",
            "error",
        }
        shown += [f"answer {number}: {text}" for number, (_, text) in enumerate(found)]
        shown.append(f"kept: {page.evaluate(KEPT)}")
        context.close()
        said = log.read_text()
    assert "DEBUG" in said, "it logs all it can"
    shown += said.splitlines()
    assert [line for line in shown if TOKEN in line or quote(TOKEN) in line] == []


def test_what_stands_in_an_address_goes_to_no_other_site(browser: Browser, tmp_path: Path) -> None:
    """A page with a secret in its address, as links of invitation have one, is left: where one goes does not learn of it."""
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(30_000)
    asked: list[Request] = []
    page.on("request", lambda request: asked.append(request))
    with open_other_site() as other, talkative(tmp_path, other.rstrip("/")) as (address, _):
        for path in ("/page", "/nowhere", "/v1/query", "/v1/openapi.json"):
            asked.clear()
            page.goto(f"http://{address}{path}?token={TOKEN}#{TOKEN}")
            page.evaluate(LEAVE, other)
            page.wait_for_url(other)
            known = "" if path in ("/page", "/nowhere") else f"http://{address}/"
            assert page.evaluate("document.referrer") in ("", known), (
                path,
                "pages do not even say from where one comes",
            )
            told = [(request.url, request.all_headers()) for request in asked if request.url.startswith(other)]
            assert told, path
            assert TOKEN not in repr(told), path
    context.close()
