"""`flask.session` of visitors: kept in their own cookie, sealed, and in no store."""

import base64
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from flask import flash, get_flashed_messages, session
from flask.testing import FlaskClient
from flask_wtf.csrf import CSRFProtect, generate_csrf

from authapp.crypto.sealing import Sealer
from authapp.errors import StoreUnavailable, UnsavableSession
from authapp.web.session.visitor_data import (
    MAX_BYTES,
    MAX_SECONDS,
    MAX_VALUES,
    VisitorData,
    VisitorDataTooLarge,
)
from tests.web.session.conftest import OpenShop, Shop
from tests.web.session.test_types import KEPT, REFUSED, typed
from tests.web.support import (
    COOKIE,
    Stores,
    cookies_of,
    program,
    services_of,
    sign_up,
    token_of,
)

VISITOR = "VISITOR-DATA"
KEYS = ("k" * 32,)
ATTRIBUTES = {"httponly": "", "secure": "", "samesite": "Lax", "path": "/"}


def data_of(client: FlaskClient, name: str = VISITOR) -> str:
    cookie = client.get_cookie(name)
    assert cookie is not None, "there is no cookie with a visitor's data"
    return cookie.value


def read_with(shop: Shop, cookie: str) -> dict[str, Any]:
    """The data that a request with this Cookie header finds in `flask.session`."""
    sent = {"Cookie": cookie, "Sec-Fetch-Site": "same-origin"}
    return shop.read(program(shop.app), headers=sent)


# -- it is there -----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", KEPT)
def test_it_comes_back_as_it_went_in(shop: Shop, visitor: FlaskClient, key: str) -> None:
    shop.put(visitor, **{key: KEPT[key]})
    assert typed(shop.do(visitor, lambda: session[key])) == typed(KEPT[key])


@pytest.mark.parametrize("key", REFUSED)
def test_a_value_that_json_cannot_keep_is_refused_by_its_key(
    shop: Shop, visitor: FlaskClient, key: str
) -> None:
    value, reason = REFUSED[key]
    shop.put(visitor, good=1)
    with pytest.raises(UnsavableSession) as refused:
        shop.put(visitor, fine=1, **{key: value})
    assert f"session[{key!r}]" in str(refused.value)
    assert reason in str(refused.value)
    assert shop.read(visitor) == {"good": 1}


def test_no_store_hears_of_visitors(shop: Shop, visitor: FlaskClient, stores: Stores) -> None:
    rows, keys = stores.rows(), stores.all_keys()
    with stores.counted() as cost:
        shop.put(visitor, basket=["pen"])
        assert shop.read(visitor) == {"basket": ["pen"]}
        shop.do(visitor, session_clear)
    assert (cost.redis, cost.sql) == (0, [])
    assert (stores.rows(), stores.all_keys()) == (rows, keys)


def session_clear() -> None:
    session.clear()


def test_a_visitor_who_stores_nothing_gets_no_cookie(shop: Shop, visitor: FlaskClient) -> None:
    acts: list[Callable[[], Any]] = [
        lambda: "nothing",
        lambda: dict(session),
        lambda: session.get("x"),
        lambda: session.pop("x", None),
        session_clear,
        lambda: setattr(session, "permanent", True),
        lambda: setattr(session, "modified", True),
    ]
    for act in acts:
        shop.do(visitor, act)
        assert cookies_of(shop.answer) == []


def test_the_cookie_says_nothing_and_is_for_this_host_alone(open_shop: OpenShop) -> None:
    shop = open_shop(SESSION_COOKIE_DOMAIN="example.org")
    shop.do(shop.visitor(), lambda: session.update(basket="a very secret pen"))
    [cookie] = cookies_of(shop.answer)
    assert (cookie.name, cookie.attributes) == (VISITOR, ATTRIBUTES)
    raw = base64.urlsafe_b64decode(cookie.value + "==")
    for clear in (b"secret", b"basket"):
        assert clear not in raw
        assert clear not in cookie.value.encode()


@pytest.mark.parametrize("prefix", ["", "__Host-", "__Secure-"])
def test_it_has_the_prefix_of_the_sessions_cookie(open_shop: OpenShop, prefix: str) -> None:
    shop = open_shop(SESSION_COOKIE_NAME=f"{prefix}{COOKIE}")
    visitor = shop.visitor()
    shop.put(visitor, x=1)
    [cookie] = cookies_of(shop.answer)
    assert (cookie.name, cookie.attributes) == (f"{prefix}{VISITOR}", ATTRIBUTES)
    assert shop.read(visitor) == {"x": 1}
    value = data_of(visitor, f"{prefix}{VISITOR}")
    for other in {"", "__Host-", "__Secure-"} - {prefix}:
        assert read_with(shop, f"{other}{VISITOR}={value}") == {}


def test_an_emptied_one_is_deleted(shop: Shop, visitor: FlaskClient) -> None:
    for act in (session_clear, lambda: session.pop("x")):
        shop.put(visitor, x=1)
        shop.do(visitor, act)
        [deleted] = cookies_of(shop.answer)
        assert (deleted.name, deleted.value, deleted.attributes["max-age"]) == (VISITOR, "", "0")
        assert ATTRIBUTES.items() <= deleted.attributes.items()
        assert visitor.get_cookie(VISITOR) is None


# -- as Flask's own --------------------------------------------------------------------------------


def test_it_is_written_when_it_is_modified(shop: Shop, visitor: FlaskClient) -> None:
    shop.put(visitor, list=[1])
    before = data_of(visitor)
    shop.do(visitor, lambda: session["list"].append(2))
    assert cookies_of(shop.answer) == []

    def marked() -> None:
        session["list"].append(2)
        session.modified = True

    shop.do(visitor, marked)
    assert data_of(visitor) != before
    assert shop.read(visitor) == {"list": [1, 2]}
    assert cookies_of(shop.answer) == []


def test_a_permanent_one_outlives_the_browser(open_shop: OpenShop) -> None:
    shop = open_shop()
    for lifetime, seconds in ((31 * 86_400, MAX_SECONDS), (600, 600)):
        other = open_shop(PERMANENT_SESSION_LIFETIME=lifetime)
        visitor = other.visitor()
        other.do(visitor, lambda: session.update(x=1, _permanent=True))
        assert cookies_of(other.answer)[0].attributes["max-age"] == str(seconds)
        assert other.do(visitor, lambda: session.permanent) is True
        [again] = cookies_of(other.answer)
        assert again.attributes["max-age"] == str(seconds), "and lasts from the last visit on"
        other.app.config["SESSION_REFRESH_EACH_REQUEST"] = False
        other.read(visitor)
        assert cookies_of(other.answer) == []
    shop.put(shop.visitor(), x=1)
    assert "max-age" not in cookies_of(shop.answer)[0].attributes


def test_answers_that_depend_on_it_vary_by_cookie(shop: Shop, visitor: FlaskClient) -> None:
    acts: list[Callable[[], Any]] = [
        lambda: session.get("x"),
        lambda: session.update(x=1),
        session_clear,
    ]
    for act in acts:
        shop.do(visitor, act)
        assert "Cookie" in shop.answer.headers["Vary"]
    shop.do(visitor, lambda: "nothing")
    assert "Vary" not in shop.answer.headers


def test_a_test_client_opens_it(
    shop: Shop, visitor: FlaskClient, ada: FlaskClient, stores: Stores
) -> None:
    for client in (visitor, ada):
        with client.session_transaction() as opened:
            assert not opened
            assert not opened.new
            opened["x"] = 1
        assert shop.read(client) == {"x": 1}
        with client.session_transaction() as opened:
            assert opened.pop("x") == 1
        assert shop.read(client) == {}
    assert visitor.get_cookie(VISITOR) is None
    assert ada.get_cookie(VISITOR) is None


def test_messages_are_shown_once(shop: Shop, visitor: FlaskClient) -> None:
    shop.do(visitor, lambda: flash("welcome"))
    assert shop.do(visitor, get_flashed_messages) == ["welcome"]
    assert shop.do(visitor, get_flashed_messages) == []
    assert visitor.get_cookie(VISITOR) is None


def test_forms_of_flask_wtf_are_accepted(shop: Shop, visitor: FlaskClient) -> None:
    CSRFProtect(shop.app)
    shop.app.add_url_rule("/form", view_func=generate_csrf)
    token = visitor.get("/form").text
    assert shop.do(visitor, lambda: "sold", data={"csrf_token": token}) == "sold"
    assert shop.do(visitor, lambda: "sold", data={"csrf_token": "forged"}) is None
    assert shop.answer.status_code == 400
    assert shop.do(shop.visitor(), lambda: "sold", data={"csrf_token": token}) is None


# -- what counts -----------------------------------------------------------------------------------


def test_only_what_this_app_sealed_for_this_cookie_lately_counts() -> None:
    now = [1_000_000.0]

    def with_keys(*keys: str, name: str = COOKIE) -> VisitorData:
        return VisitorData(keys, name, clock=lambda: now[0])

    ours = with_keys("k" * 32)
    value = ours.write({"x": 1})

    def found(value: str, by: VisitorData = ours) -> dict[str, Any]:
        return by.read(f"{by.name}={value}")

    assert found(value) == {"x": 1}
    assert found(value, with_keys("n" * 32, "k" * 32)) == {"x": 1}, "after a rotation"
    assert found(value, with_keys("n" * 32)) == {}
    assert found(value, with_keys("k" * 32, name=f"__Host-{COOKIE}")) == {}
    raw = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))
    for index in range(len(raw)):
        flipped = raw[:index] + bytes([raw[index] ^ 1]) + raw[index + 1 :]
        assert found(base64.urlsafe_b64encode(flipped).rstrip(b"=").decode()) == {}
    for sealed in ("seal", "token mac"):
        other = Sealer(("k" * 32,), sealed).seal(ours.name, int(now[0]).to_bytes(8) + b'{"x":1}')
        assert found(base64.urlsafe_b64encode(other).decode()) == {}, sealed
    for junk in ("", "A", "AA", "=", "é", "A" * 64, "A" * MAX_BYTES, "A" * 100_000, value[:-4]):
        assert found(junk) == {}
    now[0] += MAX_SECONDS
    assert found(value) == {"x": 1}
    now[0] += 1
    assert found(value) == {}
    now[0] -= 3 * MAX_SECONDS
    assert found(value) == {}, "nor from the future"


def test_two_of_ours_count_as_none_until_the_next_is_written(
    shop: Shop, visitor: FlaskClient
) -> None:
    """Another host of the domain may have planted one of them."""
    shop.put(visitor, x="ours")
    ours, other = data_of(visitor), shop.visitor()
    shop.put(other, x="planted")
    planted = data_of(other)
    one = f"{VISITOR}={ours}"
    both = f"{one}; {VISITOR}={planted}"
    for cookie in (one, f"{one}; {one}", f"{one}; {VISITOR}=junk", f"{VISITOR}=; {one}"):
        assert read_with(shop, cookie) == {"x": "ours"}, cookie
    for cookie in (
        *(both, f"{VISITOR}={planted}; {one}", f"{one},{VISITOR}={planted}"),
        *(f"{VISITOR} ={ours}", f'{VISITOR}="{ours}"', f"\t{one}", f"{one}; {VISITOR}"),
        "; ".join([one, *(f"{VISITOR}={number}" for number in range(MAX_VALUES))]),
    ):
        assert read_with(shop, cookie) == {}, cookie
    headers = {"Cookie": both, "Host": "shop.example.org"}
    shop.do(program(shop.app), lambda: session.update(x="new"), headers=headers)
    *expired, fresh = cookies_of(shop.answer)
    assert {(c.name, c.value) for c in expired} == {(VISITOR, "")}
    domains = {c.attributes.get("domain") for c in expired}
    assert domains == {"shop.example.org", "example.org"}
    assert read_with(shop, f"{VISITOR}={fresh.value}") == {"x": "new"}


def test_it_is_not_read_while_nobody_can_say_who_is_asking(
    shop: Shop, visitor: FlaskClient, ada: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put(visitor, x="a visitor's")
    ada.set_cookie(VISITOR, data_of(visitor))
    assert shop.read(ada) == {}, "she is signed in"
    shop.app.testing = False
    with monkeypatch.context() as away:
        away.setattr(services_of(shop.app).sessions, "find", fails)
        for act in (lambda: dict(session), lambda: session.update(x=1), twice):
            assert shop.do(ada, act) is None
            assert (shop.answer.status_code, cookies_of(shop.answer)) == (503, [])
        assert shop.read(visitor) == {"x": "a visitor's"}
    shop.do(ada, lambda: session.update(y=1))
    assert shop.read(ada) == {"y": 1}


def twice() -> dict[str, Any]:
    """Somebody who catches an error finds no empty session behind it."""
    with suppress(StoreUnavailable):
        dict(session)
    return dict(session)


def fails(*_args: object, **_named: object) -> None:
    raise StoreUnavailable("redis")


def test_a_forged_session_token_makes_nobody_s_data_unreadable(
    shop: Shop, visitor: FlaskClient
) -> None:
    shop.put(visitor, x=1)
    for planted in (f"{COOKIE}={'A' * 64}", f"{COOKIE}=x", f"{COOKIE}="):
        assert read_with(shop, f"{planted}; {VISITOR}={data_of(visitor)}") == {"x": 1}


# -- too large -------------------------------------------------------------------------------------


def largest_that_fits() -> int:
    low, high = 1, MAX_BYTES
    data = VisitorData(KEYS, COOKIE)
    while low < high:
        middle = (low + high + 1) // 2
        try:
            data.write({"x": "A" * middle})
            low = middle
        except VisitorDataTooLarge:
            high = middle - 1
    return low


def test_what_does_not_fit_is_an_error_that_says_so(shop: Shop, visitor: FlaskClient) -> None:
    size = largest_that_fits()
    shop.put(visitor, x="A" * size)
    assert MAX_BYTES - 2 <= len(data_of(visitor)) <= MAX_BYTES
    assert size > 2_000
    assert shop.read(visitor) == {"x": "A" * size}
    with pytest.raises(VisitorDataTooLarge) as refused:
        shop.put(visitor, x="A" * (size + 4), y=1)
    for said in ("3000", "bytes", "'x'", "before log-in"):
        assert said in str(refused.value)
    assert "AAA" not in str(refused.value)
    assert shop.read(visitor) == {"x": "A" * size}


@pytest.mark.parametrize("permanent", [False, True])
def test_in_production_it_is_refused_and_logged(
    shop: Shop, visitor: FlaskClient, caplog: pytest.LogCaptureFixture, permanent: bool
) -> None:
    shop.app.testing = False
    shop.put(visitor, basket=["pen"], _permanent=permanent)
    before = data_of(visitor)
    shop.put(visitor, basket=["pen"] * 1_000)
    assert shop.answer.status_code == 500
    assert caplog.text.count("takes ") == caplog.text.count("3000 fit") > 0
    assert "while handling an error" not in caplog.text
    if not permanent:
        assert data_of(visitor) == before
    assert shop.read(visitor)["basket"] == ["pen"], "what was there stays"


# -- log-in ----------------------------------------------------------------------------------------


def test_a_log_in_takes_it_along(shop: Shop, visitor: FlaskClient, stores: Stores) -> None:
    with visitor.session_transaction() as opened:
        opened.update(KEPT, csrf_token="planted", _flashes=[("message", "hello")])
    shop.log_in(visitor)
    names = {cookie.name: cookie.value for cookie in cookies_of(shop.answer)}
    assert names[VISITOR] == ""
    assert names[COOKIE]
    assert visitor.get_cookie(VISITOR) is None
    assert typed(shop.read(visitor)) == typed({**KEPT, "_flashes": [("message", "hello")]})


def test_taking_it_along_costs_nothing(
    shop: Shop, visitor: FlaskClient, ada: FlaskClient, stores: Stores
) -> None:
    other = shop.visitor()
    shop.log_in(other)
    with stores.counted() as without:
        shop.log_in(shop.visitor())
    shop.put(visitor, basket=["pen"])
    with stores.counted() as cost:
        shop.log_in(visitor)
    assert (cost.redis, len(cost.sql)) == (without.redis, len(without.sql))


def test_what_a_view_sets_before_it_logs_in_comes_along(shop: Shop, visitor: FlaskClient) -> None:
    shop.put(visitor, basket=["pen"])

    def act() -> None:
        session["method"] = "by password"
        session["csrf_token"] = "new"
        shop.log_in_here()
        session["after"] = 1

    shop.do(visitor, act)
    expected = {"basket": ["pen"], "method": "by password", "after": 1}
    assert shop.read(visitor) == expected

    with pytest.raises(UnsavableSession, match="basket"):
        shop.do(shop.visitor(), lambda: (session.update(basket={1}), shop.log_in_here()))


def test_the_csrf_token_stays_behind_whatever_it_is_called(
    shop: Shop, visitor: FlaskClient
) -> None:
    shop.app.config.update(WTF_CSRF_FIELD_NAME="own_token", LOGIN_CARRY_OVER=lambda data: data)
    shop.put(visitor, csrf_token="planted", own_token="planted", x=1)
    shop.log_in(visitor)
    assert shop.read(visitor) == {"x": 1}


def test_an_app_chooses_what_comes_along(shop: Shop, visitor: FlaskClient) -> None:
    def choose(data: dict[str, Any]) -> dict[str, Any]:
        return {"basket": data["basket"]} if "basket" in data else {}

    shop.app.config["LOGIN_CARRY_OVER"] = choose
    shop.put(visitor, basket=("pen",), state="of OAuth")
    shop.log_in(visitor)
    assert shop.read(visitor) == {"basket": ("pen",)}


def test_data_of_the_session_before_stays_behind(
    shop: Shop, ada: FlaskClient, visitor: FlaskClient
) -> None:
    sign_up(shop.app, "bob@example.org")
    shop.put(ada, diary="private")
    shop.do(ada, lambda: (session.get("diary"), shop.log_in_here("bob@example.org")))
    assert shop.read(ada) == {}
    shop.put(visitor, basket=1)
    ada.set_cookie(VISITOR, data_of(visitor))
    shop.do(ada, lambda: (session.get("diary"), shop.log_in_here()))
    assert shop.read(ada) == {"basket": 1}
    assert ada.get_cookie(VISITOR) is None


def test_a_log_in_that_fails_changes_nothing(shop: Shop, visitor: FlaskClient) -> None:
    shop.put(visitor, x=1)
    shop.app.testing = False
    shop.do(visitor, lambda: shop.auth.log_in("nobody@example.org", "not this"))
    assert shop.answer.status_code == 401
    assert shop.read(visitor) == {"x": 1}


# -- log-out ---------------------------------------------------------------------------------------


def test_after_log_out_a_visitor_starts_empty(shop: Shop, ada: FlaskClient) -> None:
    shop.put(ada, diary="private")

    def act() -> None:
        assert session["diary"] == "private"
        shop.auth.log_out()

    shop.do(ada, act)
    assert [c.name for c in cookies_of(shop.answer)] == [COOKIE]
    assert shop.read(ada) == {}


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_goodbye_survives(shop: Shop, ada: FlaskClient, order: str) -> None:
    shop.put(ada, diary="private")

    def act() -> None:
        if order == "before":
            flash("Goodbye, Ada")
        shop.auth.log_out()
        if order == "after":
            flash("Goodbye, Ada")

    shop.do(ada, act)
    names = {cookie.name: bool(cookie.value) for cookie in cookies_of(shop.answer)}
    assert names == {COOKIE: False, VISITOR: True}
    assert shop.read(ada) == {"_flashes": [("message", "Goodbye, Ada")]}
    assert shop.do(ada, get_flashed_messages) == ["Goodbye, Ada"]
    assert ada.get_cookie(VISITOR) is None


def test_log_out_empties_what_a_visitor_left(shop: Shop, visitor: FlaskClient) -> None:
    """Also where the session had ended before, or there was none."""
    for token in ("", "A" * 64):
        shop.put(visitor, basket=1)
        if token:
            visitor.set_cookie(COOKIE, token)
        shop.do(visitor, shop.auth.log_out)
        assert visitor.get_cookie(VISITOR) is None
        assert shop.read(visitor) == {}


def test_a_session_that_ended_leaves_a_visitor(
    shop: Shop, ada: FlaskClient, stores: Stores
) -> None:
    shop.put(ada, diary="private")
    stores.sql("UPDATE sessions SET ended_at = now(), ended_why = 'idle', ver = ver + 1")
    stores.redis.flushall()  # it would be noticed at the next revalidation
    assert shop.read(ada) == {}
    shop.put(ada, basket=1)
    assert shop.read(ada) == {"basket": 1}
    shop.log_in(ada)
    assert shop.read(ada) == {"basket": 1}


def test_a_new_token_keeps_what_the_view_changed(shop: Shop, ada: FlaskClient) -> None:
    interface: Any = shop.app.session_interface
    shop.put(ada, old=1, gone=1)
    before = token_of(ada)

    def act() -> None:
        session["new"] = ("tuple",)
        del session["gone"]
        interface.regenerate(session._get_current_object())  # type: ignore[attr-defined]
        session["after"] = 1

    shop.do(ada, act)
    assert token_of(ada) != before
    assert shop.read(ada) == {"old": 1, "new": ("tuple",), "after": 1}


# -- stores that are away ------------------------------------------------------------


def test_messages_do_not_need_a_store(
    shop: Shop, ada: FlaskClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A page that was there is not refused because a message can't be crossed out."""
    shop.do(ada, lambda: flash("saved"))
    shop.app.testing = False
    with monkeypatch.context() as away:
        away.setattr("authapp.sessions.store.SessionStore.patch", fails)
        assert shop.do(ada, get_flashed_messages) == ["saved"]
        assert shop.answer.status_code == 200
        shop.do(ada, lambda: flash("lost"))
        assert shop.answer.status_code == 200
        shop.do(ada, more_than_a_message)
        assert shop.answer.status_code == 503
    assert shop.do(ada, get_flashed_messages) == ["saved"]


def more_than_a_message() -> None:
    flash("lost")
    session["x"] = 1


def test_a_log_in_while_postgres_is_away_takes_it_along(
    shop: Shop, visitor: FlaskClient, ada: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.put(visitor, basket=("pen",))
    with monkeypatch.context() as away:
        away.setattr("authapp.sessions.beginning.SessionBeginning.begin", fails)
        shop.log_in(visitor)
    assert shop.read(visitor) == {"basket": ("pen",)}
