"""What hostile cards can do to who looks at the demo's page, in a real browser: nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.hostile_rows import MARKUP
from tests.browser.test_demo_http import JSON, ask

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from .conftest import RunningDemo

pytestmark = [pytest.mark.xdist_group("machine"), pytest.mark.browser]
FOLDER = '"><img src=x onerror="window.owned=1">'
"""As much markup as the name of a folder can have; the page shows where the files are."""


def command(demo: RunningDemo, device: str, name: str, **body: object) -> None:
    status, text = ask(demo, "POST", f"/api/{device}/{name}", body, **JSON)
    assert status == 200, text


def card_id(demo: RunningDemo, title: str) -> str:
    rows = json.loads(ask(demo, "GET", "/api/inspector/rows?client=a&store=cards")[1])["rows"]
    return str(next(row[0] for row in rows if title in row))


def test_markup_in_cards_and_conflicts_is_text(
    browser: Browser, start: Callable[[Path], RunningDemo], tmp_path: Path
) -> None:
    """Titles on both boards, what the inbox says of three versions of a row, and the folder of the files."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    demo = start(folder)
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(15_000)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.on("response", lambda answer: complaints.append(answer.url) if answer.status >= 400 else None)
    page.goto(demo.address)
    title = f"first {MARKUP}"
    command(demo, "a", "add", title=title, lane="todo")
    page.wait_for_function("text => document.body.innerText.split(text).length > 2", arg=title)  # on both boards
    id = card_id(demo, title)
    for device in ("a", "b"):
        command(demo, device, "plug", plugged=False)
    command(demo, "a", "edit", id=id, title=f"mine {MARKUP}")
    command(demo, "b", "edit", id=id, title=f"theirs {MARKUP}")
    command(demo, "a", "plug", plugged=True)
    page.wait_for_function("() => document.querySelector('.head[data-device=a] .outbox .count').innerText === '0'")
    command(demo, "b", "plug", plugged=True)
    page.wait_for_selector(".inbox[data-full=true]")
    page.locator(".board[data-device=a] .card", has_text="mine").first.dblclick()  # in the field it is text as well
    text = page.evaluate(
        "document.body.innerText + [...document.querySelectorAll('[title]')].map(e => e.title).join()"
        " + [...document.querySelectorAll('textarea')].map(e => e.value).join()"
    )
    for shown in (f"mine {MARKUP}", f"theirs {MARKUP}", FOLDER):
        assert shown in text, shown
    assert page.evaluate("window.owned") is None
    assert page.evaluate("document.querySelectorAll('[onerror], img[src=x], body script:not([src])').length") == 0
    assert complaints == [], "and the page has asked for nothing that a row names"
    context.close()
