"""The writing side: everything that waits is written as one group, and a group that loses a race or its connection again."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import cast

import trio

from atoma.concurrency.backoff import Retries
from atoma.errors import AtomaError, ClosedError, Overloaded, StoreBusy, StoreError
from atoma.ports.environment import Environment
from atoma.ports.hub import WritePlan
from atoma_stores.postgres.codes import UNIQUE, ConnectionLost, ServerError, translate
from atoma_stores.postgres.ddl import columns_key, read_columns
from atoma_stores.postgres.pool import AGAIN, Pool, take_back, write
from atoma_stores.sql.dialect import POSTGRESQL
from atoma_stores.sql.hub.groups import GroupQueries, OneByOne, next_group, write_group, write_one_by_one
from atoma_stores.sql.hub.noting import noted_group
from atoma_stores.sql.hub.state import Run
from atoma_stores.sql.scripts import Script, resumed

WAITING_MAX = 10_000
AGAIN_S = 20.0
"""Seconds for which a group is written again and again before its callers get an error."""
GROUP_S = AGAIN_S + 20.0
"""Seconds after which a group is given up, whatever the connection does; every statement has its own, shorter bound."""
OnCommitted = Callable[[Mapping[str, int]], None]


@dataclass(slots=True, eq=False)
class Job:
    """A caller's decisions.

    Attributes:
        run: The decisions.
        on_commit: Called with the plans once they are durable.
        taken: Whether its group has begun.
        done: Set once it has a result.
        error: The error, if it has failed.
    """

    run: Run
    on_commit: Callable[[Sequence[WritePlan]], None] | None
    taken: bool = False
    done: trio.Event = field(default_factory=trio.Event)
    error: BaseException | None = None


@dataclass(slots=True)
class Figures:
    """The statistics of the lanes.

    Attributes:
        groups: Number of groups that were written.
        runs: Number of runs in them.
        again: How often a group was written once more.
        in_doubt: How often that happened without knowing whether the first attempt was committed.
    """

    groups: int = 0
    runs: int = 0
    again: int = 0
    in_doubt: int = 0


class WriterLane:
    """A writer of one group after the other, which commits in the order of its callers.

    Args:
        pool: Its connections.
        queries: The statements of a group.
        known: The columns of each store as this program knows them.
        lengthy: Stores whose rows may take long to decide; groups with any of them are decided in a thread.
        environment: Clock and chance.
        where: The database, for messages.
        committed: Called with the heads that a group has moved.
        lost_sight: Called when a group was committed of which only the verdicts are known.
        figures: The statistics.
    """

    def __init__(
        self,
        pool: Pool,
        queries: GroupQueries,
        known: Mapping[str, Mapping[str, str]],
        lengthy: Collection[str],
        environment: Environment,
        where: str,
        committed: OnCommitted,
        lost_sight: Callable[[], None],
        figures: Figures,
    ) -> None:
        self._pool, self._queries, self._known = pool, queries, known
        self._environment, self._where = environment, where
        self._committed, self._lost_sight, self._figures = committed, lost_sight, figures
        self._lengthy = frozenset(lengthy) if environment.executor == "thread" else frozenset[str]()
        self._thread = trio.CapacityLimiter(1)
        self._waiting: deque[Job] = deque()
        self._wake = trio.Event()
        self._closed = False

    async def do(self, job: Job) -> None:
        """Wait until ``job`` has a result.

        Raises:
            Overloaded: Too many jobs are waiting.
            ClosedError: The hub is closing.

        If it is cancelled before its group began, nothing happens; afterwards it waits, for a bounded time, for its result.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._closed:
            raise ClosedError("the hub's database is closed")
        if len(self._waiting) >= WAITING_MAX:
            raise Overloaded("the hub's writing queue", WAITING_MAX)
        self._waiting.append(job)
        self._wake.set()
        try:
            await job.done.wait()
        except trio.Cancelled:
            if not job.taken:
                if job in self._waiting:
                    self._waiting.remove(job)
                raise
            with trio.CancelScope(shield=True):  # bounded by the lane's own time limit
                await job.done.wait()
        if job.error is not None:
            raise job.error

    async def run(self) -> None:
        """Write groups until :meth:`close`; what is waiting then is still written."""
        try:
            while not self._closed or self._waiting:
                if not self._waiting:
                    self._wake = trio.Event()
                    await self._wake.wait()
                    continue
                await self._write(self._take())
        finally:
            self._closed = True
            for job in self._waiting:  # cancelled: none of them has begun
                job.error = ClosedError("the hub's database is closed")
                job.done.set()
            self._waiting.clear()

    def close(self) -> None:
        """Accept nothing more, and end once everything that waits is written."""
        self._closed = True
        self._wake.set()

    def _take(self) -> list[Job]:
        count = next_group(job.run for job in self._waiting)
        taken = [self._waiting.popleft() for _ in range(count)]
        for job in taken:
            job.taken = True
        return taken

    async def _write(self, jobs: Sequence[Job]) -> None:
        """Give every job its result; no caller's cancellation interrupts it, since it contains the decisions of others, too."""
        error: AtomaError | Exception | None = StoreBusy(f"{self._where}: the database did not answer")
        with trio.move_on_after(GROUP_S, shield=True):
            try:
                await self._until_written([job.run for job in jobs])
                error = None
            except Exception as failure:
                error = failure
        for job in jobs:
            job.error = job.run.error if error is None else _own(error)
        self._figures.groups += 1
        self._figures.runs += len(jobs)
        try:
            self._tell(jobs)
        finally:
            for job in jobs:
                job.done.set()

    def _tell(self, jobs: Sequence[Job]) -> None:
        heads: dict[str, int] = {}
        for job in jobs:
            if job.error is None:
                for plan in job.run.plans:
                    if plan.transaction is not None:
                        heads[plan.transaction.scope] = plan.transaction.seq
                if job.on_commit is not None:
                    job.on_commit(job.run.plans)
        if heads:
            self._committed(heads)

    def _aside(self, runs: Sequence[Run]) -> trio.CapacityLimiter | None:
        """Return the limiter of the thread that decides ``runs``; None for the loop, which is faster unless they take long."""
        lengthy = self._lengthy
        if lengthy and any(store in lengthy for run in runs for need in run.needs for store, _ in need.rows):
            return self._thread
        return None

    async def _until_written(self, runs: Sequence[Run]) -> None:
        began, doubtful = self._environment.clock(), False
        retries = Retries(AGAIN, self._environment.random)
        while True:
            attempt = _Attempt(self._queries, self._known, runs, self._aside(runs))
            try:
                await attempt.write(self._pool)
                if doubtful:
                    self._lost_sight()
                return
            except _Outdated as outdated:
                runs = outdated.refuse(runs)
                if not runs:
                    return
                continue
            except (ServerError, ConnectionLost) as error:
                if not _is_worth_another(error):
                    raise translate(error, self._where) from error
                if isinstance(error, ConnectionLost):
                    self._pool.drop_idle()
                self._figures.again += 1
                self._figures.in_doubt += attempt.in_doubt
                doubtful = doubtful or attempt.in_doubt
                pause = retries.fail()
                if self._environment.clock() - began + pause > AGAIN_S:
                    said = "; whether it was written shows when it is asked for again" if doubtful else ""
                    raise StoreBusy(f"{self._where}: no turn within {AGAIN_S:.0f} s{said} ({error})") from error
            await trio.sleep(pause)


def lane_of(run: Run, count: int) -> int:
    """Return which of ``count`` lanes takes a run: that of its first scope, or else of its client."""
    if count == 1:
        return 0
    names = [need.scope.encode() or need.client_id for need in run.needs]
    return zlib.crc32(min(names, default=b"")) % count


class _Attempt:
    """One attempt at a group."""

    def __init__(
        self,
        queries: GroupQueries,
        known: Mapping[str, Mapping[str, str]],
        runs: Sequence[Run],
        aside: trio.CapacityLimiter | None,
    ) -> None:
        self._queries, self._known, self._runs, self._aside = queries, known, runs, aside
        self.in_doubt = False

    async def write(self, pool: Pool) -> None:
        async with pool.connection() as connection:
            try:
                group = self._noted(write_group(self._queries, self._runs))
                await write(connection, group, commit_with=2, aside=self._aside)
            except OneByOne:
                await take_back(connection)
                self.in_doubt = False
                one_by_one = self._noted(write_one_by_one(self._queries, self._runs))
                await write(connection, one_by_one, aside=self._aside)

    def _noted(self, script: Script[int]) -> Script[int]:
        return noted_group(self._guarded(script), self._runs, POSTGRESQL)

    def _guarded(self, script: Script[int]) -> Script[int]:
        """Run ``script`` after a check whether a newer program has added columns; its results count from the second batch on.

        The check is the last statement of the first batch: by then the stores' tables cannot change until the transaction
        ends.
        """
        stores = sorted({store for run in self._runs for need in run.needs for store, _ in need.rows})
        look = POSTGRESQL.lookup({"key": "TEXT"}, "SELECT m.key, m.value FROM {keys} {join} {meta} m ON m.key=k.key")
        batch = next(script)
        *results, told = yield [*batch, look.of([(columns_key(store),) for store in stores])]
        self._check(dict(cast("Sequence[tuple[str, str]]", told)))
        try:
            batch = script.send(results)
        except StopIteration as end:
            return cast("int", end.value)
        self.in_doubt = True
        return (yield from resumed(script, batch, nullcontext))

    def _check(self, told: Mapping[str, str]) -> None:
        newer = [
            store
            for store, known in self._known.items()
            if (key := columns_key(store)) in told and not read_columns(told[key]).keys() <= known.keys()
        ]
        if newer:
            raise _Outdated(newer)


class _Outdated(Exception):
    """A refusal: a newer program has added columns to some stores."""

    def __init__(self, stores: Sequence[str]) -> None:
        super().__init__(*stores)
        self.stores = frozenset(stores)

    def refuse(self, runs: Sequence[Run]) -> list[Run]:
        """Set the error of the runs that write to these stores, and return the other runs."""
        left: list[Run] = []
        for run in runs:
            hit = sorted({store for need in run.needs for store, _ in need.rows} & self.stores)
            if hit:
                run.error = StoreBusy(
                    f"a newer program has added columns to store {hit[0]!r}: this process reads it, and writes to it no more; "
                    "start it again as the newer program"
                )
            else:
                left.append(run)
        return left


def _is_worth_another(error: ServerError | ConnectionLost) -> bool:
    """Whether the same decisions may be sent again; a duplicate value in one of the hub's own tables is a lost race."""
    return isinstance(error, ConnectionLost) or error.meaning in ("again", "slow") or error.state == UNIQUE


def _own(error: Exception) -> Exception:
    # one instance per waiting task, as a shared one would collect the tracebacks of all
    if isinstance(error, StoreError):
        own = type(error)(*error.args)
        own.__cause__ = error.__cause__
        return own
    return error
