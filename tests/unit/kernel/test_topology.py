"""The start-up check: each missing or contradictory piece is a problem with a code and a remedy, all at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from atoma.contracts.execution import OperationContext, QueryRequest, QueryResult, WriteOptions, WriteRequest
from atoma.contracts.mutations import Op
from atoma.contracts.policy import Policy
from atoma.errors import ExecutionError, PolicyNotAllowed, TopologyError, UnknownPolicy
from atoma.kernel import (
    atomic,
    breaker,
    bulkhead,
    cache,
    detach,
    merge,
    node,
    parallel,
    retry,
    sequence,
    sync_queue,
    timeout,
    verdict,
    when_synced,
)
from atoma.kernel.combinators import FallbackStep
from atoma.schema import Schema, StoreSpec

pytestmark = pytest.mark.virtual_time


@dataclass
class Row:
    id: str


class Alone:
    """A graph that contains itself."""

    label = "alone"
    nodes = ()

    @property
    def children(self) -> tuple[Any, ...]:
        return (self,)


class Unrunnable:
    label = "unrunnable"
    nodes = ()
    children = ()


class ReadOnly:
    """A node that only answers queries."""

    async def query(self, request: QueryRequest) -> QueryResult:
        return QueryResult(())


def local() -> Any:
    return node("local-query")


def queued() -> Any:
    return atomic("local-write", "outbox")


SYNCED = frozenset({"things"})
FAULTS: dict[str, tuple[dict[str, Any], list[Policy], str]] = {
    "no query node": ({"without": ["local-query", "remote-test"]}, [], "NO_QUERY_NODE"),
    "no write node": (
        {"without": ["local-write", "outbox", "remote-test"], "nodes": {"local-query": ReadOnly()}},
        [],
        "NO_WRITE_NODE",
    ),
    "default missing": ({"default": "no-such"}, [], "POLICY_MISSING"),
    "default without its node": ({"default": "direct-grpc"}, [], "POLICY_UNAVAILABLE"),
    "default without its outbox": ({"default": "sync-queue", "without": ["outbox"]}, [], "POLICY_UNAVAILABLE"),
    "default cannot write": ({"default": "read-only"}, [Policy("read-only", local(), None)], "POLICY_INCOMPLETE"),
    "store's policy missing": ({"schema": Schema(StoreSpec("a", Row, policy="no-such"))}, [], "POLICY_MISSING"),
    "unknown node in the default": ({"default": "odd"}, [Policy("odd", local(), node("ghost"))], "POLICY_UNAVAILABLE"),
    "node with the wrong role": ({"default": "odd"}, [Policy("odd", node("outbox"), queued())], "POLICY_UNAVAILABLE"),
    "two policies of one name": ({}, [sync_queue()], "TWO_NAMES"),
    "cycle": ({}, [Policy("odd", Alone(), None)], "CYCLE"),
    "cycle below": ({}, [Policy("odd", None, retry(Alone()))], "CYCLE"),
    "a string for a node": ({}, [Policy("odd", "local-query", None)], "NOT_A_STEP"),  # type: ignore[arg-type]
    "a string below": ({}, [Policy("odd", timeout(FallbackStep(("remote-test", local())), 1), None)], "NOT_A_STEP"),  # type: ignore[arg-type]
    "a bulkhead in itself": (
        {},
        [Policy("odd", bulkhead(retry(bulkhead(timeout(local(), 1), 2)), 2), None)],
        "GUARD_IN_ITSELF",
    ),
    "a breaker in itself": ({}, [Policy("odd", None, breaker(breaker(node("remote-test"))))], "GUARD_IN_ITSELF"),
    "combinator that cannot run": ({}, [Policy("odd", Unrunnable(), None)], "NOT_RUNNABLE"),
    "detach before an answer": ({}, [Policy("odd", detach(local()), None)], "DETACH_FIRST"),
    "detach first": ({}, [Policy("odd", sequence(detach(local()), local()), None)], "DETACH_FIRST"),
    "detach in a parallel": ({}, [Policy("odd", parallel(local(), detach(local())), None)], "DETACH_FIRST"),
    "atomic query": ({}, [Policy("odd", queued(), None)], "WRITES_ONLY"),
    "verdict on a query": ({}, [Policy("odd", verdict(local()), None)], "WRITES_ONLY"),
    "merged write": ({}, [Policy("odd", None, merge(node("remote-test"), node("remote-test")))], "QUERIES_ONLY"),
    "cached write": ({}, [Policy("odd", None, cache(node("remote-test"), 1.0))], "QUERIES_ONLY"),
    "synced past the outbox": ({"synced": SYNCED}, [], "SYNCED_WITHOUT_OUTBOX"),
    "synced past the outbox, one way": (
        {"synced": SYNCED, "default": "odd"},
        [Policy("odd", local(), parallel(queued(), node("remote-test")))],
        "SYNCED_WITHOUT_OUTBOX",
    ),
    "synced, on the wrong way": (
        {"synced": SYNCED, "default": "odd"},
        [Policy("odd", local(), when_synced(node("remote-test"), queued()))],
        "SYNCED_WITHOUT_OUTBOX",
    ),
    "writes refused": ({"schema": Schema(StoreSpec("a", Row, policy="local-first"))}, [], "WRITES_REFUSED"),
    "synced and not declared": ({"synced": frozenset({"x"}), "default": "sync-queue"}, [], "UNKNOWN_STORE"),
}


@pytest.mark.parametrize(("how", "policies", "code"), FAULTS.values(), ids=FAULTS.keys())
async def test_each_fault_is_found(open_house: Any, how: dict[str, Any], policies: list[Policy], code: str) -> None:
    with pytest.raises(TopologyError) as caught:
        async with open_house(*policies, **how):
            pass
    problems = caught.value.problems
    assert code in [problem.code for problem in problems]
    assert all(problem.message and problem.remedy for problem in problems)
    assert len(problems) == 1 or code in ("NO_QUERY_NODE", "NO_WRITE_NODE")


async def test_guards_that_are_not_the_same_may_be_in_one_another(open_house: Any) -> None:
    policies = [
        Policy("other bounds", bulkhead(bulkhead(local(), 2), 3), None),
        Policy("other nodes", breaker(parallel(breaker(local()), node("remote-test"), answer="all")), None),
        Policy("other kind", breaker(bulkhead(local(), 1)), None),
    ]
    async with open_house(*policies) as house:
        for policy in policies:
            assert (await house.query(policy.name)).rows


async def test_all_faults_are_listed_at_once(open_house: Any, make_node: Any, stage: Any) -> None:
    one = make_node("one")
    with pytest.raises(TopologyError) as caught:
        async with open_house(
            Policy("odd", Alone(), None),
            sync_queue(),
            nodes={"one": one, "two": one, "outbox": stage("another file"), "bad": object()},
            default="no-such",
            synced=frozenset({"ghost"}),
        ):
            pass
    codes = [problem.code for problem in caught.value.problems]
    assert set(codes) == {"TWO_NAMES", "CYCLE", "TWO_DATABASES", "NOT_A_NODE", "POLICY_MISSING", "UNKNOWN_STORE"}
    assert codes.count("TWO_NAMES") == 2


async def test_what_is_not_selected_may_be_missing(open_house: Any) -> None:
    odd = Policy("odd", timeout(node("ghost"), 1), None)
    async with open_house(odd, without=["outbox", "remote-test"]) as house:
        found = house.kernel.topology()
        reasons = {policy.name: policy.unavailable for policy in found.policies if policy.unavailable}
        assert reasons["odd"] == "needs ghost"
        assert reasons["sync-queue"] == "needs outbox (add Sync(stores=[…]) to plugins)"
        assert reasons["direct-http"] == "needs remote-http"
        assert reasons["remote-first"].startswith("needs a remote")
        assert not any("outbox" in reasons[name] for name in ("local-first", "hybrid")), "no store replicates"
        with pytest.raises(UnknownPolicy, match="needs ghost"):
            await house.query("odd")
        assert "unavailable: needs ghost" in house.kernel.explain()


async def test_with_two_remotes_one_has_to_be_chosen(open_house: Any, make_node: Any) -> None:
    async with open_house(nodes={"remote-b": make_node("remote-b", remote=True)}) as house:
        with pytest.raises(UnknownPolicy, match="one remote to be chosen of remote-b, remote-test"):
            await house.query("remote-first")
        assert (await house.query("direct-b")).rows[0].id == "remote-b"


async def test_topology_lists_nodes_and_stores(open_house: Any) -> None:
    async with open_house(synced=SYNCED, default="sync-queue") as house:
        found = house.kernel.topology()
    roles = {info.id: (info.roles, info.remote, info.database) for info in found.nodes}
    assert roles == {
        "local-query": (("query", "write"), False, ""),
        "local-write": (("stage",), False, "db"),
        "outbox": (("stage",), False, "db"),
        "remote-test": (("query", "write"), True, ""),
        "merge": (("merge",), False, ""),
    }
    assert (found.default, found.stores, found.synced) == (
        "sync-queue",
        {"things": "sync-queue", "notes": "sync-queue"},
        SYNCED,
    )
    assert len({policy.name for policy in found.policies}) == len(found.policies)


@dataclass(frozen=True)
class Twice:
    """A combinator of a user's own: asks its child twice and gives the second answer."""

    step: Any
    fail: bool = False
    label: str = "twice"
    nodes: tuple[str, ...] = ()

    @property
    def children(self) -> tuple[Any, ...]:
        return (self.step,)

    async def run(self, request: Any, steps: Sequence[Callable[[Any], Awaitable[Any]]]) -> Any:
        if self.fail:
            raise LookupError("a bug")
        await steps[0](request)
        return await steps[0](request)


async def test_a_combinator_of_a_users_own_runs_like_ours(open_house: Any) -> None:
    policies = (Policy("twice", Twice(local()), None), Policy("broken", Twice(local(), fail=True), None))
    async with open_house(*policies) as house:
        assert [step.node for step in (await house.query("twice")).meta.path] == ["local-query", "local-query"]
        with pytest.raises(ExecutionError, match="'twice' failed with LookupError"):
            await house.query("broken")


async def test_a_write_over_stores_of_different_policies_is_refused(open_house: Any) -> None:
    schema = Schema(StoreSpec("things", Row, policy="direct-remote"), StoreSpec("notes", Row))
    async with open_house(schema=schema) as house:
        entries = (Op("create", "things", "a"), Op("create", "notes", "b"))
        request = WriteRequest(entries, WriteOptions(), OperationContext("t"), "idem")
        with pytest.raises(PolicyNotAllowed):
            await house.kernel.execute_write(request)
        both = WriteRequest(entries, WriteOptions(), OperationContext("t", "direct-local"), "idem")
        assert (await house.kernel.execute_write(both)).status == "confirmed"
