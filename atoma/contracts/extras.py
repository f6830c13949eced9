"""The extras of the distribution: libraries that not every program needs, and the message when one is missing."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager

DISTRIBUTION = "atoma-runtime"
OWN = ("atoma", "atoma_stores", "atoma_transports")
IN_THE_NAMESAKE = "parse_rss_file"
"""A name that the feed parser has and this package does not."""


def install_line(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install '{DISTRIBUTION}[{extra}]'"


@contextmanager
def needs_extra(extra: str) -> Generator[None]:
    """Make imports in the block that find no library say which extra contains it.

    Raises:
        ModuleNotFoundError: As without the block, but with that message.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing.partition(".")[0] in OWN:
            raise
        raise ModuleNotFoundError(f"{missing} is not installed: {install_line(extra)}", name=missing) from None


def refuse_namesake() -> None:
    """Make sure that the package ``atoma`` is this project's.

    The package index has a feed parser of the same name. If it is installed later, it replaces ``atoma/__init__.py`` and leaves the rest.

    Raises:
        ImportError: The package is that parser's.
    """
    if hasattr(sys.modules[OWN[0]], IN_THE_NAMESAKE):
        raise ImportError(
            "another distribution has replaced the package 'atoma', the feed parser of that name: "
            f"pip uninstall {OWN[0]}, then pip install --force-reinstall --no-deps {DISTRIBUTION}"
        )
