"""base64url without padding (RFC 4648, 5), which has one spelling of each value here."""

import base64
import binascii


def to_base64url(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode("ascii")


def from_base64url(text: str) -> bytes:
    """
    Raises:
        ValueError: another spelling.
    """
    padded = text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)
    value = binascii.a2b_base64(padded, strict_mode=True)
    if to_base64url(value) != text:
        raise ValueError("not base64url")
    return value
