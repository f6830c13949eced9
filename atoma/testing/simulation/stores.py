"""What the simulated clients write: a store for each conflict rule, pairs that belong together, two scopes."""

from __future__ import annotations

from dataclasses import dataclass

from atoma.schema import Schema, StoreSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A row; ``token`` names the write that made it what it is, the others give merges something to merge."""

    id: str
    token: str = ""
    left: str = ""
    right: str = ""
    count: int = 0


LATEST = StoreSpec("latest", Item, conflict="lww")
SERVER = StoreSpec("server", Item, conflict="server_wins")
CLIENT = StoreSpec("client", Item, conflict="client_wins")
MANUAL = StoreSpec("manual", Item, conflict="manual")
PAIRS = StoreSpec("pairs", Item, conflict="lww")
STRICT_PAIRS = StoreSpec("strict_pairs", Item, conflict="manual")
ASIDE = StoreSpec("aside", Item, conflict="lww", scope="side")

SINGLES = (LATEST, SERVER, CLIENT, MANUAL, ASIDE)
PAIRED = (PAIRS, STRICT_PAIRS)
SCHEMA = Schema(*SINGLES, *PAIRED, version=1)
SCOPES = ("main", "side")
SCOPE_OF = {store.name: store.fixed_scope for store in SCHEMA.stores.values()}
RULE_OF = {store.name: store.conflict for store in SCHEMA.stores.values()}
PAIRED_NAMES = frozenset(store.name for store in PAIRED)


def partner(id: str) -> str:
    """The other row of a pair: ``a3`` and ``b3`` are written together or not at all."""
    return ("b" if id[0] == "a" else "a") + id[1:]
