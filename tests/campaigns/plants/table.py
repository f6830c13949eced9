"""The table of planted violations, put together from its groups of rows."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants import contracts, kernel, layers, runtime
from tests.campaigns.plants.plant import Plant

TABLE: Final[tuple[Plant, ...]] = (*layers.PLANTS, *contracts.PLANTS, *kernel.PLANTS, *runtime.PLANTS)
EXCUSED: Final[dict[str, str]] = {}
"""Rows without a plant, each with the reason."""
