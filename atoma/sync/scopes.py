"""The scopes that a device replicates: those that it was configured with, and those that were added while it ran."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from atoma.contracts.replica import BroughtScope, Portion
from atoma.contracts.shapes import mark_of, marked
from atoma.contracts.values import ErrorInfo
from atoma.errors import ConfigurationError
from atoma.query.shapes import Shapes
from atoma.schema.shapes import AnyPart, ScopePart
from atoma.sync.wake import Bell, Wake

DAY_S = 86_400.0
SETS_MAX = 256
"""Sets of shapes that are remembered; of what is forgotten it is not known that it is here."""


@dataclass(frozen=True, slots=True)
class IdleScopes:
    """The limits for scopes that nobody uses any more; scopes beyond them are dropped.

    Attributes:
        count: How many of them stay; those used last are kept.
        seconds: How long each stays after its last use.

    Raises:
        ConfigurationError: Either is below 0.
    """

    count: int = 32
    seconds: float = 7 * DAY_S

    def __post_init__(self) -> None:
        if not (self.count >= 0 and self.seconds >= 0):
            raise ConfigurationError(
                f"IdleScopes(): a count and seconds of at least 0, not {self.count}, {self.seconds}"
            )


@dataclass(slots=True)
class PullSchedule:
    """The times at which one scope is looked at; it outlives connections.

    Attributes:
        wake: Rung when the scope may have news.
        begun: Rounds begun: each looks at the hub until there is nothing more.
        done: Number of the last round that came to its end.
    """

    wake: Wake = field(default_factory=Wake)
    begun: int = 0
    done: int = 0


@dataclass(slots=True)
class ReplicatedScopes:
    """The scopes that replicate now, each of them whole or in shapes.

    The file is the truth of those that were brought along; this is what was read of it last.

    Attributes:
        always: What the program was configured with, in order.
        brought: What was brought along.
        leaving: Scopes that are being dropped: nobody is shown them any more.
        anew: Scopes that nothing in this session holds for any more: somebody asks for one though the hub has refused it, or it was
            dropped, and may have come again.
        bell: Rung when any of this changes.
        asked: The shapes in which each scope was asked for in this session; none for all of it.
        refused: Those of them that the hub does not give out, with the reason, by scope.
        apart: Scopes of which the hub has lost a part that is here, and which it gives out in none of the shapes in
            which they are wanted, with where the histories part: they wait, as they are, for a hub that does.
        known: Sets of shapes that scopes were wanted in while the program ran, by the mark that cursors have of them.
        schedules: When each scope is looked at; made as it is first asked for.
        fixed: The scopes that the program was configured with, whole or in part, in order.
    """

    always: tuple[Portion, ...]
    brought: dict[Portion, BroughtScope] = field(default_factory=dict[Portion, BroughtScope])
    leaving: set[str] = field(default_factory=set[str])
    anew: set[str] = field(default_factory=set[str])
    bell: Bell = field(default_factory=Bell)
    asked: dict[str, tuple[bytes, ...]] = field(default_factory=dict[str, tuple[bytes, ...]])
    refused: dict[str, Mapping[bytes, ErrorInfo]] = field(default_factory=dict[str, Mapping[bytes, ErrorInfo]])
    apart: dict[str, int] = field(default_factory=dict[str, int])
    known: dict[bytes, frozenset[bytes]] = field(default_factory=dict[bytes, frozenset[bytes]])
    schedules: dict[str, PullSchedule] = field(default_factory=dict[str, PullSchedule])
    fixed: tuple[str, ...] = ()
    _wanted: dict[str, list[Portion]] = field(default_factory=dict[str, list[Portion]])

    def __post_init__(self) -> None:
        self.fixed = tuple(dict.fromkeys(portion.scope for portion in self.always))
        self._sort()

    def _sort(self) -> None:
        """Sort what is wanted by scopes: the fixed ones in order, then the others by name."""
        self._wanted = {scope: [] for scope in self.fixed}
        for portion in sorted({*self.always, *self.brought}):
            self._wanted.setdefault(portion.scope, []).append(portion)

    @property
    def every(self) -> tuple[str, ...]:
        """All that replicate: the fixed ones in order, then the others by name."""
        leaving = self.leaving.difference(self.fixed)
        return tuple([scope for scope in self._wanted if scope not in leaving] if leaving else self._wanted)

    def schedule(self, scope: str) -> PullSchedule:
        """When ``scope`` is looked at."""
        return self.schedules.setdefault(scope, PullSchedule())

    def portions(self, scope: str) -> list[Portion]:
        """In what ways ``scope`` is wanted, in order."""
        return list(self._wanted.get(scope, ()))

    def shapes(self, scope: str) -> tuple[bytes, ...]:
        """The shapes in which ``scope`` is wanted, in order; none where somebody wants all of it."""
        shapes = tuple(portion.shape for portion in self.portions(scope))
        return () if b"" in shapes else shapes

    def by_use(self, scope: str) -> list[bytes]:
        """The shapes in which ``scope`` is wanted, those first that the program was configured with, then those used now, or last."""

        def rank(shape: bytes) -> tuple[bool, bool, int]:
            portion = Portion(scope, shape)
            use = self.brought.get(portion)
            return portion not in self.always, use is None or not use.programs, 0 if use is None else -use.used_ms

        return sorted(self.shapes(scope), key=rank)

    def is_given(self, scope: str) -> bool:
        """Whether the hub, as far as it was asked, gives out ``scope`` in any of the shapes, or whole where that is wanted."""
        asked, refused = self.asked.get(scope, ()), self.refused.get(scope, {})
        return not asked or any(shape not in refused for shape in asked)

    def takes_in(self, portion: Portion) -> bool:
        """Whether ``portion`` is wanted, or all of its scope."""
        portions = self.portions(portion.scope)
        return portion in portions or Portion(portion.scope) in portions

    def note(self, shapes: Iterable[bytes]) -> bytes:
        """What cursors end with that are of the rows in ``shapes``; it is remembered of which they are."""
        every = frozenset(shapes)
        mark = mark_of(every)
        if mark and mark not in self.known:
            while len(self.known) >= SETS_MAX:
                del self.known[next(iter(self.known))]
            self.known[mark] = every
        return mark

    def within(self, view: bytes) -> frozenset[bytes] | None:
        """The shapes that a cursor is of whose view is ``view``, as far as that is known; None where it is of all of the scope."""
        mark = marked(view)
        return self.known.get(mark, frozenset()) if mark else None

    def read(self, found: Sequence[BroughtScope]) -> tuple[list[str], list[str]]:
        """Take over what the file says was brought along; names of the scopes that are new, and of those that are gone."""
        brought = {each.portion: each for each in found if each.portion not in self.always}
        before, fixed = {portion.scope for portion in self.brought}, set(self.fixed)
        here = {portion.scope for portion in brought}
        if brought != self.brought:
            self.brought = brought
            self._sort()
            self.bell.ring()
        gone = sorted(before - here - fixed)
        self.anew.update(gone)
        for scope in gone:
            self.schedules.pop(scope, None)
        return sorted(here - before - fixed), gone

    def ask_anew(self, scopes: Iterable[str]) -> None:
        """Have the hub asked again for scopes that it has refused."""
        self.anew.update(scopes)
        self.bell.ring()


def portion_of(part: AnyPart, shapes: Shapes) -> Portion:
    """A scope, or a part of one, as the file has it.

    Raises:
        SchemaError: It is of a shape that the schema does not declare.
        QueryError: A value of its does not fit.
    """
    return Portion(part.scope, shapes.call(part)) if isinstance(part, ScopePart) else Portion(part)
