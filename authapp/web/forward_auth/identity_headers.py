"""The headers that name a person to the guarded app: UTF-8, and nothing that ends a header.

Every answer carries all of them, empty where nobody is known: what a proxy copies then replaces
whatever the client sent under these names.
"""

import re
from typing import Final

from authapp.accounts.assurance import level_of
from authapp.sessions.records import SessionRecord

Headers = list[tuple[str, str]]

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")

NAMES: Final = (
    "Remote-User",
    "Remote-Email",
    "Remote-Name",
    "Remote-Groups",
    "Remote-Amr",
    "Remote-Auth-Time",
    "Remote-Assurance-Level",
    "Remote-Assertion",
)
NOBODY: Final[Headers] = [(name, "") for name in NAMES]


def identity_headers(session: SessionRecord, email: str) -> Headers:
    """The headers of a person and of the session that they are in, without an assertion, whose
    header is the last one."""
    person = session.user
    values = (
        str(person.id),
        _header_text(email),
        _header_text(person.name),
        # a name with a comma would be read as two
        _header_text(",".join(r for r in person.roles if "," not in r)),
        _header_text(",".join(session.amr)),
        str(int(session.auth_time.timestamp())),
        str(level_of(session.amr)),
        "",
    )
    return list(zip(NAMES, values, strict=True))


def _header_text(value: str) -> str:
    """As WSGI has it: bytes as Latin-1."""
    if value.isascii() and value.isprintable():
        return value
    return _CONTROLS.sub(" ", value).strip().encode("utf-8", "replace").decode("latin-1")
