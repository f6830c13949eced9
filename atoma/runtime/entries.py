"""From what a caller passes in to validated entries of a write unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_args

from atoma.contracts.checks import check_word
from atoma.contracts.mutations import Op
from atoma.contracts.values import RowImage
from atoma.errors import ValidationError
from atoma.schema.spec import StoreSpec

T = TypeVar("T")
UpsertConflict: TypeAlias = Literal["lww", "cas"]
UpsertApply: TypeAlias = Literal["merge", "replace"]


def insert_entry(spec: StoreSpec[T], item: T) -> Op:
    """An insert of ``item``; raises :class:`ValidationError`."""
    id, image = spec.encode(item)
    return Op("create", spec.name, id, image, scope=spec.scope_of(image))


def insert_entries(spec: StoreSpec[T], items: Sequence[T]) -> list[Op]:
    """An insert of each of ``items``; raises :class:`ValidationError` when one of them cannot be stored."""
    name, scope_of = spec.name, spec.scope_of
    return [Op("create", name, id, image, scope=scope_of(image)) for id, image in spec.encode_many(items)]


def update_entry(spec: StoreSpec[T], id: str, changes: Mapping[str, object], base_version: int | None) -> Op:
    """A patch of the row ``id``; raises :class:`ValidationError`."""
    return Op("patch", spec.name, spec.check_id(id), spec.encode_changes(changes), base_version=base_version)


def delete_entry(spec: StoreSpec[T], id: str, base_version: int | None) -> Op:
    """A delete of the row ``id``; raises :class:`ValidationError`."""
    return Op("delete", spec.name, spec.check_id(id), base_version=base_version)


def upsert_entry(
    spec: StoreSpec[T],
    item: T | Mapping[str, object],
    conflict: UpsertConflict,
    apply: UpsertApply,
    base_version: int | None,
) -> Op:
    """An upsert of a whole item or, by name, of some of its fields (the id among them).

    Raises:
        ValidationError: A wrong field, type, value or word; ``cas`` without ``base_version``.
    """
    check_word("conflict", conflict, get_args(UpsertConflict))
    check_word("apply", apply, get_args(UpsertApply))
    if (conflict == "cas") != (base_version is not None):
        message = 'upsert(conflict="cas") needs base_version=, the version you saw (0: the row must not exist yet)'
        raise ValidationError(message, store=spec.name, field="base_version", value=base_version)
    if isinstance(item, Mapping):
        given = cast("Mapping[str, object]", item)
        full = _with_defaults(spec, given)
        id, image = spec.encode(full)
        values: RowImage = {name: image[name] for name in image if name in given}
    else:
        id, image = spec.encode(item)
        values = image
    scope = spec.scope_of(image)
    if apply == "replace":
        return Op("replace", spec.name, id, image, scope=scope, base_version=base_version)
    defaults = {name: value for name, value in image.items() if name not in values}
    return Op("upsert", spec.name, id, values, scope=scope, base_version=base_version, defaults=defaults)


def _with_defaults(spec: StoreSpec[T], given: Mapping[str, object]) -> T:
    unknown = [name for name in given if name not in spec.fields]
    if unknown or "id" not in given:
        what = f"unknown field {unknown[0]!r}" if unknown else "an upsert by name needs the id"
        field = unknown[0] if unknown else "id"
        raise ValidationError(f"store {spec.name!r}: {what}", store=spec.name, field=field, value=dict(given))
    try:
        return cast("T", cast("Any", spec.model)(**given))
    except TypeError as error:
        message = f"store {spec.name!r}: the row may have to be created, but {error}"
        raise ValidationError(message, store=spec.name, value=dict(given)) from None
