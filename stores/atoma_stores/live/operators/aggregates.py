"""Running aggregates: they follow the values that enter and leave a group, and agree with those of the whole group."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from atoma.query.functions import whole

EXTREMES = 16
"""The number of least, or greatest, distinct values that are kept of a group; up to twice as many before some go."""
_DIGITS = 1074
"""The number of binary places with which every real is a whole number."""


class RunningAggregate(Protocol):
    """An aggregate over the values of a group that are not NULL."""

    def add(self, value: Any, times: int) -> None:
        """Add ``value`` so many times."""
        ...

    def remove(self, value: Any) -> None:
        """Remove ``value`` once."""
        ...

    @property
    def value(self) -> Any:
        """The current value.

        Raises:
            QueryError: It does not fit into 64 bits.
        """
        ...


class Count:
    """The number of values."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def add(self, value: Any, times: int) -> None:
        """See ``RunningAggregate``."""
        self.value += times

    def remove(self, value: Any) -> None:
        """See ``RunningAggregate``."""
        self.value -= 1


class Total:
    """The exact sum of whole numbers, or of reals, and their count.

    Reals are summed as multiples of the smallest one that exists, so that nothing is lost when one leaves again.
    """

    __slots__ = ("_above", "_below", "_count", "_real", "_sum")

    def __init__(self) -> None:
        self._sum = 0
        self._count = 0
        self._real = False
        self._above = 0  # the number of infinities
        self._below = 0

    def add(self, value: Any, times: int) -> None:
        """See ``RunningAggregate``."""
        self._count += times
        if type(value) is not float:
            self._sum += value * times
            return
        self._real = True
        if value in (float("inf"), float("-inf")):
            self._above += times * (value > 0)
            self._below += times * (value < 0)
        else:
            numerator, denominator = value.as_integer_ratio()
            self._sum += times * (numerator << (_DIGITS + 1 - denominator.bit_length()))

    def remove(self, value: Any) -> None:
        """See ``RunningAggregate``."""
        self.add(value, -1)

    def sum(self) -> Any:
        """Return the sum, rounded once; None for no values, and for infinities of both signs.

        Raises:
            QueryError: A sum of whole numbers does not fit into 64 bits.
        """
        if not self._count:
            return None
        return self._rounded() if self._real else whole(self._sum)

    def mean(self) -> float | None:
        """Return the sum divided by the count; None if there is no sum."""
        if not self._count:
            return None
        total = self._rounded() if self._real else self._sum
        return None if total is None else total / self._count

    def _rounded(self) -> float | None:
        if self._above or self._below:
            return None if self._above and self._below else float("inf" if self._above else "-inf")
        try:
            return self._sum / (1 << _DIGITS)
        except OverflowError:
            return float("inf" if self._sum > 0 else "-inf")


class Sum(Total):
    """The sum of the values."""

    __slots__ = ()

    @property
    def value(self) -> Any:
        """See ``RunningAggregate``."""
        return self.sum()


class Mean(Total):
    """The mean of the values."""

    __slots__ = ()

    @property
    def value(self) -> Any:
        """See ``RunningAggregate``."""
        return self.mean()


class Extreme:
    """The least or the greatest value.

    The values next to it are kept as well, each with its count: all values of the group that are at least as good as the
    last one kept. When these have all left, and there may be others, the aggregate :attr:`lacks` something.

    Args:
        greatest: Whether it is the greatest value.
    """

    __slots__ = ("_counts", "_greatest", "_values", "_whole")

    def __init__(self, greatest: bool) -> None:
        self._greatest = greatest
        self._values: list[Any] = []  # in order
        self._counts: dict[Any, int] = {}
        self._whole = True  # whether these are all values of the group

    def __len__(self) -> int:
        return len(self._values)

    @property
    def lacks(self) -> bool:
        """Whether values have to be read before the value is known."""
        return not self._values and not self._whole

    @property
    def value(self) -> Any:
        """See ``RunningAggregate``."""
        if not self._values:
            return None
        return self._values[-1] if self._greatest else self._values[0]

    def add(self, value: Any, times: int) -> None:
        """See ``RunningAggregate``."""
        if value in self._counts:
            self._counts[value] += times
        elif self._whole or (self._values and self._is_inside(value)):
            self._values.insert(bisect_left(self._values, value), value)
            self._counts[value] = times
            if len(self._values) > 2 * EXTREMES:
                self._let_go()

    def remove(self, value: Any) -> None:
        """See ``RunningAggregate``."""
        count = self._counts.get(value, 0)
        if count > 1:
            self._counts[value] = count - 1
        elif count:
            del self._counts[value]
            del self._values[bisect_left(self._values, value)]

    def read(self, found: Iterable[tuple[Any, int]]) -> None:
        """Keep ``found`` from now on: the best :data:`EXTREMES` values, or all of them, each with its count."""
        self._counts = dict(found)
        self._values = sorted(self._counts)
        self._whole = len(self._values) < EXTREMES

    def _is_inside(self, value: Any) -> bool:
        return bool(value > self._values[0] if self._greatest else value < self._values[-1])

    def _let_go(self) -> None:
        gone = self._values[:-EXTREMES] if self._greatest else self._values[EXTREMES:]
        for value in gone:
            del self._counts[value]
        self._values = self._values[-EXTREMES:] if self._greatest else self._values[:EXTREMES]
        self._whole = False


class Distinct:
    """An aggregate in which equal values count once.

    Args:
        inner: The aggregate over the distinct values.
    """

    __slots__ = ("_counts", "_inner")

    def __init__(self, inner: RunningAggregate) -> None:
        self._inner = inner
        self._counts: Counter[Any] = Counter()

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def value(self) -> Any:
        """See ``RunningAggregate``."""
        return self._inner.value

    def add(self, value: Any, times: int) -> None:
        """See ``RunningAggregate``."""
        if value not in self._counts:
            self._inner.add(value, 1)
        self._counts[value] += times

    def remove(self, value: Any) -> None:
        """See ``RunningAggregate``."""
        self._counts[value] -= 1
        if not self._counts[value]:
            del self._counts[value]
            self._inner.remove(value)


MAKE: Mapping[str, Callable[[], RunningAggregate]] = {
    "count": Count,
    "sum": Sum,
    "avg": Mean,
    "min": lambda: Extreme(greatest=False),
    "max": lambda: Extreme(greatest=True),
}
"""The aggregates by name; ``distinct`` makes no difference to an extreme."""
