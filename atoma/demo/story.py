"""``atoma demo --once``: the main job, told step by step on real input and checked at the end."""

from __future__ import annotations

import statistics
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import airportsdata
import trio
from rich.console import Console
from rich.table import Table

from atoma.client import Client
from atoma.demo.devices import Device, open_device
from atoma.demo.digest import content_hash, count_rows
from atoma.demo.models import AIRPORT_SCHEMA, AIRPORTS, INSPECTIONS, Airport, Inspection
from atoma.demo.wiring import SPOKEN, TransportName, open_hub_server
from atoma.errors import ConfigurationError
from atoma.query import col, select

BATCH = 1000
EDITS_EACH = 300
SAME_ROWS = 60
DISPUTED = 12
PROBES = 25
PATIENCE_S = 120.0


@dataclass
class Story:
    """The story as far as it has been told, and what has to hold at the end."""

    console: Console
    started: float = field(default_factory=trio.current_time)
    failures: list[str] = field(default_factory=list[str])

    @contextmanager
    def step(self, title: str) -> Generator[list[str]]:
        """Print ``title`` with the facts that the block collects and the time it took."""
        facts: list[str] = []
        begin = trio.current_time()
        yield facts
        seconds = trio.current_time() - begin
        self.console.print(f"[bold cyan]{begin - self.started:7.2f} s[/]  [bold]{title}[/]  [dim]({seconds:.2f} s)[/]")
        for fact in facts:
            self.console.print(f"           {fact}", highlight=True)

    def check(self, holds: bool, claim: str) -> None:
        """Print whether ``claim`` holds; a claim that does not makes the demo fail."""
        self.console.print(f"           [{'green' if holds else 'bold red'}]{'✓' if holds else '✗'} {claim}[/]")
        if not holds:
            self.failures.append(claim)


async def tell(folder: Path, rows: int | None = None, transport: TransportName = "websocket") -> int:
    """Tell the story with files in ``folder`` and return the exit code: 0 only if everything checked out."""
    story = Story(Console(soft_wrap=True))
    story.console.print("[bold]Atoma[/]: two devices, one hub, a cable to pull. Everything below is real: three SQLite")
    story.console.print(f"files in {folder}, {SPOKEN[transport]}, one process, one trio.run.\n", highlight=False)
    paths = {name: folder / f"{name}.db" for name in ("hub", "ada", "bob")}
    if any(path.exists() for path in paths.values()):
        raise ConfigurationError(f"{folder} already holds a demo; name an empty folder with --dir")
    async with open_hub_server(AIRPORT_SCHEMA, paths["hub"], ["ada", "bob"], transport=transport) as hub:
        async with open_device(AIRPORT_SCHEMA, paths["ada"], "ada", hub) as ada:
            count = await _load(story, ada, rows)
            await _upload(story, ada, count)
            async with open_device(AIRPORT_SCHEMA, paths["bob"], "bob", hub) as bob:
                await _first_sync(story, bob, count)
                await _probe(story, ada, bob)
                await _disputable(story, ada, bob)
                await _pull_the_plug(story, ada, bob)
                await _plug_in(story, ada, bob)
                await _resolve(story, ada, bob)
    _compare(story, paths)
    if story.failures:
        story.console.print(f"\n[bold red]{len(story.failures)} claim(s) failed.[/]")
        return 1
    story.console.print("\n[bold green]Both devices and the hub are equal, and every conflict is accounted for.[/]")
    return 0


def airports_of(source: Mapping[str, Mapping[str, object]]) -> list[Airport]:
    """The airports of ``airportsdata.load()`` as rows."""
    return [
        Airport(
            id=code,
            iata=str(row["iata"]),
            name=str(row["name"]),
            city=str(row["city"]),
            region=str(row["subd"]),
            country=str(row["country"]),
            elevation_ft=float(str(row["elevation"])),
            latitude=float(str(row["lat"])),
            longitude=float(str(row["lon"])),
            time_zone=str(row["tz"]),
        )
        for code, row in source.items()
    ]


async def _load(story: Story, ada: Device, rows: int | None) -> int:
    airports = airports_of(airportsdata.load())[:rows]
    ada.cable.cut()
    with story.step(f"Ada, offline, loads {len(airports):,} airports through sync-queue") as facts:
        begin = trio.current_time()
        path = ""
        for start in range(0, len(airports), BATCH):
            result = await ada.client.store(AIRPORTS).insert_many(airports[start : start + BATCH])
            path = _path(result.raise_for_errors().meta.path)
        seconds = trio.current_time() - begin
        facts.append(
            f"{len(airports) / seconds:,.0f} rows/s, each with its outbox entry in the same fsynced transaction"
        )
        facts.append(f"path of each write: {path}")
    return len(airports)


async def _upload(story: Story, ada: Device, count: int) -> None:
    with story.step("The cable goes in; Ada's outbox drains to the hub") as facts:
        begin = trio.current_time()
        ada.cable.repair()
        await _settled(ada.client)
        seconds = trio.current_time() - begin
        facts.append(f"{count / seconds:,.0f} mutations/s through the hub, each decided, logged and fsynced there")
    story.check(ada.client.sync.status.pending == 0, "Ada's outbox is empty")


async def _first_sync(story: Story, bob: Device, count: int) -> None:
    with story.step("Bob's empty device syncs for the first time") as facts:
        begin = trio.current_time()
        await _settled(bob.client)
        seconds = trio.current_time() - begin
        facts.append(f"{count / seconds:,.0f} rows/s by snapshot, swapped in by one local transaction")
    story.check(await bob.client.store(AIRPORTS).count() == count, f"Bob holds {count:,} airports")


async def _probe(story: Story, ada: Device, bob: Device) -> None:
    """One edit at a time on Ada, timed until Bob's live query shows it."""
    country = "IS"
    delays: list[float] = []
    airport = await ada.client.store(AIRPORTS).first(select(AIRPORTS).where(col("country") == country))
    if airport is None:
        airport = await ada.client.store(AIRPORTS).first()
    assert airport is not None
    with story.step(f"{PROBES} edits on Ada, watched by a live query on Bob") as facts:
        async with bob.client.store(AIRPORTS).live(select(AIRPORTS).where(col("id") == airport.id)) as batches:
            await anext(aiter(batches))
            for number in range(PROBES):
                begin = trio.current_time()
                await ada.client.store(AIRPORTS).update(airport.id, remark=f"probe {number}")
                with trio.fail_after(PATIENCE_S):
                    await anext(aiter(batches))
                delays.append((trio.current_time() - begin) * 1000)
        ordered = sorted(delays)
        worst = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
        facts.append(f"device → hub → device → subscriber: p50 {statistics.median(delays):.1f} ms, p99 {worst:.1f} ms")


async def _disputable(story: Story, ada: Device, bob: Device) -> None:
    with story.step(f"Ada files {DISPUTED} inspections; their store asks people to decide conflicts") as facts:
        await ada.client.store(INSPECTIONS).insert_many(
            Inspection(id=f"inspection-{number}", airport="BIRK", verdict="open", inspector="ada")
            for number in range(DISPUTED)
        )
        await _settled(ada.client)
        await _caught_up(bob.client, ada.client)
        facts.append(f"Bob sees {await bob.client.store(INSPECTIONS).count()} of them")


async def _pull_the_plug(story: Story, ada: Device, bob: Device) -> None:
    ada.cable.cut()
    bob.cable.cut()
    with story.step("Both cables are pulled; both devices go on working") as facts:
        page = await ada.client.store(AIRPORTS).query(select(AIRPORTS).order_by("-elevation_ft").limit(2 * EDITS_EACH))
        ids = [airport.id for airport in page]
        shared, rest = ids[:SAME_ROWS], ids[SAME_ROWS:]
        half = len(rest) // 2
        for device, own in ((ada, rest[:half]), (bob, rest[half:])):
            airports = device.client.store(AIRPORTS)
            await airports.update_many({id: {"remark": f"edited by {device.name}"} for id in [*shared, *own]})
            await airports.insert(replace(page[0], id=f"NEW-{device.name}", name=f"{device.name}'s airstrip"))
            inspections = device.client.store(INSPECTIONS)
            for number in range(DISPUTED):
                await inspections.update(f"inspection-{number}", verdict=f"{device.name} says no")
            pending = device.client.sync.status.pending
            facts.append(
                f"{device.name}: {len(own)} own edits, {SAME_ROWS} on rows the other edits too, outbox {pending}"
            )
        facts.append(f"and {DISPUTED} inspections that both have answered differently")


async def _plug_in(story: Story, ada: Device, bob: Device) -> None:
    with story.step("Both cables go in again") as facts:
        ada.cable.repair()
        await _settled(ada.client)
        bob.cable.repair()
        await _settled(bob.client)
        await _caught_up(ada.client, bob.client)
        inbox = await bob.client.inbox.entries()
        facts.append(f"Bob's inbox holds {len(inbox)} disputed inspections, each with base, mine and theirs:")
        for entry in inbox[:1]:
            base, mine, theirs = (
                image["verdict"] if image else None for image in (entry.base, entry.mine, entry.theirs)
            )
            facts.append(f"{entry.store}/{entry.id} {entry.code}: base {base!r}, mine {mine!r}, theirs {theirs!r}")
    story.check(
        len(inbox) == DISPUTED, f"exactly the {DISPUTED} disputed inspections are in Bob's inbox, none in Ada's"
    )
    story.check(not await ada.client.inbox.entries(), "Ada's inbox is empty")


async def _resolve(story: Story, ada: Device, bob: Device) -> None:
    with story.step("Bob keeps his own verdict on half of them and lets the others go") as facts:
        for number, entry in enumerate(await bob.client.inbox.entries()):
            if number % 2:
                await bob.client.inbox.keep_mine(entry)
            else:
                await bob.client.inbox.dismiss(entry)
        await _settled(bob.client)
        await _caught_up(ada.client, bob.client)
        kept = await ada.client.store(INSPECTIONS).count(select(INSPECTIONS).where(col("verdict") == "bob says no"))
        facts.append(f"Ada now sees {kept} verdicts of Bob's")
    story.check(not await bob.client.inbox.entries(), "Bob's inbox is empty")
    story.check(kept == DISPUTED // 2, f"{DISPUTED // 2} verdicts are Bob's, {DISPUTED - DISPUTED // 2} are Ada's")


def _compare(story: Story, paths: dict[str, Path]) -> None:
    """Everything is closed: read the three files from outside."""
    hashes = {name: content_hash(path, AIRPORT_SCHEMA) for name, path in paths.items()}
    table = Table(title="The files, read with Python's own sqlite3", title_justify="left")
    for heading in ("file", "size", "content hash (begins)"):
        table.add_column(heading)
    for name, path in paths.items():
        table.add_row(path.name, f"{path.stat().st_size / 1e6:.1f} MB", hashes[name][:40])
    story.console.print(table)
    story.check(len(set(hashes.values())) == 1, "both devices and the hub hold the same rows")
    merged = count_rows(paths["hub"], "SELECT count(*) FROM _atoma_hub_outcome WHERE status = 'merged'")
    refused = count_rows(paths["hub"], "SELECT count(*) FROM _atoma_hub_outcome WHERE status = 'rejected'")
    story.check(merged == SAME_ROWS, f"the hub merged {merged} writes: the {SAME_ROWS} airports edited on both sides")
    story.check(refused == DISPUTED, f"and refused {refused}: the {DISPUTED} disputed inspections")
    for name in ("ada", "bob"):
        left = count_rows(paths[name], "SELECT count(*) FROM _atoma_pending")
        story.check(left == 0, f"nothing is pending in {name}.db")


async def _settled(client: Client) -> None:
    """Wait until everything written here is confirmed and everything the hub told of is here."""
    with trio.fail_after(PATIENCE_S):
        await client.sync.wait_idle()


async def _caught_up(client: Client, leader: Client) -> None:
    """Wait until ``client`` is where ``leader`` is."""
    goal = max(scope.cursor for scope in leader.sync.status.scopes)
    with trio.fail_after(PATIENCE_S):
        async with client.sync.watch() as changes:
            async for status in changes:
                if all(scope.cursor >= goal for scope in status.scopes):
                    return


def _path(path: Sequence[object]) -> str:
    return " → ".join(str(getattr(step, "node", step)) for step in path)
