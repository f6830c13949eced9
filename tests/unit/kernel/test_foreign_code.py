"""Code that is not ours inside a policy: what it raises is translated, told, and spoils nothing."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from atoma.contracts.events import StepFinished
from atoma.contracts.execution import QueryRequest, QueryResult, WriteRequest, WriteResult
from atoma.contracts.policy import Combinator, Policy
from atoma.errors import (
    AtomaError,
    ConflictError,
    ConnectFailed,
    ExecutionError,
    QueryError,
    UnknownPolicy,
    WriteUnknown,
)
from atoma.kernel import cache, detach, fallback, merge, node, sequence
from atoma.testing.queries import count_of

pytestmark = pytest.mark.virtual_time

REMOTE = node("remote-test")


class Merging:
    """A merge node that does not manage to."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def spread(self, request: QueryRequest) -> QueryRequest:
        return request

    def merge(self, request: QueryRequest, results: Sequence[QueryResult]) -> QueryResult:
        raise self.error


@pytest.mark.parametrize(
    ("error", "seen", "code", "outcome"),
    [
        (ZeroDivisionError("a bug"), ExecutionError, "EXECUTION", "failed"),
        (QueryError("cannot merge that"), QueryError, "QUERY", "rejected"),
    ],
)
async def test_a_merge_node_that_raises_is_in_the_trail(
    open_house: Any, error: Exception, seen: type[AtomaError], code: str, outcome: str
) -> None:
    policy = Policy("merged", merge(node("local-query"), REMOTE, by="mine"), None)
    async with open_house(policy, nodes={"mine": Merging(error)}) as house:
        with pytest.raises(seen) as caught:
            await house.query("merged")
        assert caught.value is error or caught.value.__cause__ is error
        await wait_all_tasks_blocked()
        last = [event for event in house.told if isinstance(event, StepFinished)][-1]
        assert (last.node, last.outcome, last.error) == ("mine", outcome, code)


class Confused(Merging):
    """A merge node that does not know what to ask for."""

    def spread(self, request: QueryRequest) -> QueryRequest:
        raise self.error


async def test_a_merge_node_that_cannot_ask_asks_nobody(open_house: Any) -> None:
    bug = ZeroDivisionError("a bug")
    policy = Policy("merged", merge(node("local-query"), REMOTE, by="mine"), None)
    async with open_house(policy, nodes={"mine": Confused(bug)}) as house:
        with pytest.raises(ExecutionError, match="'mine' failed with ZeroDivisionError") as caught:
            await house.query("merged")
        assert caught.value.__cause__ is bug
        assert house.nodes["remote-test"].requests == []
        await wait_all_tasks_blocked()
        assert [(one.node, one.outcome) for one in house.told if isinstance(one, StepFinished)] == [("mine", "failed")]


async def test_what_a_merge_node_gives_has_to_be_an_answer(open_house: Any) -> None:
    class Empty(Merging):
        def merge(self, request: QueryRequest, results: Sequence[QueryResult]) -> Any:
            return None

    policy = Policy("merged", merge(REMOTE, by="mine"), None)
    async with open_house(policy, nodes={"mine": Empty(ValueError())}) as house:
        with pytest.raises(ExecutionError, match="'mine' failed with TypeError: it answered a query with a NoneType"):
            await house.query("merged")


@pytest.mark.parametrize("key", [lambda _: 1 // 0, lambda _: []], ids=["raises", "unhashable"])
async def test_a_key_that_is_none_is_told(open_house: Any, key: Any) -> None:
    async with open_house(Policy("cached", cache(REMOTE, 5, key), None)) as house:
        with pytest.raises(ExecutionError, match="'the key of the cache of remote-test' failed with"):
            await house.query("cached")
        await wait_all_tasks_blocked()
        last = [event for event in house.told if isinstance(event, StepFinished)][-1]
        assert (last.node, last.outcome) == ("remote-test", "failed")
        assert house.nodes["remote-test"].requests == []


class Unwilling:
    """Takes the results of detached steps, and fails."""

    async def query_answered(self, request: QueryRequest, result: QueryResult) -> None:
        raise ZeroDivisionError("a bug")

    async def write_settled(self, request: WriteRequest, result: WriteResult | None, error: AtomaError | None) -> None:
        raise ZeroDivisionError("a bug")


async def test_a_detached_step_that_nobody_takes_is_logged_and_gives_its_place_back(
    open_house: Any, caplog: pytest.LogCaptureFixture
) -> None:
    policy = Policy("later", sequence(node("local-query"), detach(REMOTE)), None)
    async with open_house(policy, detached=Unwilling()) as house:
        with caplog.at_level(logging.ERROR, "atoma.kernel"):
            for _ in range(100):  # more than there are places
                assert (await house.query("later")).meta.path[-1].outcome == "detached"
                await wait_all_tasks_blocked()
    assert len(caplog.records) == 100
    assert "remote-test could not be settled" in caplog.text


async def test_an_exception_in_groups_is_the_error_itself(open_house: Any) -> None:
    alone = ExceptionGroup("outer", [ExceptionGroup("inner", [ConflictError("moved")])])
    several = ExceptionGroup("outer", [ConflictError("moved"), ValueError("x")])
    async with open_house(Policy("far", REMOTE, REMOTE)) as house:
        house.nodes["remote-test"].behaviour = [alone, several]
        with pytest.raises(ConflictError):
            await house.query("far")
        with pytest.raises(ExecutionError) as caught:
            await house.query("far")
        assert caught.value.__cause__ is several


async def test_a_count_without_a_number_is_no_answer(open_house: Any) -> None:
    async with open_house(Policy("far", REMOTE, None)) as house:
        with pytest.raises(ExecutionError, match="'remote-test' answered with rows of another shape"):
            await house.query("far", query=count_of("things"))


@dataclass(frozen=True)
class Strange:
    """A combinator of a user's own that raises what it was told to."""

    children: tuple[Combinator, ...]
    error: Exception
    label = "strange"
    nodes = ()

    async def run(self, request: Any, steps: Sequence[Callable[[Any], Awaitable[Any]]]) -> Any:
        await trio.lowlevel.checkpoint()
        raise self.error


async def test_what_a_combinator_of_a_users_own_raises_is_translated(open_house: Any) -> None:
    ours, theirs = ConflictError("moved"), ZeroDivisionError("a bug")
    policies = [Policy("ours", Strange((REMOTE,), ours), None), Policy("theirs", Strange((REMOTE,), theirs), None)]
    async with open_house(*policies) as house:
        with pytest.raises(ConflictError) as same:
            await house.query("ours")
        assert same.value is ours
        with pytest.raises(ExecutionError, match="'strange' failed with ZeroDivisionError") as other:
            await house.query("theirs")
        assert other.value.__cause__ is theirs


@dataclass(frozen=True)
class Careless:
    """A combinator of a user's own that loses what its step came to."""

    children: tuple[Combinator, ...]
    error: Exception | None
    label = "careless"
    nodes = ()

    async def run(self, request: Any, steps: Sequence[Callable[[Any], Awaitable[Any]]]) -> Any:
        with trio.move_on_after(1):
            try:
                await steps[0](request)
            except AtomaError:
                pass
        if self.error is not None:
            raise self.error
        return None


@pytest.mark.parametrize("error", [None, ZeroDivisionError("a bug"), ConnectFailed("the second one")])
@pytest.mark.parametrize("end", [0.5, 60.0, RuntimeError("lost")], ids=["done", "cancelled", "in doubt"])
async def test_a_combinator_cannot_lose_a_write_that_may_be_done(
    open_house: Any, error: Exception | None, end: object
) -> None:
    policy = Policy("careless", None, fallback(Careless((REMOTE,), error), node("local-write")))
    async with open_house(policy) as house:
        house.nodes["remote-test"].behaviour = [end]
        with pytest.raises(WriteUnknown):
            await house.write("careless")
        assert house.writer.commits == [], "what may be done there is not done here as well"


async def test_a_combinator_knows_what_was_certainly_not_done(open_house: Any) -> None:
    later = Policy("later", None, fallback(Careless((REMOTE,), ConnectFailed("the second one")), node("local-write")))
    nothing = Policy("nothing", Careless((REMOTE,), None), Careless((REMOTE,), None))
    async with open_house(later, nothing) as house:
        house.nodes["remote-test"].behaviour = [ConnectFailed("down"), {"a"}, ConnectFailed("down")]
        for _ in range(2):
            assert (await house.write("later")).meta.path[-1].node == "local-write"
        for work in (house.write, house.query):
            with pytest.raises(ExecutionError, match="'careless' failed with TypeError: it answered a"):
                await work("nothing")


async def test_what_a_policy_lacks_is_named(open_house: Any, make_node: Any) -> None:
    class Deaf:
        """Only writes."""

        async def write(self, request: WriteRequest) -> WriteResult:
            raise NotImplementedError

    policies = [
        Policy("asks", node("deaf"), None),
        Policy("stages", None, sequence(node("remote-test"), node("missing"))),
        Policy("merges", merge(node("local-query"), by="remote-test"), None),
    ]
    async with open_house(*policies, nodes={"deaf": Deaf()}) as house:
        assert {"asks", "stages", "merges", "direct-local"} <= house.kernel.policies.names
        for name, lack in (("asks", "deaf that can query"), ("merges", "remote-test that can merge")):
            assert house.kernel.policies.unavailable(name) == f"needs {lack}"
            with pytest.raises(UnknownPolicy, match=lack):
                await house.query(name)
        assert house.kernel.policies.unavailable("stages") == "needs missing"


class Half:
    """Follows a write, and cannot be waited for."""

    state = "queued"
    meta = None


class Whole(Half):
    async def wait(self, *, observed: bool) -> int:
        return 5

    async def moved(self, since: str) -> None:
        """The state that it has is its last."""


@pytest.mark.parametrize(
    ("receipts", "why"),
    [
        ((Whole(), Half()), "Half is not a receipt"),
        ((Whole(), 7), "int is not a receipt"),
        ((Whole(),), "2 entries with 1 rec"),
    ],
)
@pytest.mark.parametrize("confirm", ["optimistic", "strict"])
async def test_a_receipt_that_follows_nothing_is_told_and_not_taken_for_none(
    open_house: Any, receipts: tuple[object, ...], why: str, confirm: str
) -> None:
    """Nobody would hear of a refusal; and the write may be done, so it is unknown."""
    async with open_house(synced=frozenset({"things"}), default="sync-queue") as house:
        house.writer.behaviour = [receipts, (Whole(), None)]
        with pytest.raises(WriteUnknown, match=why):
            await house.write(ids=("a", "b"), confirm=confirm)
        assert (await house.write(ids=("a", "b"), confirm=confirm)).status == "confirmed"
