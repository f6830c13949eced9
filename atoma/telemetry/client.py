"""A client's requests as spans and metrics, made from the events that it reports anyway."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atoma.contracts.events import (
    BreakerChanged,
    ConflictDetected,
    Event,
    FallbackTaken,
    QueryFinished,
    RetryScheduled,
    StepFinished,
    StepStarted,
    SyncStateChanged,
    WriteDispatched,
    WriteResolved,
    WriteSettled,
)
from atoma.contracts.execution import Step
from atoma.plugins import PluginContext
from atoma.ports import Environment, PortKey
from atoma.telemetry.traces import context_of, require_api

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

OPEN_MAX = 4_096
"""Requests whose end has not come yet; beyond that the oldest is closed, because events may be lost."""


class OpenTelemetry:
    """Plugin: a span per request with a child per step, retries and fallbacks as span events, and metrics.

    Spans are made from the client's events, after the fact: a request never waits for telemetry, and without this
    plugin nothing is measured. With ``Environment(traces=trace_ids())`` they are part of the caller's trace; the hub's
    spans (``hub_listener``) are in the same trace either way.

    Metrics: ``atoma.client.operation.duration`` and ``atoma.client.step.duration`` in seconds; counters
    ``atoma.client.retries``, ``atoma.client.fallbacks``, ``atoma.client.breaker.changes``, ``atoma.client.conflicts``
    and ``atoma.client.sync.changes``.

    Args:
        tracer_provider: Gets the spans; None takes the global one.
        meter_provider: Gets the metrics; None takes the global one.

    Raises:
        ConfigurationError: The extra ``otel`` is not installed.
    """

    id = "telemetry"

    def __init__(
        self, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        require_api()
        self._tracer_provider = tracer_provider
        self._meter_provider = meter_provider

    @property
    def provides(self) -> Sequence[PortKey[object]]:
        """Nothing."""
        return ()

    @property
    def needs(self) -> Sequence[PortKey[object]]:
        """Nothing."""
        return ()

    @asynccontextmanager
    async def open(self, context: PluginContext) -> AsyncGenerator[None]:
        """Listen as long as the client is open."""
        context.register_listener(Recorder(context.environment, self._tracer_provider, self._meter_provider).hear)
        yield


@dataclass(slots=True)
class _Request:
    """One request that is under way: its span, and when it began."""

    span: Span
    began: float


class Recorder:
    """A recorder that turns events into spans and metrics.

    Args:
        environment: The clock of the events, and the wall clock.
        tracer_provider: Gets the spans; None takes the global one.
        meter_provider: Gets the metrics; None takes the global one.
    """

    def __init__(
        self, environment: Environment, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
    ) -> None:
        from opentelemetry import metrics, trace

        self._trace = trace
        self._tracer = trace.get_tracer("atoma", tracer_provider=tracer_provider)
        self._clock = environment.clock
        self._wall_ns = environment.wall_ms() * 1_000_000 - round(environment.clock() * 1e9)
        self._open: dict[str, _Request] = {}
        meter = metrics.get_meter("atoma", meter_provider=meter_provider)
        self._operations = meter.create_histogram(
            "atoma.client.operation.duration", unit="s", description="How long queries and writes take"
        )
        self._steps = meter.create_histogram(
            "atoma.client.step.duration", unit="s", description="How long the nodes of policies take"
        )
        self._retries = meter.create_counter("atoma.client.retries", description="Tries after the first")
        self._fallbacks = meter.create_counter("atoma.client.fallbacks", description="Alternatives taken")
        self._breakers = meter.create_counter("atoma.client.breaker.changes", description="Breakers that moved")
        self._conflicts = meter.create_counter("atoma.client.conflicts", description="Writes refused or merged")
        self._sync = meter.create_counter("atoma.client.sync.changes", description="States of the sync lanes")

    def hear(self, event: Event) -> None:
        """Take note of one event."""
        match event:
            case WriteDispatched() | StepStarted():
                self._request(event.trace_id, event.at)
            case StepFinished():
                self._step(event)
            case RetryScheduled():
                self._retries.add(1, {"atoma.node": event.node, "atoma.error": event.error})
                told = {"atoma.node": event.node, "atoma.error": event.error, "atoma.attempt": str(event.attempt)}
                self._mark(event.trace_id, "retry", {**told, "atoma.delay_s": f"{event.delay_s:g}"})
            case FallbackTaken():
                self._fallbacks.add(1, {"atoma.failed": event.failed, "atoma.error": event.error})
                self._mark(event.trace_id, "fallback", {"atoma.failed": event.failed, "atoma.error": event.error})
            case QueryFinished():
                attributes = {"atoma.operation": "query", "atoma.policy": event.policy, "atoma.error": event.error}
                self._end(event, {**attributes, "atoma.store": event.store}, event.path)
            case WriteSettled():
                attributes = {"atoma.operation": "write", "atoma.policy": event.policy, "atoma.error": event.error}
                self._end(event, {**attributes, "atoma.status": event.status or ""}, event.path)
            case WriteResolved():
                attributes = {"atoma.operation": "resolve", "atoma.policy": event.policy, "atoma.error": event.error}
                status = "abandoned" if event.abandoned else event.status or ""
                self._end(event, {**attributes, "atoma.status": status}, event.path)
            case BreakerChanged():
                self._breakers.add(1, {"atoma.node": event.node, "atoma.state": event.state})
            case ConflictDetected():
                self._conflicts.add(1, {"atoma.store": event.store, "atoma.code": event.code})
            case SyncStateChanged():
                self._sync.add(1, {"atoma.state": event.state})
            case _:
                pass

    def _ns(self, at: float) -> int:
        return self._wall_ns + round(at * 1e9)

    def _request(self, trace_id: str, at: float) -> _Request:
        found = self._open.get(trace_id)
        if found is None:
            if len(self._open) >= OPEN_MAX:
                self._open.pop(next(iter(self._open))).span.end()
            span = self._tracer.start_span(
                "atoma request",
                context=context_of(trace_id),
                kind=self._trace.SpanKind.CLIENT,
                attributes={"atoma.trace_id": trace_id},
                start_time=self._ns(at),
            )
            found = self._open[trace_id] = _Request(span, at)
        return found

    def _step(self, event: StepFinished) -> None:
        request = self._request(event.trace_id, event.at - event.seconds)
        attributes = {"atoma.node": event.node, "atoma.outcome": event.outcome, "atoma.error": event.error}
        span = self._tracer.start_span(
            event.node,
            context=self._trace.set_span_in_context(request.span),
            attributes={**attributes, "atoma.attempt": event.attempt},
            start_time=self._ns(event.at - event.seconds),
        )
        if event.outcome in ("failed", "rejected", "unknown"):
            span.set_status(self._trace.StatusCode.ERROR, event.error)
        span.end(self._ns(event.at))
        self._steps.record(event.seconds, attributes)

    def _mark(self, trace_id: str, name: str, attributes: dict[str, str]) -> None:
        now = self._clock()
        self._request(trace_id, now).span.add_event(name, attributes, self._ns(now))

    def _end(
        self, event: QueryFinished | WriteSettled | WriteResolved, attributes: dict[str, str], path: Sequence[Step]
    ) -> None:
        request = self._request(event.trace_id, event.at)
        del self._open[event.trace_id]
        span = request.span
        span.update_name(f"atoma {attributes['atoma.operation']}")
        span.set_attributes({**attributes, "atoma.path": [f"{step.node}: {step.outcome}" for step in path]})
        if event.error not in ("", "CANCELLED"):
            span.set_status(self._trace.StatusCode.ERROR, event.error)
        span.end(self._ns(event.at))
        self._operations.record(event.at - request.began, attributes)


__all__ = ["OPEN_MAX", "OpenTelemetry", "Recorder"]
