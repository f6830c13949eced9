"""What is known of how complete the rows on this device are: told by replication, asked by whoever answers from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from types import MappingProxyType

import msgspec

from atoma.concurrency.listeners import Listeners
from atoma.contracts.completeness import COMPLETE, Completeness, together
from atoma.contracts.query import BoundQuery, Expr, Plan, Store
from atoma.query.implying import implied
from atoma.query.normal import with_values
from atoma.query.pinned import pinned_scopes
from atoma.query.walk import conjuncts, inner_plans, plans
from atoma.schema.schema import Schema

States = Mapping[str, Completeness]
"""The state of every scope that replicates."""


class Part(msgspec.Struct, frozen=True):
    """A part of a scope that is here.

    Attributes:
        store: The store that it is of.
        where: What its rows fulfil, all of it; nothing for every row of the store.
    """

    store: str
    where: tuple[Expr, ...] = ()


class Narrowed(Completeness, frozen=True):
    """The completeness of a scope of which parts are here: partial, but for those who look at nothing else.

    Attributes:
        parts: The parts.
        within: How complete those are.
    """

    parts: tuple[Part, ...] = ()
    within: Completeness = COMPLETE

    def to(self, reads: SourceReads) -> Completeness:
        """How complete it is to who reads no more than ``reads``."""
        covered = all(
            any(part.store == store and implied(part.where, where) for part in self.parts) for store, where in reads
        )
        return self.within if covered else Completeness("partial", self.scopes)


SourceReads = tuple[tuple[str, tuple[Expr, ...]], ...]
"""Stores that are read, each with what the rows fulfil that are looked at, as far as that is known."""


class Sight(msgspec.Struct, frozen=True):
    """What of the replicated rows a query looks at.

    Attributes:
        scopes: The scopes; None for all that replicate.
        beyond: Whether it looks at a store of which only those rows are here that somebody has asked another machine for.
        reads: The stores that replicate, with what its rows fulfil; None where nobody has looked.
    """

    scopes: frozenset[str] | None = frozenset()
    beyond: bool = False
    reads: SourceReads | None = None

    def under(self, states: States) -> Completeness:
        """How complete an answer is while the scopes are in ``states``."""
        if self.beyond:
            return _AS_ASKED_FOR
        if self.scopes is None:
            return together(map(self._seen, states.values()))
        return together(self._seen(states.get(scope) or Completeness("partial", (scope,))) for scope in self.scopes)

    def _seen(self, state: Completeness) -> Completeness:
        """``state`` of a scope, for what is read of it."""
        return state.to(self.reads) if isinstance(state, Narrowed) and self.reads is not None else state


_AS_ASKED_FOR = Completeness("partial")
_HERE, _EVERYTHING = Sight(), Sight(None)
_SOME_VALUE = "\0"
"""Stands for any value while a plan is looked at: no scope is called so."""
SIGHTS_MAX = 1_024


class CompletenessBoard:
    """The state of every scope now, and who follows it.

    Args:
        schema: The declared stores.
        synced: Names of those that replicate.

    Attributes:
        states: The state of every scope that replicates; replaced whole, so that whoever keeps it keeps one moment.
        beyond: Stores of which another machine has the rows, and this device those that were asked for.
        limits: Whether an answer can be anything but complete; false where every row is this device's own.
    """

    def __init__(self, schema: Schema, synced: frozenset[str]) -> None:
        self._schema = schema
        self._synced = synced
        self._has_parts = bool(schema.shapes)
        self._listeners = Listeners[[]]("completeness")
        self._sight_of_plan = lru_cache(SIGHTS_MAX)(self._look_at_plan)  # every read on this device asks
        self._sight_of_query = lru_cache(SIGHTS_MAX)(self._look)
        self._whole = COMPLETE
        self.states: States = MappingProxyType({})
        self.beyond: frozenset[str] = frozenset()
        self.limits = bool(synced)

    def show(self, states: States) -> None:
        """Replace the states and tell everybody, unless they are the same."""
        if states == self.states:
            return
        self.states = MappingProxyType(dict(states))
        self._whole = together(states.values())
        self._listeners.tell()

    def keep_beyond(self, stores: Iterable[str]) -> None:
        """Say of which stores another machine has the rows that does not replicate them."""
        self.beyond = frozenset(stores)
        self.limits = bool(self._synced or self.beyond)
        self._sight_of_plan.cache_clear()
        self._sight_of_query.cache_clear()

    def sight(self, query: BoundQuery) -> Sight:
        """What ``query``, which is checked, looks at."""
        if not self.limits:
            return _HERE
        found = None if self._has_parts else self._sight_of_plan(query.plan, len(query.params))
        return self._sight_of_query(query) if found is None else found

    def sight_of(self, stores: Iterable[str]) -> Sight:
        """What a statement looks at that reads ``stores`` by whatever scopes."""
        read = frozenset(stores)
        return Sight(None if read & self._synced else frozenset(), bool(read & self.beyond))

    def _look_at_plan(self, plan: Plan, params: int) -> Sight | None:
        """What every query of this plan looks at; None where that is for the values to say."""
        found = self._look(BoundQuery(plan, (_SOME_VALUE,) * params))
        return None if found.scopes is not None and _SOME_VALUE in found.scopes else found

    def _look(self, query: BoundQuery) -> Sight:
        found: frozenset[str] | None = frozenset()
        beyond = False
        for store, scopes in pinned_scopes(query, self._schema.store).items():
            beyond = beyond or store in self.beyond
            if store in self._synced:
                found = None if found is None or scopes is None else found | scopes
        return Sight(found, beyond, self._reads(query) if self._has_parts else None)

    def _reads(self, query: BoundQuery) -> SourceReads:
        """What ``query`` looks at of stores that replicate."""
        plan = with_values(query)
        alone = not plan.joins and isinstance(plan.source, Store) and not any(inner_plans(plan))
        names = {source.name for each in plans(plan) for source in each.sources if isinstance(source, Store)}
        names |= {each.through.store for inner in plans(plan) for each in inner.include if each.through is not None}
        where = conjuncts(plan.where) if alone else ()
        return tuple((name, where) for name in sorted(names & self._synced))

    def of(self, query: BoundQuery) -> Completeness:
        """How complete an answer to ``query`` is that is read from now on."""
        sight = self.sight(query)
        return self._whole if sight == _EVERYTHING else sight.under(self.states)

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call ``listener`` at every change; returns the undo. One that raises is logged."""
        return self._listeners.add(listener)
