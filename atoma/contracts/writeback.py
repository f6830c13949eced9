"""The data that returns to the local database: the rows of an authority, and its decisions by idempotency key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from atoma.contracts.execution import Durability
from atoma.contracts.mutations import PendingMutation
from atoma.contracts.sync import Outcome
from atoma.contracts.values import RowImage

DecidedMutation: TypeAlias = tuple[PendingMutation, Outcome]
"""A pending mutation with its authority's verdict."""


class ConfirmedRow(msgspec.Struct, frozen=True, gc=False):
    """A row as an authority has it.

    Attributes:
        store: Store of the row.
        id: Id of the row.
        image: Column values, None when the row is not there.
        version: The authority's version of the row, 0 when it is not known.
        scope: Scope of the row; ``""`` for the one that it has here, or that its image names.
    """

    store: str
    id: str
    image: RowImage | None
    version: int = 0
    scope: str = ""


class Writeback(msgspec.Struct, frozen=True, kw_only=True):
    """Values that the local database takes over in one transaction; taken over twice, they change nothing more.

    Attributes:
        rows: Rows as the authority has them; what is pending on them stays visible over them.
        missing: Rows that the authority does not have: they go, unless something is pending on them.
        verdicts: What became of pending mutations, by idempotency key; keys that are not pending are passed over.
        as_of: How many writes this client had settled when the authority was asked: a row that was settled since is newer
            than the one in ``rows`` or ``missing``, and stays. None where that cannot be.
        replication: What the part that was registered for sync has to change in the same transaction; None for nothing.
        durability: What it survives. ``normal`` for what can be asked for again; None is the database's own: ``full`` as
            soon as anything replicates, since a hub forgets what is reported as settled here.
        versions: Whether the versions of the rows are asked for.
        short: Whether it takes no longer than a write of a few rows, so that a thread would cost more than it.
    """

    rows: Sequence[ConfirmedRow] = ()
    missing: Sequence[ConfirmedRow] = ()
    verdicts: Mapping[str, Outcome] = MappingProxyType({})
    as_of: int | None = None
    replication: object = None
    durability: Durability | None = None
    versions: bool = False
    short: bool = False


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a writeback.

    Attributes:
        versions: Versions here of those of its rows that are visible as they are confirmed, if they were asked for.
        kept: Rows of ``missing`` that stay, because something is pending on them or they are newer.
        told: What the part that was registered for sync has to report.
    """

    versions: Mapping[tuple[str, str], int] = MappingProxyType({})
    kept: frozenset[tuple[str, str]] = frozenset()
    told: object = None
