"""The lines of an import file: one JSON object a line, each a user to add."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO
from uuid import UUID, uuid4

import msgspec

from authapp.accounts.emails import Email
from authapp.accounts.identity import USER
from authapp.accounts.profiles import stored_name, why_name_refused
from authapp.errors import InvalidField

MAX_LINE = 16_384  # bytes; the longest fields together have about 2,000
FIELDS = ("email", "name", "roles", "verified", "created_at", "password_hash")
_EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
_OBJECT = 'write one JSON object a line, like {"email": "ann@example.org", "name": "Ann"}'


class LineRefused(Exception):
    """A line that can't be imported. The message names each field that is wrong, and the remedy."""


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user as a line describes one.

    Attributes:
        created_at: None where the line does not say.
        password_hash: as it is stored; empty where the line has none.
    """

    id: UUID
    email: Email
    name: str
    roles: tuple[str, ...]
    verified: bool
    created_at: datetime | None
    password_hash: str


def numbered_lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, each with its number, cut one byte beyond MAX_LINE."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE)
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")  # some programs begin a file by this mark
        if line.strip():
            yield number, line


class LineReader:
    """Reads lines.

    Args:
        roles: the names of the roles that there are.
        seal: what is stored for a password hash of this user. It raises ValueError with the reason
            why the hash can't be imported.
    """

    def __init__(
        self,
        parse_email: Callable[[str], Email],
        roles: Collection[str],
        seal: Callable[[UUID, str], str],
        now: datetime,
    ) -> None:
        self._parse_email = parse_email
        self._roles = roles
        self._seal = seal
        self._latest = now + timedelta(days=1)  # the clock of the other system may be ahead

    def read(self, line: bytes) -> NewUser:
        """
        Raises:
            LineRefused
        """
        values = _object(line)
        errors: dict[str, str] = {}
        for key in values.keys() - set(FIELDS):
            errors[repr(key[:40])] = f"there is no such field; the fields are {', '.join(FIELDS)}"
        readers: dict[str, Callable[[Any], Any]] = {
            "email": self._email,
            "name": _name,
            "roles": self._role_names,
            "verified": _verified,
            "created_at": self._created_at,
        }
        user_id = uuid4()
        readers["password_hash"] = lambda text: self._password_hash(user_id, text)
        found: dict[str, Any] = {}
        for field, read in readers.items():
            try:
                found[field] = read(values.get(field))
            except InvalidField as invalid:
                errors |= invalid.errors
            except (ValueError, OverflowError) as error:
                errors[field] = str(error)
        if errors:
            raise LineRefused("; ".join(f"{field}: {reason}" for field, reason in errors.items()))
        return NewUser(id=user_id, **found)

    def _email(self, value: Any) -> Email:
        if not isinstance(value, str):
            raise ValueError("it is missing or no text; write the address of the person")  # noqa: TRY004
        return self._parse_email(value)

    def _role_names(self, value: Any) -> tuple[str, ...]:
        if value is None:
            return (USER,)
        if not isinstance(value, list) or not all(isinstance(role, str) for role in value):
            raise ValueError('write a list of names, like ["user"]')
        for role in value:
            if role not in self._roles:
                raise ValueError(
                    f"there is no role {role[:63]!r}; the roles are: {', '.join(self._roles)}; "
                    "`roles create` adds one"
                )
        return tuple(sorted(set(value)))

    def _created_at(self, value: Any) -> datetime | None:
        if value is None:
            return None
        advice = "write a time with its zone, like 2024-05-31T12:00:00Z"
        if not isinstance(value, str):
            raise ValueError(advice)  # noqa: TRY004 — as every other fault of a line
        try:
            at = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(advice) from None
        if at.tzinfo is None:
            raise ValueError(advice)
        at = at.astimezone(UTC)
        if not _EARLIEST <= at <= self._latest:
            raise ValueError("it is before 1970 or in the future; correct it, or leave it out")
        return at

    def _password_hash(self, user_id: UUID, value: Any) -> str:
        if value is None or value == "":
            return ""
        if not isinstance(value, str):
            raise ValueError("write the hash as text")  # noqa: TRY004 — as above
        if value.startswith("!"):  # Django: nobody can log in with a password
            return ""
        return self._seal(user_id, value)


def _object(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise LineRefused(f"it is longer than {MAX_LINE} bytes; {_OBJECT}")
    try:
        values = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LineRefused(f"it is no JSON ({error}); {_OBJECT}") from None
    if not isinstance(values, dict):
        raise LineRefused(f"it is no JSON object; {_OBJECT}")
    return values


def _name(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError("write text")  # noqa: TRY004 — as every other fault of a line
    if reason := why_name_refused(value):
        raise ValueError(reason)
    return stored_name(value)


def _verified(value: Any) -> bool:
    if value is None:
        return False
    if not isinstance(value, bool):
        raise ValueError("write true or false")  # noqa: TRY004 — as above
    return value
