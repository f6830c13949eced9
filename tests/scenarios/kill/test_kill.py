"""kill -9 on real processes: what was reported as written is never lost, never doubled, and nothing else appears."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

pytestmark = pytest.mark.xdist_group("machine")

PROGRAMS = Path(__file__).with_name("programs.py")
ROUNDS = 12
SOAK_ROUNDS = int(os.environ.get("ATOMA_SOAK_KILLS", "500"))
START_S = 60.0


@dataclass
class Loop:
    """A hub and a writer on files, killed again and again.

    Attributes:
        reported: Tokens of the writes that have returned, as the writer said through its pipe.
        kills: Processes killed.
    """

    folder: Path
    dice: random.Random
    bug: str = ""
    port: int = 0
    hub: subprocess.Popen[str] | None = None
    reported: set[str] = field(default_factory=set)
    kills: Counter[str] = field(default_factory=Counter)

    def start(self, role: str, file: str, *rest: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(PROGRAMS), role, str(self.folder / file), str(self.port), *rest]
        with (self.folder / f"{role}.log").open("a") as log:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)

    def start_hub(self) -> None:
        self.hub = self.start("hub", "hub.db")
        assert self.hub.stdout is not None
        bound = self.hub.stdout.readline()
        assert bound, (self.folder / "hub.log").read_text()
        self.port = int(bound.rpartition(":")[2])

    def kill_hub(self) -> None:
        assert self.hub is not None
        end(self.hub)
        self.kills["hub"] += 1

    def round(self, number: int) -> None:
        """Start a writer and kill it at some moment; sometimes the hub too, before or after."""
        writer = self.start("writer", "client.db", f"r{number}", self.bug)
        assert writer.stdout is not None
        if self.dice.random() < 0.85:  # otherwise it is killed while it opens its file
            first = writer.stdout.readline()
            assert first, (self.folder / "writer.log").read_text()
            self.reported.add(first.strip())
        if self.dice.random() < 0.3:
            time.sleep(self.dice.random() * 0.2)
            self.kill_hub()
            if self.dice.random() < 0.5:
                self.start_hub()
        time.sleep(self.dice.random() * 0.4)
        rest = end(writer)
        self.kills["writer"] += 1
        self.reported.update(line for line in rest.split("\n")[:-1] if line)  # the last line may be torn
        if self.hub is not None and self.hub.poll() is not None:
            self.start_hub()

    def run(self, rounds: int) -> None:
        self.start_hub()
        try:
            for number in range(rounds):
                self.round(number)
                lost = self.lost()
                assert self.bug or not lost, f"after round {number}: lost {sorted(lost)[:5]} and {len(lost)} in all"
        finally:
            if self.hub is not None:
                end(self.hub)

    def drain(self) -> None:
        """Let everything that is left reach the hub."""
        self.start_hub()
        try:
            drained = self.start("drain", "client.db")
            assert drained.wait(timeout=180) == 0, (self.folder / "drain.log").read_text()
            drained.communicate()
        finally:
            assert self.hub is not None
            end(self.hub)

    def rows(self, file: str, sql: str) -> list[tuple[Any, ...]]:
        path = self.folder / file
        if not path.exists():
            return []
        with closing(apsw.Connection(str(path))) as connection:
            connection.set_busy_timeout(10_000)
            if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name='notes'").get:
                return []
            return connection.execute(sql).fetchall()

    def at_hub(self) -> list[str]:
        """The token of every change the hub has ever made, in order."""
        posts = self.rows("hub.db", "SELECT post FROM _atoma_hub_change WHERE idx=0 ORDER BY seq")
        return [msgspec.msgpack.decode(post)["text"] for (post,) in posts]

    def in_outbox(self) -> set[str]:
        bodies = self.rows("client.db", "SELECT body FROM _atoma_pending")
        return {op["values"]["text"] for (body,) in bodies for op in msgspec.msgpack.decode(body)["ops"]}

    def in_inbox(self) -> set[str]:
        return {
            msgspec.msgpack.decode(op)["values"]["text"]
            for (op,) in self.rows("client.db", "SELECT op FROM _atoma_inbox")
        }

    def at_client(self) -> dict[str, str]:
        return dict(self.rows("client.db", "SELECT id, text FROM notes"))

    def lost(self) -> set[str]:
        """Reported writes that are neither at the hub nor on their way."""
        outbox = self.in_outbox()  # first: what leaves it meanwhile is at the hub then
        return self.reported - outbox - set(self.at_hub()) - self.in_inbox()


def end(process: subprocess.Popen[str]) -> str:
    """Kill ``process`` for good; what it still had to say."""
    process.send_signal(signal.SIGKILL)
    rest, _ = process.communicate(timeout=30)
    return rest


def check(loop: Loop) -> None:
    """Zero lost, zero phantom, no doubles, both sides equal."""
    loop.drain()
    assert loop.lost() == set()
    hub, client = loop.at_hub(), loop.at_client()
    assert [token for token, times in Counter(hub).items() if times > 1] == [], "applied twice"
    assert loop.in_outbox() == loop.in_inbox() == set(), "an insert that came twice would have been rejected"
    assert dict(loop.rows("hub.db", "SELECT id, text FROM notes")) == client
    outcomes = loop.rows("hub.db", "SELECT mid, status, seq FROM _atoma_hub_outcome ORDER BY mid")
    written = msgspec.msgpack.decode(loop.rows("client.db", "SELECT value FROM _atoma_meta WHERE key='identity'")[0][0])
    assert [mid for mid, _, _ in outcomes] == list(range(1, written["next_mid"])), "a phantom, or a gap"
    assert {status for _, status, _ in outcomes} == {"applied"}
    assert [seq for _, _, seq in outcomes] == list(range(1, len(outcomes) + 1))
    for number in {token.partition(".")[0] for token in hub}:
        # the writer had come to some write when it was killed: all before it are there, in order
        of_round = [token for token in hub if token.partition(".")[0] == number]
        assert of_round == [f"{number}.{place}" for place in range(1, len(of_round) + 1)]
    assert all(client.get(id[:-1] + "b") == text for id, text in client.items() if id.endswith("a")), (
        "half a transaction"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_nothing_is_lost_doubled_or_invented(tmp_path: Path) -> None:
    seed = 20
    loop = Loop(tmp_path, random.Random(seed))
    loop.run(ROUNDS)
    print(f"seed {seed}: {dict(loop.kills)}, {len(loop.reported)} writes reported")
    assert loop.kills["writer"] == ROUNDS
    assert loop.kills["hub"] >= 2
    assert len(loop.reported) > 100
    check(loop)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_the_same_loop_shows_what_an_outbox_fed_by_events_loses(tmp_path: Path) -> None:
    loop = Loop(tmp_path, random.Random(20), bug="event-outbox")
    loop.run(ROUNDS // 2)
    lost = loop.lost()
    print(f"{len(lost)} of {len(loop.reported)} reported writes lost in {loop.kills['writer']} kills")
    assert len(lost) > 0


@pytest.mark.soak
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_many_kills(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seed = random.SystemRandom().randrange(10**9)
    loop = Loop(tmp_path, random.Random(seed))
    with capsys.disabled():
        print(f"\nkill loop: seed {seed}, {SOAK_ROUNDS} rounds")
        loop.run(SOAK_ROUNDS)
        check(loop)
        print(f"{dict(loop.kills)} kills, {len(loop.reported)} writes reported, none lost")
