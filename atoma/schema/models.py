"""The classes that an application keeps: which fields they declare, of what types, and which of them are indexed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints
from uuid import UUID

import msgspec

from atoma.contracts.checks import is_a
from atoma.errors import SchemaError
from atoma.schema.fields import Field, field_of, is_text

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
"""What a store and a field may be called."""


def _hints(name: str, model: type[Any]) -> dict[str, tuple[object, object]]:
    """Declared fields of a dataclass, msgspec Struct or attrs class, in order: their types with and without constraints."""
    if is_a(model, object):
        raise SchemaError(f"store {name!r}: the model is a class, not an object of {type(model).__name__}")
    if dataclasses.is_dataclass(model):
        names = [item.name for item in dataclasses.fields(model) if item.init]
    elif issubclass(model, msgspec.Struct):
        names = list(model.__struct_fields__)
    elif hasattr(model, "__attrs_attrs__"):
        names = [item.name for item in model.__attrs_attrs__]
    else:
        raise SchemaError(f"store {name!r}: {model.__name__} is not a dataclass, msgspec.Struct or attrs class")
    try:
        hints, bare = get_type_hints(model, include_extras=True), get_type_hints(model)
    except NameError as error:
        raise SchemaError(f"store {name!r}: a type hint of {model.__name__} cannot be resolved: {error}") from None
    return {field: (hints[field], bare[field]) for field in names}


def fields_of(store: str, model: type[Any], scope: str) -> dict[str, Field]:
    """The columns of a model by name, in the order in which it declares its fields.

    Args:
        store: The store that keeps it.
        model: Dataclass, ``msgspec.Struct`` or attrs class.
        scope: The name of the field that says the scope of a row, or of a scope.

    Raises:
        SchemaError: It is no such class, it has no ``id: str``, or a field cannot be a column.
    """
    hints = _hints(store, model)
    if "id" not in hints or not is_text(hints["id"][1]):
        raise SchemaError(f"store {store!r}: {model.__name__} needs a field `id: str`{_why_text(hints.get('id'))}")
    if scope in hints and not is_text(hints[scope][1]):
        raise SchemaError(f"store {store!r}: the scope field {scope!r} must be a str")
    fields: dict[str, Field] = {}
    lowered: set[str] = set()
    for name, (hint, bare) in hints.items():
        if not NAME.fullmatch(name) or name.lower() in lowered:
            raise SchemaError(f"store {store!r}: field name {name!r} cannot be a column")
        lowered.add(name.lower())
        fields[name] = field_of(store, name, hint, bare)
    return fields


def _why_text(hint: tuple[object, object] | None) -> str:
    if hint is None:
        return ""
    if hint[1] is int:
        return "; devices without a network would count to the same number, so take new_id() as the default_factory"
    return "; new_id(), as its default_factory, makes the text of a UUID" if hint[1] is UUID else ""


def checked_search(store: str, fields: Mapping[str, Field], search: Sequence[str]) -> tuple[str, ...]:
    """``search`` as names; raises :class:`SchemaError` where one is not a field of text."""
    names = tuple(search) if is_a(search, tuple) or is_a(search, list) else (str(search),)
    for name in names:
        if name not in fields or fields[name].type != "text" or name == "id":
            raise SchemaError(f"store {store!r}: search= lists fields of text, and {name!r} is none")
    return names
