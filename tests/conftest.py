"""How this suite runs: `async def` tests under Trio, virtual time on request, on every core, from a seed."""

from __future__ import annotations

import functools
import gc
import importlib
import inspect
import json
import os
import random
import shlex
import signal
import tempfile
from collections.abc import Awaitable, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import trio
import trio.testing

hypothesis.settings.register_profile("test", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile("soak", deadline=None, derandomize=False, print_blob=True, max_examples=2_000)
hypothesis.settings.load_profile("test")  # `--hypothesis-profile soak` overrides it
# Hypothesis mixes constants of all loaded modules into what it draws, so that an example would depend on which tests were
# run before. Private; test_how_tests_run sees whether it still decides.
_providers: Any = importlib.import_module("hypothesis.internal.conjecture.providers")
_no_constants = _providers.Constants()
_providers._get_local_constants = lambda: _no_constants

AsyncTest = Callable[..., Awaitable[object]]
SEED = pytest.StashKey[int]()
GROUPS = pytest.StashKey[str]()

# A shell ignores Ctrl-C in what it runs in the background, and the programs that tests start and interrupt would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Keep the groups together wherever workers run the tests, and end the run when a worker dies of a hung test."""
    if getattr(config.option, "numprocesses", None):  # without xdist there is no such option
        if config.option.dist == "no":
            config.option.dist = "loadgroup"
        if config.option.maxworkerrestart is None:
            config.option.maxworkerrestart = "0"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """As many workers as cores for `-n auto`; none where a few tests are named, which a worker's start would delay."""
    named = config.args_source is pytest.Config.ArgsSource.ARGS and all(".py" in argument for argument in config.args)
    cores = os.cpu_count() or 1
    return 0 if named or config.option.keyword or cores == 1 else cores


def pytest_configure(config: pytest.Config) -> None:
    """Take the seed of the run: the one of `PYTHONHASHSEED`, which alone can fix the order of sets, or a new one."""
    given = os.environ.get("PYTHONHASHSEED", "")
    seed = int(given) if given.isdigit() else random.SystemRandom().randrange(2**32)
    config.stash[SEED] = _input_of(config).get("seed", seed)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give every worker the seed of the run, and a place to tell which tests are a group."""
    node.workerinput["seed"] = node.config.stash[SEED]
    node.workerinput["groups"] = _groups_file(node.config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell, in a worker, the group of each test that has one, before the worker says what it has collected.

    What the collector of garbage would look through again and again, all modules and tests, stays until the end.
    """
    gc.freeze()
    told = _input_of(session.config)
    if told and told["workerid"] == "gw0":
        marks = {item.nodeid: item.get_closest_marker("xdist_group") for item in session.items}
        groups = {name: mark.args[0] for name, mark in marks.items() if mark is not None}
        Path(told["groups"]).write_text(json.dumps(groups), encoding="utf-8")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Hand out tests one by one and groups as a whole; xdist's own scheduler finds no group with pytest 9.2."""
    if config.getoption("dist") != "loadgroup":
        return None
    scheduling: Any = importlib.import_module("xdist.scheduler")
    scheduler = scheduling.LoadScopeScheduling(config, log)

    @functools.cache
    def groups() -> dict[str, str]:
        told: dict[str, str] = json.loads(Path(_groups_file(config)).read_text(encoding="utf-8"))
        return told

    # private; test_how_tests_run sees whether it still decides
    scheduler._split_scope = lambda name: groups().get(name, name)
    return scheduler


def _input_of(config: pytest.Config) -> dict[str, Any]:
    """What a worker was given; empty where tests run without workers."""
    given: dict[str, Any] = getattr(config, "workerinput", {})
    return given


def _groups_file(config: pytest.Config) -> str:
    """Where the first worker tells the groups."""
    if GROUPS not in config.stash:
        folder = tempfile.TemporaryDirectory(prefix="atoma-groups-")
        config.add_cleanup(folder.cleanup)
        config.stash[GROUPS] = f"{folder.name}/groups.json"
    return config.stash[GROUPS]


@pytest.fixture(scope="session", autouse=True)
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder for everything temporary of this worker and of the programs that it starts."""
    folder = tmp_path_factory.mktemp("own")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", None)
        yield folder


@pytest.fixture
def mock_clock() -> trio.testing.MockClock:
    """The clock that the test runs on: virtual, jumping to the next deadline as soon as every task waits."""
    return trio.testing.MockClock(autojump_threshold=0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test marked `paths` in every way of `tests.paths`."""
    if metafunc.definition.get_closest_marker("paths"):
        importlib.import_module("tests.paths").parametrize(metafunc)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Have the sets of parameters of a test marked `paths` take turns, before it is chosen by marks what runs."""
    if any(item.get_closest_marker("paths") for item in items):
        importlib.import_module("tests.paths").take_turns(items)


@pytest.fixture
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Take the way that a test marked `paths` is run in, before anything is opened."""
    with importlib.import_module("tests.paths").taken(request.param):
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> object:
    """Run a coroutine test under Trio; leave every other test to pytest."""
    clock = functools.partial(_clock_of, pyfuncitem)
    _seed_scheduling(f"{pyfuncitem.config.stash[SEED]} {pyfuncitem.nodeid}")
    property_test = getattr(pyfuncitem.obj, "hypothesis", None)
    if property_test is not None:
        # an earlier set of parameters of the same test has been here: its clock was that of its own item
        inner = getattr(property_test.inner_test, "asynchronous", property_test.inner_test)
        if inspect.iscoroutinefunction(inner):
            synchronous = _synchronous(inner, clock)
            vars(synchronous)["asynchronous"] = inner
            property_test.inner_test = synchronous
        return None
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    _synchronous(pyfuncitem.obj, clock)(**arguments)
    return True


def _seed_scheduling(seed: str) -> None:
    """Decide the order of tasks that could all run; Hypothesis does so for its own tests."""
    runner: Any = importlib.import_module("trio._core._run")  # private, as in atoma.testing.simulation.scheduling
    runner._r.seed(seed)


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say below each failure how to see it again."""
    report = yield
    if report.failed:
        again = f"PYTHONHASHSEED={item.config.stash[SEED]} python3 dev.py test {shlex.quote(item.nodeid)}"
        worker = _input_of(item.config).get("workerid", "no worker")
        report.sections.append(("to run it again", f"{again}\n({worker}, files below {tempfile.gettempdir()})"))
    return report


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name what a failure needs to be run again."""
    profile = config.getoption("--hypothesis-profile") or "test"
    seed = config.getoption("--hypothesis-seed")
    hashes = "" if os.environ.get("PYTHONHASHSEED", "").isdigit() else " (PYTHONHASHSEED was not set: not of sets)"
    return [
        f"order of tasks and sets, in every worker: seed {config.stash[SEED]}{hashes}",
        f"random examples: profile {profile}, seed {'derived from each test' if seed is None else seed}",
    ]
