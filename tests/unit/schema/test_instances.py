"""What reading a row makes of it: what the class makes when it is called, whatever the class does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import Any, Self

import attrs
import msgspec
import pytest

from atoma import StoreSpec

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


def test_what_a_class_wants_and_a_row_has_not_got_is_said_by_the_class() -> None:
    with pytest.raises(TypeError, match="title"):
        StoreSpec("things", Slotted).decode("1", {"spent": 0})


def test_an_instance_is_a_whole_one() -> None:
    frozen = StoreSpec("things", Frozen).decode("1", {"title": "a", "spent": 0})
    assert frozen.shout == "A"
    assert hash(frozen) == hash(Frozen(id="1", title="a"))
    with pytest.raises(AttributeError):
        frozen.title = "b"  # type: ignore[misc]
