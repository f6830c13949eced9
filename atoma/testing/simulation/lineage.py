"""Every history that the hub has ever had: states and their order, by the hashes of the log, over all restores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from atoma.testing.simulation.facts import Image, Key
from atoma.testing.simulation.stores import SCOPES

State: TypeAlias = dict[Key, Image]
BEGINNING = b""
"""Hash of the log of a scope before its first transaction."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A state of a scope.

    Attributes:
        seq: The sequence that made it.
        hash: Hash of the log there.
        before: The hash before.
        rows: The rows.
        loose: Rows that were written together and have come back one by one, so that half of a pair may be there.
        changed: Rows that are not as they were before.
    """

    seq: int
    hash: bytes
    before: bytes
    rows: State
    loose: frozenset[Key] = frozenset()
    changed: frozenset[Key] = frozenset()


class Lineage:
    """A tree of states for each scope: where a hub goes back to an older file, another branch begins.

    Equal hashes are equal logs, whoever wrote them, so two branches may share a moment that came twice.
    """

    def __init__(self) -> None:
        self._moments = {(scope, BEGINNING): Moment(0, BEGINNING, BEGINNING, {}) for scope in SCOPES}

    def add(self, scope: str, moment: Moment) -> None:
        """A transaction of the hub."""
        self._moments.setdefault((scope, moment.hash), moment)

    def at(self, scope: str, mark: bytes) -> Moment | None:
        """The moment at ``mark``, None when no hub was ever there."""
        return self._moments.get((scope, mark))

    def rows(self, scope: str, mark: bytes) -> State:
        """The rows at ``mark``, where some hub has been."""
        return self._moments[scope, mark].rows

    def loose(self, scope: str, mark: bytes) -> frozenset[Key]:
        """Rows there that have come back one by one."""
        return self._moments[scope, mark].loose

    def back(self, scope: str, mark: bytes) -> Iterator[Moment]:
        """The way from ``mark`` back to the beginning, itself first."""
        while True:
            moment = self._moments[scope, mark]
            yield moment
            if mark == BEGINNING:
                return
            mark = moment.before

    def had(self, scope: str, key: Key, mark: bytes) -> bool:
        """Whether the history at ``mark`` has ever had the row."""
        return any(key in moment.rows for moment in self.back(scope, mark))

    def leads_to(self, scope: str, earlier: bytes, later: bytes) -> bool:
        """Whether the history at ``later`` has been at ``earlier``."""
        wanted = self._moments[scope, earlier]
        for moment in self.back(scope, later):
            if moment.seq <= wanted.seq:
                return moment.hash == earlier
        return False

    def fork(self, scope: str, one: bytes, other: bytes) -> Moment:
        """The last moment that two histories have in common."""
        seen = {moment.hash for moment in self.back(scope, one)}
        return next(moment for moment in self.back(scope, other) if moment.hash in seen)
