"""Tokens in cookies are checked once for each header that a browser sends again."""

from typing import Any

import pytest

from authapp.crypto.tokens import SessionTokens
from authapp.errors import TooManyTokens
from authapp.web.request_credentials import MAX_TOKENS, Authenticator

NAME = "SESSION-TOKEN"
TOKENS = SessionTokens(["a" * 32])
NONE: Any = None


@pytest.fixture
def authenticator() -> Authenticator:
    return Authenticator(NONE, TOKENS, NONE, NAME)


def header(*texts: str, beside: str = "theme=dark") -> str:
    return "; ".join([*(f"{NAME}={text}" for text in texts), beside])


def test_a_header_that_comes_again_says_the_same(authenticator: Authenticator) -> None:
    one, two = TOKENS.mint(), TOKENS.mint()
    for sent, found in (
        (header(one.text), (one,)),
        (header(two.text), (two,)),
        (header(one.text, two.text), (one, two)),
        (header(two.text, one.text), (two, one)),
        (header(one.text, "forged"), (one,)),
        (header(one.text[::-1]), ()),
        (header(one.text).lower(), ()),
        (header(one.text) + f",{NAME}=x", ()),
        ("", ()),
    ):
        for _ in range(2):
            assert authenticator.read(sent) == found, sent
    assert authenticator.read(header(one.text)) is authenticator.read(header(one.text))


def test_few_headers_are_kept_and_none_without_a_token_of_ours(
    authenticator: Authenticator,
) -> None:
    for number in range(300):
        minted = TOKENS.mint()
        assert authenticator.read(header(minted.text)) == (minted,)
        assert authenticator.read(header(minted.text[::-1], beside=f"n={number}")) == ()
        assert 0 < len(authenticator._read) <= 128
    assert all(authenticator._read.values())


def test_a_long_header_is_not_kept(authenticator: Authenticator) -> None:
    minted = TOKENS.mint()
    assert authenticator.read(header(minted.text, beside="n=" + "x" * 5_000)) == (minted,)
    assert not authenticator._read


def test_too_many_are_refused_each_time(authenticator: Authenticator) -> None:
    sent = header(*(TOKENS.mint().text for _ in range(MAX_TOKENS + 1)))
    for _ in range(2):
        with pytest.raises(TooManyTokens):
            authenticator.read(sent)
