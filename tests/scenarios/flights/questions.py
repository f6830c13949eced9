"""Questions about flights: each as a query, and in SQL that SQLite and DuckDB understand alike."""

from __future__ import annotations

from typing import Any, NamedTuple

from atoma import Query, avg, case, count, count_of, exists, max_, min_, scalar, select, sum_
from tests.flights import AIRLINES, AIRPORTS, FLIGHTS, FLIGHTS_BY, FLIGHTS_OF, FLIGHTS_TO, PLANES, WEATHER


class Share(NamedTuple):
    carrier: str
    flights: int
    late: int
    mean: float | None


id_, carrier, tailnum = FLIGHTS.col(lambda f: f.id), FLIGHTS.col(lambda f: f.carrier), FLIGHTS.col(lambda f: f.tailnum)
origin, dest = FLIGHTS.col(lambda f: f.origin), FLIGHTS.col(lambda f: f.dest)
month, day, hour_of = FLIGHTS.col(lambda f: f.month), FLIGHTS.col(lambda f: f.day), FLIGHTS.col(lambda f: f.hour_of)
dep_delay, arr_delay = FLIGHTS.col(lambda f: f.dep_delay), FLIGHTS.col(lambda f: f.arr_delay)
air_time, distance = FLIGHTS.col(lambda f: f.air_time), FLIGHTS.col(lambda f: f.distance)
airline_id, airline = AIRLINES.col(lambda a: a.id), AIRLINES.col(lambda a: a.name)
airport_id, airport, alt = AIRPORTS.col(lambda a: a.id), AIRPORTS.col(lambda a: a.name), AIRPORTS.col(lambda a: a.alt)
plane_id, built, maker = PLANES.col(lambda p: p.id), PLANES.col(lambda p: p.year), PLANES.col(lambda p: p.manufacturer)
seats, speed = PLANES.col(lambda p: p.seats), PLANES.col(lambda p: p.speed)
w_origin, w_hour = WEATHER.col(lambda w: w.origin), WEATHER.col(lambda w: w.hour_of)
gust, wind, visib = (
    WEATHER.col(lambda w: w.wind_gust),
    WEATHER.col(lambda w: w.wind_speed),
    WEATHER.col(lambda w: w.visib),
)

BY_DAY = select(FLIGHTS).columns(month, day, sum_(dep_delay)).group_by(month, day).order_by(sum_(dep_delay).desc())
WORST_DAYS = BY_DAY.limit(5).named("worst")
WORST_OF = select(FLIGHTS).columns(carrier, max_(arr_delay)).group_by(carrier).named("worst_of")
OTHERS = PLANES.named("others")
AT = AIRPORTS.named("starts")

QUESTIONS: dict[str, tuple[Query[Any], str]] = {
    "the longest delays": (
        select(FLIGHTS).columns(id_, arr_delay).where(arr_delay > 60).order_by(arr_delay.desc()).limit(50),
        "SELECT id, arr_delay FROM flights WHERE arr_delay > 60 ORDER BY arr_delay DESC, id LIMIT 50",
    ),
    "flights that never arrived": (
        select(FLIGHTS).columns(carrier, count()).where(arr_delay.is_null()).group_by(carrier),
        "SELECT carrier, count(*) FROM flights WHERE arr_delay IS NULL GROUP BY carrier ORDER BY carrier",
    ),
    "neither late nor early, where it is known": (
        select(FLIGHTS).columns(id_).where(~((arr_delay > 0) | (arr_delay < 0))),
        "SELECT id FROM flights WHERE NOT (arr_delay > 0 OR arr_delay < 0) ORDER BY id",
    ),
    "a range with NULLs": (
        select(FLIGHTS)
        .columns(id_, dep_delay)
        .where(dep_delay.between(-3, 3) | dep_delay.is_null())
        .order_by("dep_delay")
        .limit(200),
        "SELECT id, dep_delay FROM flights WHERE dep_delay BETWEEN -3 AND 3 OR dep_delay IS NULL ORDER BY dep_delay, id LIMIT 200",
    ),
    "the share of late flights": (
        select(FLIGHTS)
        .into(Share, carrier, count(arr_delay), count(where=arr_delay > 15), avg(arr_delay))
        .group_by(carrier),
        "SELECT carrier, count(arr_delay), count(*) FILTER (WHERE arr_delay > 15), avg(arr_delay) FROM flights "
        "GROUP BY carrier ORDER BY carrier",
    ),
    "busy connections": (
        select(FLIGHTS)
        .columns(origin, dest, count(), min_(distance))
        .group_by(origin, dest)
        .having(count() > 20)
        .order_by(count().desc()),
        "SELECT origin, dest, count(*), min(distance) FROM flights GROUP BY origin, dest HAVING count(*) > 20 "
        "ORDER BY count(*) DESC, origin, dest",
    ),
    "where one can go": (
        select(FLIGHTS).columns(dest).distinct(),
        "SELECT DISTINCT dest FROM flights ORDER BY dest",
    ),
    "connections of each airline": (
        select(FLIGHTS)
        .columns(carrier, count(dest, distinct=True))
        .group_by(carrier)
        .order_by(count(dest, distinct=True).desc()),
        "SELECT carrier, count(DISTINCT dest) FROM flights GROUP BY carrier ORDER BY count(DISTINCT dest) DESC, carrier",
    ),
    "with the airline's name": (
        select(FLIGHTS).join(AIRLINES, carrier == airline_id).columns(id_, airline).where(dep_delay > 200),
        "SELECT f.id, a.name FROM flights f JOIN airlines a ON f.carrier = a.id WHERE dep_delay > 200 ORDER BY f.id, a.id",
    ),
    "destinations that are not known airports": (
        select(FLIGHTS)
        .left_join(AIRPORTS, dest == airport_id)
        .where(airport_id.is_null())
        .columns(dest, count())
        .group_by(dest),
        "SELECT dest, count(*) FROM flights f LEFT JOIN airports a ON f.dest = a.id WHERE a.id IS NULL GROUP BY dest ORDER BY dest",
    ),
    "airports where nobody lands": (
        select(AIRPORTS).columns(airport_id, airport).where(~exists(FLIGHTS_TO)).limit(300),
        "SELECT id, name FROM airports a WHERE NOT EXISTS (SELECT 1 FROM flights f WHERE f.dest = a.id) ORDER BY id LIMIT 300",
    ),
    "airlines that never fly to Boston": (
        select(AIRLINES)
        .columns(airline)
        .where(~exists(FLIGHTS_BY, lambda f: f.where(dest == "BOS")))
        .order_by(airline),
        "SELECT name FROM airlines a WHERE NOT EXISTS (SELECT 1 FROM flights f WHERE f.carrier = a.id AND f.dest = 'BOS') "
        "ORDER BY name, id",
    ),
    "flights of old planes": (
        select(FLIGHTS).columns(id_, tailnum).where(tailnum.in_(select(PLANES).columns(plane_id).where(built < 1970))),
        "SELECT id, tailnum FROM flights WHERE tailnum IN (SELECT id FROM planes WHERE year < 1970) ORDER BY id",
    ),
    "planes built in no year of a Boeing": (
        select(PLANES).columns(plane_id).where(built.not_in(select(PLANES).columns(built).where(maker == "BOEING"))),
        "SELECT id FROM planes WHERE year NOT IN (SELECT year FROM planes WHERE manufacturer = 'BOEING') ORDER BY id",
    ),
    "how often planes fly": (
        select(PLANES)
        .columns(plane_id, count_of(FLIGHTS_OF), count_of(FLIGHTS_OF, lambda f: f.where(arr_delay > 30)))
        .order_by(count_of(FLIGHTS_OF).desc())
        .limit(40),
        "SELECT id, (SELECT count(*) FROM flights f WHERE f.tailnum = p.id) AS n, "
        "(SELECT count(*) FROM flights f WHERE f.tailnum = p.id AND f.arr_delay > 30) FROM planes p ORDER BY n DESC, id LIMIT 40",
    ),
    "the worst delay beside each airline": (
        select(AIRLINES).columns(
            airline, scalar(select(FLIGHTS).columns(max_(arr_delay)).where(carrier == airline_id))
        ),
        "SELECT name, (SELECT max(arr_delay) FROM flights f WHERE f.carrier = a.id) FROM airlines a ORDER BY id",
    ),
    "which flight was the worst of its airline": (
        select(FLIGHTS)
        .join(WORST_OF, (carrier == WORST_OF.col(lambda r: r[0])) & (arr_delay == WORST_OF.col(lambda r: r[1])))
        .columns(carrier, id_, arr_delay)
        .order_by(carrier),
        "SELECT f.carrier, f.id, arr_delay FROM flights f JOIN (SELECT carrier, max(arr_delay) AS worst FROM flights "
        "GROUP BY carrier) w ON f.carrier = w.carrier AND f.arr_delay = w.worst ORDER BY f.carrier, f.id",
    ),
    "on the five worst days": (
        select(FLIGHTS)
        .join(WORST_DAYS, (month == WORST_DAYS.col(lambda r: r[0])) & (day == WORST_DAYS.col(lambda r: r[1])))
        .columns(month, day, count(), sum_(distance))
        .group_by(month, day),
        "SELECT f.month, f.day, count(*), sum(distance) FROM flights f JOIN (SELECT month, day FROM flights GROUP BY month, day "
        "ORDER BY sum(dep_delay) DESC, month, day LIMIT 5) w ON f.month = w.month AND f.day = w.day "
        "GROUP BY f.month, f.day ORDER BY f.month, f.day",
    ),
    "delays in strong gusts": (
        select(FLIGHTS)
        .join(WEATHER, (origin == w_origin) & (hour_of == w_hour))
        .columns(origin, count(), avg(dep_delay), max_(gust))
        .where(gust > 30.0)
        .group_by(origin),
        "SELECT f.origin, count(*), avg(dep_delay), max(wind_gust) FROM flights f JOIN weather w "
        "ON f.origin = w.origin AND f.hour_of = w.hour_of WHERE wind_gust > 30.0 GROUP BY f.origin ORDER BY f.origin",
    ),
    "planes of one make and year": (
        select(PLANES)
        .join(OTHERS, (maker == OTHERS.col(lambda p: p.manufacturer)) & (built == OTHERS.col(lambda p: p.year)))
        .columns(plane_id, OTHERS.col(lambda p: p.id))
        .where(plane_id < OTHERS.col(lambda p: p.id), built < 1985),
        "SELECT p.id, o.id FROM planes p JOIN planes o ON p.manufacturer = o.manufacturer AND p.year = o.year "
        "WHERE p.id < o.id AND p.year < 1985 ORDER BY p.id, o.id",
    ),
    "from high to low": (
        select(FLIGHTS)
        .join(AIRPORTS, dest == airport_id)
        .left_join(AT, origin == AT.col(lambda a: a.id))
        .columns(dest, alt - AT.col(lambda a: a.alt), count())
        .group_by(dest, alt, AT.col(lambda a: a.alt))
        .having(count() > 10),
        "SELECT dest, a.alt - s.alt, count(*) FROM flights f JOIN airports a ON f.dest = a.id LEFT JOIN airports s "
        "ON f.origin = s.id GROUP BY dest, a.alt, s.alt HAVING count(*) > 10 ORDER BY dest, a.alt, s.alt",
    ),
    "classes of distance": (
        select(FLIGHTS)
        .columns(case((distance < 500, "short"), (distance < 1500, "middle"), otherwise="long"), count(), avg(air_time))
        .group_by(case((distance < 500, "short"), (distance < 1500, "middle"), otherwise="long")),
        "SELECT CASE WHEN distance < 500 THEN 'short' WHEN distance < 1500 THEN 'middle' ELSE 'long' END AS class, count(*), "
        "avg(air_time) FROM flights GROUP BY class ORDER BY class",
    ),
    "seats that were lost": (
        select(FLIGHTS)
        .join(PLANES, tailnum == plane_id)
        .columns(maker, sum_(seats, where=arr_delay.is_null()), count())
        .group_by(maker)
        .order_by(count().desc())
        .limit(8),
        "SELECT manufacturer, sum(seats) FILTER (WHERE arr_delay IS NULL), count(*) FROM flights f JOIN planes p "
        "ON f.tailnum = p.id GROUP BY manufacturer ORDER BY count(*) DESC, manufacturer LIMIT 8",
    ),
}
