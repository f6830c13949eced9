"""The indexes of a store once they are checked: what rows have under them, and how people write them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

from atoma.contracts.query import PATH, Call, Col, Expr, Lit, Named, Order, Plan, Store
from atoma.contracts.values import RowImage, Scalar, StoredRow
from atoma.errors import QueryError, SchemaError
from atoma.query.check import check
from atoma.query.compiled import Getter, compiled, condition
from atoma.query.walk import expressions
from atoma.schema.expressions import PATH_TYPES
from atoma.schema.indexes import Index
from atoma.schema.spec import AnyStore


class CheckedIndex:
    """An index whose expressions fit its store.

    Attributes:
        keys: What it sorts by; values stand in it as columns store them.
        unique: Whether no two rows of a scope may have the same values there.
        where: The condition of the rows in it; None for all.
        said: What it is called in messages: its fields, or its expressions.
    """

    __slots__ = ("_fits", "_values", "keys", "said", "unique", "where")

    def __init__(self, keys: tuple[Order, ...], unique: bool, where: Expr | None) -> None:
        self.keys, self.unique, self.where = keys, unique, where
        self.said = ", ".join([spelled_key(key).strip('"') for key in keys])
        self._values: Sequence[Getter] = [compiled(key.expr, ()) for key in keys]
        self._fits: Callable[[StoredRow], object] | None = None if where is None else condition(where, ())

    def values(self, row: StoredRow) -> tuple[Scalar, ...] | None:
        """What ``row`` has in it; None when it is not in it, or has a NULL, which is different from every other NULL."""
        if self._fits is not None and not self._fits(row):
            return None
        values = tuple([value(row) for value in self._values])
        return None if None in values else values


@lru_cache(maxsize=1024)
def checked_index(index: Index, spec: AnyStore) -> CheckedIndex:
    """``index`` of ``spec``, checked.

    Raises:
        SchemaError: An expression in it does not fit the store, or looks at more than one row.
    """
    columns = tuple([Named(str(number), key.expr) for number, key in enumerate(index.keys)])
    try:
        # a value is free again once the row that had it is hidden; any other index serves those who look for hidden rows, too
        source = Store(spec.name, hidden=not index.unique)
        plan = check(Plan(source, where=index.where, columns=columns), lambda _: spec)
        assert plan.columns is not None
        keys = [Order(named.expr, key.descending) for named, key in zip(plan.columns, index.keys, strict=True)]
        if not all(isinstance(each, (Call, Col)) for each in (named.expr for named in plan.columns)):
            raise QueryError("an index is over what rows have, not over values")
        if any(
            isinstance(each, Lit) and each.type != PATH for named in plan.columns for each in expressions(named.expr)
        ):
            raise QueryError("no query finds an index over an expression with values in it")
        return CheckedIndex(tuple(keys), index.unique, plan.where)
    except QueryError as error:
        raise SchemaError(f"store {spec.name!r}: an index that cannot be: {error}") from None


@lru_cache(maxsize=1024)
def indexes_of(spec: AnyStore) -> tuple[CheckedIndex, ...]:
    """Every index of a store; see :func:`checked_index`."""
    return tuple([checked_index(index, spec) for index in spec.indexes])


def unique_values(spec: AnyStore, id: str, image: RowImage) -> Iterator[tuple[Index, tuple[Scalar, ...]]]:
    """Each unique index with what the row ``id`` has there when it is ``image``; without those in which it has a NULL."""
    if spec.unique:
        row = StoredRow(id, 0, 0, "", image)
        for index in spec.unique:
            values = checked_index(index, spec).values(row)
            if values is not None:
                yield index, values


def spelled(index: Index) -> str:
    """How people write ``index``, without its condition: ``Index("lane", "-due")``."""
    return f"Index({', '.join(map(spelled_key, index.keys))}{', unique=True' if index.unique else ''})"


def spelled_key(key: Order) -> str:
    """How people write what an index sorts by: ``"-due"``, or ``col("title").lower()``."""
    match key.expr:
        case Col(name=name):
            return f'"{"-" if key.descending else ""}{name}"'
        case Call(fn=fn, args=(Col(name=name), Lit(type=kind, value=path))) if kind == PATH and fn in PATH_TYPES:
            return f'col("{name}").path("{path}", {PATH_TYPES[fn]})'
        case Call(fn=fn, args=(Col(name=name), *rest)) if all(isinstance(each, Lit) for each in rest):
            given = ", ".join([repr(each.value) for each in rest if isinstance(each, Lit)])
            return f'col("{name}").{fn}({given})'
        case expr:
            return f"an expression of {', '.join(sorted({each.name for each in expressions(expr) if isinstance(each, Col)}))}"
