"""Whatever one side would read otherwise than the other wrote it is refused; versions of one program are not."""

from __future__ import annotations

import dataclasses
import itertools
import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NewType

import msgspec
import pytest

from atoma.errors import AtomaError, SchemaMismatch
from atoma.schema import Scale, StoreSpec
from atoma.schema.agreement import Forms, check_agreement


class Color(Enum):
    RED = "red"
    BLUE = '"blue"'


class Level(IntEnum):
    LOW = 0
    HIGH = 250


Price = NewType("Price", Annotated[Decimal, Scale(2)])  # pyright: ignore[reportGeneralTypeIssues]
DAY = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SAMPLES: dict[str, tuple[Any, list[Any]]] = {
    "str": (str, ["", "a", '"a"', "5", "2026-01-02", "1.50", "[1]", "P1D", "12:00:00"]),
    "a name of str": (NewType("Named", str), ["a", '"a"', "5"]),
    "Literal of texts": (Literal["a", '"a"'], ["a", '"a"']),
    "Enum of texts": (Color, list(Color)),
    "int": (int, [0, 1, 250, -7, 86_400_000_000, 2**53 + 1]),
    "a name of int": (NewType("Count", int), [0, 1, 250]),
    "Enum of numbers": (Level, list(Level)),
    "bool": (bool, [False, True]),
    "float": (float, [0.0, 2.5, 250.0]),
    "bytes": (bytes, [b"", b"a"]),
    "datetime": (datetime, [DAY]),
    "date": (date, [date(2026, 1, 2)]),
    "time": (time, [time(12), time(1, 2, 3, 4)]),
    "timedelta": (timedelta, [timedelta(0), timedelta(days=1), timedelta(microseconds=250)]),
    "UUID": (uuid.UUID, [uuid.UUID(int=7)]),
    "Path": (Path, [Path(), Path("/srv/a b.jpg"), Path("5")]),
    "Decimal": (Decimal, [Decimal("1.5"), Decimal(250)]),
    "Scale(0)": (Annotated[Decimal, Scale(0)], [Decimal(1), Decimal(250)]),
    "Scale(2)": (Annotated[Decimal, Scale(2)], [Decimal("2.50"), Decimal("0.01")]),
    "Scale(3)": (Annotated[Decimal, Scale(3)], [Decimal("2.500"), Decimal("0.001")]),
    "a name of Scale(2)": (Price, [Decimal("2.50")]),
    "list": (list[int], [[], [1]]),
    "constrained int": (Annotated[int, msgspec.Meta(ge=0, le=300)], [0, 250]),
    "int or nothing": (int | None, [None, 0, 250]),
}


def store_of(hint: Any) -> StoreSpec[Any]:
    model = dataclasses.make_dataclass("Thing", [("id", str), ("value", hint)], frozen=True)
    return StoreSpec("things", model)


STORES = {name: store_of(hint) for name, (hint, _) in SAMPLES.items()}
Way = Callable[[StoreSpec[Any], StoreSpec[Any], dict[str, Any]], dict[str, Any]]


def pushed(here: StoreSpec[Any], there: StoreSpec[Any], image: dict[str, Any]) -> dict[str, Any]:
    """What a hub that declares ``there`` makes of a mutation."""
    return {name: there.canonical(name, value) for name, value in there.unpack(here.pack(image)).items()}


def pulled(here: StoreSpec[Any], there: StoreSpec[Any], image: dict[str, Any]) -> dict[str, Any]:
    """What a device that declares ``there`` makes of a page."""
    return there.unpack(here.pack(image))


def written(here: StoreSpec[Any], there: StoreSpec[Any], image: dict[str, Any]) -> dict[str, Any]:
    """What a hub makes of a direct write."""
    return {name: there.canonical(name, value) for name, value in image.items()}


def answered(here: StoreSpec[Any], there: StoreSpec[Any], image: dict[str, Any]) -> dict[str, Any]:
    """What a device makes of a hub's direct answer."""
    return image


WAYS: dict[Way, bool] = {pushed: True, pulled: True, written: False, answered: False}
"""The ways that a value takes, and whether it is packed on it."""


def is_misread(way: Way, here: StoreSpec[Any], there: StoreSpec[Any], value: Any) -> bool:
    """Whether ``value`` arrives as another one, and nobody says a word."""
    _, image = here.encode(here.model("1", value))
    try:
        read = there.decode("1", way(here, there, image)).value
    except (AtomaError, ValueError, TypeError, ArithmeticError):
        return False
    meant = value.value if isinstance(value, Enum) else value
    seen = read.value if isinstance(read, Enum) else read
    return bool(meant != seen or isinstance(meant, bool) is not isinstance(seen, bool))


def refuses(here: StoreSpec[Any], there: StoreSpec[Any], *, packed: bool) -> bool:
    try:
        check_agreement({"things": here.forms}, {"things": there.forms}, ["things"], packed=packed)
    except SchemaMismatch:
        return True
    return False


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_would_be_misread_is_refused(way: Way) -> None:
    silent: set[tuple[str, str]] = set()
    for here, there in itertools.product(SAMPLES, SAMPLES):
        if any(is_misread(way, STORES[here], STORES[there], value) for value in SAMPLES[here][1]):
            silent.add((here, there))
    assert ("Scale(2)", "Scale(3)") in silent
    assert ("int", "timedelta") in silent
    for here, there in sorted(silent):
        assert refuses(STORES[here], STORES[there], packed=WAYS[way]), (here, there)


SAME = [
    {"str", "Literal of texts", "Enum of texts"},
    {"int", "Enum of numbers", "constrained int", "int or nothing"},
    {"Scale(2)", "a name of Scale(2)"},
]


def test_versions_of_one_program_agree() -> None:
    for names in SAME:
        for here, there in itertools.product(names, names):
            assert not refuses(STORES[here], STORES[there], packed=True), (here, there)
    for name, bare in (("a name of str", "str"), ("a name of int", "int")):
        assert refuses(STORES[name], STORES[bare], packed=True)
        assert not refuses(STORES[name], STORES[bare], packed=False)


def test_what_one_side_lacks_or_does_not_tell_is_no_difference() -> None:
    forms = {"things": {"value": "int", "more": "text"}}
    told: list[Forms] = [
        {},
        {"things": {}},
        {"things": {"value": "int", "other": "bool"}},
        {"others": {"value": "bool"}},
    ]
    for there in told:
        check_agreement(forms, there, ["things", "unheard_of"], packed=True)


def test_the_error_names_all_there_is_to_know() -> None:
    with pytest.raises(SchemaMismatch) as caught:
        check_agreement(
            {"a": {"x": "int"}, "b": {"x": "int", "y": "decimal(2)"}},
            {"a": {"x": "bool"}, "b": {"x": "int", "y": "decimal(3)"}},
            ["b"],
            packed=False,
        )
    error = caught.value
    assert (error.store, error.field, error.here, error.there) == ("b", "y", "decimal(2)", "decimal(3)")
    assert (error.code, error.retryable) == ("SCHEMA_MISMATCH", False)
    assert str(error) == (
        "store 'b': field 'y' is decimal(2) here and decimal(3) at the hub, so each side would misread the other's values; "
        "nothing was exchanged. Declare it alike on both sides, or add a field under a new name"
    )
    with pytest.raises(SchemaMismatch, match="'x' is a NewType of text here and text at the hub"):
        check_agreement({"a": {"x": "text json"}}, {"a": {"x": "text"}}, ["a"], packed=True)
    with pytest.raises(SchemaMismatch, match="'x' is duration here and int at the hub"):
        check_agreement({"a": {"x": "duration json"}}, {"a": {"x": "int"}}, ["a"], packed=True)
