"""Connections that have come to a port and are not served yet: whoever has asked for something comes first.

The system's line is first come, first served, and as long as the system allows. It is emptied quickly, so that whoever comes
waits for few of those in front: a connection for which there is no place gets no task, and costs a look at what it
has sent, a word, and a close. What one pass of the loop does is bounded by numbers.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import trio

from atoma_transports.serving.crowds import Crowds
from atoma_transports.serving.head import LONG_HEAD_BYTES, RECEIVE_BYTES, asks_for_something, overload_of
from atoma_transports.serving.places import share_of

logger = logging.getLogger("atoma.transports")

ACCEPTS = 64
"""Connections that are taken in a pass of the loop while there is no place for them; two milliseconds with their refusal."""
STARTS = 8
"""Those that begin to be served in a pass; no more are taken while each finds a place."""
SWAPS = 4
"""The same when for each of them another one has to go; of those that ask for nothing, one does."""
ASKING_MAX = 64
"""Connections with a request that may wait; as long as they do, the system keeps what comes."""
SILENT_MAX = 500
"""Those without one; of more than that, one has to go."""
PAUSE_S = 0.1
"""How long nothing is taken when the system has no room for another connection."""

NO_ROOM = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS))
NO_LISTENER = frozenset((errno.EBADF, errno.EINVAL, errno.ENOTSOCK, errno.EOPNOTSUPP))


class HasPlaces(Protocol):
    """Whoever knows whether there are places left."""

    @property
    def full(self) -> bool:
        """Whether one more means that another one has to go."""
        ...


class Arrival:
    """A connection that has been taken from the system.

    Attributes:
        socket: It.
        address: Whom it comes from.
        share: What the address is counted as.
    """

    __slots__ = ("address", "share", "socket")

    def __init__(self, socket: socket.socket, address: str) -> None:
        socket.setblocking(False)
        self.socket = socket
        self.address = address
        self.share = share_of(address)

    def words(self) -> bytes | None:
        """The first of what it has sent, which is left where it is; None when it has hung up."""
        try:
            return self.socket.recv(LONG_HEAD_BYTES, socket.MSG_PEEK) or None
        except BlockingIOError:
            return b""
        except OSError:
            return None

    def refuse(self, words: bytes | None) -> None:
        """Say ``words``, for which nobody waits, and hang up."""
        with self.socket, suppress(OSError):  # it may have hung up already
            if words:
                self.socket.send(words)
                self.socket.recv(RECEIVE_BYTES)  # closing on unread bytes would destroy what is under way to the peer


class Arrivals:
    """The arrivals at one listening socket.

    Args:
        listener: Listens, and does not block.
        places: Says whether there is a place for another guest.
        serve: Has a connection served, in a task of its own.
        secure: Whether what arrives is encrypted: nothing can be said before the other end has been understood.
    """

    def __init__(
        self, listener: socket.socket, places: HasPlaces, serve: Callable[[Arrival], None], *, secure: bool = False
    ) -> None:
        self._listener = listener
        self._places = places
        self._serve = serve
        self._secure = secure
        self._asking: Crowds[Arrival] = Crowds()
        self._silent: Crowds[Arrival] = Crowds()

    async def take_all(self) -> None:
        """Take what comes until cancelled; then those that wait are hung up on."""
        try:
            while True:
                if self._asking or self._silent:
                    await trio.lowlevel.checkpoint()
                else:
                    await trio.lowlevel.wait_readable(self._listener)
                if not self._accept():
                    await trio.sleep(PAUSE_S)
                self._refuse_surplus()
                self._start()
        finally:
            for arrival in self._asking.everybody() + self._silent.everybody():
                arrival.socket.close()

    def _accept(self) -> bool:
        """Take some connections; whether the system has room for more."""
        for _ in range(ACCEPTS):
            waiting = len(self._asking) + len(self._silent)
            if len(self._asking) >= ASKING_MAX or (waiting >= STARTS and not self._places.full):
                break
            try:
                connection, address = self._listener.accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno in NO_LISTENER:
                    raise
                if error.errno in NO_ROOM:
                    logger.error("no further connection can be taken for %s s: %s", PAUSE_S, error.strerror)
                    return False
                continue  # this one was broken off while it waited
            self._sort(Arrival(connection, str(address[0])))
        return True

    def _sort(self, arrival: Arrival) -> None:
        """Have ``arrival`` wait among its like, unless it has hung up already."""
        words = arrival.words()
        if words is None:
            arrival.socket.close()
        else:
            crowds = self._asking if asks_for_something(words) else self._silent
            crowds.add(arrival.share, arrival)

    def _refuse_surplus(self) -> None:
        """Hang up on those of the silent who are too many, unless they have asked for something meanwhile."""
        for _ in range(len(self._silent) - SILENT_MAX):
            arrival = self._silent.surplus()
            self._silent.remove(arrival.share, arrival)
            words = arrival.words()
            if words and asks_for_something(words):
                self._asking.add(arrival.share, arrival)
            else:
                arrival.refuse(None if words is None or self._secure else overload_of(words))

    def _start(self) -> None:
        """Have some of those that wait served, first those who ask for something."""
        full = self._places.full
        for number in range(SWAPS if full else STARTS):
            if self._asking:
                self._serve(self._asking.take())
            elif self._silent and not (full and number):
                self._serve(self._silent.take())
