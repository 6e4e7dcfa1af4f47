"""Builds what passkeys need from the settings: the relying party, or why there is none."""

from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec

from authapp.authentication.factors.passkeys.check import PasskeyCheck
from authapp.authentication.factors.passkeys.relying_party import (
    NoRelyingParty,
    RelyingParty,
    relying_party,
)
from authapp.authentication.factors.passkeys.rows import PasskeyRows
from authapp.authentication.factors.passkeys.verification import Ceremonies
from authapp.config import Config
from authapp.crypto.tokens import Challenges


def relying_party_of(config: Config) -> RelyingParty:
    """
    Raises:
        NoRelyingParty: there are no passkeys here.
    """
    if find_spec("webauthn") is None:
        raise NoRelyingParty("the library is not installed; run `pip install 'authapp[factors]'`")
    return relying_party(
        config.PUBLIC_URL,
        config.BRAND_NAME,
        cookie_domain=config.SESSION_COOKIE_DOMAIN,
        trusted=config.TRUSTED_ORIGINS,
    )


def build_passkey_check(
    config: Config, rows: PasskeyRows, clock: Callable[[], datetime]
) -> PasskeyCheck:
    try:
        party = relying_party_of(config)
    except NoRelyingParty as error:
        return PasskeyCheck(None, str(error), rows, clock)
    import_module("webauthn")  # now, and not within the transaction of the first log-in: 0.2 s
    ceremonies = Ceremonies(party, Challenges(config.SECRET_KEY, clock))
    return PasskeyCheck(ceremonies, "", rows, clock)
