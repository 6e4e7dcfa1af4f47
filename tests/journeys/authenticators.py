"""Virtual authenticators of the browser (Chrome DevTools Protocol, domain WebAuthn)."""

from typing import Any

from playwright.sync_api import CDPSession, Page


class VirtualAuthenticator:
    """The authenticator of a device, as one window sees it. It says yes without asking anybody.

    Args:
        verifies: it can verify the person.
        is_synced: it keeps passkeys on several devices.
    """

    def __init__(self, page: Page, *, verifies: bool = True, is_synced: bool = False) -> None:
        self._devtools: CDPSession = page.context.new_cdp_session(page)
        self._devtools.send("WebAuthn.enable")
        options = {
            "protocol": "ctap2",
            "ctap2Version": "ctap2_1",
            "transport": "internal",
            "hasResidentKey": True,
            "hasUserVerification": verifies,
            "isUserVerified": verifies,
            "automaticPresenceSimulation": True,
            "defaultBackupEligibility": is_synced,
            "defaultBackupState": is_synced,
        }
        added = self._devtools.send("WebAuthn.addVirtualAuthenticator", {"options": options})
        self._id = {"authenticatorId": added["authenticatorId"]}

    @property
    def passkeys(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._devtools.send("WebAuthn.getCredentials", self._id)[
            "credentials"
        ]
        return found

    def keep(self, passkey: dict[str, Any]) -> None:
        """Puts a passkey into it, as another device has it."""
        self._devtools.send("WebAuthn.addCredential", {**self._id, "credential": passkey})

    def forget(self, passkey: dict[str, Any]) -> None:
        self._devtools.send(
            "WebAuthn.removeCredential", {**self._id, "credentialId": passkey["credentialId"]}
        )

    def verify(self, *, succeeds: bool) -> None:
        """Whether it verifies people from now on."""
        self._devtools.send("WebAuthn.setUserVerified", {**self._id, "isUserVerified": succeeds})

    def answer(self, *, at_once: bool) -> None:
        """Whether people touch it as soon as it asks; else never."""
        self._devtools.send(
            "WebAuthn.setAutomaticPresenceSimulation", {**self._id, "enabled": at_once}
        )
