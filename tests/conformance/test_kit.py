"""The kit itself: what a check is, what a verdict says, and what a run reports."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from atoma.testing.conformance import ENGINE_CHECKS, NODE_CHECKS, TRANSPORT_CHECKS, Check, NotChecked, run_checks
from atoma.testing.conformance.checks import CheckTable, expect, expect_equal, expect_error, until


@dataclass(frozen=True)
class Anything:
    name: str = "thing"
    virtual: bool = True


@asynccontextmanager
async def opened(site: Anything) -> AsyncGenerator[str]:
    yield site.name


TABLE: CheckTable[Anything, str] = CheckTable(opened)


@TABLE.add
async def it_is_a_thing(name: str) -> None:
    """It is called
    a thing."""
    expect_equal(name, "thing", "the name")


@TABLE.add
async def it_is_another(name: str) -> None:
    """It is called otherwise."""
    expect(name != "thing", f"it is called {name}")


@TABLE.add
async def it_flies(name: str) -> None:
    """It flies."""
    raise NotChecked(f"{name} has no wings")


@TABLE.add
async def it_hangs(name: str) -> None:
    """It comes to an end."""
    del name
    await trio.sleep_forever()


@TABLE.add
async def it_changes(name: str) -> None:
    """It changes."""
    await until(lambda: name != "thing", "it stayed as it was")


@TABLE.add
async def it_fails_in_a_group(name: str) -> None:
    """It has one error."""
    async with trio.open_nursery() as nursery:
        with ExitStack() as stack:
            stack.callback(nursery.cancel_scope.cancel)
            raise KeyError(name)


def test_a_run_reports_every_verdict() -> None:
    report = run_checks(Anything(), TABLE)
    assert [(verdict.check, verdict.outcome) for verdict in report.verdicts] == [
        ("it_is_a_thing", "kept"),
        ("it_is_another", "broken"),
        ("it_flies", "not checked"),
        ("it_hangs", "broken"),
        ("it_changes", "broken"),
        ("it_fails_in_a_group", "broken"),
    ]
    assert not report.ok
    text = str(report)
    assert text.startswith("thing: 1 kept, 4 broken, 1 not checked\n")
    assert "promised: It is called otherwise.\n  happened: it is called thing" in text
    assert "happened: TooSlowError: a wait was not over in time, at the latest after the 90 s that a check has" in text
    assert "happened: it stayed as it was: not within 10 s" in text
    assert "happened: KeyError: 'thing'" in text
    assert "not checked: it_flies: thing has no wings" in text
    assert TABLE["it_is_a_thing"].promise == "It is called a thing."
    assert run_checks(Anything(), {"one": TABLE["it_is_a_thing"]}).ok


def test_an_expected_error_has_to_come_and_to_be_the_one() -> None:
    with pytest.raises(AssertionError, match="it raised nothing; KeyError was due"), expect_error(KeyError):
        pass
    with pytest.raises(AssertionError, match=r"it raised ValueError \(x\), not KeyError"), expect_error(KeyError):
        raise ValueError("x")
    with pytest.raises(AssertionError, match="it raised ExceptionGroup"), expect_error(KeyError):
        raise ExceptionGroup("g", [KeyError("x")])
    with pytest.raises(NotChecked), expect_error(KeyError):
        raise NotChecked("why")
    with expect_error(KeyError, ValueError) as caught:
        raise ValueError("x")
    assert str(caught.error) == "x"


def test_every_check_says_what_it_promises() -> None:
    tables: list[dict[str, Check[Any]]] = [dict(TRANSPORT_CHECKS), dict(ENGINE_CHECKS), dict(NODE_CHECKS)]
    for table in tables:
        assert [name for name, check in table.items() if len(check.promise) < 20 or name != check.name] == []
    assert len(TRANSPORT_CHECKS) > 40
