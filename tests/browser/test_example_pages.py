"""The pages of the examples in a real browser: they show what others write, write themselves, and complain about nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.free_port import free_port
from tests.scenarios.examples.kit import DOCS, PICTURES
from tests.scenarios.examples.test_kanban import colleague, lane_of
from tests.scenarios.examples.test_sensors import gateway, said
from tests.scenarios.web.conftest import Served, servers
from tests.unit.bindings.kit import running_hub, until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.xdist_group("machine"), pytest.mark.browser]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Serves an application by its name."""
    with servers(tmp_path) as start:
        yield start


@contextmanager
def looked_at(browser: Browser, address: str) -> Iterator[Page]:
    """A page; nothing may be complained about on it."""
    context = browser.new_context(viewport={"width": 900, "height": 480}, color_scheme="light")
    complaints: list[str] = []
    try:
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"http://{address}/")
        yield page
    finally:
        context.close()
    assert [said for said in complaints if "favicon" not in said and "404" not in said] == []


def test_the_kanban_page_shows_and_moves_what_a_colleague_has(
    browser: Browser, serve: Callable[..., Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from examples.kanban.model import SCHEMA

    with running_hub(tmp_path, SCHEMA) as hub, colleague(tmp_path, hub) as other:
        monkeypatch.setenv("KANBAN_HUB", f"ws://{hub}/sync")
        with looked_at(browser, serve("examples.kanban.web:app").address) as page:
            page.wait_for_function("document.querySelectorAll('li').length === 6")
            if PICTURES:
                page.screenshot(path=DOCS / "kanban-web.png")
            page.get_by_label("What is to be done?").fill("<b>Oil the gate</b>")
            page.get_by_role("button", name="Add").click()
            page.get_by_label("<b>Oil the gate</b>: to doing").click()
            until(lambda: lane_of(other, "<b>Oil the gate</b>") == "doing")
            page.wait_for_function("document.querySelectorAll('section')[1].querySelectorAll('li').length === 2")
            assert page.get_by_role("status").inner_text() == "live"


def test_the_stations_page_counts_what_the_gateway_measures(
    browser: Browser, serve: Callable[..., Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATION_PORT", port := str(free_port()))
    monkeypatch.setenv("STATION_FOLDER", str(tmp_path))
    address = serve("examples.sensors.station:app", port).address
    with (
        looked_at(browser, address) as page,
        gateway(tmp_path, f"ws://{address}/sync", 12 if PICTURES else 3) as running,
    ):
        assert said(running, r"(\d+) to send") == 0
        total = "2,400" if PICTURES else "600"
        page.wait_for_function(f"document.getElementById('total').textContent === '{total}'")
        page.wait_for_function("document.querySelector('polyline').getAttribute('points')?.includes(' ')")
        assert page.locator("#sensors div").count() == 200
        if PICTURES:
            page.screenshot(path=DOCS / "station.png")
        # the station has what is behind each number, by the same name that the examples.sensors.model gives it
        assert len(page.request.get(f"http://{address}/sensors/sensor-007").json()) == (12 if PICTURES else 3)
