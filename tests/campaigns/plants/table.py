"""The table of planted violations, put together from its groups of rows."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants import (
    access,
    bounds,
    contracts,
    devices,
    durability,
    hosts,
    kernel,
    layers,
    presence,
    queries,
    repair,
    rows,
    runtime,
    scopes,
    tools,
    weak,
    wire,
)
from tests.campaigns.plants.plant import Plant

TABLE: Final[tuple[Plant, ...]] = (
    *layers.PLANTS,
    *contracts.PLANTS,
    *kernel.PLANTS,
    *runtime.PLANTS,
    *wire.PLANTS,
    *durability.PLANTS,
    *weak.PLANTS,
    *bounds.PLANTS,
    *repair.PLANTS,
    *access.PLANTS,
    *presence.PLANTS,
    *queries.PLANTS,
    *devices.PLANTS,
    *rows.PLANTS,
    *tools.PLANTS,
    *hosts.PLANTS,
    *scopes.PLANTS,
)
EXCUSED: Final[dict[str, str]] = {
    "A83": "a file that is not where the design says cannot be planted by changing text; the test is a list of paths",
    "A84": "the history of the project shows it; there is no code that could break it",
}
"""Rows without a plant, each with the reason."""
