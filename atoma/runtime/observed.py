"""What makes a store an Observable by contract, without the 135 operators whose names clash with a store's own words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar, cast, overload

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")

if TYPE_CHECKING:
    from reactivex import Observable, abc

    class _Contract(abc.ObservableBase[tuple[T, ...]], Generic[T]):
        """Checkers see what ``declare_observable`` says at run time."""

else:

    class _Contract(Generic[T]):
        """Reactivex is not loaded for it."""

        __slots__ = ()


class ObservableRows(_Contract[T]):
    """A ``reactivex.abc.ObservableBase`` of all rows: what each of its subscribers gets is the whole result, again after each change.

    An operator that takes another Observable, as ``merge`` and ``flat_map`` do, wants a full one: give it :meth:`observe`.
    """

    __slots__ = ()

    def observe(self) -> Observable[tuple[T, ...]]:
        """The rows as a full Observable."""
        raise NotImplementedError

    def subscribe(
        self,
        on_next: abc.OnNext[tuple[T, ...]] | abc.ObserverBase[tuple[T, ...]] | None = None,
        on_error: abc.OnError | None = None,
        on_completed: abc.OnCompleted | None = None,
        *,
        scheduler: abc.SchedulerBase | None = None,
    ) -> abc.DisposableBase:
        """Follow every row: the whole result at first, and again after each commit that changes it.

        Args:
            on_next: Called with the rows, or an observer.
            on_error: Called with what ended it.
            on_completed: Called when the client closes.
            scheduler: Default scheduler of operators that deal with time.

        Returns:
            What ends the subscription when it is disposed.
        """
        return self.observe().subscribe(on_next, on_error, on_completed, scheduler=scheduler)

    @overload
    def pipe(self, a: Callable[[Observable[tuple[T, ...]]], A], /) -> A: ...
    @overload
    def pipe(self, a: Callable[[Observable[tuple[T, ...]]], A], b: Callable[[A], B], /) -> B: ...
    @overload
    def pipe(self, a: Callable[[Observable[tuple[T, ...]]], A], b: Callable[[A], B], c: Callable[[B], C], /) -> C: ...
    @overload
    def pipe(
        self,
        a: Callable[[Observable[tuple[T, ...]]], A],
        b: Callable[[A], B],
        c: Callable[[B], C],
        d: Callable[[C], D],
        /,
    ) -> D: ...
    @overload
    def pipe(
        self,
        a: Callable[[Observable[tuple[T, ...]]], A],
        b: Callable[[A], B],
        c: Callable[[B], C],
        d: Callable[[C], D],
        e: Callable[[D], E],
        /,
    ) -> E: ...

    def pipe(self, *operators: object) -> object:
        """What operators make of the rows, ``cards.pipe(ops.map(len), ops.distinct_until_changed())``, the first one first.

        For more than five, pipe what comes of the first ones.
        """
        whole = cast("Callable[..., object]", self.observe().pipe)
        return whole(*operators)


def declare_observable() -> None:
    """Have ``isinstance(store, reactivex.abc.ObservableBase)`` say that stores are; loads reactivex."""
    from reactivex.abc import ObservableBase

    ObservableBase.register(ObservableRows)
