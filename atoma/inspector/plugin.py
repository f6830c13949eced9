"""The inspector's eye in a client: remembers the last events, bounded, and knows the database."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from atoma.contracts.events import (
    BreakerChanged,
    ConflictDetected,
    Event,
    FallbackTaken,
    HookFailed,
    QueryFinished,
    RepairDone,
    RetryScheduled,
    StepFinished,
    SyncStateChanged,
    WriteDispatched,
    WriteResolved,
    WriteSettled,
    WriteTakenBack,
)
from atoma.contracts.execution import Step
from atoma.contracts.mutations import Op
from atoma.errors import ClosedError
from atoma.inspector.views import LogLine, NodeView, RibbonPart, StepView, TrailView
from atoma.plugins import PluginContext
from atoma.ports import LIVE_QUERIES, LOCAL_DATABASE, Environment, LiveQueries, LocalDatabase, PortKey

TRAILS_MAX = 40
LOG_MAX = 200
RIBBON_MAX = 60
UNSETTLED_MAX = 500

_TONES = {
    "online": "good",
    "connecting": "busy",
    "repairing": "busy",
    "offline": "warn",
    "stalled": "bad",
    "stopped": "bad",
}

_ATOMIC = "atomic"


@dataclass(slots=True)
class _Tally:
    runs: int = 0
    seconds: float = 0.0
    last: str = ""


class Inspection:
    """A plugin that watches the client it is given to. It writes nothing and keeps a bounded past."""

    def __init__(self) -> None:
        self._database: LocalDatabase | None = None
        self._live: LiveQueries | None = None
        self._environment = Environment()
        self._trails: deque[TrailView] = deque(maxlen=TRAILS_MAX)
        self._log: deque[LogLine] = deque(maxlen=LOG_MAX)
        self._ribbon: deque[tuple[str, float]] = deque(maxlen=RIBBON_MAX)
        self._tallies: dict[str, _Tally] = {}
        self._titles: dict[str, str] = {}
        self._changed = trio.Event()

    @property
    def id(self) -> str:
        """``"inspection"``."""
        return "inspection"

    @property
    def provides(self) -> Sequence[PortKey[Any]]:
        """Nothing."""
        return ()

    @property
    def needs(self) -> Sequence[PortKey[Any]]:
        """The local database and its live queries."""
        return (LOCAL_DATABASE, LIVE_QUERIES)

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        """Watch until the client closes."""
        self._database = context.require(LOCAL_DATABASE)
        self._live = context.require(LIVE_QUERIES)
        self._environment = context.environment
        undo = context.register_listener(self._hear)
        try:
            yield
        finally:
            undo()
            self._database = self._live = None

    @property
    def database(self) -> LocalDatabase:
        """The client's database.

        Raises:
            ClosedError: The client is not open.
        """
        if self._database is None:
            raise ClosedError("the inspected client is not open")
        return self._database

    @property
    def live(self) -> LiveQueries:
        """The client's live queries.

        Raises:
            ClosedError: The client is not open.
        """
        if self._live is None:
            raise ClosedError("the inspected client is not open")
        return self._live

    @property
    def environment(self) -> Environment:
        """The client's clocks."""
        return self._environment

    @property
    def trails(self) -> tuple[TrailView, ...]:
        """The last requests, the newest first."""
        return tuple(reversed(self._trails))

    @property
    def log(self) -> tuple[LogLine, ...]:
        """The last events, the newest first."""
        return tuple(reversed(self._log))

    @property
    def nodes(self) -> dict[str, NodeView]:
        """What each node has done so far."""
        return {
            id: NodeView(tally.runs, tally.seconds * 1e6 / tally.runs, tally.last)
            for id, tally in self._tallies.items()
        }

    @property
    def ribbon(self) -> tuple[RibbonPart, ...]:
        """The states of the connection so far and how long each lasted, the current one last."""
        ends = [*(since for _, since in self._ribbon), self._environment.clock()][1:]
        return tuple(
            RibbonPart(state, round(end - since)) for (state, since), end in zip(self._ribbon, ends, strict=True)
        )

    async def wait_event(self) -> None:
        """Wait until something happens."""
        await self._changed.wait()

    def _hear(self, event: Event) -> None:
        match event:
            case WriteDispatched():
                self._titles[event.trace_id] = _write_title(event.entries)
                while len(self._titles) > UNSETTLED_MAX:
                    del self._titles[next(iter(self._titles))]
            case WriteSettled():
                title = self._titles.pop(event.trace_id, "write")
                self._trail("write", event.trace_id, title, event.policy, event.path, event.status or "", event.error)
            case WriteResolved():
                told = event.error or ("abandoned" if event.abandoned else f"{event.status}")
                self._note("resolve", "bad" if event.error else "good", f"write {event.idem}: {told}")
            case QueryFinished():
                self._trail("query", event.trace_id, f"query {event.store}", event.policy, event.path, "", event.error)
            case StepFinished():
                tally = self._tallies.setdefault(event.node, _Tally())
                tally.runs += 1
                tally.seconds += event.seconds
                tally.last = event.outcome
            case RetryScheduled():
                self._note("retry", "warn", f"{event.node}: again in {event.delay_s:.2f} s after {event.error}")
            case FallbackTaken():
                self._note("fallback", "warn", f"{event.failed} failed with {event.error}")
            case BreakerChanged():
                self._note("breaker", "good" if event.state == "closed" else "bad", f"{event.node} is {event.state}")
            case ConflictDetected():
                self._note("conflict", "bad", f"{event.store} {event.id}: {event.code}")
            case WriteTakenBack():
                rows = ", ".join(f"{store} {id}" for store, id in event.rows)
                self._note("taken back", "bad", f"{rows}: {event.code}")
            case HookFailed():
                self._note("hook", "bad", f"{event.hook} of {event.store} {event.id}: {event.error}")
            case SyncStateChanged():
                self._ribbon.append((event.state, self._environment.clock()))
                text = f"{event.state}: {event.reason}" if event.reason else event.state
                self._note("sync", _TONES.get(event.state, ""), text)
            case RepairDone(report):
                done = f"{report.offered} rows offered, {report.lost} kept, {report.renumbered} writes sent again"
                self._note("repair", "warn", f"{report.cause}: {report.why}; {done}")
            case _:
                return
        self._changed.set()
        self._changed = trio.Event()

    def _trail(
        self, kind: str, trace: str, title: str, policy: str, path: Sequence[Step], status: str, error: str
    ) -> None:
        steps = tuple(_step_view(step) for step in path)
        self._trails.append(
            TrailView(trace, kind, title, policy, status, error, self._environment.wall_ms(), took_us(steps), steps)
        )
        words = [title, error or status, f"in {took_us(steps):,.0f} µs"]
        self._note(kind, "bad" if error else "", " ".join(word for word in words if word))

    def _note(self, kind: str, tone: str, text: str) -> None:
        self._log.append(LogLine(self._environment.wall_ms(), kind, tone, text))


def took_us(steps: Sequence[StepView]) -> float:
    """Duration of a trail in microseconds; the nodes of an atomic segment share one transaction and its time."""
    total, before = 0.0, ""
    for step in steps:
        shared = before == _ATOMIC and _ATOMIC in step.note
        total += 0.0 if shared else step.us
        before = _ATOMIC if _ATOMIC in step.note else ""
    return total


def _step_view(step: Step) -> StepView:
    budget = None if math.isinf(step.budget_s) else step.budget_s
    return StepView(step.node, step.outcome, step.seconds * 1e6, step.attempt, step.error, step.note, budget)


def _write_title(entries: Sequence[Op]) -> str:
    """``insert cards``, ``3 × update cards``, ``5 changes to 2 stores``."""
    kinds = {(entry.kind, entry.store) for entry in entries}
    if len(kinds) == 1:
        (op, store), count = next(iter(kinds)), len(entries)
        return f"{op} {store}" if count == 1 else f"{count:,} × {op} {store}"
    stores = {entry.store for entry in entries}
    where = next(iter(stores)) if len(stores) == 1 else f"{len(stores)} stores"
    return f"{len(entries)} changes to {where}"
