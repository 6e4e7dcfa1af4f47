"""Where a request may not pass, the answer of authapp gets to the visitor, by each real proxy."""

import pytest

from authapp.web.request_credentials import CHALLENGE
from tests.deploy.guarded import Guarded
from tests.deploy.scripted_answers import BODY, HEADERS, LOCATION, RETRY_AFTER

# what more comes with each
ANSWERS = {
    302: {"Location": LOCATION},
    303: {"Location": LOCATION},
    401: {"WWW-Authenticate": CHALLENGE},
    403: {},
    429: {"Retry-After": RETRY_AFTER},
    503: {"Retry-After": RETRY_AFTER},
}
# of nginx' `auth_request`: it has pages of its own, and can't be told to redirect
BY_NGINX = {
    401: (303, {"Location": LOCATION}),
    403: (403, {}),
    429: (429, {"Retry-After": RETRY_AFTER}),
    503: (503, {"Retry-After": RETRY_AFTER}),
}


@pytest.mark.parametrize("status", ANSWERS)
def test_a_refusal_keeps_its_status_its_headers_and_its_page(guarded: Guarded, status: int) -> None:
    answer = guarded.ask("/notes", "", ("Cookie", f"answer={status}"), ("Accept", "text/html"))
    expected, headers, body = status, HEADERS | ANSWERS[status], BODY
    if guarded.name.startswith("nginx"):
        if status not in BY_NGINX:
            return  # nginx is not answered so
        expected, headers, body = *BY_NGINX[status], b"<html>"
    elif guarded.name == "envoy" and status == 503:  # it takes any 5xx for an error
        headers, body = {"Retry-After": "2"}, b""
    assert answer.status == expected
    for name, value in headers.items():
        assert answer.headers.get_all(name) == [value], (name, answer.headers.items())
    assert answer.body.startswith(body)
    if not body:
        assert not answer.body
