"""What an open client says of itself to somebody who helps, and what it keeps to itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from atoma import col, select
from atoma.errors import AtomaError
from atoma.inspector import Inspection
from atoma.telemetry import support_bundle
from tests.scenarios.cli.kit import SCHEMA, TASKS, TOKEN, device, running_hub, settle, task

pytestmark = pytest.mark.xdist_group("machine")


async def test_a_bundle_says_how_a_client_is_and_nothing_of_its_rows(tmp_path: Path) -> None:
    eye, file = Inspection(), tmp_path / "the-name-of-the-file.db"
    async with running_hub(tmp_path / "hub.db") as (_, url), device(file, url, plugins=[eye]) as client:
        store = client.store(TASKS)
        await store.insert_many(
            [task(number, id=f"secret-id-{number}", title=f"secret-title {number}") for number in range(3)]
        )
        await store.update("secret-id-1", done=True)
        await settle(client)
        with pytest.raises(AtomaError):
            await client.query(
                select(TASKS).where(col("title") == "secret-title 9").limit(11_000), policy="direct-remote"
            )
        async with client.live(select(TASKS).where(col("title") == "secret-title 1")):
            await trio.lowlevel.checkpoint()
            text = (await support_bundle(client, eye)).json()
    told = json.loads(text)
    tasks = told["stores"]["tasks"]
    assert (tasks["rows"], tasks["synced"], tasks["scoped"], tasks["fields"]["title"]) == (3, True, True, "text")
    assert (told["state"], told["schema"], told["pending"], told["inbox"]) == ("online", SCHEMA.version, 0, 0)
    assert [scope["state"] for scope in told["scopes"]] == ["live", "live"] and told["scopes"][0]["cursor"] == 4
    assert [query["store"] for query in told["live"]] == ["tasks"]
    assert {trail["kind"] for trail in told["trails"]} == {"write", "query"}
    assert "TOO_LARGE" in {trail["code"] for trail in told["trails"]}
    assert all(step["node"] in told["nodes"] for trail in told["trails"] for step in trail["steps"])
    for secret in ("secret", "ann", "red", "blue", "the-name-of-the-file", str(tmp_path), TOKEN, url):
        assert f'"{secret}' not in text and (len(secret) < 5 or secret not in text), secret
