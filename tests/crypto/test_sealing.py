"""A sealed value opens for its own key and secret, and for nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authapp.crypto.sealing import Sealer, derive_key

SEALER = Sealer(["a secret"])


@given(key=st.text(), value=st.binary())
def test_opens_what_it_sealed(key: str, value: bytes) -> None:
    sealed = SEALER.seal(key, value)
    assert SEALER.open(key, sealed) == value
    assert len(sealed) == len(value) + 28


@given(key=st.text(), other=st.text(), value=st.binary())
def test_moved_to_another_key_it_does_not_open(key: str, other: str, value: bytes) -> None:
    assert SEALER.open(other, SEALER.seal(key, value)) == (value if key == other else None)


@given(value=st.binary(), data=st.data())
def test_with_any_bit_changed_it_does_not_open(value: bytes, data: st.DataObject) -> None:
    sealed = bytearray(SEALER.seal("key", value))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    assert SEALER.open("key", bytes(sealed)) is None


@given(value=st.binary(), data=st.data())
def test_cut_short_it_does_not_open(value: bytes, data: st.DataObject) -> None:
    sealed = SEALER.seal("key", value)
    length = data.draw(st.integers(0, len(sealed) - 1))
    assert SEALER.open("key", sealed[:length]) is None


@given(planted=st.binary(max_size=200))
def test_what_we_did_not_seal_does_not_open(planted: bytes) -> None:
    assert SEALER.open("key", planted) is None


def test_hides_the_value() -> None:
    value = b"person@example.org"
    sealed = SEALER.seal("key", value)
    assert not any(value[start : start + 4] in sealed for start in range(len(value) - 3))
    assert SEALER.seal("key", value) != sealed, "equal values must not look equal"


@pytest.mark.parametrize(
    ("secrets", "opens"),
    [
        (["old"], True),
        (["new", "old"], True),
        (["new"], False),
        ([], False),
    ],
)
def test_opens_with_every_listed_secret(secrets: list[str], opens: bool) -> None:
    sealed = Sealer(["old"]).seal("key", b"value")
    assert Sealer(secrets).open("key", sealed) == (b"value" if opens else None)


def test_seals_with_the_first_secret() -> None:
    sealed = Sealer(["new", "old"]).seal("key", b"value")
    assert Sealer(["new"]).open("key", sealed) == b"value"
    assert Sealer(["old"]).open("key", sealed) is None


def test_a_derived_key_serves_one_purpose_of_one_secret() -> None:
    keys = {derive_key(secret, purpose) for secret in ("a", "b") for purpose in ("seal", "token")}
    assert len(keys) == 4
    assert all(len(key) == 32 for key in keys)


def test_derived_keys_stay_the_same() -> None:
    """Otherwise an upgrade makes every copy cold, and every token invalid."""
    assert (
        derive_key("a secret", "seal").hex()
        == "ae0558a47c1b8e3974175064bea1024f9787b2dd54469fdb0f77a42eccef359b"
    )
