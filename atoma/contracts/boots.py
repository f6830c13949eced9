"""Boots of a hub: which of them has written which part of a scope's log.

A hub that goes back with everything beside it, as in a snapshot of the whole machine, is told of nothing: it gives sequences out
anew under the same epoch. But it was booted for that. So two places are on one way where the earlier of them ends in what one boot
has written of both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

BOOT_BYTES = 4
BOOTS_MAX = 16
"""Of so many boots that have written in a scope it is known where they began, the last ones."""
_BOOT = Struct(f">Q{BOOT_BYTES}s")
"""The last sequence before what a boot has written, and the boot."""


@dataclass(frozen=True, slots=True)
class BootedPlace:
    """A place in a scope's log with the boots that have led there.

    Attributes:
        seq: The sequence.
        boots: What boots have written up to there; empty where that was before boots were noted.
    """

    seq: int = 0
    boots: bytes = b""

    def is_on_the_way_of(self, other: BootedPlace) -> bool:
        """Whether this place and ``other`` are on one way, the earlier before the later; so it is said where nothing was noted.

        Where more boots than are kept have come behind the earlier one nobody can tell, and then it is not.
        """
        seq = min(self.seq, other.seq)
        return not (self.boots and other.boots) or _boot_at(self.boots, seq) == _boot_at(other.boots, seq)


def parted(place: BootedPlace, boots: bytes) -> int:
    """Up to where the log that ``boots`` have written may be the one of ``place``: behind that another boot has written each."""
    for before in sorted({before for before, _ in (*_read(place.boots), *_read(boots))}):
        ours, theirs = (_boot_at(written, before + 1) for written in (place.boots, boots))
        if before < place.seq and ours and theirs and ours != theirs:
            return before
    return place.seq


def booted(boots: bytes, seq: int, boot: bytes) -> bytes:
    """``boots`` once ``boot`` has written ``seq``; the same when nobody says which it is."""
    if not boot or boots.endswith(boot):
        return boots
    return (boots + _BOOT.pack(seq - 1, boot))[-BOOTS_MAX * _BOOT.size :]


def boots_up_to(boots: bytes, seq: int) -> bytes:
    """What of ``boots`` has led to ``seq``."""
    return b"".join(_BOOT.pack(before, boot) for before, boot in _read(boots) if before < seq)


def _boot_at(boots: bytes, seq: int) -> bytes:
    """The boot that has written ``seq``, empty where that is not known."""
    found = b""
    for before, boot in _read(boots):
        if before < seq:
            found = boot
    return found


def _read(boots: bytes) -> Iterator[tuple[int, bytes]]:
    whole = len(boots) - len(boots) % _BOOT.size
    return _BOOT.iter_unpack(boots[:whole])
