"""How a file's columns hold their values: what it says of that, and bringing columns of before up to date.

A column's type does not say whether a whole number is a count, a number of cents or of microseconds, nor whether a text is
bare or JSON. The file therefore keeps the form of every column. One that keeps none was made before there were forms: its
columns hold values packed (:mod:`atoma.schema.packed`), and are rebuilt in the transaction that opens the file. Ended at any
moment, that leaves the file as it was, or as it is to be.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# apsw's stub names a type that is new in Python 3.12

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, NewType, cast

import apsw
import msgspec

from atoma.contracts.values import Scalar
from atoma.errors import MigrationError
from atoma.schema.decimals import Scale
from atoma.schema.fields import SIMPLE, Field
from atoma.schema.schema import Schema
from atoma.schema.spec import StoreSpec
from atoma_stores.sql.migrating import ColumnForms
from atoma_stores.sql.names import quote

Forms = Mapping[str, str]

UNPACK = "atoma_unpack"
VIEW_MARK = "/* made by Atoma: decimals as text */"
_KEY = "form:"
_WHOLE = re.compile(r"decimal\((\d+)\)|duration")
_BY_SQL_TYPE: Mapping[str, type[object]] = {"TEXT": str, "INTEGER": int, "REAL": float, "BLOB": bytes}


def key_of(store: str) -> str:
    """Where ``_atoma_meta`` has the forms of a store's columns."""
    return f"{_KEY}{store}"


def told(store: StoreSpec[Any]) -> str:
    """The forms of a store's columns as the file keeps them."""
    return msgspec.json.encode(store.forms).decode()


def read(kept: object) -> dict[str, str] | None:
    """What :func:`told` made; None when the file has nothing of it."""
    return msgspec.json.decode(kept, type=dict[str, str]) if isinstance(kept, str) else None


def to_rebuild(store: str, fields: Mapping[str, Field], found: ColumnForms, forms: Forms | None) -> Sequence[Field]:
    """The columns of a store that hold another form of their values than ``fields``, and can be brought to that.

    Raises:
        MigrationError: A column holds what would be read as other numbers.
    """
    older: list[Field] = []
    for name, field in fields.items():
        if name == "id" or name not in found:
            continue
        was = None if forms is None else forms.get(name)
        if was == field.form or (forms is not None and was is None):
            continue  # one that the file does not know was added by hand, with the SQL that we have named
        if was is None:
            if field.packed is not None and found[name][0] == "TEXT":
                older.append(field)
            elif field.packed is not None or field.places is not None:
                raise _other_numbers(store, field, found[name][0])
        elif (before := _kind(was)) != field.type and (_WHOLE.fullmatch(before) or _WHOLE.fullmatch(field.type)):
            raise _other_numbers(store, field, before)
        elif field.form == "decimal":
            older.append(field)
    return older


def _kind(form: str) -> str:
    """The type in a form, without how it is packed."""
    return form.partition(" ")[0]


def _other_numbers(store: str, field: Field, was: str) -> MigrationError:
    message = f"store {store!r}: field {field.name!r} is {was} in the file and {field.type} in the code"
    return MigrationError(
        f'{message}; its values become others: say how with a step, Convert("{store}.{field.name}", …), and raise the version'
    )


def rebuild(store: StoreSpec[Any], create: str, columns: Sequence[str], older: Sequence[Field]) -> list[str]:
    """The statements that bring the columns ``older`` up to date; indexes and triggers have to be made again.

    Args:
        store: The store.
        create: The statement that creates its table, under the name that :func:`beside` gives.
        columns: Columns that the table has.
        older: Those to bring up to date.
    """
    unpacked = {field.name for field in older}
    values = [
        f"{UNPACK}('{store.name}', '{name}', id, {quote(name)})" if name in unpacked else quote(name)
        for name in columns
    ]
    table, new = quote(store.name), quote(beside(store.name))
    names = ", ".join(map(quote, columns))
    return [
        *([f"DROP VIEW IF EXISTS {quote(store.readable)}"] if store.readable else []),
        create,
        f"INSERT INTO {new}({names}) SELECT {', '.join(values)} FROM {table}",
        f"DROP TABLE {table}",
        f"ALTER TABLE {new} RENAME TO {table}",
    ]


def beside(store: str) -> str:
    """The name of a store's table while it is rebuilt."""
    return f"_atoma_new_{store}"


def allow_unpacking(connection: apsw.Connection, schema: Schema) -> None:
    """Let the statements of :func:`rebuild` unpack values."""

    def unpack(*arguments: Any) -> Any:
        store, name, id, value = arguments
        field = schema.stores[store].fields[name]
        assert field.packed is not None
        unpacked: Scalar = field.packed.unpack(value)
        if unpacked is not None and not isinstance(unpacked, _BY_SQL_TYPE[field.sql_type]):
            raise MigrationError(
                f"store {store!r}: row {id!r} holds {value!r:.80} in {name!r}, which is not a {field.type_name} that can be kept "
                "today; change it with the version that made the file"
            )
        return unpacked

    connection.create_scalar_function(UNPACK, unpack, 4)


def forbid_unpacking(connection: apsw.Connection) -> None:
    """Undo :func:`allow_unpacking`."""
    connection.create_scalar_function(UNPACK, None, 4)


def declared_type(sql_type: str, form: str | None) -> Any:
    """A type whose values are stored and packed like those of a column; None for a column that we never make.

    Args:
        sql_type: The column's type.
        form: Its form, None where the file keeps none.
    """
    bare = _BY_SQL_TYPE.get(sql_type)
    if form is None or bare is None:
        return bare
    kind = _kind(form)
    whole = _WHOLE.fullmatch(kind)
    if whole and whole[1]:
        return Annotated[Decimal, Scale(int(whole[1]))]
    if kind != form:
        return cast("Any", NewType)("Named", _BY_TYPE[kind])
    return Decimal if kind == "decimal" else bare


_BY_TYPE: Mapping[str, object] = {make("", "").type: hint for hint, make in SIMPLE.items()}


def view_steps(connection: apsw.Connection, store: StoreSpec[Any], *, scoped: bool, rebuilt: bool) -> list[str]:
    """The statements that make the view of a store whose decimals are whole numbers in its table, where there is none.

    Raises:
        MigrationError: Something else has its name.
    """
    if not store.readable:
        return []
    shown = [
        quote(name) if field.places is None else f"{_as_text(quote(name), field.places)} AS {quote(name)}"
        for name, field in store.fields.items()
    ]
    scope = ["_scope"] if scoped else []
    view = f"CREATE VIEW {quote(store.readable)} AS SELECT {', '.join([*scope, *shown])} FROM {quote(store.name)} {VIEW_MARK}"
    found: object = connection.execute("SELECT sql FROM sqlite_schema WHERE name=?", (store.readable,)).get
    if found == view and not rebuilt:
        return []
    if isinstance(found, str) and VIEW_MARK not in found:
        raise MigrationError(
            f"{store.readable!r} is in the way: it is the view that shows the decimals of store {store.name!r}; rename it"
        )
    return [f"DROP VIEW IF EXISTS {quote(store.readable)}", view]


def _as_text(column: str, places: int) -> str:
    """A whole number as the decimal that it stands for, in SQL that knows nothing of us."""
    if not places:
        return f"CAST({column} AS TEXT)"
    digits = f"printf('%0*d', {places + 1} + ({column} < 0), {column})"
    return f"CASE WHEN {column} IS NOT NULL THEN substr({digits}, 1, length({digits}) - {places}) || '.' || substr({digits}, -{places}) END"
