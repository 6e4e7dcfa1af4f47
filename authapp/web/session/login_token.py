"""The log-in of this browser that waits for a second factor, kept sealed in `flask.session`."""

import base64
import binascii
from dataclasses import dataclass, field
from typing import Final

import msgspec
from flask import current_app, session

from authapp.crypto.sealing import Sealer
from authapp.errors import SecondFactorRequired

KEY: Final = "_login_token"


@dataclass(frozen=True, slots=True)
class KeptLogin:
    """A log-in that waits.

    Attributes:
        methods: by which the person can go on.
        enrols: the person must set up a factor first.
    """

    token: str = field(repr=False)
    methods: tuple[str, ...]
    enrols: bool


def keep(waiting: SecondFactorRequired) -> None:
    """Keeps a log-in for the page that asks for the factor.

    It is sealed, because the session of somebody who is signed in is kept in the stores, where no
    token that can be used ever is.
    """
    kept = (waiting.login_token, waiting.methods, waiting.enrols)
    sealed = _sealer().seal(KEY, msgspec.msgpack.encode(kept))
    session[KEY] = base64.urlsafe_b64encode(sealed).decode()


def kept() -> KeptLogin | None:
    """The log-in that waits; None: there is none."""
    try:
        sealed = base64.urlsafe_b64decode(session.get(KEY, ""))
    except (binascii.Error, TypeError, ValueError):
        return None
    opened = _sealer().open(KEY, sealed)
    if opened is None:
        return None
    return KeptLogin(*msgspec.msgpack.decode(opened, type=tuple[str, tuple[str, ...], bool]))


def drop() -> None:
    """Forgets the log-in that waits."""
    session.pop(KEY, None)


def _sealer() -> Sealer:
    config = current_app.config
    return Sealer([config["SECRET_KEY"], *config["SECRET_KEY_FALLBACKS"]], "login tokens kept")
