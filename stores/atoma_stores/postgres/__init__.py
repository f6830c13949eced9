"""A hub's database on PostgreSQL, for any number of equal hub processes; needs the extra ``postgres``."""

from __future__ import annotations

from atoma.contracts.extras import needs_extra

with needs_extra("postgres"):
    from atoma_stores.postgres.hub_store import PostgreSQLHubStore

__all__ = ["PostgreSQLHubStore"]
