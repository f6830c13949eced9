"""How this suite runs: `async def` tests under Trio, virtual time on request, reproducible random examples."""

from __future__ import annotations

import functools
import inspect
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import hypothesis
import pytest
import trio
import trio.testing

hypothesis.settings.register_profile("test", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("soak", deadline=None, derandomize=False, print_blob=True, max_examples=2_000)
hypothesis.settings.load_profile("test")  # `--hypothesis-profile soak` overrides it

AsyncTest = Callable[..., Awaitable[object]]

# A shell ignores Ctrl-C in what it runs in the background, and the programs that tests start and interrupt would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def mock_clock() -> trio.testing.MockClock:
    """The clock that the test runs on: virtual, jumping to the next deadline as soon as every task waits."""
    return trio.testing.MockClock(autojump_threshold=0)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    """Run a coroutine test under Trio; leave every other test to pytest."""
    clock = functools.partial(_clock_of, pyfuncitem)
    property_test = getattr(pyfuncitem.obj, "hypothesis", None)
    if property_test is not None:
        if inspect.iscoroutinefunction(property_test.inner_test):
            property_test.inner_test = _synchronous(property_test.inner_test, clock)
        return None
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    _synchronous(pyfuncitem.obj, clock)(**arguments)
    return True


def _clock_of(item: pytest.Function) -> trio.abc.Clock | None:
    if "mock_clock" in item.funcargs:
        clock = item.funcargs["mock_clock"]
        assert isinstance(clock, trio.abc.Clock)
        return clock
    if item.get_closest_marker("virtual_time"):
        return trio.testing.MockClock(autojump_threshold=0)
    return None


def _synchronous(test: AsyncTest, clock: Callable[[], trio.abc.Clock | None]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            trio.run(functools.partial(test, *args, **kwargs), clock=clock())
        except BaseExceptionGroup as group:
            failure = single_error(group)
        else:
            return
        raise failure  # outside the handler, so that the report shows the error and not the groups around it

    return run


def single_error(error: BaseException) -> BaseException:
    """The one error inside nested groups of one, so that a failing assertion reads as an assertion."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def pytest_report_header(config: pytest.Config) -> str:
    """Name what a random failure needs to be run again."""
    profile = config.getoption("--hypothesis-profile") or "test"
    seed = config.getoption("--hypothesis-seed")
    return f"random examples: profile {profile}, seed {'derived from each test' if seed is None else seed}"
