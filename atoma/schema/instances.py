"""How rows become instances of a model, where the class only keeps what it is given without calling it; and columns images.

Calling a frozen dataclass by keyword is the dearest part of reading a row: it costs more than twice what setting its attributes
does. A class that does anything else when it is called, is called.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FunctionType, MemberDescriptorType
from typing import Any, TypeVar, cast

from atoma.contracts.values import RowImage, Scalar, StoredRow

T = TypeVar("T")
Decode = Callable[[Any], object]
Make = Callable[[str, Mapping[str, object]], T]
"""Makes an instance of an id and an image that holds every column.

Raises:
    KeyError: The image lacks a column.
    TypeError: The class wants more than its columns.
"""


def maker(model: type[T], columns: Sequence[str], decoders: Mapping[str, Decode]) -> Make[T]:
    """How instances of ``model`` are made.

    Args:
        model: The class.
        columns: The names of its fields but the id.
        decoders: What makes values of what is stored, for the fields that need it.
    """
    if _only_keeps(model, ("id", *columns)):
        lines, names = _setting(model, columns, decoders)
        exec("\n".join(["def make(id, image):", *lines, " return self"]), names)
        return cast("Make[T]", names["make"])

    def called(id: str, image: Mapping[str, object]) -> T:
        values = {name: image[name] for name in columns}
        for name, decode in decoders.items():
            values[name] = decode(values[name])
        return cast("Callable[..., T]", model)(id=id, **values)

    return called


def reader(
    model: type[T], columns: Sequence[str], decoders: Mapping[str, Decode], make: Make[T], otherwise: Make[T]
) -> Callable[[StoredRow], T]:
    """How instances of ``model`` are made of rows, in one call for each: every row of a page is read.

    Args:
        model: The class.
        columns: The names of its fields but the id.
        decoders: What makes values of what is stored, for the fields that need it.
        make: What :func:`maker` has made of them.
        otherwise: What makes one of an image that lacks a column.
    """
    if _only_keeps(model, ("id", *columns)):
        lines, names = _setting(model, columns, decoders)
        written = ["def read(row):", " id, image = row.id, row.image", " try:", *[f" {line}" for line in lines]]
        exec("\n".join([*written, " except KeyError:", "  return otherwise(id, image)", " return self"]), names)
        names["otherwise"] = otherwise
        return cast("Callable[[StoredRow], T]", names["read"])

    def read(row: StoredRow) -> T:
        try:
            return make(row.id, row.image)
        except KeyError:
            return otherwise(row.id, row.image)

    return read


def imager(columns: Sequence[str]) -> Callable[[Iterable[tuple[Scalar, ...]]], list[RowImage]]:
    """What makes the image of each tuple of values of ``columns``, written for them: a loop over their names takes twice as long."""
    names = "".join(f"v{at}, " for at in range(len(columns)))  # none where a store has nothing but ids
    image = ", ".join(f"{name!r}: v{at}" for at, name in enumerate(columns))
    source = f"lambda rows: [{{{image}}} for ({names}) in rows]"
    return cast("Callable[[Iterable[tuple[Scalar, ...]]], list[RowImage]]", eval(source))


def _setting(
    model: type[object], columns: Sequence[str], decoders: Mapping[str, Decode]
) -> tuple[list[str], dict[str, object]]:
    """What sets one attribute after the other, written as source, as dataclasses writes ``__init__``; and its names."""
    names: dict[str, object] = {"new": object.__new__, "model": model, "put": object.__setattr__}
    lines = [" self = new(model)"]
    frozen = model.__setattr__ is not object.__setattr__
    for at, name in enumerate(("id", *columns)):
        value = "id" if name == "id" else f"image[{name!r}]"
        if name in decoders and name != "id":
            names[f"decode_{at}"] = decoders[name]
            value = f"decode_{at}({value})"
        place = inspect.getattr_static(model, name, None)
        if frozen and isinstance(place, MemberDescriptorType):
            names[f"put_{at}"] = place.__set__
            lines.append(f" put_{at}(self, {value})")
        else:
            lines.append(f" put(self, {name!r}, {value})" if frozen else f" self.{name} = {value}")
    return lines, names


def _only_keeps(model: type[Any], fields: Sequence[str]) -> bool:
    """Whether an instance of ``model`` is no more than its ``fields``, and calling the class does no more than set them."""
    if not dataclasses.is_dataclass(model) or hasattr(model, "__post_init__"):
        return False
    if type(model).__call__ is not type.__call__ or model.__new__ is not object.__new__:
        return False
    init, setter = vars(model).get("__init__"), model.__setattr__
    if not _is_generated(init) or not (setter is object.__setattr__ or _is_generated(setter)):
        return False
    wanted = set(inspect.signature(cast("FunctionType", init)).parameters) - {"self"}
    if wanted != set(fields) or len(dataclasses.fields(model)) != len(fields):
        return False
    places = [inspect.getattr_static(model, name, None) for name in fields]
    return all(isinstance(place, MemberDescriptorType) or not hasattr(place, "__set__") for place in places)


def _is_generated(function: object) -> bool:
    """Whether ``dataclasses`` wrote a method, and not the author of the class."""
    return isinstance(function, FunctionType) and function.__code__.co_qualname.startswith("__create_fn__")
