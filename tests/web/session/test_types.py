"""A value in `flask.session` comes out as it went in, or is refused with the name of its key."""

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from flask import flash, get_flashed_messages, session
from flask.json.tag import JSONTag
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from markupsafe import Markup

from authapp.errors import UnsavableSession
from authapp.web.session.data import MAX_DEPTH, SessionSerializer, is_same
from tests.web.session.conftest import Shop
from tests.web.support import Stores

KEPT: dict[str, Any] = {
    "none": None,
    "switch": True,
    "number": 1,
    "fraction": 1.0,
    "negative zero": -0.0,
    "small": 5e-324,
    "huge": 1.7e308,
    "rounded": 1e16,
    "longest": 2**64,
    "longer": -(2**200),
    "text": "ü — 𝄞",
    "naive": datetime(2026, 11, 27, 21, 30),  # noqa: DTZ001 - an app may well store it
    "utc": datetime(2026, 11, 27, 21, 30, 1, 234_567, tzinfo=UTC),
    "zone": datetime(2026, 11, 27, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    "uuid": UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
    "bytes": bytes(range(256)),
    "tuple": (1, ("two", [3])),
    "empty": [(), [], {}, "", b""],
    "markup": Markup("<b>bold</b>"),
    "tag": {" t": [1]},
    "tag of a tag": {" di": {" t": 1}},
    "suffix": {" t__": 1},
    "no tag": {" u": "not a UUID"},
    "nested": {"a": [{"b": ({"c": UUID(int=1)}, Markup("&"))}]},
    " t": ["a key that is a tag"],
}


def typed(value: object) -> object:
    """The value with the types of all its parts: `1 == 1.0 == True`."""
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value), [typed(item) for item in value]
    return type(value), str(value), value


@pytest.mark.parametrize("key", KEPT)
def test_it_comes_back_as_it_went_in(
    shop: Shop, ada: FlaskClient, stores: Stores, key: str
) -> None:
    shop.do(ada, lambda: session.update({key: KEPT[key]}))
    for _ in range(2):  # from Postgres, and from the copy
        assert typed(shop.do(ada, lambda: session[key])) == typed(KEPT[key])
    stores.redis.flushall()
    assert typed(shop.do(ada, lambda: session[key])) == typed(KEPT[key])


def test_all_of_it_together(shop: Shop, ada: FlaskClient) -> None:
    with ada.session_transaction() as opened:
        opened.update(KEPT)
    assert typed(shop.read(ada)) == typed(KEPT)


def test_it_keeps_what_flask_keeps() -> None:
    """The list above leaves no type of Flask's out."""
    flasks = SecureCookieSessionInterface().serializer
    ours = SessionSerializer()
    assert set(flasks.tags) <= set(ours.tags)
    used = json.dumps(ours.encode(KEPT))
    assert [tag for tag in ours.tags if f'"{tag}":' not in used] == []


class Opaque:
    """An object that no JSON can hold."""


REFUSED: dict[str, tuple[object, str]] = {
    "set": ({1}, "store a list"),
    "frozen": (frozenset(), "store a list"),
    "decimal": (Decimal("1.10"), "store text"),
    "nan": (float("nan"), "no number of JSON"),
    "infinity": ([{"a": float("-inf")}], "no number of JSON"),
    "object": ({"deep": [Opaque()]}, "type Opaque"),
    "day": (date(2026, 11, 27), "store a datetime"),
    "complex": (1j, "type complex"),
    "number as key": ({"a": {1: 2}}, "the key 1,"),
    "None as key": ([{None: 2}], "the key None,"),
    "tuple as key": ({(1, 2): 3}, "the key (1, 2)"),
    "NUL": ("a\0b", "holds NUL"),
    "half a pair": (["\ud834"], "half a surrogate pair"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_json_cannot_keep_is_refused_by_its_key(
    shop: Shop, ada: FlaskClient, key: str
) -> None:
    value, reason = REFUSED[key]
    shop.put(ada, good=1)
    with pytest.raises(UnsavableSession) as refused:
        shop.do(ada, lambda: session.update({"fine": 1, key: value}))
    assert f"session[{key!r}]" in str(refused.value)
    assert reason in str(refused.value)
    assert shop.read(ada) == {"good": 1}, "nothing of it was saved"


def test_a_key_that_is_no_text_is_refused(shop: Shop, ada: FlaskClient) -> None:
    with pytest.raises(UnsavableSession, match=r"session\[1\].*write session\['1'\]"):
        shop.do(ada, lambda: session.update({1: "one"}))  # type: ignore[dict-item]


def test_depth_is_bounded(shop: Shop, ada: FlaskClient) -> None:
    def nested(depth: int) -> list[Any]:
        value: list[Any] = []
        for _ in range(depth - 1):
            value = [value]
        return value

    endless: list[Any] = []
    endless.append(endless)
    shop.put(ada, deep=nested(MAX_DEPTH))
    assert shop.do(ada, lambda: session["deep"]) == nested(MAX_DEPTH)
    for value in (nested(MAX_DEPTH + 1), nested(100_000), endless):
        with pytest.raises(UnsavableSession, match="deeper than"):
            shop.put(ada, deep=value)


def test_in_production_it_is_an_error_with_a_note_in_the_log(
    shop: Shop, ada: FlaskClient, caplog: pytest.LogCaptureFixture
) -> None:
    shop.app.config["PROPAGATE_EXCEPTIONS"] = False
    shop.put(ada, basket={1})
    assert shop.answer.status_code == 500
    assert caplog.text.count("session['basket'] holds a value of type set") == 1
    assert "while handling an error" not in caplog.text


def test_a_message_may_be_markup(shop: Shop, ada: FlaskClient) -> None:
    shop.do(ada, lambda: flash(Markup("<b>saved</b>"), "good"))
    [(category, message)] = shop.do(ada, lambda: get_flashed_messages(with_categories=True))
    assert (category, message) == ("good", Markup("<b>saved</b>"))
    assert isinstance(message, Markup)
    assert shop.do(ada, get_flashed_messages) == []


def test_one_is_not_true(shop: Shop, ada: FlaskClient) -> None:
    """A value of another type is a change, though Python takes both for equal."""
    for value in (1, True, 1.0, 0, False):
        shop.put(ada, x=value)
        assert typed(shop.do(ada, lambda: session["x"])) == typed(value)
    assert is_same({"a": 1, "b": 2}, {"b": 2, "a": 1})


def test_a_value_that_is_changed_in_place_changes_no_copy(shop: Shop, ada: FlaskClient) -> None:
    shop.put(ada, basket=["pen"])
    shop.do(ada, lambda: session["basket"].append("ink"))  # and not marked as modified
    assert shop.do(ada, lambda: session["basket"]) == ["pen"]


@pytest.mark.parametrize(
    "stored",
    [
        {"plain": [1, 1.5, None, {"a": "b"}]},
        *({"by hand": {" u": bad}} for bad in ("x", 5, None)),
        *({"by hand": {tag: 5}} for tag in (" b", " d", " t", " i", " di")),
        {"by hand": {" di": {}}},
        {"by hand": {" d": "yesterday"}},
    ],
)
def test_what_was_stored_before_or_by_hand_is_read(
    shop: Shop, ada: FlaskClient, stores: Stores, stored: dict[str, Any]
) -> None:
    stores.sql("UPDATE sessions SET data = %s, ver = ver + 1", json.dumps(stored))
    assert shop.read(ada) == stored


class Money(tuple[int, str]):
    """A type of an app, which it registers a tag for as Flask's documentation shows."""


class TagMoney(JSONTag):
    __slots__ = ()
    key = " money"

    def check(self, value: object) -> bool:
        return isinstance(value, Money)

    def to_json(self, value: Money) -> list[object]:
        return list(value)

    def to_python(self, value: Any) -> Money:
        return Money(value)


def test_an_app_may_register_a_tag(shop: Shop, ada: FlaskClient) -> None:
    interface: Any = shop.app.session_interface
    interface.serializer.register(TagMoney, index=0)
    shop.put(ada, price=Money((5, "EUR")))
    assert typed(shop.do(ada, lambda: session["price"])) == typed(Money((5, "EUR")))
