"""Block list: common and breached passwords are refused, and those that an operator adds."""

import hashlib
import random
import re
from pathlib import Path

import pytest

from authapp.errors import SettingError
from authapp.passwords import block_list
from authapp.passwords.block_list import (
    COMMON_PASSWORDS,
    MAX_FILE,
    PREFIXES,
    REST,
    SHORTEST,
    BlockList,
    folded,
)
from authapp.passwords.policy import PasswordPolicy
from tools.block_list import SOURCES, pack

# Of both lists, most frequent first: the first ones with 15 characters or more, and with 8 to 14.
LONG = [
    "Mailcreated5240",
    "PolniyPizdec0211",
    "123456789987654321",
    "1qaz2wsx3edc4rfv",
    "123456789123456789",
    "momsanaladventure",
    "Hd764nW5d7E1vb1",
    "qazwsxedcrfvtgb",
    "23176djivanfros",
    "123456789qwerty",
    "zQjphsyf6ctifgu",
    "12345678987654321",
    "lhbjkjubz2957704",
    "q1w2e3r4t5y6u7i8",
    "1qazxsw23edcvfr4",
    "nEMvXyHeqDd5OQxyXYZI",
    "passwordstandard",
    "bpgjldsgjldthnf",
    "1qa2ws3ed4rf5tg",
    "1234qwerasdfzxcv",
    "122333444455555",
    "111222333444555",
    "qwertasdfgzxcvb",
    "q1w2e3r4t5y6u7i8o9p0",
    "ne_e_pod_chehyl",
    "1234567887654321",
    "zxcvbnm123456789",
    "hjpjxrf23062007",
    "420842084208555",
    "lytdybrbdfvgbhf",
    "perasperaadastra",
    "30secondstomars",
    "1324354657687980",
    "karmaone1234567",
    "britneyspears09",
    "diamondprincess",
    "beautifulnsaved",
    "krebsonsecurity",
    "midnightdancing",
]
SHORT = [
    "baseball",
    "football",
    "superman",
    "trustno1",
    "jordan23",
    "iloveyou",
    "whatever1",
    "liverpool",
]


@pytest.mark.parametrize("password", [*LONG, *(word.upper() for word in LONG), *SHORT])
def test_a_breached_password_is_refused(password: str) -> None:
    refused = PasswordPolicy(SHORTEST, BlockList()).why_refused(password)
    assert refused
    assert refused.startswith(("it is among the first passwords", "it is a run of neighbouring"))


def test_the_file_is_the_one_that_its_description_names() -> None:
    content = COMMON_PASSWORDS.read_bytes()
    described = COMMON_PASSWORDS.with_suffix(".md").read_text("utf-8")
    assert hashlib.sha256(content).hexdigest() in described
    assert all(source.sha256 in described for source in SOURCES)
    count = sum(content[:PREFIXES])
    assert len(content) == PREFIXES + REST * count
    assert f"{count:,} passwords of {SHORTEST} characters or more" in described
    assert max(content[:PREFIXES]) < 255  # a fuller prefix would not fit into its byte


def test_other_passwords_are_refused_by_chance_once_in_a_million_at_most() -> None:
    count = sum(COMMON_PASSWORDS.read_bytes()[:PREFIXES])
    assert count / 2**40 < 1e-6
    found, chance = BlockList(), random.Random(14)
    phrases = (" ".join(chance.choices(LONG, k=3)) + str(n) for n in range(50_000))
    assert sum(map(found.is_common, phrases)) <= 1


def test_what_is_packed_is_found_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [f"passphrase {n}" for n in range(2_000)]
    (tmp_path / "few.bin").write_bytes(pack([*known, "short"]))
    monkeypatch.setattr(block_list, "COMMON_PASSWORDS", tmp_path / "few.bin")
    block_list._common_passwords.cache_clear()
    try:
        assert all(map(BlockList().is_common, known))
        assert not any(BlockList().is_common(f"other phrase {n}") for n in range(2_000))
        assert not BlockList().is_common("short")
    finally:
        block_list._common_passwords.cache_clear()


def test_an_entry_is_no_part_of_two_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = bytearray(PREFIXES)
    counts[7] = 2
    (tmp_path / "two.bin").write_bytes(bytes(counts) + b"abcdef")
    monkeypatch.setattr(block_list, "COMMON_PASSWORDS", tmp_path / "two.bin")
    monkeypatch.setattr(block_list, "split_hash", lambda rest: (7, rest.encode()))
    block_list._common_passwords.cache_clear()
    try:
        assert [rest for rest in ("abc", "bcd", "cde", "def") if BlockList().is_common(rest)] == [
            *("abc", "def")
        ]
    finally:
        block_list._common_passwords.cache_clear()


def test_an_operators_list_counts_whole_and_in_any_case(tmp_path: Path) -> None:
    file = tmp_path / "list.txt"
    lines = "\ufeffGreen Lanterns Ahoy\r\n\n# a comment, of no account\n"
    lines += "#hashtag of the year\n  Straße nach Süden  \n"
    file.write_text(lines, encoding="utf-8")
    policy = PasswordPolicy(15, BlockList(str(file)))
    assert len(BlockList(str(file))) == 3
    for password in (
        *("Green Lanterns Ahoy", "green lanterns ahoy", "GREEN LANTERNS AHOY" * 2),
        *("#hashtag of the year", "STRASSE NACH SÜDEN", "ｇreen lanterns ahoy"),
    ):
        assert "nobody may use here" in (policy.why_refused(password) or "taken"), password
    others = (f"green lanterns ahoy, number {n}" for n in range(20))
    for password in ("green lanterns ahoy!", "a comment, of no account", *others):
        assert policy.why_refused(password) is None
    assert PasswordPolicy(15, BlockList()).why_refused("green lanterns ahoy") is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file or directory; set it to the path of a text file"),
        (b"caf\xe9 au lait\n", "is not UTF-8; set it to the path of a text file"),
        (b"x" * (MAX_FILE + 1), "is longer than 4 MiB; keep the passwords that are most common"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused_with_the_remedy(
    tmp_path: Path, content: bytes | None, told: str
) -> None:
    file = tmp_path / "list.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SettingError, match=re.escape(told)) as refused:
        BlockList(str(file))
    assert str(refused.value).startswith("PASSWORD_BLOCKLIST: ")
    with pytest.raises(SettingError, match="PASSWORD_BLOCKLIST: "):
        BlockList(str(tmp_path))  # a directory


def test_folding_removes_case_and_width() -> None:
    assert folded("ＰａSSwörd") == folded("passwörd") == folded("PASSWO\u0308RD")
