"""Clients that a hub knows, and those that it has forgotten: a bounded number of both for each principal.

Of a client, and of a mutation that was decided under a later name, it stays that it was there. Whoever comes under such a name
once more is not a new one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

CLIENTS_MAX = 1_000
"""Clients of one principal that a hub knows; of more, the one that was seen least recently is forgotten early."""
FORGOTTEN_MAX = 100_000
"""Clients of one principal, and mutations that were decided under a later name, of which it is kept that they were forgotten,
16 bytes each."""


@dataclass(frozen=True, slots=True)
class ForgettableClient:
    """A client that may be forgotten.

    Attributes:
        number: Its number.
        client_id: The client.
        names: First digests of its mutations that were decided under a later name.
    """

    number: int
    client_id: bytes
    names: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A client that is forgotten.

    Attributes:
        client: The client.
        principal: Whom it belonged to.
        kept: Of which of its names, its id the last of them, it is kept that they were forgotten.
    """

    client: ForgettableClient
    principal: str
    kept: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ClientCount:
    """The number of clients of a principal that are known.

    Attributes:
        known: How many.
        forgotten: How many names have been forgotten; counted up to one more than are kept.
        crowd: Those that are known, the one that was seen least recently first; empty while there is room.
    """

    known: int = 0
    forgotten: int = 0
    crowd: tuple[ForgettableClient, ...] = ()

    @property
    def forgets_without_a_trace(self) -> bool:
        """Whether clients were forgotten of which nothing is kept."""
        return self.forgotten > FORGOTTEN_MAX

    def with_one_more(self, principal: str, busy: Collection[bytes]) -> tuple[ClientCount, Sequence[Forgotten]]:
        """The room once one more client is known, and who is forgotten for it: those that were seen least recently.

        The clients ``busy``, about which more is to be written, stay.
        """
        left = max(0, self.known - CLIENTS_MAX + 1)
        leaving = [known for known in self.crowd if known.client_id not in busy][:left]
        after, gone = self.without(principal, leaving)
        return replace(after, known=after.known + 1), gone

    def without(self, principal: str, leaving: Sequence[ForgettableClient]) -> tuple[ClientCount, Sequence[Forgotten]]:
        """The room without ``leaving``, and what becomes of them."""
        forgotten, gone = self.forgotten, list[Forgotten]()
        for client in leaving:
            forgotten, kept = buried(forgotten, [*client.names, client.client_id])
            gone.append(Forgotten(client, principal, kept))
        crowd = tuple([known for known in self.crowd if known not in leaving]) if leaving else self.crowd
        return ClientCount(self.known - len(gone), forgotten, crowd), gone


def buried(forgotten: int, names: Sequence[bytes]) -> tuple[int, tuple[bytes, ...]]:
    """How many names of a principal have been forgotten once these are, and which of them are kept."""
    kept = tuple(names[: max(0, FORGOTTEN_MAX - forgotten)])
    return min(forgotten + len(names), FORGOTTEN_MAX + 1), kept


def crowded_from(more: int) -> int:
    """How many clients of a principal may be too many once there are ``more``."""
    return CLIENTS_MAX - more
