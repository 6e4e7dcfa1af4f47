"""`mail status|retry|test`: what operators see of mails, and whether mail can leave."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask

from authapp import Config, create_app
from authapp.accounts.emails import parse_email
from authapp.mail.outbox import Mail
from authapp.services import Services
from tests.cli.test_commands import done, refused
from tests.support.services import sql
from tests.support.settings import make_config
from tests.support.smtp import MailServer
from tests.web.support import services_of

ANN = "ann@example.org"


@pytest.fixture
def app(config: Config, mail_server: MailServer) -> Iterator[Flask]:
    more = mail_server.settings()
    app = create_app(make_config(config.DATABASE_URL, config.REDIS_URL, **more))
    yield app
    services_of(app).close()


def put(services: Services, to: str) -> None:
    with services.database.transaction() as db:
        services.outbox.put(db, Mail("test", parse_email(to)))


def test_status_and_retry(app: Flask, mail_server: MailServer) -> None:
    services = services_of(app)
    assert done(app, "mail", "status") == "Mail is on.\n0 waiting, 0 sent, 0 dropped.\n"
    mail_server.replies = {"bob@example.org": "450 later", "eve@example.org": "550 5.1.1 nobody"}
    for to in (ANN, "bob@example.org", "eve@example.org"):
        put(services, to)
    assert services.mail_sender is not None
    services.mail_sender.send_batch()
    told = done(app, "mail", "status")
    assert "1 waiting, the oldest since 20" in told
    assert "1 sent, 1 dropped." in told
    assert told.endswith("The last reason not to send one: RCPT: 550 5.1.1\n")
    assert "example" not in told
    state = json.loads(done(app, "mail", "status", "--json"))
    assert (state["waiting"], state["sent"], state["failed"]) == (1, 1, 1)

    assert done(app, "mail", "retry") == "0 mails will be tried now.\n"  # it is due soon anyway
    sql(
        services,
        "UPDATE outgoing_mails SET next_attempt_at = now() + interval '1 hour'"
        " WHERE sent_at IS NULL",
    )
    mail_server.replies.clear()
    assert done(app, "mail", "retry") == "1 mail will be tried now.\n"
    services.mail_sender.send_batch()
    mail_server.wait_for("bob@example.org")


def test_a_mail_for_trial_says_how_it_went(app: Flask, mail_server: MailServer) -> None:
    assert done(app, "mail", "test", ANN) == f"A mail to {ANN} is at the mail server.\n"
    assert mail_server.wait_for(ANN).subject == "A test from authapp"
    mail_server.replies["RCPT"] = "550 5.7.1 no relaying"
    assert refused(app, "mail", "test", ANN) == "Error: the mail was not sent: RCPT: 550 5.7.1"
    assert "enter an email address" in refused(app, "mail", "test", "ann")


def test_a_mail_that_is_written_to_a_file_is_said_to_be_there(
    config: Config, tmp_path: Path
) -> None:
    more = {"MAIL_URL": f"file:{tmp_path}/mail", "PUBLIC_URL": "https://auth.example.org"}
    app = create_app(make_config(config.DATABASE_URL, config.REDIS_URL, **more))
    assert done(app, "mail", "test", ANN) == f"A mail to {ANN} is in {tmp_path}/mail.\n"
    assert len(list(Path(tmp_path, "mail").glob("*.eml"))) == 1
    services_of(app).close()


def test_without_mail_the_commands_say_so(config: Config) -> None:
    app = create_app(config)
    assert "Mail is off: set MAIL_URL" in done(app, "mail", "status")
    for command in (("retry",), ("test", ANN)):
        assert refused(app, "mail", *command) == "Error: Mail is off: set MAIL_URL to turn it on"
    services_of(app).close()
