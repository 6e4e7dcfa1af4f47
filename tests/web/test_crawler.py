"""A visitor without a session leaves nothing behind."""

import base64
import os

import pytest
from flask import Flask

from tests.web.support import COOKIE, Stores, program

VISITS = 1_000


@pytest.mark.parametrize("cookie", ["none", "forged", "malformed"])
def test_a_crawler_leaves_nothing_in_either_store(
    app: Flask, person: str, stores: Stores, cookie: str
) -> None:
    paths = [
        rule.rule
        for rule in app.url_map.iter_rules()
        if "GET" in (rule.methods or ()) and not rule.arguments
    ]
    assert {"/", "/login", "/signup", "/account", "/admin/users", "/api/v1/me"} <= set(paths)
    paths += ["/nothing", "/login?next=/account", "/static/authapp/authapp.css", "/logout"]
    crawler = program(app)
    rows, keys = stores.rows(), stores.all_keys()

    for number in range(VISITS // 3 + 1):
        value = {
            "none": "",
            "forged": f"{COOKIE}={base64.urlsafe_b64encode(os.urandom(48)).decode()}",
            "malformed": f"{COOKIE}=x; {COOKIE}=y; session=z",
        }[cookie]
        answer = crawler.get(paths[number % len(paths)], headers={"Cookie": value} if value else {})
        assert answer.status_code in {200, 302, 303, 401, 404, 405, 501}
        assert "Set-Cookie" not in answer.headers

    assert (stores.rows(), stores.all_keys()) == (rows, keys)
