"""Pictures of what the examples show."""

from __future__ import annotations

import os
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs/images"
PICTURES = os.environ.get("ATOMA_SCREENSHOTS") == "1"
"""Pictures in the documentation are made anew by the tests that drive what they show."""
