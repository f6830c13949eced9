"""Writes ``seeds.json``, with which the coverage-guided programs begin: ``python -m tests.fuzz.coverage.seeds``."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.fuzz.decoders import DECODERS
from tests.fuzz.grammar import ALL_CHECKS
from tests.fuzz.sessions import SESSIONS

FILE = Path(__file__).with_name("seeds.json")
SEEDS = 16
SEED_BYTES_MAX = 400


def examples(valid: st.SearchStrategy[bytes]) -> list[bytes]:
    """Some different small examples, the same in every run."""
    found: dict[bytes, None] = {}

    @settings(
        max_examples=8 * SEEDS, derandomize=True, database=None, phases=[Phase.generate], deadline=None,
        suppress_health_check=ALL_CHECKS,
    )  # fmt: skip
    @given(valid)
    def collect(data: bytes) -> None:
        if len(data) <= SEED_BYTES_MAX and len(found) < SEEDS:
            found[data] = None

    collect()
    return list(found)


def read_seeds(name: str) -> list[bytes]:
    """The examples that one program begins with."""
    return [base64.b64decode(text) for text in json.loads(FILE.read_text())[name]]


def main() -> None:
    made = {name: examples(decoder.valid) for name, decoder in DECODERS.items()}
    made |= {name: examples(session.valid) for name, session in SESSIONS.items()}
    texts = {name: [base64.b64encode(data).decode() for data in found] for name, found in made.items()}
    FILE.write_text(json.dumps(texts, indent=1) + "\n")


if __name__ == "__main__":
    main()
