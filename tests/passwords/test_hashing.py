"""Password hashing: passwords are hashed whole and compared exactly."""

import unicodedata
from uuid import uuid4

import bcrypt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authapp.passwords.block_list import BlockList
from authapp.passwords.hashing import PasswordHasher, Verdict
from authapp.passwords.hashing_queue import HashingQueue
from authapp.passwords.policy import PasswordPolicy
from tests.support.hashing import hashing
from tests.support.people import PASSWORD

PEPPER, OLD_PEPPER = "a pepper of thirty-two bytes, ok", "the pepper before, as long as it"
ROUNDS = 4
QUEUE = HashingQueue(4)
HASHER = PasswordHasher([PEPPER], ROUNDS, QUEUE)
RETIRED = PasswordHasher([OLD_PEPPER], ROUNDS, QUEUE)
ACCOUNT = uuid4()
POLICY = PasswordPolicy(15, BlockList())


def compare(hasher: PasswordHasher, password: str, stored: str) -> Verdict:
    return hasher.verify(password, stored, ACCOUNT).verdict


def verify(password: str, stored: str) -> tuple[Verdict, list[int]]:
    with hashing() as costs:
        return compare(HASHER, password, stored), costs


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


@settings(max_examples=20)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=15, max_size=128))
def test_what_is_taken_can_be_used(password: str) -> None:
    if POLICY.why_refused(password) is None:
        assert compare(HASHER, password, HASHER.hash(password)) is Verdict.MATCH
