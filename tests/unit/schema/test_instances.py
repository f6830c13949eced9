"""What reading a row makes of it: what the class makes when it is called, whatever the class does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import InitVar, dataclass, field
from datetime import timedelta
from functools import cached_property, partial
from typing import Any, Self

import attrs
import msgspec
import pytest

from atoma import StoreSpec
from atoma.contracts.values import HIDDEN, StoredRow, TableRow, TableRows, versions_of

CALLED: list[str] = []


@dataclass
class Plain:
    id: str
    title: str = "none"
    spent: timedelta = timedelta(0)


@dataclass(frozen=True, kw_only=True)
class Frozen:
    id: str
    title: str = "none"
    spent: timedelta = timedelta(0)

    @cached_property
    def shout(self) -> str:
        return self.title.upper()


@dataclass(frozen=True, slots=True)
class Slotted:
    title: str
    id: str
    spent: timedelta = timedelta(0)


@dataclass(slots=True)
class Open:
    id: str
    title: str
    spent: timedelta = timedelta(0)


@dataclass(frozen=True)
class Half(Slotted):
    extra: int = 3


@dataclass
class Checked:
    id: str
    title: str
    spent: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        CALLED.append("post")
        self.title = self.title.strip()


@dataclass
class Watched:
    id: str
    title: str
    spent: timedelta = timedelta(0)

    def __setattr__(self, name: str, value: object) -> None:
        CALLED.append(name)
        object.__setattr__(self, name, value)


@dataclass
class Own:
    id: str
    title: str
    spent: timedelta = timedelta(0)

    def __init__(self, id: str, title: str, spent: timedelta = timedelta(0)) -> None:
        CALLED.append("init")
        self.id, self.title, self.spent = id, title + "!", spent


@dataclass
class Counted:
    id: str
    title: str
    spent: timedelta = timedelta(0)
    parts: list[str] = field(default_factory=list, init=False)


@dataclass
class Told:
    id: str
    title: str
    spent: timedelta = timedelta(0)
    more: InitVar[int] = 3


@dataclass
class New:
    id: str
    title: str
    spent: timedelta = timedelta(0)

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        CALLED.append("new")
        return super().__new__(cls)


class Meta(type):
    def __call__(cls, *args: object, **kwargs: object) -> Any:
        CALLED.append("meta")
        return super().__call__(*args, **kwargs)


@dataclass
class Made(metaclass=Meta):
    id: str
    title: str
    spent: timedelta = timedelta(0)


class Struct(msgspec.Struct, frozen=True):
    id: str
    title: str
    spent: timedelta = timedelta(0)


@attrs.frozen
class Attrs:
    id: str
    title: str
    spent: timedelta = timedelta(0)


@pytest.mark.parametrize(
    "model", [Plain, Frozen, Slotted, Open, Half, Checked, Watched, Own, Counted, Told, New, Made, Struct, Attrs]
)
@pytest.mark.parametrize("lacks", [False, True])
def test_a_row_becomes_what_calling_the_class_makes(model: Callable[..., Any], lacks: bool) -> None:
    store = StoreSpec("things", model)  # type: ignore[arg-type]
    given = {"title": " a b ", "spent": timedelta(hours=2), **({"extra": 5} if model is Half else {})}
    id, image = store.encode(model(id="1", **given))
    if model is Own:
        given["title"], image["title"] = " a b ", " a b "
    if lacks:  # a column of a newer declaration
        del given["spent"], image["spent"]
    CALLED.clear()
    wanted = model(id="1", **given)
    called = CALLED.copy()
    CALLED.clear()
    found = store.decode(id, image)
    assert (type(found), found) == (type(wanted), wanted)
    assert called == CALLED
    assert repr(found) == repr(wanted)
    CALLED.clear()
    columns = tuple(image)
    rows = TableRows(columns, [(id, 1, 0, "main", *image.values())] * 2, partial(map_rows, columns))
    if columns == store.value_columns:
        assert [(type(each), each) for each in store.read_rows(rows)] == [(type(wanted), wanted)] * 2
        assert called * 2 == CALLED
    one_by_one: Sequence[StoredRow] = tuple(rows)
    assert store.read_rows(rows) == store.read_rows(one_by_one)
    assert rows == one_by_one
    assert rows.versions == versions_of(one_by_one) == (1, 1)
    assert (rows[-1], rows[:1]) == (one_by_one[-1], one_by_one[:1])


def map_rows(columns: tuple[str, ...], table: Iterable[TableRow]) -> list[StoredRow]:
    return [StoredRow(row[0], row[1], row[2], row[3], dict(zip(columns, row[4:], strict=True))) for row in table]


def test_a_table_of_other_columns_is_read_row_by_row() -> None:
    store = StoreSpec("things", Slotted)
    rows = TableRows(("spent", "title"), [("1", 1, 0, "main", 7, "a")], partial(map_rows, ("spent", "title")))
    assert store.read_rows(rows) == (Slotted("a", "1", timedelta(microseconds=7)),)


def test_a_model_does_not_see_when_its_row_was_deleted() -> None:
    store = StoreSpec("things", Slotted, soft_delete=True)
    assert store.value_columns[-1] == HIDDEN
    rows = TableRows(store.value_columns, [("1", 1, 0, "main", "a", 7, 1)], partial(map_rows, store.value_columns))
    assert store.read_rows(rows) == (Slotted("a", "1", timedelta(microseconds=7)),)


def test_what_a_class_wants_and_a_row_has_not_got_is_said_by_the_class() -> None:
    with pytest.raises(TypeError, match="title"):
        StoreSpec("things", Slotted).decode("1", {"spent": 0})


def test_an_instance_is_a_whole_one() -> None:
    frozen = StoreSpec("things", Frozen).decode("1", {"title": "a", "spent": 0})
    assert frozen.shout == "A"
    assert hash(frozen) == hash(Frozen(id="1", title="a"))
    with pytest.raises(AttributeError):
        frozen.title = "b"  # type: ignore[misc]
