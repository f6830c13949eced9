"""Whom the kernel asks what became of a write, and what their answers mean."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

from atoma.contracts.events import StepFinished, WriteResolved
from atoma.contracts.execution import (
    OperationContext,
    Resolution,
    ResolveRequest,
    WriteItemResult,
    WriteResult,
)
from atoma.contracts.policy import Combinator, Policy
from atoma.contracts.values import ErrorInfo
from atoma.errors import (
    AtomaError,
    AuthenticationError,
    ChannelBroken,
    ConnectFailed,
    NotResolvable,
    RemoteError,
    UnknownPolicy,
    WriteUnknown,
)
from atoma.kernel import breaker, detach, fallback, node, race, retry, sequence, timeout
from tests.unit.kernel.conftest import Node, OpenHouse

pytestmark = pytest.mark.virtual_time


class Authority(Node):
    """A remote node that can also tell; ``tells`` may wait or raise first, or be the answer."""

    def __init__(self, name: str) -> None:
        super().__init__(name, remote=True)
        self.asked: list[ResolveRequest] = []
        self.tells: list[Any] = []

    async def resolve(self, request: ResolveRequest) -> Resolution:
        self.asked.append(request)
        what = self.tells.pop(0) if self.tells else None
        await trio.lowlevel.checkpoint()
        if isinstance(what, Exception):
            raise what
        if isinstance(what, trio.Event):
            await what.wait()
        return what if isinstance(what, Resolution) else Resolution(request.idem)


def answered(ok: bool = True, idem: str = "idem") -> Resolution:
    item = WriteItemResult("a", ok, error=None if ok else ErrorInfo("DENIED", "no"))
    return Resolution(idem, WriteResult("confirmed" if ok else "rejected", (item,)))


def writes(name: str, graph: Combinator) -> Policy:
    return Policy(name, node("local-query"), graph)


async def ask(house: Any, policy: str = "", nodes: tuple[str, ...] = ()) -> Resolution:
    found: Resolution = await house.kernel.execute_resolve(
        ResolveRequest("idem", OperationContext("asking", policy), nodes)
    )
    return found


@pytest.fixture
def two() -> dict[str, Any]:
    return {"one": Authority("one"), "two": Authority("two"), "dumb": Node("dumb", remote=True)}


LOST = ChannelBroken
WAYS: dict[str, tuple[Callable[[], Combinator], dict[str, list[Any]], tuple[str, ...]]] = {
    "one": (lambda: node("one"), {"one": [LOST("lost")]}, ("one",)),
    "the other way after nothing was sent": (
        lambda: fallback(node("one"), node("two")), {"one": [ConnectFailed("no")], "two": [LOST("lost")]}, ("two",)
    ),
    "both of a race": (
        lambda: race(node("one"), node("two")), {"one": [LOST("lost")], "two": [LOST("lost")]}, ("one", "two")
    ),
    "a budget that ran out": (lambda: timeout(node("one"), 1), {"one": [trio.Event()]}, ("one",)),
    "tries": (lambda: retry(node("one"), 2), {"one": [LOST("lost"), ConnectFailed("no")]}, ("one",)),
    "after another had it": (
        lambda: sequence(node("one"), node("two")), {"two": [LOST("lost")]}, ("one", "two")
    ),
    "one that cannot tell": (lambda: node("dumb"), {"dumb": [LOST("lost")]}, ()),
    "behind a breaker": (lambda: breaker(node("two")), {"two": [LOST("lost")]}, ("two",)),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
async def test_the_error_says_which_nodes_to_ask(way: str, open_house: OpenHouse, two: dict[str, Any]) -> None:
    graph, behaviour, expected = WAYS[way]
    for name, what in behaviour.items():
        two[name].behaviour = list(what)
    async with open_house(writes("mine", graph()), nodes=two) as house:
        with trio.move_on_after(5) as patience, pytest.raises(WriteUnknown) as unknown:
            await house.write("mine")
        assert not patience.cancelled_caught
        assert set(unknown.value.nodes or ()) == set(expected)
        assert unknown.value.idem == "idem"


async def test_a_resolution_has_its_trail_and_its_event(open_house: OpenHouse, two: dict[str, Any]) -> None:
    two["one"].tells = [answered()]
    async with open_house(writes("mine", retry(node("one"))), nodes=two, default="mine") as house:
        found = await ask(house)
        assert found.result is not None
        assert (found.result.status, [item.id for item in found.result.items]) == ("confirmed", ["a"])
        assert found.meta == found.result.meta
        assert (found.meta.source, found.meta.policy, found.meta.trace_id) == ("remote", "mine", "asking")
        assert [(step.node, step.outcome, step.note) for step in found.meta.path] == [("one", "ok", "resolve")]
        assert two["one"].asked[0].idem == "idem"
        house.events.flush()
        assert [event for event in house.told if isinstance(event, WriteResolved)] == [
            WriteResolved("asking", "idem", "mine", "confirmed", False, "", found.meta.path)
        ]
        assert [(one.node, one.outcome) for one in house.told if isinstance(one, StepFinished)] == [("one", "ok")]
        gone = await ask(house)
        assert gone.abandoned
        house.events.flush()
        told = [event for event in house.told if isinstance(event, WriteResolved)][-1]
        assert (told.status, told.abandoned, told.error) == (None, True, "")


async def test_everybody_who_may_have_the_write_is_asked(open_house: OpenHouse, two: dict[str, Any]) -> None:
    one, other = two["one"], two["two"]
    async with open_house(writes("mine", race(node("one"), node("two"))), nodes=two) as house:
        assert (await ask(house, "mine")).abandoned
        assert [len(one.asked), len(other.asked)] == [1, 1]
        one.tells, other.tells = [answered(ok=False)], [answered()]
        found = await ask(house, "mine")
        assert found.result is not None
        assert found.result.status == "confirmed"  # it was done somewhere
        other.tells = [answered(ok=False)]
        found = await ask(house, "mine")
        assert found.result is not None
        assert found.result.status == "rejected"  # nowhere, and one of them said why
        other.tells = [LOST("lost")]
        with pytest.raises(WriteUnknown) as unknown:
            await ask(house, "mine")  # that one has never had it says nothing about the other
        assert unknown.value.nodes == ("one", "two")
        asked = len(one.asked)
        assert (await ask(house, nodes=("two",))).abandoned
        assert len(one.asked) == asked


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (LOST("lost"), WriteUnknown),
        (ConnectFailed("no"), WriteUnknown),
        (RemoteError("later", remote_code="UNAVAILABLE", remote_retryable=True), WriteUnknown),
        (KeyError("a fault of the node"), WriteUnknown),
        (answered(idem="of another"), WriteUnknown),
        (RemoteError("too old", remote_code="KEY_EXPIRED"), RemoteError),
        (RemoteError("no key", remote_code="MALFORMED"), RemoteError),
        (AuthenticationError("who"), AuthenticationError),
    ],
    ids=lambda one: type(one).__name__ if not isinstance(one, type) else "",
)
async def test_a_failure_leaves_the_write_unknown_a_refusal_is_told(
    failure: Any, expected: type[AtomaError], open_house: OpenHouse, two: dict[str, Any]
) -> None:
    two["one"].tells = [failure]
    async with open_house(writes("mine", node("one")), nodes=two) as house:
        with pytest.raises(AtomaError) as caught:
            await ask(house, "mine")
        assert type(caught.value) is expected
        if isinstance(caught.value, WriteUnknown):
            assert (caught.value.idem, caught.value.nodes) == ("idem", ("one",))
            assert caught.value.__cause__ is not None
        house.events.flush()
        told = [event for event in house.told if isinstance(event, WriteResolved)]
        assert [(one.status, one.abandoned, bool(one.error)) for one in told] == [(None, False, True)]
        assert (await ask(house, "mine")).abandoned  # nothing is in the way of asking again


async def test_nobody_is_asked_who_is_not_known_to_decide(open_house: OpenHouse, two: dict[str, Any]) -> None:
    policies = [
        writes("dumb", node("dumb")),
        writes("behind", sequence(node("dumb"), detach(node("two")))),
    ]
    nodes = {**two, "remote-test": Authority("remote-test")}
    async with open_house(*policies, nodes=nodes, synced=frozenset({"things"}), default="sync-queue") as house:
        for policy in ("", "dumb", "hybrid"):  # hybrid: the outbox for some stores, the remote for others
            with pytest.raises(NotResolvable) as refused:
                await ask(house, policy)
            assert refused.value.idem == "idem"
        with pytest.raises(NotResolvable):
            await ask(house, nodes=("elsewhere",))
        with pytest.raises(UnknownPolicy):
            await ask(house, "nowhere")
        assert [two["one"].asked, two["two"].asked, nodes["remote-test"].asked] == [[], [], []]
        assert (await ask(house, "direct-remote")).abandoned
        assert (await ask(house, nodes=("one",))).abandoned  # the error itself says who had it
        assert (await ask(house, "behind")).abandoned
        assert [len(two["one"].asked), len(two["two"].asked)] == [1, 1]


async def test_the_callers_scope_is_the_only_limit(open_house: OpenHouse, two: dict[str, Any]) -> None:
    two["one"].tells = [trio.Event()]
    async with open_house(writes("mine", timeout(node("one"), 1)), nodes=two) as house:
        with trio.move_on_after(100) as patience:
            await ask(house, "mine")
        assert patience.cancelled_caught
        assert two["one"].asked[0].context.deadline == 100.0
        house.events.flush()
        assert [event.error for event in house.told if isinstance(event, WriteResolved)] == ["CANCELLED"]
