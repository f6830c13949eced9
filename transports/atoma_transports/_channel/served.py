"""How methods are answered, as a table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from atoma.ports import SyncService

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
    """

    request: type[msgspec.Struct]
    answer: Answer | None = None
    feed: Feed | None = None
    reads: bool = False


ServedTable: TypeAlias = Mapping[str, Served]
