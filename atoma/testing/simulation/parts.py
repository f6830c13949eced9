"""Parts of the scope ``main`` that simulated devices take, and what is in them: said once more, in words of Python."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, combinations

from atoma.contracts.shapes import mark_of
from atoma.query import col
from atoma.query.shapes import Shapes
from atoma.schema import ScopePart, Shape, param
from atoma.schema.schema import Schema
from atoma.testing.simulation.facts import Image
from atoma.testing.simulation.lineage import State
from atoma.testing.simulation.stores import CLIENT, LATEST, MANUAL, PAIRED, SCHEMA, SEATS, SECRET, SERVER, TALLIES

MAIN = "main"
POOL = 6
NARROWED = (LATEST, SERVER, CLIENT, MANUAL, SEATS, TALLIES)
EVERY = {store.name: Shape(f"every_{store.name}", store) for store in (*NARROWED, *PAIRED, SECRET)}
LEFT = {store.name: Shape(f"left_{store.name}", store, col("left") == param("left", str)) for store in NARROWED}
LEAST = {store.name: Shape(f"least_{store.name}", store, col("count") >= param("least", int)) for store in NARROWED}
SHAPED = Schema(*SCHEMA.stores.values(), version=1, shapes=[*EVERY.values(), *LEFT.values(), *LEAST.values()])


@dataclass(frozen=True, slots=True)
class Piece:
    """A part, and which rows are in it."""

    part: ScopePart
    call: bytes
    holds: Callable[[Image], bool]

    @property
    def store(self) -> str:
        """Name of its store."""
        return self.part.shape.store.name


def _is_left(left: str, image: Image) -> bool:
    return image["left"] == left


def _is_least(least: int, image: Image) -> bool:
    count = image["count"]
    return isinstance(count, int) and count >= least


def _pieces() -> list[Piece]:
    shapes, found = Shapes(SHAPED), list[Piece]()

    def add(part: ScopePart, holds: Callable[[Image], bool]) -> None:
        found.append(Piece(part, shapes.call(part), holds))

    for shape in EVERY.values():
        add(shape.of(), lambda image: True)
    for shape in LEFT.values():
        for left in ("", "x", "y", "z"):
            add(shape.of(left=left), partial(_is_left, left))
    for shape in LEAST.values():
        for least in (1, 2, 4):
            add(shape.of(least=least), partial(_is_least, least))
    return found


PIECES = _pieces()


@dataclass(slots=True)
class Parts:
    """The parts that one device may take in a run, and what it takes from one opening to the next."""

    pool: tuple[Piece, ...]
    always: tuple[Piece, ...] = ()
    _sets: dict[bytes, frozenset[Piece]] = field(default_factory=dict[bytes, frozenset[Piece]])

    @staticmethod
    def drawn(dice: random.Random) -> Parts:
        """Some that a device may take."""
        return Parts(tuple(dice.sample(PIECES, POOL)))

    def copy(self) -> Parts:
        """Those of a copy of the device, which goes its own way."""
        return Parts(self.pool, self.always)

    def draw(self, dice: random.Random) -> None:
        """Other ones, perhaps, as a program is opened."""
        if not self.always or dice.random() < 0.5:
            self.always = tuple(dice.sample(self.pool, dice.randrange(1, 4)))

    def of(self, mark: bytes) -> frozenset[Piece] | None:
        """The parts that ``mark`` stands for; None where it stands for none of theirs."""
        if not self._sets:
            for each in chain.from_iterable(combinations(self.pool, count) for count in range(1, POOL + 1)):
                self._sets[mark_of(piece.call for piece in each)] = frozenset(each)
        return self._sets.get(mark)

    def seen(self, rows: State, mark: bytes) -> State:
        """What of ``rows`` is in the parts of ``mark``; all of them where it is of the whole scope."""
        pieces = self.of(mark) if mark else None
        if pieces is None:
            return rows
        return {
            key: image
            for key, image in rows.items()
            if any(piece.store == key[0] and piece.holds(image) for piece in pieces)
        }
