"""Known devices: browsers that an account recognises by a device token in a cookie."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from authapp.accounts.emails import Email
from authapp.crypto.tokens import DeviceToken, DeviceTokens, DeviceTrust

MAX_DEVICES = 4  # accounts that one browser can be known to, for people who share it
MAX_SENT = 16  # device tokens of one request that are examined; a browser may send several cookies


class KnownDevices:
    """Issues device tokens and matches them with accounts; stores nothing.

    Args:
        trust_lasts: how long a browser needs no second factor.
    """

    def __init__(
        self, tokens: DeviceTokens, clock: Callable[[], datetime], trust_lasts: timedelta
    ) -> None:
        self._tokens = tokens
        self._clock = clock
        self._trust_lasts = trust_lasts

    def new_trust(self, factors_version: int) -> DeviceTrust:
        """Trust in a browser from now on, until the factors of the person change."""
        return DeviceTrust(factors_version, int((self._clock() + self._trust_lasts).timestamp()))

    def trust_in(self, device: DeviceToken | None, epoch: int) -> DeviceTrust | None:
        """Why the browser needs no second factor; None: it does.

        Args:
            epoch: of the credentials that were verified. A new password ends the trust.
        """
        if device is None or device.trust is None or device.epoch != epoch:
            return None
        return device.trust if device.trust.until > self._clock().timestamp() else None

    def match_device(self, email: Email, sent: Sequence[str]) -> DeviceToken | None:
        """Finds the token by which this account knows the browser, among those it sent."""
        checked = (self._tokens.check(text, email.canonical) for text in sent[:MAX_SENT])
        return next((device for device in checked if device), None)

    def issue_device_token(
        self, email: Email, epoch: int, sent: Sequence[str], trust: DeviceTrust | None = None
    ) -> tuple[str, ...]:
        """Issues a device token after the password was verified.

        Args:
            epoch: of the verified credentials.
            sent: the device tokens that the browser sent.
            trust: what the browser is trusted for.
        Returns:
            All tokens that the browser sends from now on: the new one, then those of other accounts
            that share the browser.
        """
        others = [t for t in sent[:MAX_SENT] if not self._tokens.check(t, email.canonical)]
        issued = self._tokens.mint(email.canonical, epoch, trust)
        return (issued.text, *others[: MAX_DEVICES - 1])
