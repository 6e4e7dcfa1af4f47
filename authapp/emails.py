"""The canonical form of an email address: one spelling for each mailbox, made in Python only."""

import unicodedata
from dataclasses import dataclass

from email_validator import EmailNotValidError, validate_email

from authapp.errors import InvalidField
from authapp.visible_text import INVISIBLE

MAX_EMAIL = 320  # characters as typed: 64 before the @ and 255 after it (RFC 5321, 4.5.3.1)
_ADVICE = "enter an email address like name@example.org"


@dataclass(frozen=True, slots=True)
class Email:
    """An address in two forms.

    Attributes:
        stored: as the person wrote it, domain normalized; mail goes only here.
        canonical: equal for all spellings of one address; unique in Postgres. Never made by SQL
            `lower`, which disagrees with Python (`İ`).
    """

    stored: str
    canonical: str


def parse_email(text: str) -> Email:
    """Reads an address.

    Raises:
        InvalidField: for `email`, when it is not an address mail could go to.
    """
    if len(text) > MAX_EMAIL:  # first: what follows takes longer than the text grows
        raise InvalidField({"email": f"use at most {MAX_EMAIL} characters"})
    try:
        # test_environment admits the reserved domain .test (RFC 6761), which trials use
        valid = validate_email(text.strip(), check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        raise InvalidField({"email": _ADVICE}) from None
    local = _fold(valid.local_part)
    if not local.isprintable() or "@" in local or " " in local or INVISIBLE.search(local):
        raise InvalidField({"email": _ADVICE})
    return Email(stored=valid.normalized, canonical=f"{local}@{valid.ascii_domain.lower()}")


def _fold(local: str) -> str:
    # Unicode 3.13, D146: NFKC and case folding until nothing moves; full-width letters meet plain
    folded = unicodedata.normalize("NFKC", local)
    while (again := unicodedata.normalize("NFKC", folded.casefold())) != folded:
        folded = again
    return folded
