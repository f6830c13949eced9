"""What can be called, and how it is answered, as tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from atoma.ports import SyncService


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Attributes:
        request: Type of its request.
        reply: Type of its reply, or of each item when it streams.
        streams: Whether it answers with a stream.
    """

    request: type[msgspec.Struct]
    reply: type[msgspec.Struct]
    streams: bool = False


MethodTable: TypeAlias = Mapping[str, Method]


Answer: TypeAlias = Callable[[SyncService, msgspec.Struct], Awaitable[msgspec.Struct]]
Feed: TypeAlias = Callable[[SyncService, msgspec.Struct], AbstractAsyncContextManager[AsyncIterator[msgspec.Struct]]]


@dataclass(frozen=True, slots=True)
class Served:
    """How one method is answered: ``answer`` for a call, ``feed`` for a stream.

    Attributes:
        request: Type of the request.
        answer: Makes the reply.
        feed: Makes the items.
        reads: ``answer`` changes nothing, so that an answer for which there is no room may be made again.
        carries_rows: Its requests may be as large as what they write; all others are small.
    """

    request: type[msgspec.Struct]
    answer: Answer | None = None
    feed: Feed | None = None
    reads: bool = False
    carries_rows: bool = False


ServedTable: TypeAlias = Mapping[str, Served]
