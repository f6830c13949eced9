"""Changesets as writes: what they say is checked field by field against the rows as they are, and becomes one unit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from msgspec.structs import replace

from atoma.contracts.execution import WriteResult
from atoma.contracts.history import Changeset, RowChange, UndoMark
from atoma.contracts.limits import MUTATION_OPS
from atoma.contracts.mutations import Op
from atoma.contracts.values import RowImage, RowKey, StoredRow
from atoma.errors import ConflictError, PolicyNotAllowed, ValidationError
from atoma.mutations import differences, edited
from atoma.query.plans import by_ids, in_parts
from atoma.runtime.flows import Core, written_over
from atoma.runtime.results import error_of, handle_key
from atoma.schema.schema import Schema
from atoma.schema.spec import StoreSpec

TRIES = 5
"""So often rows are read anew because somebody has changed them by the time of the write."""
_ORDER = {"delete": 0, "patch": 1, "create": 2}
"""Values that are unique are given up before they are taken."""


@dataclass(frozen=True, slots=True)
class Written:
    """The writes that a changeset has become.

    Attributes:
        rows: The rows that were written.
        key: What the write is recalled by.
    """

    rows: tuple[RowKey, ...] = ()
    key: str = ""


class Turning:
    """The application of changesets.

    Args:
        core: What the stores of the client share.
        schema: The declared stores.
        is_local: Whether the writes of a policy are decided on this device, or lie in its outbox.
    """

    def __init__(self, core: Core, schema: Schema, is_local: Callable[[str], bool]) -> None:
        self._core = core
        self._schema = schema
        self._is_local = is_local

    async def write(self, changesets: Sequence[Changeset], *, mark: UndoMark | None = None) -> Written:
        """Apply ``changesets``, one after the other, as one unit: all or nothing.

        Every field that they change must have the value that they found it with; what they leave alone does not count.

        Raises:
            ConflictError: It has another, or a row is gone or there already; nothing was written.
            ValidationError: A value fits no column, or it is more than one write may do.
            PolicyNotAllowed: Another machine decides the writes of a store first.
            UnknownStore: A store is not declared.
        """
        wanted = [replace(one, changes=tuple(self._today(one))) for one in changesets]
        keys = dict.fromkeys((each.store, each.id) for one in wanted for each in one.changes)
        policy = self._policy({store for store, _ in keys})
        for attempt in range(TRIES):
            rows = await self._rows(keys)
            entries = sorted(self._entries(wanted, rows), key=lambda op: (op.scope, _ORDER[op.kind]))
            if not entries:
                return Written()
            parts = tuple(len(list(part)) for _, part in groupby(entries, lambda op: op.scope))
            if max(parts) > MUTATION_OPS:
                raise ValidationError(
                    f"this is about {max(parts)} rows of one scope; one write takes {MUTATION_OPS:,} at most"
                )
            result = await self._core.writes.write(entries, policy=policy, atomic=True, parts=parts, mark=mark)
            if all(item.ok for item in result.items):
                return Written(tuple((op.store, op.id) for op in entries), handle_key(result, 0))
            _raise_refusal(entries, result, last=attempt == TRIES - 1)
        raise AssertionError("unreachable")

    def _policy(self, stores: set[str]) -> str | None:
        """The policy that carries it out: that of what replicates, which leaves other stores on this device."""
        deciding = sorted(stores & self._core.synced or stores)
        for store in deciding:
            chosen = self._core.names.resolve(store, None)
            if not self._is_local(chosen):
                raise PolicyNotAllowed(
                    chosen, store, "undo and changesets are decided on this device, and this policy writes elsewhere"
                )
        return self._core.names.resolve(deciding[0], None) if deciding else None

    async def _rows(self, keys: Mapping[RowKey, None]) -> dict[RowKey, StoredRow]:
        found: dict[RowKey, StoredRow] = {}
        for store in dict.fromkeys(store for store, _ in keys):
            for part in in_parts([id for name, id in keys if name == store]):
                result = await self._core.reads.query(by_ids(store, part, include_deleted=True), "direct-local")
                found.update({(store, row.id): row for row in result.rows})
        return found

    def _entries(self, changesets: Sequence[Changeset], rows: Mapping[RowKey, StoredRow]) -> Iterator[Op]:
        images: dict[RowKey, RowImage | None] = {}
        scopes: dict[RowKey, str] = {}
        for one in changesets:
            for change in one.changes:
                key = (change.store, change.id)
                row = rows.get(key)
                now = images.get(key, None if row is None else row.image)
                images[key] = applied(self._schema.store(change.store), change, now)
                scopes[key] = change.scope if row is None else row.scope
        for key, image in images.items():
            op = _op(self._schema.store(key[0]), key[1], scopes[key], rows.get(key), image)
            if op is not None:
                yield op

    def _today(self, changeset: Changeset) -> Iterator[RowChange]:
        """The changes in today's terms, each value checked: a changeset may come from a file, and from another version."""
        if changeset.schema_version > self._schema.version:
            raise ValidationError(
                f"the changeset is of schema version {changeset.schema_version}, this program declares {self._schema.version}"
            )
        pasts = self._schema.past(changeset.schema_version)
        for change in changeset.changes:
            spec, past = self._schema.store(change.store), pasts.get(change.store)
            spec.check_id(change.id)
            before, after = (
                _checked(spec, image if past is None or image is None else past.upgrade(image))
                for image in (change.before, change.after)
            )
            yield replace(change, before=before, after=after)


def applied(spec: StoreSpec[Any], change: RowChange, now: RowImage | None) -> RowImage | None:
    """The row ``now`` after ``change``.

    Raises:
        ConflictError: A field that it changes has another value than it found, or the row is gone, or there.
    """
    before, after = change.before, change.after
    where = f"{change.store}/{change.id}"
    if before is None:
        if now is not None and after is not None:
            raise ConflictError(f"{where}: the row is there already", store=change.store, id=change.id, current=now)
        return after
    if now is None:
        raise ConflictError(f"{where}: the row is gone", store=change.store, id=change.id)
    written = [name for name in spec.value_columns if name not in spec.sets.names | spec.merging.states]
    fields = [name for name in written if after is None or spec.differ(name, after.get(name), before.get(name))]
    merging = spec.merging.edited
    moved = [name for name in fields if name not in merging and spec.differ(name, now.get(name), before.get(name))]
    if moved:
        message = f"{where}: {', '.join(moved)} has been changed since"
        raise ConflictError(message, store=change.store, id=change.id, current=now)
    if after is None:
        return None
    final = [name for name in fields if name in spec.merging.joins and not _counts(spec, name, now, after)]
    if final:
        message = f"{where}: {', '.join(final)} keeps the largest or smallest value there was, and does not go back"
        raise ConflictError(message, store=change.store, id=change.id, current=now)
    edits = differences(spec, before, {name: after[name] for name in fields})
    return edited({**now, **{name: after[name] for name in fields if name not in merging}}, edits)


def _counts(spec: StoreSpec[Any], name: str, now: RowImage, after: RowImage) -> bool:
    """Whether a maximum or minimum becomes what it is to be."""
    return edited(now, differences(spec, now, {name: after[name]}))[name] == after[name]


def _checked(spec: StoreSpec[Any], image: RowImage | None) -> RowImage | None:
    if image is None:
        return None
    missing = sorted(set(spec.value_columns) ^ image.keys())
    if missing:
        message = f"a row of {spec.name!r} in the changeset has not the fields of the store: {', '.join(missing)}"
        raise ValidationError(message, store=spec.name, field=missing[0])
    return {name: spec.canonical(name, value) for name, value in image.items()}


def _op(spec: StoreSpec[Any], id: str, scope: str, row: StoredRow | None, image: RowImage | None) -> Op | None:
    """What makes ``image`` of ``row``; it names the version, so that a change that is not known here is a conflict.

    What merges by itself is no conflict: the opposite of an increment is an increment.
    """
    store = spec.name
    if row is None:
        return None if image is None else Op("create", store, id, image, scope=scope)
    if image is None:
        return Op("delete", store, id, scope=scope, base_version=row.version)
    patch = {name: value for name, value in image.items() if value != row.image.get(name)}
    return replace(written_over(spec, row, patch), scope=scope) if patch else None


def _raise_refusal(entries: Sequence[Op], result: WriteResult, *, last: bool) -> None:
    """Raise why the unit was refused; not when a row has only moved since it was read, and it may be tried again."""
    for op, item in zip(entries, result.items, strict=True):
        if not item.ok and (item.error is None or item.error.code != "ABORTED"):
            error = error_of(op.store, item)
            if last or not isinstance(error, ConflictError):
                raise error
            return
