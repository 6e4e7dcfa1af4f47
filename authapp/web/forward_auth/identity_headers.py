"""The headers that name a person to the guarded app: UTF-8, and nothing that ends a header.

Every answer carries all of them, empty where nobody is known: what a proxy copies then replaces
whatever the client sent under these names.
"""

import re

from authapp.accounts.identity import Identity

Headers = list[tuple[str, str]]

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f]+")

_NAMES = ("Remote-User", "Remote-Email", "Remote-Name", "Remote-Groups", "Remote-Assertion")
NOBODY: Headers = [(name, "") for name in _NAMES]


def identity_headers(person: Identity, email: str) -> Headers:
    """The headers of a person, without an assertion, whose header is the last one."""
    return [
        ("Remote-User", str(person.id)),
        ("Remote-Email", _header_text(email)),
        ("Remote-Name", _header_text(person.name)),
        # a name with a comma would be read as two
        ("Remote-Groups", _header_text(",".join(r for r in person.roles if "," not in r))),
        ("Remote-Assertion", ""),
    ]


def _header_text(value: str) -> str:
    """As WSGI has it: bytes as Latin-1."""
    if value.isascii() and value.isprintable():
        return value
    return _CONTROLS.sub(" ", value).strip().encode("utf-8", "replace").decode("latin-1")
