"""What the simulated clients write: a store for each conflict rule, one with a unique column, counters, pairs, rows for two, two scopes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from atoma.hub import Caller
from atoma.query import col
from atoma.schema import Index, Schema, StoreSpec
from atoma.schema.expressions import Condition
from atoma.testing.simulation.facts import Image, Key


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A row; ``token`` names the write that made it what it is, the others give merges something to merge.

    ``place`` is unique in one store.
    """

    id: str
    token: str = ""
    left: str = ""
    right: str = ""
    count: int = 0
    place: str | None = None


LATEST = StoreSpec("latest", Item, conflict="lww")
SERVER = StoreSpec("server", Item, conflict="server_wins")
CLIENT = StoreSpec("client", Item, conflict="client_wins")
MANUAL = StoreSpec("manual", Item, conflict="manual")
PAIRS = StoreSpec("pairs", Item, conflict="lww")
STRICT_PAIRS = StoreSpec("strict_pairs", Item, conflict="manual")
ASIDE = StoreSpec("aside", Item, conflict="lww", scope="side")

SEATS = StoreSpec("seats", Item, conflict="lww", indexes=[Index("place", unique=True)])

TALLIES = StoreSpec("tallies", Item, conflict="lww", merge={"count": "counter"})

SECRET = StoreSpec("secret", Item, conflict="manual")

SINGLES = (LATEST, SERVER, CLIENT, MANUAL, ASIDE, SEATS)
PAIRED = (PAIRS, STRICT_PAIRS)
SCHEMA = Schema(*SINGLES, *PAIRED, TALLIES, SECRET, version=1)
SCOPES = ("main", "side")
SCOPE_OF = {store.name: store.fixed_scope for store in SCHEMA.stores.values()}
RULE_OF = {store.name: store.conflict for store in SCHEMA.stores.values()}
UNIQUE_COLUMN = {SEATS.name: "place"}
PAIRED_NAMES = frozenset(store.name for store in PAIRED)


def for_two(caller: Caller) -> Condition:
    """The rule about rows of ``SECRET``: they are for the two whose names are in them."""
    return (col("left") == caller.subject) | (col("right") == caller.subject)


RULES = {SECRET.name: for_two}


def sees(user: str, key: Key, image: Image) -> bool:
    """The same once more, for a row of any store."""
    return key[0] not in RULES or user in (image["left"], image["right"])


def said(left: str, right: str) -> str:
    """What a row of ``SECRET`` holds, wherever it is found."""
    return f"for {left} and {right};"


_SAID = re.compile(rb"for (\w+) and (\w+);")


def written_for(frame: bytes) -> Iterator[tuple[str, str]]:
    """For whom the rows of ``SECRET`` are that are in a frame."""
    for found in _SAID.finditer(frame):
        yield found[1].decode(), found[2].decode()


def partner(id: str) -> str:
    """The other row of a pair: ``a3`` and ``b3`` are written together or not at all."""
    return ("b" if id[0] == "a" else "a") + id[1:]
