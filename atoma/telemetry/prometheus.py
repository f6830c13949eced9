"""A hub's figures in the text that Prometheus reads; needs nothing but Atoma.

Labels are names of the hub's own methods, codes of the table of errors, and names of transports, so there are never more series than
these come to, whatever clients send. No subject, scope, store, id or value is among them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from atoma.codes import known_code
from atoma.contracts.events import ClientAhead, HubEvent
from atoma.ports.sessions import SessionInfo

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the buckets of durations, in seconds."""
OTHER = "other"
"""What methods are called beyond the first ones."""
METHODS_MAX = 32


@dataclass(slots=True)
class _Durations:
    """A histogram: how many took up to each bound and not up to the one before, how many longer, and all seconds together."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.seconds += seconds


class HubMetrics:
    """The figures of a hub since it was opened: give :meth:`hear` to ``open_hub(listener=…)``, and serve :meth:`text`."""

    __slots__ = ("_ahead", "_calls", "_durations")

    def __init__(self) -> None:
        self._calls: Counter[tuple[str, str]] = Counter()
        self._durations: dict[str, _Durations] = {}
        self._ahead = 0

    def hear(self, event: HubEvent) -> None:
        """Take note of one event."""
        if isinstance(event, ClientAhead):
            self._ahead += 1
            return
        known = event.method in self._durations or len(self._durations) < METHODS_MAX
        method = event.method if known else OTHER
        self._calls[method, known_code(event.error)] += 1
        self._durations.setdefault(method, _Durations()).add(event.seconds)

    def text(self, sessions: Sequence[SessionInfo] = ()) -> str:
        """Everything, in Prometheus' text format.

        Args:
            sessions: The hub's sessions now, ``hub.sessions()``.
        """
        return "".join(f"{line}\n" for line in self._lines(sessions))

    def _lines(self, sessions: Sequence[SessionInfo]) -> Iterator[str]:
        yield from _family(
            "atoma_hub_calls_total", "counter", "Calls that have ended; error is the code, empty for none."
        )
        for (method, error), count in sorted(self._calls.items()):
            yield f"atoma_hub_calls_total{_labels(method=method, error=error)} {count}"
        yield from _family("atoma_hub_call_duration_seconds", "histogram", "How long the hub works on a call.")
        for method, durations in sorted(self._durations.items()):
            yield from _histogram("atoma_hub_call_duration_seconds", method, durations)
        yield from _family(
            "atoma_hub_clients_ahead_total", "counter", "Clients that knew more than the hub: it was restored."
        )
        yield f"atoma_hub_clients_ahead_total {self._ahead}"
        yield from _family("atoma_hub_sessions", "gauge", "Sessions that are open now.")
        for transport, count in sorted(Counter(session.peer.transport for session in sessions).items()):
            yield f"atoma_hub_sessions{_labels(transport=transport)} {count}"


def _histogram(name: str, method: str, durations: _Durations) -> Iterable[str]:
    total = 0
    for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), durations.counts, strict=True):
        total += count
        yield f"{name}_bucket{_labels(method=method, le=bound)} {total}"
    yield f"{name}_sum{_labels(method=method)} {durations.seconds!r}"
    yield f"{name}_count{_labels(method=method)} {total}"


def _family(name: str, kind: str, told: str) -> Iterator[str]:
    yield f"# HELP {name} {told}"
    yield f"# TYPE {name} {kind}"


def _labels(**labels: str) -> str:
    quoted = (value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for value in labels.values())
    return "{" + ",".join(f'{name}="{value}"' for name, value in zip(labels, quoted, strict=True)) + "}"


__all__ = ["BOUNDS_S", "CONTENT_TYPE", "HubMetrics"]
