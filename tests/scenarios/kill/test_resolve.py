"""kill -9 of a hub between a direct write and its answer: what resolving the key tells is what the file says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest
import trio

from atoma import Client, Schema, StoreSpec, new_id, open_client
from atoma.contracts.execution import OperationContext, Resolution, WriteOptions, WriteRequest
from atoma.contracts.mutations import Op
from atoma.errors import WriteUnknown
from atoma.ports import Transport
from atoma_transports.adapters import ServiceProxy
from atoma_transports.grpc import GrpcTransport
from atoma_transports.http import HttpTransport
from atoma_transports.remote import Remote
from atoma_transports.websocket import WebSocketTransport

PROGRAMS = Path(__file__).with_name("programs.py")
START_S = 60.0

pytestmark = [
    pytest.mark.xdist_group("machine"),
    pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str
    text: str = ""


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)


@contextmanager
def hub(role: str, file: Path, port: int = 0) -> Generator[tuple[subprocess.Popen[str], int]]:
    """The hub's process and its port."""
    command = [sys.executable, str(PROGRAMS), role, str(file), str(port)]
    with file.with_suffix(".log").open("a") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    try:
        bound = process.stdout.readline()
        assert bound, file.with_suffix(".log").read_text()
        yield process, int(bound.rpartition(":")[2])
    finally:
        process.kill()
        process.communicate(timeout=30)


def transport(wire: str, port: int) -> Transport:
    if wire == "grpc":
        return GrpcTransport(f"grpc://127.0.0.1:{port}")
    if wire == "http":
        return HttpTransport(f"http://127.0.0.1:{port}")
    return WebSocketTransport(f"ws://127.0.0.1:{port}/sync")


def rows(file: Path) -> dict[str, str]:
    with closing(apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        return dict(connection.execute("SELECT id, text FROM notes"))


async def resolve(client: Client, write: WriteUnknown | str) -> Resolution:
    with trio.fail_after(START_S):
        while True:
            try:
                return await client.resolve(write)
            except WriteUnknown:
                await trio.sleep(0.05)


async def late_copy(wire: str, port: int, key: str, *ids: str) -> list[str]:
    """What a copy of a write is answered that comes after everything."""
    entries = tuple(Op("create", "notes", id, {"text": "late"}, scope="main") for id in ids)
    async with transport(wire, port).connect() as channel:
        request = WriteRequest(entries, WriteOptions(), OperationContext("late"), key)
        return [item.error.code if item.error else "" for item in (await ServiceProxy(channel).write(request)).items]


@pytest.mark.parametrize("wire", ["websocket", "grpc", "http"])
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_killed_hub_tells_the_truth_when_it_is_back(wire: str, when: str, tmp_path: Path) -> None:
    file, done, never = tmp_path / "hub.db", when == "after", new_id()
    with hub("mortal", file) as (process, port):
        async with open_client(SCHEMA, plugins=[Remote(transport(wire, port))], policy="direct-remote") as client:
            notes = client.store(NOTES)
            await notes.insert(Note(id="taken"), confirm="strict")
            with pytest.raises(WriteUnknown) as lost, trio.fail_after(START_S):
                await notes.insert_many([Note(id="new", text=f"die {when}"), Note(id="taken")], confirm="strict")
            await trio.to_thread.run_sync(process.wait)
            told = {"taken": "", "new": "die after"} if done else {"taken": ""}
            for asked_first in (True, False):
                with hub("hub", file, port):
                    found = await resolve(client, lost.value)
                    assert found.abandoned is not done
                    if found.result is not None:
                        assert [item.ok for item in found.result.items] == [True, False]
                    codes = ["", "CONFLICT"] if done else ["ABANDONED", "ABANDONED"]
                    assert await late_copy(wire, port, lost.value.idem, "new", "taken") == codes
                    if asked_first:
                        assert (await resolve(client, never)).abandoned
                    assert await late_copy(wire, port, never, "never sent") == ["ABANDONED"]
                    assert rows(file) == told
