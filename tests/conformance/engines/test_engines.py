"""The SQLite engine keeps what every engine promises: on a file, inline and on threads, and in memory."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from atoma.ports import LocalEngine
from atoma.testing.conformance import ENGINE_CHECKS, EngineSite, NotChecked, check_promise
from atoma_stores.sqlite import SQLiteEngine


@dataclass(frozen=True)
class SQLiteSite:
    name: str
    virtual: bool
    durable: bool = True

    @asynccontextmanager
    async def open_site(self) -> AsyncGenerator[LocalEngine]:
        if not self.durable:
            yield SQLiteEngine(":memory:")
            return
        with tempfile.TemporaryDirectory() as folder:
            yield SQLiteEngine(f"{folder}/notes.db")


SITES: dict[str, EngineSite] = {
    site.name: site
    for site in (
        SQLiteSite("file-inline", virtual=True),
        SQLiteSite("file-threads", virtual=False),
        SQLiteSite("memory", virtual=True, durable=False),
    )
}
NEED_A_PLACE = {"what_was_committed_is_there_after_opening_again", "volatile_writes_do_not_outlive_the_program"}


@pytest.fixture(params=[pytest.param(n, marks=[pytest.mark.virtual_time] * s.virtual) for n, s in SITES.items()])
def site(request: pytest.FixtureRequest) -> EngineSite:
    return SITES[request.param]


@pytest.mark.paths
@pytest.mark.parametrize("check", ENGINE_CHECKS)
async def test_the_engine_keeps_its_promises(site: EngineSite, check: str) -> None:
    try:
        await check_promise(site, ENGINE_CHECKS[check])
    except NotChecked:
        assert check in NEED_A_PLACE
        assert not site.durable
