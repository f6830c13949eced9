"""What a type checker must infer of queries, and what it must refuse. Checked, never run.

``tests/unit/query/test_typing.py`` runs both checkers over it. Where a ``type: ignore`` stands, each has to find an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import NamedTuple, assert_type

import atoma
from atoma import (
    Client,
    Expression,
    Included,
    IncludedProjection,
    Joined,
    Page,
    Projection,
    Query,
    Rows,
    StoreSpec,
    Table,
    avg,
    belongs_to,
    case,
    col,
    count,
    count_of,
    exists,
    has_many,
    has_one,
    max_,
    min_,
    scalar,
    select,
    sum_,
    variants,
)
from atoma.schema import Many, One, Variants
from atoma.sync import Sync


@dataclass(frozen=True)
class Flight:
    id: str
    carrier: str
    plane: str | None
    delay: int | None
    miles: int
    when: datetime
    fare: Decimal


@dataclass(frozen=True)
class Airline:
    id: str
    name: str


@dataclass(frozen=True)
class Plane:
    id: str
    seats: int
    built: date | None


FLIGHTS, AIRLINES, PLANES = StoreSpec("flights", Flight), StoreSpec("airlines", Airline), StoreSpec("planes", Plane)
carrier, plane = FLIGHTS.col(lambda f: f.carrier), FLIGHTS.col(lambda f: f.plane)
delay, miles = FLIGHTS.col(lambda f: f.delay), FLIGHTS.col(lambda f: f.miles)
when, fare = FLIGHTS.col(lambda f: f.when), FLIGHTS.col(lambda f: f.fare)
airline_id, name = AIRLINES.col(lambda a: a.id), AIRLINES.col(lambda a: a.name)
plane_id, seats, built = PLANES.col(lambda p: p.id), PLANES.col(lambda p: p.seats), PLANES.col(lambda p: p.built)
OTHERS = FLIGHTS.named("others")

FLIGHTS_OF = has_many(AIRLINES, FLIGHTS, on=carrier)
LINE = belongs_to(FLIGHTS, AIRLINES, on=carrier == airline_id)
PLANE = belongs_to(FLIGHTS, PLANES, on=plane)
FIRST = has_one(PLANES, FLIGHTS, on=plane)
EITHER = variants(FLIGHTS, ("a", AIRLINES), ("p", PLANES), on=plane, kind=carrier)


class Stat(NamedTuple):
    carrier: str
    flights: int
    delay: float | None


class Seen(NamedTuple):
    miles: int
    planes: int


def columns() -> None:
    assert_type(carrier, Expression[str])
    assert_type(delay, Expression[int | None])
    assert_type(OTHERS.col(lambda f: f.miles), Expression[int])
    assert_type(col("delay"), Expression[object])
    assert_type(carrier == "UA", Expression[bool])
    assert_type(delay > 5, Expression[bool])
    assert_type(delay > miles, Expression[bool])
    assert_type(miles > delay, Expression[bool])
    assert_type(miles + miles, Expression[int])
    assert_type(miles + delay, Expression[int | None])
    assert_type(delay * 2, Expression[int | None])
    assert_type(miles / 2, Expression[float | None])
    assert_type(delay.coalesce(0), Expression[int])
    assert_type(carrier.in_(["UA"]) & ~delay.is_null(), Expression[bool])
    assert_type(case((delay > 5, "late"), otherwise="good"), Expression[str])
    FLIGHTS.col(lambda f: f.nope)  # type: ignore[attr-defined]
    delay > "x"  # type: ignore[operator]  # noqa: B015
    miles < 2.5  # type: ignore[operator]  # noqa: B015
    delay.in_(["x"])  # type: ignore[list-item]
    carrier & miles  # type: ignore[operator]


def aggregates() -> None:
    assert_type(count(), Expression[int])
    assert_type(count(delay, where=miles > 100, distinct=True), Expression[int])
    assert_type(sum_(delay), Expression[int | None])
    assert_type(sum_(miles), Expression[int | None])
    assert_type(sum_(fare), Expression[Decimal | None])
    assert_type(avg(delay), Expression[float | None])
    assert_type(min_(when), Expression[datetime | None])
    assert_type(max_(built), Expression[date | None])
    sum_("carrier")  # type: ignore[call-overload]
    avg(3)  # type: ignore[call-overload]
    count(where=miles)  # type: ignore[arg-type]


def shapes() -> None:
    assert_type(select(FLIGHTS), Rows[Flight])
    assert_type(select(OTHERS), Rows[Flight])
    assert_type(select(FLIGHTS).where(delay > 5).order_by("-delay").limit(3), Rows[Flight])
    assert_type(select(FLIGHTS).columns(carrier), Projection[str])
    assert_type(select(FLIGHTS).columns(plane).distinct(), Projection[str | None])
    assert_type(select(FLIGHTS).columns(carrier, delay), Projection[tuple[str, int | None]])
    assert_type(
        select(FLIGHTS).columns(carrier, count(), sum_(delay)).group_by(carrier),
        Projection[tuple[str, int, int | None]],
    )
    assert_type(
        select(FLIGHTS).columns(carrier, delay, miles, when, fare),
        Projection[tuple[str, int | None, int, datetime, Decimal]],
    )
    assert_type(select(FLIGHTS).into(Stat, carrier, count(), avg(delay)), Projection[Stat])
    assert_type(select(FLIGHTS).into(Stat, carrier, count(), avg(delay)).having(count() > 5), Projection[Stat])
    assert_type(select(FLIGHTS).into(lambda a, b: f"{a}{b}", carrier, miles), Projection[str])
    assert_type(select(FLIGHTS).into(Stat, carrier, count(), avg(delay)).named("x"), Table[Stat])
    select(FLIGHTS).into(Stat, carrier, count(), carrier)  # type: ignore[arg-type]
    select(FLIGHTS).into(Stat, carrier, count())  # type: ignore[arg-type]
    select(FLIGHTS).columns("carrier")  # type: ignore[call-overload]
    select(FLIGHTS).where(miles)  # type: ignore[arg-type]
    select(FLIGHTS).where(carrier == "UA", "delay > 5")  # type: ignore[arg-type]
    select(Flight)  # type: ignore[call-overload]


def parts_of_values() -> None:
    assert_type(carrier.length(), Expression[int])
    assert_type(plane.length(), Expression[int | None])
    assert_type(plane.upper().length(), Expression[int | None])
    assert_type(plane.length().coalesce(0), Expression[int])
    assert_type(when.year(), Expression[int])
    assert_type(built.year(), Expression[int | None])
    assert_type(built.month(), Expression[int | None])
    assert_type(when.hour(), Expression[int])
    assert_type(when.to_date(), Expression[date])
    assert_type(when.to_date().day(), Expression[int])
    assert_type(built.to_text(), Expression[str | None])
    assert_type(miles.to_text(), Expression[str])
    assert_type(plane.highlight("jet"), Expression[str | None])
    assert_type(carrier.snippet("jet", words=3), Expression[str])
    assert_type(select(FLIGHTS).columns(carrier.length(), plane.length()), Projection[tuple[int, int | None]])
    letters: Expression[int] = plane.length()  # type: ignore[assignment]
    year: Expression[int] = built.year()  # type: ignore[assignment]
    text: Expression[str] = delay.to_text()  # type: ignore[assignment]
    lengths: Query[int] = select(FLIGHTS).columns(plane.length())  # type: ignore[arg-type]
    plane.snippet("jet", words="3")  # type: ignore[call-overload]
    said = (select(FLIGHTS).columns(letters, year, text), lengths)
    assert_type(said, tuple[Projection[tuple[int, int, str]], Query[int]])


def joins() -> None:
    assert_type(select(FLIGHTS).join(AIRLINES, carrier == airline_id), Joined[Flight, Airline])
    both = select(FLIGHTS).join(AIRLINES, carrier == airline_id).left_join(PLANES, plane == plane_id)
    assert_type(both, Joined[Flight, Airline, Plane | None])
    assert_type(both.where(seats > 5).limit(3), Joined[Flight, Airline, Plane | None])
    assert_type(both.columns(name, seats), Projection[tuple[str, int]])
    assert_type(
        select(FLIGHTS).left_join(OTHERS, carrier == OTHERS.col(lambda f: f.carrier)), Joined[Flight, Flight | None]
    )
    top = select(FLIGHTS).columns(carrier, count()).group_by(carrier).named("top")
    assert_type(top.col(lambda row: row[1]), Expression[int])
    assert_type(select(top), Query[tuple[str, int]])
    assert_type(select(AIRLINES).join(top, airline_id == top.col(lambda row: row[0])), Joined[Airline, tuple[str, int]])
    stat = select(FLIGHTS).into(Stat, carrier, count(), avg(delay)).group_by(carrier).named("stat")
    assert_type(stat.col(lambda row: row.delay), Expression[float | None])
    assert_type(select(AIRLINES).where(airline_id.in_(select(FLIGHTS).columns(carrier))), Rows[Airline])
    assert_type(exists(select(FLIGHTS)) & exists(FLIGHTS_OF, lambda f: f.where(delay > 5)), Expression[bool])
    assert_type(count_of(FLIGHTS_OF), Expression[int])
    assert_type(scalar(select(FLIGHTS).columns(max_(miles))), Expression[int | None])
    assert_type(scalar(select(AIRLINES).columns(name)), Expression[str | None])
    select(FLIGHTS).join(AIRLINES)  # type: ignore[call-arg]
    select(FLIGHTS).join("airlines", carrier == airline_id)  # type: ignore[arg-type]
    airline_id.in_(select(FLIGHTS).columns(miles))  # type: ignore[arg-type]
    top.col(lambda row: row[2])  # type: ignore[misc]
    stat.col(lambda row: row.nope)  # type: ignore[attr-defined]
    select(FLIGHTS).join(AIRLINES, carrier == airline_id).include(LINE)  # type: ignore[attr-defined]


def relations() -> None:
    assert_type(FLIGHTS_OF, Many[Airline, Flight])
    assert_type(LINE, One[Flight, Airline])
    assert_type(EITHER, Variants[Flight, Airline | Plane])
    assert_type(select(AIRLINES).include(FLIGHTS_OF), Included[Airline, tuple[Flight, ...]])
    assert_type(select(FLIGHTS).include(LINE), Included[Flight, Airline | None])
    assert_type(select(FLIGHTS).include(LINE).include(PLANE), Included[Flight, Airline | None, Plane | None])
    assert_type(select(PLANES).include(FIRST), Included[Plane, Flight | None])
    assert_type(select(FLIGHTS).include(EITHER), Included[Flight, Airline | Plane | None])
    nested = select(AIRLINES).include(
        FLIGHTS_OF, lambda f: f.where(delay > 30).order_by("-delay").limit(3).include(PLANE)
    )
    assert_type(nested, Included[Airline, tuple[tuple[Flight, Plane | None], ...]])
    assert_type(
        select(AIRLINES).include(FLIGHTS_OF, lambda f: f.columns(miles, delay)),
        Included[Airline, tuple[tuple[int, int | None], ...]],
    )
    assert_type(
        select(AIRLINES).include(FLIGHTS_OF, lambda f: f.columns(plane)), Included[Airline, tuple[str | None, ...]]
    )
    assert_type(
        select(AIRLINES).include(
            FLIGHTS_OF, lambda f: f.into(Seen, miles, count_of(PLANE)).order_by("-miles").limit(3)
        ),
        Included[Airline, tuple[Seen, ...]],
    )
    assert_type(select(FLIGHTS).include(LINE, lambda a: a.columns(name)), Included[Flight, str | None])
    assert_type(
        select(PLANES).include(FIRST, lambda f: f.include(LINE, lambda a: a.columns(airline_id, name))),
        Included[Plane, tuple[Flight, tuple[str, str] | None] | None],
    )
    select(AIRLINES).include(FLIGHTS_OF, lambda f: f.into(Seen, plane, miles))  # type: ignore[arg-type]
    assert_type(
        select(AIRLINES).include(FLIGHTS_OF, lambda f: f.columns(plane, count(), avg(delay)).group_by(plane)),
        Included[Airline, tuple[tuple[str | None, int, float | None], ...]],
    )
    assert_type(
        select(AIRLINES).include(FLIGHTS_OF, lambda f: f.into(Stat, name, count(), avg(delay)).group_by(name)),
        Included[Airline, tuple[Stat, ...]],
    )
    assert_type(
        select(AIRLINES).columns(name, airline_id).include(FLIGHTS_OF),
        IncludedProjection[tuple[str, str], tuple[Flight, ...]],
    )
    beside = select(FLIGHTS).into(Seen, miles, count_of(PLANE)).include(LINE).include(PLANE, lambda p: p.columns(seats))
    assert_type(beside, IncludedProjection[Seen, Airline | None, int | None])
    assert_type(beside.where(miles > 3).limit(3), IncludedProjection[Seen, Airline | None, int | None])
    assert_type(
        select(AIRLINES).include(FLIGHTS_OF, lambda f: f.columns(miles).include(LINE)),
        Included[Airline, tuple[tuple[int, Airline | None], ...]],
    )
    assert_type(select(FLIGHTS).columns(miles).include(EITHER), IncludedProjection[int, Airline | Plane | None])
    select(AIRLINES).columns(name).include(FLIGHTS_OF, lambda f: f.into(Seen, plane, miles))  # type: ignore[arg-type]
    select(AIRLINES).columns(name).include(AIRLINES)  # type: ignore[call-overload]
    select(FLIGHTS).include(FLIGHTS_OF)  # type: ignore[arg-type]
    select(FLIGHTS).include(LINE).include(FLIGHTS_OF)  # type: ignore[arg-type]
    select(AIRLINES).include(FLIGHTS_OF, lambda f: f.limit("x"))  # type: ignore[arg-type]
    has_many(AIRLINES, FLIGHTS, on="carrier")  # type: ignore[arg-type]


async def answers(client: Client) -> None:
    assert_type(await client.query(select(FLIGHTS)), Page[Flight])
    assert_type(await client.query(select(FLIGHTS).columns(carrier, delay)), Page[tuple[str, int | None]])
    assert_type(await client.query(select(AIRLINES).include(FLIGHTS_OF)), Page[tuple[Airline, tuple[Flight, ...]]])
    beside = select(AIRLINES).columns(name).include(FLIGHTS_OF, lambda f: f.columns(count()))
    assert_type(await client.query(beside), Page[tuple[str, tuple[int, ...]]])
    both = select(FLIGHTS).left_join(PLANES, plane == plane_id)
    joined = await client.query(both)
    assert_type(joined[0], tuple[Flight, Plane | None])
    assert_type(await client.first(select(FLIGHTS).columns(miles)), int | None)
    assert_type(await client.count(select(FLIGHTS).columns(miles).distinct()), int)
    async with client.live(select(FLIGHTS).columns(miles)) as batches:
        (await anext(batches)).nope  # type: ignore[attr-defined]  # noqa: B018
    await client.store(FLIGHTS).query(select(AIRLINES))  # type: ignore[arg-type]
    await client.store(FLIGHTS).query(select(FLIGHTS).columns(miles))  # type: ignore[arg-type]


def names() -> None:
    atoma.nonsense  # type: ignore[attr-defined]  # noqa: B018
    assert_type(atoma.Sync, type[Sync])  # which is loaded when it is used
