"""Context words: found in any spelling, and not within other words."""

import pytest

from authapp.passwords.context_words import ContextWords

WORDS = ContextWords("ada.lovelace@example.org", "Ada King", "Nimbus Notes")


@pytest.mark.parametrize(
    ("text", "kinds", "rest"),
    [
        ("ada.lovelace@example.org", ("your email",), ""),
        ("--ada.lovelace@example.org--7", ("your email",), "7"),
        ("1ove1ace1815", ("your email",), "1815"),
        ("10v314c3", ("your email",), ""),
        ("k1ng_of_hearts", ("your name",), "of_hearts"),
        ("ada2024ada", ("your email",), "2024"),
        ("ada's cat", ("your email",), "s cat"),
        ("nimbus 2024", ("the name of this service",), "2024"),
        ("n!mbu$n0te$", ("the name of this service",), ""),
        ("p4ssw0rd", ('the word "password"',), ""),
        ("admin of nimbus", ("the name of this service", 'the word "admin"'), "of"),
    ],
)
def test_words_are_found_and_the_rest_is_left(text: str, kinds: tuple[str, ...], rest: str) -> None:
    found = WORDS.find(text)
    assert found
    assert (found.kinds, found.rest) == (kinds, rest)


@pytest.mark.parametrize("text", ["canada geese", "adamant", "armadas", "xadax", ""])
def test_the_shortest_words_count_only_alone(text: str) -> None:
    assert WORDS.find(text) is None


def test_nothing_is_known_of_a_person_without_a_name() -> None:
    assert ContextWords("", "", "").find("ada lovelace of nimbus notes") is None
