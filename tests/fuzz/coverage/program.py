"""One decoder, or one kind of session, under a coverage-guided fuzzer.

``python -m tests.fuzz.coverage.program NAME [options of libFuzzer] [folders with examples, files to replay]``
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

atheris: Any = import_module("atheris")  # which is not there wherever the types are checked
INSTRUMENTED = ["atoma", "atoma_transports", "h11", "h2", "hpack", "hyperframe", "wsproto", "grpclib", "json"]

with atheris.instrument_imports(include=INSTRUMENTED):
    from tests.fuzz.decoders import DECODERS
    from tests.fuzz.sessions import SESSIONS, attack_once


def target(name: str) -> Callable[[bytes], None]:
    """What is done with each input; whatever it raises is a finding."""
    if name in SESSIONS:
        return lambda data: attack_once(name, data)
    decoder = DECODERS[name]

    def decode(data: bytes) -> None:
        try:
            decoder.read(data)
        except decoder.errors:
            pass

    return decode


if __name__ == "__main__":
    logging.getLogger("atoma").setLevel(logging.ERROR)
    arguments = [sys.argv[0], *sys.argv[2:]]
    atheris.Setup(arguments, target(sys.argv[1]))
    atheris.Fuzz()
