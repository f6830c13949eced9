"""What asyncio does while a portal works for it: it waits, cancels, opens, iterates, listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from atoma.bindings.delivery import Delivery, Telling, open_results
from atoma.bindings.portal import Hold, Pending, Portal
from atoma.errors import ClosedError, WrongLoop
from atoma.ports import loops
from atoma.runtime.observable import OpenLive

if TYPE_CHECKING:
    from reactivex import Observable, abc

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
N = TypeVar("N")

_following: set[asyncio.Task[None]] = set()  # asyncio itself holds no task


def running_loop() -> asyncio.AbstractEventLoop:
    """The asyncio loop that runs the caller.

    Raises:
        WrongLoop: None does.
    """
    if loops.running() != "asyncio":
        raise WrongLoop(f"atoma.bindings.aio needs an asyncio loop, and {loops.here()}; {loops.right_door()}")
    return asyncio.get_running_loop()


class Wait:
    """A wait of a task for something that another thread tells."""

    def __init__(self) -> None:
        self._loop = running_loop()
        self._told = False
        self._future: asyncio.Future[None] | None = None

    def tell(self) -> None:
        """End the wait, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            pass  # the loop is closed, and nobody waits there any more

    def _wake(self) -> None:
        self._told = True
        if self._future is not None and not self._future.done():
            self._future.set_result(None)

    async def until_told(self, pending: Pending[T], *, firmly: bool = False) -> T:
        """The result of ``pending``.

        A cancelled task cancels what it waits for, unless it waits ``firmly``; either way it goes on when that has ended.
        """
        cancelled: asyncio.CancelledError | None = None
        while not self._told:
            self._future = self._loop.create_future()
            try:
                await self._future
            except asyncio.CancelledError as error:
                cancelled = error
                if not firmly:
                    pending.cancel()
            except BaseException:  # the coroutine is thrown away: its loop is gone
                pending.cancel()
                raise
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                cancelled = None  # its traceback holds this frame
        return pending.result()


async def run(portal: Portal, function: Callable[[], Awaitable[T]]) -> T:
    """Await a function of the portal's loop. A cancelled task cancels it there, and goes on when it has ended."""
    wait = Wait()
    return await wait.until_told(portal.start(function, wait.tell))


async def run_sync(portal: Portal, function: Callable[[], T]) -> T:
    """Call a plain function in the portal's loop."""

    async def call() -> T:
        return function()

    return await run(portal, call)


class Lifetime(loops.Lifetime[T_co], Generic[T_co]):
    """Something that is open for as long as an ``async with`` block runs; whatever else is tried with it says so."""

    def check_loop(self) -> None:
        """Return under asyncio; elsewhere raises :class:`WrongLoop`."""
        running_loop()


def nothing(_portal: Portal, _value: None) -> None:
    """Give nothing: what a block lends that is only there to last."""


def held(
    portal: Portal, name: str, make: Callable[[], AbstractAsyncContextManager[N]], wrap: Callable[[Portal, N], T]
) -> Lifetime[T]:
    """A lifetime of the portal's loop as one of asyncio's."""
    return Lifetime(name, _open_held(portal, make, wrap))


@asynccontextmanager
async def _open_held(
    portal: Portal, make: Callable[[], AbstractAsyncContextManager[N]], wrap: Callable[[Portal, N], T]
) -> AsyncGenerator[T]:
    hold = Hold(make)
    try:
        inside = await run(portal, hold.enter)
    except BaseException:  # it may have been opened just when the task was cancelled
        portal.send(hold.leave)
        raise
    error: BaseException | None = None
    try:
        yield wrap(portal, inside)
    except BaseException as raised:
        error = raised
        raise
    finally:
        await _leave(portal, hold, error)


async def _leave(portal: Portal, hold: Hold[N], error: BaseException | None) -> None:
    if isinstance(error, GeneratorExit):  # the coroutine is thrown away, and may not wait
        portal.send(hold.leave)
        return
    wait = Wait()
    try:
        await wait.until_told(portal.start(lambda: hold.leave(error), wait.tell), firmly=True)
    except ClosedError:
        pass  # it was closed together with the client


@asynccontextmanager
async def open_portal(
    what: str, make: Callable[[], AbstractAsyncContextManager[N]], wrap: Callable[[Portal, N], T]
) -> AsyncGenerator[T]:
    """A portal for as long as the block runs, with what ``make`` gives in its loop."""
    loop = running_loop()
    portal = Portal(what, alive=lambda: not loop.is_closed())
    begin = Wait()
    error: BaseException | None = None
    try:
        inside = await begin.until_told(portal.begin(make, begin.tell))
        yield wrap(portal, inside)
    except BaseException as raised:
        error = raised
        raise
    finally:
        if isinstance(error, GeneratorExit):
            portal.end(lambda: None)
        else:
            end = Wait()
            try:
                await end.until_told(portal.end(end.tell), firmly=True)
            finally:
                portal.join()


class Values(AsyncIterator[T]):
    """An iterator of the portal's loop as one of asyncio's."""

    def __init__(self, portal: Portal, inside: AsyncIterator[T]) -> None:
        self._portal = portal
        self._inside = inside

    async def __anext__(self) -> T:
        """The next value; waits for one."""
        return await run(self._portal, lambda: anext(self._inside))


async def listen(
    portal: Portal,
    subscribe: Callable[[Callable[[T], None]], Callable[[], None]],
    listener: Callable[[T], object],
) -> Callable[[], None]:
    """Let ``listener`` be called on the running loop; what is returned stops that at once."""
    loop = running_loop()

    def fetch(empty: Callable[[], None]) -> None:
        try:
            loop.call_soon_threadsafe(empty)
        except RuntimeError:
            pass  # the loop is closed: nobody listens

    delivery = Delivery(listener, fetch)
    undo = await run_sync(portal, lambda: subscribe(delivery))

    def stop() -> None:
        delivery.close()
        portal.send_sync(undo)

    return stop


def observe(portal: Portal, open_live: OpenLive[T]) -> Observable[tuple[T, ...]]:
    """A cold Observable of a live query's whole result; it emits on the loop in which it is subscribed to."""
    return observe_each(portal, lambda: open_results(open_live))


def observe_each(
    portal: Portal, open_values: Callable[[], AbstractAsyncContextManager[AsyncIterator[T]]]
) -> Observable[T]:
    """A cold Observable of what is iterated over in the portal's loop; it emits on the loop in which it is subscribed to."""
    from reactivex import Observable
    from reactivex.disposable import Disposable

    async def follow(observer: abc.ObserverBase[T]) -> None:
        telling, followed = Telling(observer), False
        try:
            async with held(portal, "observe", open_values, Values) as values:
                followed = True
                async for value in values:
                    if not telling.next(value):
                        return
            telling.end(None)
        except Exception as error:
            telling.end(None if followed and isinstance(error, ClosedError) else error)

    def subscribe(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None) -> abc.DisposableBase:
        task = running_loop().create_task(follow(observer))
        _following.add(task)
        task.add_done_callback(_following.discard)
        return Disposable(lambda: _cancel(task))

    return Observable(subscribe)


def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
