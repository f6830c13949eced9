"""Spans and metrics of a client's requests and of a hub's calls: for OpenTelemetry, and a hub's figures for Prometheus.

OpenTelemetry needs the extra: ``pip install 'atoma-runtime[otel]'``. Importing this package does not; using it says what is missing.
"""

from __future__ import annotations

from atoma.telemetry.client import OpenTelemetry
from atoma.telemetry.hub import hub_listener
from atoma.telemetry.prometheus import HubMetrics
from atoma.telemetry.support import SupportBundle, support_bundle
from atoma.telemetry.traces import trace_ids

__all__ = ["HubMetrics", "OpenTelemetry", "SupportBundle", "hub_listener", "support_bundle", "trace_ids"]
