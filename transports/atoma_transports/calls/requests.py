"""Reading requests: within bounds of size and content, and never two large ones of a principal at a time.

Decoding cannot be interrupted. So the contents of a large request are counted first, in steps between which other tasks run,
and the time that one step takes of the loop is bounded, whatever was sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Protocol, TypeVar

import msgspec
import trio

from atoma.contracts.codec import decode
from atoma.contracts.survey import CONTAINERS_MAX, UNCOUNTED_BYTES, VALUES_MAX, Survey
from atoma.errors import RemoteError
from atoma_transports.calls.fairness import DECODING_S_MAX, Share
from atoma_transports.calls.limits import ChannelLimits
from atoma_transports.calls.methods import Method

S = TypeVar("S", bound=msgspec.Struct)
R = TypeVar("R")


class WireFormat(Protocol):
    """A format in which requests are encoded."""

    @property
    def growth(self) -> float:
        """The maximum number of bytes for one byte of a row's content."""
        ...

    def decode(self, data: bytes, kind: type[S]) -> S:
        """Decode the request; raises ``ProtocolError``."""
        ...

    def decode_in_steps(self, data: bytes, kind: type[S]) -> Generator[None, None, S]:
        """Decode the request unless there is too much in it; others may run between two steps.

        Raises:
            RemoteError: ``TOO_LARGE``: there is too much in it.
            ProtocolError: It is malformed.
        """
        ...


class MessagePack:
    """Requests in MessagePack."""

    growth = 1.0

    def decode(self, data: bytes, kind: type[S]) -> S:
        """See :class:`WireFormat`."""
        return decode(data, kind)

    def decode_in_steps(self, data: bytes, kind: type[S]) -> Generator[None, None, S]:
        """See :class:`WireFormat`."""
        yield from count_values(data)
        return decode(data, kind)


MESSAGEPACK = MessagePack()


def count_values(data: bytes) -> Generator[None]:
    """Check, in steps, that MessagePack holds no more than one request may.

    Raises:
        RemoteError: ``TOO_LARGE``: it holds more.
    """
    survey = Survey()
    yield from survey.turns(data)
    check_survey(survey)


def check_survey(survey: Survey) -> None:
    """Check that no more was found than one request may hold.

    Raises:
        RemoteError: ``TOO_LARGE``: there was more.
    """
    if survey.too_many:
        raise too_much(f"at most {VALUES_MAX:,} values, {CONTAINERS_MAX:,} of them lists and maps")


def too_much(bound: str) -> RemoteError:
    """Return the refusal of a request that holds too much."""
    return RemoteError(f"a request may hold {bound}: send it in parts", remote_code="TOO_LARGE")


def size_max(served: Method, limits: ChannelLimits, form: WireFormat) -> int:
    """Return the maximum size of a request for ``served``, in bytes."""
    return rows_size_max(limits, form) if served.carries_rows else min(limits.frame_bytes, limits.query_bytes)


def rows_size_max(limits: ChannelLimits, form: WireFormat) -> int:
    """Return the maximum size of a request with rows, in bytes."""
    return min(limits.frame_bytes, int(limits.write_bytes * form.growth))


def check_size(size: int, most: int) -> None:
    """Check that a request of ``size`` bytes may be read.

    Raises:
        RemoteError: ``TOO_LARGE``: it is larger than ``most``.
    """
    if size > most:
        raise RemoteError(f"a request of this kind may have at most {most} bytes, not {size}", remote_code="TOO_LARGE")


async def read_request(data: bytes, kind: type[S], form: WireFormat, share: Share) -> S:
    """Decode ``data``; a large request is read under the permit of ``share``, which counts the time for it.

    This is not a checkpoint for a small request.

    Raises:
        RemoteError: ``TOO_LARGE``: there is too much in it.
        ProtocolError: It is malformed.
    """
    if len(data) <= UNCOUNTED_BYTES:
        return form.decode(data, kind)
    return await in_turns(form.decode_in_steps(data, kind), share)


async def in_turns(steps: Generator[None, None, R], share: Share) -> R:
    """Return the result of ``steps``; other tasks run before, between and after them, and ``share`` counts the time."""
    async with share.permit:
        done: list[R] = []
        while not done:
            await trio.lowlevel.checkpoint()
            began = trio.current_time()
            try:
                step(steps, done)
            finally:
                share.took(began, DECODING_S_MAX)
        await trio.lowlevel.checkpoint()
    return done[0]


def at_once(steps: Generator[None, None, R]) -> R:
    """Return the result of ``steps`` for a small request, without a pause."""
    done: list[R] = []
    while not done:
        step(steps, done)
    return done[0]


def step(steps: Generator[None, None, R], done: list[R]) -> None:
    """Run one of ``steps``, and append their result to ``done`` after the last one."""
    try:
        next(steps)
    except StopIteration as stop:
        done.append(stop.value)


class HeldAnswers:
    """Room for answers that have been made and not yet sent.

    A call takes a few bytes and its answer may take megabytes: a caller that requests a lot and reads nothing would
    make the server keep all of it. The answer to a *read* that finds no room, here or in the memory of the principal, is
    dropped and made again once there is room. Other answers are counted and never dropped, as they are about as small
    as their requests.

    Args:
        bytes_max: Maximum number of bytes that wait to be sent; a single answer may have more.
        share: The share of the connection.
    """

    def __init__(self, bytes_max: int, share: Share) -> None:
        self._max = bytes_max
        self._share = share
        self._bytes = 0
        self._room = trio.lowlevel.ParkingLot()

    async def take(self, make: Callable[[], Awaitable[bytes]], *, reads: bool) -> bytes:
        """Return the answer of ``make``, counted until :meth:`give`; with ``reads`` it may be called more than once."""
        size = 1
        while True:
            if reads and self._bytes >= self._max:
                await self._room.park()
            elif not reads or self._share.fits(size):
                data = await self._made(make)
                if not reads or self._fits(data):
                    return self._taken(data)
                size = len(data)
                del data
                if self._share.fits(size):
                    await self._room.park()
            else:
                async with self._share.make_answer(size):
                    data = await self._made(make)
                    if self._fits(data):
                        return self._taken(data)
                    size = len(data)
                    del data

    def give(self, size: int) -> None:
        """Stop counting an answer of ``size`` bytes, which was sent or will not be."""
        self._bytes -= size
        self._share.hold(answers=-size)
        self._tell()

    def _fits(self, data: bytes) -> bool:
        return (not self._bytes or self._bytes + len(data) <= self._max) and self._share.fits(len(data))

    def _taken(self, data: bytes) -> bytes:
        self._bytes += len(data)
        self._share.hold(answers=len(data))
        self._tell()
        return data

    async def _made(self, make: Callable[[], Awaitable[bytes]]) -> bytes:
        try:
            return await make()
        except BaseException:
            self._tell()  # the room is free for somebody else now
            raise

    def _tell(self) -> None:
        if self._bytes < self._max:
            self._room.unpark()
