"""Decimals: exact numbers with a fixed number of places, and those that are only told apart."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from atoma.contracts.checks import is_a
from atoma.contracts.values import Scalar
from atoma.errors import SchemaError
from atoma.schema.kinds import INT64_MAX, INT64_MIN, Comparisons, Kind, refuse
from atoma.schema.packed import Packed

DECIMAL_DIGITS = 1_000
SCALE_MAX = 18

_NO_ORDER = (
    "a Decimal is kept as text, in which '10' comes before '9'; declare Annotated[Decimal, Scale(2)], with as many places "
    "as you need, and it orders, compares and adds up by value"
)
BARE_DECIMALS = Comparisons(order=_NO_ORDER, total=_NO_ORDER)


class Scale(msgspec.Struct, frozen=True):
    """The number of places behind the point of a ``Decimal`` field: ``Annotated[Decimal, Scale(2)]``.

    The value is kept as a 64-bit whole number of the smallest unit, so that it orders, compares and adds up exactly. What has
    more places, or does not fit, is refused and never rounded.

    Attributes:
        places: 0 to 18.

    Raises:
        SchemaError: It is not such a number.
    """

    places: int

    def __post_init__(self) -> None:
        if not is_a(self.places, int) or is_a(self.places, bool) or not 0 <= self.places <= SCALE_MAX:
            raise SchemaError(f"Scale() takes 0 to {SCALE_MAX} places, not {self.places!r}")


def plain(value: Decimal) -> str:
    """The one text of a finite decimal: no exponent, no zeros at the end, no negative zero."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def bare(store: str, name: str) -> Kind:
    """A ``Decimal`` of any precision: equal by value, without an order."""

    def encode(value: object) -> Scalar:
        if not isinstance(value, Decimal) or not value.is_finite():
            raise refuse(store, name, "a finite Decimal", value)
        if value and abs(value.adjusted()) > DECIMAL_DIGITS:
            raise refuse(store, name, f"a Decimal of at most {DECIMAL_DIGITS:,} digits", value)
        return plain(value)

    def unpack(value: Scalar) -> Scalar:
        if not isinstance(value, str):
            return value
        try:
            found = Decimal(value)
        except ArithmeticError:
            return value
        return plain(found) if found.is_finite() else value

    packed = Packed(False, pack=lambda value: value, unpack=unpack)
    return Kind("TEXT", "decimal", encode, Decimal, None, encode, BARE_DECIMALS, packed)


def scaled(store: str, name: str, scale: Scale) -> Kind:
    """A ``Decimal`` with a fixed number of places, as a whole number of the smallest unit."""
    places = scale.places

    def encode(value: object) -> Scalar:
        if not isinstance(value, Decimal) or not value.is_finite():
            raise refuse(store, name, "a finite Decimal", value)
        units = _units(value, places)
        if units is None:
            raise refuse(store, name, f"a Decimal of at most {places} places", value)
        if not INT64_MIN <= units <= INT64_MAX:
            raise refuse(store, name, f"a Decimal of {places} places that fits into 64 bits", value)
        return units

    def decode(value: int) -> Decimal:
        return Decimal(f"{value}E-{places}")

    return Kind("INTEGER", f"decimal({places})", encode, decode, None, encode, places=places)


def _units(value: Decimal, places: int) -> int | None:
    """``value`` in units of the last place, whatever the context of the caller; None when it has more places."""
    sign, digits, exponent = value.as_tuple()
    if not value or value.adjusted() + places > SCALE_MAX + 1:
        return 0 if not value else INT64_MAX + 1
    assert isinstance(exponent, int)
    shift = exponent + places
    number = int("".join(map(str, digits)))
    if shift < 0:
        if -shift > len(digits):
            return None
        number, rest = divmod(number, 10**-shift)
        if rest:
            return None
    else:
        number = number * int(10**shift)
    return -number if sign else number
