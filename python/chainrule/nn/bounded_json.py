"""JSON of untrusted files: parsed in bounded memory, and checked before it is written.

A file is untrusted data. Its JSON is bounded before it is parsed, because a value can need 30 times
the memory of its text.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

# Bounds, checked before a text is parsed. A network of the largest number of layers stays below
# them, and no other text needs more than 8 MB when parsed.
MAX_VALUES = 90_000  # an object counts as three
MAX_KEYS = 8208  # different ones
MAX_DEPTH = 8
MAX_DIGITS = 40  # of a number: an integer of 64 bits has 20, a float64 at most 24
MAX_NOTES = 256 << 10  # bytes of the text of a network's `metadata`
WEIGHTS = {",": 1, "[": 1, "{": 3}
LEVELS = {"[": 1, "{": 1, "]": -1, "}": -1}
# A string, or a character that begins or ends a value. The end of a string is optional, so that no
# text is scanned twice. Possessive, because a state for backtracking takes 90 bytes per escape.
_TOKEN = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?(\s*+:)?|[\[\]{},]', re.DOTALL)


def parse(owner: str, text: str) -> Any:
    """Parse JSON after checking that it is small.

    Raises
    ------
    ValueError
        If the text is not JSON, has more than `MAX_VALUES` values, `MAX_KEYS` keys or
        `MAX_DEPTH` levels, a number of more than `MAX_DIGITS` characters, or a key twice in one
        object.
    """
    values = depth = 0
    keys = set()
    for token in _TOKEN.finditer(text):
        character = text[token.start()]
        values += WEIGHTS.get(character, 0)
        depth += LEVELS.get(character, 0)
        if token[1]:
            keys.add(hash(token[0]))
        # The parser is recursive: with a high limit of recursion, depth could end the process.
        if values > MAX_VALUES or len(keys) > MAX_KEYS or depth > MAX_DEPTH:
            raise ValueError(
                f"{owner} must have at most {MAX_VALUES} values, {MAX_KEYS} different keys and "
                f"{MAX_DEPTH} levels, got more"
            )
    return json.loads(
        text, object_pairs_hook=_unique_keys, parse_int=_short_int, parse_float=_short_float
    )


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key of a JSON object must be unique, got one twice")
    return found


def _short_int(text: str) -> int:
    return int(_short(text))


def _short_float(text: str) -> float:
    return float(_short(text))


def _short(text: str) -> str:
    # Reading a number takes a time that is quadratic in its digits.
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number must have at most {MAX_DIGITS} characters, got {len(text)}")
    return text


# The notes of a network


def encode_notes(notes: object) -> str:
    """Return `Sequential.metadata` as text: JSON in UTF-7, RFC 2152.

    The text is ASCII without a backslash, because the header of a file contains no other
    characters. Notes in English stay readable, and decoding needs little memory.

    Raises
    ------
    TypeError, ValueError
        If `decode_notes` could not read them back. The message starts with ``save: metadata``.
    """
    if not isinstance(notes, dict):
        raise TypeError(f"save: metadata must be a dict, got {type(notes).__name__}")
    _check_note("metadata", notes, 1)
    try:
        text = json.dumps(notes, ensure_ascii=False, separators=(",", ":"))
        text.encode()  # UTF-7 would accept a surrogate
        text = text.encode("utf-7").decode("ascii")
    except UnicodeEncodeError:
        raise ValueError("save: metadata must contain valid characters, got a surrogate") from None
    if len(text) > MAX_NOTES:
        raise ValueError(
            f"save: metadata must have at most {MAX_NOTES} bytes of text, got {len(text)}"
        )
    try:
        decode_notes(text)
    except ValueError as error:
        raise ValueError(f"save: {error}") from None
    return text


def _check_note(where: str, value: object, depth: int) -> None:
    """Check one value, and those in it. Each is equal to itself after a round trip."""
    if depth > MAX_DEPTH + 1:
        raise ValueError(f"save: metadata must have at most {MAX_DEPTH} levels, got more")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"save: keys of {where} must be of type str, got {key!r}")
            _check_note(f"{where}[{key!r}]", item, depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_note(f"{where}[{index}]", item, depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"save: {where} must be finite, got {value}")
    elif value is not None and not isinstance(value, str | bool | int):
        hint = ": use list(...)" if isinstance(value, tuple | set | frozenset) else ""
        hint = ": use .tolist()" if hasattr(value, "tolist") else hint
        raise TypeError(
            f"save: {where} must be None, a bool, a number, a str, a list or a dict, got "
            f"{type(value).__name__}{hint}"
        )


def decode_notes(text: object) -> dict[str, Any]:
    """Return the notes that `encode_notes` wrote.

    Raises
    ------
    ValueError
        If the text is too long, not UTF-7 or not JSON, or not that of an object.
    """
    if not isinstance(text, str):
        raise ValueError(f"metadata must be a str, got {type(text).__name__}")
    if len(text) > MAX_NOTES:
        raise ValueError(f"metadata must have at most {MAX_NOTES} bytes of text, got {len(text)}")
    try:
        decoded = text.encode("ascii").decode("utf-7")
    except UnicodeError:
        raise ValueError("metadata must be UTF-7, got other text") from None
    notes = parse("metadata", decoded)
    if not isinstance(notes, dict):
        raise ValueError(f"metadata must be a JSON object, got {type(notes).__name__}")
    return notes
