"""``atoma.js`` in a real browser: a page follows a live query, and finds its way back when the server was away."""

from __future__ import annotations

import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.scenarios.web.conftest import Served, servers

if TYPE_CHECKING:
    from playwright.sync_api import Browser

BACK_MS = 60_000  # a page that has waited some times waits longer each time


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serves an application by its name."""
    with servers(tmp_path) as start:
        yield start


pytestmark = [pytest.mark.xdist_group("machine"), pytest.mark.browser]
APPLY = """async () => {
  const { apply } = await import("/atoma.js");
  const rows = [{id: "a"}, {id: "b"}, {id: "c"}];
  const after = apply(rows, {commit: 1, changes: [
    {type: "move", start: 0, end: 2, row: {id: "a", moved: true}},
    {type: "remove", at: 0, id: "b"},
    {type: "insert", at: 1, row: {id: "d"}},
    {type: "update", at: 0, row: {id: "c", new: true}},
  ]});
  return [after, rows.length, after[2].moved, apply(after, {changes: [{type: "reset", rows: []}]})];
}"""


def add(served: Served, title: str) -> None:
    urllib.request.urlopen(
        urllib.request.Request(f"http://{served.address}/cards/{title}", method="POST"), timeout=10
    ).close()


@pytest.mark.parametrize("way", ["", "#ws"])
def test_a_page_shows_what_is_written_and_comes_back(browser: Browser, serve: Callable[..., Served], way: str) -> None:
    served = serve("fastapi")
    context = browser.new_context()
    try:
        page = context.new_page()
        page.set_default_timeout(BACK_MS)
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"http://{served.address}/{way}")
        page.wait_for_function("document.getElementById('state').textContent === 'live'")
        add(served, "tea")
        page.wait_for_function("document.getElementById('cards').textContent === 'tea'")
        served.process.kill()
        served.process.communicate()
        page.wait_for_function("document.getElementById('state').textContent === 'waiting'")
        again = serve("fastapi", served.address.rpartition(":")[2])
        add(again, "zwieback")
        page.wait_for_function("document.getElementById('cards').textContent === 'teazwieback'")
        assert errors == []
    finally:
        context.close()


def test_changes_are_applied_in_order_and_together(browser: Browser, serve: Callable[..., Served]) -> None:
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(f"http://{serve('fastapi').address}/")
        assert page.evaluate(APPLY) == [
            [{"id": "c", "new": True}, {"id": "d"}, {"id": "a", "moved": True}],
            3,
            True,
            [],
        ]
    finally:
        context.close()
