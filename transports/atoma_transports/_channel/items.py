"""The reading end of a stream."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import trio

from atoma.contracts.codec import decode


class Items:
    """Reads a stream. Not a generator, which could be left half-way and would then have to be collected."""

    def __init__(
        self,
        payloads: trio.MemoryReceiveChannel[bytes],
        kind: type[msgspec.Struct],
        grant: Callable[[int], None],
        check_end: Callable[[], Awaitable[None]],
        window: int,
    ) -> None:
        self._payloads = payloads
        self._kind = kind
        self._grant = grant
        self._check_end = check_end
        self._batch = max(1, window // 2)
        self._taken = 0

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> msgspec.Struct:
        try:
            payload = await self._payloads.receive()
        except trio.EndOfChannel:
            await self._check_end()
            raise StopAsyncIteration from None
        self._taken += 1
        if self._taken >= self._batch:
            self._grant(self._taken)
            self._taken = 0
        return decode(payload, self._kind)
