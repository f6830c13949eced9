"""A window on many rows: it holds some hundred, follows what is written, and keeps what is marked."""

from __future__ import annotations

import gc
import queue
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial

import pytest

from atoma import Schema, col, select
from atoma.bindings import blocking, feeding
from atoma.bindings.feeding import WINDOW_ROWS
from atoma.bindings.window import Window
from atoma.errors import AtomaError, QueryError
from tests.unit.bindings.kit import NOTES, Note, local, loops

ROWS = 5_000
QUERY = select(NOTES).order_by("text")


class Place:
    """A host without a loop: what is posted waits until the test comes for it."""

    def __init__(self) -> None:
        self.posted: queue.Queue[Callable[[], None]] = queue.Queue()

    def until(self, happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not happened():
            self.posted.get(timeout=max(0.01, deadline - time.monotonic()))()


def note(number: int, suffix: str = "") -> Note:
    return Note(id=f"{number:05}{suffix}", text=f"{number:05}{suffix}")


@contextmanager
def opened(rows: int = ROWS) -> Generator[tuple[blocking.Client, Place, Window[Note]]]:
    with blocking.open_client(Schema(NOTES), plugins=local()) as client:
        client.store(NOTES).insert_many([note(number) for number in range(rows)])
        place = Place()
        window = Window(client, QUERY, place.posted.put)
        place.until(lambda: len(window) == rows and (not rows or window.row(0) is not None))
        yield client, place, window


def held(window: Window[Note]) -> list[str]:
    return [row.text for number in range(len(window)) if (row := window.row(number)) is not None]


def test_rows_far_away_come_when_they_are_shown_and_few_are_held() -> None:
    with opened() as (_, place, window):
        for number in (4_990, 2_500, 10, 3_000, 4_999, 0):
            window.show(number, 20)
            place.until(lambda number=number: window.row(number) is not None)  # type: ignore[misc]
            assert [window.row(number).text for number in range(number, min(ROWS, number + 3))] == [  # type: ignore[union-attr]
                f"{number:05}" for number in range(number, min(ROWS, number + 3))
            ]
            assert len(held(window)) <= WINDOW_ROWS


def test_a_view_that_asks_again_with_every_repaint_gets_rows_that_are_a_long_way_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feeding, "HOP_ROWS", 10)  # so that it takes a while
    with opened() as (_, place, window):
        deadline = time.monotonic() + 20
        while window.row(2_500) is None:
            assert time.monotonic() < deadline, "asking again begins the way anew"
            window.show(2_490, 20)
            time.sleep(0.005)
            while not place.posted.empty():
                place.posted.get()()
        assert window.row(2_500) == note(2_500)


def test_what_is_marked_is_followed_by_its_key() -> None:
    with opened() as (client, place, window):
        store = client.store(NOTES)
        window.marked = 100
        store.insert_many([note(50, "a"), note(51, "b"), note(300, "c")])
        place.until(lambda: len(window) == ROWS + 3)
        assert (window.marked, window.marked_key) == (102, "00100")
        assert window.row(102) == note(100)
        store.delete("00007")
        place.until(lambda: len(window) == ROWS + 2)
        assert (window.marked, window.marked_key) == (101, "00100")
        store.update("00100", text="00000b")  # it is sorted among the first
        place.until(lambda: window.marked == 1)
        assert window.marked_key == "00100"
        store.delete("00100")
        place.until(lambda: len(window) == ROWS + 1)
        assert (window.marked, window.marked_key) == (1, "00001")


def test_what_is_written_above_does_not_move_what_is_shown_and_the_ends_are_exact() -> None:
    with opened() as (client, place, window):
        window.show(3_000, 20)
        place.until(lambda: window.row(3_000) is not None)
        client.store(NOTES).insert_many([note(1, f"-{number:03}") for number in range(700)])
        place.until(lambda: len(window) == ROWS + 700)
        assert window.row(3_000) == note(3_000), "700 rows came in above"
        window.show(len(window) - 20, 20)
        place.until(lambda: window.row(len(window) - 1) is not None)
        assert window.row(len(window) - 1) == note(ROWS - 1)
        window.show(0, 20)
        place.until(lambda: window.row(0) is not None)
        assert held(window)[:3] == ["00000", "00001", "00001-000"]


def test_no_rows_and_the_first_ones() -> None:
    with opened(0) as (client, place, window):
        assert (len(window), window.row(0), window.marked) == (0, None, None)
        client.store(NOTES).insert(note(1))
        place.until(lambda: len(window) == 1)
        assert held(window) == ["00001"]
        client.store(NOTES).delete("00001")
        place.until(lambda: len(window) == 0)
        assert window.row(0) is None


def test_a_window_that_is_closed_or_forgotten_ends_and_leaves_nothing() -> None:
    with opened(10) as (client, place, window):
        window.close()
        client.store(NOTES).insert(note(77))
        assert len(window) == 10
        window.close()
        other = Window(client, QUERY, place.posted.put)
        place.until(partial(lambda window: len(window) == 11, other))
        del other
        gc.collect()
    assert not loops()
    assert threading.active_count() < 10


def test_a_host_that_has_gone_ends_the_window_and_harms_nobody() -> None:
    def gone(function: Callable[[], None]) -> None:
        raise RuntimeError("the loop is closed")

    with blocking.open_client(Schema(NOTES), plugins=local()) as client:
        window = Window(client, QUERY, gone)
        client.store(NOTES).insert(note(1))
        assert [found.text for found in client.query(QUERY)] == ["00001"]
        assert len(window) == 0


def test_errors_are_told_in_the_hosts_place() -> None:
    with blocking.open_client(Schema(NOTES), plugins=local()) as client:
        place = Place()
        window = Window(client, select(NOTES).where(col("nothing") == 1), place.posted.put)
        told: list[AtomaError] = []
        window.failed = told.append
        place.until(lambda: bool(told))
        assert isinstance(told[0], QueryError)
        with pytest.raises(QueryError, match="leave limit"):
            Window(client, QUERY.limit(5), place.posted.put)
