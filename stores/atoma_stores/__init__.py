"""The stores of rows: SQLite, PostgreSQL for a hub, and the plugin that executes locally."""

from __future__ import annotations

from atoma.contracts.extras import refuse_namesake

refuse_namesake()
