#!/usr/bin/env python3
"""Everything a checkout can do. It needs Python 3.11 or newer and nothing else: .venv is made on first use.

Usage: python3 dev.py COMMAND [ARG ...]

    demo    two devices and a hub on one page; `demo --once` tells the story in the terminal
    test    the tests, on every core; `test -k outbox` runs some of them
    check   formatting, lint, types, imports, dependencies, kernel coverage, dead code; `check mypy` runs one of them
    bench   what the operations cost on this machine
    soak    the long randomised tests, from a new seed each time; `soak --hypothesis-seed N` repeats one;
            `soak mutants` and `soak plants` put faults into a copy, for the tests to notice (`soak plants --help`)
    docs    the documentation, into site/

Arguments after the command are passed on.
"""

import os
import shutil
import signal
import subprocess
import sys

OLDEST = (3, 11)


def newer_python() -> "str | None":
    """A new enough interpreter on PATH, for a start under an older one."""
    for minor in (13, 14, 12, 11):
        path = shutil.which(f"python3.{minor}")
        question = f"import sys; sys.exit(sys.version_info < {OLDEST})"
        if path and subprocess.call([path, "-c", question], stderr=subprocess.DEVNULL) == 0:
            return path
    return None


if sys.version_info < OLDEST:  # everything above, and the syntax of the whole file, is for old interpreters too
    found = newer_python()
    if found is None:
        sys.exit("Atoma needs Python {}.{} or newer; this is {}.".format(*OLDEST, sys.version.split()[0]))
    os.execv(found, [found, *sys.argv])

import hashlib
import json
import random
import time
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
INTERPRETER = getattr(sys, "_base_executable", sys.executable)  # .venv may be what runs this, and be remade
STAMP = VENV / "dev.json"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
PYTHON = str(BIN / ("python.exe" if os.name == "nt" else "python"))

COVERAGE = "tests/architecture/test_kernel_covered.py"
GROUPS = {"demo": "demo", "test": "test", "check": "quality", "bench": "bench", "soak": "soak", "docs": "docs"}
CAMPAIGNS = {
    "mutants": "tests.campaigns.mutants",
    "plants": "tests.campaigns.plants",
}  # programs of their own under `soak`
CHECKS = {
    "ruff": [PYTHON, "-m", "ruff", "check", "."],
    "format": [PYTHON, "-m", "ruff", "format", "--check", "."],
    "mypy": [PYTHON, "-m", "mypy"],
    "pyright": [PYTHON, "-m", "pyright", "--pythonpath", PYTHON],
    "stubs": [PYTHON, "transports/generate_stubs.py", "--check"],
    "imports": [str(BIN / "lint-imports"), "--no-cache"],
    "deptry": [PYTHON, "-m", "deptry", "."],
    "coverage": [PYTHON, "-m", "pytest", "-q", "-m", "finished", COVERAGE],
    "vulture": [PYTHON, "-m", "pytest", "-q", "-m", "finished", f"--ignore={COVERAGE}"],
}


class Failed(Exception):
    """A step that everything after it needs did not work; the text says what to do."""


def main(arguments: "list[str]") -> int:
    """Run one command and return its exit code."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(__doc__)
        return 0
    command, rest = arguments[0], arguments[1:]
    if command not in GROUPS:
        print(f"dev.py: no command {command!r}\n\n{__doc__}", file=sys.stderr)
        return 2
    unknown = [name for name in rest if name not in CHECKS] if command == "check" else []
    if unknown:
        print(f"dev.py check: no check {unknown[0]!r}; there are {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    prepare(GROUPS[command])
    if command in ("test", "soak", "check"):
        # tests start hundreds of programs, and each would compile the project anew where nothing may be written beside it
        os.environ["PYTHONPYCACHEPREFIX"] = str(STAMP.with_name("pycache"))
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if command == "check":
        return check(rest or list(CHECKS))
    if command in ("test", "soak"):
        # the order of sets: tests print it, so that a failure can be run again
        os.environ.setdefault("PYTHONHASHSEED", str(random.SystemRandom().randrange(2**32)))
        folder = memory_folder()
        if folder is not None:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", folder)
    return run([PYTHON, *arguments_of(command, rest)])


def arguments_of(command: str, rest: "list[str]") -> "list[str]":
    """What Python is asked to do for a command of one step."""
    if command == "demo":
        return ["-m", "atoma", "demo", *rest]
    if command == "test":  # a later -n on the command line wins
        return ["-m", "pytest", *([] if any("no:xdist" in word for word in rest) else ["-n", "auto"]), *rest]
    if command == "bench":
        return ["-m", "benchmarks", *rest]
    if command == "docs":
        return ["-m", "mkdocs", "build", "--strict", *rest]
    if rest and rest[0] in CAMPAIGNS:
        return ["-m", CAMPAIGNS[rest[0]], *rest[1:]]
    seed = f"--hypothesis-seed={random.SystemRandom().randrange(2**32)}"  # a later one on the command line wins
    return ["-m", "pytest", "-m", "soak", "-o", "faulthandler_timeout=0", "--hypothesis-profile=soak", seed, *rest]


def memory_folder(place: str = "/dev/shm", room_bytes: int = 2 << 30) -> "str | None":
    """Where tests put their files, which are thousands of small databases: in memory, where the machine has room for that."""
    if not os.path.ismount(place) or not os.access(place, os.W_OK):
        return None
    return place if shutil.disk_usage(place).free >= room_bytes else None


def check(names: "list[str]") -> int:
    """Run the checks one after the other, all of them even when one fails."""
    results = {}
    for name in names:
        print(f"--- {name}", flush=True)
        started = time.monotonic()
        results[name] = (run(CHECKS[name]), time.monotonic() - started)
    print("--- summary")
    for name, (code, seconds) in results.items():
        print(f"{name:8} {'ok' if code == 0 else f'FAILED (exit {code})'}  {seconds:.1f} s")
    return int(any(code for code, _ in results.values()))


def prepare(group: str) -> None:
    """Make .venv hold the project and one dependency group. A no-op when it already does."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    key = environment_key(project)
    held = read_stamp(key)
    if group in held:
        return
    print(f"dev.py: setting up .venv for {group} (once)...", file=sys.stderr, flush=True)
    started = time.monotonic()
    if not held:
        shutil.rmtree(VENV, ignore_errors=True)
    groups = sorted({*held, group})
    wanted = [line for name in groups for line in requirements(project, name)]
    wanted = ["--editable", str(ROOT), *dict.fromkeys(wanted)]
    if not install_with_uv(wanted) and not install_with_pip(wanted):
        raise Failed("the packages could not be installed; the reason stands above. Is the package index reachable?")
    STAMP.write_text(json.dumps({"key": key, "groups": groups}), encoding="utf-8")
    print(f"dev.py: ready after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def install_with_uv(wanted: "list[str]") -> bool:
    """Install into .venv with uv, if it is on PATH; False when it is not or could not."""
    uv = shutil.which("uv")
    if not uv:
        return False
    made = os.path.exists(PYTHON) or run([uv, "venv", "--quiet", "--python", INTERPRETER, str(VENV)]) == 0
    quiet = [] if sys.stderr.isatty() else ["--quiet"]
    if made and run([uv, "pip", "install", *quiet, "--python", PYTHON, *wanted]) == 0:
        return True
    print("dev.py: uv could not; trying pip...", file=sys.stderr, flush=True)
    return False


def install_with_pip(wanted: "list[str]") -> bool:
    """Install into .venv with pip, making .venv anew when it is not there or was made without pip."""
    if not can_import(PYTHON, "pip"):
        shutil.rmtree(VENV, ignore_errors=True)
        make_venv()
    command = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", *wanted]
    return (run(command, show_latest) if sys.stderr.isatty() else run([*command, "--quiet"])) == 0


def environment_key(project: "dict[str, object]") -> str:
    """A digest of what .venv depends on: the packaging parts of pyproject.toml, the interpreter and the place."""
    packaging = {name: project.get(name) for name in ("build-system", "project", "dependency-groups")}
    parts = [json.dumps(packaging, sort_keys=True), sys.version, sys.base_prefix, str(ROOT)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def read_stamp(key: str) -> "list[str]":
    """The groups that .venv holds; none when it was made from something else, is half made or is broken."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return stamp["groups"] if stamp.get("key") == key and os.path.exists(PYTHON) else []


def requirements(project: "dict[str, object]", name: str) -> "list[str]":
    """The requirements of a dependency group, with the groups and the extras of the project that it includes."""
    groups: dict[str, list[object]] = project["dependency-groups"]  # type: ignore[assignment]
    extras: dict[str, list[str]] = project["project"]["optional-dependencies"]  # type: ignore[index]
    own = f"{project['project']['name']}["  # type: ignore[index]

    def flat(entry: object) -> "list[str]":
        if not isinstance(entry, str):
            return requirements(project, entry["include-group"])  # type: ignore[index]
        if not entry.startswith(own):
            return [entry]
        return [line for extra in entry[len(own) : -1].split(",") for part in extras[extra] for line in flat(part)]

    return list(dict.fromkeys(line for entry in groups[name] for line in flat(entry)))


def make_venv() -> None:
    """Make .venv with pip in it."""
    if can_import(INTERPRETER, "ensurepip"):
        if run([INTERPRETER, "-m", "venv", str(VENV)]) == 0:
            return
        shutil.rmtree(VENV, ignore_errors=True)
    bare_venv()


def can_import(python: str, module: str) -> bool:
    """Whether an interpreter is there and has a module."""
    return (
        os.path.exists(python) and subprocess.call([python, "-c", f"import {module}"], stderr=subprocess.DEVNULL) == 0
    )


def bare_venv() -> None:
    """The way round where ensurepip is missing (Debian without python3-venv): borrow the interpreter's own pip."""
    advice = "install uv, or Debian's python3-venv (apt install python3-venv), and try again."
    if run([INTERPRETER, "-m", "venv", "--without-pip", str(VENV)]) != 0:
        raise Failed(f"Python could not make .venv: {advice}")
    if not can_import(INTERPRETER, "pip"):
        shutil.rmtree(VENV, ignore_errors=True)
        raise Failed(f"this Python has neither ensurepip nor pip: {advice}")
    borrowed = [INTERPRETER, "-m", "pip", "--python", PYTHON, "install", "--quiet", "--disable-pip-version-check"]
    if run([*borrowed, "pip"]) != 0:
        shutil.rmtree(VENV, ignore_errors=True)
        raise Failed(f"pip could not be installed into .venv: {advice}")


def show_latest(lines: "Iterable[str]") -> None:
    """Show the latest line on the terminal, in the place of the one before; errors and warnings stay."""
    width = shutil.get_terminal_size().columns - 1
    for line in lines:
        stays = line.startswith(("ERROR", "WARNING"))
        print(
            f"\r\033[K{line.strip() if stays else line.strip()[:width]}",
            end="\n" if stays else "",
            file=sys.stderr,
            flush=True,
        )
    print("\r\033[K", end="", file=sys.stderr, flush=True)


def run(command: "list[str]", follow: "Callable[[Iterable[str]], None] | None" = None) -> int:
    """Run a program in the checkout and return its exit code. Ctrl-C and SIGTERM reach it, and are waited for.

    With ``follow``, that function gets the lines that the program prints.
    """
    out, err = (subprocess.PIPE, subprocess.STDOUT) if follow else (None, None)
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=out, stderr=err)
    previous = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    try:
        if follow is not None and process.stdout is not None:
            with process.stdout:
                follow(process.stdout)
        code = process.wait()
    except KeyboardInterrupt:
        stop(process)
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)
    return code if code >= 0 else 128 - code


def stop(process: "subprocess.Popen[str]") -> None:
    """Give an interrupted program a moment: a terminal has told it too, a plain signal to this process has not."""
    for tell in (None, signal.SIGINT, signal.SIGKILL if os.name != "nt" else signal.SIGTERM):
        try:
            if tell is not None:
                process.send_signal(tell)
            process.wait(0.4 if tell is None else 5)
        except (KeyboardInterrupt, subprocess.TimeoutExpired):
            continue
        return


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Failed as failure:
        sys.exit(f"dev.py: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
