"""A view that logs in and out, or logs in twice: no session is left that nobody has a cookie of."""

import pytest
from flask import session

from tests.web.session.conftest import Act, Shop
from tests.web.support import COOKIE, Stores, cookies_of, sign_up

OTHER = "grace@example.org"


def active(stores: Stores) -> list[str]:
    """Whose sessions are active."""
    found = stores.sql(
        "SELECT u.email FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.ended_at IS NULL"
    )
    return [email for (email,) in found]


def renew(shop: Shop) -> None:
    shop.app.session_interface.regenerate(session)  # type: ignore[attr-defined]


@pytest.mark.parametrize("first", ["password", "application", "new token"])
def test_log_out_ends_the_session_that_began_before_it(
    shop: Shop, stores: Stores, first: str
) -> None:
    def in_and_out() -> None:
        acts[first]()
        shop.auth.log_out()

    acts: dict[str, Act] = {
        "password": shop.log_in_here,
        "application": lambda: shop.auth.log_in(shop.auth.users.page().users[0]),
        "new token": lambda: renew(shop),
    }
    client = shop.visitor()
    if first == "new token":
        shop.log_in(client)
        assert active(stores)
    shop.do(client, in_and_out)
    assert shop.answer.status_code == 200
    assert active(stores) == []
    assert not any(cookie.value for cookie in cookies_of(shop.answer) if cookie.name == COOKIE)


def test_a_second_log_in_replaces_the_first(shop: Shop, stores: Stores) -> None:
    sign_up(shop.app, OTHER)

    def twice() -> None:
        shop.log_in_here()
        shop.log_in_here(OTHER)

    client = shop.visitor()
    shop.do(client, twice)
    assert active(stores) == [OTHER]
    shop.do(client, shop.auth.log_out)
    assert active(stores) == []
