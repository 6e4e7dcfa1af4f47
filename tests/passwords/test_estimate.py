"""Estimate: a password that is easy to guess is found, in bounded time."""

import random
import string
import threading
from typing import Any

import pytest
from zxcvbn import matching

from authapp.passwords.estimate import ENOUGH, SEEN, estimate
from tests.support.people import PASSWORD

WORDS = [
    "marble",
    "fountain",
    "lantern",
    "purple",
    "elephant",
    "kettle",
    "river",
    "copper",
    "window",
    "garden",
    "button",
    "harbour",
    "velvet",
    "pepper",
    "saddle",
    "thunder",
    "candle",
    "meadow",
    "orchid",
    "puzzle",
]


@pytest.mark.parametrize(("joined", "count"), [(" ", 3), ("-", 3), ("", 4)])
def test_a_few_unrelated_words_are_enough(joined: str, count: int) -> None:
    chance = random.Random(14)
    for _ in range(60):
        phrase = joined.join(chance.sample(WORDS, count))
        assert estimate(phrase).is_enough, phrase


@pytest.mark.parametrize(("letters", "length"), [(string.printable[:94], 10), ("0123456789", 15)])
def test_random_characters_are_enough(letters: str, length: int) -> None:
    chance = random.Random(14)
    for _ in range(60):
        password = "".join(chance.choices(letters, k=length))
        assert estimate(password).is_enough, password


def test_eight_random_characters_are_just_enough() -> None:
    assert estimate("k7Qw9zXp").guesses == ENOUGH


@pytest.mark.parametrize(
    ("password", "weakness"),
    [
        ("summer2024summer!", "common words"),
        ("marblefountains", "common words"),
        ("5umm3r5umm3rt1m3", "in place of letters"),
        ("emitremmusyppah", "backwards"),
        ("qwertyuiop[]asdf", "neighbouring keys"),
        ("aaaaaaaaaaaaaab", "repeats"),
        ("x7q!x7q!x7q!x7q!", "repeats"),
        ("abcdefgh12345678", "sequences"),
        ("01.02.1990", "dates"),
        ("", "too simple"),
    ],
)
def test_the_weakness_is_named(password: str, weakness: str) -> None:
    judged = estimate(password)
    assert not judged.is_enough
    assert weakness in judged.weakness


def test_words_of_the_person_count_as_known() -> None:
    assert estimate("xq7vkzj3wpqx").is_enough
    assert not estimate("xq7vkzj3wpqx", ["xq7vkzj3wpqx"]).is_enough
    assert estimate("xq7vkzj3wpqx").is_enough  # nothing is kept of another caller's words
    assert "xq7vkzj3wpqx" not in str(matching.RANKED_DICTIONARIES.get("user_inputs"))


def test_a_weak_beginning_does_not_spoil_a_strong_end() -> None:
    assert estimate("x" * 90 + PASSWORD).is_enough
    assert estimate(PASSWORD + "x" * 90).is_enough
    assert not estimate("x" * 90 + "abcd").is_enough


SLOWEST = {
    "signs for letters": "4@8({[<3691!|0$5+7%2",
    "repeated signs": "4@8({[<3691!|70$5+%2" * 2,
    "letters and signs": "p4ssw0rd1!|2%$5+7<({[89636@",
    "digits": "1112111311141115",
    "one digit": "1",
    "dates": "11.11.1991",
    "words": "erandthe",
}


@pytest.mark.parametrize("unit", SLOWEST.values(), ids=SLOWEST.keys())
def test_the_work_is_bounded(unit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """zxcvbn itself looks a text of 40 signs up millions of times, and takes seconds."""
    looked_up = 0

    def counted(text: str, _ranked_dictionaries: dict[str, dict[str, int]]) -> Any:
        nonlocal looked_up
        looked_up += len(_ranked_dictionaries) * len(text) ** 2 // 2
        assert len(text) <= SEEN
        return plain(text, _ranked_dictionaries)

    plain = matching.dictionary_match
    monkeypatch.setattr(matching, "dictionary_match", counted)
    estimate((unit * 200)[:128])
    assert looked_up < 60_000, looked_up


def test_threads_do_not_see_each_others_words() -> None:
    wrong = []

    def ask(own: str) -> None:
        for _ in range(30):
            if estimate(own, [own]).is_enough or not estimate(own[::-1] + "q", ()).is_enough:
                wrong.append(own)

    threads = [threading.Thread(target=ask, args=(f"zkq{n}vxw{n}jpf",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
