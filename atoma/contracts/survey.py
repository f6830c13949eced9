"""Counting the values in MessagePack before it is decoded.

Decoding cannot be interrupted, and its cost depends on the number of values, above all of lists and maps, not on bytes:
a megabyte of empty lists takes a hundred times as long as a megabyte of text. So a receiver of messages counts the values
first, in turns between which other tasks run.
"""

from __future__ import annotations

from collections.abc import Iterator

VALUES_MAX = 100_000
"""Maximum number of values in one message, keys included; about 10 ms of decoding."""
CONTAINERS_MAX = 20_000
"""Maximum number of lists and maps among them."""
UNCOUNTED_BYTES = 32 * 1024
"""Size in bytes up to which a message cannot hold too many values."""
TURN_VALUES = 4_000


def _table() -> tuple[int, ...]:
    """By the first byte of a value: bytes up to the next one, negative for lists and maps; 0 when its length follows."""
    sizes = [1] * 256
    for byte in range(0xA0, 0xC0):
        sizes[byte] = 1 + byte - 0xA0
    scalars = {
        0xCA: 5, 0xCB: 9, 0xCC: 2, 0xCD: 3, 0xCE: 5, 0xCF: 9, 0xD0: 2, 0xD1: 3, 0xD2: 5, 0xD3: 9, 0xD4: 3, 0xD5: 4,
        0xD6: 6, 0xD7: 10, 0xD8: 18,
    }  # fmt: skip
    containers = {**dict.fromkeys(range(0x80, 0xA0), -1), 0xDC: -3, 0xDD: -5, 0xDE: -3, 0xDF: -5}
    for byte, size in {**scalars, **containers, **dict.fromkeys(_LENGTHS, 0)}.items():
        sizes[byte] = size
    return tuple(sizes)


_LENGTHS = {
    0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1), 0xD9: (1, 0), 0xDA: (2, 0),
    0xDB: (4, 0),
}  # fmt: skip
"""Bytes of a length, and those between it and the content."""
_SIZES = _table()


class Survey:
    """A count of the values in MessagePack; anything else is skipped and left to the decoder.

    Attributes:
        values: How many were found so far, over all that was looked through.
        containers: How many of them are lists or maps.
    """

    __slots__ = ("containers", "values")

    def __init__(self) -> None:
        self.values = 0
        self.containers = 0

    @property
    def too_many(self) -> bool:
        """Whether there are more than may be in one message."""
        return self.values > VALUES_MAX or self.containers > CONTAINERS_MAX

    def turns(self, data: bytes) -> Iterator[None]:
        """Count what is in ``data``, or until there are too many; others may run between two turns."""
        at = 0
        while at < len(data) and not self.too_many:
            at = self._count(data, at)
            yield

    def finish(self, data: bytes) -> Survey:
        """Count what is in ``data``, or until there are too many, in one go."""
        for _ in self.turns(data):
            pass
        return self

    def _count(self, data: bytes, at: int) -> int:
        """Count one turn's worth from ``at`` on; where the next one begins."""
        values, containers, sizes = self.values, self.containers, _SIZES
        size, until = len(data), values + TURN_VALUES
        while at < size and values < until:
            step = sizes[data[at]]
            values += 1
            if step > 0:
                at += step
            elif step < 0:
                at -= step
                containers += 1
            else:
                width, more = _LENGTHS[data[at]]
                start = at + 1
                at = start + width + int.from_bytes(data[start : start + width], "big") + more
        self.values, self.containers = values, containers
        return at
