"""The operator's page and the user's page, followed to the letter: every shell block is run as it stands, in order."""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import trio

from tests.scenarios.cli.kit import TASKS, TOKEN, atoma_beside, device, settle, task, titles
from tests.scenarios.cli.test_litestream import LITESTREAM, until_replicated

HERE = Path(__file__).parent
PAGES = Path(__file__).parents[3] / "docs" / "how-to"
BLOCK = re.compile(r"^```(sh|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS_MAX = 60

pytestmark = [
    pytest.mark.xdist_group("machine"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the service manager of these tests needs /proc"),
]


@dataclass
class Page:
    """A page and the folder in which it is followed.

    Attributes:
        blocks: Its shell blocks that were not run yet.
        yaml: Its YAML blocks.
        folder: Where they run.
        url: Where the hub can be reached.
    """

    blocks: list[str]
    yaml: list[str]
    folder: Path
    url: str
    environment: dict[str, str]

    async def follow(self, begins: str = "") -> str:
        """Run the next block as it stands; what it printed. ``begins`` says which one is expected."""
        block = self.blocks.pop(0)
        assert begins in block
        return await self.shell(block)

    async def shell(self, text: str) -> str:
        command = ["bash", "-euo", "pipefail", "-c", text]
        run = await trio.to_thread.run_sync(
            partial(
                subprocess.run, command, cwd=self.folder, env=self.environment, timeout=SECONDS_MAX, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
        )  # fmt: skip
        assert run.returncode == 0, run.stdout
        output: str = run.stdout
        return output

    def titles(self) -> list[str]:
        return [title.removeprefix("task ") for title in titles(self.folder / "hub.db")]


@pytest.fixture
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    """The page that the test is named after, with its tools on the path and a port of its own."""
    text = (PAGES / request.param).read_text(encoding="utf-8")
    found = BLOCK.findall(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"ws://127.0.0.1:{port}/sync"
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, command in {"atoma": ["-m", "atoma"], "systemctl": [str(HERE / "services.py")]}.items():
        (tools / name).write_text(f'#!/bin/sh\nexec {shlex.join([sys.executable, *command])} "$@"\n')
        (tools / name).chmod(0o755)
    if LITESTREAM is not None:
        (tools / "litestream").symlink_to(LITESTREAM)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "PORT": str(port), "HUB": url}
    yield Page(
        [b for kind, b in found if kind == "sh"], [b for kind, b in found if kind == "yaml"], tmp_path, url, environment
    )
    stopping = ["systemctl", "stop", "atoma-hub", "litestream"]
    subprocess.run(stopping, cwd=tmp_path, env=environment, check=False, timeout=SECONDS_MAX)


@pytest.mark.parametrize("page", ["back-up.md"], indirect=True)
async def test_the_operators_page(page: Page) -> None:
    file = page.folder / "a.db"

    async def change(*, insert: str = "", delete: str = "") -> None:
        """Something happens on a device, or it only calls; twice, as it may be told something at the first call."""
        for _ in range(2):
            async with device(file, page.url) as client:
                if insert:
                    await client.store(TASKS).insert(task(int(insert)))
                if delete:
                    await client.store(TASKS).delete(delete)
                insert = delete = ""
                await settle(client)

    await page.shell("systemctl start atoma-hub")
    await change(insert="1")
    await change(insert="2")
    assert "checked, on the disk" in await page.follow("atoma hub backup hub.db backup.db")
    await change(insert="3", delete="1")
    told = await page.follow("atoma hub restore")
    assert "hub.db: restored" in told and "devices bring back what they have received" in told
    assert page.titles() == ["1", "2"]
    await change()
    assert page.titles() == ["2", "3"], "deletions too"

    (page.folder / "litestream.yml").write_text(page.yaml.pop(0))
    if LITESTREAM is None:
        page.blocks.pop(0)
        await change(insert="4")
    else:
        await page.shell("systemctl start litestream")
        here = trio.Path(page.folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(here)
            await until_replicated(Path("litestream.yml"), Path("hub.db"), ["task 2", "task 3"], page.folder)
        await page.shell("systemctl stop litestream")  # what comes now is what it had not sent away yet
        await change(insert="4", delete="2")
        await page.follow("litestream restore")
        await change()
        assert page.titles() == ["2", "3", "4"], "the hub has 2, and nobody was asked"
        await page.shell("systemctl stop litestream")

    file = page.folder / "b.db"  # a file that was repaired twice within ten minutes waits before the next time
    await change()
    await page.shell("rm backup.db && atoma hub backup hub.db backup.db")  # the one of the next day
    await change(insert="5", delete="2")
    await page.follow("cp backup.db hub.db")
    await change()
    assert page.titles() == ["2", "3", "4", "5"], "the hub has 2, and nobody was asked"
    listed = await page.follow("atoma hub epochs hub.db")
    assert listed.count("not back yet") == (3 if LITESTREAM else 2)
    assert "held back on the devices; --allow-deletes" in listed
    await page.follow("--allow-deletes last")
    await change()
    assert page.titles() == ["3", "4", "5"]
    assert page.blocks == [] and page.yaml == []


@pytest.mark.parametrize("page", ["restored-device.md"], indirect=True)
async def test_the_users_page(page: Page) -> None:
    file, second = page.folder / "app.db", page.folder / "second.db"
    (page.folder / "token").write_text(f"{TOKEN}\n")
    await page.shell("systemctl start atoma-hub")
    async with device(file, page.url) as client:
        await client.store(TASKS).insert(task(1))
        await settle(client)
    assert (await atoma_beside("hub", "backup", page.folder / "hub.db", page.folder / "backup.db")).code == 0
    async with device(file, page.url) as client:
        await client.store(TASKS).insert(task(2))
        await settle(client)
    await page.shell(
        "systemctl stop atoma-hub && atoma hub restore backup.db hub.db --devices offer && systemctl start atoma-hub"
    )

    assert "pending     nothing" in await page.follow("atoma sync status app.db")
    told = await page.follow("atoma sync repair app.db")
    assert "app.db: this would be done" in told and "app.db: repaired" in told
    assert told.count("HUB_LOST_DATA") == 2 and "synced with the hub, 0 writes pending" in told
    assert page.titles() == ["1", "2"]

    await page.shell("atoma backup app.db older.db")
    async with device(file, page.url) as client:
        await client.store(TASKS).insert(task(5))
        await settle(client)
        await page.shell("cp app.db-wal left")
    await page.shell("mv left app.db-wal")  # as from a program that was killed
    told = await page.shell("cp older.db app.db && ! atoma check app.db")  # the log forgotten
    assert "app.db-wal, belongs to another state" in told and "Nothing was changed" in told
    await page.follow("cp older.db app.db")
    async with device(file, page.url) as client:
        await settle(client)
        assert [report.cause for report in await client.sync.repairs()] == ["HUB_LOST_DATA", "CLIENT_FORKED"]
    assert titles(file) == titles(page.folder / "hub.db")

    assert "second.db: takes a new identity" in await page.follow("atoma sync new-identity")
    async with device(second, page.url) as twin, device(file, page.url) as client:
        await twin.store(TASKS).insert(task(3))
        await client.store(TASKS).insert(task(4))
        await settle(twin)
        await settle(client)
        causes = [[report.cause for report in await one.sync.repairs()] for one in (client, twin)]
        assert causes == [["HUB_LOST_DATA", "CLIENT_FORKED"], ["HUB_LOST_DATA", "CLIENT_FORKED", "CLIENT_FORKED"]]
    assert page.titles() == ["1", "2", "3", "4", "5"]
    assert page.blocks == []
