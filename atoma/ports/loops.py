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
from typing import Generic, Literal, NoReturn, ParamSpec, TypeVar, cast

import trio

from atoma.errors import ClosedError, NotEntered, WrongLoop

P = ParamSpec("P")
T_co = TypeVar("T_co", covariant=True)


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
        raise WrongLoop(
            f"{self._what} lives in the Trio loop of thread {self._thread!r}, and {here()}; work with it where it was "
            f"opened, or hand the call over with trio.from_thread.run(function, trio_token=token); {right_door()}"
        )


def require_trio(what: str) -> None:
    """Return where a Trio loop runs.

    Raises:
        WrongLoop: None does.
    """
    if running() != "trio":
        raise WrongLoop(
            f"{what} needs a Trio loop, and {here()}; start the program with trio.run(main); {right_door()}"
        )


def running() -> Literal["trio", "asyncio", ""]:
    """Whose loop runs the caller, ``""`` for none.

    A thread may have both: Trio as a guest of asyncio, or under a library that leaves its asyncio loop marked as running.
    """
    if trio.lowlevel.in_trio_task():
        return "trio"
    if _asyncio_runs():
        return "asyncio"
    return "trio" if trio.lowlevel.in_trio_run() else ""


def here() -> str:
    """What runs in this thread, for a person."""
    match running():
        case "trio":
            caller = "another Trio loop"
        case "asyncio":
            caller = "an asyncio loop (a notebook runs one too)"
        case _:
            caller = "no loop at all"
    return f"this call comes from {caller}, in thread {threading.current_thread().name!r}"


def right_door() -> str:
    """What opens a client for what runs in this thread, for a person."""
    match running():
        case "trio":
            return "for this loop there is atoma.open_client"
        case "asyncio":
            return "for asyncio there is atoma.bindings.aio.open_client"
        case _:
            return "for code without a loop there is atoma.bindings.blocking.open_client"


def _asyncio_runs() -> bool:
    # asyncio is never imported here: where nobody has loaded it, no loop of it runs
    ask = getattr(sys.modules.get("asyncio"), "get_running_loop", None)
    try:
        return ask is not None and ask() is not None
    except RuntimeError:
        return False


class InBlock:
    """Something that is used in a block of its own; whatever else is tried with it says so.

    Args:
        name: What makes it.
        statement: Begins the block: ``async with`` or ``with``.
    """

    __slots__ = ("_name", "_statement")

    def __init__(self, name: str, statement: str) -> None:
        self._name = name
        self._statement = statement

    def __repr__(self) -> str:
        return f"<{self._name}(…), to be entered with `{self._statement}`>"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # asked for by copy, inspect and their like, which take an AttributeError
            raise AttributeError(name)
        self.refuse(f"has no {name!r}")

    def __await__(self) -> NoReturn:
        self.refuse("is not awaited")

    def __aiter__(self) -> NoReturn:
        self.refuse("is not iterated itself")

    def __iter__(self) -> NoReturn:
        self.refuse("is not iterated")

    def refuse(self, what: str) -> NoReturn:
        """Say how it is used.

        Raises:
            NotEntered: Always.
        """
        name, statement = self._name, self._statement
        raise NotEntered(f"{name}(…) {what}: write `{statement} {name}(…) as it:` and use `it` in the block")


class Lifetime(InBlock, AbstractAsyncContextManager[T_co], Generic[T_co]):
    """Something that is open for as long as an ``async with`` block runs; made by a function under :func:`lifetime`."""

    __slots__ = ("_inner",)

    def __init__(self, name: str, inner: AbstractAsyncContextManager[T_co]) -> None:
        super().__init__(name, "async with")
        self._inner = inner

    async def __aenter__(self) -> T_co:
        """Open it.

        Raises:
            WrongLoop: No Trio loop runs here.
        """
        self.check_loop()
        return await self._inner.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        """Close it."""
        return await self._inner.__aexit__(kind, error, trace)

    def __enter__(self) -> NoReturn:
        self.refuse("is not entered with a plain `with`")

    def __exit__(self, *_: object) -> None:
        """Never reached: entering raises."""

    def check_loop(self) -> None:
        """Return where it can be opened.

        Raises:
            WrongLoop: That is not here.
        """
        require_trio(f"{self._name}()")


def lifetime(function: Callable[P, AsyncGenerator[T_co]]) -> Callable[P, Lifetime[T_co]]:
    """Make a generator function a door like ``contextlib.asynccontextmanager``, whose misuse is explained."""
    manager = asynccontextmanager(function)
    name = function.__name__

    @wraps(function)
    def open_lifetime(*args: P.args, **kwargs: P.kwargs) -> Lifetime[T_co]:
        return Lifetime(name, cast("AbstractAsyncContextManager[T_co]", manager(*args, **kwargs)))

    return open_lifetime
