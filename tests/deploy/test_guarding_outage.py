"""Both stores are stopped: through each proxy a guarded app is 503, and no cookie is cleared."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from authapp import create_app, dev
from authapp.config import Config
from tests.deploy.guarded import Guarded
from tests.deploy.guarding import APP, AUTH, PROXIES, guarding
from tests.deploy.proxies import served
from tests.deploy.servers import make_secrets, needs_redis
from tests.deploy.telling_app import telling_app
from tests.support.databases import migrate
from tests.support.people import PASSWORD
from tests.support.settings import settings_for
from tests.web.support import services_of

EMAIL = "ada@example.org"


def test_while_both_stores_are_stopped_a_guarded_app_is_503(
    engine_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    needs_redis()  # openssl, too
    secrets = make_secrets(tmp_path_factory.mktemp("outage"), AUTH)
    home = engine_dir / "guarding-outage"
    home.mkdir()
    os.chmod(home, 0o711)
    with ExitStack() as stack:
        start = stack.enter_context
        places = [start(dev.private_socket_dir()) for _ in range(2)]
        postgres = start(dev.PostgreSQL.start(home / "pg", places[0], "tests", durable=False))
        valkey = start(dev.Valkey.start(home / "kv", places[1], "tests", durable=False))
        migrate(postgres.url)
        settings = settings_for(
            postgres.url,
            valkey.url,
            PUBLIC_URL=f"https://{AUTH}",
            SESSION_COOKIE_DOMAIN="example.org",
            ALLOWED_REDIRECT_HOSTS=APP,
            TRUSTED_PROXY_HOPS="1",
        )
        auth = create_app(Config.from_mapping(settings))
        stack.callback(services_of(auth).close)
        services_of(auth).registration.sign_up(EMAIL, PASSWORD, "Ada", ("user",))
        authapp, app = start(served(auth)), start(telling_app())
        proxies = []
        for name in PROXIES:
            folder = tmp_path_factory.mktemp(name)
            os.chmod(folder, 0o755)
            server, port = guarding(name, folder, secrets, authapp, app)
            stack.callback(server.stop)
            server.start()
            proxies.append(Guarded(name, port))
        token, _ = proxies[0].log_in(EMAIL, PASSWORD)
        assert all(proxy.ask("/", token).reached_app for proxy in proxies)
        postgres.stop()
        valkey.stop()
        for proxy in proxies:
            answer = proxy.ask("/", token, ("Accept", "text/html"))
            assert answer.status == 503, proxy.name
            assert "Set-Cookie" not in answer.headers
            assert "Location" not in answer.headers
