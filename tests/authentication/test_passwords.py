"""Passwords: hashed whole, compared exactly, refused with a reason."""

import unicodedata
from uuid import uuid4

import bcrypt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from authapp.authentication.hashing_queue import HashingQueue
from authapp.authentication.password_hashing import PasswordHasher, Verdict
from authapp.authentication.passwords import (
    MAX_CODE_POINTS,
    MAX_TYPED,
    MIN_CODE_POINTS,
    why_refused,
)
from tests.support.hashing import hashing
from tests.support.people import PASSWORD

PEPPER, OLD_PEPPER = "a pepper of thirty-two bytes, ok", "the pepper before, as long as it"
ROUNDS = 4
QUEUE = HashingQueue(4)
HASHER = PasswordHasher([PEPPER], ROUNDS, QUEUE)
RETIRED = PasswordHasher([OLD_PEPPER], ROUNDS, QUEUE)
ACCOUNT = uuid4()


def compare(hasher: PasswordHasher, password: str, stored: str) -> Verdict:
    return hasher.verify(password, stored, ACCOUNT).verdict


def verify(password: str, stored: str) -> tuple[Verdict, list[int]]:
    with hashing() as costs:
        return compare(HASHER, password, stored), costs


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
        "x" * 72 + "y",
        "ä" * 128,
        "\N{PILE OF POO}" * 128,
        "nul \0 in the middle of it",
        "\0" * 20,
        " leading and trailing blanks ",
        "",
    ],
)
def test_the_whole_password_counts(password: str) -> None:
    stored = HASHER.hash(password)
    assert compare(HASHER, password, stored) is Verdict.MATCH
    for other in (password + "\0", password + "x", password[:-1] + "?", password.swapcase() + "!"):
        assert compare(HASHER, other, stored) is Verdict.MISMATCH


@settings(max_examples=40)
@given(st.text(), st.text())
@example("x" * 72, "x" * 73)
@example("before\0after", "before\0other")
@example("e\u0301", "é")
@example("\ud800", "?")
def test_only_the_same_characters_match(one: str, other: str) -> None:
    same = unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)
    verdict = compare(HASHER, other, HASHER.hash(one))
    assert verdict is (Verdict.MATCH if same else Verdict.MISMATCH)


@settings(max_examples=40)
@given(st.text())
def test_composed_and_decomposed_spellings_are_one(password: str) -> None:
    stored = HASHER.hash(unicodedata.normalize("NFC", password))
    assert compare(HASHER, unicodedata.normalize("NFD", password), stored) is Verdict.MATCH


def test_a_stored_hash_is_no_bare_bcrypt() -> None:
    _, _, hashed = HASHER.hash(PASSWORD).partition(":")
    assert not bcrypt.checkpw(PASSWORD.encode(), hashed.encode())
    assert HASHER.hash(PASSWORD) != HASHER.hash(PASSWORD)


NAME = HASHER.hash(PASSWORD).partition(":")[0]


@pytest.mark.parametrize(
    "stored",
    [
        "",
        "x",
        ":",
        f"{NAME}:",
        f"{NAME}:x",
        f"{NAME}:$2b$04$",
        f"{NAME}:$2b$99${'a' * 53}",
        f"{NAME}:$2b$04${'é' * 53}",
        f"{NAME}:$2b$04${'a' * 52}",
        f"{NAME}:$2b$04$\0{'a' * 52}",
        f"{NAME}:$argon2id$v=19$m=65536,t=3,p=4$c2FsdA$aGFzaA",
        pytest.param(
            PasswordHasher([OLD_PEPPER], ROUNDS, QUEUE).hash(PASSWORD), id="retired pepper"
        ),
        pytest.param(HASHER.hash("something else entirely"), id="other password"),
    ],
)
def test_a_hash_that_cannot_match_is_a_mismatch_of_equal_cost(stored: str) -> None:
    assert verify(PASSWORD, stored) == (Verdict.MISMATCH, [ROUNDS])


def test_a_hash_with_a_tampered_end_is_a_mismatch() -> None:
    stored = HASHER.hash(PASSWORD)
    other = "A" if stored[-5] != "A" else "B"
    assert verify(PASSWORD, stored[:-5] + other + stored[-4:]) == (Verdict.MISMATCH, [ROUNDS])


@pytest.mark.parametrize("rounds", [4, 5, 10])
def test_the_dummy_costs_as_much_as_the_real_one(rounds: int) -> None:
    hasher = PasswordHasher([PEPPER], rounds, QUEUE)
    stored = hasher.hash(PASSWORD)
    with hashing() as costs:
        hasher.verify_dummy(PASSWORD)
        hasher.verify("wrong", stored, ACCOUNT)
    assert costs == [rounds, rounds]


@pytest.mark.parametrize(
    "password", [PASSWORD, "", "\0", "x" * 100_000, "\ud800", "authapp", "xxxxxxxxxxxxxxx"]
)
def test_nothing_matches_the_dummy_and_nothing_makes_it_fail(password: str) -> None:
    dummy = f"{NAME}:{HASHER._dummy}"
    assert verify(password, dummy) == (Verdict.MISMATCH, [ROUNDS])
    with hashing() as costs:
        HASHER.verify_dummy(password)
    assert costs == [ROUNDS]


@pytest.mark.parametrize(
    ("peppers", "rounds", "verdict"),
    [
        ([PEPPER], ROUNDS, Verdict.MATCH),
        ([PEPPER, OLD_PEPPER], ROUNDS, Verdict.MATCH),
        ([PEPPER], 5, Verdict.MATCH_REHASH),
        ([OLD_PEPPER, PEPPER], ROUNDS, Verdict.MATCH_REHASH),
        ([OLD_PEPPER], ROUNDS, Verdict.MISMATCH),
    ],
)
def test_a_hash_made_under_other_settings(
    peppers: list[str], rounds: int, verdict: Verdict
) -> None:
    stored = HASHER.hash(PASSWORD)
    later = PasswordHasher(peppers, rounds, QUEUE)
    assert compare(later, PASSWORD, stored) is verdict
    assert compare(later, "wrong", stored) is Verdict.MISMATCH


# -- policy ------------------------------------------------------------------------------------

CONTEXT = ("ada.lovelace@example.org", "Ada Augusta King")


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
    assert why_refused(password, CONTEXT) is None


@pytest.mark.parametrize(
    ("password", "reason"),
    [
        ("", f"at least {MIN_CODE_POINTS}"),
        ("Tr0ub4dor&3", f"at least {MIN_CODE_POINTS}"),
        ("x" * 13 + "y", f"at least {MIN_CODE_POINTS}"),
        ("\N{PILE OF POO}" * 7 + "e\u0301" * 7, f"at least {MIN_CODE_POINTS}"),  # 14 after NFC
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
    assert reason in (why_refused(password, CONTEXT) or "taken")


@pytest.mark.parametrize("password", ["ａｄａlove@example.org", "adalove@example.org"])
@pytest.mark.parametrize("email", ["ａｄａlove@example.org", "adalove@example.org"])
def test_full_width_letters_hide_no_email(password: str, email: str) -> None:
    assert "your email" in (why_refused(password, (email,)) or "taken")


def test_common_passwords_that_are_long_enough_are_refused() -> None:
    long = [p for p in FREQUENCY_LISTS["passwords"] if len(p) >= MIN_CODE_POINTS]
    assert len(long) > 20
    assert [password for password in long if why_refused(password) is None] == []


@given(st.text(max_size=200))
def test_every_password_gets_an_answer(password: str) -> None:
    why_refused(password, CONTEXT)


@settings(max_examples=20)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=15, max_size=128))
def test_what_is_taken_can_be_used(password: str) -> None:
    if why_refused(password) is None:
        assert compare(HASHER, password, HASHER.hash(password)) is Verdict.MATCH
