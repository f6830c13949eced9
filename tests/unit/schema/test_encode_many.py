"""Encoding by columns accepts, refuses and stores exactly what encoding one by one does."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast

from hypothesis import given
from hypothesis import strategies as st

from atoma.contracts.values import RowImage
from atoma.errors import ValidationError
from atoma.schema import StoreSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    id: str
    text: str
    number: int
    weight: float
    flag: bool
    blob: bytes
    lane: Literal["a", "b"]
    note: str | None
    tags: list[int]


SAMPLES = StoreSpec("samples", Sample)


class Text(str):
    """A kind of text that no column takes."""


PLAIN = st.from_regex(r"[a-z]{1,4}", fullmatch=True)
GOOD = st.builds(
    Sample,
    id=PLAIN,
    text=PLAIN,
    number=st.integers(-5, 5),
    weight=st.floats(allow_nan=False),
    flag=st.booleans(),
    blob=st.binary(max_size=3),
    lane=st.sampled_from(["a", "b"]),
    note=st.none() | PLAIN,
    tags=st.lists(st.integers(-3, 3), max_size=2),
)
TEXTS = ["", "\ud800", "é", "nul\x00", "c", "x" * 201, "é" * 101, Text("a")]
NUMBERS = [0, 2**53, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, True]
REALS = [0.5, -0.0, math.nan, math.inf, -math.inf]
ODD: list[object] = [*TEXTS, *NUMBERS, *REALS, None, b"", b"x", [1], ["a"], object]


def odd_samples() -> Iterator[Sample]:
    """Rows with any value in one of their fields; often one that cannot be stored there."""
    base = Sample(id="a", text="t", number=1, weight=1.0, flag=True, blob=b"", lane="a", note=None, tags=[])
    for name, value in itertools.product([field.name for field in fields(Sample)], ODD):
        yield replace(base, **cast("Any", {name: value}))


def one_by_one(items: list[Sample]) -> list[tuple[str, RowImage]] | None:
    try:
        return [SAMPLES.encode(item) for item in items]
    except ValidationError:
        return None


def by_columns(items: list[Sample]) -> list[tuple[str, RowImage]] | None:
    try:
        return list(zip(*SAMPLES.encode_many(items), strict=True))
    except ValidationError:
        return None


def typed(rows: list[tuple[str, RowImage]] | None) -> object:
    """1, 1.0 and True are equal in Python but not in SQLite; so are 0.0 and -0.0."""
    return (
        None if rows is None else [(id, [(name, type(v), repr(v)) for name, v in image.items()]) for id, image in rows]
    )


@given(st.lists(GOOD, min_size=1, max_size=6))
def test_what_can_be_stored_is_stored_alike(items: list[Sample]) -> None:
    rows = by_columns(items)
    assert rows is not None
    assert typed(rows) == typed(one_by_one(items))
    assert [SAMPLES.decode(id, image) for id, image in rows] == items


def test_one_odd_row_is_judged_alike() -> None:
    good = Sample(id="g", text="t", number=2, weight=-math.inf, flag=False, blob=b"b", lane="b", note="n", tags=[2])
    refused = 0
    for odd in odd_samples():
        for items in ([odd], [good, odd], [odd, good]):
            stored = one_by_one(items)
            assert typed(by_columns(items)) == typed(stored), odd
            refused += stored is None
    assert refused > 300


def test_nothing_and_other_classes() -> None:
    assert by_columns([]) == []
    assert by_columns(cast("list[Sample]", [object()])) is None
