"""The pages of the demo, the inspector and the examples, looked at by axe-core: contrast, names, roles, focus."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import RunningDemo, Window
from tests.browser.test_demo_page import add, expect_agreement, expect_count, pull
from tests.browser.test_example_pages import looked_at, serve
from tests.free_port import free_port
from tests.npm import installed
from tests.scenarios.web.conftest import Served
from tests.unit.bindings.kit import running_hub

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = [pytest.mark.xdist_group("machine"), pytest.mark.browser]

__all__ = ["serve"]  # a fixture

AXE = {"axe-core": "4.14.1"}
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


def objections(page: Page) -> list[str]:
    """What axe-core finds wrong with a page as it is shown: a rule, the element, and why; it has to have found something right."""
    page.evaluate((installed(AXE) / "node_modules" / "axe-core" / "axe.min.js").read_text())
    found = page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)
    assert len(found["passes"]) > 10, "axe-core has looked"
    return [
        f"{rule['id']}: {node['target'][0]}: {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_objected_to_on_the_demo_and_the_inspector(window: Window, demo: RunningDemo, scheme: str) -> None:
    page = window.page
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light", reduced_motion="reduce")
    expect_agreement(page)
    pull(page, "a")
    add(page, "a", "Looked at by everybody")
    assert objections(page) == []
    page.set_viewport_size({"width": 390, "height": 844})
    assert objections(page) == []
    page.goto(f"{demo.address}inspector")
    page.locator("#store-list button").click()
    page.locator("#sql-text").fill("SELECT lane, count(*) AS cards FROM cards GROUP BY lane")
    page.locator("#sql-text").press("Control+Enter")
    expect_count(page.locator("#sql-chart dt"), 3)
    expect_count(page.locator("#outbox-list tr"), 1)
    assert objections(page) == []


def test_nothing_is_objected_to_on_the_pages_of_the_examples(
    browser: Browser, serve: Callable[..., Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from examples.kanban.model import SCHEMA

    with running_hub(tmp_path, SCHEMA) as hub:
        monkeypatch.setenv("KANBAN_HUB", f"ws://{hub}/sync")
        with looked_at(browser, serve("examples.kanban.web:app").address) as page:
            page.get_by_label("What is to be done?").fill("Oil the gate")
            page.get_by_role("button", name="Add").click()
            page.wait_for_function("document.querySelectorAll('li').length === 1")
            assert objections(page) == []
    monkeypatch.setenv("STATION_PORT", port := str(free_port()))
    monkeypatch.setenv("STATION_FOLDER", str(tmp_path))
    with looked_at(browser, serve("examples.sensors.station:app", port).address) as page:
        page.wait_for_function("document.getElementById('total').textContent === '0'")
        assert objections(page) == []
