"""How mails leave: what sends them, and what can go wrong."""

import os
import secrets
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RenderedMail:
    """A mail as it leaves.

    Attributes:
        sender: the address that answers of mail servers go to.
        recipient: the stored form of an address.
        content: headers and body, each line with CRLF at its end. Headers are ASCII, or UTF-8
            where the recipient is beyond ASCII (RFC 6532).
    """

    sender: str
    recipient: str
    content: bytes = field(repr=False)


class DeliveryFailed(Exception):
    """A mail did not leave, for a reason that is the mail's own.

    Attributes:
        reason: for operators; it holds no address.
        is_final: another attempt would fail as well.
    """

    def __init__(self, reason: str, *, is_final: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_final = is_final


class Unreachable(Exception):
    """No mail can leave at this moment, and the mail at hand was not given away.

    Attributes:
        reason: for operators; it holds no address.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Unconfirmed(Exception):
    """The server got a mail and did not say whether it took it. The connection is of no use.

    Attributes:
        reason: for operators; it holds no address.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Connection(Protocol):
    """Sends mails, one after the other."""

    def send(self, mail: RenderedMail) -> None:
        """
        Raises:
            DeliveryFailed, Unreachable, Unconfirmed
        """

    def close(self) -> None:
        """Raises nothing."""


class Transport(Protocol):
    """Opens connections. It keeps none, so threads and forked processes can share it.

    Attributes:
        destination: where a mail is once it was sent, for operators.
    """

    @property
    def destination(self) -> str: ...

    def connect(self) -> Connection:
        """
        Raises:
            Unreachable
        """


class FileTransport:
    """Writes each mail to a file of its own, for development and tests."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self.destination = f"in {directory}"

    def connect(self) -> "FileTransport":
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise Unreachable(f"directory: {error.strerror}") from None
        return self

    def send(self, mail: RenderedMail) -> None:
        """Whole or not at all: nobody sees half a mail under its name."""
        now = time.time_ns()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now // 10**9))
        name = f"{stamp}.{now % 10**9 // 1000:06d}Z-{secrets.token_hex(4)}"
        draft = self._directory / f".{name}.draft"
        try:
            opened = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(opened, "wb") as file:
                file.write(mail.content)
            draft.rename(self._directory / f"{name}.eml")
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise Unreachable(f"file: {error.strerror}") from None

    def close(self) -> None:
        pass
