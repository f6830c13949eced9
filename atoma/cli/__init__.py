"""The command line: ``atoma demo``."""

from __future__ import annotations

from atoma.cli.main import main

__all__ = ["main"]
