"""The table of conditions is closed: whatever a hub answers to whatever it is asked is told at once, and there is a way back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.lowlevel
from msgspec.structs import replace

from atoma.codes import CODES, HELP, Help, row
from atoma.contracts.sync import OpenReply, PushReply, PushRequest, ScopeStatus
from atoma.contracts.values import ErrorInfo
from atoma.errors import RemoteError
from atoma.sync.conditions import CALLS, OTHERS, Condition, condition, conditions
from atoma.sync.failures import Course, HistoryMoved
from atoma.sync.status import SyncStatus
from atoma_transports.adapters.methods import METHODS
from tests.scenarios.sync.conftest import Device, World

pytestmark = pytest.mark.virtual_time

AT_ONCE_S = 2.0
"""By virtual time."""
LARGE = 1_000
UNKNOWN = "OF_A_LATER_VERSION"


def refuse(code: str) -> Callable[[Any], Any]:
    """A hub that answers a request with ``code``; one that is too large for it is none that has next to nothing in it."""

    def answer(request: Any) -> Any:
        if code == "TOO_LARGE" and isinstance(request, PushRequest) and size(request) < LARGE:
            return request
        raise RemoteError("planted", remote_code=code)

    return answer


def size(request: PushRequest) -> int:
    return sum(len(mutation.body) for mutation in request.mutations)


def stop_at(code: str) -> Callable[[Any], PushReply]:
    """A hub that decides nothing of a push, and says why inside its answer."""

    def answer(reply: PushReply) -> PushReply:
        return reply if reply.outcomes else PushReply((), 0, ErrorInfo(code, "planted", row(code).retryable))

    return answer


def refuse_scopes(code: str) -> Callable[[OpenReply], OpenReply]:
    """A hub that opens a session and gives out none of the scopes."""
    error = ErrorInfo(code, "planted", row(code).retryable)
    return lambda reply: replace(reply, scopes=tuple(ScopeStatus(each.scope, error=error) for each in reply.scopes))


def decides_nothing(code: str) -> Callable[[PushRequest], PushRequest]:
    """What such a hub makes of a push."""
    return lambda request: request if code == "TOO_LARGE" and size(request) < LARGE else replace(request, mutations=())


class Walk:
    """A device of which one request is answered with one code after the other."""

    def __init__(self, world: World, a: Device, b: Device, call: str) -> None:
        self.world, self.a, self.b, self.call = world, a, b, call
        self.told: list[SyncStatus] = []
        self.rows = 0
        a.sync.subscribe(self.told.append)

    async def insert(self, device: Device) -> Any:
        self.rows += 1
        return await device.store(self.world.CARDS).insert(self.world.Card(id=str(self.rows), title="x" * LARGE))

    async def plant(self, code: str) -> Any:
        """Have it answered so, and something to do; the handle of a write."""
        wire = self.a.wire
        match self.call:
            case "push reply":
                wire.tamper["push request"] = decides_nothing(code)
                wire.tamper["push"] = stop_at(code)
            case "open reply":
                wire.tamper["open"] = refuse_scopes(code)
            case "snapshot":
                wire.tamper["pull request"] = refuse("CURSOR_TOO_OLD")
                wire.tamper["snapshot request"] = refuse(code)
            case call:
                wire.tamper[f"{call} request"] = refuse(code)
        if self.call in ("open", "open reply", "notify"):
            wire.cut()
            await trio.lowlevel.checkpoint()
            wire.repair()
        self.told.clear()
        handle = await self.insert(self.b if self.call in ("pull", "snapshot", "notify") else self.a)
        if self.call in ("open", "open reply"):
            self.a.sync.poke()
        return handle

    def is_seen(self, wanted: Condition) -> bool:
        """Whether anybody who follows the status was told everything about it."""
        for status in self.told:
            if wanted.seen == "scope":
                error = status.scope("main").error
                if status.state == "online" and error is not None and error.code == wanted.shown:
                    return status.scope("main").helps == wanted.helps
            elif status.error is not None and (status.error.code, status.state) == (wanted.shown, wanted.seen):
                assert status.helps == wanted.helps
                assert status.reason and status.next_attempt_ms > 0 and status.attempt > 0
                return True
        return False

    async def see(self, wanted: Condition, handle: Any) -> None:
        """Wait until it is seen where the table says."""
        with trio.fail_after(60 if wanted.seen in ("", "inbox") else AT_ONCE_S):
            match wanted.seen:
                case "inbox":
                    while handle.state != "rejected":
                        await trio.sleep(0.01)
                    (entry,) = [each for each in await self.a.sync.inbox.entries() if not each.resolution]
                    assert entry.code == wanted.shown
                    await self.a.sync.inbox.dismiss(entry)
                case "":
                    while str(self.rows) not in await self.a.rows():
                        await trio.sleep(0.1)
                    assert (self.a.sync.status.state, self.a.sync.status.error) == ("online", None)
                case _:
                    while not self.is_seen(wanted):
                        await trio.sleep(0.01)

    async def end(self, wanted: Condition) -> None:
        """The hub answers again; what waited is done, and nothing of the trouble is left."""
        self.a.wire.tamper.clear()
        self.a.sync.poke()
        with trio.fail_after(600):
            while self.a.sync.status.scope("main").error is not None:
                await trio.sleep(1)
        await self.a.settle()
        status = self.a.sync.status
        assert (status.state, status.reason, status.error, status.helps) == ("online", "", None, "")
        assert (status.attempt, status.next_attempt_ms, status.scope("main").error) == (0, 0, None)
        assert await self.a.outbox() == []
        assert (str(self.rows) in await self.a.rows()) is (wanted.seen != "inbox")


@pytest.mark.parametrize("call", [*CALLS, "open reply", "push reply"])
async def test_whatever_a_hub_answers_is_told_at_once_and_has_a_way_back(world: World, call: str) -> None:
    async with world.open_hub(), world.open_device("a") as a, world.open_device("b") as b:
        await a.settle()
        walk = Walk(world, a, b, call)
        for code in [*CODES, UNKNOWN]:
            wanted = condition(call.split(maxsplit=1)[0], code)  # type: ignore[arg-type]
            try:
                handle = await walk.plant(code)
                await walk.see(wanted, handle)
                await walk.end(wanted)
            except (AssertionError, trio.TooSlowError) as error:
                seen = [(each.state, each.error and each.error.code) for each in walk.told]
                raise AssertionError(f"{call} answered with {code}: wanted {wanted}, told {seen}") from error
            if wanted.shown == HistoryMoved.code:  # what moves more often than that is taken for several hubs
                await trio.sleep(700)


def test_every_method_of_a_hub_is_one_of_replications_or_its_caller_is_told() -> None:
    assert {*CALLS, *OTHERS} == set(METHODS) and set(CALLS).isdisjoint(OTHERS)
    assert len(list(conditions())) == len(CALLS) * len(CODES)
    assert {each.course for each in conditions()} == set(Course)


def test_the_page_has_every_condition() -> None:
    page = (Path(__file__).parents[3] / "docs/how-to/sync.md").read_text(encoding="utf-8")
    assert as_page() in page, as_page()


SEEN = {"scope": "the scope", "inbox": "the inbox", "": "–"}


def as_page() -> str:
    """The table as people read it: the codes for which the same is seen and the same helps are one row."""
    rows: dict[tuple[Help, tuple[str, ...]], list[str]] = {}
    for code, row_ in CODES.items():
        seen = tuple(_word(condition(call, code)) for call in CALLS)
        rows.setdefault((row_.help, seen), []).append(f"`{code}`")
    lines = [f"| answered with | {' | '.join(CALLS)} | what helps |", "|---" * (len(CALLS) + 2) + "|"]
    for (helps, seen), codes in rows.items():
        lines.append(f"| {', '.join(codes)} | {' | '.join(seen)} | {HELP[helps]} |")
    return "\n".join(lines)


def _word(found: Condition) -> str:
    word = SEEN.get(found.seen, found.seen)
    return word if found.shown == found.code else f"{word}, as `{found.shown}`"
