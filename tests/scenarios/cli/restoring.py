"""Kills a restore at every place, and tells what a hub finds then.

restoring.py FILE BACKUP

Before each call of the operating system that changes something, and before each statement of SQLite's, the process ends
as by kill -9; the next round goes one place further, until the restore is done. FILE is set back before each round.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import trio

from atoma.hub import AllowLoopback, open_hub
from atoma.ports import Environment
from atoma_stores.sqlite import SQLiteHubStore, hub_files
from tests.scenarios.cli.kit import SCHEMA, titles

EVERY = 10
"""At every tenth place it is also restored again."""
CALLS = ("open", "replace", "link", "unlink", "fsync", "ftruncate", "write", "close")


class Countdown:
    """Ends the process at the given place."""

    def __init__(self, places: int) -> None:
        self.left = places

    def step(self, *_: Any) -> bool:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return True

    def before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.step()
            return call(*arguments, **named)

        return counted


def restore(file: Path, backup: Path) -> None:
    hub_files.restore(str(backup), str(file), "forget", Environment())


def killed_at(place: int, file: Path, backup: Path) -> bool:
    """Restore in a process of its own that dies at ``place``; whether it was done before."""
    child = os.fork()
    if not child:
        countdown = Countdown(place)
        for name in CALLS:
            setattr(os, name, countdown.before(getattr(os, name)))
        apsw.connection_hooks.append(lambda connection: setattr(connection, "exec_trace", countdown.step))
        restore(file, backup)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return False
    assert os.WEXITSTATUS(status) == 0
    return True


async def words(file: Path) -> list[str]:
    """What a hub that starts on the file says of the epochs that have ended."""
    async with open_hub(SCHEMA, SQLiteHubStore(file), verifier=AllowLoopback()) as hub:
        return [ended.devices for ended in await hub.epochs()]


def main(file: Path, backup: Path) -> None:
    kept = file.parent / "kept"
    shutil.copytree(file.parent, kept)
    place, finished = 0, False
    while not finished:
        for left in file.parent.glob(f"{file.name}*"):
            left.unlink()
        for source in kept.glob(f"{file.name}*"):
            shutil.copy(source, file.parent / source.name)
        finished = killed_at(place, file, backup)
        found = {"place": place, "finished": finished, "words": trio.run(words, file), "titles": titles(file)}
        if not place % EVERY:
            restore(file, backup)
            found["again"] = titles(file)
        print(json.dumps(found))
        place += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
