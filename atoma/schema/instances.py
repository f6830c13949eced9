"""How rows become instances of a model, where the class only keeps what it is given without calling it; and columns images.

Calling a frozen dataclass by keyword is the dearest part of reading a row: it costs more than twice what setting its attributes
does. A frozen one with slots is filled while it is an instance of a class of the same layout whose attributes can be set, and
then made one of its own: a call for each attribute costs more than twice that. A class that does anything else when it is called,
is called.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import FunctionType, MemberDescriptorType
from typing import Any, TypeVar, cast

from atoma.contracts.values import HIDDEN, RowImage, Scalar, StoredRow, TableRow, TableRows
from atoma.schema.kinds import Decode

T = TypeVar("T")
MakeInstance = Callable[[str, Mapping[str, object]], T]
"""Makes an instance of an id and an image that holds every column.

Raises:
    KeyError: The image lacks a column.
    TypeError: The class wants more than its columns.
"""


def maker(model: type[T], columns: Sequence[str], decoders: Mapping[str, Decode]) -> MakeInstance[T]:
    """How instances of ``model`` are made.

    Args:
        model: The class.
        columns: The names of its fields but the id.
        decoders: What makes values of what is stored, for the fields that need it.
    """
    if _only_keeps(model, ("id", *columns)):
        lines, names = _setting(model, {name: f"image[{name!r}]" for name in columns}, decoders)
        return cast("MakeInstance[T]", _written(["def make(id, image):", *_in(lines), " return self"], names))

    def called(id: str, image: Mapping[str, object]) -> T:
        values = {name: image[name] for name in columns}
        for name, decode in decoders.items():
            values[name] = decode(values[name])
        return cast("Callable[..., T]", model)(id=id, **values)

    return called


def reader(
    model: type[T],
    columns: Sequence[str],
    decoders: Mapping[str, Decode],
    make: MakeInstance[T],
    otherwise: MakeInstance[T],
) -> Callable[[StoredRow], T]:
    """How instances of ``model`` are made of rows, in one call for each.

    Args:
        model: The class.
        columns: The names of its fields but the id.
        decoders: What makes values of what is stored, for the fields that need it.
        make: What :func:`maker` has made of them.
        otherwise: What makes one of an image that lacks a column.
    """
    if _only_keeps(model, ("id", *columns)):
        lines, names = _setting(model, {name: f"image[{name!r}]" for name in columns}, decoders)
        begun = ["def read(row):", " id, image = row.id, row.image", " try:", *_in(_in(lines))]
        names["otherwise"] = otherwise
        source = [*begun, " except KeyError:", "  return otherwise(id, image)", " return self"]
        return cast("Callable[[StoredRow], T]", _written(source, names))

    def read(row: StoredRow) -> T:
        try:
            return make(row.id, row.image)
        except KeyError:
            return otherwise(row.id, row.image)

    return read


def _table_reader(
    model: type[T], columns: Sequence[str], decoders: Mapping[str, Decode]
) -> Callable[[Iterable[TableRow]], list[T]] | None:
    """How instances of ``model`` are made of a whole table, in one call; None where the class has to be called for each.

    Args:
        model: The class.
        columns: The names of the values in a row of the table, and so of the fields but the id; a model does not know of
            :data:`HIDDEN`.
        decoders: What makes values of what is stored, for the fields that need it.
    """
    fields = [name for name in columns if name != HIDDEN]
    if not _only_keeps(model, ("id", *fields)):
        return None
    values = {name: f"v{at}" for at, name in enumerate(columns)}
    lines, names = _setting(model, {name: values[name] for name in fields}, decoders)
    each = f" for {', '.join(['id', '_', '_', '_', *values.values()])} in table:"
    begun = ["def read(table):", " made = []", " add = made.append", each]
    source = [*begun, *_in(_in(lines)), "  add(self)", " return made"]
    return cast("Callable[[Iterable[TableRow]], list[T]]", _written(source, names))


def rows_reader(
    model: type[T], columns: tuple[str, ...], decoders: Mapping[str, Decode], read: Callable[[StoredRow], T]
) -> Callable[[Sequence[StoredRow]], tuple[T, ...]]:
    """How instances of ``model`` are made of the rows of an answer: of their values, where the answer is a table of these columns.

    Args:
        model: The class.
        columns: The names of the store's columns but the id.
        decoders: What makes values of what is stored, for the fields that need it.
        read: What :func:`reader` has made.
    """
    of_table = _table_reader(model, columns, decoders)

    def read_rows(rows: Sequence[StoredRow]) -> tuple[T, ...]:
        if of_table is not None and type(rows) is TableRows and rows.columns == columns:
            return tuple(of_table(rows.table))
        return tuple(map(read, rows))

    return read_rows


def imager(columns: Sequence[str]) -> Callable[[Iterable[tuple[Scalar, ...]]], list[RowImage]]:
    """What makes the image of each tuple of values of ``columns``, written for them: a loop over their names takes twice as long."""
    names = "".join(f"v{at}, " for at in range(len(columns)))  # none where a store has nothing but ids
    image = ", ".join(f"{name!r}: v{at}" for at, name in enumerate(columns))
    source = f"lambda rows: [{{{image}}} for ({names}) in rows]"
    return cast("Callable[[Iterable[tuple[Scalar, ...]]], list[RowImage]]", eval(source))


def _in(lines: Sequence[str]) -> list[str]:
    return [f" {line}" for line in lines]


def _written(source: Sequence[str], names: dict[str, object]) -> object:
    """The function that ``source`` is."""
    exec("\n".join(source), names)
    return names[source[0].removeprefix("def ").partition("(")[0]]


def _setting(
    model: type[object], values: Mapping[str, str], decoders: Mapping[str, Decode]
) -> tuple[list[str], dict[str, object]]:
    """What sets one attribute after the other, written as source, as dataclasses writes ``__init__``; and its names.

    Args:
        model: The class.
        values: What stands for the value of each field but the id, which is ``id``.
        decoders: What makes values of what is stored, for the fields that need it.
    """
    names: dict[str, object] = {"new": object.__new__, "model": model, "put": object.__setattr__}
    frozen = model.__setattr__ is not object.__setattr__
    names["open"] = opened = _open_class(model) if frozen else None
    lines = ["self = new(model)" if opened is None else "self = open()"]
    for at, (name, value) in enumerate([("id", "id"), *values.items()]):
        if name in decoders and name != "id":
            names[f"decode_{at}"] = decoders[name]
            value = f"decode_{at}({value})"
        place = inspect.getattr_static(model, name, None)
        if not frozen or opened is not None:
            lines.append(f"self.{name} = {value}")
        elif isinstance(place, MemberDescriptorType):
            names[f"put_{at}"] = place.__set__
            lines.append(f"put_{at}(self, {value})")
        else:
            lines.append(f"put(self, {name!r}, {value})")
    return (lines if opened is None else [*lines, "self.__class__ = model"]), names


def _open_class(model: type[object]) -> type[object] | None:
    """A class of the layout of ``model`` whose attributes can be set; None where Python does not take one for the other."""
    slots = vars(model).get("__slots__")
    if slots is None or model.__bases__ != (object,):
        return None
    made = type(model.__name__, (), {"__slots__": slots})
    try:
        object.__setattr__(made(), "__class__", model)
    except TypeError:
        return None
    return made


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
