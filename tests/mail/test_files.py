"""Mails as files, for development."""

import stat
from email import message_from_bytes
from email.policy import SMTPUTF8
from pathlib import Path

import pytest

from authapp.mail.transport import FileTransport, Unreachable
from tests.mail.conftest import OpenMailing, put, sender_of


def test_each_mail_is_a_file_of_its_own_for_its_owner_alone(
    open_mailing: OpenMailing, tmp_path: Path
) -> None:
    directory = tmp_path / "a b" / "mail"
    services = open_mailing(MAIL_URL=f"file:{directory}")
    for address in ("ann@example.org", "bøb@exämple.org"):
        put(services, address)
    sender_of(services).send_batch()
    files = sorted(directory.iterdir())
    assert len(files) == 2
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for file, address in zip(files, ("ann@example.org", "bøb@exämple.org"), strict=True):
        assert file.suffix == ".eml"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        mail = message_from_bytes(file.read_bytes(), policy=SMTPUTF8)
        assert str(mail["To"]).encode("utf-8", "surrogateescape").decode() == address
        assert b"Auto-Submitted: auto-generated\r\n" in file.read_bytes()


def test_a_directory_that_cannot_be_made_is_no_fault_of_the_mail(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unreachable, match=r"^directory: Not a directory$"):
        FileTransport(str(tmp_path / "file" / "mail")).connect()
