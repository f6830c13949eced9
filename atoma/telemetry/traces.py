"""Trace ids: Atoma's one string per request, and the OpenTelemetry context that it stands for at both ends."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from atoma.contracts.extras import install_line
from atoma.errors import ConfigurationError
from atoma.schema import new_id

if TYPE_CHECKING:
    from opentelemetry.context import Context

_PARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?![0-9a-f-])")


def require_api() -> None:
    """Check that the extra is installed.

    Raises:
        ConfigurationError: It is not; the message says how to get it.
    """
    try:
        for name in ("opentelemetry.metrics", "opentelemetry.trace"):
            importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(
            f"telemetry needs OpenTelemetry, which is not installed: {install_line('otel')}"
        ) from error


def trace_ids(otherwise: Callable[[], str] = new_id) -> Callable[[], str]:
    """What ``Environment(traces=…)`` takes so that requests continue the trace of whoever makes them.

    Args:
        otherwise: Makes the trace id of a request that is made outside of any span.

    Returns:
        A function that gives the current span as a W3C ``traceparent`` and a number, which the hub understands.

    Raises:
        ConfigurationError: The extra ``otel`` is not installed.
    """
    require_api()
    from opentelemetry import trace

    numbers = itertools.count()  # requests of one span are told apart

    def make() -> str:
        span = trace.get_current_span().get_span_context()
        if not span.is_valid:
            return otherwise()
        return f"00-{span.trace_id:032x}-{span.span_id:016x}-{int(span.trace_flags):02x}.{next(numbers)}"

    return make


def context_of(trace_id: str) -> Context | None:
    """The context that spans of ``trace_id`` hang on, the same at every end; None for ``""``.

    What begins with a ``traceparent`` hangs on the caller's span. Any other id stands for a trace of its own, whose
    number is its digest, so that the spans of client and hub meet there.
    """
    if not trace_id:
        return None
    from opentelemetry import trace

    said = _PARENT.match(trace_id)
    if said is not None:
        number, parent, flags = int(said[1], 16), int(said[2], 16), int(said[3], 16)
    else:
        digest = hashlib.blake2b(trace_id.encode("utf-8", "surrogatepass"), digest_size=24).digest()
        number, parent = int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:], "big")
        flags = trace.TraceFlags.SAMPLED
    span = trace.SpanContext(number, parent, is_remote=True, trace_flags=trace.TraceFlags(flags))
    return trace.set_span_in_context(trace.NonRecordingSpan(span)) if span.is_valid else None


__all__ = ["context_of", "require_api", "trace_ids"]
