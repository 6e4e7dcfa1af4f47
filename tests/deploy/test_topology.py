"""The whole deployment: what people get through the proxy, and what they don't."""

import http.client
import json
import socket
import ssl
import subprocess
import sys
from contextlib import ExitStack, closing
from typing import Any

import pytest

from tests.deploy.conftest import COOKIE, HOST, VISITOR, Deployment, ask
from tests.deploy.files import copied_by_dockerfile, dockerfile
from tests.deploy.servers import ANY_CERTIFICATE
from tests.support.waiting import wait_until


def test_a_session_that_begins_at_one_instance_is_known_to_the_other(
    deployment: Deployment,
) -> None:
    token = deployment.log_in(deployment.somebody())
    assert deployment.statuses(token) == [200, 200]
    assert deployment.ask("GET", "/api/v1/me", token).status == 200


def test_a_session_that_ends_at_one_instance_is_refused_by_the_other_at_once(
    deployment: Deployment,
) -> None:
    token = deployment.log_in(deployment.somebody())
    assert deployment.statuses(token) == [200, 200]
    assert deployment.ask("POST", "/api/v1/logout", token).status == 204
    assert deployment.statuses(token) == [401, 401]


def test_both_instances_are_asked_by_the_proxy(deployment: Deployment) -> None:
    seen = set()
    for _ in range(40):
        answer = deployment.ask("GET", "/healthz")
        seen.add(deployment.logged(answer)["instance"])
    assert seen == {f"127.0.0.1:{instance.port}" for instance in deployment.instances}


def test_the_cookie_can_only_be_ours(deployment: Deployment) -> None:
    answer = deployment.ask("POST", "/api/v1/login", body=deployment.somebody())
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert {"Secure", "HttpOnly", "Path=/", "SameSite=Lax"} <= set(cookie.split("; "))
    assert "max-age" in answer.headers["Strict-Transport-Security"]


def test_the_copies_are_used(deployment: Deployment) -> None:
    """All of it would work without Redis, too."""
    token = deployment.log_in(deployment.somebody())
    with closing(deployment.redis.admin()) as admin:
        wait_until(
            lambda: uses_redis(deployment, token) and list(admin.scan_iter("sess:*")),
            "the instances do without Redis",
        )
        clients: Any = admin.client_list()
        assert {one["user"] for one in clients} == {"admin", "authapp"}


def uses_redis(deployment: Deployment, token: str) -> bool:
    assert deployment.statuses(token) == [200, 200]
    answers = deployment.ask_each("GET", "/readyz")
    return [answer.body["stores"]["redis"] for answer in answers] == ["ok", "ok"]


FORGED = {
    "X_Forwarded_For": "203.0.113.66",
    "X_Forwarded_Host": "evil.example",
    "X_Forwarded_Proto": "http",
    "Forwarded": "for=203.0.113.66;host=evil.example",
    "X_Real_IP": "203.0.113.66",
}


@pytest.mark.parametrize("headers", [{}, FORGED], ids=["honest", "forged"])
def test_the_address_of_a_session_is_the_visitors(
    deployment: Deployment, headers: dict[str, str]
) -> None:
    token = deployment.log_in(deployment.somebody(), **headers)
    answer = deployment.ask("GET", "/api/v1/me/sessions", token)
    assert [session["address"] for session in answer.body["sessions"]] == [VISITOR]


def test_a_header_with_underscores_is_taken_for_none_of_the_proxys(deployment: Deployment) -> None:
    """granian takes it for the one with hyphens."""
    who = deployment.somebody()
    headers = {"Content-Type": "application/json"}
    headers |= {name: value for name, value in FORGED.items() if "_" in name}
    with closing(deployment.connect()) as connection:
        connection.request("POST", "/api/v1/login", json.dumps(who), headers)
        answer = connection.getresponse()
        token = str(answer.headers["Set-Cookie"]).partition(";")[0].partition("=")[2]
        answer.read()
    sessions = deployment.ask("GET", "/api/v1/me/sessions", token).body["sessions"]
    assert VISITOR in {session["address"] for session in sessions}
    assert FORGED["X_Forwarded_For"] not in {session["address"] for session in sessions}


@pytest.mark.parametrize("headers", [{}, FORGED], ids=["honest", "forged"])
def test_our_origin_is_what_the_browser_sees(
    deployment: Deployment, headers: dict[str, str]
) -> None:
    own = f"https://{HOST}:{deployment.port}"
    for origin, status in ((own, 401), ("https://evil.example", 403)):
        who = {"email": "nobody@example.org", "password": "not a password of anybody"}
        answer = deployment.ask("POST", "/api/v1/login", body=who, Origin=origin, **headers)
        assert answer.status == status, origin


def test_a_request_has_one_id_from_the_log_of_the_proxy_to_that_of_the_instance(
    deployment: Deployment,
) -> None:
    answer = deployment.ask("GET", "/api/v1/me")
    assert answer.status == 401
    assert answer.body["request_id"] == answer.headers["X-Request-ID"]
    logged = deployment.logged(answer)
    assert (logged["status"], logged["instance_status"]) == (401, "401")
    request_id = answer.headers["X-Request-ID"]
    # the line is written a moment after the answer
    wait_until(lambda: any(request_id in one.log() for one in deployment.instances))


def test_what_people_type_is_not_in_the_log_of_the_proxy(deployment: Deployment) -> None:
    answer = deployment.ask("GET", "/typed-by-hand?q=ada@example.org")
    deployment.logged(answer)
    log = deployment.access_log_path.read_text()
    assert "typed-by-hand" not in log
    assert "ada@example.org" not in log


@pytest.mark.parametrize(
    "path",
    [
        *("/metrics", "/readyz", "//metrics", "/metrics/", "/%6detrics", "/x/../readyz"),
        *("/readyz?a=b", "/auth/metrics", "/auth/readyz", "/a/b//readyz"),
    ],
)
def test_what_is_for_operators_does_not_pass_the_proxy(deployment: Deployment, path: str) -> None:
    answer = deployment.ask("GET", path)
    assert answer.status == 404
    assert "X-Request-ID" not in answer.headers, "an instance was asked"


def test_plain_http_leads_to_https(deployment: Deployment) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", deployment.plain_port)
    answer = ask(connection, "GET", "/account?x=1", Host=HOST)
    assert answer.status == 308
    assert answer.headers["Location"] == f"https://{HOST}/account?x=1"


def test_another_name_is_nobodys(deployment: Deployment) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", deployment.plain_port)
    assert ask(connection, "GET", "/", Host="evil.example").status == 421
    plain = socket.create_connection(("127.0.0.1", deployment.port), timeout=20)
    with plain, pytest.raises(ssl.SSLError):
        ANY_CERTIFICATE.wrap_socket(plain, server_hostname="evil.example")
    assert deployment.ask("GET", "/healthz", Host="evil.example").status == 421


def test_a_body_that_is_too_large_is_refused_by_the_proxy(deployment: Deployment) -> None:
    answer = deployment.ask("POST", "/api/v1/login", body={"email": "x" * 70_000})
    assert answer.status == 413
    assert "X-Request-ID" not in answer.headers


HALF = {
    "heads": b"GET /healthz HTTP/1.1\r\nHost: auth",
    "bodies": b"POST /api/v1/login HTTP/1.1\r\nHost: %s\r\nContent-Length: 100\r\n\r\n{"
    % HOST.encode(),
}


@pytest.mark.parametrize("sent", HALF.values(), ids=HALF)
def test_clients_that_stop_in_the_middle_hold_up_nobody(
    deployment: Deployment, sent: bytes
) -> None:
    """More of them than both instances have threads. An instance hears nothing of them."""
    with ExitStack() as stack:
        for _ in range(180):
            connection = stack.enter_context(closing(deployment.connect()))
            connection.sock.sendall(sent)
        for _ in range(10):
            with closing(deployment.connect()) as connection:
                connection.sock.settimeout(5)
                connection.request("GET", "/api/v1/me")
                assert connection.getresponse().status == 401


def test_the_health_check_of_the_image_sees_an_instance(deployment: Deployment) -> None:
    (check,) = (arguments for name, arguments in dockerfile() if name == "HEALTHCHECK")
    command = json.loads(check.partition("CMD ")[2])
    port = str(deployment.instances[0].port)
    subprocess.run([sys.executable, *command[1:]], env={"PORT": port}, check=True, timeout=60)


def test_the_instances_write_nothing_where_they_run(deployment: Deployment) -> None:
    """In the container all of it is read-only."""
    there = {path.name for path in deployment.image.iterdir()}
    assert there == set(copied_by_dockerfile())
