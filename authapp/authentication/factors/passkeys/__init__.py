"""Passkeys (WebAuthn Level 3): the relying party, the JSON forms, the verification."""
