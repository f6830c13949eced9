"""Tests that time, choose a port, or run a program beside themselves and kill it are one group: they take turns.

What a test does is looked for in it, in what it calls of the tests' modules, and in what it is given by fixtures. A program that
is run to its end, as by `subprocess.run`, needs no turn.
"""

from __future__ import annotations

import ast
import signal
from collections import ChainMap
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

Sources = dict[Path, ast.Module]
Function = ast.FunctionDef | ast.AsyncFunctionDef
Key = tuple[Path, str]

CLOCKS = {
    f"{name}{unit}" for name in ("monotonic", "perf_counter", "process_time", "thread_time") for unit in ("", "_ns")
}
STARTS = {"Popen", "open_process"}
ENDS = {"kill", "terminate"}
SERVES = {"bind", "open_server", "serve_tcp", "open_tcp_listeners"}
KILLS = {"killpg", "send_signal", *ENDS, *signal.Signals.__members__}
TELLING = {"free_port", "run_process", *CLOCKS, *STARTS, *KILLS, *SERVES}
GROUPS = {
    "machine": "what this module is about",
    "tk": "the one display, which the group starts",
    "power cuts": "minutes of them, beside everything else",
}
WITHOUT_A_TURN = {
    "tests/fuzz/test_decoders.py": {"check": "the processor's time, against a limit a thousand times as wide"},
    "tests/postgres.py": {"Server": "a server of each worker's own, on a socket in its folder"},
    "tests/scenarios/sync/ways.py": {"held": "a lock on the test's own file until a line comes, in virtual time"},
}
"""Functions and classes that look as if they needed a turn, and why they need none."""


def uses(nodes: list[ast.AST]) -> Iterator[str]:
    """What a function does itself that needs a turn, in a word."""
    awaited = {id(node.value) for node in nodes if isinstance(node, ast.Await)}
    called = {id(node.func) for node in nodes if isinstance(node, ast.Call)}
    for node in nodes:
        match node:
            case ast.Assign(value=clock) | ast.BinOp(left=clock, op=ast.Sub()) if is_clock(clock):
                yield "times"  # and not the end of waiting, which is a clock's time and some seconds
            case ast.Attribute(attr=name) | ast.Name(id=name) if name in signal.Signals.__members__:
                yield "kills"
            case ast.Attribute(value=ast.Name(id="os"), attr="kill" | "killpg") | ast.Attribute(attr="send_signal"):
                yield "kills"
            case ast.Call(func=ast.Attribute(attr=name), args=[]) if name in ENDS and id(node) not in awaited:
                yield "kills"
            case ast.Attribute(attr=name) | ast.Name(id=name) if name in STARTS and id(node) in called:
                yield "runs beside it"
            case ast.Attribute(attr="run_process") if id(node) not in called:
                yield "runs beside it"
            case ast.Call(func=ast.Name(id="free_port")):
                yield "chooses a port"
            case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)) if name in SERVES and chosen(node):
                yield "chooses a port"


def is_clock(node: ast.expr) -> bool:
    """Whether it is what a clock shows."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="time"), attr=name) | ast.Name(id=name)):
            return name in CLOCKS
    return False


def chosen(call: ast.Call) -> bool:
    """Whether an argument is an address with a port that is not 0."""
    for argument in call.args:
        match argument:
            case ast.Tuple(elts=[_, ast.Constant(value=int(port))]) | ast.Constant(value=int(port)) if port:
                return True
            case ast.Constant(value=str(text)) if text.rpartition(":")[2].strip("0").isdigit():
                return True
    return False


def words(nodes: list[ast.AST]) -> set[str]:
    """The names that a function uses, those of its parameters among them, which may be fixtures."""
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
    return found


class Suite:
    """The functions of the tests, and what each of them reaches.

    Args:
        without_a_turn: What is not looked into.
    """

    def __init__(self, suite: Sources, without_a_turn: Mapping[str, Mapping[str, str]]) -> None:
        self._suite = suite
        self._uses: dict[Key, set[str]] = {}
        self._next: dict[Key, set[Key]] = {}
        self.left_out = dict[Key, set[str]]()
        here = {path: {name: (path, name) for name in defined(tree)} for path, tree in suite.items()}
        for path, tree in suite.items():
            above = [here.get(folder / "conftest.py", {}) for folder in path.parents]
            known = ChainMap(here[path], imported(tree), *above)
            for name, definition in defined(tree).items():
                nodes = list(ast.walk(definition))
                named = words(nodes)
                found = set(uses(nodes)) if named & TELLING else set[str]()
                if name in without_a_turn.get(str(path), {}):
                    self.left_out[path, name] = found
                    continue
                self._uses[path, name] = found
                self._next[path, name] = {known[word] for word in named if word in known}

    def reached(self, key: Key) -> set[str]:
        """What a function does, and what it calls, passes on or is given."""
        seen, ahead = {key}, [key]
        while ahead:
            new = self._next.get(ahead.pop(), set()) - seen
            seen |= new
            ahead += new
        return {word for each in seen for word in self._uses.get(each, set())}

    def without_the_mark(self) -> dict[str, set[str]]:
        """The tests that need a turn and have no group, and what for."""
        found = {
            (path, node.name): self.reached((path, node.name))
            for path, tree in self._suite.items()
            for node in tree.body
            if isinstance(node, Function) and node.name.startswith("test_") and not groups(tree, node) & GROUPS.keys()
        }
        return {f"{path}::{name}": why for (path, name), why in found.items() if why}


def defined(tree: ast.Module) -> dict[str, ast.stmt]:
    """The functions and classes of a module, and its tables, which may hold functions."""
    found: dict[str, ast.stmt] = {}
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found[name] = node
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                found[name] = node
    return found


def imported(tree: ast.Module) -> dict[str, Key]:
    """Where a module has its names from."""
    return {
        alias.asname or alias.name: (Path(node.module.replace(".", "/") + ".py"), alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }


def groups(tree: ast.Module, test: Function) -> set[str]:
    """The groups that a test is in, by its own marks and by those of its module."""
    marks = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"
    ]
    return {
        str(ast.literal_eval(node.args[0]))
        for mark in (*marks, *test.decorator_list)
        for node in ast.walk(mark)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "xdist_group"
    }


def test_what_times_chooses_a_port_or_kills_is_in_the_group(suite: Sources) -> None:
    seen = Suite(suite, WITHOUT_A_TURN)
    assert seen.without_the_mark() == {}
    listed = {(Path(path), name) for path, names in WITHOUT_A_TURN.items() for name in names}
    assert {key for key, found in seen.left_out.items() if found} == listed, "nothing is listed that is not needed"


MARK = '@pytest.mark.xdist_group("machine")\n'
OUTSIDE = """
from tests.free_port import free_port
def held(): return subprocess.Popen(["sleep"])
"""


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("def test_it():\n    began = time.perf_counter()\n    assert run() < began + 1", "times"),
        ("def test_it():\n    def inner(): return monotonic() - began\n    assert inner() < 1", "times"),
        ("def test_it():\n    latest = time.monotonic() + 30\n    while run(): assert time.monotonic() < latest", ""),
        ("def test_it(): os.kill(1, 9)", "kills"),
        ("def test_it(): program.send_signal(9)", "kills"),
        ("def test_it(): assert ended.returncode == -signal.SIGKILL", "kills"),
        ("def test_it(): program.terminate()", "kills"),
        ("async def test_it(): await world.kill()", ""),
        ("def test_it(): subprocess.run([])", ""),
        ("async def test_it(): await trio.run_process([])", ""),
        ("async def test_it(): await nursery.start(trio.run_process, [])", "runs beside it"),
        ("def test_it(): held()", "runs beside it"),
        ("@pytest.fixture\ndef it(): yield held()\ndef test_it(it): assert it", "runs beside it"),
        ("class It:\n    def go(self): held()\ndef test_it(): It().go()", "runs beside it"),
        ("TABLE: dict[str, object] = {'it': held}\ndef test_it(): TABLE['it']()", "runs beside it"),
        (f"{MARK}def test_it(): held()", ""),
        (f"pytestmark = [{MARK[1:-1]}]\ndef test_it(): held()", ""),
        ('@pytest.mark.xdist_group("other")\ndef test_it(): held()', "runs beside it"),
        ("def test_it(): serve(free_port())", "chooses a port"),
        ("def test_it(): found.bind(('', 8765))", "chooses a port"),
        ("def test_it(): open_server(hub, '127.0.0.1:8765')", "chooses a port"),
        ("def test_it(): open_server(hub, '127.0.0.1:0')", ""),
        ("def test_it(): bind(Plan(1))", ""),
    ],
)
def test_a_planted_test_without_the_mark_is_seen(planted: str, found: str) -> None:
    tree = ast.parse(OUTSIDE + planted)
    seen = Suite({Path("tests/test_new.py"): tree}, {}).without_the_mark()
    assert seen == ({"tests/test_new.py::test_it": {found}} if found else {})


def test_what_another_module_or_a_fixture_does_is_seen() -> None:
    sources = {
        "tests/kit.py": "async def hold(): await trio.lowlevel.open_process([])",
        "tests/unit/conftest.py": "import pytest\n@pytest.fixture\ndef held(): os.killpg(1, 9)",
        "tests/unit/test_a.py": "from tests.kit import hold\nasync def test_it(): await hold()",
        "tests/unit/test_b.py": "def test_it(held): assert held",
        "tests/other/test_c.py": "def test_it(held): assert held",
    }
    seen = Suite({Path(path): ast.parse(text) for path, text in sources.items()}, {})
    assert seen.without_the_mark() == {
        "tests/unit/test_a.py::test_it": {"runs beside it"},
        "tests/unit/test_b.py::test_it": {"kills"},
    }
