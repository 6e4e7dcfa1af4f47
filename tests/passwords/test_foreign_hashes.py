"""Hashes of other systems: read in every form, bounded before any hashing, sealed at rest."""

import hashlib
import sys
import unicodedata
from uuid import uuid4

import bcrypt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from authapp.errors import Busy
from authapp.passwords.foreign_hashes import (
    MAX_LENGTH,
    MAX_SECONDS,
    UnreadableHash,
    read_hash,
    typed_forms,
)
from authapp.passwords.hashing import PasswordHasher, Verdict
from authapp.passwords.hashing_queue import HashingQueue
from tests.support.events import logged_events
from tests.support.foreign_hashes import KINDS, all_kinds

PASSWORD = "pässwörd 1"
HASHES = all_kinds(PASSWORD)
PEPPER, OLD_PEPPER = "a pepper of thirty-two bytes, ok", "the pepper before, as long as it"
QUEUE = HashingQueue(4)
HASHER = PasswordHasher([PEPPER], 4, QUEUE)
ACCOUNT = uuid4()


def verdict_of(password: str, text: str, hasher: PasswordHasher = HASHER) -> Verdict:
    """The verdict of log-in, for a hash that was imported as this text."""
    return hasher.verify(password, HASHER.seal_imported(ACCOUNT, text), ACCOUNT).verdict


# -- every form ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_hash_of_another_system_opens_to_its_password_alone(kind: str) -> None:
    assert verdict_of(PASSWORD, HASHES[kind]) is Verdict.MATCH_REHASH
    for wrong in ("pässwörd 2", "", "Pässwörd 1", PASSWORD + " "):
        assert verdict_of(wrong, HASHES[kind]) is Verdict.MISMATCH, wrong


@pytest.mark.parametrize("kind", KINDS)
def test_passwords_that_surprise_libraries_are_compared_all_the_same(kind: str) -> None:
    long = "ü" * 36
    stored = all_kinds(long)[kind]
    assert verdict_of(long, stored) is Verdict.MATCH_REHASH
    for other in ("x" * 5_000, "\ud800", "a\x00b", "\u1f82" * 1_000):
        assert verdict_of(other, stored) is Verdict.MISMATCH


def test_bcrypt_compares_72_bytes_as_it_did_there() -> None:
    stored = bcrypt.hashpw(b"x" * 72, bcrypt.gensalt(4)).decode()
    assert verdict_of("x" * 72, stored) is Verdict.MATCH_REHASH
    assert verdict_of("x" * 72 + "more", stored) is Verdict.MATCH_REHASH
    assert verdict_of("x" * 71, stored) is Verdict.MISMATCH


def test_unused_bits_of_a_salt_mean_nothing() -> None:
    """PHP's crypt takes any 22 characters as a salt, of which the last one has four unused bits."""
    stored = bcrypt.hashpw(PASSWORD.encode(), b"$2b$04$" + b"a" * 21 + b"O").decode()
    assert verdict_of(PASSWORD, stored[:28] + "P" + stored[29:]) is Verdict.MATCH_REHASH


def test_what_was_typed_is_compared_exactly_and_then_after_nfc() -> None:
    composed = unicodedata.normalize("NFC", PASSWORD)
    decomposed = unicodedata.normalize("NFD", PASSWORD)
    for stored_for, typed, verdict in [
        (composed, decomposed, Verdict.MATCH_REHASH),
        (decomposed, decomposed, Verdict.MATCH_REHASH),
        (decomposed, composed, Verdict.MISMATCH),  # nobody can know what the device made of it
    ]:
        stored = bcrypt.hashpw(stored_for.encode(), bcrypt.gensalt(4)).decode()
        assert verdict_of(typed, stored) is verdict
    assert len(typed_forms(composed)) == 1


# -- bounds ----------------------------------------------------------------------------------------

S16, D32 = "c2FsdHNhbHRzYWx0c2FsdA", "ZGlnZXN0ZGlnZXN0ZGlnZXN0ZGlnZXN0"
HEX32, HEX64 = "ab" * 32, "ab" * 64

TOO_DEAR = {
    "bcrypt": "$2b$15$" + "a" * 21 + "O" + "b" * 30 + "a",
    "bcrypt-31": "$2b$31$" + "a" * 21 + "O" + "b" * 30 + "a",
    "django-bcrypt": "bcrypt_sha256$$2b$31$" + "a" * 21 + "O" + "b" * 30 + "a",
    "passlib-bcrypt": "$bcrypt-sha256$v=2,t=2b,r=31$" + "a" * 21 + "O$" + "b" * 30 + "a",
    "pbkdf2": f"pbkdf2:sha256:9000000$salt${HEX32}",
    "pbkdf2-most": f"pbkdf2:sha1:999999999$salt${HEX32[:40]}",
    "django-pbkdf2": f"pbkdf2_sha256$9000000$salt${D32}",
    "passlib-pbkdf2": f"$pbkdf2-sha512$9000000${S16}${D32}",
    "scrypt-n": f"scrypt:8388608:1:8$salt${HEX64}",
    "scrypt-p": f"scrypt:16384:8:99$salt${HEX64}",
    "scrypt-r": f"scrypt:2:999:999$salt${HEX64}".replace("scrypt:2:", "scrypt:1024:"),
    "django-scrypt": f"scrypt$16384$salt$8$99${D32}",
    "passlib-scrypt": f"$scrypt$ln=99,r=8,p=1${S16}${D32}",
    "argon2-t": f"$argon2id$v=19$m=65536,t=999999999,p=4${S16}${D32}",
    "argon2-m": f"$argon2id$v=19$m=999999999,t=1,p=4${S16}${D32}",
    "argon2-memory": f"$argon2id$v=19$m=524288,t=1,p=4${S16}${D32}",
    "django-argon2": f"argon2$argon2id$v=19$m=65536,t=999,p=4${S16}${D32}",
}


@pytest.mark.parametrize("text", TOO_DEAR.values(), ids=TOO_DEAR)
def test_a_hash_that_costs_too_much_is_refused_without_hashing(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashed(*_: object, **__: object) -> None:
        raise AssertionError("nothing may be hashed")

    for module, name in [
        (bcrypt, "hashpw"),
        (bcrypt, "checkpw"),
        (hashlib, "pbkdf2_hmac"),
        (hashlib, "scrypt"),
    ]:
        monkeypatch.setattr(module, name, hashed)
    with pytest.raises(UnreadableHash, match=r"one comparison would take|no such parameters"):
        read_hash(text)


DAMAGED = {
    "empty": "",
    "plain": "plain$secret",
    "md5": "md5$salt$0cc175b9c0f1b6a831c399e269772661",
    "sha1": "5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8",
    "django-unsalted": "sha1$$5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8",
    "bcrypt-short": "$2b$04$" + "a" * 52,
    "bcrypt-long": "$2b$04$" + "a" * 54,
    "bcrypt-2x": "$2x$04$" + "a" * 53,
    "bcrypt-rounds": "$2b$03$" + "a" * 53,
    "bcrypt-line-end": HASHES["flask-bcrypt"] + "\n",
    "pbkdf2-none": f"pbkdf2:sha256:0$salt${HEX32}",
    "pbkdf2-md5": f"pbkdf2:md5:1000$salt${HEX32[:32]}",
    "pbkdf2-odd": f"pbkdf2:sha256:1000$salt${HEX32}a",
    "pbkdf2-one-byte": "pbkdf2:sha256:1000$salt$ab",
    "pbkdf2-long": f"pbkdf2:sha256:1000$salt${HEX64}",
    "pbkdf2-base64": "pbkdf2_sha256$1000$salt$" + "a" * 29,
    "scrypt-not-a-power": f"scrypt:1000:8:1$salt${HEX64}",
    "scrypt-zero": f"scrypt:0:8:1$salt${HEX64}",
    "scrypt-r-zero": f"scrypt:256:0:1$salt${HEX64}",
    "scrypt-n-beyond-r": f"scrypt:65536:1:1$salt${HEX64}",
    "scrypt-short": "scrypt:256:8:1$salt$abab",
    "argon2-lanes": f"$argon2id$v=19$m=65536,t=1,p=200${S16}${D32}",
    "argon2-memory": f"$argon2id$v=19$m=8,t=1,p=4${S16}${D32}",
    "argon2-passes": f"$argon2id$v=19$m=64,t=0,p=4${S16}${D32}",
    "argon2-salt": f"$argon2id$v=19$m=64,t=1,p=4$YQ${D32}",
    "argon2-digest": f"$argon2id$v=19$m=64,t=1,p=4${S16}$YWFh",
    "argon2-version": f"$argon2id$v=1$m=64,t=1,p=4${S16}${D32}",
    "argon2-end": f"$argon2id$v=19$m=64,t=1,p=4${S16[:-1]}B${D32}",
    "not-ascii": f"pbkdf2:sha256:1000$sält${HEX32}",
    "surrogate": f"pbkdf2:sha256:1000$s\ud800lt${HEX32}",
    "endless": "$2b$04$" + "a" * MAX_LENGTH,
}


@pytest.mark.parametrize("text", DAMAGED.values(), ids=DAMAGED)
def test_a_hash_that_can_not_be_compared_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(UnreadableHash) as refused:
        read_hash(text)
    assert len(str(refused.value)) > 10


_PIECES = st.sampled_from(
    [*"$:,=./0aZ", "$2b$04$", "pbkdf2", "_sha256", "scrypt", "argon2id", "ln=1", "v=19", "m=64"]
)


@settings(max_examples=300)
@given(st.one_of(st.text(), st.lists(_PIECES).map("".join)))
@example("$2b$04$" + "a" * 53)
def test_no_text_makes_reading_fail_otherwise_and_what_is_read_never_raises(text: str) -> None:
    try:
        foreign = read_hash(text)
    except UnreadableHash:
        return
    assert 0 < foreign.seconds <= MAX_SECONDS
    foreign.matches(b"x")


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_hash_is_refused_or_never_raises(kind: str) -> None:
    """Each character changed in turn: whatever is imported, log-in can compare."""
    text = HASHES[kind]
    for place in range(len(text)):
        for character in "$0z":
            try:
                foreign = read_hash(text[:place] + character + text[place + 1 :])
            except UnreadableHash:
                continue
            if foreign.seconds < 0.002:
                foreign.matches(PASSWORD.encode())


# -- at rest ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_stored_shows_nothing_of_the_hash(kind: str) -> None:
    stored = HASHER.seal_imported(ACCOUNT, HASHES[kind])
    assert stored.startswith("imported:")
    assert HASHES[kind][-16:] not in stored
    assert stored != HASHER.seal_imported(ACCOUNT, HASHES[kind])


def test_a_hash_is_bound_to_its_account_and_to_the_pepper() -> None:
    stored = HASHER.seal_imported(ACCOUNT, HASHES["flask-bcrypt"])
    assert HASHER.verify(PASSWORD, stored, ACCOUNT).verdict is Verdict.MATCH_REHASH
    assert HASHER.verify(PASSWORD, stored, uuid4()).verdict is Verdict.MISMATCH
    rotated = PasswordHasher(["a newer pepper of 32 bytes or more", PEPPER], 4, QUEUE)
    assert rotated.verify(PASSWORD, stored, ACCOUNT).verdict is Verdict.MATCH_REHASH
    retired = PasswordHasher([OLD_PEPPER], 4, QUEUE)
    assert retired.verify(PASSWORD, stored, ACCOUNT).verdict is Verdict.MISMATCH


@pytest.mark.parametrize(
    "stored",
    ["imported:", "imported:bcrypt:1:", "imported:bcrypt:1:****", "imported:bcrypt:1:YWFh", ""],
)
def test_a_stored_hash_that_was_damaged_is_a_mismatch(stored: str) -> None:
    assert HASHER.verify(PASSWORD, stored, ACCOUNT).verdict is Verdict.MISMATCH


def test_without_the_library_an_argon2_hash_is_a_mismatch_and_the_log_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = HASHER.seal_imported(ACCOUNT, HASHES["argon2id"])
    monkeypatch.setitem(sys.modules, "argon2", None)
    with logged_events() as logs:
        assert HASHER.verify(PASSWORD, stored, ACCOUNT).verdict is Verdict.MISMATCH
    (line,) = logs
    assert line["event"] == "imported_hash_not_compared"
    assert "authapp[import]" in line["remedy"]


def test_memory_that_runs_out_says_nothing_about_a_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_memory(*_: object, **__: object) -> bytes:
        raise MemoryError

    stored = HASHER.seal_imported(ACCOUNT, HASHES["werkzeug-scrypt"])
    monkeypatch.setattr(hashlib, "scrypt", no_memory)
    with pytest.raises(Busy):
        HASHER.verify(PASSWORD, stored, ACCOUNT)


# -- the time of a refusal -------------------------------------------------------------------------


def test_refusals_are_drawn_out_while_there_are_imported_hashes_alone() -> None:
    hasher = PasswordHasher([PEPPER], 4, QUEUE)
    assert hasher.refusal_seconds(0.0, "x") == 0
    assert hasher.refusal_seconds(0.4, "x") >= 0.4
    assert hasher.refusal_seconds(0.4, "a\u0308") >= 0.8, "two forms are compared"
    assert hasher.refusal_seconds(1.0, "a\u0308") <= 2.0
    slow = PasswordHasher([PEPPER], 12, QUEUE)
    assert slow.refusal_seconds(0.001, "x") > 0.2, "our own hash may be the slowest"


def test_a_process_that_hashes_slowly_draws_refusals_out_further() -> None:
    hasher = PasswordHasher([PEPPER], 4, QUEUE)
    before = hasher.refusal_seconds(0.2, "x")
    # 200,000 iterations were estimated, and ten times as many are done
    hasher._run(lambda: hashlib.pbkdf2_hmac("sha256", b"x", b"salt", 2_000_000), 0.05)
    assert hasher.refusal_seconds(0.2, "x") > before * 1.5
