"""RxDB 17 against a real hub: two of its clients and a device of ours end equal, whatever happens in between."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from atoma import Client, Hub, Schema, StaticTokenVerifier, StoreSpec, Sync, open_client, open_hub
from atoma.plugins import Plugin
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.remote import Remote
from atoma_transports.serving import open_server
from atoma_transports.websocket import WebSocketTransport
from tests.npm import beside, node_command

pytestmark = pytest.mark.xdist_group("machine")
PACKAGES = {"rxdb": "17.6.0", "rxjs": "7.8.2", "eventsource": "4.0.0"}
HERE = Path(__file__).parent
PAGE = HERE.parents[2] / "docs" / "how-to" / "speak-http.md"
TOKEN = "token-of-everybody"
PATIENCE_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    id: str
    title: str
    board: str = "main"
    done: bool = False
    hours: float = 0.0
    note: str | None = None


TASKS = StoreSpec("tasks", Task, scope="board")
SCHEMA = Schema(TASKS)


@dataclass
class RxClients:
    """The clients in one program."""

    process: trio.Process
    _answers: bytearray = field(default_factory=bytearray)

    async def __call__(self, name: str, act: str, **argument: Any) -> Any:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        line = json.dumps({"name": name, "act": act, "argument": argument})
        await stdin.send_all(line.encode() + b"\n")
        with trio.fail_after(PATIENCE_S):
            while b"\n" not in self._answers:
                data = await stdout.receive_some()
                assert data, "the program has ended"
                self._answers += data
        told, _, rest = bytes(self._answers).partition(b"\n")
        self._answers[:] = rest
        answer = json.loads(told)
        assert "error" not in answer, answer["error"]
        return answer["value"]


def replicating() -> str:
    """The set-up that the page shows."""
    shown: list[str] = re.findall(r"```js\n(// replicate\.mjs\n.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return shown[0]


@dataclass
class World:
    """A hub, a device of ours and a program with RxDB clients."""

    hub: Hub
    device: Client
    rx: RxClients

    async def rows(self) -> dict[str, Any]:
        """What the device has, as documents are."""
        found = await self.device.store(TASKS).get_all()
        return {task.id: {name: value for name, value in asdict(task).items() if value is not None} for task in found}

    async def meet(self, *names: str) -> dict[str, Any]:
        """What the device and the clients all have in the end."""
        seen: list[dict[str, Any]] = []
        with trio.move_on_after(PATIENCE_S):
            while True:
                seen = [await self.rows(), *[await self.rx(name, "rows") for name in names]]
                if all(each == seen[0] for each in seen) and not self.device.sync.status.pending:
                    return seen[0]
                await trio.sleep(0.05)
        raise AssertionError((seen, [await self.rx(name, "errors") for name in names]))


@asynccontextmanager
async def open_world(folder: Path) -> AsyncGenerator[World]:
    program = beside(PACKAGES, HERE / "node" / "rxdb_clients.mjs", folder)
    (folder / "replicate.mjs").write_text(replicating(), encoding="utf-8")
    verifier = StaticTokenVerifier({TOKEN: "ada"})
    async with (
        open_hub(SCHEMA, SQLiteHubStore(str(folder / "hub.db")), verifier=verifier) as hub,
        open_server(hub, "127.0.0.1:0") as address,
    ):
        plugins: list[Plugin] = [
            LocalExecution(SQLiteEngine(folder / "device.db")),
            Remote(WebSocketTransport(f"ws://{address}/sync", token=TOKEN)),
            Sync(stores=[TASKS], scopes=["main"]),
        ]
        async with open_client(SCHEMA, plugins=plugins) as device, trio.open_nursery() as nursery:
            command = [*node_command(program), f"http://{address}", TOKEN]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            process = await nursery.start(partial(trio.run_process, command, **pipes))
            yield World(hub, device, RxClients(process))
            nursery.cancel_scope.cancel()


def task(id: str, title: str, **more: Any) -> dict[str, Any]:
    return {"id": id, "title": title, "board": "main", **more}


async def test_two_rxdb_clients_and_a_device_end_equal(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        rx, store = world.rx, world.device.store(TASKS)
        for name in ("one", "two"):
            await rx(name, "online")
        await store.insert(Task(id="1", title="tea"))
        await rx("one", "insert", **task("2", "milk", done=True, hours=1.5))
        met = await world.meet("one", "two")
        assert met == {
            "1": task("1", "tea", done=False, hours=0),
            "2": task("2", "milk", done=True, hours=1.5),
        }

        await rx("one", "offline")  # edits of both sides, of different rows and of one
        await rx("one", "patch", id="1", title="tea of one")
        await rx("one", "insert", **task("3", "bread"))
        await rx("one", "remove", id="2")
        await rx("two", "patch", id="1", note="of two")
        await world.meet("two")
        await store.update("1", hours=2.0)
        await world.meet("two")
        await rx("one", "online")
        met = await world.meet("one", "two")
        assert met.keys() == {"1", "3"}
        assert met["1"] == task("1", "tea", done=False, hours=2, note="of two"), (
            "the hub's state wins, as it does by default"
        )

        await rx("two", "offline")
        await store.delete("3")
        await store.insert_many([Task(id=f"n{number}", title=f"{number}") for number in range(250)])
        await rx("two", "patch", id="1", title="after a compaction")
        await rx("two", "insert", **task("4", "made meanwhile"))
        await world.meet("one")
        await world.hub.compact(keep=0)
        await rx("two", "online")
        met = await world.meet("one", "two")
        assert len(met) == 252 and met["1"]["title"] == "after a compaction" and "4" in met
        assert not any("RESYNC" in each for each in await rx("two", "errors")), "the client has gone on by itself"

        await world.hub.new_epoch()
        await store.delete("4")
        await rx("one", "insert", **task("5", "in a new epoch"))
        met = await world.meet("one", "two")
        assert "5" in met and "4" not in met


async def test_what_the_hub_refuses_is_taken_back(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        await world.rx("one", "online")
        await world.rx("one", "insert", **task("1", "tea"))
        await world.meet("one")
        await world.rx("one", "insert", **{**task("2", "milk"), "board": "another"})
        await world.rx("one", "patch", id="1", board="another")
        assert (await world.meet("one")).keys() == {"1"}


async def test_a_pull_that_overtakes_the_answer_to_a_push_loses_nothing(tmp_path: Path) -> None:
    async with open_world(tmp_path) as world:
        await world.rx("one", "overtake")
        await world.rx("one", "insert", **task("1", "tea"))
        await world.rx("one", "online")
        assert (await world.meet("one"))["1"] == task("1", "tea", done=False, hours=0)
