"""Data of `flask.session` as JSON, and back: Flask's tagged JSON, without its losses."""

import json
from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from typing import Any

from flask.json.tag import JSONTag, TagDateTime, TaggedJSONSerializer

from authapp.errors import UnsavableSession
from authapp.sessions.records import is_storable

MAX_DEPTH = 100  # lists and dicts inside one another, in one value

_REMEDIES = {
    "set": "a list",
    "frozenset": "a list",
    "Decimal": "text, or a whole number of the smallest unit",
    "date": "a datetime, or text",
    "time": "text",
    "timedelta": "its seconds",
}


class _TagDateTime(TagDateTime):
    """A datetime with its microseconds and its zone, which Flask's own tag drops."""

    __slots__ = ()

    def to_json(self, value: datetime) -> str:
        return value.isoformat()

    def to_python(self, value: str) -> datetime:
        return datetime.fromisoformat(value)


class _TagInt(JSONTag):
    """A whole number that copies in Redis can't hold: they have 64 bits for one."""

    __slots__ = ()
    key = " i"

    def check(self, value: object) -> bool:
        return isinstance(value, int) and not -(2**63) <= value < 2**63

    def to_json(self, value: int) -> str:
        return hex(value)

    def to_python(self, value: str) -> int:
        return int(value, 16)


class _TagFloat(JSONTag):
    """A number that JSONB would turn into a whole one: 1e300 becomes 301 digits, -0.0 becomes 0."""

    __slots__ = ()
    key = " f"

    def check(self, value: object) -> bool:
        if not isinstance(value, float) or not isfinite(value):
            return False
        return "e" in float.__repr__(value) or not value

    def to_json(self, value: float) -> str:
        return float.__repr__(value)

    def to_python(self, value: str) -> float:
        return float(value)


class SessionSerializer(TaggedJSONSerializer):
    """Turns values of a session into JSON and back. An app may `register` tags of its own types.

    A value that would come back as another one is refused, because Flask would change it silently
    (a key that is no text) or read it nowhere else (NaN).
    """

    __slots__ = ()
    default_tags = [  # noqa: RUF012 - as Flask declares it
        *(_TagInt, _TagFloat, _TagDateTime),
        *(tag for tag in TaggedJSONSerializer.default_tags if tag is not TagDateTime),
    ]

    def encode(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Each value as JSON, under its key.

        Raises:
            UnsavableSession: a value can't be kept; the message names its key.
        """
        return {key: self._encode(key, value) for key, value in data.items()}

    def decode(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """New values from what `encode` made, or from plain JSON."""
        return {key: self._untag(value) for key, value in stored.items()}

    def _encode(self, key: object, value: object) -> Any:
        if self._is_plain(value) and type(key) is str and _is_simple(key):
            return value
        if not isinstance(key, str):
            raise UnsavableSession(
                f"session[{key!r}]: the keys of a session are text; write session[{str(key)!r}]"
            )
        try:
            tagged = self.tag(value)
            fault = _fault(tagged)
        except RecursionError:
            fault = _TOO_DEEP
        if fault:
            raise UnsavableSession(f"session[{key!r}] {fault}")
        # a dict keeps the order of its keys in no store, and subclasses of text are text there
        plain = json.loads(json.dumps(tagged))
        if not is_storable({key: plain}):
            raise UnsavableSession(
                f"session[{key!r}] holds NUL or half a surrogate pair: remove it from the text"
            )
        return plain

    def _is_plain(self, value: object) -> bool:
        """Whether a value is JSON as it is. Most are, and need not be looked at further."""
        if len(self.order) != len(self.default_tags):  # the app's own tags may be for any value
            return False
        if type(value) is int:
            return -(2**63) <= value < 2**63
        if type(value) is str:
            return _is_simple(value)
        return type(value) is bool or value is None

    def _untag(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._untag(item) for item in value]
        if not isinstance(value, dict):
            return value
        inner = {key: self._untag(item) for key, item in value.items()}
        try:
            return self.untag(inner)
        except (ValueError, TypeError, AttributeError, StopIteration):
            return inner  # somebody wrote it by hand: it only looks like a tag


def _is_simple(text: str) -> bool:
    return text.isascii() and "\0" not in text


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON: `1`, `1.0` and `true` are three values."""
    if type(one) in _SCALARS or type(other) in _SCALARS:
        return type(one) is type(other) and bool(one == other)
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


_SCALARS = {int, str, bool, type(None)}

_TOO_DEEP = (
    f"nests lists and dicts deeper than {MAX_DEPTH}, or holds itself: store it flatter, "
    "or store the id of what it belongs to"
)


def _fault(value: object, depth: int = 0) -> str | None:
    """The reason that a tagged value can't be kept, as the rest of a sentence about its key."""
    if value is None or isinstance(value, (str, int)):
        return None
    if isinstance(value, float):
        return None if isfinite(value) else f"holds {value}, no number of JSON: store None or text"
    if not isinstance(value, (list, dict)):
        kind = type(value).__name__
        remedy = _REMEDIES.get(kind, "its id, text, numbers, lists or dicts")
        return f"holds a value of type {kind}, which a session can't keep: store {remedy}"
    if depth >= MAX_DEPTH:
        return _TOO_DEEP
    if isinstance(value, list):
        return next((fault for item in value if (fault := _fault(item, depth + 1))), None)
    for key, item in value.items():
        if not isinstance(key, str):
            return (
                f"holds a dict with the key {key!r}, which would come back as text: "
                f"use {str(key)!r}"
            )
        if fault := _fault(item, depth + 1):
            return fault
    return None
