"""What migrations could not convert, with the client's own write path as the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from atoma.contracts.mutations import Op
from atoma.contracts.quarantine import Quarantined
from atoma.contracts.values import RowImage, Scalar
from atoma.errors import ConflictError, ValidationError
from atoma.ports.engine import LocalDatabase
from atoma.runtime.results import WriteHandle, error_of, handle_of
from atoma.runtime.runtime import Runtime
from atoma.schema.migrations import Past
from atoma.schema.spec import StoreSpec


class Quarantine:
    """The values that a migration of this device's file could not convert: none of them is dropped.

    Nothing leaves it unless somebody says so.
    """

    def __init__(self, database: LocalDatabase, runtime: Runtime) -> None:
        self._database = database
        self._runtime = runtime

    async def entries(self) -> Sequence[Quarantined]:
        """Everything that was put aside, oldest first.

        Raises:
            StoreError: The engine failed.
        """
        self._runtime.core.guard.check()
        return await self._database.inspect(lambda tx: tx.inbox.quarantine())

    async def discard(self, entry: Quarantined) -> None:
        """Let go of what was put aside; the row stays as it is, or absent.

        Raises:
            ConflictError: It is not in the quarantine any more.
        """
        self._runtime.core.guard.check()
        if not await self._database.apply(lambda tx: tx.inbox.forget_quarantined([entry.number])):
            raise _gone(entry)

    async def bring_back(self, entry: Quarantined, fields: Mapping[str, object]) -> WriteHandle[object]:
        """Write the row with the values that it should have, as any other write, and let go of the entry.

        Where there is a row by now, ``fields`` are set in it, and no others. Where there is none, it is made of ``fields``,
        of what was put aside and can be read today, and of the model's defaults.

        Args:
            entry: One of :meth:`entries`.
            fields: Values by the names of today's fields, without the id.

        Returns:
            The handle of the write.

        Raises:
            ConflictError: It is not in the quarantine any more.
            ValidationError: A field is unknown or missing, or cannot have its value; the entry stays.
            UnknownStore: There is no such store any more.
            WriteError: The write was refused; the entry stays.

        Cancelled between the two steps, the row is there and the entry, too; doing it again does no harm.
        """
        self._runtime.core.guard.check()
        spec = self._runtime.schema.store(entry.store)
        op = _again(entry, spec, self._runtime.schema.past(entry.version).get(entry.store), fields)
        if entry.number not in [one.number for one in await self.entries()]:
            raise _gone(entry)
        result = await self._runtime.core.writes.write([op])
        if not result.items[0].ok:
            raise error_of(entry.store, result.items[0])
        await self._database.apply(lambda tx: tx.inbox.forget_quarantined([entry.number]))
        return handle_of(result, 0, spec.seen, self._runtime.core)


def _gone(entry: Quarantined) -> ConflictError:
    message = (
        f"{entry.store}/{entry.id}: it is not in the quarantine any more; somebody has brought it back, or let go of it"
    )
    return ConflictError(message, store=entry.store, id=entry.id)


def _again(entry: Quarantined, spec: StoreSpec[Any], past: Past | None, fields: Mapping[str, object]) -> Op:
    """The write of the row: ``fields`` wherever it is, the rest only where it is made."""
    unknown = next((name for name in fields if name not in spec.columns or name == "id"), None)
    if unknown is not None:
        known = ", ".join([name for name in spec.columns if name != "id"])
        message = f"{entry.store}/{entry.id}: there is no field {unknown!r} to set; it has: {known}"
        raise ValidationError(message, store=entry.store, field=unknown, value=fields[unknown])
    read = _readable(entry, spec, past)
    values = {name: _decoded(spec, name, value) for name, value in read.items() if name not in fields}
    try:
        row: object = cast("Any", spec.model)(**{**values, **fields, "id": entry.id})
    except TypeError as error:
        message = f"{entry.store}/{entry.id}: the row may have to be made, but {error}"
        raise ValidationError(message, store=entry.store) from None
    id, image = spec.encode(row)
    given: RowImage = spec.unhidden({name: image[name] for name in image if name in fields})
    defaults = {name: value for name, value in image.items() if name not in given}
    return Op("upsert", spec.name, id, given, scope=spec.scope_of(image), defaults=defaults)


def _readable(entry: Quarantined, spec: StoreSpec[Any], past: Past | None) -> RowImage:
    """The values that were put aside and that today's fields can hold."""
    fields = (spec if past is None else past).fields
    found: RowImage = {}
    for name, value in entry.kept.items():
        if name not in fields or not (value is None or isinstance(value, (int, float, str))):
            continue
        try:
            stored = bytes.fromhex(value) if fields[name].sql_type == "BLOB" and isinstance(value, str) else value
            turned: RowImage = {name: stored}
            turned = turned if past is None else past.upgrade(turned)
            found |= {key: spec.canonical(key, one) for key, one in turned.items() if key in spec.value_columns}
        except (ValidationError, ValueError):
            continue
    return found


def _decoded(spec: StoreSpec[Any], name: str, value: Scalar) -> object:
    decode = spec.fields[name].decode
    return value if decode is None or value is None else decode(value)
