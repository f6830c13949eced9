"""A Trio loop in a thread of its own, with one lifetime open in it, and the way for calls into it and back.

It knows no host: whoever makes a call says how it wants to be notified that the call has ended. So asyncio and blocking code
share it.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from contextvars import Context, copy_context
from typing import Generic, TypeVar, cast

import trio

from atoma.errors import ClosedError, WrongLoop

T = TypeVar("T")

HOST_CHECK_S = 1.0
"""How often, in seconds, a portal looks whether its host is still there."""
EXIT_S = 5.0
"""How long the end of the program waits at most, in seconds, for a client that nobody has closed."""


class Pending(Generic[T]):
    """An answer that a loop was asked for and has not given yet.

    Args:
        tell: Called once, in the loop's thread, when it has come to its end; must not raise.

    Attributes:
        cancelled: Whether its end was a cancellation.
        cancel: Asks for its end, from any thread; the caller is notified as always.
    """

    __slots__ = ("_error", "_tell", "_value", "cancel", "cancelled")

    def __init__(self, tell: Callable[[], None]) -> None:
        self.cancelled = False
        self.cancel: Callable[[], None] = _nothing
        self._tell = tell
        self._value: T | None = None
        self._error: BaseException | None = None

    def settle(self, value: T | None = None, error: BaseException | None = None, *, cancelled: bool = False) -> None:
        """Take the outcome and notify the caller."""
        self._value, self._error, self.cancelled = value, error, cancelled
        self._tell()

    def result(self) -> T:
        """The value; raises the error instead, if there is one. Ask once, when notified."""
        error, self._error = self._error, None  # its traceback will hold this frame
        if error is not None:
            try:
                raise error
            finally:
                del error
        return cast("T", self._value)


def _nothing() -> None:
    pass


class _Loop:
    """The thread's side of a portal: what must not keep the portal alive."""

    def __init__(self, what: str, alive: Callable[[], bool] | None) -> None:
        self.what = what
        self._alive = alive
        self._pid = os.getpid()
        self._calls: trio.Nursery | None = None
        self._stopped = False
        self._running = threading.Event()
        self._lock = threading.Lock()  # of the three below
        self._ends: list[Pending[None]] = []
        self._over = False
        self._failure: BaseException | None = None
        self.thread: threading.Thread | None = None

    # from any thread

    def begin(self, make: Callable[[], AbstractAsyncContextManager[T]], begun: Pending[T]) -> None:
        """Start the thread; ``begun`` is notified when the lifetime is open, or why it is not."""
        begun.cancel = self.stop
        self.thread = threading.Thread(target=self._run, args=(make, begun), name=f"atoma: {self.what}", daemon=True)
        self.thread.start()

    def soon(self, function: Callable[..., object], *args: object) -> None:
        """Call a function in the loop; raises as :meth:`Portal.start` does."""
        if os.getpid() != self._pid:
            raise WrongLoop(f"{self.what} was opened before this process was forked: open one after the fork")
        self._running.wait()
        try:
            self._token.run_sync_soon(function, *args)
        except trio.RunFinishedError:
            raise ClosedError(f"{self.what} is closed") from None

    def stop(self) -> None:
        """Cancel the calls under way and close the lifetime; returns at once."""
        _quietly(self.soon, self._stop_now)

    def tell_end(self, end: Pending[None]) -> None:
        """Notify ``end`` when the thread has nothing left to do; at once, when it has nothing now."""
        with self._lock:
            if not self._over and os.getpid() == self._pid:
                self._ends.append(end)
                return
            failure, self._failure = self._failure, None
        end.settle(error=failure)

    # in the thread

    def _run(self, make: Callable[[], AbstractAsyncContextManager[T]], begun: Pending[T]) -> None:
        failure: BaseException | None = None
        try:
            trio.run(self._serve, make, begun)
        except BaseException as error:
            failure = error
        if self._calls is None:
            begun.settle(error=failure, cancelled=failure is None)
            failure = None
        with self._lock:
            self._over = True
            self._failure = None if self._ends else failure  # whoever ends it first is notified
        for end in self._ends:
            end.settle(error=failure)
            failure = None

    async def _serve(self, make: Callable[[], AbstractAsyncContextManager[T]], begun: Pending[T]) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._halt = trio.Event()
        self._opening = trio.CancelScope()
        self._running.set()
        with self._opening:
            async with make() as value, trio.open_nursery() as self._calls:
                begun.settle(value)
                if self._alive is not None:
                    self._calls.start_soon(self._watch, self._alive)
                try:
                    await self._halt.wait()
                finally:  # cancelled when the lifetime fails
                    self._stopped = True
                self._calls.cancel_scope.cancel()

    async def _watch(self, alive: Callable[[], bool]) -> None:
        while alive():  # noqa: ASYNC110
            await trio.sleep(HOST_CHECK_S)  # a loop that is closed notifies nobody
        self._stop_now()

    def _stop_now(self) -> None:
        self._stopped = True
        if self._calls is None:
            self._opening.cancel()
        else:
            self._halt.set()

    def start_call(
        self,
        function: Callable[[], Awaitable[T]],
        pending: Pending[T],
        scope: trio.CancelScope,
        context: Context,
    ) -> None:
        """Carry a call out; one that comes too late fails at once."""
        if self._calls is None or self._stopped:
            pending.settle(error=ClosedError(f"{self.what} is closed"))
        else:
            context.run(self._calls.start_soon, self._carry_out, function, pending, scope)

    async def _carry_out(
        self, function: Callable[[], Awaitable[T]], pending: Pending[T], scope: trio.CancelScope
    ) -> None:
        value: T | None = None
        error: BaseException | None = None
        try:
            with scope:
                try:
                    value = await function()
                except trio.Cancelled:
                    raise
                except BaseException as raised:  # an interrupt as well: it is the caller's
                    error = raised
        except trio.Cancelled:
            pending.settle(error=ClosedError(f"{self.what} was closed while a call was under way"))
            raise
        pending.settle(value, error, cancelled=scope.cancelled_caught)


def _quietly(function: Callable[..., object], *args: object) -> None:
    """Call a function for a loop that may have ended."""
    try:
        function(*args)
    except (ClosedError, WrongLoop):
        pass


def _forsake(loop: _Loop) -> None:
    """Close what nobody can close any more; at the end of the program, wait for it."""
    loop.stop()
    if loop.thread is not None and not threading.main_thread().is_alive():
        loop.thread.join(EXIT_S)


class Portal:
    """The way into a Trio loop that runs in a thread of its own and keeps one lifetime open there.

    Whoever holds the portal keeps the lifetime open. When nobody does, it is closed and the thread ends; so they do at the
    end of the program, which waits a bounded time for them.

    Args:
        what: What is open, for errors: ``the client``.
        alive: Whether the host is still there; when it is not, the lifetime is closed. None: the host cannot be lost.
    """

    __slots__ = ("__weakref__", "_loop")

    def __init__(self, what: str, alive: Callable[[], bool] | None = None) -> None:
        self._loop = _Loop(what, alive)

    def begin(self, make: Callable[[], AbstractAsyncContextManager[T]], tell: Callable[[], None]) -> Pending[T]:
        """Start the thread and open the lifetime there; the result is what it gives. Called once."""
        pending: Pending[T] = Pending(tell)
        weakref.finalize(self, _forsake, self._loop)
        self._loop.begin(make, pending)
        return pending

    def end(self, tell: Callable[[], None]) -> Pending[None]:
        """Refuse further calls, cancel those under way, close the lifetime, end the loop; again, it does nothing.

        The result raises what closing has raised.
        """
        pending: Pending[None] = Pending(tell)
        self._loop.tell_end(pending)
        self._loop.stop()
        return pending

    def join(self) -> None:
        """Wait for the thread, which has been told to end."""
        thread = self._loop.thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def start(self, function: Callable[[], Awaitable[T]], tell: Callable[[], None]) -> Pending[T]:
        """Call a function in the loop, with the caller's context variables.

        Raises:
            ClosedError: The loop has ended. A call that is under way while it ends has this as its result.
            WrongLoop: The loop belongs to another process, or the call comes from the loop's own thread.
        """
        self.check_thread()
        loop = self._loop
        pending: Pending[T] = Pending(tell)
        scope = trio.CancelScope()
        loop.soon(loop.start_call, function, pending, scope, copy_context())
        pending.cancel = lambda: _quietly(loop.soon, scope.cancel)
        return pending

    def check_thread(self) -> None:
        """Return where the loop may be waited for.

        Raises:
            WrongLoop: This is the loop's own thread.
        """
        if self._loop.thread is threading.current_thread():
            raise WrongLoop(
                f"{self._loop.what} was called from its own thread, which cannot wait for itself: a function that is passed "
                "to update() calls nothing but what it is given"
            )

    def send(self, function: Callable[[], Awaitable[object]]) -> None:
        """As :meth:`start`, for what nobody waits for; in a loop that has ended it is not called."""
        _quietly(self.start, function, _nothing)

    def send_sync(self, function: Callable[[], object]) -> None:
        """Call a plain function in the loop and do not wait; in a loop that has ended it is not called."""
        _quietly(self._loop.soon, function)


class Hold(Generic[T]):
    """A lifetime that a task of the loop keeps open from :meth:`enter` to :meth:`leave`, which are calls of their own.

    Args:
        make: Makes the lifetime, in the loop.
    """

    def __init__(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._make = make
        self._entered = False
        self._body: BaseException | None = None
        self._failure: BaseException | None = None

    async def enter(self) -> T:
        """Open it; an error of opening is raised here."""
        task = trio.lowlevel.current_task().parent_nursery
        assert task is not None, "a call runs in the nursery of its portal"
        self._left, self._over = trio.Event(), trio.Event()
        self._entered = True
        return cast("T", await task.start(self._keep))

    async def leave(self, error: BaseException | None = None) -> None:
        """Close it as if its block had ended with ``error``; raises what closing raises. Harmless when it is not open."""
        if not self._entered:
            return
        self._body = error
        self._left.set()
        await self._over.wait()
        if self._failure is not None:
            raise self._failure

    async def _keep(self, *, task_status: trio.TaskStatus[T]) -> None:
        opened = False
        try:
            async with self._make() as value:
                opened = True
                task_status.started(value)
                await self._left.wait()
                if self._body is not None:
                    raise self._body
        except trio.Cancelled:
            raise
        except BaseException as error:
            if not opened:
                raise
            self._failure = None if error is self._body else error
        finally:
            self._over.set()
