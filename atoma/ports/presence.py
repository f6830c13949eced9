"""What several processes of one hub tell each other and nobody keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, runtime_checkable

NOTICE_BYTES = 5_000
"""Most bytes of one notice."""


class Notices(Protocol):
    """The way to the other processes."""

    async def say(self, notices: Sequence[bytes]) -> None:
        """Tell every other process, in this order; a notice that is lost is not said again.

        Raises:
            StoreError: The database failed; some of the notices may have been told.
        """
        ...


@runtime_checkable
class CarriesNotices(Protocol):
    """A hub database over which its processes tell each other what is never stored."""

    def open_notices(self, heard: Callable[[bytes], None]) -> AbstractAsyncContextManager[Notices]:
        """Call ``heard`` inside the block with what other processes say, and may be their own; in the loop's thread."""
        ...
