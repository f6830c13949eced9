"""The table of planted violations, put together from its groups of rows."""

from __future__ import annotations

from typing import Final

from tests.campaigns.plants.plant import Plant

TABLE: Final[tuple[Plant, ...]] = ()
EXCUSED: Final[dict[str, str]] = {}
"""Rows without a plant, each with the reason."""
