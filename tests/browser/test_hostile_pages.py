"""What hostile rows and hostile pages can do to who looks at the inspector, in a real browser: nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from atoma_transports.http.calls import TAKES
from atoma_transports.http.documents.asking import VERBS
from atoma_transports.http.envelope import PREFIX
from tests.browser.conftest import BROWSERS, FLAGS
from tests.browser.hostile_rows import MARKUP
from tests.browser.other_site import open_other_site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

pytestmark = [pytest.mark.xdist_group("machine"), pytest.mark.browser]
ROOT = Path(__file__).parents[2]
WRITE = {
    "idem": "key-of-another-site",
    "options": {},
    "ops": [
        {
            "index": 0,
            "name": "insert",
            "store": "cards",
            "id": "forged",
            "scope": "main",
            "values": {"title": "forged", "board": "main"},
        }
    ],
}


PROTOCOL = [
    *(PREFIX + name for name, verbs in TAKES.items() if "POST" in verbs),
    *(f"{PREFIX}docs/cards/{act}?scope=main" for act, verbs in VERBS.items() if "POST" in verbs),
]
"""The paths of a hub that take a POST, with a store of this one."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """An address, and the paths of the inspector there that take a POST."""
    command = [sys.executable, "-m", "tests.browser.hostile_rows", str(tmp_path_factory.mktemp("hostile"))]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process.stdout.readline().split()
    process.kill()
    process.communicate()


@pytest.fixture(scope="module")
def address(served: list[str]) -> str:
    return served[0]


@pytest.fixture(scope="module")
def other_site() -> Iterator[str]:
    with open_other_site() as address:
        yield address


def ask(address: str, path: str, body: object = None, **fields: str) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://{address}{path}", data, {k.replace("_", "-"): v for k, v in fields.items()}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode(errors="replace")


def rows(address: str) -> list[Any]:
    plan = {"source": ["store", "cards"]}
    query = {"ops": [{"index": 0, "name": "query", "store": "cards", "query": {"plan": plan}}]}
    status, text = ask(address, "/v1/query", query, content_type="application/json")
    assert status == 200, text
    return json.loads(text)["results"][0].get("found", {}).get("rows", [])  # type: ignore[no-any-return]


def test_what_somebody_is_about_to_decide_stays_as_the_page_goes_on(browser: Browser, address: str) -> None:
    """What is ticked, and the buttons of writes that wait, while everything around them is shown anew."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.goto(f"http://{address}/inspector")
    first, second = (page.locator("#conflict-list li", has_text=f"conflict {number}") for number in (2, 3))
    second.locator("input").nth(1).uncheck()
    row = page.locator("#outbox-list tr").first
    hold = row.get_by_role("button", name="Hold").element_handle()
    assert hold is not None
    hold.focus()
    age = row.locator("td").nth(3)
    page.wait_for_function("([cell, was]) => cell.textContent !== was", arg=[age.element_handle(), age.text_content()])
    assert hold.evaluate("button => document.activeElement === button")
    first.get_by_role("button", name="Take theirs").click()
    first.get_by_text("dismissed").wait_for()
    assert [box.is_checked() for box in second.locator("input").all()] == [True, False]
    context.close()


def test_the_answer_that_is_shown_is_that_of_the_last_question(browser: Browser, address: str) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.goto(f"http://{address}/inspector")
    page.locator("#store-list button").wait_for()
    held: list[Route] = []

    def slowly(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    page.route("**/api/inspector/sql", slowly)
    with page.expect_request("**/api/inspector/sql"):
        page.locator("#sql-text").fill("SELECT 'the first' AS which")
        page.locator("#sql-text").press("Control+Enter")
    page.locator("#sql-text").fill("SELECT 'the last' AS which")
    page.locator("#sql-text").press("Control+Enter")
    page.locator("#sql-rows td", has_text="the last").wait_for()
    with page.expect_response("**/api/inspector/sql"):
        held[0].continue_()
    page.evaluate("() => new Promise((done) => setTimeout(done, 0))")
    assert page.locator("#sql-rows td").all_text_contents() == ["the last"]
    context.close()


def test_markup_is_text_in_every_place_that_shows_it(browser: Browser, address: str) -> None:
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page: Page = context.new_page()
    page.set_default_timeout(15_000)
    page.goto(f"http://{address}/inspector")
    shown: set[str] = set()
    page.wait_for_function("text => document.body.innerText.includes(text)", arg="title ")
    for number in range(page.locator("button, [role=tab], summary, tr, select, a[href^='#']").count()):
        places = page.locator("button, [role=tab], summary, tr, select, a[href^='#']")
        if number < places.count() and places.nth(number).is_visible():
            places.nth(number).evaluate("element => element.click()")
        text = page.evaluate(
            "document.body.innerText + [...document.querySelectorAll('[title]')].map(e => e.title).join()"
        )
        shown |= {word for word in ("title", "policy", "client", "error") if f"{word} {MARKUP}"[:20] in text}
        assert page.evaluate("window.owned") is None
        assert page.evaluate("document.querySelectorAll('[onerror], img[src=x], body script:not([src])').length") == 0
    assert {"title", "policy", "client", "error"} <= shown
    context.close()


@pytest.mark.parametrize("path", ["/inspector", "/api/inspector", "/api/inspector/rows?client=main&store=cards"])
def test_a_name_that_was_bent_to_this_machine_shows_nothing(path: str, address: str) -> None:
    assert ask(address, path)[0] == 200
    status, text = ask(address, path, host="evil.example")
    assert status == 421
    assert "onerror" not in text


def test_a_browser_at_a_bent_name_sees_nothing(browser: Browser, address: str) -> None:
    program = next(path for name in BROWSERS if (path := shutil.which(name)))
    bent = browser.browser_type.launch(
        executable_path=program, args=[*FLAGS, "--host-resolver-rules=MAP evil.example 127.0.0.1"]
    )
    page = bent.new_page()
    port = address.rpartition(":")[2]
    answer = page.goto(f"http://evil.example:{port}/inspector")
    assert answer is not None
    assert answer.status == 421
    got = page.evaluate("async () => (await fetch('/api/inspector/rows?client=main&store=cards')).status")
    assert got == 421
    bent.close()


def test_a_page_of_another_site_writes_nothing_and_reads_nothing(
    browser: Browser, address: str, other_site: str
) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(other_site)
    sent = """async ([address, body]) => {
      const send = (headers) => fetch(`http://${address}/v1/write`, {method: 'POST', mode: 'no-cors', headers, body})
        .then(() => 'sent', () => 'refused');
      const read = await fetch(`http://${address}/api/inspector/rows?client=main&store=cards`)
        .then((answer) => answer.text(), () => 'unreadable');
      return [await send({'content-type': 'text/plain'}), await send({}), read];
    }"""
    answers = page.evaluate(sent, [address, json.dumps(WRITE)])
    assert answers == ["sent", "sent", "unreadable"]
    page.set_content(
        f"<form method=post enctype=text/plain action='http://{address}/v1/write'>"
        f"<input name='{json.dumps(WRITE)[:-1]},\"trace_id\":\"' value='\"}}'></form>"
    )
    with page.expect_navigation():
        page.evaluate("document.forms[0].submit()")
    for fields in (
        {"origin": "http://other.example"},
        {"sec_fetch_site": "cross-site"},
        {"origin": f"http://{address}", "sec_fetch_site": "same-site"},
    ):  # what a browser adds by itself, had it let the type of JSON pass
        assert ask(address, "/v1/write", WRITE, content_type="application/json", **fields)[0] == 403, fields
    assert rows(address) == []
    context.close()
    assert ask(address, "/v1/write", WRITE, content_type="application/json")[0] == 200
    assert len(rows(address)) == 1  # the same write from its own site is done


FORGED = """async ([address, paths]) => {
  const page = document.body, frame = document.createElement('iframe');
  frame.name = 'answers';
  page.append(frame);
  for (const path of paths) {
    const there = `http://${address}${path}`;
    for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data; boundary=x', ''])
      await fetch(there, {method: 'POST', mode: 'no-cors', credentials: 'include', body: new Blob(['{}'], {type})}).catch(() => 0);
    for (const type of ['application/json', 'application/vnd.msgpack'])  // which the browser asks about first
      await fetch(there, {method: 'POST', credentials: 'include', headers: {'content-type': type}, body: '{}'}).catch(() => 0);
    for (const kind of ['text/plain', 'multipart/form-data', 'application/x-www-form-urlencoded']) {
      const form = document.createElement('form');
      Object.assign(form, {method: 'post', enctype: kind, action: there, target: 'answers'});
      form.append(Object.assign(document.createElement('input'), {name: '{"a":"', value: '"}'}));
      page.append(form);
      const answered = new Promise((done) => frame.onload = done);
      form.submit();
      await answered;
    }
  }
}"""


def test_no_path_that_takes_a_post_takes_it_from_a_page_of_another_site(
    browser: Browser, served: list[str], other_site: str
) -> None:
    address, *inspector = served
    paths = PROTOCOL + inspector
    assert len(inspector) == 5
    sent: list[str] = []
    answers: list[tuple[str, int]] = []
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(30_000)
    page.goto(other_site)
    page.on("request", lambda request: sent.append(request.url) if request.method == "POST" else None)
    page.on(
        "response",
        lambda answer: answers.append((answer.request.url, answer.status)) if answer.request.method == "POST" else None,
    )
    page.evaluate(FORGED, [address, paths])
    context.close()
    assert {status for _, status in answers} <= {403, 415}, answers
    for path in paths:
        url = f"http://{address}{path}"
        assert sent.count(url) >= 7, (path, "four fetches and three forms that a browser sends unasked")
        assert sum(url == answered for answered, _ in answers) >= 3, (path, "and it shows what the forms get")
        for kind in ("application/json", "application/vnd.msgpack", "text/plain"):  # had a browser not asked first
            for fields in ({"origin": "http://other.example"}, {"sec_fetch_site": "cross-site"}):
                assert ask(address, path, [], content_type=kind, **fields)[0] in (403, 415), (path, kind, fields)
        own = {"origin": f"http://{address}", "sec_fetch_site": "same-origin", "content_type": "application/json"}
        assert ask(address, path, [], **own)[0] not in (403, 404, 405, 415), (path, "its own page is let in")
