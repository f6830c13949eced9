"""Halves of transactions that an older version has left behind the head of a scope: found as the hub opens, and taken back.

Where the file refused a row of a mutation, that version refused the mutation and kept what it had written before that row. The
next sequence of the scope was taken then, so that every later write failed, and readers saw rows that were in no log.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atoma.hub.workspace import Workspace, plan_of_hub
from atoma.ports.hub import Facts, HubDatabase, Need, WritePlan
from atoma.schema.spec import StoreSpec

_log = logging.getLogger("atoma.hub")


@dataclass(frozen=True, slots=True)
class TakeBackDecision:
    """A decision that makes the rows of such a half what they were before it, as a transaction of its own.

    Devices that have read them in the meantime receive it like any other change.

    Attributes:
        scope: The scope.
        stores: The hub's stores, by name.
    """

    scope: str
    stores: Mapping[str, StoreSpec[Any]]

    @property
    def need(self) -> Need:
        """The half, and its rows as they are."""
        return Need(scope=self.scope, leftover=True)

    def decide(self, facts: Facts) -> WritePlan:
        """One transaction, or none where nothing differs; the half itself goes with it.

        Where the file takes the rows back no more, as with a trigger that somebody has added, they stay as they are.
        """
        if facts.violation:
            return WritePlan()
        work = Workspace(facts.rows, self.stores)
        for key, image in facts.leftover.items():
            work.put(key, image)
        return plan_of_hub(facts, work)


async def take_back(database: HubDatabase, stores: Mapping[str, StoreSpec[Any]]) -> None:
    """Take back what is left of halves, and report it to the operator in the log."""
    for scope in await database.unfinished():
        (plan,) = await database.run([TakeBackDecision(scope, stores)])
        rows = ", ".join(f"{change.store} {change.id!r}" for change in plan.changes) or "none"
        _log.warning(
            "scope %r: an older version had left a half of a transaction there, of a mutation that it told the device to be "
            "refused, and nothing could be written since; it was taken back now (rows changed: %s)",
            scope,
            rows,
        )
