"""Rows of a page become images of the local schema, or a protocol error."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from atoma.contracts.sync import StoreChanges
from atoma.errors import ProtocolError
from atoma.schema import Schema, StoreSpec
from atoma.sync.page import changed_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    id: str
    title: str
    done: bool = False


SCHEMA = Schema(StoreSpec("cards", Card))


def test_rows_and_deletes() -> None:
    changes = StoreChanges("cards", 1, ("id", "title", "done"), ((7, "a", "x", 0), (8, "b", "y", 1)), ((9, "c"),))
    assert list(changed_rows(SCHEMA, changes)) == [
        ("a", {"title": "x", "done": 0}, 7),
        ("b", {"title": "y", "done": 1}, 8),
        ("c", None, 9),
    ]


def test_columns_may_come_in_another_order_and_unknown_ones_are_left_out() -> None:
    changes = StoreChanges("cards", 2, ("id", "done", "new", "title"), ((7, "a", 1, "?", "x"),))
    assert list(changed_rows(SCHEMA, changes)) == [("a", {"title": "x", "done": 1}, 7)]


@pytest.mark.parametrize(
    ("columns", "row", "why"),
    [
        (("id", "title"), (7, "a", "x"), None),
        (("title", "id", "done"), (7, "x", "a", 0), None),
        (("id", "title", "done"), (7, "a", "x"), "2 values for 3 columns"),
        (("id", "title", "done"), ("7", "a", "x", 0), None),
        (("id", "title", "done"), (7, 1, "x", 0), None),
        (("id", "title", "done"), (7, "a", ["x"], 0), None),
        (("id", "title", "done"), (7,), "0 values for 3 columns"),
        (("id", "title", "done"), (), None),
    ],
)
def test_malformed_rows_are_refused(columns: tuple[str, ...], row: tuple[object, ...], why: str | None) -> None:
    with pytest.raises(ProtocolError, match=why):
        list(changed_rows(SCHEMA, StoreChanges("cards", 1, columns, (row,))))
