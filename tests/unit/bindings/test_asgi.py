"""A hub as an ASGI application, without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoma import Hub, StaticTokenVerifier, open_hub
from atoma.bindings.asgi import HubApp
from atoma.ports.loops import Lifetime
from atoma_stores.sqlite import SQLiteHubStore
from tests.unit.bindings.kit import SCHEMA, under_asyncio


def test_a_hub_that_could_not_be_opened_is_opened_again(tmp_path: Path) -> None:
    tries: list[int] = []

    def make() -> Lifetime[Hub]:
        tries.append(len(tries))
        if len(tries) == 1:
            raise LookupError("whatever the application needs for it is not there yet")
        return open_hub(SCHEMA, SQLiteHubStore(tmp_path / "hub.db"), verifier=StaticTokenVerifier({"a token": "ada"}))

    async def main() -> None:
        app = HubApp(make)
        with pytest.raises(LookupError, match="not there yet"):
            async with app.opened():
                pytest.fail("it must not open")
        async with app.opened():
            assert (tmp_path / "hub.db").exists()

    under_asyncio(main)
    assert tries == [0, 1]
