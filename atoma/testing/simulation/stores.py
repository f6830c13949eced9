"""What the simulated clients write: a store for each conflict rule, one with a unique column, pairs, two scopes."""

from __future__ import annotations

from dataclasses import dataclass

from atoma.schema import Index, Schema, StoreSpec


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

SINGLES = (LATEST, SERVER, CLIENT, MANUAL, ASIDE, SEATS)
PAIRED = (PAIRS, STRICT_PAIRS)
SCHEMA = Schema(*SINGLES, *PAIRED, version=1)
SCOPES = ("main", "side")
SCOPE_OF = {store.name: store.fixed_scope for store in SCHEMA.stores.values()}
RULE_OF = {store.name: store.conflict for store in SCHEMA.stores.values()}
UNIQUE_COLUMN = {SEATS.name: "place"}
PAIRED_NAMES = frozenset(store.name for store in PAIRED)


def partner(id: str) -> str:
    """The other row of a pair: ``a3`` and ``b3`` are written together or not at all."""
    return ("b" if id[0] == "a" else "a") + id[1:]
