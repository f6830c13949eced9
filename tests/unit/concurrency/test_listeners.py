"""Listeners are told in order; one that fails, comes or goes meanwhile harms nobody."""

from __future__ import annotations

import logging

import pytest

from atoma.concurrency.listeners import Listeners
from atoma.errors import ConfigurationError


def test_all_are_told_in_order_and_one_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    listeners, told = Listeners[[int]]("an example"), list[str]()

    def fail(value: int) -> None:
        raise RuntimeError(f"at {value}")

    listeners.add(lambda value: told.append(f"first {value}"))
    listeners.add(fail)
    undo = listeners.add(lambda value: told.append(f"last {value}"))
    with caplog.at_level(logging.ERROR):
        listeners.tell(1)
    undo()
    undo()
    listeners.tell(2)
    assert told == ["first 1", "last 1", "first 2"]
    assert "a listener of an example failed" in caplog.text and "at 1" in caplog.text


def test_who_goes_while_others_are_told_hears_no_more_and_who_comes_hears_the_next() -> None:
    listeners, told = Listeners[[int]]("an example"), list[str]()

    def change(value: int) -> None:
        told.append(f"change {value}")
        undo_next()
        if value == 1:
            listeners.add(lambda value: told.append(f"new {value}"))

    listeners.add(change)
    undo_next = listeners.add(lambda value: told.append(f"next {value}"))
    listeners.tell(1)
    listeners.tell(2)
    assert told == ["change 1", "change 2", "new 2"]


def test_one_that_is_added_twice_is_told_twice_and_each_undo_is_for_one() -> None:
    listeners, told = Listeners[[int]]("an example"), list[int]()
    undo = listeners.add(told.append)
    listeners.add(told.append)
    listeners.tell(1)
    undo()
    listeners.tell(2)
    assert told == [1, 1, 2]


def test_there_are_no_more_than_the_limit() -> None:
    listeners, told = Listeners[[int]]("an example", limit=2), list[int]()
    undo = listeners.add(told.append)
    listeners.add(told.append)
    with pytest.raises(ConfigurationError, match="2 listeners of an example are registered already"):
        listeners.add(told.append)
    undo()
    listeners.add(told.append)
