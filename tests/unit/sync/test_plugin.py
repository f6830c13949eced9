"""What Sync() refuses before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from atoma.errors import ConfigurationError
from atoma.plugins import Plugin
from atoma.sync import Sync


def test_it_is_a_plugin_and_names_its_stores() -> None:
    sync = Sync(["cards", "lanes"], ["a", "b"])
    assert isinstance(sync, Plugin)
    assert sync.synced_stores == {"cards", "lanes"}
    assert sync.scopes == ("a", "b")


@pytest.mark.parametrize(
    "arguments",
    [
        {"stores": []},
        {"stores": "cards"},
        {"stores": ["cards", "cards"]},
        {"stores": ["cards"], "scopes": []},
        {"stores": ["cards"], "scopes": [""]},
        {"stores": ["cards"], "scopes": "main"},
        {"stores": ["cards"], "scopes": ["a", "a"]},
        {"stores": ["cards"], "scopes": [str(number) for number in range(201)]},
        {"stores": ["cards"], "mode": "sometimes"},
    ],
)
def test_a_wrong_declaration_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        Sync(**arguments)
