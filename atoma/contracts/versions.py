"""Versions of rows as a hub gives them to direct callers: a sequence, and the epoch that it belongs to.

A restored hub assigns its sequences again. So a version names the epoch in its upper bits: one of a history that
was lost never equals one of the new history. The hub's first epoch goes without a name, and what was given in an earlier epoch stays as it
was given, so that versions are plain sequences until a hub is restored, and nothing but a loss makes one of them void.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

SEQ_BITS = 38
TAG_BITS = 15
"""Together as many as a number in JSON has for certain."""
NEVER = (1 << SEQ_BITS + TAG_BITS) - 1
"""A version that no row has, by which a device says that a row has moved."""
_TAGS = (1 << TAG_BITS) - 2


def tag_of(epoch: bytes) -> int:
    """The bits that name ``epoch``, never 0 and never those of :data:`NEVER`."""
    return int.from_bytes(epoch[:8], "big") % _TAGS + 1


class Versions(msgspec.Struct, frozen=True):
    """The version numbers of one scope.

    Attributes:
        ends: The scope's head at the end of every epoch that has ended, oldest first, and what names the epoch: 0 for the
            hub's first one.
        present: What names the epoch now.
    """

    ends: Sequence[tuple[int, int]] = ()
    present: int = 0

    def told(self, seq: int) -> int:
        """The version of a row that was changed last as ``seq``; 0 when there is none."""
        tag = next((tag for end, tag in self.ends if seq <= end), self.present)
        return tag << SEQ_BITS | seq


PLAIN = Versions()
"""Of a hub that has never ended an epoch: versions are sequences."""
