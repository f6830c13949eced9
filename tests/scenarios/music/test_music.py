"""Real questions about a shop for music: the answers are those of the same question in SQL on the same file, and in DuckDB."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import pytest

from atoma import Client, StoreSpec, open_client, select
from atoma_stores.local import LocalExecution
from atoma_stores.sqlite import SQLiteEngine
from tests.music import (
    ALBUM,
    ALBUMS,
    ALBUMS_BY,
    ARTISTS,
    BOSS,
    CUSTOMERS,
    CUSTOMERS_OF,
    EMPLOYEES,
    GENRE,
    INVOICES,
    INVOICES_OF,
    LINES,
    LINES_OF,
    LISTED,
    PLAYLISTS,
    SCHEMA,
    TRACK,
    TRACKS,
    TRACKS_IN,
    TRACKS_ON,
    Track,
    fill,
    rows,
)
from tests.outsiders import compare, turn
from tests.scenarios.music.questions import QUESTIONS
from tests.unit.stores.test_statements import statements

R = TypeVar("R")


def of(spec: StoreSpec[R]) -> list[R]:
    found: Iterable[object] = rows()[spec]
    return [row for row in found if isinstance(row, spec.model)]


async def look_into(client: Client) -> None:
    """Children of children are those that Python finds."""
    tracks, listed = {row.id: row for row in of(TRACKS)}, of(LISTED)
    albums, artists, everybody = of(ALBUMS), {row.id: row for row in of(ARTISTS)}, of(EMPLOYEES)
    people = {row.id: row for row in everybody}
    query = select(ARTISTS).include(
        ALBUMS_BY,
        lambda a: a.order_by("title").limit(2).include(TRACKS_ON, lambda t: t.order_by("-milliseconds").limit(3)),
    )
    found = await client.query(query)
    for artist, shown in found:
        own = sorted([each for each in albums if each.artist == artist.id], key=lambda a: (a.title, a.id))[:2]
        assert [album for album, _ in shown] == own
        for album, longest in shown:
            there = [each for each in tracks.values() if each.album == album.id]
            assert list(longest) == sorted(there, key=lambda t: (-t.milliseconds, t.id))[:3]
    assert [artist for artist, _ in found] == sorted(artists.values(), key=lambda a: a.id)
    lists = select(PLAYLISTS).include(TRACKS_IN, lambda t: t.order_by("-bytes").limit(4).include(GENRE).include(ALBUM))
    for playlist, most in await client.query(lists):
        inside = [tracks[each.track] for each in listed if each.playlist == playlist.id]
        assert [track for track, _, _ in most] == sorted(inside, key=lambda t: (-t.bytes, t.id))[:4]
        assert all(genre is not None and genre.id == track.genre for track, genre, _ in most)
        assert all(album is not None and album.id == track.album for track, _, album in most)
    staff = (
        select(EMPLOYEES).include(BOSS).include(CUSTOMERS_OF, lambda c: c.include(INVOICES_OF, lambda i: i.limit(1)))
    )
    for employee, boss, customers in await client.query(staff):
        assert boss == people.get(employee.boss or "")
        assert [customer for customer, _ in customers] == [
            each for each in of(CUSTOMERS) if each.support == employee.id
        ]
        assert all(len(first) == 1 and first[0].customer == customer.id for customer, first in customers)
    bought = (
        select(INVOICES)
        .where(INVOICES.col(lambda i: i.country) == "Norway")
        .include(LINES_OF, lambda i: i.include(TRACK))
    )
    for invoice, lines in await client.query(bought):
        assert [line for line, _ in lines] == [each for each in of(LINES) if each.invoice == invoice.id]
        assert all(track == tracks[line.track] for line, track in lines)


def words(text: str | None) -> list[str]:
    plain = unicodedata.normalize("NFD", (text or "").lower())
    return re.findall("[0-9a-z]+", "".join(each for each in plain if not unicodedata.combining(each)))


def has(track: Track, *asked: str, begins: str = "") -> bool:
    found = words(track.name) + words(track.composer)
    return set(asked) <= set(found) and any(each.startswith(begins) for each in found)


async def search(client: Client) -> None:
    """What a search finds is what looking at each track finds."""
    asked: dict[str, Callable[[Track], object]] = {
        "love": lambda t: has(t, "love"),
        "coração": lambda t: has(t, "coracao"),
        "rock roll": lambda t: has(t, "rock", "roll"),
        "blu* -blues": lambda t: has(t, begins="blu") and not has(t, "blues"),
        "page name:breakdown": lambda t: has(t, "page") and "breakdown" in words(t.name),
        "composer:lennon OR composer:mccartney": lambda t: {"lennon", "mccartney"} & set(words(t.composer)),
        '"black dog"': lambda t: "black dog" in " ".join(words(t.name)),
    }
    for text, wanted in asked.items():
        found = await client.query(select(TRACKS).where(TRACKS.matches(text)))
        assert [row.id for row in found] == [row.id for row in of(TRACKS) if wanted(row)], text
        assert len(found) > 0, text
    misspelled = await client.query(select(ALBUMS).where(ALBUMS.matches("apetite~ distruction~")))
    assert [row.title for row in misspelled] == ["Appetite for Destruction"]
    best = select(TRACKS).where(TRACKS.matches("love")).order_by(TRACKS.rank("love").desc()).limit(10)
    times = [words(row.name).count("love") + words(row.composer).count("love") for row in await client.query(best)]
    assert times == sorted(times, reverse=True)
    assert times[0] > 1


@pytest.mark.xdist_group("machine")
async def test_questions_about_all_of_the_shop(tmp_path: Path) -> None:
    file = tmp_path / "music.db"
    async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(file))]) as client:
        await fill(client)
        await compare(client, file, QUESTIONS, rows())
        await turn(client, QUESTIONS)
        await look_into(client)
        await search(client)
    with statements() as told:
        async with open_client(SCHEMA, plugins=[LocalExecution(SQLiteEngine(file))]) as client:
            levels = select(ARTISTS).include(ALBUMS_BY, lambda a: a.include(TRACKS_ON, lambda t: t.include(GENRE)))
            assert len(await client.query(levels)) == 275
    asked = {each for each in told if each.startswith("SELECT") and " AS t0" in each}
    assert len(asked) == 4, asked
