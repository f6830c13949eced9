"""How requests are read: within bounds of size and of content, and never two large ones of a principal at a time.

Decoding cannot be interrupted. So what is in a large request is counted first, in steps between which other tasks run, and
what one step takes of the loop is bounded, whatever was sent.
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
    """The way in which requests are written."""

    @property
    def growth(self) -> float:
        """How many bytes one byte of a row's content may take."""
        ...

    def decode(self, data: bytes, kind: type[S]) -> S:
        """The request; raises ``ProtocolError``."""
        ...

    def decode_in_steps(self, data: bytes, kind: type[S]) -> Generator[None, None, S]:
        """The request, unless there is too much in it; others may run between two steps.

        Raises:
            RemoteError: ``TOO_LARGE``.
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
    """See, in steps, that MessagePack holds no more than one request may.

    Raises:
        RemoteError: ``TOO_LARGE``: it does.
    """
    survey = Survey()
    yield from survey.turns(data)
    check_survey(survey)


def check_survey(survey: Survey) -> None:
    """See that no more was found than one request may hold.

    Raises:
        RemoteError: ``TOO_LARGE``: there was.
    """
    if survey.too_many:
        raise too_much(f"at most {VALUES_MAX:,} values, {CONTAINERS_MAX:,} of them lists and maps")


def too_much(bound: str) -> RemoteError:
    """The refusal of a request that holds too much."""
    return RemoteError(f"a request may hold {bound}: send it in parts", remote_code="TOO_LARGE")


def size_max(served: Method, limits: ChannelLimits, form: WireFormat) -> int:
    """Bytes that a request for ``served`` may have."""
    return rows_size_max(limits, form) if served.carries_rows else min(limits.frame_bytes, limits.query_bytes)


def rows_size_max(limits: ChannelLimits, form: WireFormat) -> int:
    """Bytes that a request with rows may have."""
    return min(limits.frame_bytes, int(limits.write_bytes * form.growth))


def check_size(size: int, most: int) -> None:
    """See that a request of ``size`` bytes may be read.

    Raises:
        RemoteError: ``TOO_LARGE``: it may not.
    """
    if size > most:
        raise RemoteError(f"a request of this kind may have at most {most} bytes, not {size}", remote_code="TOO_LARGE")


async def read_request(data: bytes, kind: type[S], form: WireFormat, share: Share) -> S:
    """The ``kind`` that ``data`` is; a large one is read under the permit of ``share``, which counts what that takes.

    No checkpoint for a small one.

    Raises:
        RemoteError: ``TOO_LARGE``: there is too much in it.
        ProtocolError: It is malformed.
    """
    if len(data) <= UNCOUNTED_BYTES:
        return form.decode(data, kind)
    return await in_turns(form.decode_in_steps(data, kind), share)


async def in_turns(steps: Generator[None, None, R], share: Share) -> R:
    """What ``steps`` return; other tasks run before, between and after them, and ``share`` counts their seconds."""
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
    """What ``steps`` return, of a small request."""
    done: list[R] = []
    while not done:
        step(steps, done)
    return done[0]


def step(steps: Generator[None, None, R], done: list[R]) -> None:
    """One of ``steps``; what they return is put into ``done``."""
    try:
        next(steps)
    except StopIteration as stop:
        done.append(stop.value)


class HeldAnswers:
    """Room for answers that are made and not sent yet.

    A call takes a few bytes and its answer may have megabytes: a caller who asks for much and reads nothing would
    have all of it kept here. The answer of a *read* that finds no room, here or in the memory of the principal, is dropped,
    and made again once there is. Other answers are counted and never dropped; they are about as small as their requests.

    Args:
        bytes_max: Bytes that may wait; a single answer may have more.
        share: What the connection may hold.
    """

    def __init__(self, bytes_max: int, share: Share) -> None:
        self._max = bytes_max
        self._share = share
        self._bytes = 0
        self._room = trio.lowlevel.ParkingLot()

    async def take(self, make: Callable[[], Awaitable[bytes]], *, reads: bool) -> bytes:
        """What ``make`` returns, counted until :meth:`give`; ``reads`` says that it may be called more than once."""
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
        """An answer of ``size`` bytes was sent, or will not be."""
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
            self._tell()  # the room that was found is somebody else's now
            raise

    def _tell(self) -> None:
        if self._bytes < self._max:
            self._room.unpark()
