"""What other tests have left in the thread of the tests is out of sight of these, which ask which loop runs here."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def no_loop_of_others() -> Iterator[None]:
    """Playwright's blocking interface leaves its asyncio loop marked as running between its calls."""
    left = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(left)
