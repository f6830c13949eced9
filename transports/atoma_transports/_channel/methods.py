"""What can be called, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import msgspec


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Attributes:
        request: Type of its request.
        reply: Type of its reply, or of each item when it streams.
        streams: Whether it answers with a stream.
    """

    request: type[msgspec.Struct]
    reply: type[msgspec.Struct]
    streams: bool = False


MethodTable: TypeAlias = Mapping[str, Method]
