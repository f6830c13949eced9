"""Power cuts: at any moment of a story, one machine's; what is found then is one state of the file, and keeps every promise."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias

import apsw
import trio

from atoma import Sync, open_client, open_hub
from atoma.contracts.execution import Durability
from atoma.hub import AllowLoopback
from atoma.plugins import Plugin
from atoma.ports import seeded_environment
from atoma.testing.simulation.running import scratch
from atoma.testing.simulation.scheduling import Trace, run_seeded
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine, SQLiteHubStore
from atoma_transports.memory import MemoryNetwork, MemoryTransport
from atoma_transports.remote import Remote
from tests.power.disk import Note, is_log
from tests.power.platter import SURVIVORS, Files, Ignores, Platter, Survivors, lay_down
from tests.power.promises import DATABASE, MACHINES, Facts, Machine, RowKey, check_sound, read_facts, recovered
from tests.power.states import States
from tests.power.story import DISPUTED, DOCS, LIVES, OWN, SCHEMA, SYNCED, Doc, Story, Tape

PATIENCE_S = 3_600.0
NEAR = 4
Fault: TypeAlias = Literal["corrupt", "no such state", "lost"]


@dataclass(frozen=True, slots=True)
class Cut:
    """One power cut.

    Attributes:
        at: How many notes the disk had taken.
        machine: Whose power it was.
        survivors: What has survived of what was not synced.
        number: Decides everything else.
    """

    at: int
    machine: Machine
    survivors: Survivors
    number: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What a cut has shown to be wrong.

    Attributes:
        fault: ``corrupt``, not a state that ever was, or a promise is broken.
        what: Of what, for a person.
    """

    cut: Cut
    fault: Fault
    what: str


@dataclass(slots=True)
class Report:
    """What cuts have shown.

    Attributes:
        counts: Cuts; those that lost commits, and those that had lost nothing; openings by the product.
        findings: What was wrong.
    """

    counts: Counter[str] = field(default_factory=Counter[str])
    findings: list[Finding] = field(default_factory=list[Finding])


def play(seed: int, durability: Durability, *, lives: int = LIVES, threads: bool = False) -> Tape:
    """The story of ``seed``; see :class:`tests.power.story.Story`."""
    with TemporaryDirectory(prefix="atoma-power-", dir=scratch()) as folder:
        return Story(seed, Path(folder), durability, lives=lives, threads=threads).run()


def cuts_at(moments: Sequence[int], count: int) -> list[Cut]:
    """``count`` cuts in order, at some of ``moments``."""
    dice = random.Random(count)
    drawn = sorted(dice.choice(moments) for _ in range(count))
    return [Cut(at, dice.choice(MACHINES), dice.choice(SURVIVORS), number) for number, at in enumerate(drawn)]


def draw_cuts(tape: Tape, count: int) -> list[Cut]:
    """``count`` cuts in order: a half after promises, where nothing unsynced survives, the others where chance has it.

    No kind of promise is left out. Of the others every second one comes near something that is rare: a sync, a log that
    begins anew, a name that is made.
    """
    dice = random.Random(f"cuts {tape.seed}")
    cuts = [
        Cut(at, machine, "nothing", number) for number, (at, machine) in enumerate(_worst(tape, dice)[: count // 2])
    ]
    rare = [at for at, note in enumerate(tape.notes) if note.event != "write" or (note.at == 0 and is_log(note))]
    while len(cuts) < count:
        at, machine = dice.randrange(len(tape.notes) + 1), dice.choice(MACHINES)
        if len(cuts) % 2:
            at = min(len(tape.notes), dice.choice(rare) + dice.randrange(NEAR))
        cuts.append(Cut(at, machine, dice.choice(SURVIVORS), len(cuts)))
    return sorted(cuts, key=lambda cut: cut.at)


def _worst(tape: Tape, dice: random.Random) -> list[tuple[int, Machine]]:
    """The moments after promises, in any order but that one of each kind comes first."""
    kinds: dict[tuple[Machine, str], list[tuple[int, Machine]]] = {}
    for machine in MACHINES:
        for promise in tape.promises[machine]:
            kinds.setdefault((machine, promise.kind), []).append((promise.at, machine))
    first = [dice.choice(moments) for moments in kinds.values()]
    others = list({moment for moments in kinds.values() for moment in moments} - set(first))
    return [*dict.fromkeys(first), *dice.sample(sorted(others), len(others))]


class Inquest:
    """Looks at what cuts of one story have left.

    Args:
        tape: The story.
    """

    def __init__(self, tape: Tape) -> None:
        self._tape = tape
        self._states = {machine: States(tape.notes, name) for machine, name in DATABASE.items()}

    def examine(
        self,
        drawn: Sequence[Cut],
        *,
        ignores: Ignores = lambda _note: False,
        notes: Sequence[Note] | None = None,
        openings: int = 0,
        stop: bool = False,
    ) -> Report:
        """See what each of ``drawn`` leaves.

        Args:
            drawn: The cuts, in order.
            ignores: Syncs that the disk does not carry out.
            notes: What the disk was asked for, in another order than in the story.
            openings: How many of the files are opened by the product, too.
            stop: Stop at the first finding.
        """
        report = Report()
        taken = self._tape.notes if notes is None else notes
        opened = set(random.Random(f"openings {self._tape.seed}").sample(range(len(drawn)), min(openings, len(drawn))))
        for place, (cut, files) in enumerate(_after(taken, drawn, ignores)):
            with TemporaryDirectory(prefix="atoma-power-", dir=scratch()) as folder:
                report.findings += self._judge(cut, files, Path(folder), report.counts)
            if place in opened and not report.findings:
                with TemporaryDirectory(prefix="atoma-power-", dir=scratch()) as folder:
                    lay_down(files, Path(folder))
                    report.counts["openings"] += 1
                    report.findings += GoingOn(self._tape, cut, Path(folder)).findings()
            if stop and report.findings:
                break
        return report

    def miss_each_sync(self, cuts_each: int) -> dict[str, Counter[bool]]:
        """Leave out one sync at a time; how often that was noticed, by what was synced.

        Power goes after promises that were made before the next sync of the same file: nothing else could tell.
        """
        found: dict[str, Counter[bool]] = {}
        notes = self._tape.notes
        for place, note in enumerate(notes):
            if note.event == "sync":
                kind = "a log" if is_log(note) else "a database" if note.name.endswith(".db") else "a journal"
                found.setdefault(kind, Counter())[self._is_missed(place, cuts_each)] += 1
        return found

    def _is_missed(self, place: int, cuts: int) -> bool:
        note, notes = self._tape.notes[place], self._tape.notes
        machine: Machine = "device" if note.name.startswith("device/") else "hub"
        later = (at for at in range(place + 1, len(notes)) if notes[at].event == "sync" and notes[at].name == note.name)
        until = next(later, len(notes))
        moments = sorted({one.at for one in self._tape.promises[machine] if place < one.at <= until})[:cuts]
        drawn = [Cut(at, machine, "nothing", at) for at in moments]
        for cut, files in _after(notes, drawn, lambda one: one is note):
            with TemporaryDirectory(prefix="atoma-power-", dir=scratch()) as folder:
                if any(self._judge(cut, files, Path(folder), Counter())):
                    return True
        return False

    def _judge(self, cut: Cut, files: Files, folder: Path, counts: Counter[str]) -> Iterator[Finding]:
        lay_down(files, folder)
        counts[f"cuts of the {cut.machine}"] += 1
        states = self._states[cut.machine]
        made = bisect_right(states.commits, cut.at)
        try:
            with recovered(cut.machine, folder) as connection:
                numbers = [0] if connection is None else states.numbers(bytes(connection.serialize("main")))
                found = max((number for number in numbers if number <= made), default=None)
                if connection is not None:
                    check_sound(connection)
                if found is None:
                    yield Finding(cut, "no such state", f"{made} commits had been made")
                    return
                facts = read_facts(cut.machine, connection)
        except apsw.Error as error:
            yield Finding(cut, "corrupt", str(error))
            return
        counts["lost commits"] += made - found
        counts["cuts that lost commits"] += found < made
        for promise in self._tape.promises[cut.machine]:
            if promise.at <= cut.at and not promise.kept(facts):
                yield Finding(cut, "lost", f"{promise.what} (commit {found} of {made} is left)")


def _after(notes: Sequence[Note], cuts: Sequence[Cut], ignores: Ignores) -> Iterator[tuple[Cut, Files]]:
    platter = Platter(notes, ignores)
    for cut in cuts:
        platter.advance(cut.at)
        yield cut, platter.cut(cut.machine, random.Random(f"{cut.number} {cut.survivors}"), cut.survivors)


class GoingOn:
    """Both machines go on after a cut, by the product's own doors.

    Args:
        tape: What was before.
        cut: The cut.
        folder: What it has left.
    """

    def __init__(self, tape: Tape, cut: Cut, folder: Path) -> None:
        self._tape = tape
        self._cut = cut
        self._folder = folder
        self._wrong: list[str] = []

    def findings(self) -> list[Finding]:
        """What is wrong: one that does not open, promises broken, a repair of what was not broken, rows that differ."""
        run_seeded(self._go_on, self._cut.number, Trace())
        return [Finding(self._cut, "lost", what) for what in self._wrong]

    async def _go_on(self) -> None:
        network, environment = MemoryNetwork(), seeded_environment(self._cut.number)
        hub_file, device_file = (self._folder / DATABASE[machine] for machine in ("hub", "device"))
        for path in (hub_file, device_file):
            path.parent.mkdir(exist_ok=True)
        with recovered("hub", self._folder) as connection:
            epoch = read_facts("hub", connection).epoch
        store = SQLiteHubStore(hub_file)
        async with open_hub(SCHEMA, store, verifier=AllowLoopback(), environment=environment) as hub:
            if epoch and hub.identity.epoch != epoch:
                self._wrong.append("the hub took its own file for a restored one")
            plugins: list[Plugin] = [
                LocalExecution(SQLiteEngine(device_file)),
                Remote(MemoryTransport(network)),
                Sync(SYNCED),
            ]
            async with network.listen(hub), open_client(SCHEMA, plugins=plugins, environment=environment) as client:
                repaired = len(await client.sync.repairs())
                await client.store(DOCS).upsert(Doc(id="later", text="later"))
                with trio.fail_after(PATIENCE_S):
                    await client.sync.wait_idle()
                for repair in (await client.sync.repairs())[repaired:]:
                    if repair.cause != "CLIENT_EXPIRED":  # which is what the hub had decided before
                        self._wrong.append(f"what was not broken was repaired: {repair.why}")
                mine = {
                    (spec.name, doc.id): doc.text
                    for spec in (DOCS, DISPUTED, OWN)
                    for doc in await client.store(spec).query()
                }
        with recovered("hub", self._folder) as connection:
            theirs = read_facts("hub", connection).rows
        self._compare(mine, theirs or {})

    def _compare(self, mine: dict[RowKey, str], theirs: Mapping[RowKey, str]) -> None:
        apart = {item for item in mine.items() if item[0][0] != OWN.name} ^ set(theirs.items())
        if apart:
            self._wrong.append(f"the two do not agree on {sorted({key for key, _ in apart})}")
        facts = Facts(rows=mine)
        for machine in MACHINES:
            for promise in self._tape.promises[machine]:
                if promise.row is not None and promise.at <= self._cut.at and not promise.kept(facts):
                    self._wrong.append(f"after the two have talked: {promise.what}")
