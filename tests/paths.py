"""The ways that a test marked `paths` is run in: as the product chooses, and with every choice of where and when forced.

Which thread reads or writes, and whether a page of the hub comes before or after what else goes on, is decided by speed. A
marked test is run once as it comes and in two ways that are the opposite of each other, so that it has met every choice
forced to the one side and to the other. Which two is a matter of its name: the tests of a suite take all of ``OPPOSITES``, in
which every combination of choices meets. Of a test with several sets of parameters each is run as it comes and in one way;
they take turns. `dev.py soak` runs every set in every way that there is.
"""

from __future__ import annotations

import itertools
import tempfile
import zlib
from collections import defaultdict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import get_args

import pytest
import trio

from atoma.contracts.sync import PullReply, PullRequest, SnapshotReply, SnapshotRequest
from atoma.ports.service import SyncService
from atoma.sync import supervisor
from atoma.sync.replica import Replica
from atoma.sync.session import SyncSession, open_sync_session
from atoma_stores.sqlite.connections import MEMORY
from atoma_stores.sqlite.paths import Paths, ReadPath, Writes, current_paths, forced_paths
from atoma_transports.adapters import PassingService

LATE_S = 0.2
"""So long a late page waits on its way: longer than a push, its reply and a few local writes take."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way through every choice.

    Attributes:
        paths: Where SQLite's work runs.
        late: Whether every page comes late.
    """

    paths: Paths
    late: bool

    def __str__(self) -> str:
        return f"reads {self.paths.reads}, writes {self.paths.writes}, pages {'late' if self.late else 'early'}"


OPPOSITES = (
    (Way(Paths("loop", "loop"), late=False), Way(Paths("pool", "thread"), late=True)),
    (Way(Paths("loop", "thread"), late=True), Way(Paths("pool", "loop"), late=False)),
    (Way(Paths("pool", "loop"), late=True), Way(Paths("loop", "thread"), late=False)),
    (Way(Paths("pool", "thread"), late=False), Way(Paths("loop", "loop"), late=True)),
)
FORCED = tuple(itertools.chain.from_iterable(OPPOSITES))
CROSS = tuple(
    Way(Paths(reads, writes), late)
    for reads, writes, late in itertools.product(get_args(ReadPath), get_args(Writes), (False, True))
)


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Have the test run as it comes, in the forced ways, and under `dev.py soak` in all others."""
    metafunc.fixturenames.insert(0, "way")
    ways = [pytest.param(None, id="as it comes"), *(pytest.param(way, id=str(way)) for way in FORCED)]
    if "not soak" not in str(metafunc.config.getoption("markexpr")):
        ways += [pytest.param(way, id=str(way), marks=pytest.mark.soak) for way in CROSS if way not in FORCED]
    metafunc.parametrize("way", ways, indirect=True)


def take_turns(items: list[pytest.Item]) -> None:
    """Let the sets of parameters of each test take turns with the ways, and leave the others to `dev.py soak`."""
    tests: dict[tuple[object, str], dict[str, dict[Way, pytest.Item]]] = defaultdict(lambda: defaultdict(dict))
    for item in items:
        way = _parameters(item).get("way") if isinstance(item, pytest.Function) else None
        if isinstance(item, pytest.Function) and isinstance(way, Way) and way in FORCED:
            given = item.name.replace(str(way), "")
            tests[item.parent, item.originalname][given][way] = item
    for (_, name), sets in tests.items():
        for place, ways in enumerate(sets.values()):
            taken = ways_of(name, place, len(sets))
            for way, item in ways.items():
                if way not in taken:
                    item.add_marker(pytest.mark.soak)


def ways_of(test: str, place: int, sets: int) -> tuple[Way, ...]:
    """The ways that the test of this name takes with the set of parameters at ``place`` of so many."""
    first = zlib.crc32(test.encode()) + place // 2
    pair = OPPOSITES[first % len(OPPOSITES)]
    return pair if sets == 1 else (pair[place % 2],)


def _parameters(item: pytest.Function) -> Mapping[str, object]:
    callspec = getattr(item, "callspec", None)  # there where a test has parameters
    found: Mapping[str, object] = {} if callspec is None else callspec.params
    return found


def memory() -> str:
    """`:memory:`, and where paths are forced a new file: a database in memory has one connection, and so no choice."""
    return MEMORY if current_paths() is None else f"{tempfile.mkdtemp()}/in-place-of-memory.db"


@contextmanager
def taken(way: Way | None) -> Generator[None]:
    """Take ``way`` in the block; None lets the product choose."""
    if way is None:
        yield
        return
    with forced_paths(way.paths), pytest.MonkeyPatch.context() as patch:
        if way.late:
            patch.setattr(supervisor, "open_sync_session", _open_late_session)
        yield


async def _open_late_session(replica: Replica, service: SyncService) -> SyncSession:
    return await open_sync_session(replica, LatePages(service))


class LatePages(PassingService):
    """A hub whose pages are long on their way."""

    async def pull(self, request: PullRequest) -> PullReply:
        page = await super().pull(request)
        await trio.sleep(LATE_S)
        return page

    async def snapshot(self, request: SnapshotRequest) -> SnapshotReply:
        page = await super().snapshot(request)
        await trio.sleep(LATE_S)
        return page
