"""The demo page in a real browser: two boards, two plugs, one truth."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

    from .conftest import RunningDemo, Window

pytestmark = [pytest.mark.xdist_group("machine"), pytest.mark.browser]

IMAGES = Path(__file__).parents[2] / "docs" / "images"
FIRST_CARDS = 12


def board(page: Page, key: str) -> Locator:
    return page.locator(f".board[data-device={key}]")


def head(page: Page, key: str) -> Locator:
    return page.locator(f".head[data-device={key}]")


def card(page: Page, key: str, title: str) -> Locator:
    return board(page, key).locator(".card", has_text=title)


def lane(page: Page, key: str, name: str) -> Locator:
    return board(page, key).locator(f".lane[data-lane={name}]")


def left_edge(locator: Locator) -> float:
    box = locator.bounding_box()
    assert box is not None
    return box["x"]


def expect_text(locator: Locator, text: str | re.Pattern[str]) -> None:
    from playwright.sync_api import expect

    expect(locator).to_have_text(text, timeout=15_000)


def expect_count(locator: Locator, count: int) -> None:
    from playwright.sync_api import expect

    expect(locator).to_have_count(count, timeout=15_000)


def expect_in_view(locator: Locator) -> None:
    from playwright.sync_api import expect

    expect(locator).to_be_in_viewport(timeout=15_000)


def expect_outbox(page: Page, key: str, count: int) -> None:
    expect_text(head(page, key).locator(".outbox .count"), str(count))


def expect_agreement(page: Page) -> None:
    expect_outbox(page, "a", 0)
    expect_outbox(page, "b", 0)
    expect_text(page.locator("#agree"), "Boards agree")
    assert faces(page, "a") == faces(page, "b")


def faces(page: Page, key: str) -> list[list[str]]:
    """The titles on a board, lane by lane, as a person reads them."""
    return [lane(page, key, name).locator(".card .text").all_inner_texts() for name in ("todo", "doing", "done")]


def pull(page: Page, key: str) -> None:
    head(page, key).get_by_role("button", name="Pull the plug").click()
    expect_text(head(page, key).locator(".status"), "Unplugged")


def plug_in(page: Page, key: str) -> None:
    head(page, key).get_by_role("button", name="Plug back in").click()
    expect_text(head(page, key).locator(".status"), "Online")


def add(page: Page, key: str, title: str, where: str = "todo") -> None:
    lane(page, key, where).get_by_role("button", name="Add a card").click()
    page.keyboard.type(title)
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect_count(card(page, key, title), 1)


def rename(page: Page, key: str, title: str, wanted: str) -> None:
    card(page, key, title).focus()
    page.keyboard.press("Enter")
    page.keyboard.type(wanted)
    page.keyboard.press("Enter")
    expect_count(card(page, key, wanted), 1)


def move_right(page: Page, key: str, title: str) -> None:
    found = card(page, key, title)
    found.hover()
    found.get_by_role("button", name="Move right").click()


def shoot(page: Page, name: str) -> None:
    """Write a picture for the documentation, when asked for."""
    if os.environ.get("ATOMA_SCREENSHOTS") == "1":
        IMAGES.mkdir(parents=True, exist_ok=True)
        page.mouse.move(0, 0)
        page.screenshot(path=IMAGES / name, full_page=True)


def test_what_is_added_on_one_side_is_seen_on_the_other(window: Window) -> None:
    page = window.page
    expect_count(board(page, "a").locator(".card"), FIRST_CARDS)
    expect_count(board(page, "b").locator(".card"), FIRST_CARDS)
    assert [title.strip() for title in page.locator(".head .name").all_inner_texts()] == ["Laptop", "Phone"]
    assert left_edge(head(page, "a")) < left_edge(page.locator("#hub")) < left_edge(head(page, "b"))
    assert left_edge(board(page, "a")) < left_edge(board(page, "b"))
    add(page, "a", "Glue the chair", "doing")
    expect_count(lane(page, "b", "doing").locator(".card", has_text="Glue the chair"), 1)
    add(page, "b", "Varnish it")
    expect_count(card(page, "a", "Varnish it"), 1)
    expect_text(card(page, "a", "Varnish it").locator(".sync"), "Synced")
    expect_agreement(page)


def test_two_boards_without_cables_agree_once_they_are_plugged_in(window: Window) -> None:
    page = window.page
    expect_agreement(page)
    pull(page, "a")
    pull(page, "b")
    add(page, "a", "Written on the laptop")
    add(page, "b", "Written on the phone")
    rename(page, "a", "Oil the vice", "Oil the vice, wipe it after")
    rename(page, "b", "Oil the vice", "Oil the vice and the drill press")
    rename(page, "a", "Hang the pegboard", "Hang the pegboard straight")
    move_right(page, "b", "Hang the pegboard")
    expect_count(lane(page, "b", "doing").locator(".card", has_text="Hang the pegboard"), 1)
    expect_outbox(page, "a", 3)
    expect_outbox(page, "b", 3)
    expect_text(card(page, "a", "Written on the laptop").locator(".sync"), "Waiting")
    expect_text(board(page, "b").locator(".banner"), re.compile("3 changes wait here"))
    assert card(page, "b", "Written on the laptop").count() == 0
    assert card(page, "a", "Written on the phone").count() == 0
    plug_in(page, "a")
    expect_outbox(page, "a", 0)
    shoot(page, "demo.png")
    plug_in(page, "b")
    expect_text(page.locator("#agree"), "1 conflict to decide")
    for key in ("a", "b"):
        expect_count(card(page, key, "Written on the laptop"), 1)
        expect_count(card(page, key, "Written on the phone"), 1)
        # one side renamed it, the other moved it: both are kept
        expect_count(lane(page, key, "doing").locator(".card", has_text="Hang the pegboard straight"), 1)
        # both renamed it: the first one stands, the other is in the inbox of whoever wrote it
        expect_count(card(page, key, "Oil the vice, wipe it after"), 1)
    expect_text(board(page, "a").locator(".inbox .count"), "0")
    expect_text(board(page, "b").locator(".inbox .count"), "1")
    fields = board(page, "b").locator(".conflict tbody tr")
    expect_text(fields, re.compile("title.*Oil the vice.*drill press.*wipe it after"))
    shoot(page, "conflict.png")
    board(page, "b").get_by_role("button", name="Keep mine").click()
    expect_text(board(page, "b").locator(".inbox .count"), "0")
    expect_count(card(page, "a", "Oil the vice and the drill press"), 1)
    expect_agreement(page)


def test_a_conflict_can_be_let_go(window: Window) -> None:
    page = window.page
    pull(page, "b")
    rename(page, "a", "Sharpen the chisels", "Sharpen every chisel")
    rename(page, "b", "Sharpen the chisels", "Sharpen one chisel")
    expect_outbox(page, "a", 0)
    plug_in(page, "b")
    page.set_viewport_size({"width": 1280, "height": 500})
    page.get_by_role("link", name="1 conflict to decide").click()
    expect_in_view(board(page, "b").locator(".conflict"))
    board(page, "b").get_by_role("button", name="Take theirs").click()
    expect_count(board(page, "b").locator(".conflict"), 0)
    expect_count(card(page, "b", "Sharpen every chisel"), 1)
    expect_agreement(page)


def test_one_field_is_kept_and_another_let_go(window: Window) -> None:
    page = window.page
    pull(page, "b")
    move_right(page, "a", "Sharpen the chisels")
    card(page, "b", "Sharpen the chisels").drag_to(lane(page, "b", "done"))
    expect_count(lane(page, "b", "done").locator(".card", has_text="Sharpen the chisels"), 1)
    expect_outbox(page, "a", 0)
    plug_in(page, "b")
    conflict = board(page, "b").locator(".conflict")
    keep = conflict.get_by_role("button", name="Keep mine")
    expect_count(conflict.get_by_role("checkbox"), 2)
    shoot(page, "conflict-fields.png")
    for name in ("lane", "pos"):
        conflict.locator("tr", has_text=name).get_by_role("checkbox").uncheck()
    assert keep.is_disabled()
    conflict.locator("tr", has_text="lane").get_by_role("checkbox").check()
    keep.click()
    expect_count(lane(page, "a", "done").locator(".card", has_text="Sharpen the chisels"), 1)
    expect_count(board(page, "b").locator(".conflict"), 0)
    expect_agreement(page)


def test_a_card_that_is_gone_is_said_to_be_deleted(window: Window) -> None:
    page = window.page
    pull(page, "b")
    card(page, "a", "Sharpen the chisels").focus()
    page.keyboard.press("Delete")
    expect_count(card(page, "a", "Sharpen the chisels"), 0)
    rename(page, "b", "Sharpen the chisels", "Sharpen one chisel")
    expect_outbox(page, "a", 0)
    plug_in(page, "b")
    expect_text(board(page, "b").locator(".conflict .what"), re.compile("was deleted on another device first"))
    expect_text(board(page, "b").locator(".conflict tbody tr"), re.compile("^title.*Sharpen one chisel.*deleted$"))


def test_cards_are_moved_and_deleted_by_mouse_and_by_keys(window: Window) -> None:
    page = window.page
    card(page, "a", "Oil the vice").drag_to(lane(page, "a", "done"))
    expect_count(lane(page, "b", "done").locator(".card", has_text="Oil the vice"), 1)
    chisels = card(page, "b", "Sharpen the chisels")
    chisels.focus()
    page.keyboard.press("Control+ArrowRight")
    expect_count(lane(page, "a", "doing").locator(".card", has_text="Sharpen the chisels"), 1)
    page.keyboard.press("Delete")
    expect_count(card(page, "a", "Sharpen the chisels"), 0)
    expect_count(board(page, "b").locator(".card"), FIRST_CARDS - 1)
    ladder = card(page, "a", "Borrow a ladder")
    ladder.hover()
    ladder.get_by_role("button", name="Edit the title").click()
    page.keyboard.type("no, this is not wanted")
    page.keyboard.press("Escape")
    expect_count(card(page, "a", "Borrow a ladder"), 1)
    expect_agreement(page)


def test_a_card_that_is_dropped_between_two_others_stays_there(window: Window) -> None:
    page = window.page
    expect_agreement(page)
    before = card(page, "a", "Oil the vice")
    card(page, "a", "Sweep under the bench").drag_to(before, target_position={"x": 40, "y": 4})
    wanted = ["Sharpen the chisels", "Sweep under the bench", "Oil the vice"]
    for key in ("a", "b"):
        for place, title in enumerate(wanted):
            expect_text(lane(page, key, "todo").locator(".card .text").nth(place), title)
    expect_agreement(page)


def test_the_inspector_shows_what_the_device_is_doing(window: Window, demo: RunningDemo) -> None:
    page = window.page
    expect_agreement(page)
    pull(page, "a")
    add(page, "a", "Seen by the inspector")
    page.goto(f"{demo.address}inspector")
    expect_text(page.locator("#store-list tr td").nth(0), "cards")
    expect_text(page.locator("#store-list tr td").nth(1), str(FIRST_CARDS + 1))
    expect_text(page.locator("#state"), re.compile("Offline|Connecting"))
    expect_text(page.locator("#outbox-list tr td").nth(1), re.compile("create cards.*Seen by the inspector"))
    expect_text(page.locator("#live-list code"), re.compile("cards: .*ORDER BY pos, id"))
    page.locator("#live-list").get_by_role("button", name="Plan").click()
    expect_text(page.locator("#live-list .plan li").first, re.compile("cards"))
    page.locator("#trails button", has_text="create cards").first.click()
    expect_text(page.locator("#trail .steer p"), re.compile("Step 1 of 2: local-write ok"))
    page.get_by_role("button", name="Next step").click()
    expect_text(page.locator("#trail .steer p"), re.compile("Step 2 of 2: outbox ok"))
    expect_count(page.locator("#graph .node.on"), 2)
    expect_text(page.locator("#lost .empty"), "Nothing is lost.")
    expect_text(page.locator("#repairs > .empty"), "This file has never needed a repair.")
    expect_text(page.locator("#epochs .empty"), "The hub was never restored.")
    shoot(page, "inspector.png")
    page.locator("#store-list button").click()
    expect_count(page.locator("#rows tbody tr"), FIRST_CARDS + 1)
    page.get_by_role("button", name="Phone").click()
    expect_text(page.locator("#state"), "Online")
    expect_text(page.locator("#lane-list .lane-row").nth(1), re.compile(r"Scope main.*live.*lag 0"))
    expect_count(page.locator("#outbox-list tr"), 0)


def test_in_the_inspector_rows_are_found_and_what_waits_is_decided(window: Window, demo: RunningDemo) -> None:
    page = window.page
    expect_agreement(page)
    pull(page, "a")
    pull(page, "b")
    title = card_titles(page)[0]
    rename(page, "a", title, "Named on the laptop")
    add(page, "a", "Held back")
    rename(page, "b", title, "Named on the phone")
    plug_in(page, "a")
    expect_outbox(page, "a", 0)
    pull(page, "a")
    add(page, "a", "Taken back")
    plug_in(page, "b")
    page.goto(f"{demo.address}inspector")
    row = page.locator("#outbox-list tr", has_text="Taken back")
    row.get_by_role("button", name="Hold").click()
    expect_text(row.locator("td").nth(2), "held")
    page.once("dialog", lambda dialog: dialog.accept())
    row.get_by_role("button", name="Discard").click()
    expect_count(page.locator("#outbox-list tr"), 0)
    page.locator("#store-list button").click()
    expect_count(page.locator("#rows tbody tr"), FIRST_CARDS + 1)
    page.get_by_role("searchbox").fill("held back")
    expect_count(page.locator("#rows tbody tr"), 1)
    page.locator("#sql-text").fill("SELECT lane, count(*) AS cards FROM cards GROUP BY lane ORDER BY lane")
    page.locator("#sql-text").press("Control+Enter")
    expect_text(page.locator("#sql-chart dt").nth(0), "doing")
    expect_count(page.locator("#sql-rows tbody tr"), 3)
    expect_text(page.locator("#sql-plan li"), re.compile("SCAN cards"))
    shoot(page, "inspector-sql.png")
    page.get_by_role("button", name="Phone").click()
    conflict = page.locator("#conflict-list li", has_text="Named on the phone")
    conflict.get_by_role("button", name="Keep mine").click()
    expect_text(conflict.locator(".dim").first, re.compile("kept mine"))


def card_titles(page: Page) -> list[str]:
    return [title for lane in faces(page, "a") for title in lane]


def test_every_policy_can_be_drawn(window: Window, demo: RunningDemo) -> None:
    page = window.page
    page.goto(f"{demo.address}inspector")
    names = page.locator("#policies option")
    expect_count(page.locator("#graph .node"), 2)
    for name in [str(names.nth(index).get_attribute("value")) for index in range(names.count())]:
        page.select_option("#policies", name)
        drawn = 0
        for mode in ("write", "query"):
            page.locator("#modes button", has_text=mode).click()
            nodes = page.locator("#graph .node").count()
            drawn += nodes
            assert nodes or page.locator("#graph", has_text=f"{name} has no {mode} graph.").count(), f"{name} {mode}"
        assert drawn, name


def test_nothing_sticks_out_on_small_screens(window: Window, demo: RunningDemo) -> None:
    page = window.page
    for path, first, text in (("", "#agree", "Boards agree"), ("inspector", "#store-list td", "cards")):
        page.goto(demo.address + path)
        expect_text(page.locator(first).first, text)
        for width in (360, 700, 1000):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") <= width, f"/{path} at {width}"


def test_a_phone_shows_one_device_and_lets_peek_at_the_other(window: Window, demo: RunningDemo) -> None:
    page = window.page
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(demo.address)
    expect_agreement(page)
    laptop, phone = page.locator(".tab[data-device=a]"), page.locator(".tab[data-device=b]")
    assert laptop.get_attribute("aria-current") == "true"
    assert head(page, "a").is_visible()
    assert not head(page, "b").is_visible()
    before = phone.locator(".peek i i").count()

    pull(page, "a")
    add(page, "a", "Seen from the other tab")
    expect_text(laptop.locator(".state"), "1 waiting")
    assert phone.locator(".peek i i").count() == before
    plug_in(page, "a")
    expect_count(phone.locator(".peek i i"), before + 1)

    phone.click()
    assert card(page, "b", "Seen from the other tab").is_visible()
    assert not board(page, "a").is_visible()
    assert (laptop.get_attribute("aria-current"), phone.get_attribute("aria-current")) == ("false", "true")


def test_the_theme_can_be_chosen_and_is_remembered(window: Window, demo: RunningDemo) -> None:
    page = window.page
    page.get_by_role("button", name="Use the dark theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.goto(f"{demo.address}inspector")
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "dark"
