"""What code without a loop does while a portal works for it: it waits, gives up, opens, iterates, listens."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Generic, NoReturn, TypeVar

import trio

from atoma.bindings.delivery import Delivery, Telling, open_results
from atoma.bindings.portal import Hold, Pending, Portal
from atoma.errors import ClosedError, WrongLoop
from atoma.ports.loops import InBlock, here, right_door
from atoma.runtime.observable import OpenLive

if TYPE_CHECKING:
    from reactivex import Observable, abc

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
N = TypeVar("N")

END_S = 1.0
"""How long closing waits at most, in seconds, for an observer that is told so."""

_deadline: ContextVar[float] = ContextVar("atoma deadline", default=threading.TIMEOUT_MAX)


@contextmanager
def fail_after(seconds: float) -> Generator[None]:
    """Give the calls of the block at most this many seconds, all of them together; nested blocks only shorten that.

    A call that is not ready by then is cancelled, as a cancel scope of Trio does it, and raises ``TimeoutError``; what it had
    done by then is as the call's documentation says of cancellation. One that has just been carried out returns.
    """
    token = _deadline.set(min(_deadline.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _deadline.reset(token)


class Wait:
    """A wait of a thread for something that another thread tells."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self.tell = self._lock.release

    def until_told(self, pending: Pending[T], *, firmly: bool = False) -> T:
        """The result of ``pending``.

        An interrupt, or the deadline of the thread, cancels what is waited for, unless it is waited for ``firmly``; either way
        it goes on when that has ended. A second interrupt does not wait.

        Raises:
            TimeoutError: The deadline of :func:`fail_after` has passed.
        """
        seconds = -1.0 if firmly else _seconds_left()
        try:
            told = self._lock.acquire(timeout=seconds)
        except BaseException:  # Ctrl-C
            if not firmly:
                pending.cancel()
            self._lock.acquire()
            raise
        if not told:
            pending.cancel()
            self._lock.acquire()
            if pending.cancelled:
                raise TimeoutError("the time of fail_after() is over")
        return pending.result()


def _seconds_left() -> float:
    """How long a lock may be waited for; -1 is for ever."""
    deadline = _deadline.get()
    return -1.0 if deadline == threading.TIMEOUT_MAX else max(0.0, deadline - time.monotonic())


def refuse_trio() -> None:
    """Return where waiting is allowed.

    Raises:
        WrongLoop: A Trio loop runs here, which would stand still.
    """
    if trio.lowlevel.in_trio_run():
        raise WrongLoop(f"atoma.bindings.blocking would stop the loop that calls it, and {here()}; {right_door()}")


def run(portal: Portal, function: Callable[[], Awaitable[T]]) -> T:
    """Wait for a function of the portal's loop."""
    portal.check_thread()
    refuse_trio()
    wait = Wait()
    return wait.until_told(portal.start(function, wait.tell))


def run_sync(portal: Portal, function: Callable[[], T]) -> T:
    """Call a plain function in the portal's loop."""

    async def call() -> T:
        return function()

    return run(portal, call)


class Lifetime(InBlock, AbstractContextManager[T_co, None], Generic[T_co]):
    """Something that is open for as long as a ``with`` block runs; whatever else is tried with it says so."""

    __slots__ = ("_inner",)

    def __init__(self, name: str, inner: AbstractContextManager[T_co, bool | None]) -> None:
        super().__init__(name, "with")
        self._inner = inner

    def __enter__(self) -> T_co:
        """Open it."""
        refuse_trio()
        return self._inner.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._inner.__exit__(kind, error, trace)

    async def __aenter__(self) -> NoReturn:
        self.refuse("is not entered with `async with`")

    async def __aexit__(self, *_: object) -> None:
        """Never reached: entering raises."""


def nothing(_portal: Portal, _value: None) -> None:
    """Give nothing: what a block lends that is only there to last."""


def held(
    portal: Portal, name: str, make: Callable[[], AbstractAsyncContextManager[N]], wrap: Callable[[Portal, N], T]
) -> Lifetime[T]:
    """A lifetime of the portal's loop as one of plain code."""
    return Lifetime(name, _open_held(portal, make, wrap))


@contextmanager
def _open_held(
    portal: Portal, make: Callable[[], AbstractAsyncContextManager[N]], wrap: Callable[[Portal, N], T]
) -> Generator[T]:
    hold = Hold(make)
    try:
        inside = run(portal, hold.enter)
    except BaseException:  # it may have been opened just when it was given up
        portal.send(hold.leave)
        raise
    error: BaseException | None = None
    try:
        yield wrap(portal, inside)
    except BaseException as raised:
        error = raised
        raise
    finally:
        _leave(portal, hold, error)


def _leave(portal: Portal, hold: Hold[N], error: BaseException | None) -> None:
    wait = Wait()
    try:
        wait.until_told(portal.start(lambda: hold.leave(error), wait.tell), firmly=True)
    except ClosedError:
        pass  # it was closed together with the client


@contextmanager
def open_portal(
    what: str, make: Callable[[], AbstractAsyncContextManager[N]], wrap: Callable[[Portal, N], T]
) -> Generator[T]:
    """A portal for as long as the block runs, with what ``make`` gives in its loop."""
    portal = Portal(what)
    begin = Wait()
    try:
        inside = begin.until_told(portal.begin(make, begin.tell))
        yield wrap(portal, inside)
    finally:
        end = Wait()
        try:
            end.until_told(portal.end(end.tell), firmly=True)
        finally:
            portal.join()


class Values(Iterator[T]):
    """An iterator of the portal's loop as one of plain code."""

    def __init__(self, portal: Portal, inside: AsyncIterator[T]) -> None:
        self._portal = portal
        self._inside = inside

    def __next__(self) -> T:
        """The next value; waits for one."""
        try:
            return run(self._portal, lambda: anext(self._inside))
        except StopAsyncIteration:
            raise StopIteration from None


def listen(
    portal: Portal,
    subscribe: Callable[[Callable[[T], None]], Callable[[], None]],
    listener: Callable[[T], object],
) -> Callable[[], None]:
    """Let ``listener`` be called in a thread that is there while there is something to hear; returns what stops that."""
    delivery = Delivery(listener, _in_thread)
    undo = run_sync(portal, lambda: subscribe(delivery))

    def stop() -> None:
        delivery.close()
        portal.send_sync(undo)

    return stop


def _in_thread(function: Callable[[], None]) -> None:
    threading.Thread(target=function, name="atoma: a listener", daemon=True).start()


def observe(portal: Portal, open_live: OpenLive[T]) -> Observable[tuple[T, ...]]:
    """A cold Observable of a live query's whole result; each subscription emits in a thread of its own, one value at a time."""
    return observe_each(portal, lambda: open_results(open_live))


def observe_each(
    portal: Portal, open_values: Callable[[], AbstractAsyncContextManager[AsyncIterator[T]]]
) -> Observable[T]:
    """A cold Observable of what is iterated over in the portal's loop; each subscription emits in a thread of its own."""
    from reactivex import Observable
    from reactivex.disposable import Disposable

    def subscribe(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        following = _Following(open_values, Telling(observer))
        pending = portal.start(following.run, lambda: None)

        def dispose() -> None:
            following.disposed = True
            pending.cancel()

        return Disposable(dispose)

    return Observable(subscribe)


class _Following(Generic[T]):
    """One subscription, in the portal's loop."""

    def __init__(
        self, open_values: Callable[[], AbstractAsyncContextManager[AsyncIterator[T]]], telling: Telling[T]
    ) -> None:
        self._open_values = open_values
        self._telling = telling
        self.disposed = False

    async def run(self) -> None:
        """Tell every value until the end, which is theirs or the client's, an error, or that the observer has gone."""
        # a thread of its own: an observer that takes its time keeps nobody from the database
        thread = trio.CapacityLimiter(1)
        failure: Exception | None = None
        try:
            async with self._open_values() as values:
                async for value in values:
                    wanted = await trio.to_thread.run_sync(
                        self._telling.next, value, abandon_on_cancel=True, limiter=thread
                    )
                    if not wanted:
                        self.disposed = True
                        return
        except trio.Cancelled:
            raise
        except Exception as error:
            failure = error
        finally:
            if not self.disposed:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + END_S):
                    await trio.to_thread.run_sync(self._telling.end, failure, abandon_on_cancel=True, limiter=thread)
