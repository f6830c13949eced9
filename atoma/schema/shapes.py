"""Shapes: named parts of scopes, with parameters, that a hub gives out and a device asks for by their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from atoma.contracts.checks import is_a
from atoma.contracts.query import Call, Expr, Lit
from atoma.contracts.values import Scalar
from atoma.errors import QueryError, SchemaError, ValidationError
from atoma.schema.expressions import Condition, Expression
from atoma.schema.fields import SIMPLE
from atoma.schema.kinds import Kind
from atoma.schema.spec import StoreSpec, is_scope

V = TypeVar("V")

_PARAMETER = "\N{REPLACEMENT CHARACTER} parameter of a shape: "


def param(name: str, of: type[V]) -> Expression[V]:
    """A value that each device gives, in the condition of a :class:`Shape`.

    It is compared with a column: ``DUE >= param("since", date)``.

    Args:
        name: Its name, under which :meth:`Shape.of` takes the value.
        of: Type of the value: ``str``, ``int``, ``float``, ``bool``, ``bytes``, ``datetime``, ``date``, ``time``, ``timedelta`` or
            ``UUID``.

    Raises:
        SchemaError: It is none of these, or the name cannot be that of an argument.
    """
    if not is_a(name, str) or not name.isidentifier():
        raise SchemaError(f"param(): a name like 'since' comes first, not {name!r}")
    kind = _kind(of, name)
    if kind is None or kind.type == "decimal":
        raise SchemaError(
            f"param({name!r}): a parameter is a str, int, float, bool, bytes, date, time or UUID, not {of!r}"
        )
    return Expression(Lit(kind.type, _PARAMETER + name))


def _kind(of: object, name: str) -> Kind | None:
    made = SIMPLE.get(of)
    return None if made is None else made("shape", name)


class _Row:
    """The one source that a shape reads."""

    def __init__(self, store: str) -> None:
        self._store = store

    def number(self, source: str) -> int:
        """See :class:`atoma.schema.terms.Places`."""
        if source not in ("", self._store):
            raise QueryError(f"a shape looks at one row of {self._store!r}, not at {source!r}")
        return 0


class Shape:
    """A part of every scope, given out by a hub under a name: the rows of one store that fulfil a condition.

    ``Schema(CARDS, shapes=[RECENT])`` declares it, at the hub and on the devices alike. A device takes several shapes of a scope,
    of one store or of several, by wanting each of them; what none of them takes in is not there.

    Args:
        name: Its name, in letters, digits and underscores.
        store: The store.
        where: The condition, about one row, with :func:`param` where a device says what it wants; None for every row.

    Raises:
        SchemaError: One of these is something else, or two parameters of one name are of different types.

    Attributes:
        where: The condition, its parameters in their places.
        params: The type of each parameter, by name, as queries call it.
    """

    __slots__ = ("name", "params", "store", "where")

    def __init__(self, name: str, store: StoreSpec[Any], where: Condition | None = None) -> None:
        if not is_a(name, str) or not name.isidentifier():
            raise SchemaError(f"Shape(): a name like 'recent' comes first, not {name!r}")
        if not is_a(store, StoreSpec):
            raise SchemaError(f"shape {name!r}: a store comes second, not {store!r}")
        if where is not None and not is_a(where, Expression):
            raise SchemaError(f"shape {name!r}: a condition about one row of {store.name!r} comes third, not {where!r}")
        self.name = name
        self.store = store
        try:
            self.where = None if where is None else where.at(_Row(store.name), kept=True)
        except QueryError as error:
            raise SchemaError(f"shape {name!r}: {error}") from None
        self.params: Mapping[str, str] = MappingProxyType(self._found())

    def __repr__(self) -> str:
        return f"Shape({self.name!r}, {self.store.name!r})"

    def _found(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for leaf in () if self.where is None else leaves(self.where):
            name = parameter(leaf)
            if name and found.setdefault(name, leaf.type) != leaf.type:
                raise SchemaError(f"shape {self.name!r}: parameter {name!r} has two types")
        return found

    def of(self, scope: str = "", /, **values: object) -> ScopePart:
        """The part of ``scope`` that the shape takes with ``values``: what ``Sync(scopes=…)``, ``sync.scope(…)`` and ``bring=`` take.

        Args:
            scope: The scope; left out for a store whose rows are all of one.
            values: The value of each parameter.

        Raises:
            SchemaError: There is no such scope, or a parameter too many or too few.
            ValidationError: A value is not of its parameter's type.
        """
        scope = scope or self.store.fixed_scope
        if not is_scope(scope):
            raise SchemaError(f"shape {self.name!r}: {scope!r} is no name of a scope; of('team:7', …) names it")
        if self.store.scope_field is None and scope != self.store.fixed_scope:
            raise SchemaError(
                f"shape {self.name!r}: every row of {self.store.name!r} is of scope {self.store.fixed_scope!r}"
            )
        if values.keys() != self.params.keys():
            wanted = ", ".join(sorted(self.params)) or "none"
            raise SchemaError(
                f"shape {self.name!r} takes the parameters {wanted}, not {', '.join(sorted(values)) or 'none'}"
            )
        return ScopePart(scope, self, tuple((name, self._stored(name, values[name])) for name in sorted(values)))

    def _stored(self, name: str, value: object) -> Scalar:
        kinds = (_kind(of, name) for of in SIMPLE)
        kind = next(each for each in kinds if each is not None and each.type == self.params[name])
        try:
            return kind.encode(value)
        except ValidationError as error:
            raise ValidationError(f"shape {self.name!r}: {error}", field=name, value=value) from None


@dataclass(frozen=True, slots=True)
class ScopePart:
    """A part of a scope; made by :meth:`Shape.of`.

    Attributes:
        scope: The scope.
        shape: Its shape.
        values: The value of each parameter by name, in order, as a column stores it.
    """

    scope: str
    shape: Shape
    values: tuple[tuple[str, Scalar], ...]


def leaves(expr: Expr) -> Iterator[Lit]:
    """The literals in a condition about one row."""
    if isinstance(expr, Lit):
        yield expr
    for arg in expr.args if isinstance(expr, Call) else ():
        yield from leaves(arg)


def parameter(leaf: Expr) -> str:
    """The name of the parameter that stands there; ``""`` where none does."""
    text = leaf.value if isinstance(leaf, Lit) else None
    return text.removeprefix(_PARAMETER) if isinstance(text, str) and text.startswith(_PARAMETER) else ""


AnyPart: TypeAlias = "str | ScopePart"
"""A scope, or a part of one."""
Bring: TypeAlias = "bool | ScopePart | Sequence[ScopePart]"
"""What a query brings along: nothing, the scopes that it looks at, or parts of them."""
