"""The whole deployment when a part of it is away, or its settings are wrong."""

import http.client
import re
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.conftest import ONE_WORKER, Answer, Deployment, ask, deployed
from tests.deploy.servers import needs_redis
from tests.support.instances import serving
from tests.support.waiting import wait_until

TIME_OUT = 20.0


@contextmanager
def without_redis(deployment: Deployment) -> Iterator[None]:
    deployment.redis.server.stop()
    try:
        yield
    finally:
        deployment.redis.server.start()
        wait_until(
            lambda: redis_states(deployment.ask_each("GET", "/readyz")) == ["ok", "ok"],
            "the instances do not use Redis again",
            seconds=TIME_OUT,
        )


def redis_states(answers: list[Answer]) -> list[str]:
    return [answer.body["stores"]["redis"] for answer in answers]


def test_without_redis_sessions_go_on_and_nobody_who_left_comes_back(
    deployment: Deployment,
) -> None:
    who = deployment.somebody()
    stays, leaves = deployment.log_in(who), deployment.log_in(who)
    assert deployment.statuses(stays) == deployment.statuses(leaves) == [200, 200]
    with without_redis(deployment):
        assert deployment.statuses(stays) == [200, 200]
        assert deployment.ask("POST", "/api/v1/logout", leaves).status in {202, 204}
        assert deployment.statuses(leaves) == [401, 401]
        assert deployment.log_in(who)
    assert deployment.statuses(stays) == [200, 200]
    assert deployment.statuses(leaves) == [401, 401]


@pytest.mark.usefixtures("served_by")
def test_a_503_of_an_instance_reaches_the_client_as_it_is(engine_dir: Path) -> None:
    needs_redis()
    with deployed(engine_dir / "no-stores", **ONE_WORKER) as deployment:
        token = deployment.log_in(deployment.somebody())
        deployment.redis.server.stop()
        deployment.postgres.stop()
        answer = deployment.ask("GET", "/api/v1/me", token)
        assert answer.status == 503
        assert answer.body["code"] == "unavailable"
        assert int(answer.headers["Retry-After"]) > 0
        assert "Set-Cookie" not in answer.headers
        # one instance was asked, once: the other one would say the same, later
        assert deployment.logged(answer)["instance_status"] == "503"


@pytest.mark.usefixtures("served_by")
def test_with_one_instance_gone_the_other_answers_everybody(engine_dir: Path) -> None:
    needs_redis()
    with deployed(engine_dir / "one-instance", **ONE_WORKER) as deployment:
        token = deployment.log_in(deployment.somebody())
        gone = deployment.instances[0].process
        gone.send_signal(signal.SIGTERM)
        gone.wait(TIME_OUT)
        for _ in range(10):
            assert deployment.ask("GET", "/api/v1/me", token).status == 200


def test_a_full_redis_keeps_nobody_in_or_out(deployment: Deployment) -> None:
    who = deployment.somebody()
    copied, leaves = deployment.log_in(who), deployment.log_in(who)
    assert deployment.statuses(copied) == deployment.statuses(leaves) == [200, 200]
    with closing(deployment.redis.admin()) as admin:
        full: Any = admin.config_get("maxmemory", "maxmemory-policy")
        assert full["maxmemory-policy"] == "noeviction", "else it is never full, and forgets fences"
        admin.config_set("maxmemory", 1)
        try:
            assert deployment.ask("POST", "/api/v1/logout", leaves).status == 204
            assert deployment.statuses(leaves) == [401, 401]
            for token in (copied, deployment.log_in(who)):
                assert deployment.statuses(token) == [200, 200]
        finally:
            admin.config_set("maxmemory", full["maxmemory"])


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        (r"authapp:\w+@", "authapp:not-the-password@"),
        (r"authapp:\w+@", "nobody:not-the-password@"),
        (r"authapp:\w+@", ""),
        (r"redis-ca\.crt", "tls.crt"),
        (r"rediss://(.*)\?.*", r"redis://\1"),
        (r"@localhost:", "@127.0.0.1:"),
    ],
    ids=["password", "account", "no-account", "other-ca", "no-tls", "not-in-the-certificate"],
)
def test_with_a_wrong_redis_url_postgres_answers_and_readyz_says_so(
    deployment: Deployment, wrong: str, right: str
) -> None:
    url, replaced = re.subn(wrong, right, deployment.settings["REDIS_URL"])
    assert replaced == 1
    token = deployment.log_in(deployment.somebody())
    settings = {**deployment.settings, **ONE_WORKER, "REDIS_URL": url}
    with serving("wsgi:app", settings, deployment.folder / "wrong.log") as instance:
        answers = [
            ask(http.client.HTTPConnection("127.0.0.1", instance.port), "GET", path, token)
            for path in ("/readyz", "/api/v1/me")
        ]
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].body["stores"] == {"postgres": "ok", "redis": "unavailable"}
    assert "not-the-password" not in (deployment.folder / "wrong.log").read_text()


def test_with_an_acl_that_lacks_something_postgres_answers_and_redis_says_what(
    deployment: Deployment,
) -> None:
    token = deployment.log_in(deployment.somebody())
    with closing(deployment.redis.admin()) as admin:
        admin.acl_log_reset()
        try:
            admin.execute_command("ACL", "SETUSER", "authapp", "-fcall")  # type: ignore[no-untyped-call]
            assert deployment.statuses(token) == [200, 200]
            log: list[dict[str, str]] = admin.acl_log()  # type: ignore[assignment]
            assert {entry["object"] for entry in log} == {"fcall"}
        finally:
            admin.execute_command("ACL", "LOAD")  # type: ignore[no-untyped-call]
