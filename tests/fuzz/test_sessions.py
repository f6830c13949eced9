"""Sessions with one hostile message: a typed error or a close within a second, and nobody else notices."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.attacks import KNOWN
from tests.fuzz.grammar import ALL_CHECKS
from tests.fuzz.sessions import SESSIONS, check_attack


@pytest.mark.parametrize("handler", SESSIONS)
def test_every_known_attack(handler: str) -> None:
    for attack in KNOWN[handler]:
        try:
            check_attack(handler, attack, silent=False)
        except AssertionError as error:
            error.add_note(f"after {attack}")
            raise


@pytest.mark.parametrize("handler", SESSIONS)
@settings(max_examples=30, suppress_health_check=ALL_CHECKS)
@given(data=st.data())
def test_a_hostile_message_in_a_session(handler: str, data: st.DataObject) -> None:
    check_attack(handler, data.draw(SESSIONS[handler].attacks), silent=False)


@pytest.mark.parametrize("handler", SESSIONS)
@settings(max_examples=20, suppress_health_check=ALL_CHECKS)
@given(data=st.data())
def test_a_peer_that_falls_silent_after_it(handler: str, data: st.DataObject) -> None:
    check_attack(handler, data.draw(SESSIONS[handler].attacks), silent=True)
