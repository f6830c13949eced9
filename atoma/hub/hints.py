"""Hints about new heads: one slot per scope and listener, so that a slow listener costs nothing and misses nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence

import trio

from atoma.contracts.sync import Hint
from atoma.errors import RemoteError

LISTENERS_MAX = 10_000


class HintListener(AsyncIterator[Hint]):
    """Hints for one connection; a newer head of a scope overwrites the one that was not read yet."""

    __slots__ = ("_heads", "_wake", "scopes")

    def __init__(self, scopes: Sequence[str]) -> None:
        self.scopes = tuple(dict.fromkeys(scopes))
        self._heads: dict[str, int] = {}
        self._wake = trio.Event()

    def offer(self, scope: str, head: int) -> None:
        """Note that ``scope`` has reached ``head``."""
        if head >= self._heads.get(scope, -1):
            self._heads[scope] = head
        self._wake.set()

    async def __anext__(self) -> Hint:
        """The next hint; waits for one."""
        while not self._heads:
            self._wake = trio.Event()
            await self._wake.wait()
        await trio.lowlevel.checkpoint()
        scope = next(iter(self._heads))
        return Hint(scope, self._heads.pop(scope))


class Hints:
    """A notifier that tells listeners of commits."""

    __slots__ = ("_count", "_listeners")

    def __init__(self) -> None:
        self._listeners: dict[str, set[HintListener]] = {}
        self._count = 0

    def add(self, listener: HintListener) -> None:
        """Notify ``listener`` of its scopes from now on.

        Raises:
            RemoteError: ``OVERLOADED``: there are too many.
        """
        if self._count >= LISTENERS_MAX:
            raise RemoteError("too many listeners", remote_code="OVERLOADED", retry_after_s=5.0)
        self._count += 1
        for scope in listener.scopes:
            self._listeners.setdefault(scope, set()).add(listener)

    def remove(self, listener: HintListener) -> None:
        """Forget ``listener``."""
        self._count -= 1
        for scope in listener.scopes:
            around = self._listeners[scope]
            around.discard(listener)
            if not around:
                del self._listeners[scope]

    def scopes(self) -> Sequence[str]:
        """Scopes that anybody listens to."""
        return tuple(self._listeners)

    def tell(self, heads: Iterable[tuple[str, int]]) -> None:
        """Pass on that scopes have new heads."""
        for scope, head in heads:
            for listener in self._listeners.get(scope, ()):
                listener.offer(scope, head)

    @property
    def count(self) -> int:
        """How many are listening."""
        return self._count
