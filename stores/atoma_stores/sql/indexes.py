"""Indexes as SQL, in which values stand in the text."""

from __future__ import annotations

import hashlib

from atoma.contracts.functions import FUNCTIONS
from atoma.contracts.query import Call, Col, Expr, Lit, Store
from atoma.errors import SchemaError
from atoma.query.indexes import CheckedIndex
from atoma.query.scope import AnyStore
from atoma_stores.sql.functions import BY_KIND, OURS, sql_of
from atoma_stores.sql.kinds import kind_of_arguments
from atoma_stores.sql.literals import literal
from atoma_stores.sql.names import quote


def index_name(store: AnyStore, index: CheckedIndex, *, unique: bool) -> str:
    """What an index is called: after its fields, and where it is more than these after what it is as well."""
    parts = [key.expr.name if isinstance(key.expr, Col) else "" for key in index.keys]
    name = f"_atoma_{'unique' if unique else 'index'}_{store.name}__{'__'.join(filter(None, parts))}"
    if all(parts) and index.where is None and not any(key.descending for key in index.keys):
        return name
    text = ", ".join(index_columns(store, index)) + (f" WHERE {row_text(index.where, store)}" if index.where else "")
    return f"{name}__{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def index_columns(store: AnyStore, index: CheckedIndex) -> list[str]:
    """What an index sorts by, as ``CREATE INDEX`` takes it."""
    return [row_text(key.expr, store) + (" DESC" if key.descending else "") for key in index.keys]


def row_text(expr: Expr, store: AnyStore) -> str:
    """A checked expression over a row of ``store``, with its values in the text.

    Raises:
        SchemaError: It calls a function that other tools which write the file would lack.
    """
    match expr:
        case Lit(value=value):
            return literal(value)
        case Col(name=name):
            return quote(name)
        case Call(fn=fn, args=args):
            kind = kind_of_arguments(expr, (Store(store.name),), (), lambda _: store) if fn in BY_KIND else ""
            text = sql_of(fn, [row_text(arg, store) for arg in args], kind)
            if OURS in text:
                signed = FUNCTIONS[fn].sign or f"{fn}()"
                raise SchemaError(
                    f"store {store.name!r}: an index cannot use {signed}: other tools that write the file do not know it"
                )
            return text
        case _:
            raise SchemaError(f"store {store.name!r}: an index looks at one row")
