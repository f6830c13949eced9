"""Snapshots of a schema, one for each released version, and the tests that they make: no data is lost on any way between them.

Write one whenever you release, and commit it; :func:`check_version` brings a file of it to the schema of today.

>>> write_snapshot(SCHEMA, "schemas", {"products": [Product(title="Lamp", price=Decimal("12.50"))]})
>>> @pytest.mark.parametrize("version", snapshots("schemas"))
... async def test_a_file_of_every_release_opens(version, tmp_path):
...     await check_version(SCHEMA, "schemas", version, tmp_path)
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from atoma.contracts.mutations import MutationBody, Op
from atoma.contracts.values import RowImage, Scalar, as_image
from atoma.errors import SchemaError
from atoma.ports import Environment, LocalTx
from atoma.query.plans import every_row
from atoma.schema import Schema, StoreSpec
from atoma.schema.bodies import decode_body, encode_body
from atoma.schema.migrations import Past
from atoma_stores.sqlite import SQLiteEngine
from atoma_stores.sqlite.forms import declared_type

_NAME = "version-{}.json"


class StoreSnapshot(msgspec.Struct, frozen=True):
    """A store as a version declared it.

    Attributes:
        scope: The field that names the scope of a row, or the fixed scope.
        columns: Column type, form, and whether None is allowed, by field.
        rows: Rows of that version, packed, each with its id.
    """

    scope: str
    columns: dict[str, tuple[str, str, bool]]
    rows: list[dict[str, object]]


class Snapshot(msgspec.Struct, frozen=True):
    """A schema as it was released."""

    version: int
    stores: dict[str, StoreSnapshot]


def snapshots(folder: str | os.PathLike[str]) -> list[int]:
    """The versions of which ``folder`` has snapshots, in order."""
    prefix, suffix = _NAME.split("{}")
    return sorted(int(path.name[len(prefix) : -len(suffix)]) for path in Path(folder).glob(_NAME.format("*")))


def write_snapshot(
    schema: Schema, folder: str | os.PathLike[str], rows: Mapping[str, Sequence[object]], *, again: bool = False
) -> Path:
    """Write the snapshot of ``schema`` into ``folder``, to be committed; where it is.

    Args:
        schema: The schema that is about to be released.
        folder: Where the snapshots are; it is made.
        rows: By store, some objects of its model, with whatever your users may have put into them.
        again: Replace the one of the same version, as nobody has that yet.

    Raises:
        SchemaError: There is one of that version, or a store has no rows.
        ValidationError: A row cannot be stored.
    """
    path = Path(folder) / _NAME.format(schema.version)
    if path.exists() and not again:
        raise SchemaError(f"{path} is there: raise the version of the schema, or replace it with again=True")
    if lacking := sorted(name for name in schema.stores if not rows.get(name)):
        raise SchemaError(f"a snapshot wants some rows of every store; there are none of {', '.join(lacking)}")
    found = Snapshot(schema.version, {name: _of_store(store, rows[name]) for name, store in schema.stores.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    return path


def read_snapshot(folder: str | os.PathLike[str], version: int) -> Snapshot:
    """The snapshot of ``version``.

    Raises:
        SchemaError: There is none.
    """
    path = Path(folder) / _NAME.format(version)
    if not path.exists():
        raise SchemaError(f"{path}: there is no snapshot of version {version}")
    return msgspec.json.decode(path.read_bytes(), type=Snapshot)


async def check_version(
    schema: Schema, folder: str | os.PathLike[str], version: int, scratch: str | os.PathLike[str]
) -> None:
    """See that nothing is lost on the way of a file, and of what waits in it, from ``version`` to the schema of today.

    The file is made of the snapshot, opened with ``schema``, and read; each row is brought to every version in between as well,
    and has the columns of its snapshot there.

    Args:
        schema: The schema of today.
        folder: Where the snapshots are.
        version: The version to begin with, one of :func:`snapshots`.
        scratch: A folder for the file.

    Raises:
        AssertionError: A row is lost or cannot be read, a write that waits cannot be converted, or the snapshot of the
            schema's own version says something else than the schema.
        MigrationError: A step is missing.
    """
    snapshot = read_snapshot(folder, version)
    before = _schema_of(snapshot)
    if version == schema.version:
        _check_same(schema, snapshot)
    path = Path(scratch) / f"from-{version}.db"
    path.unlink(missing_ok=True)
    rows = {name: {str(row["id"]): _image(store, row) for row in store.rows} for name, store in snapshot.stores.items()}
    async with SQLiteEngine(path).open_database(before, Environment(), frozenset()) as database:
        await database.apply(lambda tx: _fill(tx, before, rows))
    async with SQLiteEngine(path).open_database(schema, Environment(), frozenset()) as database:
        for name, wanted in rows.items():
            if name not in schema.stores:
                continue
            found = {row.id: row.image for row in (await database.read(every_row(name))).rows}
            assert found.keys() == wanted.keys(), f"rows of {name!r} are lost: {sorted(wanted.keys() - found.keys())}"
            for id, image in found.items():
                schema.stores[name].decode(id, image)
    for name in rows.keys() & schema.stores.keys():
        _check_writes(before, schema, name, rows[name])
        _check_between(schema, folder, version, name, rows[name])


def _of_store(store: StoreSpec[Any], rows: Sequence[object]) -> StoreSnapshot:
    fields = {name: field for name, field in store.fields.items() if name != "id"}
    return StoreSnapshot(
        store.scope_field or store.fixed_scope,
        {name: (field.sql_type, field.form, field.nullable) for name, field in fields.items()},
        [{"id": id, **_as_json(store.pack(image))} for id, image in map(store.encode, rows)],
    )


def _as_json(image: RowImage) -> dict[str, object]:
    return {name: {"hex": value.hex()} if isinstance(value, bytes) else value for name, value in image.items()}


def _image(store: StoreSnapshot, row: Mapping[str, object]) -> RowImage:
    """The packed image of a row in a snapshot."""
    return as_image({name: _value(store.columns[name][0], value) for name, value in row.items() if name != "id"})


def _value(sql_type: str, value: object) -> object:
    if sql_type == "BLOB" and isinstance(value, dict):
        return bytes.fromhex(str(cast("dict[str, object]", value)["hex"]))
    return float(value) if sql_type == "REAL" and isinstance(value, int) else value


def _schema_of(snapshot: Snapshot) -> Schema:
    """Stores whose files are like those of the version; their models are made up."""
    specs: list[StoreSpec[Any]] = []
    for name, store in snapshot.stores.items():
        fields: list[tuple[str, Any]] = [("id", str)]
        for column, (sql_type, form, nullable) in store.columns.items():
            bare = declared_type(sql_type, form)
            fields.append((column, bare | None if nullable else bare))
        model = dataclasses.make_dataclass(f"Snapshot_{name}", fields, frozen=True, kw_only=True)
        specs.append(StoreSpec(name, model, scope=store.scope))
    return Schema(*specs, version=snapshot.version)


def _fill(tx: LocalTx, schema: Schema, rows: Mapping[str, Mapping[str, RowImage]]) -> None:
    for name, images in rows.items():
        store = schema.stores[name]
        for id, packed in images.items():
            image = store.unpack(packed)
            tx.rows.put(name, id, store.scope_of(image), image)


def _check_same(schema: Schema, snapshot: Snapshot) -> None:
    for name, store in schema.stores.items():
        declared = _of_store(store, ()).columns
        kept = snapshot.stores[name].columns if name in snapshot.stores else {}
        assert declared == kept, (
            f"store {name!r} is not as the snapshot of version {schema.version} says: raise the version, or, when nobody has "
            f"that version yet, write the snapshot again: {_difference(kept, declared)}"
        )


def _difference(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return ", ".join(
        f"{name}: {before.get(name, 'nothing')} there, {after.get(name, 'nothing')} here" for name in names
    )


def _check_writes(before: Schema, schema: Schema, name: str, rows: Mapping[str, RowImage]) -> None:
    """A create and a patch of each field, as they may wait on a device, can be read."""
    store = before.stores[name]
    for id, packed in rows.items():
        image = store.unpack(packed)
        parts: list[RowImage] = [image, *({field: value} for field, value in image.items())]
        ops = [Op("patch" if at else "create", name, id, part) for at, part in enumerate(parts)]
        body = MutationBody(1, "key", "main", 0, before.version, 0, tuple(ops))
        read = decode_body(encode_body(body, before), schema)
        assert len(read.ops) == len(ops)
        for op in read.ops:
            for field, value in op.values.items():
                assert field in schema.stores[name].fields, (
                    f"a write that waits sets {name}.{field}, which is not a field today"
                )
                _ = schema.stores[name].canonical(field, value, literal=True)


def _check_between(
    schema: Schema, folder: str | os.PathLike[str], version: int, name: str, rows: Mapping[str, RowImage]
) -> None:
    first = schema.past(version).get(name)
    if first is None:
        return
    for between in snapshots(folder):
        if not version < between < schema.version or name not in (there := read_snapshot(folder, between)).stores:
            continue
        last = schema.past(between).get(name)
        columns = there.stores[name].columns
        for id, packed in rows.items():
            image = _part_of_way(first, last).upgrade(first.unpack(packed))
            odd = sorted(image.keys() - columns.keys())
            assert not odd, f"row {id!r} of {name!r} has {', '.join(odd)} in version {between}, which had no such field"
            for field, value in image.items():
                sql_type = columns[field][0]
                assert value is None or _type_of(value) == sql_type, f"{name}.{field} is {value!r} in version {between}"


def _part_of_way(first: Past, last: Past | None) -> Past:
    """The steps between two versions."""
    behind = 0 if last is None else len(last.turns)
    return msgspec.structs.replace(first, turns=first.turns[: len(first.turns) - behind])


def _type_of(value: Scalar) -> str:
    types: dict[type, str] = {str: "TEXT", int: "INTEGER", float: "REAL", bytes: "BLOB", bool: "INTEGER"}
    return types[type(value)]
