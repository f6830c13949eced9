"""Questions about a shop for music: each as a query, and in SQL that SQLite and DuckDB understand alike."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any, NamedTuple

from atoma import Query, avg, case, count, count_of, exists, max_, min_, scalar, select, sum_
from tests.music import (
    ALBUMS,
    ALBUMS_BY,
    ARTISTS,
    CUSTOMERS,
    CUSTOMERS_OF,
    EMPLOYEES,
    GENRES,
    INVOICES,
    INVOICES_OF,
    LINES,
    LISTED,
    MEDIA,
    PLAYLISTS,
    PLAYLISTS_OF,
    SALES,
    TRACKS,
    TRACKS_IN,
    TRACKS_ON,
)


class Sold(NamedTuple):
    genre: str
    lines: int
    earned: Decimal | None


artist_id, artist = ARTISTS.col(lambda a: a.id), ARTISTS.col(lambda a: a.name)
album_id, album, album_artist = (
    ALBUMS.col(lambda a: a.id),
    ALBUMS.col(lambda a: a.title),
    ALBUMS.col(lambda a: a.artist),
)
track_id, track, on_album = TRACKS.col(lambda t: t.id), TRACKS.col(lambda t: t.name), TRACKS.col(lambda t: t.album)
composer, length, size = (
    TRACKS.col(lambda t: t.composer),
    TRACKS.col(lambda t: t.milliseconds),
    TRACKS.col(lambda t: t.bytes),
)
track_genre, track_media, price = (
    TRACKS.col(lambda t: t.genre),
    TRACKS.col(lambda t: t.media),
    TRACKS.col(lambda t: t.price),
)
genre_id, genre = GENRES.col(lambda g: g.id), GENRES.col(lambda g: g.name)
media_id, media = MEDIA.col(lambda m: m.id), MEDIA.col(lambda m: m.name)
playlist_id, playlist = PLAYLISTS.col(lambda p: p.id), PLAYLISTS.col(lambda p: p.name)
listed_in, listed = LISTED.col(lambda row: row.playlist), LISTED.col(lambda row: row.track)
employee_id, employee, boss, hired = (
    EMPLOYEES.col(lambda e: e.id),
    EMPLOYEES.col(lambda e: e.name),
    EMPLOYEES.col(lambda e: e.boss),
    EMPLOYEES.col(lambda e: e.hired),
)
customer_id, customer, company = (
    CUSTOMERS.col(lambda c: c.id),
    CUSTOMERS.col(lambda c: c.name),
    CUSTOMERS.col(lambda c: c.company),
)
country, support = CUSTOMERS.col(lambda c: c.country), CUSTOMERS.col(lambda c: c.support)
invoice_id, bought_by, day = (
    INVOICES.col(lambda i: i.id),
    INVOICES.col(lambda i: i.customer),
    INVOICES.col(lambda i: i.day),
)
billed_in, state, total = (
    INVOICES.col(lambda i: i.country),
    INVOICES.col(lambda i: i.state),
    INVOICES.col(lambda i: i.total),
)
line_invoice, line_track, line_price = (
    LINES.col(lambda row: row.invoice),
    LINES.col(lambda row: row.track),
    LINES.col(lambda row: row.price),
)
SUPERIOR = EMPLOYEES.named("superior")
OTHER = TRACKS.named("other")
BEST = select(INVOICES).columns(billed_in, max_(total)).group_by(billed_in).named("best")

QUESTIONS: dict[str, tuple[Query[Any], str]] = {
    "the longest tracks": (
        select(TRACKS).columns(track, length).order_by(length.desc()).limit(20),
        "SELECT name, milliseconds FROM tracks ORDER BY milliseconds DESC, id LIMIT 20",
    ),
    "albums and their artists": (
        select(ALBUMS).join(ARTISTS, album_artist == artist_id).columns(album, artist).order_by(artist, album),
        "SELECT a.title, r.name FROM albums a JOIN artists r ON a.artist = r.id ORDER BY r.name, a.title, a.id, r.id",
    ),
    "artists without an album": (
        select(ARTISTS).columns(artist_id, artist).where(~exists(ALBUMS_BY)),
        "SELECT id, name FROM artists r WHERE NOT EXISTS (SELECT 1 FROM albums a WHERE a.artist = r.id) ORDER BY id",
    ),
    "the same, by a join from the left": (
        select(ARTISTS).left_join(ALBUMS, album_artist == artist_id).columns(artist_id).where(album_id.is_null()),
        "SELECT r.id FROM artists r LEFT JOIN albums a ON a.artist = r.id WHERE a.id IS NULL ORDER BY r.id",
    ),
    "what each genre has sold": (
        select(LINES)
        .join(TRACKS, line_track == track_id)
        .join(GENRES, track_genre == genre_id)
        .into(Sold, genre, count(), sum_(line_price))
        .group_by(genre)
        .order_by(sum_(line_price).desc()),
        "SELECT g.name, count(*), sum(l.price) FROM lines l JOIN tracks t ON l.track = t.id JOIN genres g ON t.genre = g.id "
        "GROUP BY g.name ORDER BY sum(l.price) DESC, g.name",
    ),
    "artists with many albums": (
        select(ARTISTS)
        .join(ALBUMS, album_artist == artist_id)
        .columns(artist, count())
        .group_by(artist)
        .having(count() >= 5)
        .order_by(count().desc()),
        "SELECT r.name, count(*) FROM artists r JOIN albums a ON a.artist = r.id GROUP BY r.name HAVING count(*) >= 5 "
        "ORDER BY count(*) DESC, r.name",
    ),
    "albums by how many tracks they have": (
        select(ALBUMS).columns(album_id, count_of(TRACKS_ON)).order_by(count_of(TRACKS_ON).desc()).limit(30),
        "SELECT a.id, (SELECT count(*) FROM tracks t WHERE t.album = a.id) AS n FROM albums a ORDER BY n DESC, a.id LIMIT 30",
    ),
    "tracks nobody has bought": (
        select(TRACKS).columns(track_id).where(~exists(SALES)),
        "SELECT id FROM tracks t WHERE NOT EXISTS (SELECT 1 FROM lines l WHERE l.track = t.id) ORDER BY id",
    ),
    "playlists and what is in them": (
        select(PLAYLISTS).columns(playlist_id, playlist, count_of(TRACKS_IN)),
        "SELECT p.id, p.name, (SELECT count(*) FROM tracks t WHERE t.id IN (SELECT l.track FROM listed l "
        "WHERE l.playlist = p.id)) FROM playlists p ORDER BY p.id",
    ),
    "tracks of many playlists": (
        select(TRACKS).columns(track_id, count_of(PLAYLISTS_OF)).where(count_of(PLAYLISTS_OF) >= 5),
        "SELECT * FROM (SELECT t.id AS id, (SELECT count(*) FROM playlists p WHERE p.id IN (SELECT l.playlist FROM listed l "
        "WHERE l.track = t.id)) AS n FROM tracks t) AS x WHERE n >= 5 ORDER BY id",
    ),
    "who reports to whom": (
        select(EMPLOYEES)
        .left_join(SUPERIOR, boss == SUPERIOR.col(lambda e: e.id))
        .columns(employee, SUPERIOR.col(lambda e: e.name))
        .order_by(employee),
        "SELECT e.name, s.name FROM employees e LEFT JOIN employees s ON e.boss = s.id ORDER BY e.name, e.id, s.id",
    ),
    "who looks after how many customers, and companies among them": (
        select(EMPLOYEES)
        .join(CUSTOMERS, support == employee_id)
        .columns(employee, count(), count(company), count(where=country == "USA"))
        .group_by(employee),
        "SELECT e.name, count(*), count(c.company), count(*) FILTER (WHERE c.country = 'USA') FROM employees e "
        "JOIN customers c ON c.support = e.id GROUP BY e.name ORDER BY e.name",
    ),
    "the best invoice of each country": (
        select(INVOICES)
        .join(BEST, (billed_in == BEST.col(lambda b: b[0])) & (total == BEST.col(lambda b: b[1])))
        .columns(billed_in, invoice_id, total),
        "SELECT i.country, i.id, i.total FROM invoices i JOIN (SELECT country, max(total) AS most FROM invoices "
        "GROUP BY country) b ON i.country = b.country AND i.total = b.most ORDER BY i.id",
    ),
    "countries where more than a hundred was spent": (
        select(INVOICES)
        .columns(billed_in, sum_(total), count(), max_(day))
        .group_by(billed_in)
        .having(sum_(total) > Decimal(100))
        .order_by(sum_(total).desc()),
        "SELECT country, sum(total), count(*), max(day) FROM invoices GROUP BY country HAVING sum(total) > 10000 "
        "ORDER BY sum(total) DESC, country",
    ),
    "invoices of a quarter, dear or without a state": (
        select(INVOICES)
        .columns(invoice_id, state, total)
        .where(day.between(date(2009, 1, 1), date(2009, 3, 31)), (total > Decimal("5.50")) | state.is_null())
        .order_by("state", "-total"),
        "SELECT id, state, total FROM invoices WHERE day BETWEEN '2009-01-01' AND '2009-03-31' AND (total > 550 "
        "OR state IS NULL) ORDER BY state, total DESC, id",
    ),
    "a year and its months": (
        select(INVOICES)
        .columns(day.year(), day.month(), sum_(total))
        .group_by(day.year(), day.month())
        .having(count() > 5),
        "SELECT CAST(substr(day, 1, 4) AS INTEGER) AS y, CAST(substr(day, 6, 2) AS INTEGER) AS m, sum(total) FROM invoices "
        "GROUP BY y, m HAVING count(*) > 5 ORDER BY y, m",
    ),
    "composers whose name is not known, by genre": (
        select(TRACKS)
        .join(GENRES, track_genre == genre_id)
        .columns(genre, count(where=composer.is_null()), count(composer))
        .group_by(genre),
        "SELECT g.name, count(*) FILTER (WHERE t.composer IS NULL), count(t.composer) FROM tracks t "
        "JOIN genres g ON t.genre = g.id GROUP BY g.name ORDER BY g.name",
    ),
    "not by one composer, where it is known": (
        select(TRACKS).columns(track_id).where(~(composer == "U2"), track.starts("T", exact=True)),
        "SELECT id FROM tracks WHERE NOT (composer = 'U2') AND name >= 'T' AND name < 'U' ORDER BY id",
    ),
    "love and hate in the name": (
        select(TRACKS).columns(track_id, track).where(track.contains("love") | track.contains("hate")).order_by(track),
        "SELECT id, name FROM tracks WHERE lower(name) LIKE '%love%' OR lower(name) LIKE '%hate%' ORDER BY name, id",
    ),
    "long, middle and short ones": (
        select(TRACKS)
        .columns(case((length > 600_000, "long"), (length > 180_000, "middle"), otherwise="short"), count(), avg(size))
        .group_by(case((length > 600_000, "long"), (length > 180_000, "middle"), otherwise="short")),
        "SELECT CASE WHEN milliseconds > 600000 THEN 'long' WHEN milliseconds > 180000 THEN 'middle' ELSE 'short' END AS kind, "
        "count(*), avg(bytes) FROM tracks GROUP BY kind ORDER BY kind",
    ),
    "customers who have bought jazz": (
        select(CUSTOMERS)
        .columns(customer_id, customer)
        .where(
            customer_id.in_(
                select(INVOICES)
                .join(LINES, line_invoice == invoice_id)
                .join(TRACKS, line_track == track_id)
                .join(GENRES, track_genre == genre_id)
                .columns(bought_by)
                .where(genre == "Jazz")
            )
        ),
        "SELECT id, name FROM customers WHERE id IN (SELECT i.customer FROM invoices i JOIN lines l ON l.invoice = i.id "
        "JOIN tracks t ON l.track = t.id JOIN genres g ON t.genre = g.id WHERE g.name = 'Jazz') ORDER BY id",
    ),
    "in which formats one can buy": (
        select(TRACKS).join(MEDIA, track_media == media_id).columns(media, price).distinct(),
        "SELECT DISTINCT m.name, t.price FROM tracks t JOIN media m ON t.media = m.id ORDER BY m.name, t.price",
    ),
    "tracks of one name on two albums": (
        select(TRACKS)
        .join(OTHER, (track == OTHER.col(lambda t: t.name)) & (on_album < OTHER.col(lambda t: t.album)))
        .columns(track, track_id, OTHER.col(lambda t: t.id)),
        "SELECT t.name, t.id, o.id FROM tracks t JOIN tracks o ON t.name = o.name AND t.album < o.album ORDER BY t.id, o.id",
    ),
    "longer than the mean of the album": (
        select(TRACKS)
        .columns(track_id)
        .where(
            length.to_real()
            > scalar(
                select(OTHER)
                .columns(avg(OTHER.col(lambda t: t.milliseconds)))
                .where(OTHER.col(lambda t: t.album) == on_album)
            ),
            on_album < "00040",
        ),
        "SELECT id FROM tracks t WHERE milliseconds > (SELECT avg(o.milliseconds) FROM tracks o WHERE o.album = t.album) "
        "AND album < '00040' ORDER BY id",
    ),
    "customers who never spent more than nine": (
        select(CUSTOMERS).columns(customer_id).where(~exists(INVOICES_OF, lambda i: i.where(total > Decimal(9)))),
        "SELECT id FROM customers c WHERE NOT EXISTS (SELECT 1 FROM invoices i WHERE i.customer = c.id AND i.total > 900) "
        "ORDER BY id",
    ),
    "those who were hired first and look after somebody": (
        select(EMPLOYEES).columns(employee, hired).where(exists(CUSTOMERS_OF)).order_by(hired).limit(2),
        "SELECT name, hired FROM employees e WHERE EXISTS (SELECT 1 FROM customers c WHERE c.support = e.id) "
        "ORDER BY hired, id LIMIT 2",
    ),
    "what is listed, by genre, within bounds": (
        select(LISTED)
        .join(TRACKS, listed == track_id)
        .join(GENRES, track_genre == genre_id)
        .columns(listed_in, genre, count(), min_(length))
        .group_by(listed_in, genre)
        .having(count() > 100),
        "SELECT l.playlist, g.name, count(*), min(t.milliseconds) FROM listed l JOIN tracks t ON l.track = t.id "
        "JOIN genres g ON t.genre = g.id GROUP BY l.playlist, g.name HAVING count(*) > 100 ORDER BY l.playlist, g.name",
    ),
}
