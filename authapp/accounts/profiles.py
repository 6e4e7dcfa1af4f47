"""Profiles: the name of a person and the address of their picture."""

import unicodedata
from urllib.parse import urlsplit

from authapp.accounts.visible_text import is_visible
from authapp.errors import InvalidField

MAX_NAME = 100  # characters
MAX_IMAGE = 2048  # characters

_CONTROLS = {"Cc", "Zl", "Zp"}  # categories; the last two separate lines and paragraphs
_PASTED = "\t\r\n"  # blanks of a text that a name was copied from; one blank is stored


def validate_profile(name: str | None, image: str | None) -> str | None:
    """The name as it is stored, when both can be taken.

    Raises:
        InvalidField: all that is wrong, by field.
    """
    errors = {"name": why_name_refused(name or ""), "image": why_image_refused(image or "")}
    if refused := {field: reason for field, reason in errors.items() if reason}:
        raise InvalidField(refused)
    return None if name is None else stored_name(name)


def stored_name(name: str) -> str:
    """A name with single blanks."""
    return " ".join(name.split())


def why_name_refused(name: str) -> str | None:
    """The reason a name can't be taken, written for the person; None when it can.

    Args:
        name: as it was given, with the blanks that are not stored.
    """
    if len(name) > MAX_NAME:
        return f"use at most {MAX_NAME} characters"
    has_controls = any(unicodedata.category(c) in _CONTROLS for c in name if c not in _PASTED)
    if has_controls or not is_visible(stored_name(name)):
        return "use letters that can be shown"
    return None


def why_image_refused(image: str) -> str | None:
    """The reason an image's address can't be taken, written for the person; None when it can."""
    if not image:
        return None
    if len(image) > MAX_IMAGE:
        return f"use at most {MAX_IMAGE} characters"
    try:
        parts = urlsplit(image)
        # a name or password in it would be shown to everyone who loads the picture
        whole = parts.scheme == "https" and parts.hostname and "@" not in parts.netloc
        whole = whole and parts.port != 0
    except ValueError:  # the port is no number
        whole = False
    if not whole or not image.isprintable() or not is_visible(image) or " " in image:
        return "enter a whole link, like https://example.org/me.jpg"
    return None
