"""The hub that is attacked: ``python -m benchmarks.attacks.hub FOLDER`` prints its port, then answers questions.

It has short rows, and a few whose text is as long as attackers like them, and the inspector of a client in the same program.
Each answer tells the CPU of the process and the most memory it has had, and the longest that one step of a task has held the
loop since the question before, in CPU seconds of the loop's thread: what other programs take of the machine does not count.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import trio

from atoma import Schema, StaticTokenVerifier, StoreSpec, new_id, open_client, open_hub
from atoma.contracts.execution import OperationContext, WriteOptions, WriteRequest
from atoma.contracts.mutations import Op
from atoma.hub import Hub, open_garbage_collection
from atoma.inspector import Inspected, Inspection, add_inspector
from atoma.ports import Principal
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.http import HttpHandler
from atoma_transports.serving import open_server
from benchmarks.programs import allow_files, answer_questions, peak, tell

BYSTANDER, ATTACKER = "token of the bystander", "token of the attacker"
SHORT, LONG, LONG_LETTERS = 2_000, 8, 300_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    id: str = field(default_factory=new_id)
    text: str


NOTES = StoreSpec("notes", Note)
SCHEMA = Schema(NOTES)


class Holds(trio.abc.Instrument):
    """Notices the longest step of a task."""

    def __init__(self) -> None:
        self._clock = time.pthread_getcpuclockid(threading.get_ident())
        self._began = math.inf
        self._longest_s = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._began = time.clock_gettime(self._clock)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        began, self._began = self._began, math.inf
        self._longest_s = max(self._longest_s, time.clock_gettime(self._clock) - began)

    def take(self) -> float:
        """The longest since it was asked last, a step that has not ended included; called in any thread."""
        longest, self._longest_s = self._longest_s, 0.0
        return max(longest, time.clock_gettime(self._clock) - self._began)


async def fill(hub: Hub) -> None:
    """Write the rows."""
    service = hub.service(Principal("owner"))
    batches = [[f"short-{n + k}" for k in range(500)] for n in range(0, SHORT, 500)] + [
        [f"long-{n}"] for n in range(LONG)
    ]
    for number, ids in enumerate(batches):
        letters = LONG_LETTERS if ids[0].startswith("long") else 20
        entries = tuple(Op("create", "notes", id, {"text": "a" * letters}, scope="main") for id in ids)
        request = WriteRequest(entries, WriteOptions(atomic=True), OperationContext("fill"), f"{new_id()}-{number}")
        result = await service.write(request)
        assert all(item.ok for item in result.items), result.items[0].error


async def serve(folder: Path) -> None:
    """Serve until killed."""
    verifier = StaticTokenVerifier({BYSTANDER: "ada", ATTACKER: "mallory"})
    eye = Inspection()
    plugins = [LocalExecution(SQLiteEngine(folder / "client.db")), eye]
    async with (
        open_hub(SCHEMA, SQLiteHubStore(folder / "hub.db"), verifier=verifier) as hub,
        open_client(SCHEMA, plugins=plugins) as client,
    ):
        await fill(hub)
        pages = HttpHandler()
        add_inspector(pages, [Inspected("main", "A client", client, eye)])
        async with open_server(hub, "127.0.0.1:0", pages=pages) as address, open_garbage_collection():
            tell({"port": int(address.rpartition(":")[2])})
            await trio.sleep_forever()


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    allow_files(8192)
    holds = Holds()
    further = (lambda: {"held_s": holds.take(), "peak": peak()},)
    threading.Thread(target=answer_questions, args=further, daemon=True).start()
    trio.run(serve, Path(sys.argv[1]), instruments=[holds])
