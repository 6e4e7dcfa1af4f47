"""Cookies that a neighbouring site tosses in, as they come on the wire."""

import http.client

import pytest

from tests.attacks.site import COOKIE, Site, ask
from tests.support.instances import SERVER


def cookie_status(site: Site, *headers: str) -> int:
    """The status of the API for a program that sends these Cookie headers."""
    with site.connection() as connection:
        connection.putrequest("GET", "/api/v1/me")
        for header in headers:
            connection.putheader("Cookie", header.encode("latin-1"))
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.headers["Set-Cookie"] is None, "what was tossed in is not cleared either"
        return answer.status


# gunicorn joins two headers by a comma, which a value may hold; granian by a semicolon, as HTTP/2
SEVERAL_HEADERS = 200 if SERVER == "granian" else 401

MANY = "; ".join(f"a{number}={number}" for number in range(1_500))

# live sessions of two people count as none: whose would it be?
TOSSED = {
    "a twin": ["{own}; {theirs}"],
    "a twin before": ["{theirs}; {own}"],
    "a twin of another path, in a header of its own": ["{own}", "{theirs}"],
    "the same before": ["{theirs}", "{own}"],
    "in three headers": ["a=1", "{own}", "{theirs}"],
    "a blank behind the name": ["{spaced}; {own}"],
    "a blank behind the name, last": ["{own}; {spaced}"],
    "only with a blank behind the name": ["{spaced}"],
    "16 KB of it": ["{own}" + "A" * 15_000],
}


@pytest.mark.parametrize("headers", TOSSED.values(), ids=TOSSED)
def test_nobody_is_taken_for_somebody_else(site: Site, headers: list[str]) -> None:
    own, theirs = (site.log_in(site.sign_up()) for _ in range(2))
    known = {
        "own": f"{COOKIE}={own}",
        "theirs": f"{COOKIE}={theirs}",
        "spaced": f"{COOKIE} ={theirs}",
    }
    assert cookie_status(site, *(header.format(**known) for header in headers)) == 401
    assert site.me(own).status == site.me(theirs).status == 200, "and no session ended"


@pytest.mark.parametrize(
    "around",
    ["{many}; {own}", "{own}; {many}", f"{COOKIE}=" + "A" * 15_000 + "; {own}"],
    ids=["1,500 others before", "1,500 others behind", "15 KB under our name"],
)
def test_many_cookies_of_neighbours_push_nobody_out(site: Site, around: str) -> None:
    token = site.log_in(site.sign_up())
    cookie = around.format(many=MANY, own=f"{COOKIE}={token}")
    assert 15_000 < len(cookie) < 16_380, "what one header may hold, see gunicorn.conf.py"
    assert cookie_status(site, cookie) == 200


def test_1500_of_our_name_end_nothing(site: Site) -> None:
    token = site.log_in(site.sign_up())
    one = f"{COOKIE}={token}"
    assert cookie_status(site, "; ".join([one] + [f"{COOKIE}="] * 1_000)) == 200
    assert cookie_status(site, "; ".join([one] + [f"{COOKIE}={n}" for n in range(16)])) == 400
    assert cookie_status(site, "; ".join([one] * 1_500)) in {400, 431}
    assert cookie_status(site, *[one] * 90) == SEVERAL_HEADERS
    assert site.me(token).status == 200


def test_a_refusal_for_size_ends_only_its_own_connection(site: Site) -> None:
    token = site.log_in(site.sign_up())
    with site.connection() as connection:
        try:
            answer = ask(connection, "GET", "/api/v1/me", token="A" * 100_000)
            assert answer.status in {400, 431}
        except (ConnectionError, http.client.HTTPException):
            pass  # closed before all was sent
        assert site.me(token).status == 200
