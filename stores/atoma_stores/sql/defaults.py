"""Constant defaults of a model's fields, as stored values, for rows that were written before a field existed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, get_origin

import msgspec

from atoma.contracts.values import RowImage
from atoma.errors import MigrationError, ValidationError
from atoma.schema.spec import StoreSpec

_CONSTANT_FACTORIES: tuple[object, ...] = (list, dict, tuple, set, frozenset, str, bytes, int, float, bool)


def _from_factory(factory: Callable[[], object] | None) -> tuple[object, ...]:
    plain = get_origin(factory) or factory  # list[str] makes the same as list
    return (factory(),) if factory is not None and plain in _CONSTANT_FACTORIES else ()


def _declared(model: Any) -> Iterator[tuple[str, tuple[object, ...]]]:
    """Yield ``(field, (default,))`` for every field with a constant default."""
    if dataclasses.is_dataclass(model):
        for item in dataclasses.fields(model):
            if item.default is not dataclasses.MISSING:
                yield item.name, (item.default,)
            elif item.default_factory is not dataclasses.MISSING:
                yield item.name, _from_factory(item.default_factory)
    elif issubclass(model, msgspec.Struct):
        for info in msgspec.structs.fields(model):
            if info.default is not msgspec.NODEFAULT:
                yield info.name, (info.default,)
            elif info.default_factory is not msgspec.NODEFAULT:
                yield info.name, _from_factory(info.default_factory)
    else:
        for attribute in model.__attrs_attrs__:
            factory = getattr(attribute.default, "factory", None)
            if factory is not None:
                yield attribute.name, _from_factory(factory)
            elif type(attribute.default).__name__ != "_Nothing":
                yield attribute.name, (attribute.default,)


def constant_defaults(store: StoreSpec[object]) -> RowImage:
    """Return column → stored default, for the columns whose default is the same every time."""
    found: RowImage = {}
    for name, default in _declared(store.model):
        if default and name != "id" and name in store.fields:
            try:
                found[name] = store.fields[name].literal(default[0])  # earlier rows may stay as they were written
            except ValidationError:
                continue  # a default that the field itself refuses helps nobody
    return found


def check_new_field(store: StoreSpec[object], name: str, defaults: RowImage) -> None:
    """Check that rows that were written before a field existed have a value for it.

    Args:
        store: The store.
        name: The field.
        defaults: The store's constant defaults.

    Raises:
        MigrationError: They have none.
    """
    if not store.fields[name].nullable and name not in defaults:
        raise MigrationError(
            f"store {store.name!r}: the new field {name!r} has neither a constant default nor allows None, so that rows that are "
            "there would have no value for it; give it one, a plain value or the factory list, dict or set"
        )


def fill_image(store: StoreSpec[object], image: RowImage) -> RowImage:
    """Return ``image`` with exactly the declared columns: unknown ones dropped, missing ones at their default.

    Raises:
        ValidationError: A column without a default is missing.
    """
    defaults = constant_defaults(store)
    filled: RowImage = {}
    for name in store.value_columns:
        if name in image:
            filled[name] = image[name]
        elif name in defaults:
            filled[name] = defaults[name]
        elif store.fields[name].nullable:
            filled[name] = None
        else:
            raise ValidationError(f"a row of {store.name!r} lacks {name!r}", store=store.name, field=name)
    return filled
