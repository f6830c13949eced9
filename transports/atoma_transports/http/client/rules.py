"""How many requests a client makes at once, and how much one of them may hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from atoma.errors import ConfigurationError

LaneName: TypeAlias = Literal["query", "write", "sync"]

LANES: dict[str, LaneName] = {"query": "query", "resolve": "query", "write": "write"}
"""The lane of each method; every other one is of ``sync``."""


def lane_of(method: str) -> LaneName:
    """The lane in which ``method`` travels."""
    return LANES.get(method, "sync")


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneRules:
    """Bounds of one lane.

    Attributes:
        requests: Requests in flight.
        calls: Calls that are joined into one request.
        bytes: Bytes of the calls that are joined; a call that is larger travels alone.
        queue: Calls that wait for a request; one more is refused with ``Overloaded``.
        queue_bytes: Bytes of the calls that wait; a call beyond is refused unless it waits alone.

    Raises:
        ConfigurationError: A bound is less than one.
    """

    requests: int = 4
    calls: int = 64
    bytes: int = 1024 * 1024
    queue: int = 256
    queue_bytes: int = 8 * 1024 * 1024

    def __post_init__(self) -> None:
        for name in ("requests", "calls", "bytes", "queue", "queue_bytes"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"LaneRules({name}=…) is at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRules:
    """Bounds of the three lanes, which never wait for each other.

    Each request takes a connection while it is under way, and a server has 16 for a principal unless it says otherwise.

    Attributes:
        query: Direct queries, and questions for the outcome of a write.
        write: Direct writes.
        sync: Everything that replication asks: ``open``, ``push``, ``pull``, ``snapshot``.
    """

    query: LaneRules = field(default_factory=LaneRules)
    write: LaneRules = field(default_factory=LaneRules)
    sync: LaneRules = field(default_factory=lambda: LaneRules(requests=10))

    def lanes(self) -> Iterator[tuple[LaneName, LaneRules]]:
        """Each lane with its bounds."""
        yield "query", self.query
        yield "write", self.write
        yield "sync", self.sync

    @property
    def requests(self) -> int:
        """Requests in flight over all lanes."""
        return sum(rules.requests for _, rules in self.lanes())
