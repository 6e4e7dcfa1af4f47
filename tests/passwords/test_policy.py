"""Password policy: good passwords are taken, bad ones are refused with the reason."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from authapp.passwords.policy import (
    MAX_CODE_POINTS,
    MAX_TYPED,
    PasswordPolicy,
)
from tests.support.people import PASSWORD

MIN_LENGTH = 15
CONTEXT = ("ada.lovelace@example.org", "Ada Augusta King")
why_refused = PasswordPolicy(MIN_LENGTH).why_refused


def test_a_password_that_is_long_before_it_is_normalised_is_refused_by_its_length() -> None:
    fits = "\u1f82" * MAX_CODE_POINTS
    apart = unicodedata.normalize("NFD", fits)
    assert len(apart) == MAX_TYPED
    assert why_refused(apart) is None or "characters" not in str(why_refused(apart))
    assert why_refused(apart + "x") == f"use at most {MAX_CODE_POINTS} characters"


@pytest.mark.parametrize(
    "password",
    [
        PASSWORD,
        "x" * 14 + "y",
        "all lower case letters",
        "   blanks are fine   ",
        "ünïcödé ist erlaubt",
        "密码短语由许多汉字组成也可以用的",
        "\N{PILE OF POO}\N{DOG FACE}" * 7 + "!",
        "nul \0 in the middle of it",
        "long" + "er and l" * 15 + "onge",  # 128
        "qwertyuiopasdfgX",
    ],
)
def test_a_good_password_is_taken(password: str) -> None:
    assert why_refused(password, *CONTEXT) is None


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", f"at least {MIN_LENGTH}"),
        ("Tr0ub4dor&3", f"at least {MIN_LENGTH}"),
        ("x" * 13 + "y", f"at least {MIN_LENGTH}"),
        ("\N{PILE OF POO}" * 7 + "e\u0301" * 7, f"at least {MIN_LENGTH}"),  # 14 after NFC
        ("x" + "y" * MAX_CODE_POINTS, f"at most {MAX_CODE_POINTS}"),
        ("x" + "y" * 1_000_000, f"at most {MAX_CODE_POINTS}"),
        ("lone surrogate \ud800", "can't be stored"),
        ("a" * 15, "first passwords"),
        (" " * 15, "first passwords"),
        ("passwordpassword", "first passwords"),
        ("PASSWORDpassword", "first passwords"),
        ("ｐａｓｓｗｏｒｄ" * 2, "first passwords"),
        ("monkey" * 3, "first passwords"),
        ("123456789012345", "neighbouring keys"),
        ("543210987654321", "neighbouring keys"),
        ("abcdefghijklmnop", "neighbouring keys"),
        ("qwertyuiopasdfgh", "neighbouring keys"),
        ("lkjhgfdsapoiuyt", "neighbouring keys"),
        ("ada.lovelace@example.org", "your email"),
        ("Ada.Lovelace@Example.org", "your email"),
        ("ada.lovelaceada.lovelace", "your email"),
        ("ada augusta king", "your email"),
        ("AdaAugustaKing" * 2, "your email"),
        ("augusta" * 3, "your email"),
        ("authapp" * 3, "name of this service"),
    ],
)
def test_a_bad_password_is_refused_with_the_reason(password: str, reason: str) -> None:
    assert reason in (why_refused(password, *CONTEXT) or "taken")


@pytest.mark.parametrize("password", ["ａｄａlove@example.org", "adalove@example.org"])
@pytest.mark.parametrize("email", ["ａｄａlove@example.org", "adalove@example.org"])
def test_full_width_letters_hide_no_email(password: str, email: str) -> None:
    assert "your email" in (why_refused(password, email) or "taken")


def test_common_passwords_that_are_long_enough_are_refused() -> None:
    long = [p for p in FREQUENCY_LISTS["passwords"] if len(p) >= MIN_LENGTH]
    assert len(long) > 20
    assert [password for password in long if why_refused(password) is None] == []


@given(st.text(max_size=200))
def test_every_password_gets_an_answer(password: str) -> None:
    why_refused(password, *CONTEXT)
