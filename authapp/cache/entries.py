"""The encoding of cache entries: a record as bytes, before they are sealed."""

import hashlib
from functools import cache
from typing import Any, Protocol, TypeVar

import msgspec


class Versioned(Protocol):
    """A record with the version of the facts that it shows."""

    @property
    def ver(self) -> int: ...


V = TypeVar("V", bound=Versioned)

# Records are arrays without names, which takes a third of the room.
_encode = msgspec.msgpack.Encoder(uuid_format="bytes").encode
_AS_JSON = b"["  # no array begins so in MessagePack


@cache
def _shape(kind: type[Any]) -> bytes:
    """A hash of the names, order and types of all fields. Another version of authapp may have other
    fields, and its array would fit a record that means something else."""
    return hashlib.sha256(repr(msgspec.inspect.type_info(kind)).encode()).digest()[:4]


@cache
def _decoders(kind: type[Any]) -> tuple[msgspec.msgpack.Decoder[Any], msgspec.json.Decoder[Any]]:
    return msgspec.msgpack.Decoder(kind), msgspec.json.Decoder(kind)


def prepare(kind: type[V]) -> None:
    """Makes what decodes these records. A module that reads them calls it while it is imported.

    msgspec keeps what it knows of a type at the type, and fills it in bit by bit. Threads that
    decode the first records together would find it half made, which ends the process.
    """
    _shape(kind)
    _decoders(kind)


def encode_entry(record: Versioned) -> bytes:
    """The bytes that `decode_entry` reads; `record` is a msgspec record with `array_like`."""
    shape = _shape(type(record))
    try:
        return shape + _encode(record)
    except OverflowError:  # somebody's data has an integer beyond 64 bits, which JSON allows
        return shape + msgspec.json.encode(record)


def decode_entry(value: bytes | None, kind: type[V]) -> V | None:
    """The record in an entry; None without an entry, or if another version of authapp wrote it."""
    if value is None:
        return None
    shape = _shape(kind)
    if not value.startswith(shape):
        return None
    body = value[len(shape) :]
    of_msgpack, of_json = _decoders(kind)
    try:
        found: V = (of_json if body.startswith(_AS_JSON) else of_msgpack).decode(body)
    except msgspec.DecodeError:
        return None
    return found
