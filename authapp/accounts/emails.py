"""The canonical form of an email address: one spelling for each mailbox, made in Python only."""

import unicodedata
from collections.abc import Callable, Collection
from dataclasses import dataclass

from email_validator import EmailNotValidError, ValidatedEmail, validate_email

from authapp.accounts.visible_text import INVISIBLE
from authapp.errors import InvalidField

MAX_EMAIL = 320  # characters as typed: 64 before the @ and 255 after it (RFC 5321, 4.5.3.1)
# The library refuses domains like `local`, and can't be told otherwise. Below this one it judges
# all by their spelling alone.
_BELOW = ".test"
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


ParseEmail = Callable[[str], Email]  # `parse_email` with the domains of this app


def parse_email(text: str, local_domains: Collection[str] = ()) -> Email:
    """Reads an address.

    Args:
        local_domains: of an intranet, whose addresses are taken though no mail from elsewhere could
            go there; as `Config` reads them.
    Raises:
        InvalidField: for `email`, when it is not an address mail could go to.
    """
    if len(text) > MAX_EMAIL:  # first: what follows takes longer than the text grows
        raise InvalidField({"email": f"use at most {MAX_EMAIL} characters"})
    valid = _validated(text.strip())
    below = ""
    if valid is None and local_domains:
        valid, below = _validated(text.strip() + _BELOW), _BELOW
    if valid is None:
        raise InvalidField({"email": _ADVICE})
    domain = valid.ascii_domain.lower().removesuffix(below)
    if below and domain not in local_domains:
        raise InvalidField({"email": _ADVICE})
    local = _fold(valid.local_part)
    if not local.isprintable() or "@" in local or " " in local or INVISIBLE.search(local):
        raise InvalidField({"email": _ADVICE})
    return Email(valid.normalized.removesuffix(below), f"{local}@{domain}")


def _validated(text: str) -> ValidatedEmail | None:
    try:
        # test_environment admits the reserved domain .test (RFC 6761), which trials use
        return validate_email(text, check_deliverability=False, test_environment=True)
    except EmailNotValidError:
        return None


def _fold(local: str) -> str:
    # Unicode 3.13, D146: NFKC and case folding until nothing moves; full-width letters meet plain
    folded = unicodedata.normalize("NFKC", local)
    while (again := unicodedata.normalize("NFKC", folded.casefold())) != folded:
        folded = again
    return folded
