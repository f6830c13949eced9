"""The completeness of answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

Extent: TypeAlias = Literal["complete", "partial", "stale"]

_BADNESS: dict[Extent, int] = {"complete": 0, "stale": 1, "partial": 2}


class Completeness(msgspec.Struct, frozen=True):
    """A statement about whether an answer has every row, which the rows themselves cannot say, least of all an empty answer.

    Attributes:
        state: ``complete``: every row that existed a second ago, as far as is known. ``stale``: every row
            that existed at an earlier time. ``partial``: rows may be missing that have never been on this device.
        scopes: The scopes that cause the state, in order; empty if it is ``complete``, or if rows are kept on this
            device only as they are asked for.
        since_ms: Wall-clock time until which a ``stale`` answer was complete; 0 if that was before the client was
            opened.
    """

    state: Extent = "complete"
    scopes: tuple[str, ...] = ()
    since_ms: int = 0


COMPLETE = Completeness()


def together(parts: Iterable[Completeness]) -> Completeness:
    """Return the completeness of an answer that needs all of ``parts``: the worst of them, since the earliest time among these."""
    state: Extent = "complete"
    worst: list[Completeness] = []
    for part in parts:
        if _BADNESS[part.state] > _BADNESS[state]:
            state, worst = part.state, []
        if part.state == state:
            worst.append(part)
    if state == "complete":
        return COMPLETE
    scopes = sorted({scope for part in worst for scope in part.scopes})
    return Completeness(state, tuple(scopes), min(part.since_ms for part in worst))


def either(parts: Iterable[Completeness]) -> Completeness:
    """Return the completeness of an answer to which each of ``parts`` has added its rows: the best of them."""
    return min(parts, key=lambda part: _BADNESS[part.state], default=COMPLETE)
