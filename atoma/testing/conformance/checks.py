"""Checks as values: a promise, the code that puts it to the test, and a verdict that says what happened instead."""

from __future__ import annotations

import unittest
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeAlias, TypeVar

import trio
import trio.testing

from atoma.ports.tasks import single_error

CHECK_S = 90.0
"""Seconds after which a check that has come to no end counts as broken."""

Outcome: TypeAlias = Literal["kept", "broken", "not checked"]


class Site(Protocol):
    """Anything that is checked: it has a name, and may run on a virtual clock or not."""

    @property
    def name(self) -> str:
        """What verdicts call it."""
        ...

    @property
    def virtual(self) -> bool:
        """Whether nothing in it waits for the real world, so that a virtual clock may jump over every wait."""
        ...


S = TypeVar("S", bound=Site)
S_contra = TypeVar("S_contra", bound=Site, contravariant=True)
G = TypeVar("G")
E = TypeVar("E", bound=BaseException)


class CheckFailed(AssertionError):
    """A promise that was not kept.

    Attributes:
        check: Name of the check.
        site: Name of what was checked.
        promised: What should have happened.
        happened: What did.
    """

    def __init__(self, check: str, site: str, promised: str, happened: str) -> None:
        super().__init__(f"{site} breaks {check!r}\n  promised: {promised}\n  happened: {happened}")
        self.check = check
        self.site = site
        self.promised = promised
        self.happened = happened


class NotChecked(unittest.SkipTest):
    """A check that the kit cannot make on what it was given; test runners show it as skipped."""


@dataclass(frozen=True, slots=True)
class Check(Generic[S_contra]):
    """One promise.

    Attributes:
        name: Short name.
        promise: What it promises, as text.
        body: Puts it to the test.
    """

    name: str
    promise: str
    body: Callable[[S_contra], Awaitable[None]]


Checks: TypeAlias = Mapping[str, Check[S]]


class CheckTable(Mapping[str, Check[S]], Generic[S, G]):
    """A table of checks by name, each over a ground that is opened for it alone.

    Args:
        opened: Makes, of what an author supplies, what the checks work on.
    """

    def __init__(self, opened: Callable[[S], AbstractAsyncContextManager[G]]) -> None:
        self._opened = opened
        self._checks: dict[str, Check[S]] = {}

    def add(self, body: Callable[[G], Awaitable[None]]) -> Callable[[G], Awaitable[None]]:
        """Register a coroutine function; its name is the check's, its docstring the promise. For use as a decorator."""

        async def on_site(site: S) -> None:
            async with self._opened(site) as ground:
                await body(ground)

        name = getattr(body, "__name__", "check")
        self._checks[name] = Check(name, " ".join((body.__doc__ or name).split()), on_site)
        return body

    def __getitem__(self, name: str) -> Check[S]:
        return self._checks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._checks)

    def __len__(self) -> int:
        return len(self._checks)


async def check_promise(site: S, check: Check[S]) -> None:
    """Put one promise to the test, within a bound of real or virtual time.

    Raises:
        CheckFailed: The promise is not kept; it says what was promised and what happened.
        NotChecked: The site has not got what the check needs.
    """
    failure: BaseException | None = None
    try:
        with trio.fail_after(CHECK_S):
            await check.body(site)
    except BaseException as error:
        failure = single_error(error)
    if failure is None:
        return
    if isinstance(failure, NotChecked) or not isinstance(failure, Exception):  # of those, cancellation is one
        raise failure
    happened = str(failure) if isinstance(failure, AssertionError) else f"{type(failure).__name__}: {failure}"
    if isinstance(failure, trio.TooSlowError):
        happened += f"a wait was not over in time, at the latest after the {CHECK_S:g} s that a check has"
    notes = "".join(f"\n  {note}" for note in getattr(failure, "__notes__", ()))
    raise CheckFailed(check.name, site.name, check.promise, happened + notes) from failure


@dataclass(frozen=True, slots=True)
class Verdict:
    """The finding of one check.

    Attributes:
        check: Its name.
        outcome: Whether the promise is kept.
        detail: What happened instead, or why it was not checked.
    """

    check: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """The findings of a run of a table.

    Attributes:
        site: Name of what was checked.
        verdicts: One per check, in the table's order.
    """

    site: str
    verdicts: tuple[Verdict, ...] = field(default=())

    def of(self, outcome: Outcome) -> tuple[Verdict, ...]:
        """The verdicts with this outcome."""
        return tuple(verdict for verdict in self.verdicts if verdict.outcome == outcome)

    @property
    def ok(self) -> bool:
        """Whether no promise is broken."""
        return not self.of("broken")

    def __str__(self) -> str:
        kept, unchecked, broken = (len(self.of(kind)) for kind in ("kept", "not checked", "broken"))
        lines = [f"{self.site}: {kept} kept, {broken} broken, {unchecked} not checked"]
        lines += [verdict.detail for verdict in self.of("broken")]
        lines += [f"not checked: {verdict.check}: {verdict.detail}" for verdict in self.of("not checked")]
        return "\n".join(lines)


def run_checks(site: S, checks: Checks[S]) -> Report:
    """Run every check of a table, each in an event loop of its own, and report. For programs; tests run them singly."""
    verdicts: list[Verdict] = []
    for name, check in checks.items():
        clock = trio.testing.MockClock(autojump_threshold=0) if site.virtual else None
        try:
            trio.run(check_promise, site, check, clock=clock)
        except CheckFailed as failure:
            verdicts.append(Verdict(name, "broken", str(failure)))
        except NotChecked as reason:
            verdicts.append(Verdict(name, "not checked", str(reason)))
        else:
            verdicts.append(Verdict(name, "kept"))
    return Report(site.name, tuple(verdicts))


# what bodies say


def expect(condition: object, happened: str) -> None:
    """Fail the check unless ``condition`` holds; ``happened`` tells what is the case instead."""
    if not condition:
        raise AssertionError(happened)


def expect_equal(actual: object, wanted: object, what: str) -> None:
    """Fail the check unless the two are equal."""
    if actual != wanted:
        raise AssertionError(f"{what} is {_short(actual)}, not {_short(wanted)}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 400 else f"{text[:400]}… ({len(text)} characters)"


@dataclass
class Caught(Generic[E]):
    """A holder of the error that :func:`expect_error` caught."""

    found: E | None = None

    @property
    def error(self) -> E:
        """The error."""
        assert self.found is not None
        return self.found


@contextmanager
def expect_error(*kinds: type[E], what: str = "it") -> Generator[Caught[E]]:
    """Fail the check unless the block raises exactly one of ``kinds`` (or of their kind, for Trio's and Python's own).

    An exception group is not an error of these kinds: public calls raise one plain error.
    """
    caught: Caught[E] = Caught()
    names = " or ".join(kind.__name__ for kind in kinds)
    try:
        yield caught
    except (trio.Cancelled, KeyboardInterrupt, SystemExit):
        raise
    except (AssertionError, NotChecked):
        raise
    except BaseException as error:
        alone = single_error(error)
        if alone is not error and isinstance(alone, AssertionError | NotChecked | trio.Cancelled):
            raise
        if not isinstance(error, kinds):
            raise AssertionError(f"{what} raised {type(error).__name__} ({error}), not {names}") from error
        caught.found = error
        return
    raise AssertionError(f"{what} raised nothing; {names} was due")


async def until(condition: Callable[[], object], what: str, seconds: float = 10.0) -> None:
    """Fail the check unless ``condition`` comes to hold."""
    with trio.move_on_after(seconds):
        while not condition():  # noqa: ASYNC110 - what it waits for is nobody's event
            await trio.sleep(0.005)
        return
    raise AssertionError(f"{what}: not within {seconds:g} s")


@asynccontextmanager
async def open_background() -> AsyncGenerator[trio.Nursery]:
    """A nursery that is cancelled when the block ends; one plain error comes out of it."""
    failure: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        failure = single_error(group)
    if failure is not None:
        raise failure
