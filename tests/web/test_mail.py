"""Mail of an app: its processes send, its templates come first, no request waits for a server."""

from pathlib import Path

import pytest
from flask import Flask

from authapp import Auth
from authapp.accounts.emails import parse_email
from authapp.mail.outbox import Mail
from tests.support.smtp import MailServer
from tests.web.conftest import MakeApp, Settings
from tests.web.support import Stores, services_of

ANN = "ann@example.org"


def put(app: Flask, kind: str = "reset") -> None:
    services = services_of(app)
    context = {"link": services.public_link("/reset", token="t" * 43), "name": "Ann"}
    with services.database.transaction() as db:
        assert services.outbox.put(db, Mail(kind, parse_email(ANN), context))  # type: ignore[arg-type]


def test_a_process_sends_from_its_first_request_on(
    make_app: MakeApp, mail_server: MailServer
) -> None:
    app = make_app(**mail_server.settings(BRAND_NAME="Acme"))
    put(app)
    assert mail_server.mails == []
    app.test_client().get("/healthz")
    mail = mail_server.wait_for(ANN)
    assert mail.link == f"https://auth.example.org/reset?token={'t' * 43}"
    assert "Acme" in mail.html


def test_an_app_has_templates_of_its_own_beside_ours(
    stores: Stores, settings: Settings, mail_server: MailServer, tmp_path: Path
) -> None:
    own = tmp_path / "templates" / "authapp" / "mail"
    own.mkdir(parents=True)
    (own / "reset.txt").write_text("Neu bei {{ brand.name }}\n\n{{ link }}\n")
    app = Flask("another", root_path=str(tmp_path))
    app.config.update(settings, **mail_server.settings())
    Auth(app)  # mounts nothing
    try:
        put(app)
        app.test_client().get("/")
        mail = mail_server.wait_for(ANN)
        assert mail.subject == "Neu bei authapp"
        assert "All your sessions end" in mail.html.replace("all", "All")  # ours still
    finally:
        services_of(app).close()


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/login"])
def test_nothing_depends_on_a_mail_server_that_hangs(
    make_app: MakeApp, mail_server: MailServer, path: str
) -> None:
    app = make_app(**mail_server.settings())
    mail_server.freeze()
    put(app)
    assert app.test_client().get(path).status_code == 200
    put(app)
    assert app.test_client().get(path).status_code == 200
    mail_server.thaw()
    mail_server.wait_for(ANN, 2)


def test_the_metrics_are_exposed(make_app: MakeApp, mail_server: MailServer) -> None:
    app = make_app(**mail_server.settings())
    put(app)
    told = app.test_client().get("/metrics").text
    for name in ("authapp_mails_total", "authapp_mails_waiting", "authapp_oldest_mail_seconds"):
        assert name in told
    mail_server.wait_for(ANN)
