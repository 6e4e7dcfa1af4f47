"""Password policy: good passwords are taken, bad ones are refused with the reason."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from authapp.passwords.block_list import BlockList
from authapp.passwords.policy import (
    MAX_CODE_POINTS,
    MAX_TYPED,
    PasswordPolicy,
)
from tests.support.people import PASSWORD

MIN_LENGTH = 15
CONTEXT = ("ada.lovelace@example.org", "Ada Augusta King")
why_refused = PasswordPolicy(MIN_LENGTH, BlockList(), "Nimbus Notes").why_refused


def test_a_password_that_is_long_before_it_is_normalised_is_refused_by_its_length() -> None:
    fits = "\u1f82" * MAX_CODE_POINTS
    apart = unicodedata.normalize("NFD", fits)
    assert len(apart) == MAX_TYPED
    assert "at most" not in str(why_refused(apart))
    assert why_refused(apart + "x") == f"use at most {MAX_CODE_POINTS} characters"


@pytest.mark.parametrize(
    "password",
    [
        PASSWORD,
        "kX9#mQ2vL0pR7tZ",
        "all lower case letters",
        "   blanks are fine   ",
        "ünïcödé ist erlaubt",
        "密码短语由许多汉字组成也可以用的",
        "\N{PILE OF POO}\N{DOG FACE}\N{CAT FACE}\N{ROCKET}\N{TULIP} in a small boat!",
        "nul \0 in the middle of it",
        "long" + "er and l" * 13 + "onger words end",  # 123
        "marble fountain lantern",
        "planning annual trips",
        "my login to the gym is boring",
        "the king likes green tea",
        "a password no augusta would guess",
        "ada8472659013745",
        "ada.correct.horse.battery",
        "a new long password 12345",
        "long-enough-password-1",
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
        ("ada augusta king", "your name"),
        ("AdaAugustaKing" * 2, "your name"),
        ("augusta" * 3, "your name"),
        ("authapp" * 3, 'the word "authapp"'),
        ("authapp-password", 'the word "password" and the word "authapp";'),
        ("Password12345678", 'the word "password" with a few characters added'),
        ("password password1", 'the word "password" with a few characters added'),
        ("p4ssw0rd-p@$$w0rd", 'the word "password"'),
        ("ada.lovelace@example.org1", "your email with a few characters added"),
        ("1985!ada.lovelace@example.org", "your email with a few characters added"),
        ("4d4.l0v3l4c3@3x4mpl3.0rg", "your email;"),
        ("ada_lovelace_2024", "your email with a few characters added"),
        ("Lovelace-Example-2024", "your email with a few characters added"),
        ("AugustaKing1985!", "your name with a few characters added"),
        ("king.king.king.king", "your name;"),
        ("Nimbus Notes 2024!", "the name of this service with a few characters added"),
        ("n1mbusn0t3s2024", "the name of this service with a few characters added"),
        ("king-nimbus-2024", "the name of this service and your name with"),
        ("qwertyuiopasdfgX", "common words"),
        ("x" * 14 + "y", "it repeats the same characters"),
        ("summer2024summer!", "it is made of common words"),
    ],
)
def test_a_bad_password_is_refused_with_the_reason(password: str, reason: str) -> None:
    refused = why_refused(password, *CONTEXT) or "taken"
    assert reason in refused
    assert any(advice in refused for advice in ("a few unrelated words", "use"))


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


@pytest.mark.parametrize("least", [8, 15, 64])
def test_the_shortest_password_is_as_long_as_the_operator_says(least: int) -> None:
    policy = PasswordPolicy(least, BlockList())
    fits = "k7Qw9zXp rivers meet under a copper lantern that drifts north #1"[:least]
    assert policy.why_refused(fits) is None
    assert f"at least {least} characters" in str(policy.why_refused(fits[1:]))
    assert (policy.is_short(fits), policy.is_short(fits[1:])) == (False, True)
