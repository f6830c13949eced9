"""A hub's calls as spans and metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from atoma.contracts.events import ClientAhead, HubEvent
from atoma.telemetry.traces import context_of, require_api

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider


def hub_listener(
    *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> Callable[[HubEvent], None]:
    """What ``open_hub(listener=…)`` takes: one span per call, in the caller's trace, with a child per batch of SQL, and how long calls take.

    Args:
        tracer_provider: Gets the spans; None takes the global one.
        meter_provider: Gets the metrics ``atoma.hub.call.duration`` and ``atoma.hub.clients.ahead``, which says that the hub
            was restored from a backup; None takes the global one.

    Raises:
        ConfigurationError: The extra ``otel`` is not installed.
    """
    require_api()
    from opentelemetry import metrics, trace

    tracer = trace.get_tracer("atoma.hub", tracer_provider=tracer_provider)
    meter = metrics.get_meter("atoma.hub", meter_provider=meter_provider)
    durations = meter.create_histogram(
        "atoma.hub.call.duration", unit="s", description="How long a hub works on a call"
    )
    ahead = meter.create_counter("atoma.hub.clients.ahead", description="Clients that know more than the hub")

    def hear(event: HubEvent) -> None:
        if isinstance(event, ClientAhead):
            ahead.add(1)
            return
        ended = event.ended_ms * 1_000_000
        began = ended - round(event.seconds * 1e9)
        attributes = {"atoma.method": event.method, "atoma.error": event.error}
        span = tracer.start_span(
            f"atoma.hub {event.method}",
            context=context_of(event.trace_id),
            kind=trace.SpanKind.SERVER,
            attributes={**attributes, "atoma.trace_id": event.trace_id},
            start_time=began,
        )
        if event.error not in ("", "CANCELLED"):
            span.set_status(trace.StatusCode.ERROR, event.error)
        if event.left_out:
            span.set_attribute("atoma.sql.left_out", event.left_out)
        within = trace.set_span_in_context(span)
        for batch in event.batches:
            sent = began + round(batch.after * 1e9)
            part = tracer.start_span(
                f"atoma.hub sql {batch.kind}",
                context=within,
                kind=trace.SpanKind.CLIENT,
                attributes={
                    "db.system.name": batch.system,
                    "db.operation.batch.size": batch.statements,
                    "atoma.sql.calls": batch.calls,
                },
                start_time=sent,
            )
            part.end(sent + round(batch.seconds * 1e9))
        span.end(ended)
        durations.record(event.seconds, attributes)

    return hear
