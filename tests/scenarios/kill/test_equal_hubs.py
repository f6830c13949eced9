"""Hub processes beside each other on one PostgreSQL, which die, stop and lose the server, while devices write over WebSocket.

Afterwards nothing is lost, doubled, skipped or reordered: what was answered is what is kept, by SQL and by whoever followed. Beside
that others append to lists, and read them by pulls and by queries: a checker that knows nothing of hubs finds no circle in who saw what.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio

from atoma.contracts.execution import OperationContext, QueryRequest
from atoma.contracts.mutations import Op
from atoma.contracts.sync import Cursor, Outcome, PullReply, PullRequest
from atoma.errors import AtomaError
from atoma.ports.service import SyncService
from atoma.testing.queries import rows_of
from atoma_transports.adapters import ServiceProxy
from atoma_transports.websocket import WebSocketTransport
from tests.postgres import server
from tests.scenarios.kill.histories import Transaction, Verdict, faults_of
from tests.unit.hub.homes import PostgreSQLHome
from tests.unit.hub.kit import SCHEMA, Client, Rows, apply_page, card
from tests.unit.hub.truth import check_truth

pytest.importorskip("psycopg", reason="the extra postgres is not installed")
pytestmark = [
    pytest.mark.xdist_group("machine"),
    pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL"),
]

T = TypeVar("T")
HUBS, DEVICES, SCOPES = 3, 4, ("main", "other")
LISTS, LISTED, APPENDERS, APPENDS_MAX = ("l0", "l1", "l2"), "lists", 3, 400
WRITES_MIN, APPENDED_MIN = 50, 10
SOAK_S = float(os.environ.get("ATOMA_SOAK_HUBS_S", "120"))
ROOT = Path(__file__).parents[3]
END = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname=current_database() AND pid<>pg_backend_pid()"
)


@dataclass
class Farm:
    """The processes, and who may be asked.

    Attributes:
        address: The database.
        folder: Where they write what goes wrong.
        urls: The port of each that is up.
        faults: What was done to them.
    """

    address: str
    folder: Path
    urls: dict[int, str] = field(default_factory=dict[int, str])
    faults: Counter[str] = field(default_factory=Counter[str])
    _running: dict[int, subprocess.Popen[str]] = field(default_factory=dict[int, "subprocess.Popen[str]"])

    async def start(self, number: int) -> None:
        command = [
            sys.executable, "-m", "atoma", "hub", "serve", self.address, "--schema", "tests.unit.hub.kit:SCHEMA",
            "--listen", "127.0.0.1:0", "--loopback",
        ]  # fmt: skip
        with (self.folder / f"hub-{number}.log").open("a") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT)
        assert process.stdout is not None
        self._running[number] = process
        said = await trio.to_thread.run_sync(process.stdout.readline)
        assert " on " in said, (self.folder / f"hub-{number}.log").read_text()
        self.urls[number] = f"ws://{said.strip().rpartition(' on ')[2]}/sync"

    async def kill(self, number: int) -> None:
        self.urls.pop(number, None)
        process = self._running.pop(number)
        process.kill()
        await trio.to_thread.run_sync(process.communicate)
        self.faults["kill -9"] += 1

    async def stop_a_while(self, number: int, seconds: float) -> None:
        process = self._running[number]
        process.send_signal(signal.SIGSTOP)
        self.faults["SIGSTOP"] += 1
        await trio.sleep(seconds)
        process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        for process in self._running.values():
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.communicate()


@asynccontextmanager
async def farm_of(address: str, folder: Path) -> AsyncGenerator[Farm]:
    farm = Farm(address, folder)
    try:
        async with trio.open_nursery() as nursery:
            for number in range(HUBS):
                nursery.start_soon(farm.start, number)
        yield farm
    finally:
        farm.end()


class Asking:
    """Somebody who asks any hub that is up, and another one when it does not answer: each call by a connection of its own.

    Attributes:
        longest_gap_s: The longest that it took until a call was answered.
    """

    def __init__(self, farm: Farm, dice: random.Random) -> None:
        self._farm, self._dice = farm, dice
        self.longest_gap_s = 0.0

    async def ask(self, call: Callable[[SyncService], Awaitable[T]]) -> T:
        """What ``call`` gives, however often it takes."""
        began = trio.current_time()
        while True:
            with contextlib.suppress(AtomaError, trio.TooSlowError, OSError):
                with trio.fail_after(6):
                    url = self._dice.choice(list(self._farm.urls.values()))
                    async with WebSocketTransport(url).connect() as channel:
                        answer = await call(ServiceProxy(channel))
                self.longest_gap_s = max(self.longest_gap_s, trio.current_time() - began)
                return answer
            await trio.sleep(0.02 + 0.05 * self._dice.random())
            assert trio.current_time() - began < 60, "nobody answers"


@dataclass
class Told:
    """What was answered.

    Attributes:
        writes: Scope and sequence of every write, with the id of its row.
        gaps: The longest time that each has waited for an answer, in seconds.
        appended: How many values the lists have.
    """

    writes: dict[tuple[str, int], str] = field(default_factory=dict[tuple[str, int], str])
    gaps: list[float] = field(default_factory=list[float])
    appended: int = 0


async def write(farm: Farm, name: str, dice: random.Random, told: Told, over: trio.Event) -> None:
    """Write one mutation after the other, each until it is decided."""
    hub = Asking(farm, dice)
    client = Client(None, name.encode().ljust(16, b"."))  # type: ignore[arg-type]  # the service comes with each call
    while not over.is_set():
        number, scope = len(client.mutations) + 1, dice.choice(SCOPES)
        id = f"{name}-{number}"
        client.write(Op("create", "cards", id, card("t")), scope=scope)

        async def push(service: SyncService, number: int = number) -> tuple[str, str, int]:
            client.service = service
            reply = await client.push(number, number)
            assert not reply.error, reply.error
            (outcome,) = reply.outcomes
            return outcome.status, outcome.scope, outcome.seq

        status, where, seq = await hub.ask(push)
        assert (status, where) == ("applied", scope), (id, status)
        assert (where, seq) not in told.writes, "one place for two writes"
        told.writes[where, seq] = id
        await trio.sleep(0.02)  # the processes that start meanwhile want some time, too
    told.gaps.append(hub.longest_gap_s)


async def pull(request: PullRequest, service: SyncService) -> PullReply:
    return await service.pull(request)


async def follow(farm: Farm, scope: str, dice: random.Random, over: trio.Event) -> list[tuple[int, str]]:
    """Pull page after page from whoever answers, until there is nothing more after the end; what came, in order."""
    cursor, seen = Cursor(), list[tuple[int, str]]()
    hub = Asking(farm, dice)
    while True:
        last = over.is_set()

        page = await hub.ask(partial(pull, PullRequest(scope, cursor, b"follower........", 0, 1 << 16, 50)))
        seen += [(int(str(row[0])), str(row[1])) for changes in page.stores for row in changes.rows]
        cursor = page.end
        if not page.more:
            if last:
                return seen
            await trio.sleep(0.02)


@dataclass
class Lists:
    """The lists that several append to, each a row.

    Attributes:
        history: What was read and appended.
        made: Set once the rows are there.
    """

    history: list[Transaction] = field(default_factory=list[Transaction])
    made: trio.Event = field(default_factory=trio.Event)

    @property
    def appended(self) -> int:
        """How many appends are known to have been written."""
        return sum(one.verdict == "written" for one in self.history)

    def note(self, name: str, began: float, reads: Mapping[str, Sequence[str]]) -> None:
        """Note that the lists were read."""
        self.history.append(Transaction(name, began, trio.current_time(), reads))


def lists_of(rows: Rows) -> dict[str, list[str]]:
    """The lists in rows of their store."""
    return {id: json.loads(str(row["title"])) for (store, id), row in rows.items() if store == "hands"}


async def push_one(client: Client, service: SyncService) -> Outcome:
    """Push the last mutation, with the service of this connection."""
    client.service = service
    reply = await client.push(len(client.mutations))
    assert not reply.error, reply.error
    return reply.outcomes[0]


async def make_lists(farm: Farm, lists: Lists) -> None:
    """Have the rows, all of them empty."""
    client = Client(None, b"maker...........")  # type: ignore[arg-type]  # the service comes with each call
    client.write(*(Op("create", "hands", at, card("[]")) for at in LISTS), scope=LISTED)
    assert (await Asking(farm, random.Random(0)).ask(partial(push_one, client))).status == "applied"
    lists.made.set()


async def append(farm: Farm, name: str, dice: random.Random, lists: Lists, over: trio.Event) -> None:
    """Pull, append to one list or to two what has to stand behind what was seen, and so on."""
    hub, rows, cursor = Asking(farm, dice), Rows(), Cursor()
    client = Client(None, name.encode().ljust(16, b"."))  # type: ignore[arg-type]  # the service comes with each call
    await lists.made.wait()
    while not over.is_set() and len(client.mutations) < APPENDS_MAX:
        value, began, more = f"{name}.{len(client.mutations) + 1}", trio.current_time(), True
        while more:
            page = await hub.ask(partial(pull, PullRequest(LISTED, cursor, client.client_id, 0, 1 << 20, 50)))
            apply_page(rows, page)
            cursor, more = page.end, page.more
        seen = lists_of(rows)
        lists.note(f"pull before {value}", began, seen)
        picked, began = dice.sample(LISTS, dice.choice([1, 1, 2])), trio.current_time()
        ops = [Op("patch", "hands", at, {"title": json.dumps([*seen[at], value])}) for at in picked]
        client.write(*ops, base=cursor.seq, scope=LISTED)
        written = (await hub.ask(partial(push_one, client))).status == "applied"
        reads = {at: seen[at] for at in picked} if written else {}
        verdict: Verdict = "written" if written else "refused"
        lists.history.append(
            Transaction(value, began, trio.current_time(), reads, dict.fromkeys(picked, value), verdict)
        )
        await trio.sleep(0.02)


async def query_lists(service: SyncService) -> Rows:
    """Every list, as one query finds them."""
    found = await service.query(QueryRequest(rows_of("hands"), OperationContext("looks")))
    return {("hands", row.id): dict(row.image) for row in found.rows}


async def look(farm: Farm, dice: random.Random, lists: Lists, over: trio.Event) -> None:
    """Query all lists again and again."""
    hub, number = Asking(farm, dice), 0
    await lists.made.wait()
    while not over.is_set():
        began, number = trio.current_time(), number + 1
        lists.note(f"query {number}", began, lists_of(await hub.ask(query_lists)))
        await trio.sleep(0.05)


async def disturb(farm: Farm, pg: PostgreSQLHome, dice: random.Random, seconds: float) -> None:
    """Kill and start again, stop and let go on, end backends, and the whole server, one after the other."""
    until = trio.current_time() + seconds
    while trio.current_time() < until:
        await trio.sleep(0.1 + 0.4 * dice.random())
        number = dice.randrange(HUBS)
        match dice.choice(["kill", "kill", "stop", "backends", "server"]):
            case "kill":
                await farm.kill(number)
                await trio.sleep(0.3 * dice.random())
                await farm.start(number)
            case "stop":
                await farm.stop_a_while(number, 0.3 + (4.5 if seconds > 30 else 0.0) * dice.random())
            case "server":  # it ends at once, as by `pg_ctl stop -m immediate`, and recovers from its log
                await trio.to_thread.run_sync(server().stop)
                await trio.sleep(0.5 * dice.random())
                await trio.to_thread.run_sync(server().start)
                farm.faults["server"] += 1
            case _:
                await trio.to_thread.run_sync(pg.ask, END)
                farm.faults["backends"] += 1


async def run(pg: PostgreSQLHome, folder: Path, seed: int, seconds: float, kills: int) -> tuple[Farm, Told]:
    lists, last = Lists(), dict[str, list[str]]()
    told, over, followed = Told(), trio.Event(), dict[str, list[tuple[int, str]]]()
    async with farm_of(pg.address(), folder) as farm:

        async def follow_scope(scope: str) -> None:
            followed[scope] = await follow(farm, scope, random.Random(f"{seed} {scope}"), over)

        async with trio.open_nursery() as everybody:
            for scope in SCOPES:
                everybody.start_soon(follow_scope, scope)
            async with trio.open_nursery() as writers:
                stop = trio.Event()
                await make_lists(farm, lists)
                for number in range(APPENDERS):
                    writers.start_soon(append, farm, f"a{number}", random.Random(f"{seed} a{number}"), lists, stop)
                writers.start_soon(look, farm, random.Random(f"{seed} looks"), lists, stop)
                for number in range(DEVICES):
                    writers.start_soon(write, farm, f"d{number}", random.Random(f"{seed} {number}"), told, stop)
                for number in range(kills):  # at least these
                    await trio.sleep(0.5)
                    await farm.kill(number % HUBS)
                    await farm.start(number % HUBS)
                await disturb(farm, pg, random.Random(seed), seconds)
                while len(told.writes) <= WRITES_MIN or lists.appended <= APPENDED_MIN:  # however slow the machine is
                    await trio.sleep(0.05)
                stop.set()
            over.set()
            last = lists_of(await Asking(farm, random.Random(seed)).ask(query_lists))
    check_truth(pg, SCHEMA)
    for scope in SCOPES:
        wanted = sorted((seq, id) for (of, seq), id in told.writes.items() if of == scope)
        assert followed[scope] == wanted, "lost, doubled, skipped or reordered"
        assert [seq for seq, _ in wanted] == list(range(1, len(wanted) + 1))
    assert faults_of(lists.history, last) == []
    told.appended = sum(map(len, last.values()))
    return farm, told


async def test_three_hubs_of_which_some_are_killed_lose_double_skip_and_reorder_nothing(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        pg = PostgreSQLHome(stack)
        farm, told = await run(pg, tmp_path, 7, seconds=0.0, kills=2)
    print(
        f"{len(told.writes)} writes, {told.appended} appended, {dict(farm.faults)}, longest wait for an answer {max(told.gaps):.1f} s"
    )
    assert farm.faults["kill -9"] == 2
    assert len(told.writes) > WRITES_MIN
    assert told.appended > APPENDED_MIN


@pytest.mark.soak
async def test_hubs_under_every_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = random.randrange(2**32)
    with contextlib.ExitStack() as stack:
        pg = PostgreSQLHome(stack)
        farm, told = await run(pg, tmp_path, seed, SOAK_S, kills=1)
    with capsys.disabled():
        waited = max(told.gaps)
        print(
            f"\nseed {seed}: {len(told.writes)} writes, {told.appended} appended, {dict(farm.faults)}, longest wait for an answer {waited:.1f} s"
        )
    assert farm.faults["kill -9"] > 0
