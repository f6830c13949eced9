"""Access rules: access per scope, and rules about single rows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from atoma.contracts.checks import is_a
from atoma.contracts.codec import encode
from atoma.contracts.query import NULL, Call, Col, Expr, Lit, Param, Plan, Store
from atoma.contracts.values import RowImage, StoredRow
from atoma.errors import ConfigurationError, QueryError
from atoma.ports.service import Principal
from atoma.query.builder import select
from atoma.query.check import check
from atoma.query.compared import check_compared
from atoma.query.compiled import fulfilled
from atoma.query.origins import by_origin
from atoma.query.walk import changed, inner_plans
from atoma.schema.expressions import Condition, Expression
from atoma.schema.kinds import is_storable
from atoma.schema.schema import Schema

Access: TypeAlias = Literal["none", "read", "write"]
VIEW_BYTES = 12
_NOTHING = Call("is_null", (Col(0, "id"),))
"""The condition that no row satisfies."""


@runtime_checkable
class Rules(Protocol):
    """A Protocol for access rules: what a principal may do in a scope. They are asked at every call; for writes, within the decision itself.

    The answer must be a pure, quick function of the arguments. If it raises, the call fails as a fault of the hub (a retry may work) and
    nothing is decided.
    """

    def scope_access(self, principal: Principal, scope: str) -> Access:
        """Return ``none``, ``read``, or ``write`` (which includes reading)."""
        ...


class EveryScope:
    """The default rules: every authenticated principal may read and write every scope."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "EveryScope()"

    def scope_access(self, principal: Principal, scope: str) -> Access:
        """Return ``write``, always."""
        return "write"


class Caller:
    """The caller as a row rule sees them: facts that are parts of a condition and get their values at each call.

    Attributes:
        subject: The subject of the principal.
    """

    __slots__ = ("subject",)

    def __init__(self) -> None:
        self.subject: Expression[str] = _fact("subject")

    def claim(self, name: str) -> Expression[str]:
        """Return the claim of that name; NULL for a principal without it, so that no comparison with it is true."""
        return _fact(f"claim {name}")


RowRule: TypeAlias = Callable[[Caller], Condition]
"""A function that returns the condition for the rows of a store that a caller may see and write:
``lambda caller: col("owner") == caller.subject``. It is called once, when the hub opens."""

_FACT = "\N{REPLACEMENT CHARACTER} fact of the caller: "


def _fact(name: str) -> Expression[str]:
    return Expression(Lit("text", _FACT + name))


class RowRules:
    """The row rules of a hub, checked against the schema.

    Args:
        schema: The hub's stores.
        rules: A rule for each store that has one, by name.

    Raises:
        ConfigurationError: A rule names an unknown store, or does not fit its store.

    Attributes:
        stores: Names of the stores that have a rule.
    """

    __slots__ = ("_conditions", "_replicated", "_schema", "stores")

    def __init__(self, schema: Schema, rules: Mapping[str, RowRule]) -> None:
        if not is_a(rules, Mapping):
            raise ConfigurationError(f"row_rules must be a mapping, {{'notes': lambda caller: …}}, not {rules!r}")
        self._schema = schema
        self._conditions = {name: _condition(schema, name, rule) for name, rule in sorted(rules.items())}
        self._replicated = frozenset(name for name in self._conditions if schema.store(name).replicate)
        self.stores = frozenset(self._conditions)

    def view(self, principal: Principal) -> PrincipalView:
        """What ``principal`` sees of rows."""
        return PrincipalView(self._schema, self._conditions, self._replicated, principal)


class PrincipalView:
    """What one principal sees of rows, and so may write; made by :meth:`RowRules.view`.

    Args:
        schema: The hub's stores.
        rules: The condition of each store that has one.
        replicated: Names of those of them that go to devices.
        principal: Whose facts stand in the conditions.
    """

    def __init__(
        self, schema: Schema, rules: Mapping[str, Expr], replicated: frozenset[str], principal: Principal
    ) -> None:
        self._schema = schema
        self._rules = rules
        self._replicated = replicated
        self._principal = principal
        self._given: dict[str, Expr] = {}
        self._made: dict[str, Callable[[StoredRow], bool]] = {}

    def condition(self, store: str) -> Expr | None:
        """What rows of ``store`` have to fulfil, the values of the principal in their places; None for every row."""
        return self._condition(store) if store in self._rules else None

    def _condition(self, store: str) -> Expr:
        if store not in self._given:
            self._given[store] = _given(self._rules[store], self._principal)
        return self._given[store]

    def is_part(self, store: str) -> bool:
        """Whether rows of ``store`` may be there that are not seen."""
        return store in self._rules

    def sees(self, store: str, id: str, image: RowImage | None) -> bool:
        """Whether a row that holds ``image`` is seen; of one that is not known any more, whether everybody would see it.

        See :func:`atoma.query.compiled.fulfilled` for one of which the condition says nothing.
        """
        if store not in self._rules or image is None:
            return store not in self._rules
        if store not in self._made:
            self._made[store] = fulfilled(self._condition(store))
        return self._made[store](StoredRow(id, 0, 0, "", image))

    @cached_property
    def pages(self) -> Mapping[str, Expr]:
        """The conditions that the rows of pages and snapshots have to fulfil, by store."""
        return {name: self._condition(name) for name in self._rules if name in self._replicated}

    def narrowed(self, parts: Mapping[str, Expr | None], stores: Iterable[str], mark: bytes) -> PrincipalView:
        """This view, of what ``parts`` take alone.

        Args:
            parts: What the rows of a store fulfil that are taken, by store; None for all of them.
            stores: Every store that goes to devices: of one that is not in ``parts`` nothing is taken.
            mark: Tells the parts apart, at the end of :attr:`digest`.
        """
        rules: dict[str, Expr] = {}
        for store in stores:
            both = [each for each in (self.condition(store), parts.get(store, _NOTHING)) if each is not None]
            if both:
                rules[store] = both[0] if len(both) == 1 else Call("and", tuple(both))
        found = PrincipalView(self._schema, rules, frozenset(rules), self._principal)
        found._given, found.digest = rules, self.digest + mark
        return found

    @cached_property
    def digest(self) -> bytes:
        """Tells views apart whose pages differ, in :attr:`Cursor.view`; empty where everything is seen.

        It is made of the conditions with the values in them: a claim that no rule looks at changes nothing, and neither does
        a hub that is opened again with the same rules. One that has turned the values that a rule looks at into others
        has another view.
        """
        told = [(name, by_origin(where, name, self._schema)) for name, where in self.pages.items()]
        return hashlib.sha256(encode(told)).digest()[:VIEW_BYTES] if told else b""


def _condition(schema: Schema, name: str, rule: RowRule) -> Expr:
    store = schema.stores.get(name)
    if store is None:
        raise ConfigurationError(f"row_rules: there is no store {name!r}; there are: {', '.join(schema.stores)}")
    if not callable(rule):
        raise ConfigurationError(
            f"row_rules: the rule of store {name!r} must be a function of the caller, not {rule!r}"
        )
    try:
        where = select(store).where(rule(Caller())).plan.where
        # whose row it is stays what it was once it is hidden; queries pass over hidden rows by themselves
        checked = check(Plan(Store(name, hidden=True), where=where), schema.store)
        if checked.where is None or any(inner_plans(checked)):
            raise QueryError("a rule looks at one row and cannot contain queries")
        check_compared(checked.where, "a fact of the caller", _is_fact)
    except QueryError as error:
        raise ConfigurationError(f"row_rules: the rule of store {name!r} does not fit: {error}") from None
    return checked.where


def _is_fact(expr: Expr) -> bool:
    return isinstance(expr, Lit) and isinstance(expr.value, str) and expr.value.startswith(_FACT)


def _given(where: Expr, principal: Principal) -> Expr:
    def value(leaf: Lit | Param) -> Expr:
        if not isinstance(leaf, Lit) or not _is_fact(leaf):
            return leaf
        fact = str(leaf.value).removeprefix(_FACT)
        known = principal.subject if fact == "subject" else principal.claims.get(fact.removeprefix("claim "))
        # what no column can hold equals nothing
        return Lit(leaf.type, known) if known is not None and is_storable(known) else Lit(NULL, None)

    given = changed(Plan(Store(""), where=where), value).where
    assert given is not None
    return given


def not_replicated(store: str) -> str:
    """Why rows of ``store`` neither go to devices by sync nor come from there."""
    return f"the rows of store {store!r} do not replicate: they take queries and direct writes only"


def why_not_replicated(schema: Schema, scope: str) -> str:
    """Why nothing of ``scope`` is replicated; ``""`` when something may be.

    Rows of stores that do not replicate are left out of what goes to devices. A scope that can hold no others is refused,
    so that nobody waits for them.
    """
    held = [store for store in schema.stores.values() if store.scope_field is not None or store.fixed_scope == scope]
    apart = [store.name for store in held if not store.replicate]
    return not_replicated(apart[0]) if apart and len(apart) == len(held) else ""
