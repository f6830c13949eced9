"""A client's requests and a hub's calls as OpenTelemetry sees them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, StatusCode, get_current_span

from atoma import Client, Schema, StaticTokenVerifier, StoreSpec, new_id, open_client, open_hub, select
from atoma.contracts.events import StepStarted
from atoma.contracts.policy import Policy
from atoma.errors import RemoteError, TransportError
from atoma.kernel import Backoff, fallback, node, retry
from atoma.plugins import Plugin, PluginContext
from atoma.ports import Environment, Transport
from atoma.telemetry import OpenTelemetry, hub_listener, trace_ids
from atoma.telemetry.client import OPEN_MAX, Recorder
from atoma.telemetry.traces import context_of
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http import HttpTransport
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str = field(default_factory=new_id)
    text: str


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)
SQL_OF = {"write": {"atoma.hub sql write", "atoma.hub sql commit"}, "query": {"atoma.hub sql read"}}
STUBBORN = Policy("stubborn", fallback(retry(node("remote-memory"), 3, Backoff(0.01)), node("local-query")), None)


class Stubborn:
    """A plugin with one policy."""

    id, provides, needs = "stubborn", (), ()

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        context.register_policy(STUBBORN)
        yield


@dataclass
class Seen:
    """Where spans and metrics end up."""

    tracer_provider: TracerProvider
    meter_provider: MeterProvider
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader

    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    def called(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans() if span.name == name]

    def metric(self, name: str) -> list[Any]:
        data = self.reader.get_metrics_data()
        assert data is not None
        metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics if m.name == name]
        return [point for metric in metrics for point in metric.data.data_points]


@pytest.fixture
def seen() -> Seen:
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracers = TracerProvider(shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    return Seen(tracers, MeterProvider([reader], shutdown_on_exit=False), exporter, reader)


@asynccontextmanager
async def open_both(seen: Seen, environment: Environment | None = None) -> AsyncGenerator[tuple[Client, MemoryNetwork]]:
    providers: dict[str, Any] = {"tracer_provider": seen.tracer_provider, "meter_provider": seen.meter_provider}
    verifier, network = StaticTokenVerifier({"t": "somebody"}), MemoryNetwork()
    store = SQLiteHubStore(":memory:")
    async with open_hub(SCHEMA, store, verifier=verifier, listener=hub_listener(**providers)) as hub:
        async with network.listen(hub):
            transport = MemoryTransport(network, token="t")
            plugins: list[Plugin] = [
                OpenTelemetry(**providers), LocalExecution(SQLiteEngine(":memory:")), Remote(transport), Stubborn()
            ]  # fmt: skip
            async with open_client(SCHEMA, plugins=plugins, environment=environment) as client:
                yield client, network


def context(span: ReadableSpan) -> SpanContext:
    found: SpanContext | None = span.context
    assert found is not None
    return found


def attributes(span: ReadableSpan) -> dict[str, Any]:
    assert span.attributes is not None
    return dict(span.attributes)


async def test_a_request_is_one_trace_from_the_caller_to_the_hub(seen: Seen) -> None:
    async with open_both(seen) as (client, _):
        await client.store(NOTES).insert(Note(text="x"), policy="direct-remote", confirm="strict")
        page = await client.store(NOTES).query(policy="direct-remote")
    (write,), (query,) = seen.called("atoma write"), seen.called("atoma query")
    assert attributes(query)["atoma.trace_id"] == page.meta.trace_id
    assert context(query).trace_id != context(write).trace_id
    for request, call in ((write, "write"), (query, "query")):
        (served,) = seen.called(f"atoma.hub {call}")
        (step,) = [span for span in seen.called("remote-memory") if context(span).trace_id == context(request).trace_id]
        assert context(served).trace_id == context(request).trace_id
        assert step.parent is not None
        assert step.parent.span_id == context(request).span_id
        assert request.start_time is not None and step.start_time is not None and step.end_time is not None
        assert request.start_time <= step.start_time < step.end_time <= (request.end_time or 0)
        parts = [span for span in seen.spans() if span.parent and span.parent.span_id == context(served).span_id]
        assert {context(part).trace_id for part in parts} == {context(request).trace_id}
        assert {part.name for part in parts} == SQL_OF[call]
        for part in parts:
            assert attributes(part)["db.system.name"] == "sqlite"
            assert attributes(part)["db.operation.batch.size"] >= 1
            assert part.start_time is not None and served.start_time is not None and part.end_time is not None
            assert served.start_time <= part.start_time <= part.end_time <= (served.end_time or 0)
    assert attributes(query)["atoma.path"] == ("remote-memory: ok",)
    assert attributes(query)["atoma.policy"] == "direct-remote"
    assert {point.attributes["atoma.operation"] for point in seen.metric("atoma.client.operation.duration")} == {
        "query", "write"
    }  # fmt: skip
    assert sum(point.count for point in seen.metric("atoma.hub.call.duration")) == 2


@pytest.mark.parametrize("transport", ["memory", "websocket", "grpc", "http"])
async def test_the_callers_trace_reaches_the_hub_over_every_transport(transport: str, seen: Seen) -> None:
    """A query, a write and what became of it, each with the span of whoever asked and the hub's own."""
    listener = hub_listener(tracer_provider=seen.tracer_provider, meter_provider=seen.meter_provider)
    tracer = seen.tracer_provider.get_tracer("the application")
    verifier, network = StaticTokenVerifier({"t" * 20: "somebody"}), MemoryNetwork()
    async with (
        open_hub(SCHEMA, SQLiteHubStore(":memory:"), verifier=verifier, listener=listener) as hub,
        network.listen(hub),
        open_server(hub, "127.0.0.1:0") as address,
    ):
        ways: dict[str, Callable[[], Transport]] = {
            "memory": lambda: MemoryTransport(network, token="t" * 20),
            "websocket": lambda: WebSocketTransport(f"ws://{address}/sync", token="t" * 20),
            "grpc": lambda: GrpcTransport(f"grpc://{address}", token="t" * 20),
            "http": lambda: HttpTransport(f"http://{address}", token="t" * 20),
        }
        plugins: list[Plugin] = [OpenTelemetry(tracer_provider=seen.tracer_provider), Remote(ways[transport]())]
        environment = Environment(traces=trace_ids())
        async with open_client(SCHEMA, plugins=plugins, policy="direct-remote", environment=environment) as client:
            with tracer.start_as_current_span("checkout") as outer:
                await client.store(NOTES).insert(Note(text="x"), confirm="strict")
                await client.store(NOTES).query()
                await client.resolve(new_id())
    for name in ("write", "query", "resolve"):
        (request,), (served,) = seen.called(f"atoma {name}"), seen.called(f"atoma.hub {name}")
        traces = {
            span.context.trace_id
            for span in (outer, request, served)
            if isinstance(span, ReadableSpan) and span.context
        }
        assert traces == {outer.get_span_context().trace_id}, name
        assert served.parent is not None and served.parent.span_id == outer.get_span_context().span_id


async def test_a_resolved_write_is_a_request_like_others(seen: Seen) -> None:
    async with open_both(seen) as (client, _):
        found = await client.resolve(new_id(), policy="direct-remote")
        assert found.abandoned
    (asked,), (served,) = seen.called("atoma resolve"), seen.called("atoma.hub resolve")
    assert context(served).trace_id == context(asked).trace_id
    told = attributes(asked)
    assert (told["atoma.operation"], told["atoma.status"]) == ("resolve", "abandoned")
    assert told["atoma.path"] == ("remote-memory: ok",)


async def test_requests_continue_the_trace_of_their_caller(seen: Seen) -> None:
    tracer = seen.tracer_provider.get_tracer("the application")
    async with open_both(seen, Environment(traces=trace_ids())) as (client, _):
        with tracer.start_as_current_span("checkout") as outer:
            await client.store(NOTES).query(policy="direct-remote")
        await client.store(NOTES).query(policy="direct-local")
    inside, outside = seen.called("atoma query")
    assert inside.parent is not None
    assert inside.parent.span_id == outer.get_span_context().span_id
    (served,) = seen.called("atoma.hub query")
    assert served.parent is not None
    assert served.parent.span_id == outer.get_span_context().span_id
    assert context(outside).trace_id != context(inside).trace_id


@pytest.mark.virtual_time
async def test_retries_and_fallbacks_are_told(seen: Seen) -> None:
    async with open_both(seen) as (client, network):
        network.partition()
        page = await client.store(NOTES).query(policy="stubborn")
        with pytest.raises(TransportError):
            await client.store(NOTES).query(policy="direct-remote")
    assert page.meta.source == "local"
    good, bad = seen.called("atoma query")
    assert [event.name for event in good.events] == ["retry", "retry", "fallback"]
    assert good.status.status_code is StatusCode.UNSET
    assert bad.status.status_code is StatusCode.ERROR
    assert attributes(bad)["atoma.error"] == "CONNECT_FAILED"
    steps = [span for span in seen.spans() if span.parent and span.parent.span_id == context(good).span_id]
    assert [(span.name, attributes(span)["atoma.attempt"]) for span in steps] == [
        ("remote-memory", 1), ("remote-memory", 2), ("remote-memory", 3), ("local-query", 1)
    ]  # fmt: skip
    assert sum(point.value for point in seen.metric("atoma.client.retries")) == 2
    assert sum(point.value for point in seen.metric("atoma.client.fallbacks")) == 1


async def test_what_the_hub_refuses_is_an_error_at_both_ends(seen: Seen) -> None:
    async with open_both(seen) as (client, _):
        with pytest.raises(RemoteError):
            await client.store(NOTES).query(select(NOTES).limit(11_000), policy="direct-remote")
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.store(NOTES).query(policy="direct-remote")
    codes = [attributes(span)["atoma.error"] for span in seen.called("atoma query")]
    assert codes[0] == "TOO_LARGE"
    assert codes[1:] in ([], ["CANCELLED"])
    (served,) = seen.called("atoma.hub query")
    assert served.status.status_code is StatusCode.ERROR


async def test_requests_whose_end_was_lost_are_bounded(seen: Seen) -> None:
    recorder = Recorder(Environment(), seen.tracer_provider, seen.meter_provider)
    for number in range(OPEN_MAX + 3):
        recorder.hear(StepStarted(f"trace-{number}", "somewhere", 1, at=1.0))
    assert len(seen.spans()) == 3


def test_every_trace_id_stands_for_one_trace() -> None:
    def number(trace_id: str) -> int:
        return get_current_span(context_of(trace_id)).get_span_context().trace_id

    ids = ["a.1", "a.2", "b", "\ud800", "00-" + "7" * 32 + "-" + "1" * 16 + "-01", "00-" + "7" * 32 + "-" + "1" * 17]
    assert len({number(id) for id in ids}) == len(ids)
    assert number(ids[0]) == number("a.1")
    assert number(ids[4]) == number(ids[4] + ".12") == int("7" * 32, 16)
    assert context_of("") is context_of("00-" + "0" * 32 + "-" + "1" * 16 + "-01") is None


@pytest.mark.parametrize("use", ["OpenTelemetry()", "hub_listener()", "trace_ids()"])
def test_without_the_extra_it_says_how_to_get_it(use: str) -> None:
    program = f"import sys; sys.modules['opentelemetry'] = None; from atoma.telemetry import *; {use}"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "ConfigurationError" in ended.stderr
    assert "pip install 'atoma-runtime[otel]'" in ended.stderr


async def test_a_listener_that_fails_harms_no_call() -> None:
    def fail(event: object) -> None:
        raise ZeroDivisionError(event)

    listener: Callable[[object], None] = fail
    async with open_hub(
        SCHEMA, SQLiteHubStore(":memory:"), verifier=StaticTokenVerifier({"t": "u"}), listener=listener
    ) as hub:
        network = MemoryNetwork()
        async with network.listen(hub):
            plugins = [Remote(MemoryTransport(network, token="t"))]
            async with open_client(SCHEMA, plugins=plugins, policy="direct-remote") as client:
                assert (await client.store(NOTES).query()).items == ()
