"""What makes one text into another, by characters, in as few steps as are worth it: whoever may be waiting, it takes so many at most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from re import findall

_COMPARED_MAX = 20_000
"""Comparisons of words and characters for one text; what takes more is replaced whole."""
_APART_MAX = 100
"""Words, or characters of a part, that may be missing and new."""


class _TooFar(Exception):
    """Two texts differ by more than is looked for."""


def text_edits(before: str, after: str) -> Iterator[tuple[int, int, str]]:
    """What makes ``before`` into ``after``: from, to, and what comes in their place."""
    start, was, becomes = _trimmed(before, after)
    if not was or not becomes:
        yield start, start + len(was), becomes
        return
    effort = _Effort()
    words, new_words = _words(was), _words(becomes)
    place, at = start, 0
    for low, high, first, last in _blocks(words, new_words, effort):
        place += sum(map(len, words[at:low]))
        old, new = "".join(words[low:high]), "".join(new_words[first:last])
        yield from _edits_of_part(place, old, new, effort)
        place, at = place + len(old), high


def _edits_of_part(place: int, before: str, after: str, effort: _Effort) -> Iterator[tuple[int, int, str]]:
    skipped, was, becomes = _trimmed(before, after)
    place += skipped
    for low, high, first, last in _blocks(was, becomes, effort):
        yield place + low, place + high, becomes[first:last]


class _Effort:
    """How many comparisons are left."""

    def __init__(self) -> None:
        self._left = _COMPARED_MAX

    def take(self, count: int) -> None:
        """Count some.

        Raises:
            _TooFar: There are none.
        """
        self._left -= count
        if self._left < 0:
            raise _TooFar


def _trimmed(before: str, after: str) -> tuple[int, str, str]:
    """How many characters both begin with, and what differs but for the end that both have."""
    start = _same(before, after)
    was, becomes = before[start:], after[start:]
    behind = _same(was[::-1], becomes[::-1])
    return start, was[: len(was) - behind], becomes[: len(becomes) - behind]


def _same(one: str, other: str) -> int:
    """How many characters both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _words(text: str) -> list[str]:
    return findall(r"\S+\s*|\s+", text)


def _blocks(before: Sequence[str], after: Sequence[str], effort: _Effort) -> Iterator[tuple[int, int, int, int]]:
    """What differs; a part that is the same by chance, and shorter than what differs on either side of it, is not kept."""
    if not before or not after:
        if before or after:
            yield 0, len(before), 0, len(after)
        return
    try:
        same = _matches(before, after, effort)
    except _TooFar:
        yield 0, len(before), 0, len(after)
        return
    found: list[tuple[int, int, int, int]] = []
    low, first = 0, 0
    for high, last, length in (*same, (len(before), len(after), 0)):
        if low < high or first < last:
            while found and low - found[-1][1] < min(_extent(found[-1]), max(high - low, last - first)):
                low, _, first, _ = found.pop()
            found.append((low, high, first, last))
        low, first = high + length, last + length
    yield from found


def _extent(block: tuple[int, int, int, int]) -> int:
    low, high, first, last = block
    return max(high - low, last - first)


def _matches(before: Sequence[str], after: Sequence[str], effort: _Effort) -> list[tuple[int, int, int]]:
    """Parts that stay, by the algorithm of Myers: where in ``before``, where in ``after``, how long.

    Raises:
        _TooFar: It takes too long.
    """
    furthest = {1: 0}
    trail: list[dict[int, int]] = []
    for apart in range(_APART_MAX + 1):
        trail.append(dict(furthest))
        for shift in range(-apart, apart + 1, 2):
            at = _stepped(furthest, shift, apart)
            start, other = at, at - shift
            while at < len(before) and other < len(after) and before[at] == after[other]:
                at, other = at + 1, other + 1
            effort.take(1 + at - start)
            furthest[shift] = at
            if at >= len(before) and other >= len(after):
                return _way_back(trail, at, other)
    raise _TooFar


def _came_from(furthest: dict[int, int], shift: int, apart: int) -> int:
    """From which shift the better of the two steps to ``shift`` comes."""
    inserts = shift == -apart or (shift != apart and furthest[shift - 1] < furthest[shift + 1])
    return shift + 1 if inserts else shift - 1


def _stepped(furthest: dict[int, int], shift: int, apart: int) -> int:
    """Where the better of the two steps to ``shift`` leads."""
    came = _came_from(furthest, shift, apart)
    return furthest[came] + (came < shift)


def _way_back(trail: Sequence[dict[int, int]], at: int, other: int) -> list[tuple[int, int, int]]:
    found: list[tuple[int, int, int]] = []
    for apart in reversed(range(len(trail))):
        furthest, shift = trail[apart], at - other
        begin = _stepped(furthest, shift, apart) if apart else 0
        if at > begin:
            found.append((begin, begin - shift, at - begin))
        at, other = begin, begin - shift
        if apart:
            came = _came_from(furthest, shift, apart)
            at, other = furthest[came], furthest[came] - came
    return found[::-1]
