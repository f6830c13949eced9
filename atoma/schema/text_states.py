"""The states of texts as somebody else has sent them: what they say is read here, with a bound on everything, before pycrdt sees them.

A state is in the encoding of Yjs: pieces of text, each of which names the characters that it was put between, and what was deleted. Where
several were put into one place they are compared with one another, and somebody who means to can make that as much as they like: pycrdt
was held for 1.6 s by 28 kB, and nothing can interrupt it. So the pieces are put in order here first, in the way of Yjs and in the sequence of
pycrdt, and comparisons are counted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

from msgspec import Struct
from msgspec.structs import replace

from atoma.contracts.limits import TEXT_COMPARED_MAX, TEXT_PIECES_MAX

ROOT = "text"
NAME_BITS = 53  # what a whole number of JavaScript holds
_NAME_BYTES = 8
_CLOCK_BITS = 31
_LENGTH_MAX = 2**_CLOCK_BITS - 1
_LEFT, _RIGHT, _DELETED, _STRING = 0x80, 0x40, 1, 4
_NONE = -1
_UNITS = "utf-16-le"
_OF_ROOT = b"\x01\x04" + ROOT.encode()


class BrokenText(ValueError):
    """Bytes that are no state of a text, or one that is too large."""


class ClosedText(BrokenText):
    """A state that was one of a text, and with which nobody can go on."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}; go on in a new row, which begins afresh")


class _Piece(Struct, gc=False):
    """Characters that were inserted together; a place is a name and a number in one integer.

    Attributes:
        name: The number of the name.
        begin: The number of the first character.
        length: How many there are, as UTF-16 counts them.
        origin: What they were put behind.
        right: What they were put before.
        source: The text as UTF-16, with that of what it was divided from: so each division takes as long; None where it was deleted.
        at: Where it begins there.
    """

    name: int
    begin: int
    length: int
    origin: int
    right: int
    source: bytes | None
    at: int = 0

    @property
    def text(self) -> bytes | None:
        """The characters as UTF-16."""
        return None if self.source is None else self.source[2 * self.at : 2 * (self.at + self.length)]

    def divided(self, count: int) -> tuple[_Piece, _Piece]:
        """Its first ``count`` characters, and the others."""
        at, begin = self.at + count, self.begin + count
        if self.source is not None and self.source[2 * at + 1] & 0xFC == 0xDC:
            raise BrokenText("it is not the state of a text: a character is divided")
        origin = self.name << _CLOCK_BITS | (begin - 1)
        rest = replace(self, begin=begin, length=self.length - count, origin=origin, at=at)
        return replace(self, length=count), rest


class _State:
    """What bytes say.

    Attributes:
        pieces: The pieces of each name, by its number, from its first character on.
        gaps: From where to where something was deleted, by name.
    """

    def __init__(self, data: bytes, names: dict[bytes, int]) -> None:
        self._data, self._at, self._names = data, 0, names
        self._count = 0
        self.pieces: dict[int, list[_Piece]] = {}
        self.gaps: dict[int, list[tuple[int, int]]] = {}
        try:
            for _ in range(self._number()):
                self._read_pieces()
            for _ in range(self._number()):
                self._read_gaps()
        except IndexError:
            self._refuse()
        if self._at != len(data):
            self._refuse()

    def length_of(self, name: int) -> int:
        """How many characters a name has inserted."""
        last = self.pieces[name][-1]
        return last.begin + last.length

    def _read_pieces(self) -> None:
        count, name, begin = self._number(), self._name(), self._number()
        if begin or name in self.pieces or not count:
            self._refuse()
        found = self.pieces[name] = []
        for _ in range(count):
            piece = self._piece(name, begin)
            found.append(piece)
            begin += piece.length
            if begin > _LENGTH_MAX:
                self._refuse()

    def _piece(self, name: int, begin: int) -> _Piece:
        self._take()
        info = self._data[self._at]
        self._at += 1
        kind = info & 0x3F
        if kind not in (_DELETED, _STRING):
            self._refuse()
        origin = self._place() if info & _LEFT else _NONE
        right = self._place() if info & _RIGHT else _NONE
        if not info & (_LEFT | _RIGHT) and (self._number() != 1 or self._string() != ROOT):
            self._refuse()
        text = self._string().encode(_UNITS) if kind == _STRING else None
        length = self._number() if text is None else len(text) // 2
        here = name << _CLOCK_BITS | begin
        if not length or here <= origin < here + length or here <= right < here + length:
            self._refuse()
        return _Piece(name, begin, length, origin, right, text)

    def _read_gaps(self) -> None:
        name, before = self._name(), 0
        if name in self.gaps or name not in self.pieces:
            self._refuse()
        gaps = self.gaps[name] = list[tuple[int, int]]()
        count = self._number() or self._refuse()
        for _ in range(count):
            self._take()
            begin, length = self._number(), self._number()
            if begin < before or not length:
                self._refuse()
            before = begin + length
            gaps.append((begin, before))
        if before > self.length_of(name):
            self._refuse()

    def _take(self) -> None:
        self._count += 1
        if self._count > 2 * TEXT_PIECES_MAX:
            _refuse_pieces()

    def _place(self) -> int:
        return self._name() << _CLOCK_BITS | self._number()

    def _name(self) -> int:
        data, start = self._data, self._at
        known = self._names.get(data[start : start + _NAME_BYTES])  # most are so long, and none begins with another one
        if known is not None:
            self._at = start + _NAME_BYTES
            return known
        at = start
        while data[at] > 0x7F:
            at += 1
        self._at = at + 1
        raw = data[start : at + 1]
        found = self._names.get(raw)
        if found is None:
            if len(raw) > _NAME_BYTES or (len(raw) > 1 and not raw[-1]) or _number_of(raw) >> NAME_BITS:
                self._refuse()
            found = self._names[raw] = len(self._names)
        return found

    def _number(self) -> int:
        data, at = self._data, self._at
        byte = data[at]
        self._at = at + 1
        if byte < 0x80:
            return byte
        value, shift = byte & 0x7F, 7
        while byte > 0x7F:
            at += 1
            byte = data[at]
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 35:
                self._refuse()
        self._at = at + 1
        return value if value <= _LENGTH_MAX else self._refuse()

    def _string(self) -> str:
        length = self._number()
        start, self._at = self._at, self._at + length
        if self._at > len(self._data):
            self._refuse()
        try:
            return self._data[start : self._at].decode()
        except UnicodeDecodeError:
            self._refuse()

    def _refuse(self) -> NoReturn:
        raise BrokenText(f"it is not the state of a text: byte {self._at} does not fit")


class _Order:
    """Pieces in their order, as Yjs puts them; the first is none and stands before all.

    Attributes:
        pieces: The pieces, by the number of their name.
    """

    def __init__(self, pieces: Mapping[int, Sequence[_Piece]], numbers: Sequence[int]) -> None:
        self.pieces = pieces
        self._numbers = numbers
        self._pieces = [_Piece(0, 0, 0, _NONE, _NONE, None)]
        self._next = [_NONE]
        self._begins: dict[int, list[int]] = {}
        self._found: dict[int, list[int]] = {}
        self._known: dict[int, int] = {}
        self._compared = 0
        self._apart: list[_Piece] = []
        self._fill()

    def _fill(self) -> None:
        """Put pieces where they belong: those of the largest name first, and before each one what it stands beside."""
        queues = {name: iter(pieces) for name, pieces in self.pieces.items()}
        waiting: list[_Piece] = []
        for name in sorted(queues, key=self._numbers.__getitem__, reverse=True):
            piece = next(queues[name], None)
            while piece is not None:
                missing = self._missing(piece)
                if missing == _NONE:
                    self._put(piece)
                    piece = waiting.pop() if waiting else next(queues[name], None)
                    continue
                waiting.append(piece)
                piece = next(queues.get(missing, iter(())), None)
                begin = self._known.get(missing, 0)
                if piece is None or piece.begin != begin:  # it is not there, or waits for this one
                    raise BrokenText("it is not the state of a text: something that it builds on is missing")

    def text(self) -> str:
        """What is there and was not deleted.

        Raises:
            BrokenText: A piece was put between two that are not in this order.
        """
        row, at = list[int](), self._next[0]
        while at != _NONE:
            row.append(at)
            at = self._next[at]
        if self._apart:
            places = dict(zip(row, range(len(row)), strict=True))
            for piece in self._apart:
                if _NONE not in (piece.origin, piece.right) and (
                    places[self._at(piece.origin)] >= places[self._at(piece.right)]
                ):
                    _refuse_order()
        return b"".join([text for at in row if (text := self._pieces[at].text) is not None]).decode(_UNITS)

    def _missing(self, piece: _Piece) -> int:
        """The name of which something has to be here before ``piece``; -1 where all is here."""
        known = self._known
        for place in (piece.origin, piece.right):
            if place != _NONE:
                name = place >> _CLOCK_BITS
                if (place & _LENGTH_MAX) >= known.get(name, 0):
                    if name == piece.name:
                        raise BrokenText("it is not the state of a text: something stands beside what comes later")
                    return name
        return _NONE

    def _put(self, piece: _Piece) -> None:
        self._known[piece.name] = piece.begin + piece.length
        if _NONE not in (piece.origin, piece.right) and self._is_backwards(piece.origin, piece.right):
            _refuse_order()
        left = self._ending(piece.origin) if piece.origin != _NONE else 0
        right = self._beginning(piece.right) if piece.right != _NONE else _NONE
        if self._next[left] != right:
            self._apart.append(piece)
            left = self._between(piece, left, right)
        self._insert(piece, left)

    def _between(self, piece: _Piece, left: int, right: int) -> int:
        """What ``piece`` comes behind, of what others have put into the same place."""
        pieces, following, numbers = self._pieces, self._next, self._numbers
        mine = numbers[piece.name]
        before, conflicting = set[int](), set[int]()
        at = following[left]
        while at not in (_NONE, right):
            self._compared += 1
            if self._compared > TEXT_COMPARED_MAX:
                raise ClosedText("the text was edited too often in one place by several who did not know of each other")
            before.add(at)
            conflicting.add(at)
            other = pieces[at]
            if other.origin == piece.origin:
                if numbers[other.name] < mine:
                    left = at
                    conflicting.clear()
                elif other.right == piece.right:
                    break
            else:
                origin = self._at(other.origin) if other.origin != _NONE else _NONE
                if origin not in before:
                    break
                if origin not in conflicting:
                    left = at
                    conflicting.clear()
            at = following[at]
        return left

    def _insert(self, piece: _Piece, left: int) -> int:
        number = len(self._pieces)
        if number > TEXT_PIECES_MAX:
            _refuse_pieces()
        self._pieces.append(piece)
        self._next.append(self._next[left])
        self._next[left] = number
        begins = self._begins.get(piece.name)
        if begins is None:
            self._begins[piece.name], self._found[piece.name] = [piece.begin], [number]
        else:
            at = bisect_right(begins, piece.begin)
            begins.insert(at, piece.begin)
            self._found[piece.name].insert(at, number)
        return number

    def _is_backwards(self, left: int, right: int) -> bool:
        """Whether both are in one piece in the other order: once it is divided between them, nobody can tell."""
        return right <= left and left >> _CLOCK_BITS == right >> _CLOCK_BITS and self._at(left) == self._at(right)

    def _at(self, place: int) -> int:
        name = place >> _CLOCK_BITS
        return self._found[name][bisect_right(self._begins[name], place & _LENGTH_MAX) - 1]

    def _beginning(self, place: int) -> int:
        """The piece that begins in a place; one is divided there."""
        number = self._at(place)
        count = (place & _LENGTH_MAX) - self._pieces[number].begin
        return self._divide(number, count) if count else number

    def _ending(self, place: int) -> int:
        """The piece that ends with a place; one is divided behind it."""
        number = self._at(place)
        piece = self._pieces[number]
        count = (place & _LENGTH_MAX) - piece.begin + 1
        if count < piece.length:
            self._divide(number, count)
        return number

    def _divide(self, number: int, count: int) -> int:
        self._pieces[number], rest = self._pieces[number].divided(count)
        return self._insert(rest, number)


def text_of_state(data: bytes) -> str:
    """The text of a state, wherever that is from.

    Raises:
        BrokenText: It is none, or has more than is read.
    """
    names: dict[bytes, int] = {}
    state = _State(data, names)
    return _ordered(names, state.pieces, state.gaps).text()


def united(one: bytes, other: bytes) -> tuple[bytes, str]:
    """The state that has what two states have, one of them where that is it, and its text.

    Raises:
        BrokenText: One is no state, they do not fit together, or they have more than is read.
    """
    names: dict[bytes, int] = {}
    mine, theirs = _State(one, names), _State(other, names)
    for name in mine.pieces.keys() & theirs.pieces.keys():
        if mine.length_of(name) != theirs.length_of(name):
            raise BrokenText("it is not a state of this text: it calls something else by the same name")
    pieces = {**theirs.pieces, **mine.pieces}
    gaps = {**theirs.gaps, **mine.gaps}
    for name in mine.gaps.keys() & theirs.gaps.keys():
        gaps[name] = [*_merged(sorted([*mine.gaps[name], *theirs.gaps[name]]))]
    for state, data in ((mine, one), (theirs, other)):
        if len(state.pieces) == len(pieces) and state.gaps == gaps:
            return data, _ordered(names, state.pieces, gaps).text()
    order = _ordered(names, pieces, gaps)
    return _written([*names], order.pieces, gaps), order.text()


def _written(
    names: Sequence[bytes], pieces: Mapping[int, Sequence[_Piece]], gaps: Mapping[int, Sequence[tuple[int, int]]]
) -> bytes:
    """The state that says so."""

    def place(at: int) -> bytes:
        return b"" if at == _NONE else names[at >> _CLOCK_BITS] + _bytes_of(at & _LENGTH_MAX)

    data = [_bytes_of(len(pieces))]
    for name, found in pieces.items():
        data += (_bytes_of(len(found)), names[name], b"\0")
        for piece in found:
            units = piece.text
            text = None if units is None else units.decode(_UNITS).encode()
            kind = _DELETED if text is None else _STRING
            sides = place(piece.origin) + place(piece.right) or _OF_ROOT
            info = kind | (_LEFT if piece.origin != _NONE else 0) | (_RIGHT if piece.right != _NONE else 0)
            data += (bytes([info]), sides, _bytes_of(piece.length if text is None else len(text)), text or b"")
    data.append(_bytes_of(len(gaps)))
    for name, cut in gaps.items():
        data += (names[name], _bytes_of(len(cut)), *[_bytes_of(begin) + _bytes_of(end - begin) for begin, end in cut])
    return b"".join(data)


def _ordered(
    names: Mapping[bytes, int], pieces: Mapping[int, list[_Piece]], gaps: Mapping[int, Sequence[tuple[int, int]]]
) -> _Order:
    cut = {**pieces, **{name: [*_without(pieces[name], gaps[name])] for name in gaps}}
    return _Order(cut, [_number_of(raw) for raw in names])


def _without(pieces: Sequence[_Piece], gaps: Sequence[tuple[int, int]]) -> Iterator[_Piece]:
    """``pieces`` of one name, divided where something was deleted, which has no text any more."""
    ahead = iter(gaps)
    gap = next(ahead, None)
    for piece in pieces:
        rest: _Piece | None = piece
        while rest is not None and gap is not None and gap[0] < rest.begin + rest.length:
            if gap[0] > rest.begin:
                kept, rest = rest.divided(gap[0] - rest.begin)
                yield kept
            end = rest.begin + rest.length
            lost = rest
            lost, rest = rest.divided(gap[1] - rest.begin) if gap[1] < end else (rest, None)
            lost.source = None
            yield lost
            if gap[1] <= end:
                gap = next(ahead, None)
        if rest is not None:
            yield rest


def _merged(gaps: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    begin, end = gaps[0]
    for first, last in gaps:
        if first > end:
            yield begin, end
            begin, end = first, last
        end = max(end, last)
    yield begin, end


def _refuse_pieces() -> NoReturn:
    raise ClosedText(f"the text was edited in more than {TEXT_PIECES_MAX:,} places")


def _refuse_order() -> NoReturn:
    raise BrokenText("it is not the state of a text: something stands between what is not in this order")


def _number_of(raw: bytes) -> int:
    value = 0
    for byte in reversed(raw):
        value = value << 7 | byte & 0x7F
    return value


def _bytes_of(number: int) -> bytes:
    data = bytearray()
    while number > 0x7F:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)
