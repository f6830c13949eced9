"""What a hub sets in rows that are decided: times by its clock, that of a soft delete among them, and what its functions say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from atoma.contracts.values import HIDDEN, RowImage, is_hidden
from atoma.hub.functions import check_functions
from atoma.ports.hub import Facts
from atoma.ports.service import Principal
from atoma.schema.hiding import moment_of
from atoma.schema.spec import StoreSpec


class Counter(Protocol):
    """A counter in a scope. Its numbers have no gaps, except for rows that were refused or deleted."""

    def __call__(self, name: str = "") -> int:
        """Return the next number, from 1 on, of the store's counter ``name``; ``""`` is the counter of the field."""
        ...


@dataclass(frozen=True, slots=True)
class Setting:
    """The input of a function that sets a field of a row. The function sees nothing else, since a row may be decided again.

    Attributes:
        row: The row as it will be, with the fields that are set so far; without an id while the id is being drawn.
        previous: The row as it was; None for a new row.
        principal: The principal who writes.
        seq: The sequence in its scope that the write takes.
        at_ms: The hub's wall clock.
        counter: Draws numbers.
    """

    row: Any
    previous: Any
    principal: Principal
    seq: int
    at_ms: int
    counter: Counter


HubField: TypeAlias = Callable[[Setting], object]
"""A function that returns the value of a field: ``lambda of: of.previous.number if of.previous else of.counter()``. It must be pure and quick."""


class HubFields:
    """The functions of a hub, by store and field, checked against its stores.

    Args:
        stores: The hub's stores by name.
        functions: By store and field.

    Raises:
        ConfigurationError: A field that a store declares in ``hub_fields`` has no function, or a function has no such field.
    """

    __slots__ = ("_functions", "counts")

    def __init__(self, stores: Mapping[str, StoreSpec[Any]], functions: Mapping[str, Mapping[str, HubField]]) -> None:
        declared = [(store.name, name) for store in stores.values() for name in store.sets.by_function]
        check_functions(
            "hub_fields", functions, declared,
            example="{'orders': {'number': lambda of: …}}", declaring="StoreSpec(…, hub_fields=[…])",
        )  # fmt: skip
        self._functions = functions
        self.counts = bool(declared)

    def stamps(self, facts: Facts, principal: Principal, *, offered: bool = False) -> Stamps:
        """What is set in the rows of one decision.

        Args:
            facts: What it was made from.
            principal: The principal who writes.
            offered: The rows were set before, and are brought back.
        """
        return Stamps(self._functions, facts, principal, offered)


NO_HUB_FIELDS = HubFields({}, {})


class Stamps:
    """The setter of fields of the rows of one decision.

    Attributes:
        counters: Where counters stand by now, those that have moved.
    """

    __slots__ = ("_facts", "_functions", "_offered", "_principal", "counters")

    def __init__(
        self, functions: Mapping[str, Mapping[str, HubField]], facts: Facts, principal: Principal, offered: bool
    ) -> None:
        self._functions = functions
        self._facts = facts
        self._principal = principal
        self._offered = offered
        self.counters: dict[str, int] = {}

    def on(self, store: StoreSpec[Any], id: str, pre: RowImage | None, post: RowImage) -> RowImage:
        """``post`` with what is set, a row that was ``pre`` and becomes another one."""
        sets = store.sets
        if is_hidden(post) and not self._offered:
            since = None if pre is None else pre.get(HIDDEN)
            post = {**post, HIDDEN: moment_of(self._facts.now_ms) if since is None else since}
        if sets.by == "hub" and not self._offered:
            post = {**post, **sets.stamped(pre, store.fields, self._facts.now_ms)}
        elif pre is not None and sets.created_at is not None and not self._offered:
            post = {**post, sets.created_at: pre[sets.created_at]}
        for name in sets.numbers:
            post = self._with_number(store, id, pre, post, name)
        return post

    def _with_number(
        self, store: StoreSpec[Any], id: str, pre: RowImage | None, post: RowImage, field: str
    ) -> RowImage:
        kept = post[field]
        is_free = not self._facts.violation  # else another row has it by now
        if self._offered and kept is not None and is_free:
            if isinstance(kept, int):
                self._move(f"{store.name}.{field}", kept)
            return post
        post = {**post, field: None if pre is None else pre[field]}
        return {**post, field: store.fields[field].encode(self._called(store, id, pre, post, field))}

    def id_of(self, store: StoreSpec[Any], post: RowImage) -> str:
        """The next id that the function of the store draws for a new row."""
        return store.check_id(self._called(store, "", None, post, "id"), new=True)

    def _called(self, store: StoreSpec[Any], id: str, pre: RowImage | None, post: RowImage, field: str) -> object:
        """The answer of the function for ``field``."""

        def counter(name: str = "") -> int:
            key = f"{store.name}.{name or field}"
            self._move(key, self._last(key) + 1)
            return self._last(key)

        previous = None if pre is None else store.decode(id, pre)
        facts = self._facts
        seen = Setting(store.decode(id, post), previous, self._principal, facts.scope.head + 1, facts.now_ms, counter)
        return self._functions[store.name][field](seen)

    def _last(self, key: str) -> int:
        return self.counters.get(key, self._facts.counters.get(key, 0))

    def _move(self, key: str, number: int) -> None:
        if number > self._last(key):
            self.counters[key] = number
