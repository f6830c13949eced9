"""The cards of the demo page, and the ones that are there at the beginning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from atoma.errors import ValidationError
from atoma.schema import Index, Schema, StoreSpec, new_id

Lane: TypeAlias = Literal["todo", "doing", "done"]
LANES: tuple[Lane, ...] = ("todo", "doing", "done")
BOARD = "main"
TITLE_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One card.

    Attributes:
        id: Made by the device.
        title: What is to be done.
        lane: Where it hangs.
        pos: Place in its lane; a new place is the middle between two others.
        by: Key of the device that made it.
        board: Its board, which is its scope.
    """

    id: str = field(default_factory=new_id)
    title: str
    lane: Lane = "todo"
    pos: float
    by: str
    board: str = BOARD


# people decide when two devices gave one field of a card two values; edits of different fields are merged
CARDS = StoreSpec("cards", Card, scope="board", indexes=[Index("board", "pos")], conflict="manual")
CARD_SCHEMA = Schema(CARDS, version=1)

_BEGINNING: tuple[tuple[str, Lane, str], ...] = (
    ("a", "todo", "Sharpen the chisels"),
    ("b", "todo", "Oil the vice"),
    ("a", "todo", "Hang the pegboard"),
    ("b", "todo", "Borrow a ladder from Mira"),
    ("a", "todo", "Sweep under the bench"),
    ("b", "doing", "Fix the lamp above the bench"),
    ("a", "doing", "Sort the screws by size and label the boxes"),
    ("a", "doing", "Find the missing 13 mm socket"),
    ("a", "done", "Pick a colour for the walls"),
    ("b", "done", "Order two shelves"),
    ("a", "done", "Measure the long wall, twice"),
    ("b", "done", "Throw out the broken chair"),
)


def first_cards(by: str) -> list[Card]:
    """The cards that the device ``by`` makes when everything is new."""
    return [
        Card(title=title, lane=lane, pos=float(place), by=maker)
        for place, (maker, lane, title) in enumerate(_BEGINNING)
        if maker == by
    ]


def lane_of(value: object) -> Lane:
    """``value`` as a lane.

    Raises:
        ValidationError: It is none.
    """
    for lane in LANES:
        if lane == value:
            return lane
    raise ValidationError(f"a lane is one of {', '.join(LANES)}, not {value!r}", store="cards", field="lane")


def title_of(value: object) -> str:
    """``value`` as a title, without space around it.

    Raises:
        ValidationError: It is empty, too long or no text.
    """
    title = value.strip() if isinstance(value, str) else ""
    if not title or len(title) > TITLE_MAX:
        raise ValidationError(f"a title has 1 to {TITLE_MAX} characters", store="cards", field="title")
    return title
