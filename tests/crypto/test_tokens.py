"""Session tokens: nobody else makes one, and each has one spelling."""

import base64
import secrets
import string
from collections.abc import Callable
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authapp.crypto.tokens import DeviceTokens, RefreshTokens, SessionTokens

KEY, OLD_KEY, OTHER_KEY = "a" * 32, "b" * 32, "c" * 32
TOKENS = SessionTokens([KEY])
MINTED = TOKENS.mint()


def test_a_minted_token_verifies() -> None:
    assert TOKENS.check(MINTED.text) == MINTED
    assert len(MINTED.digest) == 32


def test_tokens_are_unique_and_fit_a_cookie() -> None:
    texts = {TOKENS.mint().text for _ in range(1000)}
    assert len(texts) == 1000
    safe = set(string.ascii_letters + string.digits + "-_")
    assert all(len(text) == 64 and set(text) <= safe for text in texts)


def test_each_token_is_256_bits_of_the_system_s_randomness(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[bytes] = []

    def urandom(size: int) -> bytes:
        drawn.append(secrets.token_bytes(size))
        return drawn[-1]

    monkeypatch.setattr("os.urandom", urandom)
    bodies = [base64.urlsafe_b64decode(TOKENS.mint().text)[:32] for _ in range(3)]
    assert bodies == drawn


def test_the_token_is_not_shown_and_is_not_in_its_digest() -> None:
    assert MINTED.text not in repr(MINTED)
    raw = base64.urlsafe_b64decode(MINTED.text)
    assert not {raw[i : i + 8] for i in range(41)} & {MINTED.digest[i : i + 8] for i in range(25)}


@given(st.integers(0, 47), st.integers(1, 255))
def test_no_changed_byte_verifies(at: int, change: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(MINTED.text))
    raw[at] ^= change
    assert TOKENS.check(base64.urlsafe_b64encode(raw).decode()) is None


@given(st.data(), st.integers(0, 63), st.characters())
def test_no_changed_character_verifies(data: st.DataObject, at: int, character: str) -> None:
    minted = TOKENS.mint()
    changed = minted.text[:at] + character + minted.text[at + 1 :]
    assert changed == minted.text or TOKENS.check(changed) is None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-1],
        lambda text: text + "A",
        lambda text: text + "=",
        lambda text: text + "\n",
        lambda text: " " + text,
        lambda text: text.swapcase(),
        lambda text: text[:-4] + "====",
        lambda text: text[:-1] + "=",
        lambda text: text[:-1] + "é",
        lambda text: text[:-1] + "\0",
        lambda text: text[:-1] + "\ud800",
    ],
)
def test_a_spoilt_token_is_refused(spoil: Callable[[str], str]) -> None:
    assert TOKENS.check(spoil(MINTED.text)) is None


@pytest.mark.parametrize("text", ["", "A" * 64, "=" * 64, "é" * 64, "A" * 10_000], ids=repr)
def test_anything_else_is_refused(text: str) -> None:
    assert TOKENS.check(text) is None


@given(st.text())
def test_no_text_makes_it_fail(text: str) -> None:
    assert TOKENS.check(text) is None


def test_a_token_survives_rotation_until_its_key_is_retired() -> None:
    old = SessionTokens([OLD_KEY]).mint()
    both = SessionTokens([KEY, OLD_KEY])
    assert both.check(old.text) == old  # the digest too, or the session would not be found
    assert TOKENS.check(both.mint().text)
    assert TOKENS.check(old.text) is None
    assert SessionTokens([OTHER_KEY]).check(old.text) is None


@pytest.mark.parametrize(("ours", "theirs"), [("-", "+"), ("_", "/")])
def test_the_other_base64_alphabet_is_refused(ours: str, theirs: str) -> None:
    """One spelling each, so that what is told apart by its text is told apart."""
    minted = TOKENS.mint()
    while ours not in minted.text:
        minted = TOKENS.mint()
    assert TOKENS.check(minted.text.replace(ours, theirs)) is None


# -- of devices ------------------------------------------------------------------------------------

DEVICES = DeviceTokens([KEY])


def test_a_device_token_counts_for_its_account_only() -> None:
    minted = DEVICES.mint("ada@example.org", 7)
    assert DEVICES.check(minted.text, "ada@example.org") == minted
    assert minted.epoch == 7
    for email in ("bob@example.org", "", "ada@example.orgx", "da@example.org"):
        assert DEVICES.check(minted.text, email) is None


def test_a_device_token_survives_rotation_until_its_key_is_retired() -> None:
    minted = DEVICES.mint("ada@example.org", 1)
    assert DeviceTokens([OTHER_KEY, KEY]).check(minted.text, "ada@example.org") == minted
    assert DeviceTokens([OTHER_KEY]).check(minted.text, "ada@example.org") is None


def test_no_kind_of_token_is_another() -> None:
    kinds = [TOKENS.mint().text, DEVICES.mint("", 1).text, RefreshTokens([KEY]).mint(uuid4()).text]
    checks = [TOKENS.check, lambda text: DEVICES.check(text, ""), RefreshTokens([KEY]).check]
    for number, text in enumerate(kinds):
        assert [bool(check(text)) for check in checks] == [n == number for n in range(3)]
