"""Indexes as SQL, with values written into the text."""

from __future__ import annotations

import hashlib

from atoma.contracts.functions import FUNCTIONS
from atoma.contracts.query import PATH, Call, Col, Expr, Lit, Store
from atoma.errors import SchemaError
from atoma.query.indexes import CheckedIndex
from atoma.schema.spec import AnyStore
from atoma_stores.sql.functions import OURS
from atoma_stores.sql.kinds import kind_of_arguments
from atoma_stores.sql.names import quote
from atoma_stores.sql.spelling import SQLITE, Spelling


def index_name(store: AnyStore, index: CheckedIndex, *, unique: bool, spelling: Spelling = SQLITE) -> str:
    """Return the name of an index, made of its fields and, if it is more than these, of a hash of the rest."""
    parts = [key.expr.name if isinstance(key.expr, Col) else "" for key in index.keys]
    name = f"_atoma_{'unique' if unique else 'index'}_{store.name}__{'__'.join(filter(None, parts))}"
    plain = all(parts) and index.where is None and not any(key.descending for key in index.keys)
    if not plain or len(name.encode()) > spelling.name_bytes:
        text = ", ".join(index_columns(store, index, spelling)) + index_where(store, index, spelling)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        name = f"{name}__{digest}"
    if len(name.encode()) > spelling.name_bytes:
        name = f"{name[:10]}{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    return name


def index_columns(store: AnyStore, index: CheckedIndex, spelling: Spelling = SQLITE) -> list[str]:
    """Return the columns of an index for ``CREATE INDEX``, in the order in which queries sort their rows."""
    return [
        spelling.key(
            spelling.indexed(row_text(key.expr, store, spelling), plain=isinstance(key.expr, Col)),
            descending=key.descending,
            nullable=not isinstance(key.expr, Col) or store.fields[key.expr.name].nullable,
        )
        for key in index.keys
    ]


def index_where(store: AnyStore, index: CheckedIndex, spelling: Spelling = SQLITE) -> str:
    """Return the condition of a partial index, to follow its columns; ``""`` for an index of all rows."""
    return "" if index.where is None else f" WHERE {row_text(index.where, store, spelling, condition=True)}"


def row_text(expr: Expr, store: AnyStore, spelling: Spelling = SQLITE, *, condition: bool = False) -> str:
    """Return a checked expression over a row of ``store`` as SQL, with its values in the text.

    Args:
        expr: The expression.
        store: The store.
        spelling: The spelling of the database.
        condition: Whether it is wanted as a condition, and not as a value.

    Raises:
        SchemaError: It calls a function that other tools, which may write to the file, would lack.
    """
    match expr:
        case Lit(type=kind, value=value):
            text, says = spelling.path(str(value)) if kind == PATH else spelling.literal(value), False
        case Col(name=name):
            text, says = quote(name), False
        case Call(fn=fn, args=args):
            takes = FUNCTIONS[fn].takes
            wanted = (*takes, *[takes[-1]] * len(args))
            parts = [
                row_text(arg, store, spelling, condition=want == "bool")
                for arg, want in zip(args, wanted, strict=False)
            ]
            kind = kind_of_arguments(expr, (Store(store.name),), (), lambda _: store) if fn in spelling.by_kind else ""
            text, says = spelling.call(fn, parts, kind), FUNCTIONS[fn].gives == "bool"
            if OURS in text:
                signed = FUNCTIONS[fn].sign or f"{fn}()"
                raise SchemaError(
                    f"store {store.name!r}: an index cannot use {signed}: other tools that write the file do not know it"
                )
        case _:
            raise SchemaError(f"store {store.name!r}: an index looks at one row")
    if condition:
        return text if says else spelling.condition(text)
    return spelling.number(text) if says else text
