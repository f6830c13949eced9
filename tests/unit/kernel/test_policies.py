"""The ready-made policies: which nodes run, where the answer is from, and what is told about it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from atoma.contracts.events import (
    FallbackTaken,
    QueryFinished,
    RetryScheduled,
    StepFinished,
    StepStarted,
    WriteDispatched,
    WriteSettled,
)
from atoma.contracts.execution import (
    ExecutionMeta,
    OperationContext,
    QueryRequest,
    QueryResult,
    Source,
    WriteRequest,
    WriteResult,
    path_of,
)
from atoma.contracts.policy import Policy
from atoma.errors import (
    AtomaError,
    AuthenticationError,
    ChannelBroken,
    CircuitOpen,
    ConflictError,
    ConnectFailed,
    DiskFull,
    ExecutionError,
    FallbackExhausted,
    NodeTimeout,
    Overloaded,
    PolicyNotAllowed,
    ProtocolError,
    QueryError,
    RemoteError,
    TransportError,
    UnknownPolicy,
    UnknownStore,
    ValidationError,
    WriteRejected,
    WriteUnknown,
    is_retryable,
)
from atoma.kernel import (
    Backoff,
    KernelLimits,
    detach,
    direct_remote,
    fallback,
    local_first,
    node,
    refuse,
    remote_first,
    retry,
    sequence,
    timeout,
)
from atoma.schema import Schema, StoreSpec
from atoma.testing.queries import rows_of
from tests.unit.kernel.conftest import Node

pytestmark = pytest.mark.virtual_time


@dataclass
class Row:
    id: str


SYNCED = frozenset({"things"})


def path(result: Any) -> list[tuple[str, str]]:
    return [(step.node, step.outcome) for step in result.meta.path]


async def test_direct_local_asks_nobody_else(open_house: Any) -> None:
    async with open_house() as house:
        read = await house.query("direct-local")
        wrote = await house.write("direct-local")
    assert house.nodes["remote-test"].requests == []
    assert read.meta.source == wrote.meta.source == "local"
    assert (read.meta.commit, read.meta.cursor, read.meta.trace_id) == (7, "here", "trace")
    assert path(read) == [("local-query", "ok")]
    assert path(wrote) == [("local-write", "ok")]
    assert [stages for _, stages in house.writer.commits] == [(house.nodes["local-write"],)]


async def test_direct_remote_asks_the_other_side_once_and_never_falls_back(open_house: Any) -> None:
    async with open_house() as house:
        remote = house.nodes["remote-test"]
        for policy in ("direct-remote", "direct-test"):
            remote.requests.clear()
            read = await house.query(policy)
            assert (read.meta.source, len(remote.requests)) == ("remote", 1)
        assert (await house.write("direct-remote")).meta.source == "remote"
        remote.behaviour = [ConnectFailed("down"), ConnectFailed("down")]
        with pytest.raises(ConnectFailed):
            await house.query("direct-remote")
        with pytest.raises(ConnectFailed):
            await house.write("direct-remote")
        assert house.nodes["local-query"].requests == []
        assert house.writer.commits == []


READ_GOES_ON = [
    ConnectFailed("refused"),
    ChannelBroken("lost"),
    NodeTimeout("remote-test", 1),
    TransportError("503"),
    RemoteError("busy", remote_code="OVERLOADED", remote_retryable=True),
    Overloaded("the channel", 8),
    CircuitOpen("remote-test", 1.0),
    trio.TooSlowError(),
]
READ_STOPS = [
    ValidationError("bad"),
    QueryError("bad"),
    ConflictError("moved"),
    AuthenticationError("expired"),
    RemoteError("no", remote_code="DENIED"),
    RemoteError("no", remote_code="NOT_FOUND", remote_retryable=True),
    ProtocolError("garbage"),
    DiskFull("full"),
    RuntimeError("a bug"),
]


@pytest.mark.parametrize("error", READ_GOES_ON, ids=lambda error: type(error).__name__)
async def test_remote_first_reads_locally_after_a_retryable_failure(open_house: Any, error: Exception) -> None:
    async with open_house() as house:
        house.nodes["remote-test"].behaviour = [error]
        read = await house.query("remote-first")
    assert read.meta.source == "local"
    assert path(read) == [("remote-test", "failed"), ("local-query", "ok")]
    assert read.meta.path[1].note.startswith("fallback: ")


@pytest.mark.parametrize("error", READ_STOPS, ids=lambda error: type(error).__name__)
async def test_remote_first_never_hides_a_refusal_or_a_fault(open_house: Any, error: Exception) -> None:
    async with open_house() as house:
        house.nodes["remote-test"].behaviour = [error]
        with pytest.raises(AtomaError) as caught:
            await house.query("remote-first")
        assert house.nodes["local-query"].requests == []
    if isinstance(error, AtomaError):
        assert caught.value is error
    else:
        assert isinstance(caught.value, ExecutionError) and caught.value.__cause__ is error


WRITE_GOES_ON = [
    ConnectFailed("refused"),
    CircuitOpen("remote-test", 1.0),
    Overloaded("the channel", 8),
    TransportError("not begun", maybe_sent=False),
]
WRITE_UNKNOWN = [
    ChannelBroken("lost"),
    TransportError("503"),
    NodeTimeout("remote-test", 1),
    ProtocolError("garbage"),
    RemoteError("?", remote_code="UNAVAILABLE", remote_retryable=True),
    RemoteError("?", remote_code="TIMEOUT", remote_retryable=True),
    RuntimeError("a bug"),
    trio.TooSlowError(),
]
WRITE_STOPS = [
    ConflictError("moved"),
    ValidationError("bad"),
    WriteRejected("no", reason="DENIED"),
    RemoteError("no", remote_code="DENIED"),
    RemoteError("later", remote_code="RATE_LIMITED", remote_retryable=True),
    AuthenticationError("expired"),
    DiskFull("full"),
]


@pytest.mark.parametrize("error", WRITE_GOES_ON, ids=lambda error: type(error).__name__)
async def test_a_write_falls_back_when_certainly_nothing_was_sent(open_house: Any, error: Exception) -> None:
    async with open_house() as house:
        house.nodes["remote-test"].behaviour = [error]
        wrote = await house.write("remote-first")
        assert path(wrote) == [("remote-test", "failed"), ("local-write", "ok")]
        assert wrote.meta.source == "local"
        sent = house.nodes["remote-test"].requests[0]
        assert house.writer.commits[0][0].idem == sent.idem == "idem"


@pytest.mark.parametrize("error", WRITE_UNKNOWN, ids=lambda error: type(error).__name__)
async def test_an_ambiguous_write_is_unknown_and_goes_nowhere_else(open_house: Any, error: Exception) -> None:
    async with open_house() as house:
        house.nodes["remote-test"].behaviour = [error]
        with pytest.raises(WriteUnknown) as caught:
            await house.write("remote-first")
        await wait_all_tasks_blocked()
        assert caught.value.idem == "idem"
        assert house.writer.commits == []
        settled = [event for event in house.told if isinstance(event, WriteSettled)]
        assert [(event.status, event.error) for event in settled] == [(None, "UNKNOWN_OUTCOME")]
        assert [step.outcome for step in settled[0].path] == ["unknown"]


@pytest.mark.parametrize("error", WRITE_STOPS, ids=lambda error: type(error).__name__)
async def test_a_refused_write_is_answered_with_the_refusal(open_house: Any, error: Exception) -> None:
    async with open_house() as house:
        house.nodes["remote-test"].behaviour = [error]
        with pytest.raises(type(error)) as caught:
            await house.write("remote-first")
        assert caught.value is error
        assert house.writer.commits == []
        await wait_all_tasks_blocked()
        ended = [event.outcome for event in house.told if isinstance(event, StepFinished)]
        no_verdict = isinstance(error, DiskFull) or is_retryable(error)
        assert ended == ["failed" if no_verdict else "rejected"]


@pytest.mark.parametrize(("refused", "status"), [({"a", "b"}, "rejected"), ({"b"}, "partial")])
async def test_refused_items_are_an_answer(open_house: Any, refused: set[str], status: str) -> None:
    async with open_house() as house:
        house.nodes["remote-test"].behaviour = [refused]
        wrote = await house.write("remote-first", ids=("a", "b"))
        assert wrote.status == status
        assert [item.ok for item in wrote.items] == [item.id not in refused for item in wrote.items]
        assert wrote.meta.path[0].error == "CONFLICT"
        assert house.writer.commits == []


async def test_sync_queue_is_one_commit_of_two_stages(open_house: Any) -> None:
    async with open_house(synced=SYNCED, default="sync-queue") as house:
        wrote = await house.write()
        assert path(wrote) == [("local-write", "ok"), ("outbox", "ok")]
        assert [stages for _, stages in house.writer.commits] == [(house.nodes["local-write"], house.nodes["outbox"])]
        assert (await house.query()).meta.source == "local"
        assert house.nodes["remote-test"].requests == []
        house.writer.behaviour = [DiskFull("full")]
        with pytest.raises(DiskFull):
            await house.write()


VOLATILE = local_first("remote-test", name="volatile", volatile=True)


async def test_local_first_does_not_risk_writes_unasked(open_house: Any) -> None:
    async with open_house() as house:
        assert (await house.query("local-first")).meta.source == "local"
        with pytest.raises(PolicyNotAllowed, match="volatile=True"):
            await house.write("local-first")
        assert house.writer.commits == []


async def test_a_policy_that_cannot_do_what_is_asked_says_so(open_house: Any) -> None:
    half = (
        Policy("read-only", node("local-query"), None),
        Policy("closed", refuse("it is closed"), node("local-write")),
    )
    async with open_house(*half) as house:
        with pytest.raises(UnknownPolicy, match="no write graph"):
            await house.write("read-only")
        with pytest.raises(PolicyNotAllowed, match="it is closed"):
            await house.query("closed")
        assert (await house.write("closed")).status == "confirmed"


class Detached:
    """Keeps what detached steps bring."""

    def __init__(self) -> None:
        self.queries: list[QueryResult] = []
        self.writes: list[tuple[WriteResult | None, AtomaError | None]] = []

    async def query_answered(self, request: QueryRequest, result: QueryResult) -> None:
        assert request.context.deadline == math.inf
        self.queries.append(result)

    async def write_settled(self, request: WriteRequest, result: WriteResult | None, error: AtomaError | None) -> None:
        assert request.idem == "idem"
        self.writes.append((result, error))


async def test_local_first_answers_before_the_other_side_does(open_house: Any) -> None:
    detached = Detached()
    async with open_house(VOLATILE, detached=detached) as house:
        gate = trio.Event()
        house.nodes["remote-test"].behaviour = [gate, gate, ConflictError("moved")]
        read = await house.query("local-first")
        wrote = await house.write("volatile")
        await house.write("volatile")
        await wait_all_tasks_blocked()
        assert path(read) == [("local-query", "ok"), ("remote-test", "detached")]
        assert read.meta.source == wrote.meta.source == "local"
        assert detached.queries == [] and len(detached.writes) == 1
        gate.set()
        await wait_all_tasks_blocked()
        assert [result.meta.source for result in detached.queries] == ["remote"]
        verdicts = [(result and result.status, error and error.code) for result, error in detached.writes]
        assert verdicts == [(None, "CONFLICT"), ("confirmed", None)]
        assert [event.error for event in house.told if isinstance(event, WriteSettled)].count("CONFLICT") == 1
        assert len(house.nursery.child_tasks) == 1


async def test_on_a_synced_store_local_first_is_sync_queue(open_house: Any) -> None:
    schema = Schema(StoreSpec("things", Row), StoreSpec("notes", Row, policy="volatile"))
    async with open_house(VOLATILE, schema=schema, synced=SYNCED, default="local-first") as house:
        wrote = await house.write()
        read = await house.query()
        assert path(wrote) == [("local-write", "ok"), ("outbox", "ok")]
        assert path(read) == [("local-query", "ok")]
        assert path(await house.query(store="notes")) == [("local-query", "ok"), ("remote-test", "detached")]


class Verdict:
    """A receipt whose verdict comes after a second, or when it is told to."""

    state = "queued"
    meta = None

    def __init__(self, error: Exception | None = None, *, after_s: float = 1) -> None:
        self.error = error
        self.after_s = after_s

    async def moved(self, since: str) -> None:
        await trio.sleep(self.after_s)

    async def wait(self, *, observed: bool) -> int:
        assert not observed
        await trio.sleep(self.after_s)
        if self.error is not None:
            raise self.error
        return 5


async def test_on_a_synced_store_a_strict_remote_first_waits_for_the_verdict(open_house: Any) -> None:
    async with open_house(synced=SYNCED, default="remote-first") as house:
        house.writer.behaviour = [(Verdict(), Verdict(WriteRejected("no", reason="DENIED"))), (Verdict(),)]
        started = trio.current_time()
        wrote = await house.write(ids=("a", "b"), confirm="strict")
        assert trio.current_time() - started > 1.9
        assert wrote.status == "partial"
        assert wrote.items[1].error.code == "DENIED"
        with pytest.raises(trio.TooSlowError), trio.fail_after(0.5):
            await house.write(confirm="strict")
        assert len(house.writer.commits) == 2, "what the caller did not wait for is queued all the same"
        assert house.nodes["remote-test"].requests == []


async def test_on_a_synced_store_an_optimistic_remote_first_returns_at_once(open_house: Any) -> None:
    async with open_house(synced=SYNCED, default="remote-first") as house:
        house.writer.behaviour = [(Verdict(),)]
        started = trio.current_time()
        wrote = await house.write()
        assert trio.current_time() - started < 0.1
        assert path(wrote) == [("local-write", "ok"), ("outbox", "ok")]
        assert wrote.receipts[0].state == "queued"


async def test_a_time_limit_stands_in_a_ready_made_policy(open_house: Any) -> None:
    async with open_house(synced=SYNCED, default="sync-queue") as house:
        drawn = house.kernel.explain("remote-first-10s")
        assert drawn.count("timeout 10 s") == 3, "the query, the synced write, the other write"
        assert "timeout" not in house.kernel.explain("remote-first")
        house.writer.behaviour = [(Verdict(None, after_s=3600),)]
        started = trio.current_time()
        with pytest.raises(WriteUnknown) as caught:
            await house.write("remote-first-10s", confirm="strict")
        assert trio.current_time() - started == pytest.approx(10)
        assert isinstance(caught.value.__cause__, NodeTimeout)
        assert len(house.writer.commits) == 1, "it stays queued"
        house.nodes["remote-test"].behaviour = [3600.0, 3600.0]
        assert path(await house.query("remote-first-10s")) == [
            ("remote-test", "cancelled"),
            ("remote-test", "failed"),
            ("local-query", "ok"),
        ]
        with pytest.raises(WriteUnknown):
            await house.write("remote-first-10s", store="notes")


async def test_hybrid_merges_both_sides_and_says_when_one_was_missing(open_house: Any) -> None:
    async with open_house() as house:
        read = await house.query("hybrid")
        assert {row.id for row in read.rows} == {"local-query", "remote-test"}
        assert read.meta.source == "mixed"
        house.nodes["remote-test"].behaviour = [ConnectFailed("down")]
        alone = await house.query("hybrid")
        assert [row.id for row in alone.rows] == ["local-query"]
        assert alone.meta.source == "local"
        assert ("remote-test", "failed") in path(alone)
        wrote = await house.write("hybrid")
        assert path(wrote) == [("remote-test", "ok"), ("local-write", "ok")]
        house.writer.behaviour = [DiskFull("full")]
        with pytest.raises(WriteUnknown) as caught:
            await house.write("hybrid")
        assert isinstance(caught.value.__cause__, DiskFull), "the other side has it, this one does not"


async def test_policies_are_chosen_per_call_per_store_and_for_the_client(open_house: Any) -> None:
    schema = Schema(StoreSpec("things", Row, policy="direct-remote"), StoreSpec("notes", Row))
    async with open_house(schema=schema) as house:
        assert (await house.query()).meta.policy == "direct-remote"
        assert (await house.query(store="notes")).meta.policy == "direct-local"
        assert (await house.query("hybrid")).meta.policy == "hybrid"
        with pytest.raises(UnknownPolicy, match="not registered"):
            await house.query("no-such")
        with pytest.raises(UnknownPolicy, match="needs remote-grpc"):
            await house.write("direct-grpc")
        with pytest.raises(UnknownStore):
            await house.query(store="nothing")


async def test_a_synced_store_refuses_policies_that_write_past_the_outbox(open_house: Any) -> None:
    async with open_house(synced=SYNCED, default="sync-queue") as house:
        for policy in ("direct-local", "direct-remote"):
            with pytest.raises(PolicyNotAllowed) as caught:
                await house.write(policy)
            assert (caught.value.policy, caught.value.store) == (policy, "things")
            await house.query(policy)
            await house.write(policy, store="notes")
        for policy in ("sync-queue", "local-first", "remote-first", "hybrid"):
            await house.write(policy)
        assert house.nodes["remote-test"].requests[-1].entries[0].store == "notes"


async def test_the_deadline_of_the_caller_travels_with_the_request(open_house: Any) -> None:
    bounded = Policy("bounded", timeout(node("remote-test"), 2), timeout(node("remote-test"), 2))
    async with open_house(bounded) as house:
        now, read = trio.current_time(), None
        with trio.move_on_after(5):
            read = await house.query("direct-remote")
            await house.query("bounded")
        with trio.move_on_after(1):
            await house.write("bounded")
        await house.write("direct-remote")
        deadlines = [request.context.deadline - now for request in house.nodes["remote-test"].requests]
    assert deadlines == pytest.approx([5, 2, 1, math.inf])
    assert read is not None
    assert read.meta.path[0].budget_s == pytest.approx(5)


class Unbound(Node):
    """A node that says that it does not look at the deadline."""

    bound_by_deadline = False


@pytest.mark.parametrize(("name", "sought"), [("local-query", False), ("bound", True)])
async def test_no_deadline_is_sought_for_an_answer_of_which_only_the_rows_count(
    open_house: Any, monkeypatch: pytest.MonkeyPatch, name: str, sought: bool
) -> None:
    bound = Policy("bound", node("remote-test"), node("remote-test"))
    async with open_house(bound, nodes={"local-query": Unbound("local-query")}) as house:
        house.events.listeners = ()
        asked: list[float] = []
        effective = trio.current_effective_deadline

        def seek() -> float:
            asked.append(effective())
            return asked[-1]

        monkeypatch.setattr(trio, "current_effective_deadline", seek)
        context = OperationContext("trace", "direct-local" if name == "local-query" else name, unread=True)
        with trio.move_on_after(5):
            result = await house.kernel.execute_query(QueryRequest(rows_of("things"), context))
            assert [row.id for row in result.rows] == ["remote-test" if sought else "local-query"]
            assert bool(asked) is sought
            assert result.meta.source == ("remote" if sought else "local")


async def test_a_read_of_which_only_the_rows_count_tells_its_budget_when_it_fails_or_somebody_listens(
    open_house: Any,
) -> None:
    async with open_house(nodes={"local-query": Unbound("local-query")}) as house:
        request = QueryRequest(rows_of("things"), OperationContext("trace", "direct-local", unread=True))
        with pytest.raises(DiskFull) as caught, trio.move_on_after(5):
            assert (await house.kernel.execute_query(request)).meta.path[0].budget_s == pytest.approx(5)
            house.events.listeners = ()
            house.nodes["local-query"].behaviour = [DiskFull("full")]
            await house.kernel.execute_query(request)
        assert path_of(caught.value)[0].budget_s == pytest.approx(5)


class Silent:
    """A node that says nothing about where it is, but its results do."""

    def __init__(self, source: Source) -> None:
        self.source: Source = source

    async def query(self, request: QueryRequest) -> QueryResult:
        return QueryResult((), meta=ExecutionMeta(self.source))


@pytest.mark.parametrize(
    ("id", "says", "source"),
    [
        ("far", "remote", "remote"),
        ("near", "local", "local"),
        ("both", "mixed", "mixed"),
        ("remote-x", "local", "remote"),
    ],
)
async def test_a_node_can_leave_it_to_its_results_where_it_is(
    open_house: Any, id: str, says: Source, source: Source
) -> None:
    async with open_house(Policy("silent", node(id), None), nodes={id: Silent(says)}) as house:
        assert (await house.query("silent")).meta.source == source


async def test_a_node_that_names_no_source_that_there_is_is_refused(open_house: Any) -> None:
    odd = Silent("local")
    odd.source = "somewhere"  # type: ignore[assignment]  # it is the point
    async with open_house(Policy("silent", node("odd"), None), nodes={"odd": odd}) as house:
        with pytest.raises(ExecutionError, match="not a source"):
            await house.query("silent")


async def test_an_answer_keeps_its_cursor_its_commit_and_the_trace_it_was_asked_with(open_house: Any) -> None:
    async with open_house() as house:
        for policy in ("direct-local", "direct-remote", "remote-first"):
            meta = (await house.query(policy)).meta
            assert (meta.cursor, meta.commit, meta.trace_id, meta.policy) == ("here", 7, "trace", policy)
            assert meta.source == ("local" if policy == "direct-local" else "remote")


def told(house: Any) -> list[Any]:
    """The events in order, as short rows."""
    rows: list[Any] = []
    for event in house.told:
        match event:
            case WriteDispatched():
                rows.append(("dispatched", event.policy, event.trace_id))
            case StepStarted():
                rows.append(("start", event.node, event.attempt))
            case StepFinished():
                rows.append(("end", event.node, event.outcome))
            case RetryScheduled():
                rows.append(("retry", event.node, event.attempt, event.error))
            case FallbackTaken():
                rows.append(("fallback", event.failed, event.error))
            case WriteSettled():
                rows.append(("settled", event.status, event.error))
            case QueryFinished():
                rows.append(("finished", event.error))
            case _:
                rows.append(event)
    house.told.clear()
    return rows


async def test_events_come_in_exactly_this_order(open_house: Any) -> None:
    stubborn = Policy("stubborn", None, retry(node("remote-test"), 2, Backoff(0.1)))
    patient = Policy("patient", timeout(node("remote-test"), 1), node("remote-test"))
    async with open_house(stubborn, patient, remote_first(name="other", remote="remote-test")) as house:
        remote = house.nodes["remote-test"]
        await house.write("direct-local")
        await wait_all_tasks_blocked()
        assert told(house) == [
            ("dispatched", "direct-local", "trace"), ("start", "local-write", 1), ("end", "local-write", "ok"),
            ("settled", "confirmed", ""),
        ]  # fmt: skip
        await house.query("direct-remote")
        await wait_all_tasks_blocked()
        assert told(house) == [("start", "remote-test", 1), ("end", "remote-test", "ok"), ("finished", "")]
        remote.behaviour = [ConnectFailed("down")]
        await house.write("other")
        await wait_all_tasks_blocked()
        assert told(house) == [
            ("dispatched", "other", "trace"), ("start", "remote-test", 1), ("end", "remote-test", "failed"),
            ("fallback", "remote-test", "CONNECT_FAILED"), ("start", "local-write", 1), ("end", "local-write", "ok"),
            ("settled", "confirmed", ""),
        ]  # fmt: skip
        remote.behaviour = [ChannelBroken("lost"), {"a"}]
        await house.write("stubborn")
        await wait_all_tasks_blocked()
        assert told(house) == [
            ("dispatched", "stubborn", "trace"), ("start", "remote-test", 1), ("end", "remote-test", "unknown"),
            ("retry", "remote-test", 2, "UNKNOWN_OUTCOME"), ("start", "remote-test", 2),
            ("end", "remote-test", "rejected"), ("settled", "rejected", ""),
        ]  # fmt: skip
        remote.behaviour = [60.0]
        with pytest.raises(NodeTimeout):
            await house.query("patient")
        await wait_all_tasks_blocked()
        assert told(house) == [
            ("start", "remote-test", 1), ("end", "remote-test", "cancelled"), ("end", "remote-test", "failed"),
            ("finished", "TIMEOUT"),
        ]  # fmt: skip
        remote.behaviour = [ConnectFailed("down")]
        with pytest.raises(ConnectFailed):
            await house.query("direct-remote")
        await wait_all_tasks_blocked()
        assert told(house) == [
            ("start", "remote-test", 1), ("end", "remote-test", "failed"), ("finished", "CONNECT_FAILED")
        ]  # fmt: skip


async def test_when_every_way_fails_the_error_has_all_of_them(open_house: Any) -> None:
    both = Policy("both", fallback(node("remote-test"), node("local-query")), None)
    async with open_house(both) as house:
        errors = [ConnectFailed("down"), ChannelBroken("lost")]
        house.nodes["remote-test"].behaviour, house.nodes["local-query"].behaviour = [errors[0]], [errors[1]]
        with pytest.raises(FallbackExhausted) as caught:
            await house.query("both")
        assert list(caught.value.attempts) == errors


async def test_detached_steps_are_bounded_and_end_with_the_client(open_house: Any) -> None:
    later = Policy(
        "later",
        sequence(node("local-query"), detach(node("remote-test"))),
        sequence(node("local-write"), detach(node("remote-test"))),
    )
    async with open_house(later, limits=KernelLimits(detached=2)) as house:
        remote = house.nodes["remote-test"]
        remote.behaviour = [3600.0, 3600.0]
        await house.query("later")
        await house.write("later")
        assert path(await house.query("later"))[0] == ("remote-test", "skipped")
        with pytest.raises(Overloaded):
            await house.write("later")
        assert len(house.writer.commits) == 1, "a write that could not be confirmed was not begun"
        await wait_all_tasks_blocked()
        assert remote.running == 2
        house.nodes["local-query"].behaviour = [ConnectFailed("x")]
    assert remote.running == 0


async def test_a_place_for_a_detached_step_is_given_back_when_the_answer_fails(open_house: Any) -> None:
    later = Policy("later", sequence(node("local-query"), detach(node("remote-test"))), None)
    async with open_house(later, limits=KernelLimits(detached=1)) as house:
        house.nodes["local-query"].behaviour = [ConnectFailed("x")]
        with pytest.raises(ConnectFailed):
            await house.query("later")
        assert path(await house.query("later"))[1] == ("remote-test", "detached")


async def test_a_failing_listener_and_a_full_queue_harm_nobody(open_house: Any, caplog: Any) -> None:
    async with open_house(direct_remote("remote-test", name="again")) as house:

        def fail(event: object) -> None:
            raise RuntimeError(f"cannot bear {type(event).__name__}")

        undo = house.events.subscribe(fail)
        heard: list[object] = []
        house.events.subscribe(heard.append)
        await house.write("again")
        await wait_all_tasks_blocked()
        assert len(heard) == 4
        assert caplog.text.count("cannot bear WriteDispatched") == 1
        undo()
        before = house.events.lost
        for _ in range(5000):
            house.events.emit(house.told[0])
        assert house.events.lost - before == 5000 - 4096
        house.events.flush()
        assert len(heard) == 4 + 4096
