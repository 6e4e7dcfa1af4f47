"""Authenticator apps: secrets and codes that follow the time (TOTP, RFC 6238).

No store is used here. PyOTP and segno are imported where they are used, because they come with the
extra `factors`.
"""

import hmac
import re
from datetime import datetime, timedelta
from typing import Final

from authapp.errors import FactorsOff

STEP: Final = 30  # seconds that a code is shown
SET_UP_LASTS: Final = timedelta(minutes=30)  # how long a new secret waits for its first code
_DRIFT: Final = 1  # steps that the clock of a phone may be off (RFC 6238, 5.2)
_SECRET_CHARACTERS: Final = 32  # of base32: 160 bits (RFC 4226, 4)
# `\d`, `int` and PyOTP take digits of other scripts, and PyOTP takes numbers, too
_is_code = re.compile(r"[0-9]{6}").fullmatch


def require_library() -> None:
    """
    Raises:
        FactorsOff: the extra is not installed.
    """
    try:
        import pyotp  # noqa: F401, PLC0415
        import segno  # noqa: F401, PLC0415
    except ImportError:
        raise FactorsOff("install authapp[factors]") from None


def new_secret() -> str:
    """A secret as people type it: base32.

    Raises:
        FactorsOff
    """
    require_library()
    import pyotp  # noqa: PLC0415

    return pyotp.random_base32(_SECRET_CHARACTERS)


def step_at(moment: datetime) -> int:
    """The number of the time step of a moment."""
    return int(moment.timestamp()) // STEP


def matching_step(secret: str, code: str, now: datetime, after: int) -> int | None:
    """The time step whose code this is, among those that count now.

    Args:
        after: the step of the last code that was accepted; only later ones count (RFC 6238, 5.2).
    Raises:
        FactorsOff
    """
    require_library()
    import pyotp  # noqa: PLC0415

    if _is_code(code) is None:
        return None
    codes = pyotp.TOTP(secret)
    present = step_at(now)
    for step in range(present - _DRIFT, present + _DRIFT + 1):
        if step > after and hmac.compare_digest(codes.generate_otp(step), code):
            return step
    return None


def otpauth_uri(secret: str, email: str, issuer: str) -> str:
    """The address that authenticator apps read from the QR code.

    Raises:
        FactorsOff
    """
    require_library()
    import pyotp  # noqa: PLC0415

    return pyotp.TOTP(secret).provisioning_uri(name=email, issuer_name=issuer)


def qr_code(text: str) -> str:
    """The text as a QR code: an SVG element for a page, without any style or script.

    Raises:
        FactorsOff
    """
    require_library()
    import segno  # noqa: PLC0415

    return str(
        segno.make(text, error="m", micro=False).svg_inline(
            scale=1, border=4, omitsize=True, dark="#000", light="#fff", svgclass="qr-code"
        )
    )
