"""Ids that a hub draws: by the function of the store, past every id that a row of the scope has or ever had."""

from __future__ import annotations

from typing import Any

from atoma.contracts.values import RowImage, RowKey
from atoma.hub.admission import Refusal
from atoma.hub.setting import Stamps
from atoma.ports.hub import Facts
from atoma.ports.hub_rows import RowFact
from atoma.schema.spec import StoreSpec

AHEAD = 16
"""Ids that are looked at together, at first; of a scope in which they are taken, as many again each time."""
LOOKED_MAX = 10_000
"""Rows that may be looked at for one write."""


class NotLooked(Exception):
    """Nobody has looked yet whether these rows are there; the decision is made again once somebody has."""

    def __init__(self, rows: tuple[RowKey, ...]) -> None:
        super().__init__(f"{len(rows)} rows")
        self.rows = rows


def draw_id(store: StoreSpec[Any], post: RowImage, stamps: Stamps, facts: Facts, taken: set[RowKey]) -> str:
    """An id for the new row ``post``, which no other row of its scope has or ever had.

    Args:
        store: Its store.
        post: The row.
        stamps: What is set in the rows of this decision.
        facts: What it is made from.
        taken: Rows that it has drawn ids for; the new one is added.

    Raises:
        NotLooked: Whether the id is free has to be looked up.
        Refusal: ``INVALID``: the function finds no free id.
    """
    for _ in range(LOOKED_MAX):
        key = (store.name, stamps.id_of(store, post))
        if key not in facts.rows:
            if len(facts.rows) >= LOOKED_MAX:
                break
            ahead = range(max(AHEAD, len(facts.rows)))
            raise NotLooked(tuple(dict.fromkeys([key, *((store.name, stamps.id_of(store, post)) for _ in ahead)])))
        if key not in taken and _is_new(facts.rows[key]):
            taken.add(key)
            return key[1]
    raise Refusal(
        "INVALID",
        f"the hub's function for {store.name}.id finds no free id: it must advance with each of.counter(), and return the same "
        "id when it is called again",
    )


def check_drawn(store: StoreSpec[Any], id: str, found: RowFact, post: RowImage | None) -> None:
    """Refuse a row that is made under an id of a caller's own where the hub draws them; one that was there may come back.

    Raises:
        Refusal: ``INVALID``.
    """
    if store.sets.ids and post is not None and _is_new(found):
        how = 'insert it without an id, with confirm="strict"'
        raise Refusal("INVALID", f"{store.name} has no row {id!r}, and the hub draws the ids of its new rows: {how}")


def _is_new(fact: RowFact) -> bool:
    """Whether there never was such a row."""
    return fact.image is None and not fact.seq
