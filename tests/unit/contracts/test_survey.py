"""Counting what is in MessagePack before it is decoded."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoma.contracts.survey import CONTAINERS_MAX, TURN_VALUES, VALUES_MAX, Survey

SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(max_size=300)
    | st.text("x", min_size=30, max_size=70_000) | st.builds(msgspec.msgpack.Ext, st.integers(-128, 127), st.binary(max_size=40))
)  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=40) | st.dictionaries(st.text(), inner, max_size=40)
)


def counted(value: object) -> tuple[int, int]:
    """Values and containers, by looking at what was encoded."""
    if isinstance(value, dict):
        parts = [counted(part) for pair in value.items() for part in pair]
    elif isinstance(value, list):
        parts = [counted(part) for part in value]
    else:
        return 1, 0
    return 1 + sum(part[0] for part in parts), 1 + sum(part[1] for part in parts)


@given(VALUES)
def test_it_counts_what_is_there(value: object) -> None:
    survey = Survey().finish(msgspec.msgpack.encode(value))
    assert (survey.values, survey.containers) == counted(value)
    assert not survey.too_many


@given(st.binary(max_size=2_000))
def test_what_is_no_messagepack_is_passed_over(data: bytes) -> None:
    survey = Survey()
    assert len(list(survey.turns(data))) <= 1
    assert survey.values <= len(data)


@pytest.mark.parametrize(
    ("unit", "each"),
    [(b"\x01", 1), (b"\xc0", 1), (b"\xa1x", 1), (b"\xd9\x00", 1), (b"\xc7\x00\x01", 1), (b"\x91\x01", 2), (b"\x90", 1)],
)
def test_it_stops_as_soon_as_there_are_too_many(unit: bytes, each: int) -> None:
    data = unit * 3_000_000
    survey = Survey()
    turns = sum(1 for _ in survey.turns(data))
    assert survey.too_many
    most = CONTAINERS_MAX * each if unit[0] & 0xE0 == 0x80 else VALUES_MAX
    assert most < survey.values <= most + TURN_VALUES
    assert turns == survey.values // TURN_VALUES


def test_the_bounds_are_of_everything_together() -> None:
    survey = Survey()
    for _ in range(10):
        survey.finish(b"\x01" * (VALUES_MAX // 10))
    assert (survey.values, survey.too_many) == (VALUES_MAX, False)
    assert survey.finish(b"\x01").too_many
