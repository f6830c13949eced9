"""OpenTelemetry, for those who have it: spans and metrics of a client's requests and of a hub's calls.

Needs the extra: ``pip install 'atoma-runtime[otel]'``. Importing this package does not; using it says what is missing.
"""

from __future__ import annotations

from atoma.telemetry.client import OpenTelemetry
from atoma.telemetry.hub import hub_listener
from atoma.telemetry.traces import trace_ids

__all__ = ["OpenTelemetry", "hub_listener", "trace_ids"]
