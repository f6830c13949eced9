"""JSON text, read more strictly than usual: nothing that two readers could understand differently."""

from __future__ import annotations

import json
import math
import re
from typing import Never

from atoma.errors import ProtocolError

DEPTH_MAX = 80
DIGITS_MAX = 40

_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BRACKET = re.compile(r"[\[{\]}]")
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(data: bytes) -> object:
    """The value that ``data`` is: dicts, lists, texts, integers, floats, booleans and None.

    Raises:
        ProtocolError: It is not JSON in UTF-8, deeper than 80, a key comes twice, a number has more than 40 digits or
            is beyond the range of a double, or a text holds half a surrogate pair.
    """
    try:
        text = data.decode()
        value: object = _DECODER.decode(text)
        _check_depth(text)  # only now: in what is known to be JSON, texts are found in one pass
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeError:
        raise ProtocolError("malformed JSON: a text is not Unicode") from None
    except json.JSONDecodeError as error:
        raise ProtocolError(f"malformed JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise _too_deep() from None
    return value


def _too_deep() -> ProtocolError:
    return ProtocolError(f"malformed JSON: it may be {DEPTH_MAX} levels deep")


def _check_depth(text: str) -> None:
    if text.count("[") + text.count("{") <= DEPTH_MAX:
        return
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > DEPTH_MAX:
            raise _too_deep()


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ProtocolError("malformed JSON: a key comes twice")
    return found


def _check_digits(literal: str) -> None:
    if len(literal) > DIGITS_MAX and sum(map(str.isdigit, literal)) > DIGITS_MAX:
        raise ProtocolError(f"malformed JSON: a number may have {DIGITS_MAX} digits")


def _int(literal: str) -> int:
    _check_digits(literal)
    return int(literal)


def _float(literal: str) -> float:
    _check_digits(literal)
    value = float(literal)
    if math.isinf(value):
        raise ProtocolError("malformed JSON: a number is beyond the range of a double")
    return value


def _constant(name: str) -> Never:
    raise ProtocolError(f"malformed JSON: {name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_int, parse_float=_float, parse_constant=_constant, strict=True
)
