"""Moments, days, times of day and durations."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta

from atoma.contracts.values import Scalar
from atoma.schema.kinds import INT64_MAX, INT64_MIN, Kind, refuse
from atoma.schema.packed import as_json

TIME_FORMAT = "%Y-%m-%dT%H:%M:%S.%fZ"
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at_ms(now_ms: int) -> datetime:
    """The moment that a wall clock tells as so many milliseconds."""
    return _EPOCH + timedelta(milliseconds=now_ms)


def moment(store: str, name: str) -> Kind:
    """A ``datetime`` with a time zone, kept in UTC."""

    def encode(value: object) -> Scalar:
        if not isinstance(value, datetime) or value.tzinfo is None:
            raise refuse(store, name, "datetime with a time zone", value)
        try:
            in_utc = value.astimezone(UTC)
        except OverflowError:
            raise refuse(store, name, "a datetime whose year in UTC is 1 to 9999", value) from None
        return f"{in_utc.year:04d}" + in_utc.strftime(TIME_FORMAT[2:])

    return Kind("TEXT", "time", encode, datetime.fromisoformat, None, encode)


def day(store: str, name: str) -> Kind:
    """A ``date``."""

    def encode(value: object) -> Scalar:
        if type(value) is not date:
            raise refuse(store, name, "date", value)
        return value.isoformat()

    return Kind("TEXT", "date", encode, date.fromisoformat, None, encode)


def clock_time(store: str, name: str) -> Kind:
    """A time of day without a time zone; one with a zone, which an older version let in, is still read."""

    def encode(value: object) -> Scalar:
        if type(value) is not time or value.tzinfo is not None:
            raise refuse(store, name, "time without a time zone", value)
        return value.isoformat()

    packed = as_json(time, time.fromisoformat, time.isoformat)
    return Kind("TEXT", "clock", encode, time.fromisoformat, None, encode, packed=packed)


def duration(store: str, name: str) -> Kind:
    """A ``timedelta`` in whole microseconds."""

    def encode(value: object) -> Scalar:
        if not isinstance(value, timedelta):
            raise refuse(store, name, "timedelta", value)
        microseconds = value // _MICROSECOND
        if not INT64_MIN <= microseconds <= INT64_MAX:
            raise refuse(store, name, "a timedelta of at most 292,271 years, which are 64 bits of microseconds", value)
        return microseconds

    def decode(value: int) -> timedelta:
        return timedelta(microseconds=value)

    return Kind("INTEGER", "duration", encode, decode, None, encode, packed=as_json(timedelta, decode, encode))
