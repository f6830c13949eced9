"""Live queries as reactivex Observables, and Observables as Trio channels.

reactivex is loaded when the first Observable is made, so that programs without one do not pay for it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Generic, Literal, TypeAlias, TypeVar

import trio

from atoma.errors import ClosedError, ConfigurationError, Overloaded
from atoma.ports.live import LiveBatch, apply_batch
from atoma.ports.loops import LoopGuard, lifetime

if TYPE_CHECKING:
    from reactivex import Observable, abc
else:

    def __getattr__(name: str) -> object:
        if name == "Observable":
            from reactivex import Observable

            return Observable
        raise AttributeError(name)


log = logging.getLogger("atoma.rx")

T = TypeVar("T")
V = TypeVar("V")
OpenLive: TypeAlias = Callable[[], AbstractAsyncContextManager[AsyncIterator[LiveBatch[T]]]]
"""Opens one subscription to a live query."""
Emit: TypeAlias = Callable[[V], None]
Produce: TypeAlias = Callable[[Emit[V]], Awaitable[None]]
Overflow: TypeAlias = Literal["error", "drop_new", "drop_old", "latest"]
"""What to do with a value when the buffer is full: end with an error, or lose the new, the oldest, all but the last."""

CHANNEL_BUFFER = 64


def observe_live(open_live: OpenLive[T], nursery: trio.Nursery, guard: LoopGuard) -> Observable[tuple[T, ...]]:
    """A cold Observable of the whole result: once at first, then again after each step that changed it.

    Each ``subscribe`` opens a live query of its own in a task of ``nursery``; disposing it cancels that task. Rows that
    did not change are the same objects in the next value. A slow observer makes the live query skip steps, not grow.

    It completes when ``nursery`` is cancelled (the client closes). An error of the live query goes to ``on_error``; so
    does the ``ClosedError`` of a subscription that comes too late.
    An observer that raises is logged and loses its subscription; nobody else notices.
    """

    async def produce(emit: Emit[tuple[T, ...]]) -> None:
        rows: tuple[T, ...] = ()
        async with open_live() as batches:
            async for batch in batches:
                if batch.changes:  # where it has none, only the completeness of the result is another one
                    rows = apply_batch(rows, batch)
                    emit(rows)

    return observable(produce, nursery, guard)


def observe_batches(open_live: OpenLive[T], nursery: trio.Nursery, guard: LoopGuard) -> Observable[LiveBatch[T]]:
    """A cold Observable of the batches themselves; the first one is a ``Reset``. Otherwise as :func:`observe_live`."""

    async def produce(emit: Emit[LiveBatch[T]]) -> None:
        async with open_live() as batches:
            async for batch in batches:
                emit(batch)

    return observable(produce, nursery, guard)


class _Feed(Generic[V]):
    """One subscription: tells the observer what a task produces, and at most one end."""

    def __init__(self, observer: abc.ObserverBase[V]) -> None:
        self._observer = observer
        self._ended = False
        self.scope = trio.CancelScope()

    async def run(self, produce: Produce[V]) -> None:
        """Produce until the end, an error or :meth:`dispose`."""
        completed = False
        try:
            with self.scope:
                await produce(self._emit)
                completed = True
        except Exception as error:
            self.end(error)
        except BaseException:
            self.end(None)  # not disposed but the nursery is cancelled: told nothing, an observer would wait for ever
            raise
        else:
            if completed:
                self.end(None)

    def dispose(self) -> None:
        """Stop; the observer receives nothing more."""
        self._ended = True
        self.scope.cancel()

    def end(self, error: Exception | None) -> None:
        """Tell the end, once."""
        if self._ended:
            return
        self._ended = True
        try:
            if error is None:
                self._observer.on_completed()
            else:
                self._observer.on_error(error)
        except Exception:
            log.exception("an observer of a live query failed while it was told the end")

    def _emit(self, value: V) -> None:
        if self._ended:
            return
        try:
            self._observer.on_next(value)
        except Exception:
            log.exception("an observer of a live query failed and was unsubscribed")
            self.dispose()


def observable(produce: Produce[V], nursery: trio.Nursery, guard: LoopGuard) -> Observable[V]:
    """A cold Observable of what ``produce`` emits, in a task of ``nursery`` per subscription; see :func:`observe_live`."""
    from reactivex import Observable
    from reactivex.disposable import Disposable

    def subscribe(observer: abc.ObserverBase[V], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        guard.check()  # reactivex hands what is raised here to ``on_error``
        feed = _Feed(observer)
        try:
            nursery.start_soon(feed.run, produce)
        except RuntimeError as error:
            raise ClosedError("the client is closed; nothing can be observed any more") from error
        return Disposable(feed.dispose)

    return Observable(subscribe)


class ObservableChannel(Generic[T]):
    """The values of an Observable, to be read with ``async for``; made by :func:`to_channel`.

    Attributes:
        dropped: Values lost because the reader was slow.
    """

    def __init__(self, overflow: Overflow, buffer: int, subscription: abc.DisposableBase) -> None:
        self.dropped = 0
        self._overflow = overflow
        self._size = 1 if overflow == "latest" else buffer
        self._subscription = subscription
        self._values: deque[T] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._token = trio.lowlevel.current_trio_token()
        self._readers = trio.lowlevel.ParkingLot()

    def __aiter__(self) -> ObservableChannel[T]:
        """The iterator is its own."""
        return self

    async def __anext__(self) -> T:
        """The next value; waits for one. A cancelled wait loses nothing.

        Raises:
            Overloaded: The buffer was full and ``overflow`` is ``"error"``; what was in it has been read.
            Exception: What the Observable ended with.
        """
        await trio.lowlevel.checkpoint()
        while not self._values:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            await self._readers.park()
        return self._values.popleft()

    def on_next(self, value: T) -> None:
        """Take a value from the Observable."""
        if not trio.lowlevel.in_trio_run():
            self._token.run_sync_soon(self.end, _foreign_thread())
            raise _foreign_thread()
        if self._ended:
            return
        if len(self._values) >= self._size:
            if self._overflow == "error":
                self.end(Overloaded("the buffer between an Observable and its channel", self._size))
                self._subscription.dispose()
                return
            self.dropped += 1
            if self._overflow == "drop_new":
                return
            self._values.popleft()
        self._values.append(value)
        self._readers.unpark()

    def end(self, error: Exception | None = None) -> None:
        """The Observable ended, or the channel is left; the first end counts."""
        if not self._ended:
            self._ended = True
            self._error = error
        self._readers.unpark_all()


def _foreign_thread() -> ConfigurationError:
    return ConfigurationError("an Observable emitted in another thread: give its time operators the TrioScheduler")


@lifetime
async def to_channel(
    observable: Observable[T],
    *,
    overflow: Overflow = "error",
    buffer: int = CHANNEL_BUFFER,
    scheduler: abc.SchedulerBase | None = None,
) -> AsyncGenerator[ObservableChannel[T]]:
    """Read an Observable with ``async for``; leaving the block, or cancelling it, unsubscribes.

    Args:
        observable: What to read; it has to emit on the loop's thread.
        overflow: What happens to a value that comes while the buffer is full.
        buffer: Values held for the reader, at least 1 (``latest`` holds one).
        scheduler: Default scheduler of its operators; see :class:`atoma.runtime.rx_scheduler.TrioScheduler`.

    Raises:
        ConfigurationError: The buffer is too small.
    """
    from reactivex.disposable import SingleAssignmentDisposable

    if buffer < 1:
        raise ConfigurationError(f"the buffer of a channel holds 1 value or more, not {buffer}")
    subscription = SingleAssignmentDisposable()
    channel: ObservableChannel[T] = ObservableChannel(overflow, buffer, subscription)
    await trio.lowlevel.checkpoint()
    subscription.disposable = observable.subscribe(channel.on_next, channel.end, channel.end, scheduler=scheduler)
    try:
        yield channel
    finally:
        subscription.dispose()
        channel.end(ClosedError("this channel was left; make a new one"))
