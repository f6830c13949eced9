"""The command line: ``atoma demo``, ``atoma sync …``, ``atoma hub …``."""

from __future__ import annotations

from atoma.cli.main import main

__all__ = ["main"]
