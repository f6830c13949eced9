"""Guards of the event loop: what belongs to one Trio loop says so when it is used from anywhere else.

Trio's own objects cannot tell: waiting on one from another loop fails deep inside, sometimes in the loop that did nothing
wrong. Every public door therefore asks its guard first, which costs one look-up.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import wraps
from types import TracebackType
from typing import Generic, NoReturn, ParamSpec, TypeVar, cast

import trio

from atoma.errors import ClosedError, NotEntered, WrongLoop

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)

REMEDY = (
    "work with it where it was opened; from another thread hand the call over with "
    "trio.from_thread.run(function, trio_token=token)"
)


class LoopGuard:
    """The loop in which something was opened; it is made there.

    Args:
        what: What is guarded, for the errors: ``the client``.

    Raises:
        WrongLoop: No Trio loop runs here.
    """

    __slots__ = ("_closed", "_thread", "_token", "_what")

    def __init__(self, what: str) -> None:
        require_trio(what)
        self._what = what
        self._token = trio.lowlevel.current_trio_token()
        self._thread = threading.current_thread().name
        self._closed = False

    def check(self) -> None:
        """Return at once in the loop of the guard.

        Raises:
            WrongLoop: Another loop runs here, or none.
            ClosedError: What is guarded has been closed.
        """
        try:
            if trio.lowlevel.current_trio_token() is self._token and not self._closed:
                return
        except RuntimeError:
            pass
        self._refuse()

    def check_loop(self) -> None:
        """As :meth:`check`, and what is closed may be used: it waits for nothing any more.

        Raises:
            WrongLoop: Another loop runs here, or none.
        """
        try:
            if trio.lowlevel.current_trio_token() is self._token:
                return
        except RuntimeError:
            pass
        self._refuse()

    def close(self) -> None:
        """Refuse everything from now on."""
        self._closed = True

    def _refuse(self) -> NoReturn:
        if self._closed:
            raise ClosedError(f"{self._what} is closed; its loop has left it")
        raise WrongLoop(f"{self._what} lives in the Trio loop of thread {self._thread!r}, and {_here()}; {REMEDY}")


def require_trio(what: str) -> None:
    """Return where a Trio loop runs.

    Raises:
        WrongLoop: None does.
    """
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        raise WrongLoop(f"{what} needs a Trio loop, and {_here()}; start the program with trio.run(main)") from None


def _here() -> str:
    """What runs in this thread, for a person."""
    thread = threading.current_thread().name
    try:
        trio.lowlevel.current_trio_token()
    except RuntimeError:
        if _asyncio_runs():
            return f"this call comes from an asyncio loop (a notebook runs one too), in thread {thread!r}"
        return f"this call comes from no loop at all, in thread {thread!r}"
    return f"this call comes from another Trio loop, in thread {thread!r}"


def _asyncio_runs() -> bool:
    # asyncio is never imported here: where nobody has loaded it, no loop of it runs
    running = getattr(sys.modules.get("asyncio"), "get_running_loop", None)
    try:
        return running is not None and running() is not None
    except RuntimeError:
        return False


class Lifetime(AbstractAsyncContextManager[T_co], Generic[T_co]):
    """Something that is open for as long as an ``async with`` block runs; made by a function under :func:`lifetime`.

    Whatever else is tried with it says so.
    """

    __slots__ = ("_inner", "_name")

    def __init__(self, name: str, inner: AbstractAsyncContextManager[T_co]) -> None:
        self._name = name
        self._inner = inner

    def __repr__(self) -> str:
        return f"<{self._name}(…), to be entered with `async with`>"

    async def __aenter__(self) -> T_co:
        """Open it.

        Raises:
            WrongLoop: No Trio loop runs here.
        """
        require_trio(f"{self._name}()")
        return await self._inner.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Close it."""
        return await self._inner.__aexit__(kind, error, trace)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):  # asked for by copy, inspect and their like, which take an AttributeError
            raise AttributeError(name)
        self._refuse(f"has no {name!r}")

    def __await__(self) -> NoReturn:
        self._refuse("is not awaited")

    def __aiter__(self) -> NoReturn:
        self._refuse("is not iterated itself")

    def __iter__(self) -> NoReturn:
        self._refuse("is not iterated")

    def __enter__(self) -> NoReturn:
        self._refuse("is not entered with a plain `with`")

    def __exit__(self, *_: object) -> None:
        """Never reached: entering raises."""

    def _refuse(self, what: str) -> NoReturn:
        raise NotEntered(f"{self._name}(…) {what}: write `async with {self._name}(…) as it:` and use `it` in the block")


def lifetime(function: Callable[P, AsyncGenerator[T_co]]) -> Callable[P, Lifetime[T_co]]:
    """Make a generator function a door like ``contextlib.asynccontextmanager``, whose misuse is explained."""
    manager = asynccontextmanager(function)
    name = function.__name__

    @wraps(function)
    def open_lifetime(*args: P.args, **kwargs: P.kwargs) -> Lifetime[T_co]:
        return Lifetime(name, cast("AbstractAsyncContextManager[T_co]", manager(*args, **kwargs)))

    return open_lifetime
