"""From what a caller passes in to validated entries of a write unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_args

from atoma.contracts.checks import check_word
from atoma.contracts.execution import WriteEntry
from atoma.contracts.sync import Op, OpKind
from atoma.contracts.values import RowImage
from atoma.errors import ValidationError
from atoma.schema.spec import StoreSpec

T = TypeVar("T")
UpsertConflict: TypeAlias = Literal["lww", "cas"]
UpsertApply: TypeAlias = Literal["merge", "replace"]
_KINDS: dict[str, OpKind] = {"insert": "create", "update": "patch", "delete": "delete"}


def insert_entry(spec: StoreSpec[T], item: T) -> WriteEntry:
    """An insert of ``item``; raises :class:`ValidationError`."""
    id, image = spec.encode(item)
    return WriteEntry(spec.name, "insert", id, spec.scope_of(image), image)


def insert_entries(spec: StoreSpec[T], items: Sequence[T]) -> list[WriteEntry]:
    """An insert of each of ``items``; raises :class:`ValidationError` when one of them cannot be stored."""
    name, scope_of = spec.name, spec.scope_of
    return [WriteEntry(name, "insert", id, scope_of(image), image) for id, image in spec.encode_many(items)]


def update_entry(spec: StoreSpec[T], id: str, changes: Mapping[str, object], base_version: int | None) -> WriteEntry:
    """A patch of the row ``id``; raises :class:`ValidationError`."""
    return WriteEntry(spec.name, "update", spec.check_id(id), "", spec.encode_changes(changes), base_version)


def delete_entry(spec: StoreSpec[T], id: str, base_version: int | None) -> WriteEntry:
    """A delete of the row ``id``; raises :class:`ValidationError`."""
    return WriteEntry(spec.name, "delete", spec.check_id(id), "", {}, base_version)


def upsert_entry(
    spec: StoreSpec[T],
    item: T | Mapping[str, object],
    conflict: UpsertConflict,
    apply: UpsertApply,
    base_version: int | None,
) -> WriteEntry:
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
        return WriteEntry(spec.name, "upsert", id, scope, image, base_version, replace=True)
    defaults = {name: value for name, value in image.items() if name not in values}
    return WriteEntry(spec.name, "upsert", id, scope, values, base_version, defaults=defaults)


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


def as_op(entry: WriteEntry) -> Op:
    """The entry as an operation that can be replayed on an image."""
    values: dict[str, object] = dict(entry.values)
    if entry.op == "upsert":
        return Op("replace" if entry.replace else "upsert", entry.store, entry.id, values, dict(entry.defaults))
    return Op(_KINDS[entry.op], entry.store, entry.id, values)
