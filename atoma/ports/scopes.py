"""Bringing along what a query looks at: offered by replication, used by whoever follows or fetches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from atoma.contracts.query import BoundQuery
from atoma.ports.loops import Lifetime
from atoma.schema.shapes import ScopePart


class BringsScopes(Protocol):
    """Whoever has scopes replicate for as long as somebody needs them."""

    def hold_for(self, query: BoundQuery, parts: Sequence[ScopePart] | None = None) -> Lifetime[None]:
        """Have the scopes that ``query``, which is checked, looks at replicate for as long as the block lasts, or ``parts`` instead.

        Raises:
            QueryError: It does not name its scopes, or a value of a part does not fit.
            AtomaError: They cannot be brought along.
        """
        ...
