"""Known devices: browsers that an account recognises by a device token in a cookie."""

from collections.abc import Sequence

from authapp.accounts.emails import Email
from authapp.crypto.tokens import DeviceToken, DeviceTokens

MAX_DEVICES = 4  # accounts that one browser can be known to, for people who share it
MAX_SENT = 16  # device tokens of one request that are examined; a browser may send several cookies


class KnownDevices:
    """Issues device tokens and matches them with accounts; stores nothing."""

    def __init__(self, tokens: DeviceTokens) -> None:
        self._tokens = tokens

    def match_device(self, email: Email, sent: Sequence[str]) -> DeviceToken | None:
        """Finds the token by which this account knows the browser, among those it sent."""
        checked = (self._tokens.check(text, email.canonical) for text in sent[:MAX_SENT])
        return next((device for device in checked if device), None)

    def issue_device_token(self, email: Email, epoch: int, sent: Sequence[str]) -> tuple[str, ...]:
        """Issues a device token after the password was verified.

        Args:
            epoch: of the verified credentials.
            sent: the device tokens that the browser sent.
        Returns:
            All tokens that the browser sends from now on: the new one, then those of other accounts
            that share the browser.
        """
        others = [t for t in sent[:MAX_SENT] if not self._tokens.check(t, email.canonical)]
        issued = self._tokens.mint(email.canonical, epoch)
        return (issued.text, *others[: MAX_DEVICES - 1])
