"""A pytest plugin that writes down which test runs which lines, and how long each takes. ``-p`` loads it.

It also registers the Hypothesis profile ``campaign``: a fault is noticed by the first example that fails, not by the
smallest.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from pathlib import Path

import hypothesis
import pytest

FOLDER = "ATOMA_CAMPAIGN_CONTEXTS"
"""The environment variable that names the folder for the measurements; nothing is measured without it."""

hypothesis.settings.register_profile(
    "campaign",
    deadline=None,
    derandomize=True,
    database=None,
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)


class Measurement:
    """One process of the measured run: a coverage file with a context per test, and the seconds of each test."""

    def __init__(self, folder: Path) -> None:
        import coverage  # it comes with the group `soak`; the rest of this module is used without it

        self._seconds = (folder / f"seconds.{os.getpid()}.jsonl").open("a", encoding="utf-8", buffering=1)
        self._coverage = coverage.Coverage(
            data_file=folder / "coverage", data_suffix=True, source=["atoma", "atoma_stores"], concurrency=["thread"]
        )
        self._coverage.set_option("run:disable_warnings", ["module-not-imported", "no-data-collected"])
        self._coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Give what runs from here on to ``item``."""
        self._coverage.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self._coverage.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write down what set-up, call and tear-down took, as they end: the process may be ended with its session."""
        self._seconds.write(json.dumps([report.nodeid, report.duration, report.failed]) + "\n")

    def pytest_sessionfinish(self) -> None:
        """Stop measuring; what ran in earlier contexts is in the file already."""
        self._seconds.close()
        self._coverage.stop()
        self._coverage.save()


def pytest_configure(config: pytest.Config) -> None:
    """Measure in the processes that run tests, and only when a folder is named."""
    folder = os.environ.get(FOLDER)
    distributes = bool(getattr(config.option, "dist", "no") != "no") and not hasattr(config, "workerinput")
    if folder and not distributes:
        config.pluginmanager.register(Measurement(Path(folder)), "campaign-measurement")
